//! What to do next for a pod: a function of its specification, of what is known of it and of the time.

use std::time::Duration;

use jiff::Timestamp;
use runtime::api::Container;

use super::action::{Action, Plan, Stage};
use super::state::{Cause, Ending, Slot, State, Step};
use super::{ending, resize, restart};
use crate::allocation::RESOURCES;
use crate::backoff::{Backoff, signed};
use crate::spec::{Member, Model, Role};
use crate::volumes::used;
use crate::{statics, storage};

/// Decides whether the pod must end, and why; call before [`plan`].
pub fn advance(model: &Model, state: &mut State, removed: bool, now: Timestamp) {
    settle_loss(model, state);
    forgive(model, state);
    // Whose object is gone at once has lost its policies and services with it, and another may have its name: "pods that are set to terminate
    // immediately will still be given a small grace period before being force killed" (Pod Lifecycle). A static pod's end is its file's.
    let grace = match removed && !statics::is_static(model.uid()) {
        true => ending::LEAST.min(ending::grace(model)),
        false => ending::grace(model),
    };
    let metadata = &model.pod.metadata;
    let wanted = if removed {
        Some(Cause::Removed)
    } else if metadata.deletion_timestamp.is_some() {
        Some(Cause::Deleted)
    } else if deadline(model, state).is_some_and(|deadline| deadline <= now) {
        let message = "Pod was active on the node longer than the specified deadline";
        Some(Cause::Failed("DeadlineExceeded".to_owned(), message.to_owned()))
    } else if let Some(evicted) = &state.evicted {
        Some(Cause::Failed(evicted.cause.reason().to_owned(), evicted.message.clone()))
    } else if state.ending.is_none() && restart::source(model, state).is_some() {
        None
    } else {
        finished(model, state).map(|_| Cause::Completed)
    };
    let Some(cause) = wanted else { return };
    let shorter = state.evicted.as_ref().and_then(|evicted| evicted.grace);
    let deadline = now.saturating_add(signed(shorter.map_or(grace, |shorter| grace.min(shorter)))).unwrap_or(now);
    match &mut state.ending {
        None => {
            state.ending = Some(Ending::new(cause, deadline));
        }
        Some(ending) if matches!(cause, Cause::Deleted | Cause::Removed) => {
            // A failure that was found before the deletion stays the pod's status.
            if !matches!(ending.cause, Cause::Failed(..) | Cause::Rejected(..)) || cause == Cause::Removed {
                ending.cause = cause;
            }
            ending.deadline = ending.deadline.min(deadline);
        }
        Some(ending) if shorter.is_some() => ending.deadline = ending.deadline.min(deadline),
        Some(_) => {}
    }
}

/// Back-off belongs to what failed: a pull to its reference, a restart to the image and the resources of the container that ended.
fn forgive(model: &Model, state: &mut State) {
    for member in model.members.iter() {
        let slot = state.slot(&member.spec.name);
        let before = std::mem::replace(&mut slot.reference, member.spec.image.clone());
        if before.is_some() && before != slot.reference {
            slot.pulls = Backoff::default();
            slot.failure = None;
            // What is under way is about the old reference, and its result is not taken.
            if !matches!(slot.image, Step::Busy) {
                slot.image = Step::Idle;
            }
        }
        slot.renewed = slot.exited().is_some_and(|ended| is_outdated(ended, member));
    }
}

/// Whether the pod asks for another container by now: another image, or resources that it could not be given while it ran.
pub fn is_outdated(container: &Container, member: &Member) -> bool {
    let resources = container.annotations.get(RESOURCES);
    Some(&container.image_reference) != member.spec.image.as_ref() || resources.is_some_and(|text| text != member.record())
}

/// After the loss of a sandbox: unless the pod is through, what its policy restarts runs again, init containers first.
fn settle_loss(model: &Model, state: &mut State) {
    if !std::mem::take(&mut state.bereft) || finished(model, state).is_some() {
        return;
    }
    for member in model.members.iter() {
        let Some(slot) = state.slots.get_mut(&member.spec.name) else { continue };
        let code = slot.exited().map(|ended| ended.exit_code.unwrap_or(255));
        if code.is_some_and(|code| member.role == Role::Init || member.restarts(model.restart_policy(), code)) {
            slot.retire();
        }
    }
}

/// When `activeDeadlineSeconds` is over.
fn deadline(model: &Model, state: &State) -> Option<Timestamp> {
    let seconds = model.spec().active_deadline_seconds?;
    state.begun?.saturating_add(jiff::SignedDuration::from_secs(seconds)).ok()
}

/// `Some(succeeded)` when no container will ever run again.
pub fn finished(model: &Model, state: &State) -> Option<bool> {
    let policy = model.restart_policy();
    // The exit code of a container that ended for good.
    let final_code = |member: &Member| {
        let slot = state.slots.get(&member.spec.name)?;
        let code = slot.exited()?.exit_code.unwrap_or(0);
        (!slot.starting && !member.restarts(policy, code)).then_some(code)
    };
    let of = |role: Role| model.members.iter().filter(move |member| member.role == role);
    if of(Role::Init).any(|member| final_code(member).is_some_and(|code| code != 0)) {
        return Some(false);
    }
    let codes: Option<Vec<i32>> = of(Role::App).map(final_code).collect();
    codes.filter(|codes| !codes.is_empty()).map(|codes| codes.iter().all(|code| *code == 0))
}

/// A running container without a postStart hook has it behind it: its health shows at once, not a round later.
pub fn settle_hooks(model: &Model, state: &mut State) {
    for member in model.members.iter() {
        let hook = member.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let slot = state.slots.get_mut(&member.spec.name);
        if let Some(slot) = slot.filter(|slot| hook.is_none() && slot.running() && slot.hook == Step::Idle) {
            slot.hook = Step::Done(());
        }
    }
}

/// What to do now.
pub fn plan(model: &Model, state: &State, now: Timestamp) -> Plan {
    if let Some(ending) = &state.ending {
        return ending::plan(model, state, ending, now);
    }
    let mut plan = Plan::default();
    if let Some(deadline) = deadline(model, state) {
        plan.wake_at(deadline);
    }
    match &state.lost {
        Some(lost) if !state.removing => plan.actions.push(Action::RemoveLost(lost.id.clone())),
        Some(_) => {}
        None => plan.when_due(&state.sandbox, now, Action::RunSandbox(state.attempt)),
    }
    plan.when_due(&state.volumes, now, Action::MountVolumes);
    match state.refresh.filter(|_| state.volumes.done().is_some()) {
        Some(due) if due <= now => plan.actions.push(Action::RefreshVolumes),
        Some(due) => plan.wake_at(due),
        None => {}
    }
    if let Some(source) = restart::source(model, state) {
        restart::plan(&mut plan, model, state, source, now);
        return plan;
    }
    if !resize::steps(model, state, 0).is_empty() {
        plan.when_due(&state.resize, now, Action::Resize);
    }
    if storage::is_limited(model) && state.volumes.done().is_some() && !state.measuring {
        match state.measure.filter(|due| *due > now) {
            Some(due) => plan.wake_at(due),
            None => plan.actions.push(Action::Measure),
        }
    }
    let can_start = state.sandbox.done().is_some() && state.volumes.done().is_some();
    // Containers start in the order of the specification, each after the postStart hook of the one before, as upstream: proxies that hold
    // the application back until they serve rely on it. Images are fetched side by side.
    let mut held = false;
    for member in eligible(model, state) {
        let slot = state.slots.get(&member.spec.name);
        let in_order = member.role == Role::App;
        let has_volumes = used::names(&member.spec).all(|name| is_there(model, state, name));
        start(&mut plan, member, slot, can_start && has_volumes && !(in_order && held), now);
        held = held || in_order && begins(slot, now);
    }
    for member in model.members.iter() {
        if let Some(slot) = state.slots.get(&member.spec.name).filter(|slot| slot.running()) {
            tend(&mut plan, model, member, slot, now);
        }
    }
    plan
}

/// Whether a volume has been made. What the pod does not have is told of by the start of the container.
fn is_there(model: &Model, state: &State, name: &str) -> bool {
    state.mounted.contains(name) || !model.spec().volumes.iter().flatten().any(|volume| volume.name == name)
}

/// Containers whose turn it is: init containers one after the other, sidecars once started do not hold up the next.
pub fn eligible<'a>(model: &'a Model, state: &State) -> Vec<&'a Member> {
    let empty = Slot::default();
    let slot = |member: &Member| state.slots.get(&member.spec.name).unwrap_or(&empty);
    let of = |role: Role| model.members.iter().filter(move |member| member.role == role);
    let (mut turn, mut waits) = (Vec::new(), false);
    let here = |container: &Container| state.sandbox.done().is_some_and(|sandbox| sandbox.id == container.sandbox);
    let initialized = of(Role::App).any(|member| slot(member).current.as_ref().is_some_and(here));
    if initialized {
        turn.extend(of(Role::Sidecar));
    } else {
        for member in model.members.iter().filter(|m| matches!(m.role, Role::Init | Role::Sidecar)) {
            let slot = slot(member);
            let complete = match member.role {
                Role::Init => slot.exited().is_some_and(|c| c.exit_code == Some(0)),
                _ => slot.running() && slot.started,
            };
            if complete && member.role == Role::Init {
                continue;
            }
            turn.push(member);
            if !complete {
                waits = true;
                break;
            }
        }
    }
    if !waits {
        turn.extend(of(Role::App));
    }
    turn.extend(of(Role::Ephemeral));
    turn.retain(|member| {
        let ended = slot(member).exited().map(|c| c.exit_code.unwrap_or(0));
        ended.is_none_or(|code| member.restarts(model.restart_policy(), code))
    });
    turn
}

/// Whether a container is on its way to run, its postStart hook included. One that failed holds nobody up until it is tried again.
fn begins(slot: Option<&Slot>, now: Timestamp) -> bool {
    let Some(slot) = slot else { return true };
    if slot.starting || slot.running() {
        return slot.starting || slot.hook.done().is_none();
    }
    let waits = slot.crash_backoff(now).is_some() || slot.failure.as_ref().is_some_and(|failure| failure.retry > now);
    !waits && slot.image.due(now).is_ok()
}

/// Brings a container that does not run one step forward.
fn start(plan: &mut Plan, member: &Member, slot: Option<&Slot>, can_start: bool, now: Timestamp) {
    let empty = Slot::default();
    let slot = slot.unwrap_or(&empty);
    let name = &member.spec.name;
    if slot.running() || slot.starting {
        return;
    }
    if let Some((until, _)) = slot.crash_backoff(now) {
        return plan.wake_at(until);
    }
    if let Some(failure) = slot.failure.as_ref().filter(|failure| failure.retry > now) {
        return plan.wake_at(failure.retry);
    }
    match &slot.image {
        Step::Done(_) if can_start => plan.actions.push(Action::Start(name.clone())),
        Step::Failed(failure) => {
            if failure.shown_until() > now {
                plan.wake_at(failure.shown_until());
            }
            plan.when_due(&slot.image, now, Action::EnsureImage(name.clone()));
        }
        image => plan.when_due(image, now, Action::EnsureImage(name.clone())),
    }
}

/// Looks after a container that runs: its hook, its health, a changed image.
fn tend(plan: &mut Plan, model: &Model, member: &Member, slot: &Slot, now: Timestamp) {
    let name = &member.spec.name;
    if slot.hook == Step::Idle {
        plan.actions.push(Action::PostStart(name.clone()));
    }
    if slot.stopping.is_some() {
        return;
    }
    let changed = slot.current.as_ref().is_some_and(|c| Some(&c.image_reference) != member.spec.image.as_ref());
    let mut grace = ending::grace(model);
    let message = match slot.unhealthy {
        Some(("postStart", _)) => "FailedPostStartHook".to_owned(),
        Some((probe, own)) => {
            if let Some(seconds) = own {
                grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            }
            format!("Container {name} failed {probe} probe, will be restarted")
        }
        None if changed && member.role != Role::Ephemeral => format!("Container {name} definition changed, will be restarted"),
        None if resize::wants_restart(member, slot) => resize::restart_message(&member.spec),
        None => return,
    };
    match slot.stop_retry.filter(|retry| *retry > now) {
        Some(retry) => plan.wake_at(retry),
        None => plan.actions.push(Action::Stop { name: name.clone(), grace, message, stage: Stage::Begin }),
    }
}

/// Marks the actions as begun, so that no later plan begins them again.
pub fn begin(state: &mut State, actions: &[Action], now: Timestamp) {
    for action in actions {
        match action {
            Action::RunSandbox(_) => state.sandbox = Step::Busy,
            Action::RemoveLost(_) => state.removing = true,
            Action::MountVolumes => {
                state.volumes = Step::Busy;
                state.refresh = None;
            }
            Action::RefreshVolumes => state.refresh = None,
            Action::Resize => state.resize = Step::Busy,
            Action::RestartAll { source, .. } => {
                state.restart = Step::Busy;
                back_off(state.slot(source));
            }
            Action::Measure => state.measuring = true,
            Action::EnsureImage(name) => state.slot(name).image = Step::Busy,
            Action::Start(name) => begin_start(state.slot(name), now),
            Action::PostStart(name) => state.slot(name).hook = Step::Busy,
            Action::PreStop { name, .. } => state.slot(name).pre_stop = Step::Busy,
            Action::Stop { name, grace, .. } => {
                state.slot(name).stopping = Some(now.saturating_add(signed(*grace)).unwrap_or(now));
            }
            Action::StopSandbox(_) => begin_ending(state, |ending| &mut ending.sandbox),
            Action::GiveBack => begin_ending(state, |ending| &mut ending.claims),
            Action::Unmount => begin_ending(state, |ending| &mut ending.volumes),
            Action::Delete => begin_ending(state, |ending| &mut ending.deleted),
        }
    }
}

/// The next restart for an end of this container waits longer.
fn back_off(slot: &mut Slot) {
    if let Some(finished) = slot.end() {
        slot.restarts.next(finished);
    }
}

fn begin_ending(state: &mut State, step: impl FnOnce(&mut Ending) -> &mut Step<()>) {
    if let Some(ending) = &mut state.ending {
        *step(ending) = Step::Busy;
    }
}

fn begin_start(slot: &mut Slot, now: Timestamp) {
    if let Some(finished) = slot.end() {
        if slot.renewed {
            slot.restarts.reset();
        // A start that failed without a container waits by itself.
        } else if slot.failure.as_ref().is_none_or(|failure| failure.retry <= failure.at) {
            slot.restarts.next(finished);
        }
    }
    slot.failure = None;
    slot.starting = true;
    slot.begun = Some(now);
}

#[cfg(test)]
mod tests;
