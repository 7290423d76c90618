//! What there is of certificates in a data directory, and what of them needs somebody's attention. Pure.

use std::fmt::Write;

use base::tls::{Certificate, inspect};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// What ends sooner needs attention, unless it is renewed by itself.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Who renews a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Renewal {
    /// The server, as long as it runs, and when it starts.
    Server,
    /// The agent, as long as it runs and the server answers.
    Agent,
    /// Nobody does it by itself.
    Nobody,
}

/// Whose word a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Chain {
    /// That of the authority in use, or it is that one.
    Present,
    /// That of another authority that is trusted still, or it is such a one.
    Former,
    /// Of nobody whom the cluster trusts.
    Unknown,
}

/// What a file of certificates is for, and the file of the authorities that issue them.
struct Known {
    file: &'static str,
    purpose: &'static str,
    authority: &'static str,
    renewal: Renewal,
}

const CLUSTER: &str = "pki/ca.crt";
const FRONT_PROXY: &str = "pki/front-proxy-ca.crt";
const TRUSTED: &str = "pki/server-ca.crt";
/// The administrator's configuration, which has a certificate in it.
pub(crate) const KUBECONFIG: &str = "kubeconfig";

const fn known(file: &'static str, purpose: &'static str, authority: &'static str, renewal: Renewal) -> Known {
    Known { file, purpose, authority, renewal }
}

/// Files of a server's data directory.
const OF_SERVER: [Known; 7] = [
    known(CLUSTER, "the cluster's authority", CLUSTER, Renewal::Nobody),
    known(FRONT_PROXY, "the authority of requests to other API servers", FRONT_PROXY, Renewal::Nobody),
    known("pki/apiserver.crt", "the API server's endpoint", CLUSTER, Renewal::Server),
    known("pki/kubelet.crt", "the endpoint of this node's kubelet", CLUSTER, Renewal::Server),
    known("pki/admin.crt", "the administrator", CLUSTER, Renewal::Server),
    known(KUBECONFIG, "the administrator's kubeconfig", CLUSTER, Renewal::Server),
    known("pki/front-proxy-client.crt", "requests to other API servers", FRONT_PROXY, Renewal::Server),
];

/// Files of an agent's.
const OF_AGENT: [Known; 3] = [
    known(TRUSTED, "the cluster's authority, as the server has told it", TRUSTED, Renewal::Nobody),
    known("pki/kubelet-client.crt", "this node, as a client of the API", TRUSTED, Renewal::Agent),
    known("pki/kubelet.crt", "the endpoint of this node's kubelet", TRUSTED, Renewal::Agent),
];

/// A file with certificates: its name within the data directory and its text, or why that cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) text: Result<String, String>,
}

/// A certificate, or a file that holds none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    file: String,
    /// What it is for.
    purpose: String,
    is_authority: bool,
    subject: String,
    issuer: String,
    usages: Vec<String>,
    names: Vec<String>,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    /// Whole days until it ends; less than none when it has ended.
    days_left: i64,
    renewed_by: Renewal,
    authority: Chain,
    /// What somebody should do something about.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// All there is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Whether a server or an agent works with the directory.
    pub(crate) is_running: bool,
    /// Whether new authorities have been made, and those before them are trusted still.
    pub(crate) is_rotating: bool,
    /// How many keys of ServiceAccounts' tokens there are; the first one signs.
    pub(crate) service_account_keys: usize,
    pub(crate) certificates: Vec<Row>,
}

/// Looks at files of a data directory. Of a file with several certificates, those of authorities are rows each, and of others the first one is.
pub(crate) fn rows(files: &[File], now: Timestamp) -> Vec<Row> {
    let is_server = files.iter().any(|file| file.name == CLUSTER);
    let known: &[Known] = if is_server { &OF_SERVER } else { &OF_AGENT };
    let other = self::known("", "none of Knarr's", if is_server { CLUSTER } else { TRUSTED }, Renewal::Nobody);
    let place = |file: &File| known.iter().position(|known| known.file == file.name).unwrap_or(known.len());
    let mut sorted: Vec<&File> = files.iter().collect();
    sorted.sort_by_key(|file| (place(file), &file.name));
    let rows = sorted.into_iter().map(|file| rows_of(file, known.get(place(file)).unwrap_or(&other), files, now));
    rows.flatten().collect()
}

/// The rows of a file. The files of authorities are among all.
fn rows_of(file: &File, known: &Known, all: &[File], now: Timestamp) -> Vec<Row> {
    let read = |file: &File| file.text.clone().and_then(|text| inspect(&text).map_err(|error| error.to_string()));
    match read(file) {
        Err(why) => vec![Row::unreadable(file, known, why)],
        Ok(read) if file.name == known.authority => {
            read.iter().enumerate().map(|(number, one)| of_authority(file, known, (number, one), now)).collect()
        }
        Ok(found) => {
            let authority = all.iter().find(|file| file.name == known.authority);
            let authorities = authority.and_then(|file| read(file).ok()).unwrap_or_default();
            found.first().map(|leaf| row(file, known, (leaf, chain(leaf, &authorities)), now)).into_iter().collect()
        }
    }
}

/// The certificate of a bundle with this number.
fn of_authority(file: &File, known: &Known, (number, certificate): (usize, &Certificate), now: Timestamp) -> Row {
    if number == 0 {
        return row(file, known, (certificate, Chain::Present), now);
    }
    let mut row = row(file, known, (certificate, Chain::Former), now);
    // It is on its way out, and may be so because it ends.
    row.problem = None;
    row
}

fn chain(leaf: &Certificate, authorities: &[Certificate]) -> Chain {
    match authorities.iter().position(|authority| leaf.is_signed_by(authority)) {
        Some(0) => Chain::Present,
        Some(_) => Chain::Former,
        None => Chain::Unknown,
    }
}

fn row(file: &File, known: &Known, (certificate, authority): (&Certificate, Chain), now: Timestamp) -> Row {
    let left = certificate.until.duration_since(now);
    let problem = if certificate.until < now {
        Some("has expired".to_owned())
    } else if now < certificate.from {
        Some(format!("is not valid before {}", certificate.from))
    } else if left < SOON && known.renewal == Renewal::Nobody {
        Some("ends soon, and nobody renews it by itself".to_owned())
    } else {
        None
    };
    Row {
        file: file.name.clone(),
        purpose: known.purpose.to_owned(),
        is_authority: certificate.is_authority,
        subject: certificate.subject.clone(),
        issuer: certificate.issuer.clone(),
        usages: certificate.usages.clone(),
        names: certificate.names.clone(),
        not_before: Some(certificate.from),
        not_after: Some(certificate.until),
        days_left: left.as_secs().div_euclid(24 * 3600),
        renewed_by: known.renewal,
        authority,
        problem,
    }
}

impl Row {
    fn unreadable(file: &File, known: &Known, why: String) -> Self {
        Self {
            file: file.name.clone(),
            purpose: known.purpose.to_owned(),
            is_authority: false,
            subject: String::new(),
            issuer: String::new(),
            usages: Vec::new(),
            names: Vec::new(),
            not_before: None,
            not_after: None,
            days_left: 0,
            renewed_by: known.renewal,
            authority: Chain::Unknown,
            problem: Some(why),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.file, self.purpose);
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(text, "  {name:<10} {value}");
            }
        };
        line("subject", &self.subject);
        line("issuer", &self.issuer);
        line("usages", &self.usages.join(", "));
        line("names", &self.names.join(", "));
        if let (Some(from), Some(until)) = (self.not_before, self.not_after) {
            line("valid", &format!("{from} to {until}, {} days left", self.days_left));
        }
        let renewed = match self.renewed_by {
            Renewal::Server => "by the server",
            Renewal::Agent => "by the agent",
            Renewal::Nobody => "by nobody",
        };
        line("renewed", renewed);
        let authority = match (self.authority, self.is_authority) {
            (Chain::Present, true) => "it is the one in use",
            (Chain::Present, false) => "the one in use",
            (Chain::Former, true) => "it is trusted beside the one in use",
            (Chain::Former, false) => "a former one, which is trusted still",
            (Chain::Unknown, _) => "none that is trusted here",
        };
        line("authority", authority);
        line("PROBLEM", self.problem.as_deref().unwrap_or_default());
        text
    }
}

impl Report {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text: String = self.certificates.iter().map(|row| row.text() + "\n").collect();
        match self.service_account_keys {
            0 => {}
            1 => text.push_str("One key of ServiceAccounts' tokens.\n"),
            keys => {
                let _ = writeln!(text, "{keys} keys of ServiceAccounts' tokens, of which the first one signs.");
            }
        }
        if self.is_rotating {
            text.push_str("A rotation of the authorities is under way (knarr certificate rotate-ca --finish ends it).\n");
        }
        if !self.is_running {
            text.push_str("Neither server nor agent runs here: certificates are renewed once it does.\n");
        }
        text
    }

    /// What somebody should do something about.
    pub(crate) fn problems(&self) -> Vec<String> {
        let of = |row: &Row| row.problem.as_ref().map(|problem| format!("{}: {problem}", row.file));
        self.certificates.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use base::tls::{Authority, Request};

    use super::*;

    const DAYS: Duration = Duration::from_secs(24 * 3600);

    fn file(name: &str, text: &str) -> File {
        File { name: name.to_owned(), text: Ok(text.to_owned()) }
    }

    fn leaf(authority: &Authority, days: u32) -> String {
        let request = Request::Client { user: "u".into(), groups: vec!["g".into()] };
        authority.issue_for(&request, DAYS * days).unwrap().certificate
    }

    #[test]
    fn what_needs_attention() {
        let (authority, stranger) = (Authority::in_memory("a").unwrap(), Authority::in_memory("b").unwrap());
        let now = Timestamp::now();
        let later = |days: i64| now.saturating_add(SignedDuration::from_hours(24 * days)).unwrap();
        let check = |name: &str, text: &str, at: Timestamp, expected: (Renewal, Chain, Option<&str>)| {
            let rows = rows(&[file("pki/ca.crt", authority.bundle()), file(name, text)], at);
            let row = rows.iter().find(|row| row.file == name).unwrap();
            assert_eq!((row.renewed_by, row.authority, row.problem.as_deref()), expected, "{name}");
        };
        let (own, year) = (leaf(&authority, 365), later(0));
        check("pki/admin.crt", &own, year, (Renewal::Server, Chain::Present, None));
        check("pki/admin.crt", &own, later(340), (Renewal::Server, Chain::Present, None));
        check("pki/admin.crt", &own, later(366), (Renewal::Server, Chain::Present, Some("has expired")));
        let soon = Some("ends soon, and nobody renews it by itself");
        check("pki/mine.crt", &own, later(340), (Renewal::Nobody, Chain::Present, soon));
        check("pki/mine.crt", &own, later(300), (Renewal::Nobody, Chain::Present, None));
        check("pki/apiserver.crt", &leaf(&stranger, 365), now, (Renewal::Server, Chain::Unknown, None));
        let rows = rows(&[file("pki/ca.crt", authority.bundle())], later(3630));
        assert_eq!((rows[0].problem.as_deref(), rows[0].days_left), (soon, 19));
    }

    #[test]
    fn whose_word_certificates_are() {
        let (new, old) = (Authority::in_memory("new").unwrap(), Authority::in_memory("old").unwrap());
        let both = format!("{}{}", new.bundle(), old.bundle());
        let now = Timestamp::now();
        let files = [
            file("pki/kubelet.crt", &leaf(&old, 365)),
            file("pki/zz.crt", "none"),
            file("pki/ca.crt", &both),
            file("pki/admin.crt", &leaf(&new, 365)),
            file("pki/front-proxy-ca.crt", old.bundle()),
            file("pki/front-proxy-client.crt", &leaf(&new, 365)),
        ];
        let found: Vec<_> = rows(&files, now).into_iter().map(|row| (row.file, row.authority, row.problem.is_some())).collect();
        let expected = [
            ("pki/ca.crt", Chain::Present, false),
            ("pki/ca.crt", Chain::Former, false),
            ("pki/front-proxy-ca.crt", Chain::Present, false),
            ("pki/kubelet.crt", Chain::Former, false),
            ("pki/admin.crt", Chain::Present, false),
            ("pki/front-proxy-client.crt", Chain::Unknown, false),
            ("pki/zz.crt", Chain::Unknown, true),
        ];
        assert_eq!(found, expected.map(|(file, chain, problem)| (file.to_owned(), chain, problem)));
        let of_agent = [file("pki/server-ca.crt", &both), file("pki/kubelet.crt", &leaf(&old, 365))];
        let found: Vec<_> = rows(&of_agent, now).into_iter().map(|row| (row.renewed_by, row.authority)).collect();
        assert_eq!(found, [(Renewal::Nobody, Chain::Present), (Renewal::Nobody, Chain::Former), (Renewal::Agent, Chain::Former)]);
    }

    #[test]
    fn reports_are_read_by_people_and_programs() {
        let authority = Authority::in_memory("a").unwrap();
        let files = [file("pki/ca.crt", authority.bundle()), file("pki/x.crt", "none")];
        let certificates = rows(&files, Timestamp::now());
        let report = Report { is_running: true, is_rotating: true, service_account_keys: 2, certificates };
        let text = report.text();
        for part in
            ["pki/ca.crt: the cluster's authority\n", "  subject    CN=a\n", "it is the one in use", "2 keys", "rotate-ca"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(report.problems().len(), 1);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["certificates"][0]["subject"], "CN=a");
        assert_eq!(json["certificates"][0]["authority"], "present");
        assert_eq!(json["certificates"][0]["usages"], serde_json::json!(["digital signature", "cert sign", "crl sign"]));
        assert!(json["certificates"][0]["notAfter"].is_string() && json["certificates"][1]["problem"].is_string());
    }
}
