//! Gives pods their nodes.
//!
//! One task owns the whole picture of the cluster and changes it in place: no snapshots, no locks. A decision is a pure
//! function of a pod and that picture ([`cycle`]); the rules are the plugins of one list ([`plugins`]). A pod that found no
//! node waits for an event that one of the plugins which refused it says may help.
//! One that is more important than others makes room ([`preemption`]). Pods that an extender is there for take a way of their own ([`extenders`]).

mod api;
mod attempt;
mod binding;
mod budgets;
mod cluster;
mod configuration;
mod cycle;
mod devices;
mod extenders;
mod filtering;
mod framework;
mod groups;
mod metrics;
mod nominations;
mod plugins;
mod pod;
mod preemption;
mod profile;
mod queue;
mod resources;
mod selectors;
mod service;
mod tallies;
mod terms;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod topologies;
mod volumes;
mod waiting;

use std::sync::Arc;

use base::readiness::Gate;
use base::tasks::{OnFailure, Tasks};
use client::{Client, Informers};

pub use configuration::{Configuration, ConfigurationError};

/// What the scheduler needs from the composition.
#[derive(Clone)]
pub struct Options {
    /// Shared caches.
    pub informers: Informers,
    /// Writes as `system:kube-scheduler`.
    pub client: Client,
    /// What it does for which pods.
    pub configuration: Configuration,
}

/// Starts the scheduler under `tasks`; it ends with it. `gate` is ready when it has its caches.
pub fn run(options: &Options, tasks: &Tasks, gate: Gate) {
    let (options, of_scheduler) = (options.clone(), tasks.clone());
    tasks.spawn_until_cancelled("scheduler", OnFailure::Shutdown, async move {
        let (panics, metrics) = (Arc::new(service::Panics::default()), metrics::Metrics::of_the_page());
        let run = || {
            let scheduler = service::Scheduler::new(&options, &of_scheduler, panics.clone(), metrics.clone());
            scheduler.run(options.informers.clone(), &gate)
        };
        let panicked = |is_stuck: bool| {
            metrics.panicked();
            if is_stuck {
                gate.not_ready("it panics again and again, see the log");
            }
        };
        panics.contain(run, service::PAUSE, panicked).await
    });
}
