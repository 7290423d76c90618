//! `knarr server`: builds the components, starts them in order, and drains them in the opposite order.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::metrics::Page;
use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use base::tls::Authority;
use client::Informers;
use tokio::signal::unix::{SignalKind, signal};

use crate::bootstrap;
use crate::node::{self, Node};
use crate::paths::Paths;
use crate::{cli, identity, kubeconfig, preflight};

/// How long each layer may take to end. Together they stay below the ten seconds that service managers give.
const DRAIN_COMPONENTS: Duration = Duration::from_secs(3);
const DRAIN_API: Duration = Duration::from_secs(4);

/// How long after the start the code that only the start needs is let go of.
const SETTLED: Duration = Duration::from_secs(3);

/// Runs until a signal or a failure.
pub(crate) fn run(options: cli::Server) -> Result<()> {
    // Files for pods have modes that their users need; what is private gets its own mode. The starter's mask is for neither.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    preflight::check(!options.no_agent)?;
    preflight::networks(options.cluster_cidr, options.service_cidr, options.cluster_dns)?;
    preflight::node(&options)?;
    let options = cli::Server { data_dir: std::path::absolute(&options.data_dir)?, ..options };
    if let Err(error) = base::budgets::descriptors::raise() {
        tracing::warn!(%error, "cannot raise the limit of descriptors");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: cli::Server) -> Result<()> {
    let (tasks, mut failures) = Tasks::root();
    let (storage, api_tasks, components) = (tasks.child(), tasks.child(), tasks.child());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let paths = Paths::new(&options.data_dir);
    create_private(&options.data_dir)?;
    for part in [paths.pki(), paths.runtime(), paths.kubelet(), paths.network()] {
        make_private(&part)?;
    }
    let engine = store::Fjall::open(store::Options::new(paths.store()), &storage).await?;
    let started = start(&options, &paths, engine.clone(), &api_tasks, &components);
    let ended = tokio::select! {
        result = started => match result {
            Err(error) => Err(error),
            Ok(()) => tokio::select! {
                _ = terminate.recv() => Ok(()),
                _ = interrupt.recv() => Ok(()),
                failure = failures.recv() => failure.map_or(Ok(()), |failure| Err(failure.into())),
            },
        },
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failure = failures.recv() => failure.map_or(Ok(()), |failure| Err(failure.into())),
    };
    tracing::info!("stopping; pods keep running");
    // Components first, so that they can still tell the API what they leave; the store last.
    if !components.drain(DRAIN_COMPONENTS).await {
        tracing::warn!(left = components.len(), "some components did not end in time");
    }
    if !api_tasks.drain(DRAIN_API).await {
        tracing::warn!(left = api_tasks.len(), "some requests did not end in time");
    }
    engine.close().await;
    storage.drain(Duration::from_secs(1)).await;
    ended
}

/// Starts everything, each part when what it needs is there.
async fn start(options: &cli::Server, paths: &Paths, engine: store::Fjall, api_tasks: &Tasks, components: &Tasks) -> Result<()> {
    let readiness = Readiness::default();
    let node_ip = match options.node_ip {
        Some(address) => address,
        None => default_address().context("cannot tell this machine's address: give it with --node-ip")?,
    };
    let node_name = match &options.node_name {
        Some(name) => name.clone(),
        None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
    };
    check_name(&node_name)?;
    let authority = Arc::new(Authority::load_or_create(&paths.pki(), "ca", "knarr-ca")?);
    let kubernetes = address_at(options.service_cidr, 1)?;
    let dns = options.cluster_dns.map_or_else(|| address_at(options.service_cidr, 10), Ok)?;

    let database = paths.store();
    Page::Server.observe(
        "apiserver_storage_size_bytes",
        "Size of the storage database file physically allocated in bytes.",
        move |tell| tell(&[("storage_cluster_id", "embedded")], allocated(&database) as f64),
    );
    let service = apiserver::Service::new(
        Arc::new(engine),
        authority.clone(),
        api_options(options, paths, node_ip, kubernetes),
        readiness.clone(),
        api_tasks,
    )
    .await?;
    let handle = service.handle()?;
    api_tasks.spawn("apiserver", OnFailure::Shutdown, service.run(api_tasks.clone()));
    bootstrap::cluster_dns(identity::apiserver(&handle.api), dns).await?;
    bootstrap::local_storage(identity::apiserver(&handle.api)).await?;
    let volumes = controllers::LocalVolumes { node: node_name.clone(), root: paths.volumes() };
    start_controllers(options, &handle, &authority, volumes, &readiness, components);
    if !options.no_agent {
        std::fs::write(paths.node_name(), &node_name)?;
        let node = Node { name: node_name, ip: node_ip, dns, authority: authority.clone() };
        node::start(options, paths, node, &handle.api, &readiness, components).await?;
    }
    components.spawn_until_cancelled("code of the start", OnFailure::Log, async {
        tokio::time::sleep(SETTLED).await;
        runtime::memory::release_code();
        Ok::<_, std::convert::Infallible>(())
    });
    // Last: who sees the file may connect.
    kubeconfig::write(&paths.kubeconfig(), &paths.pki(), &authority, options.bind_address, handle.address.port())?;
    tracing::info!(address = %handle.address, kubeconfig = %paths.kubeconfig().display(), "knarr {} serves Kubernetes {}", env!("CARGO_PKG_VERSION"), apiserver::VERSION);
    Ok(())
}

fn api_options(options: &cli::Server, paths: &Paths, node_ip: IpAddr, kubernetes: IpAddr) -> apiserver::Options {
    let names = [kubernetes.to_string(), node_ip.to_string()].into_iter().chain(options.tls_san.iter().cloned()).collect();
    apiserver::Options {
        listen: SocketAddr::new(options.bind_address, options.port),
        pki: paths.pki(),
        names,
        public_address: SocketAddr::new(node_ip, options.port).to_string(),
        advertised: SocketAddr::new(node_ip, options.port),
        domain: options.cluster_domain.clone(),
        issuer: format!("https://kubernetes.default.svc.{}", options.cluster_domain),
        anonymous: true,
        build: crate::version::BUILD,
        registry: registry::Options {
            service_cidr: (options.service_cidr.network(), options.service_cidr.prefix_len()),
            node_ports: 30000..=32767,
            tokens: None,
        },
    }
}

/// Controllers and scheduler share one set of caches.
fn start_controllers(
    options: &cli::Server,
    handle: &apiserver::Handle,
    authority: &Authority,
    volumes: controllers::LocalVolumes,
    readiness: &Readiness,
    tasks: &Tasks,
) {
    // One server runs them; there is no other to lose the lead to.
    Page::Server.observe(
        "leader_election_master_status",
        "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.",
        |tell| ["kube-controller-manager", "kube-scheduler"].iter().for_each(|name| tell(&[("name", name)], 1.0)),
    );
    let informers = Informers::new(identity::controllers(&handle.api), tasks.clone());
    let api = handle.api.clone();
    let controllers = controllers::Options {
        informers: informers.clone(),
        clients: Arc::new(move |account| identity::controller(&api, account)),
        root_ca: authority.bundle().to_owned(),
        cluster_cidrs: vec![options.cluster_cidr],
        clock: controllers::Clock::system(),
        local_volumes: Some(volumes).filter(|_| !options.no_agent),
    };
    controllers::run(&controllers, tasks, readiness.gate("controllers"));
    let scheduler =
        scheduler::Options { informers, client: identity::scheduler(&handle.api), name: "default-scheduler".to_owned() };
    scheduler::run(&scheduler, tasks, readiness.gate("scheduler"));
}

/// Bytes on disk of all files below a directory. Files may vanish meanwhile.
fn allocated(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => allocated(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Makes the data directory, for this user only.
fn create_private(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the data directory {}", path.display()))
}

/// Makes a part of the data directory private, whatever the mode of the directory that a user has given us.
fn make_private(path: &Path) -> Result<()> {
    create_private(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).with_context(|| path.display().to_string())
}

/// The nth address of a network.
fn address_at(network: ipnet::IpNet, offset: u32) -> Result<IpAddr> {
    let address = match network.network() {
        IpAddr::V4(base) => IpAddr::V4(base.to_bits().wrapping_add(offset).into()),
        IpAddr::V6(base) => IpAddr::V6(base.to_bits().wrapping_add(u128::from(offset)).into()),
    };
    if !network.contains(&address) {
        bail!("the service network {network} is too small");
    }
    Ok(address)
}

/// The address by which this machine reaches others: that of its default route, else the first that is not loopback.
fn default_address() -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing; it makes the kernel choose the source address. The target is TEST-NET-1.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    let routed = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    routed.ok().or_else(|| {
        let interfaces = nix::ifaddrs::getifaddrs().ok()?;
        let addresses = interfaces.filter_map(|interface| Some(IpAddr::V4(interface.address?.as_sockaddr_in()?.ip())));
        addresses.into_iter().find(|address| !address.is_loopback())
    })
}

fn check_name(name: &str) -> Result<()> {
    let problems = apimachinery::names::dns1123_subdomain(name);
    match problems.first() {
        Some(problem) => bail!("{name:?} cannot be the node's name: {problem}. Give another with --node-name"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parts_of_an_open_directory_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let part = directory.path().join("pki");
        std::fs::create_dir(&part).unwrap();
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&part).unwrap();
        assert_eq!(std::fs::metadata(&part).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
