//! How `kubectl get pods` shows a pod.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};

use crate::columns::Column;
use crate::util::{age_of, or_none};

pub(super) const COLUMNS: &[Column<Pod>] = &[
    Column::new("Ready", "The aggregate readiness state of this pod for accepting traffic.", |pod, _| ready(pod).into()),
    Column::new("Status", "The aggregate status of the containers in this pod.", |pod, _| reason(pod).into()),
    Column::new(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        |pod, now| restarts(pod, now).into(),
    ),
    Column::wide("IP", "Address of the pod.", |pod, _| status(pod, |status| status.pod_ip.clone())),
    Column::wide("Node", "Node that the pod is bound to.", |pod, _| {
        or_none(pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default())
    }),
    Column::wide("Nominated Node", "Node on which the scheduler makes room.", |pod, _| {
        status(pod, |status| status.nominated_node_name.clone())
    }),
    Column::wide("Readiness Gates", "How many of the pod's readiness gates are met.", |pod, _| gates(pod)),
];

/// What there is to say of the row of a pod that has come to its end (upstream: `podSuccessConditions`, `podFailedConditions`).
pub(super) fn conditions(phase: &str) -> Vec<Value> {
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": phase, "message": message})]
}

fn status(pod: &Pod, pick: fn(&PodStatus) -> Option<String>) -> Value {
    or_none(pod.status.as_ref().and_then(pick).unwrap_or_default())
}

fn statuses(pod: &Pod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

fn init_statuses(pod: &Pod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default()
}

/// The names of the init containers that are sidecars (KEP-753).
fn sidecars(pod: &Pod) -> HashSet<&str> {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = containers.filter(|container| pods::is_sidecar(container));
    sidecars.map(|container| container.name.as_str()).collect()
}

fn ready(pod: &Pod) -> String {
    let sidecars = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = sidecars.filter(|container| pods::is_sidecar(container)).count();
    let total = pod.spec.as_ref().map_or(0, |spec| spec.containers.len()) + sidecars;
    let names = self::sidecars(pod);
    let ready_sidecars = init_statuses(pod).iter().filter(|status| status.ready && names.contains(status.name.as_str())).count();
    let ready = statuses(pod).iter().filter(|status| status.ready && running(status)).count() + ready_sidecars;
    format!("{ready}/{total}")
}

fn running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn reason(pod: &Pod) -> String {
    let pod_status = pod.status.clone().unwrap_or_default();
    let phase = pod_status.phase.clone().unwrap_or_default();
    let gated = pod_status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("SchedulingGated"));
    let first = if gated {
        "SchedulingGated".to_owned()
    } else {
        pod_status.reason.clone().filter(|reason| !reason.is_empty()).unwrap_or(phase.clone())
    };
    let shown = match init_reason(pod) {
        Some(reason) if !is_initialized(pod) => reason,
        reason => container_reason(pod, reason.unwrap_or(first)),
    };
    if pod.metadata.deletion_timestamp.is_none() {
        return shown;
    }
    match pod_status.reason.as_deref() {
        Some("NodeLost") => "Unknown".to_owned(),
        _ if pods::state::is_last_phase(&phase) => shown,
        _ => "Terminating".to_owned(),
    }
}

/// Whether the init containers were done once: a sidecar that has ended since, as all do after the others, changes nothing of it.
fn is_initialized(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Initialized" && condition.status == "True")
}

/// The state of init containers, while they are not done.
fn init_reason(pod: &Pod) -> Option<String> {
    let total = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref()).map_or(0, Vec::len);
    let names = sidecars(pod);
    for (index, container) in init_statuses(pod).iter().enumerate() {
        let state = container.state.clone().unwrap_or_default();
        let sidecar_up = names.contains(container.name.as_str()) && container.started == Some(true);
        if state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0) || sidecar_up {
            continue;
        }
        if let Some(ended) = state.terminated {
            let reason = ended.reason.filter(|reason| !reason.is_empty());
            return Some(format!("Init:{}", reason.unwrap_or_else(|| exit_reason(ended.signal, ended.exit_code))));
        }
        let waiting =
            state.waiting.and_then(|waiting| waiting.reason).filter(|reason| !reason.is_empty() && reason != "PodInitializing");
        return Some(waiting.map_or_else(|| format!("Init:{index}/{total}"), |reason| format!("Init:{reason}")));
    }
    None
}

fn exit_reason(signal: Option<i32>, code: i32) -> String {
    match signal.filter(|signal| *signal != 0) {
        Some(signal) => format!("Signal:{signal}"),
        None => format!("ExitCode:{code}"),
    }
}

fn container_reason(pod: &Pod, mut reason: String) -> String {
    let mut has_running = false;
    for container in statuses(pod).iter().rev() {
        let ContainerState { waiting, terminated, running } = container.state.clone().unwrap_or_default();
        if let Some(waiting) = waiting.and_then(|waiting| waiting.reason).filter(|reason| !reason.is_empty()) {
            reason = waiting;
        } else if let Some(ended) = terminated {
            let said = ended.reason.filter(|reason| !reason.is_empty());
            reason = said.unwrap_or_else(|| exit_reason(ended.signal, ended.exit_code));
        } else if container.ready && running.is_some() {
            has_running = true;
        }
    }
    if reason == "Completed" && has_running {
        let ready = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = ready.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        return if ready { "Running" } else { "NotReady" }.to_owned();
    }
    reason
}

fn restarts(pod: &Pod, now: Timestamp) -> String {
    let inits = init_statuses(pod);
    let done = init_reason(pod).is_none() || is_initialized(pod);
    let names = sidecars(pod);
    let counted = inits.iter().filter(|status| !done || names.contains(status.name.as_str()));
    let all: Vec<_> = if done { counted.chain(statuses(pod)).collect() } else { counted.collect() };
    let count: i32 = all.iter().map(|status| status.restart_count).sum();
    let last = all
        .iter()
        .filter_map(|status| status.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0)
        .max();
    match last {
        Some(last) if count > 0 => format!("{count} ({} ago)", age_of(Some(last), now)),
        _ => count.to_string(),
    }
}

fn gates(pod: &Pod) -> Value {
    let gates: Vec<_> = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten()).collect();
    if gates.is_empty() {
        return "<none>".into();
    }
    let conditions = || pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let met = gates
        .iter()
        .filter(|gate| conditions().any(|condition| condition.type_ == gate.condition_type && condition.status == "True"));
    format!("{}/{}", met.count(), gates.len()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// `printPod` (pkg/printers/internalversion/printers.go), of the cases in `TestPrintPod` and `TestPrintPodWithRestartableInitContainers`.
    #[test]
    fn how_pods_are_shown() {
        let check = |status: Value, expected: (&str, &str, &str)| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status, "spec": {
                "initContainers": [{"name": "init"}, {"name": "sidecar", "restartPolicy": "Always"}],
                "containers": [{"name": "a"}, {"name": "b"}]}}))
            .unwrap();
            let shown = (ready(&pod), reason(&pod), restarts(&pod, Timestamp::UNIX_EPOCH));
            assert_eq!((shown.0.as_str(), shown.1.as_str(), shown.2.as_str()), expected, "{status}");
        };
        let ended = |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
        let waits = |reason: &str| json!({"waiting": {"reason": reason}});
        let runs = || json!({"running": {}});
        let of = |name: &str, state: &Value, up: bool, restarts: i32| json!({"name": name, "state": state, "ready": up, "started": up, "restartCount": restarts, "image": "", "imageID": ""});
        let initialized = |status: &str| json!([{"type": "Initialized", "status": status}]);
        let pod = |phase: &str, done: &str, inits: [Value; 2], containers: [Value; 2]| json!({"phase": phase, "conditions": initialized(done), "initContainerStatuses": inits, "containerStatuses": containers});
        let done = || of("init", &ended(0, "Completed"), false, 0);
        let waiting = || [of("a", &waits("PodInitializing"), false, 0), of("b", &waits("PodInitializing"), false, 0)];
        let both = |state: &Value| [of("a", state, false, 0), of("b", state, false, 0)];

        check(json!({"phase": "Pending"}), ("0/3", "Pending", "0"));
        check(
            pod(
                "Pending",
                "False",
                [of("init", &runs(), false, 0), of("sidecar", &waits("PodInitializing"), false, 0)],
                waiting(),
            ),
            ("0/3", "Init:0/2", "0"),
        );
        check(
            pod(
                "Pending",
                "False",
                [of("init", &waits("CrashLoopBackOff"), false, 3), of("sidecar", &waits("PodInitializing"), false, 0)],
                waiting(),
            ),
            ("0/3", "Init:CrashLoopBackOff", "3"),
        );
        check(
            pod(
                "Failed",
                "False",
                [of("init", &ended(7, ""), false, 0), of("sidecar", &waits("PodInitializing"), false, 0)],
                waiting(),
            ),
            ("0/3", "Init:ExitCode:7", "0"),
        );
        check(
            pod(
                "Running",
                "True",
                [done(), of("sidecar", &runs(), true, 2)],
                [of("a", &runs(), true, 1), of("b", &runs(), true, 0)],
            ),
            ("3/3", "Running", "3"),
        );
        // Sidecars end after the others, mostly by a signal: what counts is how the others have ended.
        let killed = of("sidecar", &ended(137, "Error"), false, 2);
        check(pod("Succeeded", "True", [done(), killed.clone()], both(&ended(0, "Completed"))), ("0/3", "Completed", "2"));
        check(pod("Failed", "True", [done(), killed], both(&ended(1, "Error"))), ("0/3", "Error", "2"));
        // One that fails while the others run is told.
        let failing = of("sidecar", &waits("CrashLoopBackOff"), false, 4);
        check(
            pod("Running", "True", [done(), failing], [of("a", &runs(), true, 0), of("b", &runs(), true, 0)]),
            ("2/3", "Init:CrashLoopBackOff", "4"),
        );
    }
}
