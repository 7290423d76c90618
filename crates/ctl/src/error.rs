//! What goes wrong, in the words that kubectl has for it.

use std::io;
use std::path::PathBuf;

use kube::core::Status;
use kube::core::response::StatusCause;

/// Result of a command.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API refuses.
    #[error("{}", refusal(.0))]
    Api(Box<Status>),
    /// The API refuses what a file asks for.
    #[error("{}", refusal_of(.status, &format!("error when {action} {source_name:?}: ")))]
    Manifest {
        /// What was about to be done, such as `creating`.
        action: &'static str,
        /// The file.
        source_name: String,
        /// The answer.
        status: Box<Status>,
    },
    /// Nobody answers.
    #[error(
        "error: the server {server} does not answer: {cause}\nDoes it run? `knarr status` says more, `knarr server` starts one."
    )]
    Unreachable {
        /// Where it should be.
        server: String,
        /// The cause and its causes.
        cause: String,
    },
    /// There is no configuration to find the server by.
    #[error(
        "error: there is no {}: no server has started with this data directory. Start one (knarr server), or name another cluster \
         (--data-dir, --kubeconfig or KUBECONFIG)",
        .0.display()
    )]
    NoKubeconfig(PathBuf),
    /// The configuration cannot be used.
    #[error("error: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// A file, or the standard streams.
    #[error("error: {what}: {cause}")]
    Io {
        /// Its name.
        what: String,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// What was asked for has no meaning, or is not there; the text says so.
    #[error("error: {0}")]
    Usage(String),
    /// The API answers with something else than it should.
    #[error("error: the server answers {what}: {text}")]
    Answer {
        /// What to, or what is wrong with it.
        what: &'static str,
        /// Its beginning, or a reason.
        text: String,
    },
    /// A time is over.
    #[error("error: timed out waiting for the condition{0}")]
    Timeout(String),
    /// Somebody does not read the output any more, such as `head`.
    #[error("")]
    Closed,
    /// Failures that were told already.
    #[error("")]
    Told,
}

impl Error {
    /// What was asked for cannot be understood, or is not there.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// Something about a file or stream.
    pub(crate) fn io(what: impl Into<String>, cause: io::Error) -> Self {
        if cause.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Io { what: what.into(), cause } }
    }

    /// Whether the API says that it has no such object.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(status) if status.code == 404)
    }

    /// What was waited for in vain.
    pub(crate) fn about(self, object: &str) -> Self {
        match self {
            Self::Timeout(_) => Self::Timeout(format!(" on {object}")),
            other => other,
        }
    }

    /// The same, and which file asked for it.
    pub(crate) fn of_manifest(self, action: &'static str, source: &str) -> Self {
        match self {
            Self::Api(status) => Self::Manifest { action, source_name: source.to_owned(), status },
            other => other,
        }
    }
}

/// An answer of the API, as kubectl tells it.
fn refusal(status: &Status) -> String {
    refusal_of(status, "")
}

fn refusal_of(status: &Status, prefix: &str) -> String {
    let details = status.details.as_ref();
    match (status.reason.as_str(), details) {
        ("Unauthorized", _) => format!("error: {prefix}You must be logged in to the server ({})", status.message),
        ("Invalid", Some(details)) if !details.kind.is_empty() => {
            let head = format!("{prefix}The {} {:?} is invalid", details.kind, details.name);
            match details.causes.as_slice() {
                [] => head,
                [one] => format!("{head}: {}", cause(one)),
                many => many.iter().fold(format!("{head}: "), |text, one| format!("{text}\n* {}", cause(one))),
            }
        }
        ("", _) => format!("Error from server: {prefix}{}", status.message),
        (reason, _) => format!("Error from server ({reason}): {prefix}{}", status.message),
    }
}

fn cause(cause: &StatusCause) -> String {
    if cause.field.is_empty() { cause.message.clone() } else { format!("{}: {}", cause.field, cause.message) }
}

/// An error with what has caused it; a cause that the text before it tells already is left out.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn refusals() {
        let check = |status: Value, expected: &str| {
            let status: Status = serde_json::from_value(status).unwrap();
            assert_eq!(Error::Api(Box::new(status)).to_string(), expected);
        };
        check(
            json!({"code": 404, "reason": "NotFound", "message": "pods \"x\" not found"}),
            "Error from server (NotFound): pods \"x\" not found",
        );
        check(json!({"code": 500, "message": "broken"}), "Error from server: broken");
        check(
            json!({"code": 401, "reason": "Unauthorized", "message": "Unauthorized"}),
            "error: You must be logged in to the server (Unauthorized)",
        );
        let invalid = |causes: Value| json!({"reason": "Invalid", "details": {"kind": "Pod", "name": "p", "causes": causes}});
        let one = json!({"field": "spec", "message": "Required value"});
        check(invalid(json!([one])), "The Pod \"p\" is invalid: spec: Required value");
        check(invalid(json!([one, {"message": "b"}])), "The Pod \"p\" is invalid: \n* spec: Required value\n* b");
    }

    #[test]
    fn files_are_named() {
        let status = serde_json::from_value(json!({"reason": "Forbidden", "message": "no"})).unwrap();
        let error = Error::Api(status).of_manifest("creating", "a.yaml");
        assert_eq!(error.to_string(), "Error from server (Forbidden): error when creating \"a.yaml\": no");
    }
}
