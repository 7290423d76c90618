//! The core of one pod: all that changes what is known of it, and all that follows from that. Pure.
//!
//! Nobody else changes the [`State`]: what happens is an [`Event`], and [`Core::step`] answers with what to do.

use jiff::{SignedDuration, Timestamp};

use super::action::Plan;
use super::outcome::Outcome;
use super::state::{Cause, Ending, Evicted, Failure, State, Step};
use super::{ending, plan, status};
use crate::allocation::Pending;
use crate::probes::{Kind, Verdict};
use crate::spec::{Model, Role};

/// What a pod is told.
#[derive(Debug)]
pub enum Event {
    /// Time has passed.
    Wake,
    /// The API wants something else of the pod; none of it may differ.
    Desired(Box<Desired>),
    /// An action was done, or could not be.
    Done(Box<Outcome>),
    /// A probe has found out something.
    Probed(Verdict),
    /// An object that the pod refers to has changed.
    ReferencesChanged,
    /// The API server has the final status.
    Reported,
}

/// What the API and the node want of the pod.
#[derive(Debug)]
pub struct Desired {
    /// The newest object.
    pub model: Model,
    /// It is gone.
    pub removed: bool,
    /// Why the pod does not have all that it asks for.
    pub pending: Option<Pending>,
    /// Why the node does not keep it.
    pub evicted: Option<Evicted>,
}

/// How long a container without probes has run before it counts as ready. What ends at once never was, so that a rollout to it stops:
/// upstream sees containers once a second, and what has ended by then was never ready either.
const STEADY: SignedDuration = SignedDuration::from_millis(500);

/// When a container that has run `since` then has run for that long; none when it has.
fn steady_at(since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let at = since.checked_add(STEADY).ok()?;
    // Of one that ran before this kubelet only the clock of the machine tells: where that was set back, it is not waited for.
    (since <= now && now < at).then_some(at)
}

/// One pod.
#[derive(Debug)]
pub struct Core {
    model: Model,
    state: State,
    removed: bool,
}

impl Core {
    /// A pod of which this is known.
    pub fn new(model: Model, state: State, removed: bool) -> Self {
        Self { model, state, removed }
    }

    /// A pod that was not admitted: status reason and message.
    pub fn reject(&mut self, reason: String, message: String, now: Timestamp) {
        self.state.ending = Some(Ending::new(Cause::Rejected(reason, message), now));
    }

    /// The pod.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What is known of it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether its object is gone from the API.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Whether nothing is left but to clean up.
    pub fn is_gone(&self) -> bool {
        self.removed && ending::settled(&self.state) && !self.state.any_alive()
    }

    /// Whether the API server does not have its final status yet, as far as is known.
    pub fn awaits_report(&self) -> bool {
        self.state.ending.as_ref().is_some_and(|ending| !ending.reported)
    }

    /// Takes in what has happened, and gives what to do now and when to look again if nothing happens before. The actions count as begun.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Plan {
        self.take(event, now);
        plan::advance(&self.model, &mut self.state, self.removed, now);
        plan::settle_hooks(&self.model, &mut self.state);
        let steady = self.settle_health(now);
        let mut plan = plan::plan(&self.model, &self.state, now);
        plan::begin(&mut self.state, &plan.actions, now);
        for time in self.shown_until(now).into_iter().chain(steady) {
            plan.wake_at(time);
        }
        plan
    }

    fn take(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Wake => {}
            Event::Desired(desired) => self.desire(*desired, now),
            Event::Done(outcome) => self.state.apply(*outcome, now),
            Event::Probed(verdict) => self.judge(&verdict),
            Event::ReferencesChanged => self.state.references_changed(now),
            Event::Reported => {
                if let Some(ending) = &mut self.state.ending {
                    ending.reported = true;
                }
            }
        }
    }

    fn desire(&mut self, desired: Desired, now: Timestamp) {
        let Desired { model, removed, pending, evicted } = desired;
        self.removed = removed;
        self.state.pending = pending;
        self.state.evicted = Evicted::merge(self.state.evicted.take(), evicted);
        let is_echo = self.model.is_echoed_by(&model);
        self.model = model;
        if is_echo {
            return;
        }
        // What failed may have been asked for with other figures.
        if matches!(self.state.resize, Step::Failed(_)) {
            self.state.resize = Step::Idle;
        }
        // Labels and annotations are in downward API volumes, and an ephemeral container may use a volume that nobody has used yet.
        if matches!(self.state.volumes, Step::Done(()) | Step::Busy) {
            self.state.refresh = Some(now);
        }
    }

    /// What a probe says of a container that has ended is void.
    fn judge(&mut self, verdict: &Verdict) {
        let member = self.model.member(&verdict.container).cloned();
        let (Some(member), Some(slot)) = (member, self.state.slots.get_mut(&verdict.container)) else { return };
        if slot.current.as_ref().is_none_or(|current| current.id != verdict.id) || !slot.running() {
            return;
        }
        match (verdict.kind, verdict.healthy) {
            (Kind::Readiness, healthy) => slot.ready = healthy,
            (Kind::Startup, true) => slot.started = true,
            (Kind::Liveness, true) => {}
            (Kind::Startup | Kind::Liveness, false) => {
                let own = verdict.kind.of(&member).and_then(|probe| probe.termination_grace_period_seconds);
                slot.unhealthy = Some((verdict.kind.name(), own));
            }
        }
    }

    /// Containers without a probe are started as soon as they run and their hook is done, and ready when they have run for a moment; so long do
    /// others wait for a sidecar, too, which they may need. Gives when the next one is.
    fn settle_health(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut next: Option<Timestamp> = None;
        for member in self.model.members.iter() {
            let Some(slot) = self.state.slots.get_mut(&member.spec.name) else { continue };
            slot.unsteady = false;
            if !slot.running() || slot.hook != Step::Done(()) {
                continue;
            }
            let steady_at = slot.since().filter(|_| member.spec.startup_probe.is_none()).and_then(|since| steady_at(since, now));
            slot.started |= member.spec.startup_probe.is_none() && (member.role != Role::Sidecar || steady_at.is_none());
            slot.unsteady = member.role == Role::App && member.spec.readiness_probe.is_none() && steady_at.is_some();
            // A startup probe has seen it work.
            slot.ready |= member.spec.readiness_probe.is_none() && steady_at.is_none();
            if let Some(at) = steady_at.filter(|_| !slot.started || member.spec.readiness_probe.is_none()) {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        next
    }

    /// When the status changes although nothing happens: an error, a back-off or a container that ended is no longer shown.
    fn shown_until(&self, now: Timestamp) -> Option<Timestamp> {
        let backoffs = self.state.slots.values().filter_map(|slot| slot.crash_backoff(now).map(|(until, _)| until));
        let errors = self.state.slots.values().filter_map(|slot| slot.failure.as_ref().map(Failure::shown_until));
        let held = self.model.members.iter().filter_map(|member| {
            let slot = self.state.slots.get(&member.spec.name)?;
            status::held_until(member, slot)
        });
        backoffs.chain(errors).chain(held).filter(|time| *time > now).min()
    }

    /// The probes that should run now: the container's name and identifier, the kind, and since when the container runs.
    pub fn probes(&self) -> Vec<(String, String, Kind, Timestamp)> {
        let mut probes = Vec::new();
        for member in self.model.members.iter().filter(|member| matches!(member.role, Role::App | Role::Sidecar)) {
            let Some(slot) = self.state.slots.get(&member.spec.name) else { continue };
            let Some(current) = slot.current.as_ref().filter(|_| slot.running() && slot.hook == Step::Done(())) else { continue };
            let ends = self.state.ending.is_some() || slot.stopping.is_some();
            let kinds = match (slot.started, ends) {
                (true, false) => &[Kind::Liveness, Kind::Readiness][..],
                (true, true) => &[Kind::Readiness],
                (false, false) => &[Kind::Startup],
                (false, true) => &[],
            };
            for kind in kinds.iter().copied().filter(|kind| kind.of(member).is_some()) {
                let since = current.started.unwrap_or(current.created);
                probes.push((member.spec.name.clone(), current.id.clone(), kind, since));
            }
        }
        probes
    }
}

#[cfg(test)]
mod tests;
