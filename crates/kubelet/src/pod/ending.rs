//! The end of a pod: containers first, sidecars last and in reverse order, then sandbox, claimed devices, volumes, status, object.

use std::time::Duration;

use jiff::Timestamp;

use super::action::{Action, Plan, Stage};
use super::state::{Cause, Ending, Slot, State, Step};
use crate::backoff::signed;
use crate::spec::{Member, Model, Role};

/// Default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: i64 = 30;
/// Every container that is stopped gets its stop signal and then this long, also when nothing is left of the pod's grace period
/// (upstream's `minimumGracePeriodInSeconds`).
pub const LEAST: Duration = Duration::from_secs(2);

/// The grace period that applies now: that of the deletion where there is one. At least a second.
pub fn grace(model: &Model) -> Duration {
    let spec = model.spec().termination_grace_period_seconds;
    let seconds = model.pod.metadata.deletion_grace_period_seconds.or(spec).unwrap_or(DEFAULT_GRACE);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
}

/// Next steps of a pod that ends.
pub fn plan(model: &Model, state: &State, ending: &Ending, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if state.any_alive() {
        stop_containers(&mut plan, model, state, ending, now);
        if let (Step::Done(sandbox), true) = (&state.sandbox, cannot_be_stopped(state, ending, now)) {
            plan.when_due(&ending.sandbox, now, Action::StopSandbox(sandbox.id.clone()));
        }
        return plan;
    }
    if matches!(state.sandbox, Step::Busy) || matches!(state.volumes, Step::Busy) || state.removing {
        return plan;
    }
    match (&state.sandbox, &state.lost) {
        (Step::Done(sandbox), _) | (_, Some(sandbox)) if ending.sandbox != Step::Done(()) => {
            plan.when_due(&ending.sandbox, now, Action::StopSandbox(sandbox.id.clone()));
            return plan;
        }
        _ => {}
    }
    if keeps_devices(model, ending) {
        plan.when_due(&ending.claims, now, Action::GiveBack);
        return plan;
    }
    if ending.volumes != Step::Done(()) {
        plan.when_due(&ending.volumes, now, Action::Unmount);
        return plan;
    }
    if ending.reported && model.pod.metadata.deletion_timestamp.is_some() && ending.cause != Cause::Removed {
        plan.when_due(&ending.deleted, now, Action::Delete);
    }
    plan
}

/// Whether a container goes on after its time because the runtime does not stop it, for whatever reason: the end of the sandbox, which asks
/// no container, is the end of all of them then, as upstream's.
fn cannot_be_stopped(state: &State, ending: &Ending, now: Timestamp) -> bool {
    let failed = |slot: &Slot| slot.running() && slot.stopping.is_none() && slot.stop_retry.is_some();
    now >= ending.deadline && ending.sandbox != Step::Done(()) && state.slots.values().any(failed)
}

/// Whether the pod's claimed devices are still its own. Until they are not, no final phase is reported: by that the claims are
/// deallocated, and the devices would be the next pod's before their drivers have them back (KEP-4381).
pub fn keeps_devices(model: &Model, ending: &Ending) -> bool {
    ending.claims != Step::Done(()) && pods::claims::has_any(&model.pod)
}

/// Whether nothing of the pod is left on the node but its dead sandbox and its logs.
pub fn settled(state: &State) -> bool {
    state.ending.as_ref().is_some_and(|ending| ending.volumes == Step::Done(()))
}

fn stop_containers(plan: &mut Plan, model: &Model, state: &State, ending: &Ending, now: Timestamp) {
    let alive = |member: &&Member| state.slots.get(&member.spec.name).is_some_and(|slot| slot.running() || slot.starting);
    let others: Vec<_> = model.members.iter().filter(|m| m.role != Role::Sidecar).filter(alive).collect();
    let mut sidecars = model.members.iter().rev().filter(|m| m.role == Role::Sidecar).filter(alive);
    let turn: Vec<_> = match others.is_empty() {
        // The order lasts as long as the grace period (KEP-753).
        _ if now >= ending.deadline => others.into_iter().chain(sidecars).collect(),
        true => sidecars.next().into_iter().collect(),
        false => others,
    };
    let left = Duration::try_from(ending.deadline.duration_since(now)).unwrap_or(Duration::ZERO);
    // What is killed until then anyhow is not stopped again. The half second is for the time that plans take.
    let shortened = now.saturating_add(signed(left.max(LEAST).saturating_add(Duration::from_millis(500)))).unwrap_or(now);
    for member in turn {
        let name = &member.spec.name;
        let Some(slot) = state.slots.get(name).filter(|slot| slot.running()) else { continue };
        let stop = |stage| Action::Stop { name: name.clone(), grace: left, message: format!("Stopping container {name}"), stage };
        match slot.stopping {
            None => match slot.stop_retry.filter(|retry| *retry > now) {
                Some(retry) => plan.wake_at(retry),
                None if slot.stop_retry.is_some() => plan.actions.push(stop(Stage::Shortened)),
                None => match slot.pre_stop {
                    // It is limited by the grace period.
                    Step::Busy => {}
                    Step::Done(()) => plan.actions.push(stop(Stage::Hooked)),
                    _ => plan.actions.push(stop(Stage::Begin)),
                },
            },
            // The deletion was repeated with a shorter grace period.
            Some(kill_at) if kill_at > shortened => plan.actions.push(stop(Stage::Shortened)),
            Some(_) => {}
        }
    }
    hooks_of_waiting(plan, model, state, left);
    // Sidecars whose turn has not come by then are stopped without it.
    if now < ending.deadline {
        plan.wake_at(ending.deadline);
    }
}

/// Sidecars wait with their end until others have ended, and not with their preStop hooks (KEP-753).
fn hooks_of_waiting(plan: &mut Plan, model: &Model, state: &State, left: Duration) {
    let stops =
        |name: &str| plan.actions.iter().any(|action| matches!(action, Action::Stop { name: stopped, .. } if stopped == name));
    let hooked = model.members.iter().filter(|member| member.role == Role::Sidecar && has_pre_stop(member));
    let waits = hooked.filter(|member| {
        let slot = state.slots.get(&member.spec.name).filter(|slot| slot.running() && slot.stopping.is_none());
        slot.is_some_and(|slot| slot.pre_stop == Step::Idle) && !stops(&member.spec.name)
    });
    let begun: Vec<_> = waits.map(|member| Action::PreStop { name: member.spec.name.clone(), grace: left }).collect();
    plan.actions.extend(begun);
}

fn has_pre_stop(member: &Member) -> bool {
    member.spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}
