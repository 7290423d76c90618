//! What goes wrong with registries, and what it means for people and for other ways to an image.

use std::time::Duration;

use oci_spec::distribution::Reference;
use serde::Deserialize;

use crate::api::Error;

/// Most bytes of what a registry says that are repeated.
const TEXT: usize = 1 << 10;

/// Where images of `docker.io` are.
const HUB: &str = "index.docker.io";

/// Why a registry has not given something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No answer, or one that breaks off.
    #[error("{}", unanswered(.0))]
    Request(reqwest::Error),
    /// An answer that is a refusal.
    #[error("{0}")]
    Refused(Refusal),
    /// It wants to see other credentials.
    #[error("pull access denied")]
    Unauthorized,
    /// The server that it sends us to for a token gives none.
    #[error("its token server: {0}")]
    Token(String),
    /// It has not answered in this time.
    #[error("no whole answer within {0:?}")]
    Slow(Duration),
    /// A document is larger.
    #[error("the document is larger than {0} bytes")]
    TooLarge(usize),
    /// A document is another one.
    #[error("digest mismatch: expected {expected}, the data has {actual}")]
    Digest { expected: String, actual: String },
}

/// A refusal, as far as it is repeated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(super) status: u16,
    /// The codes of the errors that it lists (distribution specification, "Error Codes"); none when it is not of that form.
    codes: Option<Vec<String>>,
    text: String,
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<Told>,
}

#[derive(Deserialize)]
struct Told {
    code: String,
    #[serde(default)]
    message: Option<String>,
}

impl Refusal {
    /// Of an answer with this status and body.
    pub(super) fn new(status: u16, body: &[u8]) -> Self {
        let envelope = serde_json::from_slice::<Envelope>(body).ok().filter(|_| (400..500).contains(&status));
        let Some(envelope) = envelope else {
            return Self { status, codes: None, text: cut(String::from_utf8_lossy(body).trim().to_owned()) };
        };
        let texts: Vec<String> = envelope.errors.iter().map(told).collect();
        let codes = envelope.errors.into_iter().map(|error| error.code).collect();
        Self { status, codes: Some(codes), text: cut(texts.join("; ")) }
    }

    /// Whether the registry says that it has no such image.
    fn is_absence(&self) -> bool {
        match &self.codes {
            Some(codes) => {
                let unknown = ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"];
                !codes.is_empty() && codes.iter().all(|code| unknown.contains(&code.as_str()))
            }
            None => self.status == 404,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.codes {
            Some(_) => f.write_str(&self.text),
            None => write!(f, "it answers {}: {}", self.status, self.text),
        }
    }
}

/// `manifest unknown: detail`, as registries and other runtimes put it.
fn told(error: &Told) -> String {
    let (code, message) = (error.code.to_lowercase().replace('_', " "), error.message.as_deref().unwrap_or_default());
    if message.is_empty() || message.to_lowercase() == code { code } else { format!("{code}: {message}") }
}

/// As much of a text as is repeated.
fn cut(mut text: String) -> String {
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT));
        text.push_str("...");
    }
    text
}

impl Failure {
    /// Whether the registry says that it has no such image, or is not there: nothing listens, or its name does not resolve. One that refuses or
    /// puts off (401, 403, 429, 5xx), or that is silent, may have it.
    fn is_absence(&self) -> bool {
        match self {
            Self::Request(cause) => cause.is_connect() && !cause.is_timeout(),
            Self::Refused(refusal) => refusal.is_absence(),
            _ => false,
        }
    }

    /// The error of a pull of `reference` whose manifest was asked for.
    pub(crate) fn of_manifest(&self, reference: &Reference) -> Error {
        match (self.is_absence(), self.of_part(reference)) {
            (true, Error::ImagePull(text) | Error::RegistryUnavailable(text)) => Error::ImageNotFound(text),
            (_, error) => error,
        }
    }

    /// The error of a pull of `reference` whose parts were asked for.
    pub(crate) fn of_part(&self, reference: &Reference) -> Error {
        let (name, registry) = (reference.whole(), reference.resolve_registry());
        // The name of the image says which registry has refused, unless it was a mirror of that.
        let is_mirror = registry != reference.registry() && registry != HUB;
        let who = if is_mirror { format!("mirror {registry}: ") } else { String::new() };
        match self {
            Self::Request(cause) if cause.is_connect() || cause.is_timeout() => {
                Error::RegistryUnavailable(format!("failed to pull {name:?}: registry {registry} cannot be reached: {self}"))
            }
            Self::Slow(_) | Self::Token(_) => {
                Error::RegistryUnavailable(format!("failed to pull {name:?}: registry {registry}: {self}"))
            }
            Self::Refused(Refusal { codes: None, status: status @ (429 | 500..), text }) => {
                Error::RegistryUnavailable(format!("failed to pull {name:?}: registry {registry} answers {status}: {text}"))
            }
            Self::Refused(Refusal { codes: None, status: 404, .. }) => {
                Error::ImagePull(format!("failed to pull {name:?}: not found in registry {registry}"))
            }
            Self::Unauthorized => {
                let text = "pull access denied, the repository does not exist or needs credentials (imagePullSecrets)";
                Error::ImagePull(format!("failed to pull {name:?}: {who}{text}"))
            }
            other => Error::ImagePull(format!("failed to pull {name:?}: {who}{other}")),
        }
    }
}

/// What was asked, and why there is no answer.
fn unanswered(error: &reqwest::Error) -> String {
    let why = base::connection::why(error);
    // Most of these are requests for something (containerd begins with HEAD).
    cut(error.url().map_or_else(|| why.clone(), |url| format!("Get \"{url}\": {why}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(status: u16, body: &str) -> Failure {
        Failure::Refused(Refusal::new(status, body.as_bytes()))
    }

    /// What another node may give in the registry's stead.
    #[test]
    fn absent_is_what_a_registry_does_not_have() {
        for (codes, expected) in [
            (&["MANIFEST_UNKNOWN"][..], true),
            (&["NAME_UNKNOWN", "NOT_FOUND"], true),
            (&["DENIED"], false),
            (&["UNAUTHORIZED"], false),
            (&["TOOMANYREQUESTS"], false),
            (&["NAME_UNKNOWN", "DENIED"], false),
            (&["TEA"], false),
            (&[], false),
        ] {
            let errors: Vec<_> = codes.iter().map(|code| serde_json::json!({"code": code, "message": ""})).collect();
            let body = serde_json::json!({"errors": errors}).to_string();
            assert_eq!(refused(404, &body).is_absence(), expected, "{codes:?}");
        }
        assert_eq!([404, 403, 429, 500, 503].map(|status| refused(status, "").is_absence()), [true, false, false, false, false]);
        assert!(!Failure::Unauthorized.is_absence() && !Failure::Token(String::new()).is_absence());
    }

    #[test]
    fn errors_say_what_the_registry_says_and_not_more() {
        let reference = crate::images::registry::parse("r.io/a:1").unwrap();
        let check = |failure: &Failure, expected: &str| {
            let text = failure.of_manifest(&reference).to_string();
            assert!(text.contains(expected), "{text}");
            assert!(text.len() < TEXT + 200, "{} bytes", text.len());
        };
        check(
            &refused(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}"#),
            "manifest unknown: no such tag",
        );
        check(&refused(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":null}]}"#), "manifest unknown");
        check(&refused(404, "<html>"), "not found in registry r.io");
        check(&refused(503, "later"), "registry r.io answers 503: later");
        check(&Failure::Unauthorized, "pull access denied");
        check(&refused(503, &"ä".repeat(1 << 20)), "...");
        let long = serde_json::json!({"errors": [{"code": "x".repeat(1 << 20), "message": "y".repeat(1 << 20)}]});
        check(&refused(403, &long.to_string()), "xxx...");
        let many = serde_json::json!({"errors": vec![serde_json::json!({"code": "DENIED"}); 10_000]});
        check(&refused(403, &many.to_string()), "denied; denied");
    }

    /// Of several who were asked for an image.
    #[test]
    fn a_mirror_that_refuses_is_named() {
        let check = |image: &str, mirror: Option<&str>, failure: &Failure, expected: &str| {
            let mut reference = crate::images::registry::parse(image).unwrap();
            if let Some(mirror) = mirror {
                reference.set_mirror_registry(mirror.to_owned());
            }
            let text = failure.of_part(&reference).to_string();
            assert!(text.ends_with(expected), "{text}");
        };
        let unknown = refused(404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#);
        let name = "failed to pull \"docker.io/library/a:1\": ";
        check("a:1", Some("10.0.0.5:5000"), &unknown, &format!("{name}mirror 10.0.0.5:5000: name unknown"));
        check("a:1", None, &unknown, &format!("{name}name unknown"));
        check("r.io/a:1", None, &unknown, "failed to pull \"r.io/a:1\": name unknown");
        check(
            "r.io/a:1",
            Some("m.io"),
            &Failure::Unauthorized,
            ": mirror m.io: pull access denied, the repository does not exist or needs credentials (imagePullSecrets)",
        );
        check("r.io/a:1", Some("m.io"), &refused(404, "?"), ": not found in registry m.io");
    }
}
