//! `/healthz` and its checks, by their names too: `/healthz/syncloop`.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::api::Api;
use super::{Body, query, text};

/// How long the manager of pods may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A check, as upstream's kubelet names and orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It answers.
    Ping,
    /// What it says is written.
    Log,
    /// Pods are looked after.
    SyncLoop,
}

impl Check {
    const ALL: [Self; 3] = [Self::Ping, Self::Log, Self::SyncLoop];

    fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Log => "log",
            Self::SyncLoop => "syncloop",
        }
    }

    /// The check of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.name() == name)
    }

    async fn outcome(self, api: &Api) -> Result<(), &'static str> {
        match self {
            Self::Ping => Ok(()),
            Self::Log if base::logging::works() => Ok(()),
            Self::Log => Err("logging blocked"),
            Self::SyncLoop if api.looks_after_pods(PATIENCE).await => Ok(()),
            Self::SyncLoop => Err("the manager of pods does not answer"),
        }
    }
}

/// The answer to one check, or to all together.
pub(super) async fn answer(api: &Api, check: Option<Check>, query: &str) -> Response<Body> {
    if let Some(check) = check {
        return match check.outcome(api).await {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, Bytes::from(format!("internal server error: {why}\n"))),
        };
    }
    let mut outcomes = Vec::new();
    for check in Check::ALL {
        outcomes.push((check, check.outcome(api).await));
    }
    let (status, summary) = summary(&outcomes, query);
    text(status, summary)
}

fn summary(outcomes: &[(Check, Result<(), &'static str>)], query: &str) -> (StatusCode, String) {
    let given = |name: &str, value: &str| query::pairs(query).any(|(key, given)| key == name && given == value);
    let verbose = query::pairs(query).any(|(key, _)| key == "verbose");
    let mut text = String::new();
    let mut failed = false;
    for (check, outcome) in outcomes {
        let name = check.name();
        let excluded = given("exclude", name);
        failed |= outcome.is_err() && !excluded;
        // Writing to a String cannot fail.
        let _ = match outcome {
            _ if excluded => writeln!(text, "[+]{name} excluded: ok"),
            Ok(()) => writeln!(text, "[+]{name} ok"),
            Err(_) => writeln!(text, "[-]{name} failed: reason withheld"),
        };
    }
    let _ = writeln!(text, "healthz check {}", if failed { "failed" } else { "passed" });
    match failed {
        true => (StatusCode::INTERNAL_SERVER_ERROR, text),
        false if !verbose => (StatusCode::OK, "ok".to_owned()),
        false => (StatusCode::OK, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        let check = |loops: Result<(), &'static str>, query: &str, status: u16, expected: &str| {
            let outcomes = [(Check::Ping, Ok(())), (Check::Log, Ok(())), (Check::SyncLoop, loops)];
            let (found, text) = summary(&outcomes, query);
            assert_eq!((found.as_u16(), text.as_str()), (status, expected), "{query}");
        };
        check(Ok(()), "", 200, "ok");
        check(Ok(()), "verbose", 200, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n");
        let failed = "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n";
        check(Err("no"), "", 500, failed);
        check(Err("no"), "exclude=syncloop", 200, "ok");
    }
}
