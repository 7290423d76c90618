//! The options of `pods/log`, as upstream validates them (ValidatePodLogOptions).

use apimachinery::Status;
use apimachinery::field::{Error, Errors, Path};

use crate::query::Query;

/// The streams that may be named.
const STREAMS: [&str; 3] = ["All", "Stderr", "Stdout"];

/// Refuses options that contradict each other or are out of range. What is no number is left to the kubelet.
pub(super) fn check(query: &Query, pod: &str) -> Result<(), Status> {
    // What upstream calls a path of one empty name.
    let (mut errors, whole) = (Errors::new(), Path::new("[]"));
    let number = |name: &str| query.get(name).filter(|text| !text.is_empty()).and_then(|text| text.parse::<i64>().ok());
    let mut at_least = |name: &str, least: i64, detail: &str| {
        if let Some(number) = number(name).filter(|number| *number < least) {
            errors.push(Error::invalid(&Path::new(name), number, detail));
        }
    };
    at_least("tailLines", 0, "must be greater than or equal to 0");
    at_least("limitBytes", 1, "must be greater than 0");
    let is_set = |name: &str| query.get(name).is_some_and(|text| !text.is_empty());
    if is_set("sinceSeconds") && is_set("sinceTime") {
        errors.push(Error::forbidden(&whole, "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    } else {
        at_least("sinceSeconds", 1, "must be greater than 0");
    }
    if let Some(stream) = query.get("stream") {
        if !STREAMS.contains(&stream) {
            errors.push(Error::not_supported(&Path::new("stream"), stream, &STREAMS));
        } else if stream != "All" && is_set("tailLines") {
            errors.push(Error::forbidden(&whole, "`tailLines` and specific `stream` are mutually exclusive for now"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "PodLogOptions", pod, &errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let check = |query: &str, expected: &[&str]| {
            let found = check(&Query::parse(query), "p").err();
            let causes = found.iter().filter_map(|status| status.details.as_ref()).flat_map(|details| &details.causes);
            let causes: Vec<_> = causes.map(|cause| cause.message.as_str()).collect();
            assert_eq!(causes, expected, "{query}");
        };
        check("", &[]);
        check("follow=true&tailLines=0&limitBytes=1&sinceSeconds=1&stream=All", &[]);
        check("stream=Stdout", &[]);
        check("sinceTime=2026-01-01T00:00:00Z", &[]);
        check("tailLines=-1", &["Invalid value: -1: must be greater than or equal to 0"]);
        check("limitBytes=0", &["Invalid value: 0: must be greater than 0"]);
        check("sinceSeconds=0", &["Invalid value: 0: must be greater than 0"]);
        check(
            "sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z",
            &["Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"],
        );
        check("stream=Foo", &["Unsupported value: \"Foo\": supported values: \"All\", \"Stderr\", \"Stdout\""]);
        check("stream=Stderr&tailLines=1", &["Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"]);
    }
}
