//! Pods that nobody else will remove: on nodes that are gone, ending on nodes that are known to be off (KEP-2268), ended before they were scheduled, and finished ones beyond
//! a threshold.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Api;
use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use client::{Index, Informer, Informers, Key};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use serde_json::json;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::eviction::forgive;
use crate::node_lifecycle::is_shut_down;
use crate::{meta, pods};

/// How long a pod's node may be unknown: its creation may be under way.
const QUARANTINE: std::time::Duration = std::time::Duration::from_secs(40);

pub(crate) struct PodCollector {
    pods: Informer<Pod>,
    by_node: Index<Pod>,
    nodes: Informer<Node>,
    /// Finished pods that may stay; all when None.
    threshold: Option<usize>,
    /// Since when the node of a key was not there.
    missing: parking_lot::Mutex<BTreeMap<String, tokio::time::Instant>>,
}

impl PodCollector {
    pub(crate) fn new(informers: &Informers, threshold: Option<usize>) -> Self {
        let pods = informers.of();
        Self { by_node: pods::by_node(&pods), pods, nodes: informers.of(), threshold, missing: parking_lot::Mutex::default() }
    }
}

/// Keys: a node's name; "" for pods without one; "/" for the finished ones of all nodes.
const UNSCHEDULED: &str = "";
const FINISHED: &str = "/";

impl Controller for PodCollector {
    const NAME: &'static str = "pod-garbage-collector";
    const ACCOUNT: &'static str = "pod-garbage-collector";
    const CONCURRENCY: usize = 1;

    fn sources(&self) -> Vec<Source> {
        let (all, nodes, threshold) = (self.pods.clone(), self.nodes.clone(), self.threshold);
        let of_pods = Source::stepped(&self.pods, move |step, queue| {
            let Some(pod) = &step.new else { return };
            let node = pods::node_of(pod);
            if node.is_empty() {
                if pod.is_ending() {
                    queue.add(Key::cluster(UNSCHEDULED));
                }
            } else if nodes.get(None, &node).is_none_or(|node| pod.is_ending() && is_shut_down(&node)) {
                queue.add(Key::cluster(node));
            }
            let too_many = threshold.is_some_and(|most| all.len() > most);
            if too_many && pods::may_be_finished(pod) && pod.get().is_some_and(|pod| pods::is_finished(&pod)) {
                queue.add(Key::cluster(FINISHED));
            }
        });
        let of_nodes = Source::mapped(&self.nodes, |change, queue| {
            let off = |node: &Option<Arc<Node>>| node.as_deref().is_some_and(is_shut_down);
            if change.new.is_none() || (off(&change.new) && !off(&change.old)) {
                queue.add(change.key.clone());
            }
        });
        vec![of_pods, of_nodes]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        match key.name.as_str() {
            UNSCHEDULED => {
                let ended = self.by_node.get(UNSCHEDULED).into_iter().filter(|pod| meta::ends(pod.as_ref()));
                remove_all(cx, ended, None).await?;
                Ok(Action::Done)
            }
            FINISHED => self.remove_surplus(cx).await,
            node => self.remove_orphans(cx, node).await,
        }
    }
}

impl PodCollector {
    /// Removes what is left on a node that is gone, and what ends on one that is off.
    async fn remove_orphans(&self, cx: &Cx, node: &str) -> Result<Action, Error> {
        if let Some(found) = self.nodes.get(None, node) {
            self.missing.lock().remove(node);
            if is_shut_down(&found) {
                let ending = self.by_node.get(node).into_iter().filter(|pod| meta::ends(pod.as_ref()));
                remove_all(cx, ending, None).await?;
            }
            return Ok(Action::Done);
        }
        let since = *self.missing.lock().entry(node.to_owned()).or_insert_with(tokio::time::Instant::now);
        let waited = since.elapsed();
        if waited < QUARANTINE {
            return Ok(Action::After(QUARANTINE - waited));
        }
        // The cache may be behind a node that has just come back.
        let api: Api<Node> = Api::all(cx.client.clone());
        if api.get_opt(node).await?.is_none() {
            remove_all(cx, self.by_node.get(node), Some("PodGC: node no longer exists")).await?;
        }
        self.missing.lock().remove(node);
        Ok(Action::Done)
    }

    async fn remove_surplus(&self, cx: &Cx) -> Result<Action, Error> {
        let Some(most) = self.threshold else { return Ok(Action::Done) };
        let mut finished: Vec<Arc<Pod>> = self.pods.select(pods::is_finished);
        let surplus = finished.len().saturating_sub(most);
        finished.sort_by_cached_key(|pod| rank(pod));
        remove_all(cx, finished.into_iter().take(surplus), None).await?;
        Ok(Action::Done)
    }
}

/// Where a finished pod stands among those that go: evicted ones first, which are of no use, then the oldest (kubernetes#116167).
fn rank(pod: &Pod) -> (bool, Option<jiff::Timestamp>, String) {
    let evicted =
        pods::phase(pod) == "Failed" && pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("Evicted");
    (!evicted, pod.metadata.creation_timestamp.as_ref().map(|time| time.0), meta::name(pod).to_owned())
}

/// Removes pods. One that cannot be removed keeps no other.
async fn remove_all(cx: &Cx, pods: impl IntoIterator<Item = Arc<Pod>>, why: Option<&str>) -> Result<(), Error> {
    let mut failed = Ok(());
    for pod in pods {
        failed = failed.and(remove(cx, &pod, why).await);
    }
    failed
}

/// Removes a pod at once. One that has not finished is marked as failed first, so that its owner sees what became of it: a Job lets no
/// pod go that it has not counted, and counts none that has not ended.
async fn remove(cx: &Cx, pod: &Pod, why: Option<&str>) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(cx.client.clone(), meta::namespace(pod));
    let name = meta::name(pod);
    if !pods::is_finished(pod) {
        let mut status = json!({"phase": "Failed"});
        if let Some(why) = why {
            status["conditions"] = json!(disrupted(pod, why));
        }
        let patch = json!({"metadata": {"uid": meta::uid(pod)}, "status": status});
        forgive(api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()))?;
    }
    let uid = pod.metadata.uid.clone();
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let params = at_once.preconditions(Preconditions { uid, resource_version: None });
    forgive(api.delete(name, &params).await.map(|_| ()))
}

/// The conditions of a pod that goes for the sake of the cluster.
fn disrupted(pod: &Pod, why: &str) -> Vec<PodCondition> {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByPodGC".to_owned()),
        message: Some(why.to_owned()),
        last_transition_time: Some(meta::whole_seconds(jiff::Timestamp::now())),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    });
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object};

    #[tokio::test]
    async fn removes_pods_that_ended_before_they_had_a_node() {
        let world = World::new();
        for (name, node, ends) in [("gone", "", true), ("waits", "", false)] {
            let deletion = ends.then_some("2026-01-01T00:00:00Z");
            world.fake.put::<Pod>(&object(json!({
                "metadata": {"namespace": "a", "name": name, "uid": name, "deletionTimestamp": deletion},
                "spec": {"nodeName": node, "containers": []},
            })));
        }
        world.start(&["pod-garbage-collector"]);
        world.fake.until::<Pod>(|pods| pods.len() == 1 && meta::name(&pods[0]) == "waits").await;
    }

    /// Upstream's byEvictionAndCreationTimestamp.
    #[test]
    fn evicted_pods_go_first_and_then_the_oldest() {
        let pod = |name: &str, second: u8, phase: &str, reason: Option<&str>| -> Pod {
            object(json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:0{second}Z")},
                "status": {"phase": phase, "reason": reason}}))
        };
        let mut all = [
            pod("b", 1, "Succeeded", None),
            pod("a", 1, "Failed", None),
            pod("old", 0, "Failed", Some("NodeShutdown")),
            pod("evicted", 9, "Failed", Some("Evicted")),
        ];
        all.sort_by_cached_key(rank);
        assert_eq!(all.iter().map(meta::name).collect::<Vec<_>>(), ["evicted", "old", "a", "b"]);
    }

    /// A Job holds its pods until it has counted them.
    #[tokio::test]
    async fn what_never_had_a_node_has_failed() {
        let world = World::new();
        world.fake.put::<Pod>(&object(json!({
            "metadata": {"namespace": "a", "name": "p", "uid": "p", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["batch.kubernetes.io/job-tracking"]},
            "spec": {"containers": []}, "status": {"phase": "Pending"},
        })));
        world.start(&["pod-garbage-collector"]);
        world.fake.until::<Pod>(|pods| pods::phase(&pods[0]) == "Failed").await;
    }

    /// KEP-2268: pods that end on a node are removed by force once the node has the taint and is not ready, whichever comes last, and whatever
    /// they tolerate. Others stay.
    #[tokio::test]
    async fn what_ends_on_a_node_that_is_off_is_removed() {
        let taint = json!([{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]);
        let node = |name: &str, off: bool, ready: &str| -> Node {
            let taints = if off { taint.clone() } else { json!([]) };
            object(json!({"metadata": {"name": name}, "spec": {"taints": taints},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        };
        let world = World::new();
        let pod = |name: &str, node: &str, ends: bool| -> Pod {
            let deletion = ends.then_some("2026-01-01T00:00:00Z");
            object(json!({
                "metadata": {"namespace": "a", "name": name, "uid": name, "deletionTimestamp": deletion},
                "spec": {"nodeName": node, "containers": [], "tolerations": [{"operator": "Exists"}]},
                "status": {"phase": "Running"},
            }))
        };
        for (name, on, ends) in [("ends", "n", true), ("stays", "n", false), ("other", "m", true)] {
            world.fake.put(&pod(name, on, ends));
        }
        world.fake.put(&node("m", false, "Unknown"));
        world.fake.put(&node("n", true, "True"));
        world.start(&["pod-garbage-collector"]);
        let until = async |names: &[&str]| {
            world.fake.until::<Pod>(|pods| pods.iter().map(meta::name).eq(names.iter().copied())).await;
        };
        // The node falls silent, the other one is said to be off, and one more pod begins to end.
        world.fake.put(&node("n", true, "Unknown"));
        until(&["other", "stays"]).await;
        world.fake.put(&node("m", true, "Unknown"));
        until(&["stays"]).await;
        world.fake.put(&pod("stays", "n", true));
        until(&[]).await;
    }

    /// kube-controller-manager(1), --terminated-pod-gc-threshold: "number of terminated pods that can exist before the terminated pod
    /// garbage collector starts deleting terminated pods".
    #[tokio::test]
    async fn the_oldest_finished_pods_go_beyond_the_threshold() {
        let world = World::new();
        world.fake.put::<Node>(&object(json!({"metadata": {"name": "n"}})));
        for (number, phase) in ["Succeeded", "Running", "Failed", "Succeeded", "Succeeded"].into_iter().enumerate() {
            world.fake.put::<Pod>(&object(json!({
                "metadata": {"namespace": "a", "name": number.to_string(), "uid": number.to_string(), "creationTimestamp": format!("2026-01-01T00:00:0{number}Z")},
                "spec": {"nodeName": "n", "containers": []}, "status": {"phase": phase},
            })));
        }
        world.start_with(&crate::Options { finished_pods: Some(2), ..world.options() }, &["pod-garbage-collector"]);
        world.fake.until::<Pod>(|pods| pods.iter().map(meta::name).eq(["1", "3", "4"])).await;
    }

    /// Its owner sees that it has not succeeded, where something keeps it.
    #[tokio::test]
    async fn what_is_removed_from_a_node_that_is_off_has_failed() {
        let world = World::new();
        world.fake.put::<Node>(&object(json!({"metadata": {"name": "n"},
            "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}})));
        world.fake.put::<Pod>(&object(json!({
            "metadata": {"namespace": "a", "name": "p", "uid": "p", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["batch.kubernetes.io/job-tracking"]},
            "spec": {"nodeName": "n", "containers": []}, "status": {"phase": "Running"},
        })));
        world.start(&["pod-garbage-collector"]);
        world.fake.until::<Pod>(|pods| pods::phase(&pods[0]) == "Failed").await;
    }
}
