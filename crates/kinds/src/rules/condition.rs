//! Conditions in the form of `metav1.Condition`.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names::regex_error;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{one_of, qualified_name};

const MAX_REASON: usize = 1 << 10;
const MAX_MESSAGE: usize = 32 << 10;

/// Upstream: `ValidateConditions`.
pub(crate) fn conditions(path: &Path, conditions: &[Condition], errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if !seen.insert(condition.type_.as_str()) {
            errors.push(Error::duplicate(&path.child("type"), condition.type_.as_str()));
        }
        validate(condition, &path, errors);
    }
}

fn validate(condition: &Condition, path: &Path, errors: &mut Errors) {
    qualified_name(&path.child("type"), &condition.type_, errors);
    let statuses = ["False", "True", "Unknown"];
    if condition.status.is_empty() {
        errors.push(Error::not_supported(&path.child("status"), "", &statuses));
    } else {
        one_of(&path.child("status"), &condition.status, &statuses, errors);
    }
    if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
        let detail = "must be greater than or equal to zero";
        errors.push(Error::invalid(&path.child("observedGeneration"), generation, detail));
    }
    if condition.last_transition_time.0.as_second() == codec::ZERO_TIME {
        errors.push(Error::required(&path.child("lastTransitionTime"), ""));
    }
    let (reason, at) = (condition.reason.as_str(), path.child("reason"));
    if reason.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if !is_reason(reason) {
        errors.push(Error::invalid(&at, reason, reason_error()));
    }
    if reason.len() > MAX_REASON {
        errors.push(Error::too_long(&at, MAX_REASON));
    }
    if condition.message.len() > MAX_MESSAGE {
        errors.push(Error::too_long(&path.child("message"), MAX_MESSAGE));
    }
}

/// `MyName`, `ReasonA:ReasonB`.
fn is_reason(reason: &str) -> bool {
    reason.bytes().all(|b| b.is_ascii_alphanumeric() || b"_,:".contains(&b))
        && reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && !reason.ends_with([',', ':'])
}

fn reason_error() -> String {
    regex_error(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn check(change: Value, expected: &[&str]) {
        let base = json!({"type": "Ready", "status": "True", "reason": "Fine", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let condition: Condition = serde_json::from_value(apimachinery::patch::merge(&base, &change).unwrap()).unwrap();
        let mut errors = Errors::new();
        conditions(&Path::new("c"), &[condition], &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_wrong() {
        check(json!({}), &[]);
        check(json!({"reason": "ReasonA:ReasonB", "status": "Unknown"}), &[]);
        check(
            json!({"status": "Maybe", "observedGeneration": -1, "reason": "", "lastTransitionTime": "0001-01-01T00:00:00Z"}),
            &[
                "c[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
                "c[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
                "c[0].lastTransitionTime: Required value",
                "c[0].reason: Required value",
            ],
        );
        check(json!({"reason": "not fine"}), &[&format!("c[0].reason: Invalid value: \"not fine\": {}", reason_error())]);
    }
}
