//! Puts the parts of a kubelet together.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use base::readiness::Gate;
use base::tasks::{OnFailure, Tasks};
use client::events::Recorder;

use crate::context::Context;
use crate::dns::Resolv;
use crate::manager::Manager;
use crate::node::agent::Agent;
use crate::node::machine::Machine;
use crate::options::Options;
use crate::refs::References;

/// Why a kubelet cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be made.
    #[error("cannot create {path}: {error}: the kubelet needs a directory that it can write to")]
    DataDirectory {
        /// The directory.
        path: String,
        /// Why.
        error: io::Error,
    },
}

/// Starts the kubelet under `tasks`. `gate` is ready once the node is registered and reports itself ready.
/// Stopping `tasks` leaves containers running.
pub async fn start(options: Options, tasks: Tasks, gate: Gate) -> Result<(), Error> {
    for path in [options.data_dir.join("pods"), options.pod_logs_dir.clone()] {
        let failed = |error| Error::DataDirectory { path: path.display().to_string(), error };
        tokio::fs::create_dir_all(&path).await.map_err(failed)?;
    }
    let resolv = tokio::fs::read_to_string(&options.resolv_conf).await.unwrap_or_default();
    let cx = Arc::new(Context {
        recorder: Recorder::new(options.client.clone(), "kubelet", &options.node_name, &tasks),
        references: References::new(options.client.clone(), tasks.clone()),
        services: options.informers.of(),
        machine: Machine::read(&options.data_dir),
        host_resolv: Resolv::parse(&resolv),
        tasks: tasks.clone(),
        options,
    });
    let agent = Arc::new(Agent::new(cx.clone()));
    let parts = tasks.clone();
    tasks.spawn_until_cancelled("node registration", OnFailure::Shutdown, async move {
        let node = agent.register().await;
        parts.spawn_until_cancelled("node lease", OnFailure::Shutdown, agent.clone().lease(node.clone()));
        parts.spawn_until_cancelled("node status", OnFailure::Shutdown, agent.report(node, gate));
        parts.spawn_until_cancelled("pods of the node", OnFailure::Shutdown, Manager::new(cx).run());
        Ok::<_, Infallible>(())
    });
    Ok(())
}

#[cfg(test)]
#[path = "kubelet_tests.rs"]
mod tests;
