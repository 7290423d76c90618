//! What a node's conditions and heartbeats mean. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};

use crate::meta;

/// How long a node may be silent (upstream's `--node-monitor-grace-period`).
pub(super) const GRACE: Duration = Duration::from_secs(50);
/// How long one may be that has never spoken.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Conditions that a silent node's controller takes over, with the taint of each that keeps pods away.
const CONDITIONS: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// A node that somebody knows to be off has this taint (KEP-2268).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn ready_status(node: &Node) -> Option<&str> {
    condition(node, "Ready").map(|condition| condition.status.as_str())
}

/// When the node says that it wrote its status.
pub(super) fn heartbeat(node: &Node) -> Option<Timestamp> {
    condition(node, "Ready")?.last_heartbeat_time.as_ref().map(|time| time.0)
}

/// How long a node may be silent.
pub(super) fn grace(node: &Node) -> Duration {
    if condition(node, "Ready").is_some() { GRACE } else { STARTUP_GRACE }
}

/// The conditions of a node that has been silent too long. None when they say so already.
pub(super) fn unknown_conditions(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let old = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut new = old.clone();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let found = new.iter_mut().find(|condition| condition.type_ == kind);
        match found {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(meta::whole_seconds(now));
            }
            None => new.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(meta::whole_seconds(now)),
            }),
        }
    }
    (new != old).then_some(new)
}

/// Whether the node says that it is ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    ready_status(node) == Some("True")
}

/// Whether the node or its silence says that it is not ready. One that has never reported, and has not been silent for long, is not lost.
pub(super) fn is_lost(node: &Node) -> bool {
    ready_status(node).is_some_and(|status| status != "True")
}

/// Whether somebody says that the node is off.
pub(crate) fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Whether a node is off by what somebody says and by its own silence: nothing runs there, and what ends has ended. The taint alone is not enough
/// to remove pods, which may run on a node that is ready.
pub(crate) fn is_shut_down(node: &Node) -> bool {
    is_out_of_service(node) && !is_ready(node)
}

/// The taints that the node should have. None when it has them. Without `evict` pods are kept away but not driven out.
pub(super) fn taints(node: &Node, evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.clone().unwrap_or_default();
    let old = spec.taints.unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready_status(node) {
        Some("True") => {}
        Some("False") => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        // Never reported counts as unreachable, but only once the grace is over and the condition is written.
        Some(_) => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        None => wanted.push((NOT_READY, "NoSchedule")),
    }
    wanted.retain(|(_, effect)| evict || *effect != "NoExecute");
    for (kind, taint) in CONDITIONS {
        if condition(node, kind).is_some_and(|condition| condition.status == "True") {
            wanted.push((taint, "NoSchedule"));
        }
    }
    if spec.unschedulable == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let managed = |taint: &Taint| {
        let key = taint.key.as_str();
        let ours = key == NOT_READY || key == UNREACHABLE;
        let by_condition = key == UNSCHEDULABLE || CONDITIONS.iter().any(|(_, one)| *one == key);
        (ours && taint.effect != "PreferNoSchedule") || (by_condition && taint.effect == "NoSchedule")
    };
    let is = |taint: &Taint, (key, effect): &(&str, &str)| taint.key == *key && taint.effect == *effect;
    let mut new = old.clone();
    new.retain(|taint| !managed(taint) || wanted.iter().any(|one| is(taint, one)));
    for one in &wanted {
        if !new.iter().any(|taint| is(taint, one)) {
            let time_added = (one.1 == "NoExecute").then(|| meta::whole_seconds(now));
            new.push(Taint { key: one.0.to_owned(), effect: one.1.to_owned(), value: None, time_added });
        }
    }
    (new != old).then_some(new)
}

/// The taints that drive pods away.
pub(super) fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    taints.filter(|taint| taint.effect == "NoExecute")
}

/// Whether pods are driven from the node because it is not ready.
pub(super) fn is_left(node: &Node) -> bool {
    evicting(node).any(is_of_silence)
}

/// Whether the taint drives pods from a node that is not ready.
pub(super) fn is_of_silence(taint: &Taint) -> bool {
    [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()) && taint.effect == "NoExecute"
}

/// What a pod tolerates for longer than a hundred years it tolerates for ever.
const FOR_EVER: u64 = 100 * 366 * 24 * 60 * 60;

/// In how long the node's NoExecute taints drive the pod away. None: never; zero: now. `since` says from when on the pod has been beside a
/// taint. As upstream, no second or less than none is at once.
pub(super) fn eviction_in(pod: &Pod, node: &Node, since: impl Fn(&Taint) -> Duration, now: Duration) -> Option<Duration> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut earliest = None;
    for taint in evicting(node) {
        let mut fitting = tolerations.iter().filter(|one| ::pods::tolerations::tolerates(one, taint)).peekable();
        if fitting.peek().is_none() {
            return Some(Duration::ZERO);
        }
        // Of several the shortest counts; one without a limit limits nothing.
        let Some(seconds) = fitting.filter_map(|one| one.toleration_seconds).min() else { continue };
        let seconds = u64::try_from(seconds).unwrap_or(0);
        if seconds == 0 {
            return Some(Duration::ZERO);
        }
        if seconds > FOR_EVER {
            continue;
        }
        let left = (since(taint) + Duration::from_secs(seconds)).saturating_sub(now);
        earliest = Some(earliest.map_or(left, |other: Duration| other.min(left)));
    }
    earliest
}
