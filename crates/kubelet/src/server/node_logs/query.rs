//! Queries of node logs (KEP-2258). Pure.

use apimachinery::field::{Error, Errors, Path};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::server::query::pairs;

/// Most lines from the end.
const LINES: i64 = 100_000;
/// Most services at once, and most characters of the name of one.
const SERVICES: usize = 4;
const NAME: usize = 256;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) services: Vec<String>,
    files: Vec<String>,
    options: Options,
}

/// What of the logs of services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    tail: Option<i64>,
    boot: Option<i64>,
    pattern: String,
}

impl Query {
    /// Reads the query of a request. None: it asks for nothing of this.
    pub(super) fn parse(query: &str) -> Result<Option<Self>, Errors> {
        let (mut read, mut errors, mut asked) = (Self::default(), Errors::new(), None::<Vec<String>>);
        let pairs: Vec<(String, String)> = pairs(query).collect();
        for (_, text) in pairs.iter().filter(|(name, _)| name == "query") {
            asked.get_or_insert_default().push(text.clone());
            // What has a slash is a file.
            match () {
                () if text.contains(['/', '\\']) => read.files.push(text.replace('\\', "/")),
                () if text.trim().is_empty() => {}
                () => read.services.push(text.clone()),
            }
        }
        if let Some(asked) = asked.filter(|_| read.files.is_empty() && read.services.is_empty()) {
            errors.push(Error::invalid(&Path::new("query"), json!(asked), "query cannot be empty"));
        }
        let first = |name: &str| pairs.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value);
        let mut time = |name: &str| {
            let text = first(name)?;
            let read = text.parse::<Timestamp>().ok();
            if read.is_none() {
                errors.push(Error::invalid(&Path::new(name), text.as_str(), "invalid time format"));
            }
            read
        };
        (read.options.since, read.options.until) = (time("sinceTime"), time("untilTime"));
        let mut number = |name: &str| {
            let text = first(name)?;
            let read = text.parse::<i64>();
            if let Err(error) = &read {
                errors.push(Error::invalid(&Path::new(name), text.as_str(), error.to_string()));
            }
            read.ok()
        };
        (read.options.boot, read.options.tail) = (number("boot"), number("tailLines"));
        read.options.pattern = first("pattern").cloned().unwrap_or_default();
        match errors.is_empty() {
            true => Ok(Some(read).filter(|read| *read != Self::default())),
            false => Err(errors),
        }
    }

    /// The file that is asked for, if it is one. Upstream's rules.
    pub(super) fn check(&self) -> Result<Option<&str>, Errors> {
        let (mut errors, path) = (Errors::new(), Path::new("query"));
        let mut refuse = |value: Value, why: &str| errors.push(Error::invalid(&path, value, why));
        for service in &self.services {
            if service.len() > NAME {
                refuse(json!(service), "length must be less than 256");
            } else if !service.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_@".contains(&byte)) {
                refuse(json!(service), "input contains unsupported characters");
            }
        }
        match (self.files.as_slice(), self.services.as_slice()) {
            ([], []) => errors.push(Error::required(&path, "cannot be empty with options")),
            ([_, ..], [_, ..]) => {
                refuse(json!([&self.files[..], &self.services[..]].concat()), "cannot specify a file and service");
            }
            ([_, _, ..], []) => refuse(json!(self.files), "cannot specify more than one file"),
            ([_], []) if self.has_options() => refuse(json!(self.files), "cannot specify file with options"),
            _ => {}
        }
        if self.services.len() > SERVICES {
            errors.push(Error::too_many(&path, self.services.len(), SERVICES));
        }
        let Options { since, until, tail, boot, .. } = &self.options;
        if since.zip(*until).is_some_and(|(since, until)| since > until) {
            errors.push(Error::invalid(&Path::new("untilTime"), json!(until), "must be after `sinceTime`"));
        }
        if let Some(boot) = boot.filter(|boot| *boot > 0) {
            errors.push(Error::invalid(&Path::new("boot"), boot, "must be less than 1"));
        }
        if let Some(tail) = tail.filter(|tail| !(0..=LINES).contains(tail)) {
            errors.push(Error::invalid(&Path::new("tailLines"), tail, format!("must be between 0 and {LINES}, inclusive")));
        }
        match errors.is_empty() {
            true => Ok(self.files.first().map(String::as_str)),
            false => Err(errors),
        }
    }

    /// Whether only a part of logs is asked for, as files have none.
    pub(super) fn has_options(&self) -> bool {
        self.options != Options::default()
    }

    /// What journalctl(1) is asked. All that comes from the request stands behind the `=` of an option.
    pub(super) fn arguments(&self, services: &[&str]) -> Vec<String> {
        let Options { since, until, tail, boot, pattern } = &self.options;
        let mut all = vec!["--utc".to_owned(), "--no-pager".to_owned(), "--output=short-precise".to_owned()];
        let time = |name: &str, time: &Timestamp| format!("--{name}={} UTC", time.strftime("%Y-%m-%d %H:%M:%S"));
        all.extend(since.iter().map(|since| time("since", since)));
        all.extend(until.iter().map(|until| time("until", until)));
        all.extend(tail.map(|tail| format!("--lines={tail}")));
        all.extend(services.iter().map(|service| format!("--unit={service}")));
        all.extend((!pattern.is_empty()).then(|| format!("--grep={pattern}")));
        all.extend(boot.map(|boot| format!("--boot={boot}")));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors of a query, one after the other.
    fn errors(errors: &Errors) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[track_caller]
    fn check(query: &str, expected: Result<Option<&str>, &str>) {
        let read = Query::parse(query).unwrap().unwrap();
        assert_eq!(read.check().map_err(|refused| errors(&refused)), expected.map_err(str::to_owned), "{query}");
    }

    #[test]
    fn what_asks_for_nothing_is_no_query() {
        assert_eq!(Query::parse(""), Ok(None));
        assert_eq!(Query::parse("tailLines=&other=1"), Ok(None));
        let refused = |query: &str| errors(&Query::parse(query).unwrap_err());
        assert_eq!(refused("query=+"), "query: Invalid value: [\" \"]: query cannot be empty");
        assert_eq!(refused("query=a&sinceTime=now"), "sinceTime: Invalid value: \"now\": invalid time format");
        assert_eq!(refused("query=a&boot=x"), "boot: Invalid value: \"x\": invalid digit found in string");
    }

    /// Upstream's cases of `Test_validate` and its kind.
    #[test]
    fn upstreams_rules() {
        check("query=kubelet", Ok(None));
        check("query=kubelet&query=containerd&tailLines=100000&boot=-1&pattern=foo", Ok(None));
        check("query=/foo.log", Ok(Some("/foo.log")));
        check("query=foo%5Cbar.log", Ok(Some("foo/bar.log")));
        check("tailLines=1", Err("query: Required value: cannot be empty with options"));
        check("query=/a.log&query=b", Err("query: Invalid value: [\"/a.log\",\"b\"]: cannot specify a file and service"));
        check(
            "query=/a.log&query=/b.log",
            Err("query: Invalid value: [\"/a.log\",\"/b.log\"]: cannot specify more than one file"),
        );
        check("query=/a.log&boot=0", Err("query: Invalid value: [\"/a.log\"]: cannot specify file with options"));
        check("query=a&boot=1", Err("boot: Invalid value: 1: must be less than 1"));
        check("query=a&tailLines=100001", Err("tailLines: Invalid value: 100001: must be between 0 and 100000, inclusive"));
        check("query=a&tailLines=-1", Err("tailLines: Invalid value: -1: must be between 0 and 100000, inclusive"));
        let times = "query=a&sinceTime=2026-01-02T00:00:00Z&untilTime=2026-01-01T00:00:00Z";
        check(times, Err("untilTime: Invalid value: \"2026-01-01T00:00:00Z\": must be after `sinceTime`"));
        check("query=a&query=b&query=c&query=d&query=e", Err("query: Too many: 5: must have at most 4 items"));
        let long = "x".repeat(257);
        check(&format!("query={long}"), Err(&format!("query: Invalid value: \"{long}\": length must be less than 256")));
    }

    /// What a name can hold must not become another option, a command or a path.
    #[test]
    fn names_of_services_are_plain() {
        for name in ["foo bar", "foo;ls", "foo$(ls)", "foo\nbar", "foo=bar", "foo*", "a\u{0}b", "föö", "foo.service"] {
            let read = Query { services: vec![name.to_owned()], ..Query::default() };
            assert!(errors(&read.check().unwrap_err()).ends_with("input contains unsupported characters"), "{name:?}");
        }
        check("query=getty@tty1", Ok(None));
    }

    #[test]
    fn the_journal_is_asked_in_options() {
        let read = Query::parse("query=kubelet&query=docker").unwrap().unwrap();
        let always = ["--utc", "--no-pager", "--output=short-precise"];
        assert_eq!(read.arguments(&["kubelet"]), [&always[..], &["--unit=kubelet"]].concat());
        let query = "query=a&sinceTime=2026-01-02T03:04:05%2B01:00&untilTime=2026-01-02T03:04:05Z&tailLines=5&boot=-1&pattern=--file%3D/x";
        let read = Query::parse(query).unwrap().unwrap();
        let expected = [
            "--since=2026-01-02 02:04:05 UTC",
            "--until=2026-01-02 03:04:05 UTC",
            "--lines=5",
            "--unit=a",
            "--unit=b",
            "--grep=--file=/x",
            "--boot=-1",
        ];
        assert_eq!(read.arguments(&["a", "b"]), [&always[..], &expected[..]].concat());
    }
}
