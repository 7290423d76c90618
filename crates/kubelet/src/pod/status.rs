//! `status` of a pod, from what is known of it. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, PodIP, PodStatus, VolumeMount, VolumeMountStatus,
};
use runtime::api::{Container, ContainerState, ProcessUser};

use super::conditions::{self, seconds};
use super::ending::keeps_devices;
use super::plan::{finished, is_outdated};
use super::resize;
use super::state::{Cause, Slot, State, Step, bounded};
use crate::resources;
use crate::spec::{Member, Model, Role};
use crate::volumes::mounts::recursive_readonly;

/// Scheme of container identifiers in the API.
pub const SCHEME: &str = "knarr://";
/// How long a container that makes room for another is shown as it was.
const HELD: std::time::Duration = std::time::Duration::from_secs(1);

/// The time.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// By the [clock](crate::clock::Clock) that things are due by.
    pub now: Timestamp,
    /// As is shown.
    pub shown: Timestamp,
}

/// The status to report. `old` is the one that the API has: conditions of others and transition times come from it.
pub fn generate(model: &Model, state: &State, old: &PodStatus, host_ips: &[IpAddr], times: Times) -> PodStatus {
    let Times { now, shown } = times;
    if let Some(Cause::Rejected(reason, message)) = state.ending.as_ref().map(|ending| &ending.cause) {
        return rejected(model, state, old, reason, message);
    }
    let of = |roles: &[Role]| -> Vec<ContainerStatus> {
        let members = model.members.iter().filter(|member| roles.contains(&member.role));
        members
            .map(|member| held(model, state, member, old, now).unwrap_or_else(|| container_status(model, state, member, now)))
            .collect()
    };
    let list = |statuses: Vec<ContainerStatus>| (!statuses.is_empty()).then_some(statuses);
    let phase = phase(model, state, old);
    let pod_ips = pod_ips(model, state, old, host_ips);
    let (reason, message) = match state.ending.as_ref().map(|ending| &ending.cause) {
        Some(Cause::Failed(reason, message)) => (Some(reason.clone()), Some(message.clone())),
        _ => (old.reason.clone(), old.message.clone()),
    };
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        observed_generation: model.pod.metadata.generation,
        host_ip: host_ips.first().map(IpAddr::to_string),
        host_ips: Some(host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then(|| pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: old.start_time.clone().or_else(|| state.start_time.map(seconds)),
        qos_class: old.qos_class.clone().or_else(|| Some(resources::qos(model).name().to_owned())),
        init_container_statuses: list(of(&[Role::Init, Role::Sidecar])),
        container_statuses: list(of(&[Role::App])),
        ephemeral_container_statuses: list(of(&[Role::Ephemeral])),
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        extended_resource_claim_status: old.extended_resource_claim_status.clone(),
        allocated_resources: model.spec().resources.as_ref().and_then(|resources| resources.requests.clone()),
        resources: model.spec().resources.clone().filter(|_| state.sandbox.done().is_some()),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions::generate(model, state, &status, old, shown));
    status
}

/// A pod that was not admitted has a reason and nothing else.
fn rejected(model: &Model, state: &State, old: &PodStatus, reason: &str, message: &str) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        start_time: old.start_time.clone().or_else(|| state.start_time.map(seconds)),
        qos_class: old.qos_class.clone().or_else(|| Some(resources::qos(model).name().to_owned())),
        observed_generation: model.pod.metadata.generation,
        conditions: old.conditions.clone(),
        // Others say which claims it has; a kubelet may not change that.
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        extended_resource_claim_status: old.extended_resource_claim_status.clone(),
        ..PodStatus::default()
    }
}

fn pod_ips(model: &Model, state: &State, old: &PodStatus, host_ips: &[IpAddr]) -> Vec<String> {
    match &state.sandbox {
        Step::Done(_) if model.host_network() => host_ips.iter().map(IpAddr::to_string).collect(),
        Step::Done(sandbox) => sandbox.ips.iter().map(IpAddr::to_string).collect(),
        // A pod that has ended keeps its last addresses for who reads about it.
        _ if state.ending.is_some() => old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
        _ => Vec::new(),
    }
}

/// The phase. A final one is shown when no container runs any more and claimed devices are given back.
fn phase(model: &Model, state: &State, old: &PodStatus) -> &'static str {
    match old.phase.as_deref() {
        Some("Failed") => return "Failed",
        Some("Succeeded") => return "Succeeded",
        _ => {}
    }
    let of = |role: Role| model.members.iter().filter(move |m| m.role == role).map(|m| state.slots.get(&m.spec.name));
    // A container that is shown as waiting has not begun.
    let current_began = |s: &Slot| match s.current.as_ref().map(|container| container.state) {
        Some(ContainerState::Running) => is_shown_running(s),
        other => other == Some(ContainerState::Exited),
    };
    let ran = |slot: Option<&Slot>| {
        slot.is_some_and(|s| current_began(s) || s.previous.is_some() || s.inherited.as_ref().is_some_and(began))
    };
    if let Some(ending) = state.ending.as_ref().filter(|ending| !state.any_alive() && !keeps_devices(model, ending)) {
        if matches!(ending.cause, Cause::Failed(..)) {
            return "Failed";
        }
        let succeeded = finished(model, state).unwrap_or_else(|| {
            of(Role::App).all(|slot| slot.and_then(Slot::exited).is_some_and(|ended| ended.exit_code == Some(0)))
        });
        return if succeeded { "Succeeded" } else { "Failed" };
    }
    let all_ran = of(Role::App).all(ran);
    let any_ran = of(Role::App).any(ran);
    let initialized = any_ran || conditions::initialized(model, state);
    if initialized && all_ran { "Running" } else { "Pending" }
}

/// Whether a container that runs is shown so: until its hook is done and it is steady, it is still being created.
fn is_shown_running(slot: &Slot) -> bool {
    slot.hook.done().is_some() && !slot.unsteady || slot.stopping.is_some()
}

/// The container once it has been started. One that is only made is still being created to the API: showing it would cost
/// a write between two that follow at once.
fn made(slot: &Slot) -> Option<&Container> {
    slot.current.as_ref().filter(|container| container.state != ContainerState::Created)
}

/// The container that has ended and that another one follows. It is shown until the other runs, or cannot: as with upstream, which tells of a container
/// that it has started, and before that of the one that is there (`convertToAPIContainerStatuses`).
fn followed(slot: &Slot) -> Option<&Container> {
    let begins = slot.current.as_ref().is_none_or(|container| match container.state {
        ContainerState::Running => !is_shown_running(slot),
        ContainerState::Exited => false,
        _ => true,
    });
    let fails = slot.failure.is_some() || matches!(slot.image, Step::Failed(_));
    slot.previous.as_ref().filter(|_| begins && !fails)
}

fn began(status: &ContainerStatus) -> bool {
    let told = |state: &Option<ApiState>| state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some());
    told(&status.state) || told(&status.last_state)
}

/// The status that the API has of a container whose place another takes at once, since the pod asks for another by now. It is shown
/// until the other runs: a pod is as ready as before while its container is replaced, as with upstream, where one synchronisation
/// ends the old container and starts the new one.
fn held(model: &Model, state: &State, member: &Member, old: &PodStatus, now: Timestamp) -> Option<ContainerStatus> {
    let slot = state.slots.get(&member.spec.name)?;
    let ended = slot.replaced().filter(|_| matches!(member.role, Role::App | Role::Sidecar))?;
    let again = member.restarts(model.restart_policy(), ended.exit_code.unwrap_or(0));
    let fails = slot.failure.is_some() || matches!(slot.image, Step::Failed(_));
    let runs = slot.running() && is_shown_running(slot);
    if state.ending.is_some() || !again || fails || runs || held_until(member, slot)? <= now {
        return None;
    }
    let id = Some(format!("{SCHEME}{}", ended.id));
    let told = old.init_container_statuses.iter().chain(&old.container_statuses).flatten();
    let mut running = told.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.find(|status| status.name == member.spec.name && status.container_id == id).cloned()
}

/// Until when a container that is replaced is shown as it was.
pub fn held_until(member: &Member, slot: &Slot) -> Option<Timestamp> {
    slot.replaced().filter(|ended| is_outdated(ended, member))?;
    slot.replaced_end()?.checked_add(HELD).ok()
}

/// Status of one container.
pub fn container_status(model: &Model, state: &State, member: &Member, now: Timestamp) -> ContainerStatus {
    let empty = Slot::default();
    let slot = state.slots.get(&member.spec.name).unwrap_or(&empty);
    let newest = followed(slot).or(made(slot)).or(slot.previous.as_ref());
    let (mut shown, last) = shown_states(model, state, member, slot, now);
    if shown.terminated.is_none() && lost_with_pod(model, state, member) {
        shown = never_found();
    }
    let running = shown.running.is_some();
    let inherited = slot.inherited.as_ref().filter(|_| newest.is_none());
    let ready = match member.role {
        Role::Init => shown.terminated.as_ref().is_some_and(|t| t.exit_code == 0),
        Role::Ephemeral => false,
        Role::Sidecar | Role::App => running && slot.started && slot.ready,
    };
    ContainerStatus {
        name: member.spec.name.clone(),
        image: member.spec.image.clone().unwrap_or_default(),
        image_id: newest.map(image_id).or_else(|| inherited.map(|s| s.image_id.clone())).unwrap_or_default(),
        container_id: newest.map(|c| format!("{SCHEME}{}", c.id)).or_else(|| inherited.and_then(|s| s.container_id.clone())),
        ready,
        // Whether an ephemeral container has started nobody asks: no probe waits for it (upstream: `UpdatePodStatus`).
        started: (member.role != Role::Ephemeral).then_some(running && slot.started),
        restart_count: restart_count(slot),
        state: Some(shown),
        last_state: Some(last.unwrap_or_default()),
        allocated_resources: member.spec.resources.as_ref().and_then(|r| r.requests.clone()),
        resources: resize::actual(slot).or_else(|| member.spec.resources.clone()).filter(|_| running),
        volume_mounts: volume_mounts(member, state.features.recursive_readonly),
        user: newest.and_then(|container| container.user.as_ref()).and_then(user),
        stop_signal: newest.and_then(|container| container.stop_signal.clone()),
        ..ContainerStatus::default()
    }
}

/// Who the container's first process begins as (KEP-3619). Images and volumes may have users and groups that the API takes for none: above
/// `i32::MAX`. Nothing is told of such a user, and not of such a group of somebody.
fn user(user: &ProcessUser) -> Option<ContainerUser> {
    let shown = |id: u32| i32::try_from(id).ok().map(i64::from);
    let groups = user.groups.iter().filter_map(|group| shown(*group)).collect();
    let linux = LinuxContainerUser { uid: shown(user.uid)?, gid: shown(user.gid)?, supplemental_groups: Some(groups) };
    Some(ContainerUser { linux: Some(linux) })
}

/// The name by digest that can be pulled; the identifier where there is none.
fn image_id(container: &Container) -> String {
    if container.image_digest.is_empty() { container.image.clone() } else { container.image_digest.clone() }
}

/// The mounts as they are: what is mounted below read-only ones is so only where that was asked for.
fn volume_mounts(member: &Member, is_recursive: bool) -> Option<Vec<VolumeMountStatus>> {
    let mode = |mount: &VolumeMount| match recursive_readonly(mount, is_recursive) {
        Ok(true) => "Enabled".to_owned(),
        _ => "Disabled".to_owned(),
    };
    let mounts = member.spec.volume_mounts.as_ref()?.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount.read_only.filter(|read_only| *read_only).map(|_| mode(mount)),
        ..VolumeMountStatus::default()
    });
    Some(mounts.collect())
}

/// Whether a pod has ended in which this container never came to run, although it was its turn.
fn lost_with_pod(model: &Model, state: &State, member: &Member) -> bool {
    let over = state.ending.is_some() && !state.any_alive();
    over && match member.role {
        Role::App => conditions::initialized(model, state),
        _ => false,
    }
}

/// What upstream tells of such a container: nobody knows whether it did its work, so it did not.
fn never_found() -> ApiState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        ..ContainerStateTerminated::default()
    };
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

fn restart_count(slot: &Slot) -> i32 {
    let newest = followed(slot).or(slot.current.as_ref()).or(slot.previous.as_ref());
    let own = newest.map(|container| i32::try_from(container.attempt).unwrap_or(i32::MAX));
    own.or(slot.inherited.as_ref().map(|status| status.restart_count)).unwrap_or(0)
}

/// The state and last state to show.
fn shown_states(model: &Model, state: &State, member: &Member, slot: &Slot, now: Timestamp) -> (ApiState, Option<ApiState>) {
    if let Some(ended) = followed(slot) {
        return (terminated(ended), None);
    }
    let before = slot.previous.as_ref().map(terminated).or_else(|| {
        let inherited = slot.inherited.as_ref()?;
        // The container that the API was told of may be the newest one still.
        let is_current =
            slot.current.as_ref().is_some_and(|current| inherited.container_id == Some(format!("{SCHEME}{}", current.id)));
        let told = inherited.state.clone().filter(|s| s.terminated.is_some() && !is_current);
        let told = told.or_else(|| inherited.last_state.clone());
        told.filter(|state| state.terminated.is_some())
    });
    match &slot.current {
        Some(current) if current.state == ContainerState::Running => match is_shown_running(slot) {
            true => (running(current), before),
            false => (waiting(model, state, member, slot, now), before),
        },
        Some(current) if current.state == ContainerState::Exited => {
            let again = state.ending.is_none()
                && member.restarts(model.restart_policy(), current.exit_code.unwrap_or(0))
                && !(member.role == Role::Init && current.exit_code == Some(0));
            let waits = slot.crash_backoff(now).is_some() || slot.failure.is_some() || matches!(slot.image, Step::Failed(_));
            if again && waits {
                (waiting(model, state, member, slot, now), Some(terminated(current)))
            } else {
                (terminated(current), before)
            }
        }
        _ => {
            // A pod that ended before this kubelet knew it keeps what the API says.
            let told = slot.inherited.as_ref().filter(|_| slot.previous.is_none() && state.ending.is_some());
            match told.and_then(|status| status.state.clone()).filter(|state| state.terminated.is_some()) {
                Some(state) => (state, told.and_then(|status| status.last_state.clone())),
                None => (waiting(model, state, member, slot, now), before),
            }
        }
    }
}

fn running(container: &Container) -> ApiState {
    let started_at = container.started.map(seconds);
    ApiState { running: Some(ContainerStateRunning { started_at }), ..ApiState::default() }
}

fn terminated(container: &Container) -> ApiState {
    let exit_code = container.exit_code.unwrap_or(255);
    let reason = match container.reason.as_str() {
        "" if exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(format!("{SCHEME}{}", container.id)),
        exit_code,
        finished_at: container.finished.map(seconds),
        message: Some(bounded(container.message.clone())).filter(|message| !message.is_empty()),
        reason: Some(reason.to_owned()),
        signal: container.signal.filter(|signal| *signal != 0),
        started_at: container.started.or(Some(container.created)).map(seconds),
    };
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

fn waiting(model: &Model, state: &State, member: &Member, slot: &Slot, now: Timestamp) -> ApiState {
    let (reason, message) = waiting_reason(model, state, member, slot, now);
    let waiting = ContainerStateWaiting { reason: Some(reason), message: message.filter(|message| !message.is_empty()) };
    ApiState { waiting: Some(waiting), ..ApiState::default() }
}

fn waiting_reason(model: &Model, state: &State, member: &Member, slot: &Slot, now: Timestamp) -> (String, Option<String>) {
    if let Step::Failed(failure) = &slot.image {
        if failure.reason == "ErrImagePull" && failure.shown_until() <= now {
            let image = member.spec.image.as_deref().unwrap_or_default();
            let message = format!("Back-off pulling image {image:?}: {}: {}", failure.reason, failure.message);
            return ("ImagePullBackOff".to_owned(), Some(message));
        }
        return (failure.reason.clone(), Some(failure.message.clone()));
    }
    let crashed = slot.crash_backoff(now);
    if let Some(failure) = slot.failure.as_ref().filter(|failure| crashed.is_none() || failure.shown_until() > now) {
        return (failure.reason.clone(), Some(failure.message.clone()));
    }
    if let Some((_, delay)) = crashed {
        let name = &member.spec.name;
        let delay = apimachinery::time::duration_text(std::time::Duration::from_secs(delay.as_secs()));
        let message = format!("back-off {delay} restarting failed container={name} pod={}", model.title());
        return ("CrashLoopBackOff".to_owned(), Some(message));
    }
    let has_init = model.members.iter().any(|m| matches!(m.role, Role::Init | Role::Sidecar));
    let initializing = has_init && !conditions::initialized(model, state) && member.role == Role::App;
    let pending_init = has_init && member.role == Role::Init;
    if initializing || pending_init { ("PodInitializing".to_owned(), None) } else { ("ContainerCreating".to_owned(), None) }
}

#[cfg(test)]
mod tests;
