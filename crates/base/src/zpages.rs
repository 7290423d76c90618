//! `/statusz` and `/flagz`: what a component is and with which options it was started, for people who look for a fault (KEP-4827,
//! KEP-4828). As text, and as objects of `config.k8s.io/v1beta1` for programs that ask for these by name.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::accept::clauses;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.";

/// What a client can be answered with, for the one who asked for something else.
pub const ACCEPTED: [&str; 2] = ["text/plain", "application/json;g=config.k8s.io;v=v1beta1;as=Statusz or Flagz"];

/// Options of the command line with their values, by their names without dashes.
pub type Flags = Arc<BTreeMap<String, String>>;

/// The pages of a component.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Upstream's name of the component.
    pub component: &'static str,
    /// Version of the program, as `1.36.4`.
    pub version: String,
    /// The minor version of Kubernetes that it behaves like, as `1.36`.
    pub emulated: String,
    /// The oldest minor version of Kubernetes that others may have.
    pub oldest: String,
    /// What it was compiled with; may be empty.
    pub toolchain: String,
    /// When it began.
    pub started: Timestamp,
    /// Where else to look.
    pub paths: &'static [&'static str],
    /// How it was started.
    pub flags: Flags,
}

/// One of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// What the component is.
    Statusz,
    /// How it was started.
    Flagz,
}

impl Page {
    /// The page at a path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/statusz" => Some(Self::Statusz),
            "/flagz" => Some(Self::Flagz),
            _ => None,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Statusz => "Statusz",
            Self::Flagz => "Flagz",
        }
    }

    /// Whether an Accept header asks for the object; none where it takes neither. JSON without the object's group, version and kind is
    /// refused, so that nobody comes to rely on a form that is not promised.
    fn wants_object(self, accept: &str) -> Option<bool> {
        if accept.trim().is_empty() {
            return Some(false);
        }
        clauses(accept).iter().find_map(|clause| {
            let named = ["g", "v", "as"].map(|name| clause.parameter(name));
            match named {
                [None, None, None] => clause.takes("text", "plain").then_some(false),
                _ if named == [Some("config.k8s.io"), Some("v1beta1"), Some(self.kind())] => {
                    clause.takes("application", "json").then_some(true)
                }
                _ => None,
            }
        })
    }
}

impl Pages {
    /// The media type and the text of a page, at a time; none if the client takes no form of it.
    pub fn answer(&self, page: Page, accept: &str, now: Timestamp) -> Option<(&'static str, String)> {
        let up = now.duration_since(self.started).as_secs().max(0);
        Some(match (page.wants_object(accept)?, page) {
            (true, _) => (JSON, self.object(page, up).to_string()),
            (false, Page::Statusz) => (TEXT, self.statusz(up)),
            (false, Page::Flagz) => (TEXT, self.flagz()),
        })
    }

    fn object(&self, page: Page, up: i64) -> Value {
        let mut object =
            json!({"kind": page.kind(), "apiVersion": "config.k8s.io/v1beta1", "metadata": {"name": self.component}});
        match page {
            Page::Flagz => object["flags"] = json!(*self.flags),
            Page::Statusz => {
                let seconds = self.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let fields = json!({
                    "startTime": seconds, "uptimeSeconds": up, "goVersion": self.toolchain, "binaryVersion": self.version,
                    "emulationVersion": self.emulated, "minimumCompatibilityVersion": self.oldest, "paths": self.paths,
                });
                for (name, value) in fields.as_object().into_iter().flatten().filter(|(_, value)| **value != "") {
                    object[name] = value.clone();
                }
            }
        }
        object
    }

    fn statusz(&self, up: i64) -> String {
        let mut text = format!("\n{} statusz\n{WARNING}\n\n", self.component);
        let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
        for (name, value) in [
            ("Started", self.started.strftime("%a %b %e %H:%M:%S UTC %Y").to_string()),
            ("Up", format!("{hours} hr {minutes:02} min {seconds:02} sec")),
            ("Go version", self.toolchain.clone()),
            ("Binary version", self.version.clone()),
            ("Emulation version", self.emulated.clone()),
            ("Minimum Compatibility version", self.oldest.clone()),
            ("Paths", self.paths.join(" ")),
        ] {
            if !value.is_empty() {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name}: {value}");
            }
        }
        text
    }

    fn flagz(&self) -> String {
        let mut text = format!("\n{} flags\n{WARNING}\n\n", self.component);
        for (name, value) in &*self.flags {
            let _ = writeln!(text, "{name}={value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pages() -> Pages {
        let flags = [("port", "6443"), ("bind-address", "::")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Pages {
            component: "kube-apiserver",
            version: "1.36.4".to_owned(),
            emulated: "1.36".to_owned(),
            oldest: "1.35".to_owned(),
            toolchain: String::new(),
            started: "2026-01-02T03:04:05.6Z".parse().unwrap(),
            paths: &["/healthz", "/version"],
            flags: Arc::new(flags.into()),
        }
    }

    #[test]
    fn text_for_people() {
        let now = "2026-01-02T05:05:06.6Z".parse().unwrap();
        let (media, text) = pages().answer(Page::Statusz, "", now).unwrap();
        assert_eq!(media, TEXT);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "",
                "kube-apiserver statusz",
                WARNING,
                "",
                "Started: Fri Jan  2 03:04:05 UTC 2026",
                "Up: 2 hr 01 min 01 sec",
                "Binary version: 1.36.4",
                "Emulation version: 1.36",
                "Minimum Compatibility version: 1.35",
                "Paths: /healthz /version",
            ]
        );
        let (_, text) = pages().answer(Page::Flagz, "*/*", now).unwrap();
        assert!(text.ends_with("\n\nbind-address=::\nport=6443\n"), "{text}");
    }

    #[test]
    fn objects_for_programs() {
        let now = "2026-01-02T03:04:15Z".parse().unwrap();
        let object = |page: Page| {
            let accept = format!("application/json;v=v1beta1;g=config.k8s.io;as={}", page.kind());
            let (media, text) = pages().answer(page, &accept, now).unwrap();
            assert_eq!(media, JSON);
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let head =
            |kind: &str| json!({"kind": kind, "apiVersion": "config.k8s.io/v1beta1", "metadata": {"name": "kube-apiserver"}});
        let mut statusz = head("Statusz");
        statusz["startTime"] = json!("2026-01-02T03:04:05Z");
        statusz["uptimeSeconds"] = json!(9);
        statusz["binaryVersion"] = json!("1.36.4");
        statusz["emulationVersion"] = json!("1.36");
        statusz["minimumCompatibilityVersion"] = json!("1.35");
        statusz["paths"] = json!(["/healthz", "/version"]);
        assert_eq!(object(Page::Statusz), statusz);
        let mut flagz = head("Flagz");
        flagz["flags"] = json!({"port": "6443", "bind-address": "::"});
        assert_eq!(object(Page::Flagz), flagz);
    }

    /// "If you request `application/json` without specifying all required parameters, the server will respond with 406" (docs, z-pages).
    #[test]
    fn forms() {
        let check = |accept: &str, expected: Option<bool>| assert_eq!(Page::Statusz.wants_object(accept), expected, "{accept}");
        check("", Some(false));
        check("*/*", Some(false));
        check("text/plain", Some(false));
        check("text/html, application/xhtml+xml, */*;q=0.8", Some(false));
        check("application/json", None);
        check("application/json, */*", Some(false));
        check("application/json;g=config.k8s.io;as=Statusz", None);
        check("application/json;v=v1beta1;g=config.k8s.io;as=Statusz", Some(true));
        check("application/json;v=v1beta1;g=config.k8s.io;as=Flagz", None);
        check("application/json;v=v1;g=config.k8s.io;as=Statusz, text/plain", Some(false));
        check("image/png", None);
    }
}
