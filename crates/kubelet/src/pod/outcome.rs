//! The results of actions, and how they change what is known of a pod. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use runtime::api::{Container, ContainerState, Image, Sandbox, SandboxState};

use super::state::{Ending, Evicted, Failure, Slot, State, Step};
use crate::backoff::{Backoff, signed};
use crate::storage;

/// The result of an action.
#[derive(Debug)]
pub enum Outcome {
    /// The sandbox is there, or why not.
    Sandbox(Result<Sandbox, String>),
    /// A lost sandbox is gone, or why not.
    Removed(Result<(), String>),
    /// Nothing new.
    Nothing,
    /// The volumes with these names are mounted and current until the given time, or why not.
    Volumes(BTreeSet<String>, Result<Option<Timestamp>, String>),
    /// Why the pod must go for what it has written, if it must, and the least pause before the next look.
    Measured(Option<String>, Duration),
    /// It is written down that all containers restart, with the numbers of the action, or why not.
    AllRestart(BTreeMap<String, u32>, Result<(), String>),
    /// What runs has its new resources, as the runtime tells, or why not.
    Resized(Result<(Vec<Container>, Option<Sandbox>), String>),
    /// A container's image is here, or the reason and message; with the container's name and the reference.
    Image(String, Option<String>, Result<Image, (String, String)>),
    /// A container runs, or the reason and message. A container that was made but did not start comes along.
    Started(String, Result<Container, (String, String, Option<Box<Container>>)>),
    /// The postStart hook ended, of the container with this name and identifier.
    Hook(String, String, Result<(), String>),
    /// The preStop hook of a sidecar ended, well or not; with its name and identifier.
    PreStop(String, String),
    /// The container with this name and identifier has been stopped.
    Stopped(String, String, Result<(), String>),
    /// The sandbox has been stopped, for good.
    SandboxStopped(Result<(), String>),
    /// Claimed devices have been given back.
    GivenBack(Result<(), String>),
    /// The volumes are gone.
    Unmounted(Result<(), String>),
    /// The API object was deleted.
    Deleted(Result<(), String>),
    /// The runtime's view.
    Observed(Vec<Container>, Option<SandboxState>),
}

/// Delay before the `failures`-th repetition of node work: 0.5 s doubling to a minute.
pub(super) fn delay(failures: u32) -> Duration {
    Duration::from_millis(500).saturating_mul(1 << failures.min(10)).min(Duration::from_secs(60))
}

fn failed(reason: &str, message: String, failures: u32, now: Timestamp) -> Failure {
    let retry = now.saturating_add(signed(delay(failures))).unwrap_or(now);
    Failure::new(reason.to_owned(), message, now, retry)
}

impl State {
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
            Outcome::Volumes(names, result) => self.volumes_result(names, result, now),
            Outcome::Measured(verdict, pause) => {
                self.measuring = false;
                let usual = Duration::from_secs(1 << self.measured.min(4)).min(storage::PAUSE);
                self.measured += 1;
                self.measure = now.saturating_add(signed(pause.max(usual))).ok();
                self.evicted = Evicted::merge(self.evicted.take(), verdict.map(Evicted::for_its_limits));
            }
            Outcome::AllRestart(round, result) => self.restart_result(&round, result, now),
            Outcome::Resized(result) => self.resize_result(result, now),
            Outcome::Image(name, reference, result) => self.slot(&name).image_result(reference, result, now),
            Outcome::Started(name, result) => self.slot(&name).start_result(result, now),
            Outcome::Hook(name, id, result) => {
                let Some(slot) = self.slot_of(&name, &id) else { return };
                slot.hook = Step::Done(());
                if let (Err(message), true) = (result, slot.running()) {
                    slot.unhealthy = Some(("postStart", None));
                    slot.failure = Some(slot.start_failure("PostStartHookError".to_owned(), message, true, now));
                }
            }
            Outcome::PreStop(name, id) => {
                if let Some(slot) = self.slot_of(&name, &id) {
                    slot.pre_stop = Step::Done(());
                }
            }
            Outcome::Stopped(name, id, result) => {
                let Some(slot) = self.slot_of(&name, &id) else { return };
                if let (Err(message), true) = (result, slot.running()) {
                    slot.stopping = None;
                    slot.stop_retry = Some(failed("Failed", message, 1, now).retry);
                }
            }
            Outcome::SandboxStopped(result) => self.ending_step(|ending| &mut ending.sandbox, result, now),
            Outcome::GivenBack(result) => self.ending_step(|ending| &mut ending.claims, result, now),
            Outcome::Unmounted(result) => self.ending_step(|ending| &mut ending.volumes, result, now),
            Outcome::Deleted(result) => self.ending_step(|ending| &mut ending.deleted, result, now),
            Outcome::Observed(containers, sandbox) => self.observed(containers, sandbox, now),
        }
    }

    /// The state of a container as long as it is the newest of its name. What comes of work on one that has ended says nothing of the next.
    fn slot_of(&mut self, name: &str, id: &str) -> Option<&mut Slot> {
        self.slots.get_mut(name).filter(|slot| slot.current.as_ref().is_some_and(|current| current.id == id))
    }

    /// A refresh that fails leaves the volumes as they are and is tried again.
    fn volumes_result(&mut self, names: BTreeSet<String>, result: Result<Option<Timestamp>, String>, now: Timestamp) {
        match result {
            Ok(refresh) => {
                self.volume_failures = 0;
                self.volumes = Step::Done(());
                self.mounted.extend(names);
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

    fn restart_result(&mut self, round: &BTreeMap<String, u32>, result: Result<(), String>, now: Timestamp) {
        self.restart = match result {
            Ok(()) => Step::Idle,
            Err(message) => return self.restart = Step::Failed(failed("Failed", message, 1, now)),
        };
        for (name, first) in round {
            self.slot(name).begin_round(*first);
        }
    }

    fn resize_result(&mut self, result: Result<(Vec<Container>, Option<Sandbox>), String>, now: Timestamp) {
        match result {
            Ok((containers, sandbox)) => {
                self.resize = Step::Idle;
                self.resize_failures = 0;
                for container in containers.into_iter().filter(|container| container.state == ContainerState::Running) {
                    self.slot(&container.name.clone()).see(container, now);
                }
                if let (Step::Done(known), Some(sandbox)) = (&mut self.sandbox, sandbox) {
                    known.resources = sandbox.resources;
                }
            }
            Err(message) => {
                self.resize = Step::Failed(failed("Error", message, self.resize_failures, now));
                self.resize_failures += 1;
            }
        }
    }

    fn ending_step(&mut self, step: impl FnOnce(&mut Ending) -> &mut Step<()>, result: Result<(), String>, now: Timestamp) {
        if let Some(ending) = &mut self.ending {
            let failures = ending.failures;
            ending.failures = if result.is_ok() { 0 } else { failures + 1 };
            *step(ending) = match result {
                Ok(()) => Step::Done(()),
                Err(message) => Step::Failed(failed("Failed", message, failures, now)),
            };
        }
    }

    fn observed(&mut self, containers: Vec<Container>, sandbox: Option<SandboxState>, now: Timestamp) {
        for container in containers {
            self.slot(&container.name.clone()).see(container, now);
        }
        if sandbox != Some(SandboxState::Ready) && self.ending.is_none() {
            self.lose_sandbox();
        }
    }

    /// The namespaces are gone, and every container with them. What of them runs again is decided with the next plan.
    pub fn lose_sandbox(&mut self) {
        let Step::Done(sandbox) = std::mem::take(&mut self.sandbox) else { return };
        self.lost = Some(sandbox);
        self.had_volumes = false;
        self.bereft = true;
        for slot in self.slots.values_mut() {
            if let Some(current) = slot.current.as_mut().filter(|current| current.state != ContainerState::Exited) {
                current.state = ContainerState::Exited;
                current.exit_code = Some(255);
                current.reason = "Unknown".to_owned();
                current.finished = current.finished.or(current.started);
            }
            slot.failure = None;
            slot.forget();
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
    fn image_result(&mut self, reference: Option<String>, result: Result<Image, (String, String)>, now: Timestamp) {
        if reference != self.reference {
            self.image = Step::Idle;
            return;
        }
        self.image = match result {
            Ok(image) => {
                self.pulls = Backoff::default();
                Step::Done(image)
            }
            Err((reason, message)) => {
                self.pulls.next(now);
                let retry = self.pulls.until(now, now).map_or(now, |(until, _)| until);
                Step::Failed(Failure::new(reason, message, now, retry))
            }
        };
    }

    /// A failed start. Where there was a container (`made`), it has crashed, and its end says when another one is started. Missing references
    /// are looked at again every 10 s, and when they change.
    fn start_failure(&mut self, reason: String, message: String, made: bool, now: Timestamp) -> Failure {
        let retry = if made {
            now
        } else if reason == "CreateContainerConfigError" {
            now.saturating_add(signed(crate::backoff::BASE)).unwrap_or(now)
        } else {
            self.restarts.next(now);
            self.restarts.until(now, now).map_or(now, |(until, _)| until)
        };
        Failure::new(reason, message, now, retry)
    }

    fn start_result(&mut self, result: Result<Container, (String, String, Option<Box<Container>>)>, now: Timestamp) {
        self.starting = false;
        match result {
            Ok(container) => {
                self.failure = None;
                self.unhealthy = None;
                self.see(container, now);
            }
            Err((reason, message, made)) => {
                self.failure = Some(self.start_failure(reason, message.clone(), made.is_some(), now));
                if let Some(mut made) = made {
                    if made.state == ContainerState::Created {
                        made.state = ContainerState::Exited;
                        made.exit_code = Some(128);
                        made.reason = "StartError".to_owned();
                        made.message = message;
                    }
                    self.see(*made, now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::container;

    #[test]
    fn a_lost_sandbox_ends_its_containers() {
        let mut state = State { sandbox: Step::Done(crate::pod::testing::sandbox()), ..Default::default() };
        state.apply(Outcome::Observed(vec![container("a", "c", 0, ContainerState::Running)], None), Timestamp::UNIX_EPOCH);
        assert!(state.lost.is_some() && matches!(state.sandbox, Step::Idle));
        let slot = &state.slots["c"];
        assert_eq!((slot.exited().unwrap().exit_code, slot.attempt), (Some(255), 1));
    }

    /// A hook may last longer than its container: of the next one it says nothing, nor does a stop that fails.
    #[test]
    fn work_on_a_container_that_has_ended_says_nothing_of_the_next() {
        type Make = fn(String, String) -> Outcome;
        let late: [(&str, Make); 4] = [
            ("a hook that fails", |name, id| Outcome::Hook(name, id, Err("no route".to_owned()))),
            ("a hook", |name, id| Outcome::Hook(name, id, Ok(()))),
            ("a stop that fails", |name, id| Outcome::Stopped(name, id, Err("no shim".to_owned()))),
            ("a preStop hook", Outcome::PreStop),
        ];
        let now = Timestamp::UNIX_EPOCH;
        let seen = |state: &State| {
            let slot = &state.slots["c"];
            (slot.hook.clone(), slot.pre_stop.clone(), slot.unhealthy, slot.failure.clone(), slot.stopping, slot.stop_retry)
        };
        for (what, outcome) in late {
            let mut state = State::default();
            let slot = state.slot("c");
            slot.observe(container("old", "c", 0, ContainerState::Exited));
            slot.observe(container("new", "c", 1, ContainerState::Running));
            (slot.hook, slot.stopping) = (Step::Busy, Some(now));
            let before = seen(&state);
            state.apply(outcome("c".to_owned(), "old".to_owned()), now);
            assert_eq!(seen(&state), before, "{what} of the old one");
            state.apply(outcome("c".to_owned(), "new".to_owned()), now);
            assert_ne!(seen(&state), before, "{what} of the new one");
        }
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
        // As after any other end, the first time another one is started at once.
        assert_eq!(slot.crash_backoff(Timestamp::UNIX_EPOCH), None);
    }
}
