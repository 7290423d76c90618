//! Pods that were to be disrupted and are still there (KEP-3329): the condition `DisruptionTarget` says so no more after a while. Whoever
//! evicts a pod writes the condition first, and may never come to the deletion, such as when its client has hung up in between.

use std::time::Duration;

use client::kube::api::{Patch, PatchParams};
use client::{Api, Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::eviction::forgive;
use crate::{meta, pods};

const CONDITION: &str = "DisruptionTarget";
/// How long a pod may take to be deleted once its condition is there (upstream: `stalePodDisruptionTimeout`).
const PATIENCE: Duration = Duration::from_secs(2 * 60);
/// A pod that its kubelet ends may take any time.
const BY_KUBELET: &str = "TerminationByKubelet";

pub(crate) struct StaleTargets {
    pods: Informer<Pod>,
}

impl StaleTargets {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { pods: informers.of() }
    }
}

impl Controller for StaleTargets {
    const NAME: &'static str = "disruption-stale-pods";
    const ACCOUNT: &'static str = "disruption-controller";
    const CONCURRENCY: usize = 1;

    fn sources(&self) -> Vec<Source> {
        vec![Source::stepped(&self.pods, |step, queue| {
            if step.new.as_ref().is_some_and(|pod| pod.mentions(CONDITION)) {
                queue.add(step.key().clone());
            }
        })]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.by_key(key) else { return Ok(Action::Done) };
        let now = Timestamp::now();
        match stale_in(&pod, now) {
            None => return Ok(Action::Done),
            Some(wait) if !wait.is_zero() => return Ok(Action::After(wait)),
            Some(_) => {}
        }
        let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        for condition in conditions.iter_mut().filter(|condition| condition.type_ == CONDITION) {
            condition.status = "False".to_owned();
            condition.last_transition_time = Some(meta::whole_seconds(now));
            condition.observed_generation = pod.metadata.generation;
        }
        let read = json!({"uid": meta::uid(&*pod), "resourceVersion": pod.metadata.resource_version});
        let patch = json!({"metadata": read, "status": {"conditions": conditions}});
        let api: Api<Pod> = Api::namespaced(cx.client.clone(), key.ns());
        forgive(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()))?;
        Ok(Action::Done)
    }
}

/// In what time the condition of a pod is stale; none for a pod whose condition says nothing, or is true.
fn stale_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    if pod.metadata.deletion_timestamp.is_some() || pods::is_finished(pod) {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == CONDITION && condition.status == "True")?;
    if condition.reason.as_deref() == Some(BY_KUBELET) {
        return None;
    }
    let since = condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(PATIENCE.saturating_sub(passed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object};
    use serde_json::Value;

    fn pod(metadata: Value, phase: &str, reason: &str, status: &str, since: &str) -> Pod {
        let condition = json!({"type": CONDITION, "status": status, "reason": reason, "lastTransitionTime": since});
        let mut pod = json!({"metadata": {"namespace": "a", "name": "p", "uid": "p"}, "spec": {"containers": []},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}, condition]}});
        metadata.as_object().into_iter().flatten().for_each(|(key, value)| pod["metadata"][key] = value.clone());
        object(pod)
    }

    /// `nonTerminatingPodHasStaleDisruptionCondition`: "Pod disruption conditions added by kubelet are never considered stale".
    #[test]
    fn what_is_stale() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("a time");
        let by_api = "EvictionByEvictionAPI";
        let check =
            |pod: Pod, expected: Option<u64>| assert_eq!(stale_in(&pod, now).map(|wait| wait.as_secs()), expected, "{pod:?}");
        check(pod(json!({}), "Running", by_api, "True", "2026-01-01T00:07:00Z"), Some(0));
        check(pod(json!({}), "Running", by_api, "True", "2026-01-01T00:09:30Z"), Some(90));
        check(pod(json!({}), "Running", by_api, "False", "2026-01-01T00:07:00Z"), None);
        check(pod(json!({}), "Running", BY_KUBELET, "True", "2026-01-01T00:07:00Z"), None);
        check(pod(json!({}), "Failed", by_api, "True", "2026-01-01T00:07:00Z"), None);
        let going = json!({"deletionTimestamp": "2026-01-01T00:08:00Z"});
        check(pod(going, "Running", by_api, "True", "2026-01-01T00:07:00Z"), None);
    }

    #[tokio::test]
    async fn a_pod_that_is_not_deleted_is_no_target_any_more() {
        let world = World::new();
        world.fake.put::<Pod>(&pod(json!({}), "Running", "EvictionByEvictionAPI", "True", "2026-01-01T00:07:00Z"));
        world.start(&["disruption-stale-pods"]);
        let shown = |pod: &Pod| -> Vec<(String, String)> {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            conditions.into_iter().map(|condition| (condition.type_, condition.status)).collect()
        };
        let expected = [("Ready", "True"), (CONDITION, "False")].map(|(kind, status)| (kind.to_owned(), status.to_owned()));
        world.fake.until::<Pod>(|pods| pods.len() == 1 && shown(&pods[0]) == expected).await;
    }
}
