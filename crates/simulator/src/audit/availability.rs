//! A rolling update takes no more pods away than it may.
//!
//! When a replica set of a deployment is made smaller, the pods that stay and have been ready lately have to be as many as the
//! deployment wants, less what may be unavailable. A pod counts for two minutes after it was ready last: whoever takes pods away may
//! not know yet that one of the others is not ready any more, but cannot believe in one that never was.

use std::collections::BTreeMap;

use serde_json::Value;

use super::owners::{WINDOW, controller, number_of};

/// What is known of deployments, their sets and pods.
#[derive(Default)]
pub(super) struct Availability {
    deployments: BTreeMap<String, Deployment>,
    /// By uid.
    sets: BTreeMap<String, Set>,
}

#[derive(Default)]
struct Deployment {
    key: String,
    /// Since when, in milliseconds, how many must be available.
    least: Vec<(u64, i64)>,
}

#[derive(Default)]
struct Set {
    deployment: String,
    replicas: i64,
    /// When each pod was ready last.
    ready: BTreeMap<String, u64>,
}

impl Deployment {
    fn least(&self, now: u64) -> i64 {
        let ended = |index: usize| self.least.get(index + 1).is_some_and(|(next, _)| next + WINDOW < now);
        let within = self.least.iter().enumerate().filter(|(index, _)| !ended(*index));
        within.map(|(_, (_, least))| *least).min().unwrap_or(0)
    }
}

impl Set {
    /// How many of its pods can stay, if it has so many.
    fn available(&self, replicas: i64, now: u64) -> i64 {
        let lately = self.ready.values().filter(|at| at.saturating_add(WINDOW) >= now).count() as i64;
        lately.min(replicas)
    }

    /// How many pods that are ready it loses at least, when it is made smaller: those that are not go first.
    fn loses(&self, before: i64, after: i64) -> i64 {
        let ready = self.ready.values().filter(|at| **at == u64::MAX).count() as i64;
        ready.min(before) - ready.min(after)
    }
}

impl Availability {
    /// Takes a change, and tells what is wrong with it.
    pub(super) fn changed(&mut self, key: &str, old: Option<&Value>, new: Option<&Value>, now: u64) -> Option<String> {
        match key {
            _ if key.starts_with("/registry/core/pods/") => self.pod(key, old, new, now),
            _ if key.starts_with("/registry/apps/deployments/") => self.deployment(key, new?, now),
            _ if key.starts_with("/registry/apps/replicasets/") => return self.set(key, new?, now),
            _ => {}
        }
        None
    }

    fn pod(&mut self, key: &str, old: Option<&Value>, new: Option<&Value>, now: u64) {
        let Some(owner) = controller(new.or(old)) else { return };
        let Some(set) = self.sets.get_mut(&owner) else { return };
        // One that ends is not among those of which some are to go.
        let is_ready = |pod: &Value| {
            let ends = !pod["metadata"]["deletionTimestamp"].is_null();
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            !ends && conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        if new.is_some_and(is_ready) {
            set.ready.insert(key.to_owned(), u64::MAX);
        } else if let Some(at) = set.ready.get_mut(key) {
            *at = now.min(*at);
        }
    }

    fn deployment(&mut self, key: &str, object: &Value, now: u64) {
        let (spec, uid) = (&object["spec"], object["metadata"]["uid"].as_str().unwrap_or_default());
        let replicas = spec["replicas"].as_i64().unwrap_or(1);
        let rolling = &spec["strategy"]["rollingUpdate"];
        let surge = number_of(&rolling["maxSurge"], replicas, true);
        let unavailable = match number_of(&rolling["maxUnavailable"], replicas, false) {
            // Something has to give.
            0 if surge == 0 => 1,
            unavailable => unavailable,
        };
        let least = if spec["strategy"]["type"] == "RollingUpdate" { replicas - unavailable } else { 0 };
        let deployment = self.deployments.entry(uid.to_owned()).or_default();
        deployment.key = key.to_owned();
        deployment.least.push((now, least));
    }

    fn set(&mut self, key: &str, object: &Value, now: u64) -> Option<String> {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
        let set = self.sets.entry(uid.to_owned()).or_default();
        let before = std::mem::replace(&mut set.replicas, replicas);
        set.deployment = controller(Some(object)).unwrap_or_default();
        let (taken, owner) = (set.loses(before, replicas), set.deployment.clone());
        let deployment = self.deployments.get(&owner).filter(|_| taken > 0)?;
        let sets = self.sets.values().filter(|set| set.deployment == owner);
        let (left, least) = (sets.map(|set| set.available(set.replicas, now)).sum::<i64>(), deployment.least(now));
        (left < least).then(|| {
            format!(
                "{key} is scaled from {before} to {replicas}, which leaves {} {left} pods that were ready, not {least}",
                deployment.key
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_never_were_ready_do_not_count() {
        let mut all = Availability::default();
        let deployment = json!({"metadata": {"uid": "d"}, "spec": {"replicas": 2, "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 1}}}});
        let set = |uid: &str, replicas: i64| json!({"metadata": {"uid": uid, "ownerReferences": [{"uid": "d", "controller": true}]}, "spec": {"replicas": replicas}});
        let pod = |uid: &str, ready: &str| {
            json!({"metadata": {"ownerReferences": [{"uid": uid, "controller": true}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        let mut check = |key: &str, object: Value, now: u64, expected: bool| {
            let told = all.changed(key, None, Some(&object), now);
            assert_eq!(told.is_some(), expected, "{told:?}");
        };
        check("/registry/apps/deployments/n/d", deployment, 0, false);
        check("/registry/apps/replicasets/n/old", set("old", 2), 0, false);
        check("/registry/core/pods/n/a", pod("old", "True"), 1, false);
        check("/registry/core/pods/n/b", pod("old", "True"), 2, false);
        check("/registry/apps/replicasets/n/new", set("new", 1), 3, false);
        check("/registry/core/pods/n/c", pod("new", "False"), 4, false);
        check("/registry/apps/replicasets/n/old", set("old", 1), 5, false);
        check("/registry/apps/replicasets/n/old", set("old", 0), 6, true);
        check("/registry/apps/replicasets/n/old", set("old", 1), 7, false);
        check("/registry/core/pods/n/c", pod("new", "True"), 8, false);
        check("/registry/core/pods/n/c", pod("new", "False"), 9, false);
        check("/registry/apps/replicasets/n/old", set("old", 0), 10, false);
    }
}
