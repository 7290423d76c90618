//! Puts the parts of a kubelet together.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use base::listen::Listener;
use base::readiness::Gate;
use base::tasks::{OnFailure, Tasks};
use client::events::Recorder;
use tokio::sync::{Notify, watch};

use crate::affinity;
use crate::allocatable::{Allocatable, Reserved, ReservedError};
use crate::certificates::Certificates;
use crate::claims::Claims;
use crate::clock::Clock;
use crate::context::Context;
use crate::cpus::{self, Cpus};
use crate::devices::{self, Devices};
use crate::dns::Resolv;
use crate::drivers::{self, Drivers};
use crate::eviction;
use crate::eviction::requests::Requests;
use crate::images::garbage::collector::Collector;
use crate::images::garbage::rounds;
use crate::images::providers::Providers;
use crate::images::records::Records;
use crate::manager::Manager;
use crate::metrics::Measured;
use crate::node::agent::{self, Agent};
use crate::node::machine::Machine;
use crate::node::oom;
use crate::numa::{self, Memory};
use crate::options::Options;
use crate::refs::References;
use crate::server::{Api, serve};
use crate::statics::{self, Statics};
use crate::users::Users;
use crate::{images, logs, metrics, shutdown};

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
    /// It is not known which images of the node need credentials.
    #[error(
        "the records of pulled images cannot be read: {0}: without them, pods would use images that they have no credentials for"
    )]
    Pulls(io::Error),
    /// Processors cannot be given.
    #[error("--cpu-manager-policy: {0}")]
    Cpus(#[from] cpus::Error),
    /// Memory cannot be given.
    #[error("--memory-manager-policy: {0}")]
    Memory(#[from] numa::Error),
    /// There are too many sets of them.
    #[error("--topology-manager-policy: this machine has {0} NUMA nodes, and no more than {most} are supported", most = affinity::NODES)]
    Nodes(usize),
    /// The process stops.
    #[error(transparent)]
    Blocking(io::Error),
    /// Nothing is left for pods.
    #[error("nothing is left for pods: {0}")]
    Reserved(#[from] ReservedError),
    /// The endpoint's port cannot be had.
    #[error("cannot listen on {address}: {error}: is another kubelet running on this machine?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// Makes what the parts of the kubelet share, as the data directory and the machine have it.
async fn context(mut options: Options, evictions: Requests, tasks: &Tasks) -> Result<Arc<Context>, Error> {
    options.runtime = Arc::new(Measured(options.runtime));
    let pods = options.data_dir.join("pods");
    for path in [&pods, &options.pod_logs_dir, &logs::links::directory(&options.pod_logs_dir)] {
        let failed = |error| Error::DataDirectory { path: path.display().to_string(), error };
        tokio::fs::create_dir_all(path).await.map_err(failed)?;
    }
    // Volumes are for their containers, not for other users of the machine.
    let failed = |error| Error::DataDirectory { path: pods.display().to_string(), error };
    tokio::fs::set_permissions(&pods, std::fs::Permissions::from_mode(0o750)).await.map_err(failed)?;
    let resolv = tokio::fs::read_to_string(&options.resolv_conf).await.unwrap_or_default();
    let machine = Machine::read(&options.data_dir);
    let own = options.kube_reserved.clone().unwrap_or_else(|| Reserved::for_knarr(&machine));
    let mut reserved = options.system_reserved.and(&own);
    if let Some(set) = &options.reserved_cpus {
        reserved.milli_cpu = 1000 * i64::try_from(set.len()).unwrap_or(i64::MAX / 1000);
    }
    let (policy, of_policy) = (options.cpu_manager, options.cpu_options);
    let (data_dir, set, milli) = (options.data_dir.clone(), options.reserved_cpus.clone(), reserved.milli_cpu);
    let open = move || Cpus::open(policy, of_policy, &data_dir, set.as_ref().ok_or(milli));
    let cpus = tokio::task::spawn_blocking(open).await.map_err(|error| Error::Blocking(error.into()))??;
    let allocatable = Allocatable::of(&machine, options.max_pods, &reserved, &options.eviction.thresholds)?;
    let (data_dir, policy, set) = (options.data_dir.clone(), options.memory_manager, options.reserved_memory.clone());
    let kept = allocatable.kept_memory;
    let open = move || Memory::open(policy, &data_dir, &set, kept);
    let memory = tokio::task::spawn_blocking(open).await.map_err(|error| Error::Blocking(error.into()))??;
    if options.affinity.policy != affinity::Policy::None && machine.numa_nodes.len() > affinity::NODES {
        return Err(Error::Nodes(machine.numa_nodes.len()));
    }
    Ok(Arc::new(Context {
        certificates: Certificates::new(options.informers.clone(), tasks.clone(), &options.node_name),
        drivers: Drivers::default(),
        devices: Devices::load(&options.data_dir),
        cpus,
        memory,
        statics: Statics::default(),
        pulls: Records::load(&options.data_dir).map_err(Error::Pulls)?,
        collector: Collector::new(options.image_gc),
        providers: Providers::new(&options.credential_providers.providers, options.client.clone()),
        claims: Claims::load(&options.data_dir),
        clock: Clock::start(),
        users: Users::load(&pods, options.max_pods),
        conditions: watch::Sender::default(),
        shutdown: watch::Sender::default(),
        evictions,
        recorder: Recorder::new(options.client.clone(), "kubelet", &options.node_name, tasks),
        references: References::new(options.client.clone(), tasks.clone()),
        services: options.informers.of(),
        machine,
        allocatable,
        node_changed: Notify::new(),
        volume_waits: Notify::new(),
        host_resolv: Resolv::parse(&resolv),
        tasks: tasks.clone(),
        options,
    }))
}

/// Starts the kubelet under `tasks`. `gate` is ready once the node is registered and reports itself ready.
/// Stopping `tasks` leaves containers running. Returns what the endpoint serves, for callers in the same process.
pub async fn start(options: Options, tasks: Tasks, gate: Gate) -> Result<Api, Error> {
    let (evictions, requests) = Requests::channel();
    let cx = context(options, evictions, &tasks).await?;
    let hash = cx.options.credential_providers.hash.clone();
    if !hash.is_empty() {
        metrics::plugins_configured(hash);
    }
    if let Err(error) = images::settle(&cx).await {
        // Such as by a full disk. Who wants an image shows his credentials again where it is not written down who may use it.
        tracing::error!(%error, "the records of pulls are not brought up to what is on the node");
    }
    // What ran before may have been made with other processors.
    cx.cpus.settle(cx.runtime().as_ref()).await?;
    let api = Api::new(cx.clone());
    if let Some(server) = cx.options.server.clone() {
        let address = server.listen;
        let listener = Listener::bind(address).map_err(|error| Error::Listen { address, error })?;
        tasks.spawn_until_cancelled("kubelet endpoint", OnFailure::Shutdown, serve(server, listener, api.clone(), tasks.clone()));
    }
    tasks.spawn_until_cancelled("static pods", OnFailure::Shutdown, statics::directory::run(cx.clone()));
    let agent = Arc::new(Agent::new(cx.clone()));
    let parts = tasks.clone();
    let evictor = eviction::manager::Manager::new(cx.clone()).await;
    let node = || agent::reference_by_name(&cx.options.node_name);
    tasks.spawn_until_cancelled("device plugins", OnFailure::Log, devices::registration::run(cx.clone()));
    tasks.spawn_until_cancelled("pod resources", OnFailure::Log, devices::pod_resources::run(cx.clone()));
    tasks.spawn_until_cancelled("eviction", OnFailure::Shutdown, evictor.run(node()));
    if !cx.options.shutdown.is_none() {
        tasks.spawn_until_cancelled("shutdown of the node", OnFailure::Log, shutdown::manager::run(cx.clone(), node()));
    }
    tasks.spawn_until_cancelled("image garbage collection", OnFailure::Log, rounds::run(cx.clone(), node()));
    tasks.spawn_until_cancelled("kernel messages", OnFailure::Log, oom::run(cx.clone(), node()));
    let (registered, known) = watch::channel(false);
    let manager = Manager::new(cx.clone(), requests);
    let nodes = manager.nodes();
    tasks.spawn_until_cancelled("pods of the node", OnFailure::Shutdown, manager.run(known));
    tasks.spawn_until_cancelled("node registration", OnFailure::Shutdown, async move {
        let node = agent.register().await;
        parts.spawn_until_cancelled("node lease", OnFailure::Shutdown, agent.clone().lease(node.clone()));
        parts.spawn_until_cancelled("drivers", OnFailure::Log, drivers::registration::run(cx.clone()));
        parts.spawn_until_cancelled("node status", OnFailure::Shutdown, agent.report(node, gate));
        parts.spawn_until_cancelled("mirror pods", OnFailure::Shutdown, statics::mirrors::run(cx, nodes));
        registered.send_replace(true);
        Ok::<_, Infallible>(())
    });
    Ok(api)
}

#[cfg(test)]
mod tests;
