//! How far a pod has come.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// The phase, empty when the status is not there yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether a phase is a last one: no container will run again.
pub fn is_last_phase(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Succeeded or failed: no container of it will run again.
pub fn is_finished(pod: &Pod) -> bool {
    is_last_phase(phase(pod))
}

/// Whether the pod is being deleted.
pub fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_ending(pod)
}

/// Priorities from here on are the system's own.
const CRITICAL: i32 = 2_000_000_000;

/// Whether the node or the cluster does not work without the pod: such pods are never evicted for others.
pub fn is_critical(pod: &Pod) -> bool {
    let annotation = |name: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(name));
    // Of the node's own files.
    let is_static = annotation("kubernetes.io/config.source").is_some_and(|source| source != "api");
    let is_mirror = annotation("kubernetes.io/config.mirror").is_some();
    is_static || is_mirror || pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= CRITICAL)
}

/// One condition of the pod.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Since when the pod is ready, if it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// Whether the pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// How long until the pod, if it stays ready, has been so for `min_ready` seconds: zero when it is available, None when
/// it is not ready.
pub fn available_in(pod: &Pod, min_ready: i32, now: Timestamp) -> Option<Duration> {
    ready_since(pod).map(|since| available_from(since, min_ready, now))
}

/// How long until a pod that has been ready since then is available.
pub fn available_from(since: Timestamp, min_ready: i32, now: Timestamp) -> Duration {
    if min_ready <= 0 {
        return Duration::ZERO;
    }
    let until = since.as_millisecond() + i64::from(min_ready) * 1000;
    Duration::from_millis(u64::try_from(until - now.as_millisecond()).unwrap_or(0))
}

/// The node the pod is bound to, empty when to none.
pub fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(status: Value, deleted: bool, finished: bool, active: bool, available_ms: Option<u64>) {
        let deletion = deleted.then_some("2026-01-01T00:00:00Z");
        let pod = json!({"metadata": {"deletionTimestamp": deletion}, "status": status});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        assert_eq!((is_finished(&pod), is_active(&pod)), (finished, active), "{status}");
        assert_eq!(available_in(&pod, 15, now), available_ms.map(Duration::from_millis), "{status}");
        assert_eq!(available_in(&pod, 0, now).is_some(), is_ready(&pod), "{status}");
    }

    #[test]
    fn critical_pods() {
        let check = |pod: Value, expected: bool| {
            assert_eq!(is_critical(&serde_json::from_value(pod.clone()).unwrap()), expected, "{pod}")
        };
        check(json!({"spec": {"containers": []}}), false);
        check(json!({"spec": {"containers": [], "priority": 1_999_999_999}}), false);
        check(json!({"spec": {"containers": [], "priority": 2_000_000_000}}), true);
        check(json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}), true);
        check(json!({"metadata": {"annotations": {"kubernetes.io/config.source": "file"}}}), true);
        check(json!({"metadata": {"annotations": {"kubernetes.io/config.source": "api"}}}), false);
    }

    #[test]
    fn phases_deletion_and_readiness() {
        let ready = |status: &str, since: &str| json!({"phase": "Running", "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]});
        check(json!(null), false, false, true, None);
        check(json!({"phase": "Pending"}), true, false, false, None);
        check(json!({"phase": "Succeeded"}), false, true, false, None);
        check(json!({"phase": "Failed"}), true, true, false, None);
        check(ready("True", "2026-01-01T00:00:00Z"), false, false, true, Some(5000));
        check(ready("True", "2025-01-01T00:00:00Z"), false, false, true, Some(0));
        check(ready("False", "2025-01-01T00:00:00Z"), false, false, true, None);
    }
}
