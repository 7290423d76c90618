//! Deployments, replica sets, stateful sets and daemon sets.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Cluster, is_ready, name, number};

/// The status has these numbers and is of the present generation.
fn says(cluster: &Cluster<'_>, object: &Value, numbers: &[(&str, i64)]) {
    for (field, expected) in numbers {
        let said = number(object, &format!("/status/{field}"));
        cluster.expect(said == *expected, || format!("{} says {field} {said}, not {expected}", name(object)));
    }
    let (said, is) = (number(object, "/status/observedGeneration"), number(object, "/metadata/generation"));
    cluster.expect(said == is, || format!("{} has observed generation {said} of {is}", name(object)));
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// Each has as many pods as it wants, all ready. Gives them.
fn has(cluster: &Cluster<'_>, owner: &Value, wanted: i64) -> Vec<Value> {
    let mut pods = cluster.owned("core/pods", uid(owner));
    pods.retain(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")));
    let ready = pods.iter().filter(|pod| is_ready(pod)).count() as i64;
    cluster.expect(pods.len() as i64 == wanted && ready == wanted, || {
        format!("{} wants {wanted} pods, has {} and {ready} of them are ready", name(owner), pods.len())
    });
    pods
}

/// Each has its pods, and says so.
pub(super) fn replica_sets(cluster: &Cluster<'_>) {
    for set in cluster.of("apps/replicasets") {
        let wanted = number(&set, "/spec/replicas");
        has(cluster, &set, wanted);
        says(cluster, &set, &[("replicas", wanted), ("readyReplicas", wanted), ("availableReplicas", wanted)]);
    }
}

/// Each has one replica set with all its pods, unless it is paused.
pub(super) fn deployments(cluster: &Cluster<'_>) {
    for deployment in cluster.of("apps/deployments") {
        let wanted = number(&deployment, "/spec/replicas");
        let sets = cluster.owned("apps/replicasets", uid(&deployment));
        let total: i64 = sets.iter().map(|set| number(set, "/spec/replicas")).sum();
        if deployment["spec"]["paused"] == true {
            continue;
        }
        cluster.expect(total == wanted, || format!("{} wants {wanted} pods, its sets {total}", name(&deployment)));
        let full = sets.iter().filter(|set| number(set, "/spec/replicas") > 0).count();
        cluster.expect(full <= 1, || format!("{} has pods of {full} templates", name(&deployment)));
        let fields = ["replicas", "readyReplicas", "updatedReplicas", "availableReplicas"];
        says(cluster, &deployment, &fields.map(|field| (field, wanted)));
        let (kept, old) = (number(&deployment, "/spec/revisionHistoryLimit"), sets.len() as i64 - 1);
        cluster.expect(old <= kept, || format!("{} keeps {old} old sets and may keep {kept}", name(&deployment)));
    }
}

/// Each has the pods of its ordinals.
pub(super) fn stateful_sets(cluster: &Cluster<'_>) {
    for set in cluster.of("apps/statefulsets") {
        let wanted = number(&set, "/spec/replicas");
        let pods = has(cluster, &set, wanted);
        let names: BTreeSet<_> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        let own = set["metadata"]["name"].as_str().unwrap_or_default();
        let right = (0..wanted).all(|ordinal| names.contains(format!("{own}-{ordinal}").as_str()));
        cluster.expect(right, || format!("{} wants {wanted} pods and has {names:?}", name(&set)));
        says(cluster, &set, &["replicas", "readyReplicas", "availableReplicas"].map(|field| (field, wanted)));
        let partition = number(&set, "/spec/updateStrategy/rollingUpdate/partition");
        if set["spec"]["updateStrategy"]["type"] == "RollingUpdate" {
            let new = pods
                .iter()
                .filter(|pod| pod["metadata"]["labels"]["controller-revision-hash"] == set["status"]["updateRevision"]);
            let (new, least) = (new.count() as i64, (wanted - partition).max(0));
            cluster.expect(new >= least, || format!("{} has updated {new} pods, not {least}", name(&set)));
        }
    }
}

/// Each has one pod on each node, all of the present template.
pub(super) fn daemon_sets(cluster: &Cluster<'_>) {
    let nodes = cluster.of("core/nodes").len() as i64;
    for set in cluster.of("apps/daemonsets") {
        let pods = has(cluster, &set, nodes);
        let places: BTreeSet<_> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        cluster.expect(places.len() as i64 == nodes, || format!("{} is on {places:?} of {nodes} nodes", name(&set)));
        let fields =
            ["desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"];
        says(cluster, &set, &fields.map(|field| (field, nodes)));
    }
}
