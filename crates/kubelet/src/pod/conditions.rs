//! The conditions of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use runtime::api::SandboxState;

use super::state::{Evicted, Slot, State, Step};
use super::{resize, restart};
use crate::spec::{Member, Model, Role};

/// API times have whole seconds.
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// Conditions that the kubelet owns; the others are read from the API only.
pub const OWN: [&str; 8] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", PENDING, IN_PROGRESS, RESTARTING];

/// The pod asks for more than it has been given. Not there when it does not.
const PENDING: &str = "PodResizePending";
/// What runs does not have what the pod has been given yet. Not there when it has.
const IN_PROGRESS: &str = "PodResizeInProgress";

/// All containers are stopped to be started again (KEP-5532). Only there where a rule of the pod may do so.
const RESTARTING: &str = "AllContainersRestarting";

/// The pod is ended by the node; others tell of disruptions with it, too (KEP-3329).
const DISRUPTED: &str = "DisruptionTarget";

/// Status, reason and message of a condition.
type Verdict = (bool, &'static str, String);

/// The kubelet's own conditions, after the ones of others that `old` holds.
pub fn generate(model: &Model, state: &State, new: &PodStatus, old: &PodStatus, now: Timestamp) -> Vec<PodCondition> {
    let ready = containers_ready(model, new);
    let stopped = state.ending.as_ref().is_some_and(|ending| ending.sandbox == Step::Done(()));
    let has_sandbox = state.sandbox.done().is_some_and(|sandbox| sandbox.state == SandboxState::Ready) && !stopped;
    // Upstream makes the sandbox after the volumes.
    let may_start = has_sandbox && (state.volumes.done().is_some() || state.had_volumes);
    let own: [(&str, Verdict); 5] = [
        ("PodReadyToStartContainers", (may_start, "", String::new())),
        ("Initialized", initialized_verdict(model, state, new)),
        ("Ready", pod_ready(model, &ready, old)),
        ("ContainersReady", ready),
        ("PodScheduled", (true, "", String::new())),
    ];
    let before = old.conditions.as_deref().unwrap_or_default();
    let mut conditions: Vec<_> = before.iter().filter(|c| !OWN.contains(&c.type_.as_str())).cloned().collect();
    for (name, (holds, reason, message)) in
        own.into_iter().chain(passing_verdicts(model, state)).chain(restarting(model, state, new))
    {
        let status = if holds { "True" } else { "False" };
        conditions.retain(|condition| condition.type_ != name);
        let previous = before.iter().find(|condition| condition.type_ == name);
        let kept = previous.filter(|p| p.status == status).and_then(|p| p.last_transition_time.clone());
        conditions.push(PodCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
            message: Some(message).filter(|message| !message.is_empty()),
            last_probe_time: None,
            last_transition_time: Some(kept.unwrap_or_else(|| seconds(now))),
            observed_generation: match name {
                PENDING => state.pending.as_ref().and_then(|pending| pending.generation),
                _ => model.pod.metadata.generation,
            },
        });
    }
    conditions
}

/// The conditions that are there only while there is something to say.
fn passing_verdicts(model: &Model, state: &State) -> impl Iterator<Item = (&'static str, Verdict)> {
    let pending = state.pending.as_ref().map(|pending| (PENDING, (true, pending.reason, pending.message.clone())));
    let (reason, message) = match &state.resize {
        Step::Failed(failure) => ("Error", failure.message.clone()),
        _ => ("", String::new()),
    };
    let evicted =
        state.evicted.as_ref().filter(|evicted| state.ending.as_ref().is_some_and(|ending| evicted.is_cause(&ending.cause)));
    let evicted = evicted.and_then(Evicted::disruption).map(|message| (DISRUPTED, (true, "TerminationByKubelet", message)));
    let in_progress = state.ending.is_none() && resize::in_progress(model, state);
    let in_progress = in_progress.then_some((IN_PROGRESS, (true, reason, message)));
    pending.filter(|_| state.ending.is_none()).into_iter().chain(in_progress).chain(evicted)
}

/// Whether all containers are being stopped to be started again.
fn restarting(model: &Model, state: &State, new: &PodStatus) -> Option<(&'static str, Verdict)> {
    let verdict = match new.phase.as_deref() {
        _ if !restart::is_possible(model) => return None,
        Some("Succeeded") => (false, "PodCompleted", String::new()),
        Some("Failed") => (false, "PodFailed", String::new()),
        _ if state.ending.is_none() && restart::source(model, state).is_some() => {
            (true, "RestartAllContainersStarted", "container exited with restart policy rule".to_owned())
        }
        _ => (false, "", String::new()),
    };
    Some((RESTARTING, verdict))
}

/// Whether all init containers are through and all sidecars have started, or some container has run already.
pub fn initialized(model: &Model, state: &State) -> bool {
    let ran = |name: &str| state.slots.get(name).is_some_and(|slot| slot.current.is_some());
    if model.members.iter().any(|member| member.role == Role::App && ran(&member.spec.name)) {
        return true;
    }
    incomplete(model, state).next().is_none()
}

/// The init containers that have still to run to their end, also where that is once more, and the sidecars that have not started.
fn incomplete<'a>(model: &'a Model, state: &'a State) -> impl Iterator<Item = &'a str> {
    let is_through = |member: &&Member| {
        let slot = state.slots.get(&member.spec.name);
        match member.role {
            Role::Init => slot.and_then(Slot::exited).is_some_and(|ended| ended.exit_code == Some(0)),
            Role::Sidecar => slot.is_some_and(|slot| slot.running() && slot.started),
            Role::App | Role::Ephemeral => true,
        }
    };
    model.members.iter().filter(move |member| !is_through(member)).map(|member| member.spec.name.as_str())
}

fn initialized_verdict(model: &Model, state: &State, new: &PodStatus) -> Verdict {
    if new.phase.as_deref() == Some("Succeeded") {
        return (true, "PodCompleted", String::new());
    }
    if initialized(model, state) {
        return (true, "", String::new());
    }
    (false, "ContainersNotInitialized", format!("containers with incomplete status: {}", go_list(incomplete(model, state))))
}

/// `[a b]`, as Go prints a list.
fn go_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", names.collect::<Vec<_>>().join(" "))
}

fn containers_ready(model: &Model, new: &PodStatus) -> Verdict {
    match new.phase.as_deref() {
        Some("Succeeded") => return (false, "PodCompleted", String::new()),
        Some("Failed") => return (false, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = new.init_container_statuses.iter().flatten();
    let sidecars = sidecars.filter(|status| model.member(&status.name).is_some_and(|member| member.role == Role::Sidecar));
    let mut unready = sidecars.chain(new.container_statuses.iter().flatten()).filter(|status| !status.ready).peekable();
    if unready.peek().is_none() {
        return (true, "", String::new());
    }
    let names = go_list(unready.map(|status| status.name.as_str()));
    (false, "ContainersNotReady", format!("containers with unready status: {names}"))
}

fn pod_ready(model: &Model, containers: &Verdict, old: &PodStatus) -> Verdict {
    if !containers.0 {
        return containers.clone();
    }
    let mut unmet = Vec::new();
    for gate in model.spec().readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        match old.conditions.iter().flatten().find(|condition| condition.type_ == *name) {
            None => unmet.push(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(condition) if condition.status != "True" => {
                unmet.push(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", condition.status));
            }
            Some(_) => {}
        }
    }
    if unmet.is_empty() { (true, "", String::new()) } else { (false, "ReadinessGatesNotReady", unmet.join(", ")) }
}
