//! What a plan is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::state::Step;

/// How far the stop of a container is when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was done: its preStop hook comes first.
    Begin,
    /// Its preStop hook is through.
    Hooked,
    /// It is being stopped, and gets less time.
    Shortened,
}

/// Something to do. The worker marks it as begun and hands its outcome back to the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the sandbox with this number.
    RunSandbox(u32),
    /// Remove a sandbox that no longer serves.
    RemoveLost(String),
    /// Mount the volumes.
    MountVolumes,
    /// Bring mounted volumes up to date.
    RefreshVolumes,
    /// Write down that all containers restart.
    RestartAll {
        /// The container whose end is the reason.
        source: String,
        /// By name, the number from which on a container is of the new round.
        round: BTreeMap<String, u32>,
    },
    /// Give what runs the resources that the pod has now.
    Resize,
    /// See how much the pod has written.
    Measure,
    /// See that the image of a container is here, by its pull policy.
    EnsureImage(String),
    /// Make and start a container.
    Start(String),
    /// Run the postStart hook.
    PostStart(String),
    /// Run the preStop hook of a sidecar, whose turn to be stopped comes later (KEP-753).
    PreStop {
        /// Its name.
        name: String,
        /// Time that is left to the pod.
        grace: Duration,
    },
    /// Stop a container.
    Stop {
        /// Its name.
        name: String,
        /// Time it has to end, its preStop hook included.
        grace: Duration,
        /// For the event.
        message: String,
        /// What of the stop has been done before.
        stage: Stage,
    },
    /// Stop the sandbox for good.
    StopSandbox(String),
    /// Give claimed devices back to their drivers.
    GiveBack,
    /// Unmount and remove the volumes.
    Unmount,
    /// Delete the API object.
    Delete,
}

/// Actions for now, and when to look again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In no order: they run side by side.
    pub actions: Vec<Action>,
    /// Earliest time at which the plan may change by itself.
    pub wake: Option<Timestamp>,
}

impl Plan {
    /// Looks again at `time` at the latest.
    pub fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    /// Adds `action` when `step` is due.
    pub fn when_due<T>(&mut self, step: &Step<T>, now: Timestamp, action: Action) {
        match step.due(now) {
            Ok(true) => self.actions.push(action),
            Ok(false) => {}
            Err(time) => self.wake_at(time),
        }
    }
}
