//! What is known of one pod on this node, and how results and observations change it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;
use runtime::api::{Container, ContainerState, Image, Sandbox, SandboxState};

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

impl Failure {
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
    /// Pulls that failed in a row.
    pub pulls: Backoff,
    /// The newest container in the present sandbox.
    pub current: Option<Container>,
    /// The one before it.
    pub previous: Option<Container>,
    /// What the API said before this kubelet knew the pod.
    pub inherited: Option<ContainerStatus>,
    /// Number of the next container, which is the number of restarts.
    pub attempt: u32,
    /// A container is being made.
    pub starting: bool,
    /// The postStart hook: done when there is none.
    pub hook: Step<()>,
    /// The container is being stopped, and is killed at this time.
    pub stopping: Option<Timestamp>,
    /// When a stop that failed is tried again.
    pub stop_retry: Option<Timestamp>,
    /// Why the last start failed.
    pub failure: Option<Failure>,
    /// Restarts.
    pub restarts: Backoff,
    /// Startup probe passed, or there is none.
    pub started: bool,
    /// Readiness probe passes, or there is none.
    pub ready: bool,
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

    /// Until when a restart waits (CrashLoopBackOff) and the delay.
    pub fn crash_backoff(&self, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let ended = self.exited()?;
        self.restarts.until(ended.finished.unwrap_or(ended.created), now)
    }

    /// Forgets what belonged to the container that ended.
    fn ended(&mut self) {
        self.image = Step::Idle;
        self.hook = Step::Idle;
        self.stopping = None;
        self.stop_retry = None;
        self.unhealthy = None;
        self.started = false;
        self.ready = false;
    }

    /// Takes in what the runtime says of a container. States only move forward: an older view changes nothing.
    pub fn observe(&mut self, seen: Container) {
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
                if self.previous.as_ref().is_none_or(|p| p.attempt <= seen.attempt) {
                    self.previous = Some(seen);
                }
                return;
            }
            Some(_) => self.previous = self.current.take(),
            None => {}
        }
        self.attempt = self.attempt.max(seen.attempt + 1);
        let exited = seen.state == ContainerState::Exited;
        self.current = Some(seen);
        if exited {
            self.ended();
        }
    }
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

/// A pod on its way out.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Why.
    pub cause: Cause,
    /// When the grace period ends.
    pub deadline: Timestamp,
    /// Sandbox stopped.
    pub sandbox: Step<()>,
    /// Volumes gone.
    pub volumes: Step<()>,
    /// The API object deleted.
    pub deleted: Step<()>,
    /// The final status has been accepted by the API server.
    pub reported: bool,
}

impl Ending {
    /// The end of a pod, by `deadline`.
    pub fn new(cause: Cause, deadline: Timestamp) -> Self {
        Self { cause, deadline, sandbox: Step::Idle, volumes: Step::Idle, deleted: Step::Idle, reported: false }
    }
}

/// All that is known of one pod.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The sandbox.
    pub sandbox: Step<Sandbox>,
    /// A sandbox that no longer serves and must go before a new one is made.
    pub lost: Option<Sandbox>,
    /// The lost sandbox is being removed.
    pub removing: bool,
    /// Number of the next sandbox.
    pub attempt: u32,
    /// Failures to make a sandbox in a row.
    pub sandbox_failures: u32,
    /// The volumes.
    pub volumes: Step<()>,
    /// When mounted volumes must be brought up to date; none while that is under way or nothing is due.
    pub refresh: Option<Timestamp>,
    /// Failures to mount in a row.
    pub volume_failures: u32,
    /// Containers by name.
    pub slots: BTreeMap<String, Slot>,
    /// Set when the pod must end.
    pub ending: Option<Ending>,
    /// When the kubelet first saw the pod.
    pub start_time: Option<Timestamp>,
}

/// The result of an action.
#[derive(Debug)]
pub enum Outcome {
    /// The sandbox is there, or why not.
    Sandbox(Result<Sandbox, String>),
    /// A lost sandbox is gone, or why not.
    Removed(Result<(), String>),
    /// Nothing new.
    Nothing,
    /// Volumes are mounted and current until the given time, or why not.
    Volumes(Result<Option<Timestamp>, String>),
    /// A container's image is here, or the reason and message.
    Image(String, Result<Image, (String, String)>),
    /// A container runs, or the reason and message. A container that was made but did not start comes along.
    Started(String, Result<Container, (String, String, Option<Box<Container>>)>),
    /// The postStart hook ended.
    Hook(String, Result<(), String>),
    /// A container has been stopped.
    Stopped(String, Result<(), String>),
    /// The sandbox has been stopped, for good.
    SandboxStopped(Result<(), String>),
    /// The volumes are gone.
    Unmounted(Result<(), String>),
    /// The API object was deleted.
    Deleted(Result<(), String>),
    /// The runtime's view.
    Observed(Vec<Container>, Option<SandboxState>),
}

/// Delay before the `failures`-th repetition of node work: 0.5 s doubling to a minute.
fn delay(failures: u32) -> Duration {
    Duration::from_millis(500).saturating_mul(1 << failures.min(10)).min(Duration::from_secs(60))
}

fn failed(reason: &str, message: String, failures: u32, now: Timestamp) -> Failure {
    let retry = now.saturating_add(signed(delay(failures))).unwrap_or(now);
    Failure { reason: reason.to_owned(), message, at: now, retry }
}

fn simple(result: Result<(), String>, now: Timestamp) -> Step<()> {
    match result {
        Ok(()) => Step::Done(()),
        Err(message) => Step::Failed(failed("Failed", message, 1, now)),
    }
}

impl State {
    /// The state of container `name`.
    pub fn slot(&mut self, name: &str) -> &mut Slot {
        self.slots.entry(name.to_owned()).or_default()
    }

    /// Whether some container runs or is about to.
    pub fn any_alive(&self) -> bool {
        self.slots.values().any(|slot| slot.running() || slot.starting)
    }

    /// Takes in the result of an action.
    pub fn apply(&mut self, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Sandbox(Ok(sandbox)) => {
                self.sandbox_failures = 0;
                self.attempt = self.attempt.max(sandbox.attempt + 1);
                self.sandbox = Step::Done(sandbox);
            }
            Outcome::Sandbox(Err(message)) => {
                self.sandbox = Step::Failed(failed("FailedCreatePodSandBox", message, self.sandbox_failures, now));
                self.sandbox_failures += 1;
            }
            Outcome::Removed(_) => {
                // What cannot be removed now is removed with the pod.
                self.lost = None;
                self.removing = false;
            }
            Outcome::Nothing => {}
            Outcome::Volumes(result) => self.volumes_result(result, now),
            Outcome::Image(name, result) => self.slot(&name).image_result(result, now),
            Outcome::Started(name, result) => self.slot(&name).start_result(result, now),
            Outcome::Hook(name, result) => {
                let slot = self.slot(&name);
                slot.hook = Step::Done(());
                if let (Err(message), true) = (result, slot.running()) {
                    slot.unhealthy = Some(("postStart", None));
                    slot.failure = Some(slot.start_failure("PostStartHookError".to_owned(), message, now));
                }
            }
            Outcome::Stopped(name, result) => {
                let slot = self.slot(&name);
                if let (Err(message), true) = (result, slot.running()) {
                    slot.stopping = None;
                    slot.stop_retry = Some(failed("Failed", message, 1, now).retry);
                }
            }
            Outcome::SandboxStopped(result) => self.ending_step(|ending| &mut ending.sandbox, result, now),
            Outcome::Unmounted(result) => self.ending_step(|ending| &mut ending.volumes, result, now),
            Outcome::Deleted(result) => self.ending_step(|ending| &mut ending.deleted, result, now),
            Outcome::Observed(containers, sandbox) => self.observed(containers, sandbox),
        }
    }

    /// A refresh that fails leaves the volumes as they are and is tried again.
    fn volumes_result(&mut self, result: Result<Option<Timestamp>, String>, now: Timestamp) {
        match result {
            Ok(refresh) => {
                self.volume_failures = 0;
                self.volumes = Step::Done(());
                self.refresh = match (self.refresh, refresh) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            Err(message) => {
                let failure = failed("FailedMount", message, self.volume_failures, now);
                self.volume_failures += 1;
                if self.volumes == Step::Done(()) {
                    self.refresh = Some(failure.retry);
                } else {
                    self.volumes = Step::Failed(failure);
                }
            }
        }
    }

    fn ending_step(&mut self, step: impl FnOnce(&mut Ending) -> &mut Step<()>, result: Result<(), String>, now: Timestamp) {
        if let Some(ending) = &mut self.ending {
            *step(ending) = simple(result, now);
        }
    }

    fn observed(&mut self, containers: Vec<Container>, sandbox: Option<SandboxState>) {
        for container in containers {
            self.slot(&container.name.clone()).observe(container);
        }
        if sandbox != Some(SandboxState::Ready) && self.ending.is_none() {
            self.lose_sandbox();
        }
    }

    /// The namespaces are gone: every container is lost with them and the pod starts anew in a new sandbox.
    pub fn lose_sandbox(&mut self) {
        let Step::Done(sandbox) = std::mem::take(&mut self.sandbox) else { return };
        self.lost = Some(sandbox);
        for slot in self.slots.values_mut() {
            if let Some(mut current) = slot.current.take() {
                if current.state != ContainerState::Exited {
                    current.state = ContainerState::Exited;
                    current.exit_code = Some(255);
                    current.reason = "Unknown".to_owned();
                    current.finished = current.finished.or(current.started);
                }
                slot.previous = Some(current);
            }
            slot.failure = None;
            slot.ended();
        }
    }

    /// Something that the pod refers to has changed: what failed for want of it is tried at once.
    pub fn references_changed(&mut self, now: Timestamp) {
        match self.volumes {
            Step::Failed(_) => self.volumes = Step::Idle,
            // While they are being made, what was read may be old by now.
            Step::Done(()) | Step::Busy => self.refresh = Some(now),
            Step::Idle => {}
        }
        for slot in self.slots.values_mut() {
            if slot.failure.as_ref().is_some_and(|failure| failure.reason == "CreateContainerConfigError") {
                slot.failure = None;
            }
        }
    }
}

impl Slot {
    fn image_result(&mut self, result: Result<Image, (String, String)>, now: Timestamp) {
        self.image = match result {
            Ok(image) => {
                self.pulls = Backoff::default();
                Step::Done(image)
            }
            Err((reason, message)) => {
                self.pulls.next(now);
                let retry = self.pulls.until(now, now).map_or(now, |(until, _)| until);
                Step::Failed(Failure { reason, message, at: now, retry })
            }
        };
    }

    /// A failed start waits like a crash. Missing references are looked at again every 10 s, and when they change.
    fn start_failure(&mut self, reason: String, message: String, now: Timestamp) -> Failure {
        let retry = if reason == "CreateContainerConfigError" {
            now.saturating_add(signed(crate::backoff::BASE)).unwrap_or(now)
        } else {
            self.restarts.next(now);
            self.restarts.until(now, now).map_or(now, |(until, _)| until)
        };
        Failure { reason, message, at: now, retry }
    }

    fn start_result(&mut self, result: Result<Container, (String, String, Option<Box<Container>>)>, now: Timestamp) {
        self.starting = false;
        match result {
            Ok(container) => {
                self.failure = None;
                self.unhealthy = None;
                self.observe(container);
            }
            Err((reason, message, made)) => {
                self.failure = Some(self.start_failure(reason, message.clone(), now));
                if let Some(mut made) = made {
                    if made.state == ContainerState::Created {
                        made.state = ContainerState::Exited;
                        made.exit_code = Some(128);
                        made.reason = "StartError".to_owned();
                        made.message = message;
                        made.finished = Some(now);
                    }
                    self.observe(*made);
                }
            }
        }
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
        let mut slot = Slot::default();
        slot.observe(container("a", "c", 0, Exited));
        slot.observe(container("a", "c", 0, Created));
        assert!(slot.exited().is_some());
    }

    #[test]
    fn a_lost_sandbox_ends_its_containers() {
        let mut state = State { sandbox: Step::Done(crate::pod::testing::sandbox()), ..Default::default() };
        state.apply(Outcome::Observed(vec![container("a", "c", 0, ContainerState::Running)], None), Timestamp::UNIX_EPOCH);
        assert!(state.lost.is_some() && matches!(state.sandbox, Step::Idle));
        let slot = &state.slots["c"];
        assert!(slot.current.is_none() && slot.previous.as_ref().unwrap().exit_code == Some(255));
        assert_eq!(slot.attempt, 1);
    }

    #[test]
    fn a_container_that_cannot_start_has_ended() {
        let mut state = State::default();
        state.slot("c").starting = true;
        let made = container("a", "c", 0, ContainerState::Created);
        let error = ("RunContainerError".to_owned(), "no such file".to_owned(), Some(Box::new(made)));
        state.apply(Outcome::Started("c".to_owned(), Err(error)), Timestamp::UNIX_EPOCH);
        let slot = &state.slots["c"];
        assert_eq!(slot.exited().unwrap().exit_code, Some(128));
        assert!(!slot.starting && slot.failure.is_some());
    }
}
