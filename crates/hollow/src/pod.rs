//! What a hollow kubelet says of a pod: functions of the pod.

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, HostIP, Pod, PodCondition,
    PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pods::state;

/// The annotation of a pod that says for how long its containers run before they succeed, such as `90s`.
const RUNS: &str = "knarr.io/hollow-runs";
/// How long they run without it, where they are not to be started again.
const RUNS_FOR: Duration = Duration::from_secs(1);
/// What containers that are told to end exit with: SIGTERM.
pub(crate) const TERMINATED: i32 = 143;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Its containers run, and are ready.
    Run,
    /// They run for so long yet.
    Wait(Duration),
    /// They have done what they had to.
    Finish,
    /// They end, and the pod goes.
    Stop,
    /// They have ended, and the pod goes.
    Remove,
}

/// Where a pod is.
pub(crate) struct Place {
    pub(crate) node: Ipv4Addr,
    pub(crate) pod: Ipv4Addr,
}

/// The next step of a pod that is bound to a hollow node.
pub(crate) fn step(pod: &Pod, now: Timestamp) -> Step {
    let ends = state::is_ending(pod);
    match state::phase(pod) {
        // Somebody holds it by a finalizer.
        _ if state::is_finished(pod) && pod.metadata.deletion_grace_period_seconds == Some(0) => Step::Nothing,
        _ if state::is_finished(pod) => {
            if ends {
                Step::Remove
            } else {
                Step::Nothing
            }
        }
        _ if ends => Step::Stop,
        "Running" if state::is_ready(pod) != gates_open(pod) => Step::Run,
        "Running" => match (lasts(pod), started(pod)) {
            (Some(lasts), Some(started)) => {
                let left = lasts.saturating_sub(now.duration_since(started).try_into().unwrap_or_default());
                if left.is_zero() { Step::Finish } else { Step::Wait(left) }
            }
            _ => Step::Nothing,
        },
        _ => Step::Run,
    }
}

/// Now, to the second, as the API keeps it.
fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// For how long its containers run; none for ever.
pub(crate) fn lasts(pod: &Pod) -> Option<Duration> {
    let said = pod.metadata.annotations.as_ref().and_then(|all| all.get(RUNS));
    let said = said.and_then(|text| text.parse::<jiff::SignedDuration>().ok()).map(|lasts| lasts.unsigned_abs());
    let restarts = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).is_none_or(|policy| policy == "Always");
    if restarts { None } else { Some(said.unwrap_or(RUNS_FOR)) }
}

fn started(pod: &Pod) -> Option<Timestamp> {
    pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

/// Whether others say of the pod what has to be said before it is ready (`readinessGates`).
fn gates_open(pod: &Pod) -> bool {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.into_iter().all(|gate| state::condition(pod, &gate.condition_type).is_some_and(|condition| condition.status == "True"))
}

/// The status of a pod whose containers run.
pub(crate) fn running(pod: &Pod, place: &Place, now: Timestamp) -> PodStatus {
    let since = Time(started(pod).unwrap_or_else(|| seconds(now)));
    let state = |_: &Container| ContainerState {
        running: Some(ContainerStateRunning { started_at: Some(since.clone()) }),
        ..Default::default()
    };
    let ready = gates_open(pod);
    let conditions = vec![
        condition(pod, "PodReadyToStartContainers", true, None, now),
        condition(pod, "Initialized", true, None, now),
        condition(pod, "ContainersReady", true, None, now),
        condition(pod, "Ready", ready, (!ready).then_some("ReadinessGatesNotReady"), now),
    ];
    status(pod, place, ("Running", now), conditions, state)
}

/// The status of a pod whose containers have ended with this code.
pub(crate) fn over(pod: &Pod, place: &Place, now: Timestamp, code: i32) -> PodStatus {
    let (phase, reason) = if code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    let since = Time(started(pod).unwrap_or_else(|| seconds(now)));
    let state = |_: &Container| ContainerState { terminated: Some(terminated(code, reason, &since, now)), ..Default::default() };
    let why = Some(if code == 0 { "PodCompleted" } else { "PodFailed" });
    let conditions = vec![
        condition(pod, "PodReadyToStartContainers", false, None, now),
        condition(pod, "Initialized", true, if code == 0 { why } else { None }, now),
        condition(pod, "ContainersReady", false, why, now),
        condition(pod, "Ready", false, why, now),
    ];
    status(pod, place, (phase, now), conditions, state)
}

fn terminated(code: i32, reason: &str, since: &Time, now: Timestamp) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: code,
        reason: Some(reason.to_owned()),
        started_at: Some(since.clone()),
        finished_at: Some(Time(seconds(now))),
        ..Default::default()
    }
}

fn condition(pod: &Pod, kind: &str, is: bool, reason: Option<&str>, now: Timestamp) -> PodCondition {
    let status = if is { "True" } else { "False" };
    let since = state::condition(pod, kind).filter(|known| known.status == status);
    let since = since.and_then(|known| known.last_transition_time.clone()).unwrap_or_else(|| Time(seconds(now)));
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        last_transition_time: Some(since),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

fn status(
    pod: &Pod,
    place: &Place,
    (phase, now): (&str, Timestamp),
    conditions: Vec<PodCondition>,
    state: impl Fn(&Container) -> ContainerState,
) -> PodStatus {
    let spec = pod.spec.as_ref();
    let runs = phase == "Running";
    let of = |container: &Container, state: ContainerState| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        ready: runs || state.terminated.as_ref().is_some_and(|end| end.exit_code == 0 && end.reason.as_deref() == Some(INIT)),
        started: Some(runs && state.running.is_some()),
        state: Some(state),
        ..Default::default()
    };
    let since = Time(started(pod).unwrap_or_else(|| seconds(now)));
    let init = |container: &Container| match pods::is_sidecar(container) {
        true => of(container, state(container)),
        false => of(container, ContainerState { terminated: Some(terminated(0, INIT, &since, now)), ..Default::default() }),
    };
    let inits: Vec<_> = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).map(init).collect();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        container_statuses: spec.map(|spec| spec.containers.iter().map(|one| of(one, state(one))).collect()),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        start_time: Some(since.clone()),
        host_ip: Some(place.node.to_string()),
        host_ips: Some(vec![HostIP { ip: place.node.to_string() }]),
        pod_ip: Some(place.pod.to_string()),
        pod_ips: Some(vec![PodIP { ip: place.pod.to_string() }]),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

/// The reason of containers that have done what they had to.
const INIT: &str = "Completed";
