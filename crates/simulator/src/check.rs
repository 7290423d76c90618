//! What must hold when a cluster has settled.

mod others;
mod scalers;
mod sets;
mod volumes;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::audit::Auditor;
use crate::kubelets::Kubelets;

/// The objects of the cluster, for the checks.
pub(crate) struct Cluster<'a> {
    auditor: &'a Auditor,
    kubelets: &'a Kubelets,
}

impl Cluster<'_> {
    fn of(&self, resource: &str) -> Vec<Value> {
        self.auditor.objects(&format!("/registry/{resource}/"))
    }

    /// Those that the owner with this uid controls.
    fn owned(&self, resource: &str, uid: &str) -> Vec<Value> {
        let mut all = self.of(resource);
        all.retain(|object| controller(object).is_some_and(|owner| owner["uid"] == uid));
        all
    }

    fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.auditor.violated(format!("settled, but {}", what()));
        }
    }
}

fn controller(object: &Value) -> Option<&Value> {
    object["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)
}

fn name(object: &Value) -> String {
    let meta = &object["metadata"];
    let text = |key: &str| meta[key].as_str().unwrap_or_default();
    format!("{} {}/{}", object["kind"].as_str().unwrap_or_default(), text("namespace"), text("name"))
}

fn number(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Checks everything.
pub(crate) fn all(auditor: &Auditor, kubelets: &Kubelets) {
    let cluster = Cluster { auditor, kubelets };
    nothing_is_left(&cluster);
    every_pod_has_its_place(&cluster);
    sets::deployments(&cluster);
    sets::replica_sets(&cluster);
    sets::stateful_sets(&cluster);
    sets::daemon_sets(&cluster);
    others::jobs(&cluster);
    others::services(&cluster);
    others::budgets(&cluster);
    others::cron_jobs(&cluster);
    scalers::autoscalers(&cluster);
    scalers::quotas(&cluster);
    volumes::bound(&cluster);
    volumes::claims_of_sets(&cluster);
    volumes::directories(&cluster);
}

/// Nothing waits for its end, and what is owned has an owner.
fn nothing_is_left(cluster: &Cluster<'_>) {
    let all = cluster.auditor.all();
    let uids: BTreeSet<&str> = all.iter().filter_map(|(_, object)| object["metadata"]["uid"].as_str()).collect();
    for (_, object) in &all {
        let meta = &object["metadata"];
        // A volume goes when its claim has gone.
        let claimed = object["kind"] == "PersistentVolume" && object["status"]["phase"] == "Bound";
        cluster.expect(claimed || meta.get("deletionTimestamp").is_none(), || {
            format!("{} is still being deleted, finalizers {}", name(object), meta["finalizers"])
        });
        let owners = || meta["ownerReferences"].as_array().into_iter().flatten();
        let lives = |owner: &Value| owner["uid"].as_str().is_some_and(|uid| uids.contains(uid));
        let orphaned = owners().next().is_some() && !owners().any(lives);
        cluster.expect(!orphaned, || format!("{} is there and its owners are not: {}", name(object), meta["ownerReferences"]));
    }
}

/// Every pod that is not over runs on a node.
fn every_pod_has_its_place(cluster: &Cluster<'_>) {
    for pod in cluster.of("core/pods") {
        let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        cluster.expect(over || pod["spec"]["nodeName"].is_string(), || format!("{} has no node", name(&pod)));
        cluster.expect(over || is_ready(&pod), || format!("{} is not ready", name(&pod)));
    }
}
