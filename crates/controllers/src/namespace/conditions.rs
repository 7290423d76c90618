//! What a namespace that ends says about it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};

use super::content::Outcome;
use crate::meta;

struct Verdict {
    kind: &'static str,
    fine: (&'static str, &'static str),
    /// Reason and message when it is not fine.
    trouble: Option<(&'static str, String)>,
}

fn verdicts(outcome: &Outcome) -> [Verdict; 5] {
    let undiscovered = (!outcome.undiscovered.is_empty()).then(|| {
        let (number, list) = (outcome.undiscovered.len(), outcome.undiscovered.join(", "));
        ("DiscoveryFailed", format!("Discovery failed for some groups, {number} failing: {list}"))
    });
    let failed = (!outcome.failures.is_empty()).then(|| {
        let (number, list) = (outcome.failures.len(), outcome.failures.join(", "));
        ("ContentDeletionFailed", format!("Failed to delete all resource types, {number} remaining: {list}"))
    });
    let remaining = list(&outcome.remaining, |name, number| format!("{name} has {number} resource instances"));
    let finalizers = list(&outcome.finalizers, |name, number| format!("{name} in {number} resource instances"));
    [
        Verdict {
            kind: "NamespaceDeletionDiscoveryFailure",
            fine: ("ResourcesDiscovered", "All resources successfully discovered"),
            trouble: undiscovered,
        },
        Verdict {
            kind: "NamespaceDeletionGroupVersionParsingFailure",
            fine: ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            trouble: None,
        },
        Verdict {
            kind: "NamespaceDeletionContentFailure",
            fine: ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            trouble: failed,
        },
        Verdict {
            kind: "NamespaceContentRemaining",
            fine: ("ContentRemoved", "All content successfully removed"),
            trouble: remaining.map(|list| ("SomeResourcesRemain", format!("Some resources are remaining: {list}"))),
        },
        Verdict {
            kind: "NamespaceFinalizersRemaining",
            fine: ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            trouble: finalizers
                .map(|list| ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {list}"))),
        },
    ]
}

fn list(numbers: &BTreeMap<String, usize>, each: impl Fn(&str, usize) -> String) -> Option<String> {
    let texts: Vec<String> = numbers.iter().map(|(name, number)| each(name, *number)).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// Writes the verdicts into the namespace's conditions; whether anything changed.
pub(super) fn update(namespace: &mut Namespace, outcome: &Outcome, now: Timestamp) -> bool {
    let conditions = namespace.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut changed = false;
    for Verdict { kind, fine, trouble } in verdicts(outcome) {
        let (status, reason, message) = match trouble {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", fine.0, fine.1.to_owned()),
        };
        let new = NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(meta::whole_seconds(now)),
        };
        changed |= set(conditions, new);
    }
    changed
}

fn set(conditions: &mut Vec<NamespaceCondition>, mut new: NamespaceCondition) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != new;
    *old = new;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Outcome, kind: &str, expected: &str) {
        let mut namespace = Namespace::default();
        assert!(update(&mut namespace, &outcome, Timestamp::UNIX_EPOCH));
        assert!(!update(&mut namespace, &outcome, Timestamp::UNIX_EPOCH), "the same again is no change");
        let status = namespace.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        assert_eq!(conditions.len(), 5);
        let found = conditions.iter().find(|condition| condition.type_ == kind);
        let shown = found.map(|one| format!("{} {}", one.status, one.message.clone().unwrap_or_default()));
        assert_eq!(shown.as_deref(), Some(expected));
    }

    #[test]
    fn tells_what_is_left() {
        check(Outcome::default(), "NamespaceContentRemaining", "False All content successfully removed");
        let remaining = BTreeMap::from([("pods.".to_owned(), 2), ("deployments.apps".to_owned(), 1)]);
        check(
            Outcome { remaining, ..Outcome::default() },
            "NamespaceContentRemaining",
            "True Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances",
        );
        let finalizers = BTreeMap::from([("example.com/x".to_owned(), 3)]);
        check(
            Outcome { finalizers, ..Outcome::default() },
            "NamespaceFinalizersRemaining",
            "True Some content in the namespace has finalizers remaining: example.com/x in 3 resource instances",
        );
    }
}
