//! `knarr server`: builds the components, starts them in order, and drains them in the opposite order.

mod ingress;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::Encryption;
use base::metrics::Page;
use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use base::tls::Authority;
use client::{Client, Informers};
use kubelet::shutdown::Periods;

use crate::bootstrap::DnsError;
use crate::bootstrap::refusals::Refusals;
use crate::certificate::follow::Begun;
use crate::kubeconfig::Kubeconfig;
use crate::local::{InProcess, Issued};
use crate::node::{self, Node};
use crate::paths::{Paths, spelled};
use crate::process::{self, Ending, create_private, make_private};
use crate::running::Running;
use crate::token::JoinToken;
use crate::{bootstrap, cli, identity, preflight, snapshot, systemd};

/// How long each layer may take to end. Together they stay below the ten seconds that service managers give.
const DRAIN_COMPONENTS: Duration = Duration::from_secs(3);
const DRAIN_API: Duration = Duration::from_secs(4);

/// Runs until a signal or a failure.
pub(crate) fn run(options: cli::Server) -> Result<()> {
    preflight::check(!options.no_agent)?;
    preflight::networks(&options.cluster_cidrs, &options.service_cidrs, &options.cluster_dns)?;
    options.cluster.cidrs(&options.cluster_cidrs)?;
    preflight::domain(&options.cluster_domain)?;
    if !options.no_agent {
        preflight::node(&options.node)?;
    }
    let options = cli::Server { data_dir: spelled(&options.data_dir)?, ..options };
    if !options.no_agent {
        preflight::pod_network(&options.data_dir)?;
    }
    options.node.protocols.tell();
    // Nothing between a signal and the end can fail by what the options say.
    let drain = options.node.shutdown.on_exit()?;
    process::run(serve(options, drain))
}

async fn serve(options: cli::Server, drain: Option<Periods>) -> Result<()> {
    let (tasks, failures) = Tasks::root();
    let (storage, api_tasks, components) = (tasks.child(), tasks.child(), tasks.child());
    let mut ending = Ending::new(failures)?;
    let node = Running::default();
    let paths = Paths::new(&options.data_dir);
    create_private(&options.data_dir)?;
    process::lock_for_life(&paths.lock())?;
    // Keys that are made for a store which is to come from a snapshot would be those of another cluster.
    store::Fjall::check(&paths.store())?;
    for part in [paths.pki(), paths.runtime(), paths.kubelet(), paths.network()] {
        make_private(&part)?;
    }
    let begun = Begun::new(paths.pki());
    let store = store::Options {
        quota: options.storage_quota.unwrap_or_else(base::budgets::memory::of_objects),
        begin: store::first_revision(),
        idle: runtime::memory::idle,
        ..store::Options::new(paths.store())
    };
    // Side by side: both wait for the disk when they are new.
    let pki = paths.pki();
    let authority = tokio::task::spawn_blocking(move || Authority::load_or_create(&pki, "ca", "knarr-ca"));
    let (engine, authority) = tokio::join!(store::Fjall::open(store, &storage), authority);
    let (engine, authority) = (engine?, Arc::new(authority??));
    let started = start(&options, &paths, (engine.clone(), authority), &node, (&api_tasks, &components));
    let running = async {
        tokio::select! {
            ended = started => ended,
            ended = begun.until_replaced() => ended,
        }
    };
    let ended = ending.wait(running).await;
    process::tell_end(&ended);
    // An error tells of itself; one at the start has stopped nothing.
    if ended.is_ok() {
        ending.drain(&node, drain).await;
    }
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

/// Starts everything, each part when what it needs is there, and ends only when all has to be built anew.
async fn start(
    options: &cli::Server,
    paths: &Paths,
    (engine, authority): (store::Fjall, Arc<Authority>),
    running: &Running,
    (api_tasks, components): (&Tasks, &Tasks),
) -> Result<()> {
    snapshot::server::start(paths, options.data_dir.clone(), engine.clone(), components)?;
    let readiness = Readiness::default();
    // Before anybody is answered: an agent that finds the server ready reads what the cluster is.
    let told = readiness.gate("cluster");
    let dns = match options.cluster_dns.as_slice() {
        [] => options.service_cidrs.iter().map(|range| address_at(*range, 10)).collect::<Result<_>>()?,
        given => given.to_vec(),
    };
    let cluster = cluster(options, dns);
    let scheduling = scheduling(options)?;
    let identity = node::Identity::of(&options.node)?.within(&cluster)?;

    let database = paths.store();
    Page::Server.observe(
        "apiserver_storage_size_bytes",
        "Size of the storage database file physically allocated in bytes.",
        move |tell| tell(&[("storage_cluster_id", "embedded")], allocated(&database) as f64),
    );
    let api = api_options(options, paths, &identity)?;
    let reserved = reserved(options, &api);
    let service = apiserver::Service::new(
        encrypted(options, paths, engine, components)?,
        authority.clone(),
        api,
        readiness.clone(),
        api_tasks,
    )
    .await?;
    let handle = service.handle()?;
    api_tasks.spawn("apiserver", OnFailure::Shutdown, service.run(api_tasks.clone()));
    let client = identity::apiserver(&handle.api);
    own_objects(&client, &cluster, components).await?;
    let token = paths.token();
    JoinToken::load_or_create(&token, authority.bundle())?;
    let server = format!("https://{}", SocketAddr::new(identity.ip(), handle.address.port()));
    let (client, bundle, whole) = (identity::apiserver(&handle.api), authority.bundle().to_owned(), cluster.clone());
    // Nobody waits for it but machines that join, and they try again.
    components.spawn_until_cancelled("joining", OnFailure::Shutdown, async move {
        let mut refusals = Refusals::default();
        while refusals.again(bootstrap::nodes::joining(&client, (&bundle, &server), &whole, &token, &told).await).await {}
        Ok::<_, Infallible>(())
    });
    start_controllers(options, scheduling, &handle, (&authority, reserved), &readiness, components)?;
    let (own, place) = (identity.routed(), identity.clone());
    let mut changed = None;
    if !options.no_agent {
        paths.keep_node_name(&identity.name)?;
        let clients = InProcess { api: handle.api.clone(), node: identity.name.clone() };
        let certificates = Issued { authority: authority.clone(), pki: paths.pki() };
        let node = node::Options {
            reserved_ports: own_ports(options),
            // It joins by no certificate, and no certificate is for its name.
            annotations: [(controllers::NODE_KEY.to_owned(), "none".to_owned())].into(),
            ..node::Options::new(&options.node, identity, cluster, options.bind_address)
        };
        let node = Node::build(node, paths, &clients, &certificates, &readiness, components).await?;
        changed = Some(node.start(running).await?);
    }
    if options.has_ingress() {
        ingress::start(options, place, &handle.api, &readiness, components)?;
    } else {
        ingress::none(&handle.api, components);
    }
    process::settle(components);
    // Last: who sees the file may connect.
    let listen = SocketAddr::new(options.bind_address, handle.address.port());
    let name = options.cluster.cluster_name.clone();
    Kubeconfig { path: paths.kubeconfig(), name, pki: paths.pki(), authority: authority.clone(), listen }.keep(components)?;
    tracing::info!(address = %handle.address, kubeconfig = %paths.kubeconfig().display(), "knarr {} serves Kubernetes {}", env!("CARGO_PKG_VERSION"), apiserver::VERSION);
    systemd::serves(components);
    process::until_changed(own, changed).await
}

/// Writes the objects that make the cluster what it is. What is refused for now is tried again beside everything else.
async fn own_objects(client: &Client, cluster: &node::Cluster, components: &Tasks) -> Result<()> {
    // At once: the store writes what comes together with one disk synchronisation.
    let (first, ranges, storage) = tokio::join!(
        bootstrap::cluster_dns(client.clone(), &cluster.dns, &cluster.services),
        bootstrap::pod_ranges(client.clone(), &cluster.pods),
        bootstrap::local_storage(client.clone()),
    );
    ranges?;
    let first = match first {
        Err(DnsError::Refused(_)) | Ok(()) => first.map_err(Into::into),
        Err(error) => return Err(error.into()),
    };
    let (own, whole) = (client.clone(), cluster.clone());
    until_taken("service of the cluster DNS", first, components, move || {
        let (own, whole) = (own.clone(), whole.clone());
        async move { Ok(bootstrap::cluster_dns(own, &whole.dns, &whole.services).await?) }
    });
    let own = client.clone();
    until_taken("class of local volumes", storage, components, move || bootstrap::local_storage(own.clone()));
    Ok(())
}

/// Tries again what the API has refused, until it is taken.
fn until_taken<F>(what: &'static str, first: Result<()>, tasks: &Tasks, again: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut refusals = Refusals::default();
    if refusals.tell(first) {
        tasks.spawn_until_cancelled(what, OnFailure::Shutdown, async move {
            while refusals.again(again().await).await {}
            Ok::<_, Infallible>(())
        });
    }
}

/// The store, in which values are encrypted as a configuration says. Its file is followed.
fn encrypted(options: &cli::Server, paths: &Paths, engine: store::Fjall, tasks: &Tasks) -> Result<Arc<dyn store::Engine>> {
    let own = paths.encryption();
    let path = options.encryption_provider_config.clone().unwrap_or_else(|| own.clone());
    // One that somebody names must be there; the own one may come later.
    let present = options.encryption_provider_config.is_some() || own.exists();
    let encryption = Encryption::load(present.then_some(path.as_path()))?;
    let following = encryption.clone().follow(path, Arc::new(engine.clone()));
    tasks.spawn_until_cancelled("encryption configuration", OnFailure::Log, following);
    Ok(Arc::new(store::Transformed::new(engine, encryption)))
}

/// What this server's cluster is, for its nodes.
fn cluster(options: &cli::Server, dns: Vec<IpAddr>) -> node::Cluster {
    node::Cluster {
        pods: options.cluster_cidrs.clone(),
        backend: options.pod_network.backend(),
        services: options.service_cidrs.clone(),
        dns,
        domain: options.cluster_domain.clone(),
    }
}

/// Ports of nodes that are their own: of the API server, of the kubelet, of the way between nodes.
fn own_ports(options: &cli::Server) -> Vec<(network::Protocol, u16)> {
    let tcp = |port| (network::Protocol::Tcp, port);
    [tcp(options.port), tcp(options.node.kubelet_port)].into_iter().chain(options.pod_network.backend().port()).collect()
}

/// What no node is certified as.
fn reserved(options: &cli::Server, api: &apiserver::Options) -> controllers::Reserved {
    let ranges = options.cluster_cidrs.iter().chain(&options.service_cidrs).copied().collect();
    controllers::Reserved { names: api.all_names(), ranges, domain: options.cluster_domain.clone() }
}

fn api_options(options: &cli::Server, paths: &Paths, node: &node::Identity) -> Result<apiserver::Options> {
    let own = options.service_cidrs.iter().map(|range| address_at(*range, 1)).collect::<Result<Vec<_>>>()?;
    let names = own.iter().chain(&node.ips).map(IpAddr::to_string).chain(options.tls_san.iter().cloned()).collect();
    let node_ip = node.ip();
    Ok(apiserver::Options {
        listen: SocketAddr::new(options.bind_address, options.port),
        tls: options.node.protocols.options(),
        pki: paths.pki(),
        names,
        public_address: SocketAddr::new(node_ip, options.port).to_string(),
        advertised: SocketAddr::new(node_ip, options.port),
        domain: options.cluster_domain.clone(),
        service_accounts: options.service_account.options(&options.cluster_domain),
        authentication: options.authentication.options(),
        admission: options.admission_control_config_file.clone(),
        // An empty list is one with an empty name for the command line.
        admission_plugins: options.enable_admission_plugins.iter().filter(|name| !name.is_empty()).cloned().collect(),
        tolerations: options.cluster.tolerations(),
        authorization: options.authorization.options(),
        audit: options.audit.options(),
        build: crate::version::BUILD,
        flags: options.node.flags.clone(),
        registry: registry::Options {
            node_ports: options.cluster.service_node_port_range.clone(),
            event_ttl: options.cluster.event_ttl,
            ..registry::Options::new(options.service_cidrs.clone())
        },
    })
}

/// How the scheduler works.
fn scheduling(options: &cli::Server) -> Result<scheduler::Configuration> {
    let Some(path) = &options.scheduler_config else { return Ok(scheduler::Configuration::default()) };
    scheduler::Configuration::read(path).with_context(|| format!("--scheduler-config {}", path.display()))
}

/// Controllers and scheduler share one set of caches.
fn start_controllers(
    options: &cli::Server,
    configuration: scheduler::Configuration,
    handle: &apiserver::Handle,
    (authority, reserved): (&Arc<Authority>, controllers::Reserved),
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<()> {
    // One server runs them; there is no other to lose the lead to.
    Page::Server.observe(
        "leader_election_master_status",
        "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.",
        |tell| ["kube-controller-manager", "kube-scheduler"].iter().for_each(|name| tell(&[("name", name)], 1.0)),
    );
    let informers = Informers::new(identity::controllers(&handle.api), tasks.clone());
    let (api, signing) = (handle.api.clone(), handle.api.clone());
    let controllers = controllers::Options {
        informers: informers.clone(),
        clients: Arc::new(move |account| identity::controller(&api, account)),
        root_ca: authority.bundle().to_owned(),
        sign_kept: Arc::new(move |of| signing.sign_kept(of.namespace, of.secret, (of.account, of.uid))),
        authority: authority.clone(),
        reserved,
        cluster_cidrs: options.cluster.cidrs(&options.cluster_cidrs)?,
        finished_pods: options.cluster.finished_pods(),
        node_ports: own_ports(options).iter().map(|(protocol, port)| (i32::from(*port), protocol.name().to_owned())).collect(),
        clock: controllers::Clock::system(),
    };
    controllers::run(&controllers, tasks, readiness.gate("controllers"));
    if options.hollow_nodes > 0 {
        let api = handle.api.clone();
        let clients = Arc::new(move |node: &str| identity::node(&api, node));
        let hollow =
            hollow::Options { count: options.hollow_nodes, informers: informers.clone(), clients, version: apiserver::VERSION };
        hollow::run(hollow, tasks, readiness.gate("hollow-nodes"));
    }
    let scheduler = scheduler::Options { informers, client: identity::scheduler(&handle.api), configuration };
    scheduler::run(&scheduler, tasks, readiness.gate("scheduler"));
    Ok(())
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
