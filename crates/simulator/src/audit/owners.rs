//! How many pods and replica sets an owner may have at any time.
//!
//! A controller acts on what it has seen last, so an owner may have as many as its specification allowed at some time in the last two
//! minutes: nothing is that late.

use std::collections::BTreeMap;

use serde_json::Value;

/// How far back a controller's view may lie, in milliseconds.
pub(super) const WINDOW: u64 = 120_000;

/// What owners allow, and what they have.
#[derive(Default)]
pub(super) struct Owners {
    /// By the owner's uid.
    limits: BTreeMap<String, Limit>,
    /// Of the owner with this uid: name and how much each counts.
    members: BTreeMap<String, BTreeMap<String, i64>>,
    /// When writes seemed to fail that did not, in milliseconds. A pod is created under a name that the API makes up, so whoever tries
    /// again makes a second one; it goes when both are seen. Upstream's controllers do the same.
    lost: Vec<u64>,
}

#[derive(Default)]
struct Limit {
    name: String,
    /// The first ordinal of a stateful set.
    start: i64,
    /// Since when, in milliseconds, how many.
    most: Vec<(u64, i64)>,
}

impl Limit {
    fn set(&mut self, now: u64, most: i64) {
        if self.most.last().is_none_or(|(_, last)| *last != most) {
            self.most.push((now, most));
        }
    }

    /// The most that was allowed at some time of the window.
    fn most(&self, now: u64) -> i64 {
        let ended = |index: usize| self.most.get(index + 1).is_some_and(|(next, _)| next + WINDOW < now);
        let within = self.most.iter().enumerate().filter(|(index, _)| !ended(*index));
        within.map(|(_, (_, most))| *most).max().unwrap_or(i64::MAX)
    }
}

impl Owners {
    pub(super) fn lost(&mut self, now: u64) {
        self.lost.push(now);
    }

    /// Takes a change, and tells what is wrong with it.
    pub(super) fn changed(&mut self, key: &str, old: Option<&Value>, new: Option<&Value>, now: u64) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(most) = new.and_then(|new| allowed(key, new)) {
            let uid = text(new, "/metadata/uid").to_owned();
            let limit = self.limits.entry(uid).or_default();
            limit.name = key.to_owned();
            limit.start = new.and_then(|new| new.pointer("/spec/ordinals/start")).and_then(Value::as_i64).unwrap_or(0);
            limit.set(now, most);
        }
        if key.starts_with("/registry/core/pods/") {
            let (before, after) = (text(old, "/spec/nodeName"), text(new, "/spec/nodeName"));
            if new.is_some() && !before.is_empty() && before != after {
                found.push(format!("{key} was on node {before} and is bound to {after}"));
            }
        }
        let Some(owner) = controller(new.or(old)) else { return found };
        let weight = new.map_or(0, |new| weight(key, new));
        let members = self.members.entry(owner.clone()).or_default();
        // Who takes over what was left has as much as there was.
        let adopted = old.is_some() && controller(old).as_ref() != Some(&owner);
        let grown = weight > members.insert(key.to_owned(), weight).unwrap_or(0) && !adopted;
        if weight == 0 {
            members.remove(key);
        }
        let total: i64 = members.values().sum();
        let Some(limit) = self.limits.get(&owner) else { return found };
        let twice = self.lost.iter().filter(|at| *at + WINDOW >= now).count() as i64;
        let most = limit.most(now).saturating_add(twice);
        // A stateful set that is made smaller makes what it lacks before it takes away what is too much: its pods have numbers.
        let is_too_much = match ordinal(key).filter(|_| limit.name.contains("/statefulsets/")) {
            Some(ordinal) => ordinal - limit.start >= most,
            None => total > most,
        };
        if grown && is_too_much {
            found.push(format!("{} has {total} and may have {most}: {key} is too much", limit.name));
        }
        found
    }
}

fn text<'v>(object: Option<&'v Value>, path: &str) -> &'v str {
    object.and_then(|object| object.pointer(path)).and_then(Value::as_str).unwrap_or_default()
}

/// The number at the end of a pod's name.
fn ordinal(key: &str) -> Option<i64> {
    key.rsplit_once('-').and_then(|(_, number)| number.parse().ok())
}

/// The uid of the owner that controls an object.
pub(super) fn controller(object: Option<&Value>) -> Option<String> {
    let owners = object?.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    owner["uid"].as_str().map(str::to_owned)
}

/// How much an owned object counts: a pod that is not over and does not end is one, a replica set as many as it is to have.
fn weight(key: &str, object: &Value) -> i64 {
    let ends = object.pointer("/metadata/deletionTimestamp").is_some();
    match key {
        _ if key.contains("/replicasets/") => object["spec"]["replicas"].as_i64().unwrap_or(1),
        _ if key.contains("/pods/") => {
            let over = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            i64::from(!over && !ends)
        }
        _ => 0,
    }
}

/// A number, or so many per cent of `whole`.
pub(super) fn number_of(value: &Value, whole: i64, up: bool) -> i64 {
    match value {
        Value::String(percent) => {
            let percent: i64 = percent.trim_end_matches('%').parse().unwrap_or(0);
            (whole * percent + if up { 99 } else { 0 }) / 100
        }
        value => value.as_i64().unwrap_or(0),
    }
}

/// How many an owner may have of what counts.
fn allowed(key: &str, object: &Value) -> Option<i64> {
    let spec = &object["spec"];
    let replicas = || spec["replicas"].as_i64().unwrap_or(1);
    match key {
        _ if key.contains("/replicasets/") || key.contains("/statefulsets/") => Some(replicas()),
        _ if key.contains("/deployments/") => {
            let surge = number_of(&spec["strategy"]["rollingUpdate"]["maxSurge"], replicas(), true);
            Some(replicas() + surge)
        }
        _ if key.contains("/jobs/") => {
            let suspended = spec["suspend"] == true;
            Some(if suspended { 0 } else { spec["parallelism"].as_i64().unwrap_or(1) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(replicas: i64) -> Value {
        json!({"metadata": {"uid": "u"}, "spec": {"replicas": replicas}})
    }

    fn pod(phase: &str) -> Value {
        json!({"metadata": {"ownerReferences": [{"uid": "u", "controller": true}]}, "spec": {}, "status": {"phase": phase}})
    }

    #[test]
    fn an_owner_has_no_more_than_it_asked_for_lately() {
        let mut owners = Owners::default();
        let mut check = |key: &str, object: Value, now: u64, expected: usize| {
            assert_eq!(owners.changed(key, None, Some(&object), now).len(), expected, "{key} at {now}");
        };
        check("/registry/apps/replicasets/n/r", set(2), 0, 0);
        check("/registry/core/pods/n/a", pod("Pending"), 1, 0);
        check("/registry/core/pods/n/b", pod("Pending"), 2, 0);
        check("/registry/core/pods/n/c", pod("Pending"), 3, 1);
        check("/registry/core/pods/n/c", pod("Failed"), 4, 0);
        check("/registry/apps/replicasets/n/r", set(1), 5, 0);
        check("/registry/core/pods/n/a", pod("Succeeded"), 6, 0);
        check("/registry/core/pods/n/d", pod("Pending"), 7, 0);
        check("/registry/core/pods/n/e", pod("Pending"), WINDOW + 7, 1);
    }

    /// "Before a scaling operation is applied to a Pod, all of its predecessors must be Running and Ready" (documentation, StatefulSets).
    #[test]
    fn pods_with_numbers_have_the_first_ones() {
        let mut owners = Owners::default();
        let mut check = |name: &str, phase: &str, now: u64, expected: usize| {
            let found = owners.changed(&format!("/registry/core/pods/n/{name}"), None, Some(&pod(phase)), now);
            assert_eq!(found.len(), expected, "{name} at {now}: {found:?}");
        };
        check("s-1", "Running", 0, 0);
        check("s-2", "Running", 0, 0);
        assert!(owners.changed("/registry/apps/statefulsets/n/s", None, Some(&set(1)), 0).is_empty());
        let mut check = |name: &str, now: u64, expected: usize| {
            let found = owners.changed(&format!("/registry/core/pods/n/{name}"), None, Some(&pod("Pending")), now);
            assert_eq!(found.len(), expected, "{name} at {now}: {found:?}");
        };
        check("s-0", WINDOW + 1, 0);
        check("s-3", WINDOW + 2, 1);
    }

    #[test]
    fn what_is_adopted_was_there() {
        let mut owners = Owners::default();
        let mut orphan = pod("Running");
        orphan["metadata"]["ownerReferences"] = json!([]);
        assert!(owners.changed("/registry/apps/replicasets/n/r", None, Some(&set(1)), 0).is_empty());
        for name in ["a", "b"] {
            let adopted = owners.changed(&format!("/registry/core/pods/n/{name}"), Some(&orphan), Some(&pod("Running")), 1);
            assert_eq!(adopted, Vec::<String>::new());
        }
        assert_eq!(owners.changed("/registry/core/pods/n/c", None, Some(&pod("Pending")), 2).len(), 1);
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut owners = Owners::default();
        let on = |node: &str| json!({"metadata": {}, "spec": {"nodeName": node}});
        let key = "/registry/core/pods/n/a";
        assert!(owners.changed(key, Some(&json!({"spec": {}})), Some(&on("x")), 0).is_empty());
        assert!(owners.changed(key, Some(&on("x")), Some(&on("x")), 0).is_empty());
        assert_eq!(owners.changed(key, Some(&on("x")), Some(&on("y")), 0).len(), 1);
    }
}
