//! What is known of one pod on this node. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;
use runtime::api::{Container, ContainerState, Features, Image, Sandbox};

use crate::allocation::Pending;
use crate::backoff::{Backoff, signed};

/// Why something does not go on, as shown in a container's waiting state or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Such as `ErrImagePull`.
    pub reason: String,
    /// Detail for people.
    pub message: String,
    /// When it failed.
    pub at: Timestamp,
    /// When it is tried again.
    pub retry: Timestamp,
}

/// Most bytes of a message, as many as upstream shows of what a container leaves at its end. Registries and drivers say as much as they like, and an
/// object that is too large is never written.
const MESSAGE: usize = 4 << 10;

/// As much of a message as is shown.
pub(super) fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE {
        message.truncate(message.floor_char_boundary(MESSAGE));
        message.push_str("...");
        message.shrink_to_fit();
    }
    message
}

impl Failure {
    /// Something has failed, for this reason and detail, and is tried again at `retry`.
    pub fn new(reason: String, message: String, at: Timestamp, retry: Timestamp) -> Self {
        Self { reason, message: bounded(message), at, retry }
    }

    /// Until when it is shown for itself; then what is shown is that its repetition waits.
    pub fn shown_until(&self) -> Timestamp {
        self.at.saturating_add(signed(ERROR_SHOWN)).unwrap_or(self.at)
    }
}

/// How long an error is shown before the back-off that follows it.
pub const ERROR_SHOWN: Duration = Duration::from_secs(2);

/// One piece of work that runs at most once at a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Step<T> {
    /// Not begun, or to be done anew.
    #[default]
    Idle,
    /// Under way.
    Busy,
    /// Done.
    Done(T),
    /// Failed; waits for its time.
    Failed(Failure),
}

impl<T> Step<T> {
    /// The result.
    pub fn done(&self) -> Option<&T> {
        match self {
            Self::Done(value) => Some(value),
            _ => None,
        }
    }

    /// Whether the work should begin now; otherwise when, where only time is missing.
    pub fn due(&self, now: Timestamp) -> Result<bool, Timestamp> {
        match self {
            Self::Idle => Ok(true),
            Self::Failed(failure) if failure.retry <= now => Ok(true),
            Self::Failed(failure) => Err(failure.retry),
            Self::Busy | Self::Done(_) => Ok(false),
        }
    }
}

/// One container of the pod.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Its image on this node.
    pub image: Step<Image>,
    /// The reference that `image` and `pulls` are about.
    pub reference: Option<String>,
    /// Pulls that failed in a row.
    pub pulls: Backoff,
    /// The newest container in the present sandbox.
    pub current: Option<Container>,
    /// The one before it.
    pub previous: Option<Container>,
    /// When this kubelet saw first that the newest one had not ended; none where it ran before. By the [clock](crate::clock::Clock) that
    /// nobody sets, like all that things are due by, and unlike the times of containers.
    pub alive: Option<Timestamp>,
    /// When this kubelet last began to make one, by that clock.
    pub begun: Option<Timestamp>,
    /// When the newest one ended, by that clock.
    pub ended: Option<Timestamp>,
    /// When the one before it ended, by that clock.
    pub previous_ended: Option<Timestamp>,
    /// What the API said before this kubelet knew the pod.
    pub inherited: Option<ContainerStatus>,
    /// Number of the next container, which is the number of restarts.
    pub attempt: u32,
    /// The number from which on containers were made after the newest restart of all: older ones, of which the runtime still tells, have
    /// had their say.
    pub round: u32,
    /// A container is being made.
    pub starting: bool,
    /// The postStart hook: done when there is none.
    pub hook: Step<()>,
    /// The preStop hook of a sidecar, where it runs before the container is stopped.
    pub pre_stop: Step<()>,
    /// The container is being stopped, and is killed at this time.
    pub stopping: Option<Timestamp>,
    /// When a stop that failed is tried again.
    pub stop_retry: Option<Timestamp>,
    /// Why the last start failed.
    pub failure: Option<Failure>,
    /// Restarts.
    pub restarts: Backoff,
    /// The container that ended was another one than the pod asks for by now: what comes next is no restart of it.
    pub renewed: bool,
    /// Startup probe passed, or there is none.
    pub started: bool,
    /// Readiness probe passes, or there is none.
    pub ready: bool,
    /// The container has run for a moment only, and no probe will tell that it works: to the API it is still being created, since upstream
    /// tells in one status that such a container runs and that it is ready.
    pub unsteady: bool,
    /// A liveness or startup probe wants the container restarted: the probe's name and its own grace period.
    pub unhealthy: Option<(&'static str, Option<i64>)>,
}

impl Slot {
    /// Whether the container runs, be its hook done or not.
    pub fn running(&self) -> bool {
        self.current.as_ref().is_some_and(|c| c.state == ContainerState::Running)
    }

    /// The ended container, when the newest one has ended.
    pub fn exited(&self) -> Option<&Container> {
        self.current.as_ref().filter(|c| c.state == ContainerState::Exited)
    }

    /// The newest container that has ended: another takes its place.
    pub fn replaced(&self) -> Option<&Container> {
        self.exited().or(self.previous.as_ref())
    }

    /// Until when a restart waits (CrashLoopBackOff) and the delay.
    pub fn crash_backoff(&self, now: Timestamp) -> Option<(Timestamp, Duration)> {
        self.restarts.until(self.end().filter(|_| !self.starting && !self.renewed)?, now)
    }

    /// When the newest container ended, when it has.
    pub fn end(&self) -> Option<Timestamp> {
        self.exited().map(|ended| self.ended.unwrap_or_else(|| end_of(ended)))
    }

    /// When that container ended of which [`Slot::replaced`] tells.
    pub fn replaced_end(&self) -> Option<Timestamp> {
        self.end().or_else(|| self.previous.as_ref().map(|previous| self.previous_ended.unwrap_or_else(|| end_of(previous))))
    }

    /// Since when the newest container has run.
    pub fn since(&self) -> Option<Timestamp> {
        self.current.as_ref().map(|current| self.alive.or(current.started).unwrap_or(current.created))
    }

    /// The newest container becomes the one before.
    pub(super) fn retire(&mut self) {
        self.previous_ended = self.end();
        self.previous = self.current.take();
        (self.alive, self.ended) = (None, None);
    }

    /// Forgets what belonged to the container that ended.
    pub(super) fn forget(&mut self) {
        self.image = Step::Idle;
        self.hook = Step::Idle;
        self.pre_stop = Step::Idle;
        (self.stopping, self.stop_retry) = (None, None);
        self.unhealthy = None;
        (self.started, self.ready) = (false, false);
    }

    /// Another round of all containers begins: the container that ended is one of the last round.
    pub(super) fn begin_round(&mut self, first: u32) {
        self.round = first;
        if self.current.as_ref().is_none_or(|container| container.attempt >= first) {
            return;
        }
        self.retire();
        self.failure = None;
        self.forget();
    }

    /// Takes in what the runtime says of a container. States only move forward: an older view changes nothing.
    pub fn observe(&mut self, seen: Container) {
        if seen.attempt < self.round {
            return;
        }
        let rank = |state: ContainerState| match state {
            ContainerState::Created => 0,
            ContainerState::Running => 1,
            ContainerState::Exited => 2,
        };
        match &self.current {
            Some(current) if current.id == seen.id => {
                let older = rank(seen.state) < rank(current.state) || current.state == ContainerState::Exited;
                if older {
                    return;
                }
            }
            Some(current) if seen.attempt < current.attempt => {
                let before = self.previous.as_ref();
                if before.is_none_or(|before| before.attempt <= seen.attempt) {
                    self.previous_ended = self.previous_ended.filter(|_| before.is_some_and(|before| before.id == seen.id));
                    self.previous = Some(seen);
                }
                return;
            }
            Some(_) => self.retire(),
            None => {}
        }
        // One that was made and never started is no restart: it is started yet, or another in its place.
        let counts = u32::from(seen.state != ContainerState::Created);
        self.attempt = self.attempt.max(seen.attempt + counts);
        let exited = seen.state == ContainerState::Exited;
        self.current = Some(seen);
        if exited {
            self.forget();
        }
    }

    /// As [`Slot::observe`], of what the runtime says at `now`. The container's own times are of a clock that may have been set: it has
    /// not ended before it was seen alive, nor later than now.
    pub fn see(&mut self, seen: Container, now: Timestamp) {
        let id = seen.id.clone();
        self.observe(seen);
        if let Some(previous) = self.previous.as_ref().filter(|previous| previous.id == id) {
            self.previous_ended = self.previous_ended.or_else(|| Some(end_of(previous).min(now)));
        }
        let Some(current) = self.current.as_ref().filter(|current| current.id == id) else { return };
        if current.state != ContainerState::Exited {
            self.alive = self.alive.or(Some(now));
        } else if self.ended.is_none() {
            let end = current.finished.map_or(now, |end| end.min(now));
            self.ended = Some(self.alive.or(self.begun).map_or(end, |begun| end.max(begun)));
        }
    }
}

/// When a container ended, by the clock of the machine.
fn end_of(container: &Container) -> Timestamp {
    container.finished.unwrap_or(container.created)
}

/// Why a pod comes to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Deleted through the API.
    Deleted,
    /// Its object is gone already.
    Removed,
    /// All containers have ended for good.
    Completed,
    /// Ended by the node: status reason and message.
    Failed(String, String),
    /// Never admitted to the node: status reason and message.
    Rejected(String, String),
}

/// What a pod gets that is to go at once, as upstream.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Reason and message of the status of a pod that was not admitted.
pub type Rejection = (String, String);

/// For what a node does not keep a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictedFor {
    /// What it has written beyond its own limits.
    Limits,
    /// What the node runs short of.
    Pressure,
    /// A critical pod that there was no room for.
    CriticalPod,
    /// The machine shuts down.
    Shutdown,
    /// Volumes for which the node has no room.
    Attachments,
}

impl EvictedFor {
    /// The reason in the pod's status and of the event.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Limits | Self::Pressure => EVICTED,
            Self::CriticalPod => "Preempting",
            Self::Shutdown => "Terminated",
            Self::Attachments => "VolumeAttachmentLimitExceeded",
        }
    }
}

/// Status reason of a pod that had to go because it took too much of its node.
pub const EVICTED: &str = "Evicted";

/// That the node does not keep a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Why.
    pub cause: EvictedFor,
    /// For people: the message in the pod's status.
    pub message: String,
    /// Longest time that the pod has to end; none is its own grace period.
    pub grace: Option<Duration>,
    /// For programs: annotations of the event.
    pub annotations: BTreeMap<String, String>,
}

impl Evicted {
    fn new(cause: EvictedFor, message: String, grace: Option<Duration>) -> Self {
        Self { cause, message, grace, annotations: BTreeMap::new() }
    }

    /// For what the pod has written beyond its own limits.
    pub fn for_its_limits(message: String) -> Self {
        Self::new(EvictedFor::Limits, message, Some(AT_ONCE))
    }

    /// For what the node runs short of.
    pub fn under_pressure(message: String, annotations: BTreeMap<String, String>, grace: Duration) -> Self {
        Self { annotations, ..Self::new(EvictedFor::Pressure, message, Some(grace)) }
    }

    /// For a critical pod that there was no room for.
    pub fn for_critical_pod() -> Self {
        let message = "Preempted in order to admit critical pod".to_owned();
        Self::new(EvictedFor::CriticalPod, message, None)
    }

    /// Since the machine shuts down.
    pub fn for_shutdown(grace: Duration) -> Self {
        let message = "Pod was terminated in response to imminent node shutdown.".to_owned();
        Self::new(EvictedFor::Shutdown, message, Some(grace))
    }

    /// Since its volumes cannot be attached to this node: another pod in its place may find another node (KEP-4876).
    pub fn for_attachments(message: String) -> Self {
        Self::new(EvictedFor::Attachments, message, Some(AT_ONCE))
    }

    /// What the condition `DisruptionTarget` says (KEP-3329); none where the pod itself is at fault.
    pub fn disruption(&self) -> Option<String> {
        match self.cause {
            EvictedFor::Limits | EvictedFor::Attachments => None,
            EvictedFor::Pressure | EvictedFor::Shutdown => Some(self.message.clone()),
            EvictedFor::CriticalPod => Some("Pod was preempted by Kubelet to accommodate a critical pod.".to_owned()),
        }
    }

    /// What holds of a pod that is evicted again: the first reason, and the shorter time.
    pub fn merge(first: Option<Self>, later: Option<Self>) -> Option<Self> {
        match (first, later) {
            (Some(first), Some(later)) => {
                let grace = [first.grace, later.grace].into_iter().flatten().min();
                Some(Self { grace, ..first })
            }
            (first, later) => first.or(later),
        }
    }

    /// Whether a pod that ends has ended for this.
    pub fn is_cause(&self, cause: &Cause) -> bool {
        matches!(cause, Cause::Failed(reason, message) if reason == self.cause.reason() && *message == self.message)
    }
}

/// A pod on its way out.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Why.
    pub cause: Cause,
    /// When the grace period ends.
    pub deadline: Timestamp,
    /// Sandbox stopped.
    pub sandbox: Step<()>,
    /// Claimed devices given back.
    pub claims: Step<()>,
    /// Volumes gone.
    pub volumes: Step<()>,
    /// The API object deleted.
    pub deleted: Step<()>,
    /// The final status has been accepted by the API server.
    pub reported: bool,
    /// Failures of these steps in a row.
    pub failures: u32,
}

impl Ending {
    /// The end of a pod, by `deadline`.
    pub fn new(cause: Cause, deadline: Timestamp) -> Self {
        let (sandbox, claims, volumes, deleted) = (Step::Idle, Step::Idle, Step::Idle, Step::Idle);
        Self { cause, deadline, sandbox, claims, volumes, deleted, reported: false, failures: 0 }
    }
}

/// All that is known of one pod.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What the runtime can do.
    pub features: Features,
    /// The sandbox.
    pub sandbox: Step<Sandbox>,
    /// A sandbox that no longer serves and must go before a new one is made.
    pub lost: Option<Sandbox>,
    /// A sandbox was lost and nobody has decided yet what of its containers runs again.
    pub bereft: bool,
    /// The lost sandbox is being removed.
    pub removing: bool,
    /// Number of the next sandbox.
    pub attempt: u32,
    /// Failures to make a sandbox in a row.
    pub sandbox_failures: u32,
    /// The volumes.
    pub volumes: Step<()>,
    /// Names of the volumes that were there once: an ephemeral container may use more than those that came before it.
    pub mounted: BTreeSet<String>,
    /// A kubelet before this one has told that the pod, in the sandbox that it still has, had all its volumes.
    pub had_volumes: bool,
    /// When mounted volumes must be brought up to date; none while that is under way or nothing is due.
    pub refresh: Option<Timestamp>,
    /// Failures to mount in a row.
    pub volume_failures: u32,
    /// Why the pod does not have all that it asks for.
    pub pending: Option<Pending>,
    /// A container of the pod has processors for itself.
    pub has_cpus: bool,
    /// Giving what runs other resources; idle again when that is done.
    pub resize: Step<()>,
    /// When it is looked at next how much the pod has written; at once when none.
    pub measure: Option<Timestamp>,
    /// That is being looked at.
    pub measuring: bool,
    /// How often that was looked at.
    pub measured: u32,
    /// Writing down that all containers restart; idle again when that is done.
    pub restart: Step<()>,
    /// Why the pod must go, if the node does not keep it.
    pub evicted: Option<Evicted>,
    /// Failures to resize in a row.
    pub resize_failures: u32,
    /// Containers by name.
    pub slots: BTreeMap<String, Slot>,
    /// The longest delay before a container is started again; the usual one when none.
    pub longest_delay: Option<Duration>,
    /// Set when the pod must end.
    pub ending: Option<Ending>,
    /// When the kubelet first saw the pod, as is shown.
    pub start_time: Option<Timestamp>,
    /// When that was by the [clock](crate::clock::Clock) that nobody sets.
    pub begun: Option<Timestamp>,
}

impl State {
    /// The state of container `name`.
    pub fn slot(&mut self, name: &str) -> &mut Slot {
        let longest = self.longest_delay;
        let new = || Slot { restarts: longest.map_or_else(Backoff::default, Backoff::up_to), ..Slot::default() };
        self.slots.entry(name.to_owned()).or_insert_with(new)
    }

    /// Whether some container runs or is about to.
    pub fn any_alive(&self) -> bool {
        self.slots.values().any(|slot| slot.running() || slot.starting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::container;

    /// Observations `(id, attempt, state)` in order; then the current and previous ids and the next attempt.
    #[track_caller]
    fn check(seen: &[(&str, u32, ContainerState)], current: &str, previous: Option<&str>, attempt: u32) {
        let mut slot = Slot::default();
        for (id, attempt, state) in seen {
            slot.observe(container(id, "c", *attempt, *state));
        }
        assert_eq!(slot.current.as_ref().map(|c| c.id.as_str()), Some(current));
        assert_eq!(slot.previous.as_ref().map(|c| c.id.as_str()), previous);
        assert_eq!(slot.attempt, attempt);
    }

    #[test]
    fn observations_only_move_forward() {
        use ContainerState::{Created, Exited, Running};
        check(&[("a", 0, Running)], "a", None, 1);
        check(&[("a", 0, Exited), ("b", 1, Running)], "b", Some("a"), 2);
        check(&[("b", 1, Running), ("a", 0, Exited)], "b", Some("a"), 2);
        check(&[("a", 0, Created)], "a", None, 0);
        let mut slot = Slot::default();
        slot.observe(container("a", "c", 0, Exited));
        slot.observe(container("a", "c", 0, Created));
        assert!(slot.exited().is_some());
    }
}
