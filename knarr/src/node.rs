//! A node: container runtime, pod network, service proxy, cluster DNS and kubelet.
//!
//! A node knows [`Options`], gets [`Clients`] of the API and [`Certificates`], and nothing else of the server: in the server's
//! process the clients are function calls and the authority issues the certificates; on another machine the clients are
//! HTTPS and the certificates come by requests. A node never holds the authority's key.

pub(crate) mod expiry;
mod external;
mod name_servers;
mod network;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::network::Backend;
use ::network::cni::Directories;
use ::network::nft::table::Holder;
use ::network::policy::Policies;
use ::network::proxy::Listen;
use anyhow::{Context, Result};
use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use base::tls::{self, Resolver, Verifier};
use base::zpages::Flags;
use client::events::Recorder;
use client::{Client, Informers};
use k8s_openapi::api::core::v1::Taint;
use kubelet::images::access::{Policy, Verification};
use kubelet::images::providers::configuration;
use kubelet::sharing::OtherNodes;
use runtime::api::PodNetwork;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::cli::ShareImages;
use crate::paths::Paths;
use crate::process::Again;
use crate::running::Running;
use crate::{cli, default_address, images, routed_address_v6};

use self::expiry::Certificate;
use self::external::Opened;
pub(crate) use self::external::{connect, endpoint_of};

/// How the node's components talk to the API.
pub(crate) trait Clients {
    /// As the node itself, `system:node:NAME`.
    fn kubelet(&self) -> Client;
    /// As the service proxy and the cluster DNS, which read the same.
    fn proxy(&self) -> Client;
}

/// Where the certificates of the node's endpoint come from.
pub(crate) trait Certificates {
    /// The certificates by which the node knows its callers, PEM.
    fn bundle(&self) -> String;
    /// How the node connects to other nodes, with its own certificate.
    fn client(&self, node: &Identity) -> Result<rustls::ClientConfig, tls::Error>;
    /// The endpoint's own certificate, kept current.
    fn serving(&self, node: &Identity) -> Result<Arc<Resolver>, tls::Error>;
}

/// Which node it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// Its addresses, at most one of each family, the one by which other nodes reach it first.
    pub(crate) ips: Vec<IpAddr>,
    /// The addresses are those that the machine has by itself: nobody has said which.
    found: bool,
}

/// What all nodes of a cluster must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) pods: Vec<ipnet::IpNet>,
    /// How packets of pods go from node to node; what an older server tells does not say.
    #[serde(default)]
    pub(crate) backend: ::network::Backend,
    pub(crate) services: Vec<ipnet::IpNet>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) domain: String,
}

/// What a node is told.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) identity: Identity,
    pub(crate) cluster: Cluster,
    /// Where the kubelet listens.
    pub(crate) listen: SocketAddr,
    /// What it speaks of TLS.
    pub(crate) protocols: tls::Protocols,
    /// Where the service proxy says how it is.
    pub(crate) proxy: Listen,
    /// The command line.
    pub(crate) flags: Flags,
    /// Ports of the machine that no service and no pod gets, besides the kubelet's and that of the way to other nodes.
    pub(crate) reserved_ports: Vec<(::network::Protocol, u16)>,
    /// Socket of the container runtime; none is the built-in one.
    pub(crate) runtime_endpoint: Option<String>,
    pub(crate) registries: Option<PathBuf>,
    /// Where network plugins are.
    pub(crate) cni: ::network::cni::Directories,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) taints: Vec<Taint>,
    /// Annotations of the Node, for the cluster.
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) max_pods: u32,
    pub(crate) pod_max_pids: u32,
    pub(crate) allowed_unsafe_sysctls: Vec<kubelet::sysctls::Pattern>,
    pub(crate) seccomp_default: bool,
    pub(crate) max_container_restart_period: Duration,
    /// Bytes of a container's log file, and how many are kept.
    pub(crate) log_limit: (u64, u32),
    /// Domains with name servers of their own, and name servers for everything else.
    pub(crate) stub_domains: BTreeMap<String, Vec<SocketAddr>>,
    pub(crate) dns_upstreams: Vec<SocketAddr>,
    /// Directory of static pods.
    pub(crate) static_pods: Option<PathBuf>,
    /// Whether queries of services' logs are answered.
    pub(crate) log_query: bool,
    /// For which images credentials have to be shown: the policy and its list.
    pub(crate) verification: (Policy, Vec<String>),
    /// Where image credential providers are configured, and where their programs are.
    pub(crate) credential_providers: Option<(PathBuf, PathBuf)>,
    /// What of images it gets from other nodes and gives to them.
    pub(crate) sharing: cli::ShareImages,
    pub(crate) pressure: cli::Pressure,
    pub(crate) image_gc: cli::ImageGc,
    pub(crate) shutdown: cli::Shutdown,
}

impl Identity {
    /// By the options; what they do not say by the machine.
    pub(crate) fn of(options: &cli::Node) -> Result<Self> {
        let found = options.node_ips.is_empty();
        let ips = match found {
            false => options.node_ips.clone(),
            true => default_address().into_iter().chain(routed_address_v6()).collect(),
        };
        if ips.is_empty() {
            anyhow::bail!("cannot tell this machine's address: give it with --node-ip");
        }
        Ok(Self { name: Self::name(options)?, ips, found })
    }

    /// The node's name, by the options or that of the machine.
    pub(crate) fn name(options: &cli::Node) -> Result<String> {
        let name = match &options.node_name {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
        };
        // It is the value of the label kubernetes.io/hostname, too.
        let problems = apimachinery::names::dns1123_subdomain(&name).into_iter().chain(apimachinery::names::label_value(&name));
        match problems.into_iter().next() {
            Some(problem) => anyhow::bail!("{name:?} cannot be the node's name: {problem}. Give another with --node-name"),
            None => Ok(name),
        }
    }

    /// As a node of a cluster: of the addresses that the machine has by itself, it has those of the cluster's families, in their order.
    pub(crate) fn within(self, cluster: &Cluster) -> Result<Self> {
        if !self.found {
            return Ok(self);
        }
        let of_family = |range: &ipnet::IpNet| self.ips.iter().find(|ip| ip.is_ipv4() == range.addr().is_ipv4()).copied();
        let ips: Vec<IpAddr> = cluster.pods.iter().filter_map(of_family).collect();
        if ips.is_empty() {
            anyhow::bail!("this machine has no address of the families of the cluster's pods: give one with --node-ip");
        }
        Ok(Self { ips, ..self })
    }

    /// The address by which other nodes reach it.
    pub(crate) fn ip(&self) -> IpAddr {
        // There is one: see `of` and `within`.
        self.ips.first().copied().unwrap_or(IpAddr::from([0; 4]))
    }

    /// The address of the default route, when the node has it for that reason only.
    pub(crate) fn routed(&self) -> Option<IpAddr> {
        self.ips.iter().find(|ip| ip.is_ipv4()).copied().filter(|_| self.found)
    }

    /// Names and addresses, as its certificates have them.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.name.clone()).chain(self.ips.iter().map(IpAddr::to_string))
    }
}

impl Options {
    /// The options of the command line, and what the composition knows besides.
    pub(crate) fn new(options: &cli::Node, identity: Identity, cluster: Cluster, bind: IpAddr) -> Self {
        Self {
            identity,
            cluster,
            listen: SocketAddr::new(bind, options.kubelet_port),
            protocols: options.protocols.options(),
            proxy: proxy_ports(options, bind),
            flags: options.flags.clone(),
            reserved_ports: Vec::new(),
            runtime_endpoint: options.container_runtime_endpoint.clone(),
            registries: options.registries.clone(),
            cni: ::network::cni::Directories {
                configuration: options.cni_conf_dir.clone(),
                plugins: options.cni_bin_dir.clone(),
            },
            labels: options.labels.clone(),
            taints: options.taints.clone(),
            annotations: BTreeMap::new(),
            max_pods: options.max_pods,
            pod_max_pids: options.pod_max_pids,
            allowed_unsafe_sysctls: options.allowed_unsafe_sysctls.clone(),
            seccomp_default: options.seccomp_default,
            max_container_restart_period: options.max_container_restart_period,
            log_limit: (options.container_log_max_size, options.container_log_max_files),
            stub_domains: name_servers::merged(&options.dns_stub_domains),
            dns_upstreams: options.dns_upstreams.clone(),
            static_pods: options.pod_manifest_path.clone(),
            log_query: options.enable_system_log_query,
            verification: (
                options.image_pull_credentials_verification_policy,
                options.preloaded_images_verification_allowlist.clone(),
            ),
            credential_providers: options.credential_providers(),
            sharing: options.share_images,
            pressure: options.pressure.clone(),
            image_gc: options.image_gc.clone(),
            shutdown: options.shutdown.clone(),
        }
    }
}

/// A node, ready to start.
pub(crate) struct Node {
    network: network::Start,
    kubelet: kubelet::Options,
    /// The built-in runtime, where it is that.
    engine: Option<runtime::Engine>,
    /// Where `knarr image` asks.
    socket: PathBuf,
    publish: watch::Sender<Option<::network::PodNetwork>>,
    readiness: Readiness,
    tasks: Tasks,
}

impl Node {
    /// Opens the runtime and makes the parts, which then wait for [`Node::start`].
    pub(crate) async fn build(
        options: Options,
        paths: &Paths,
        clients: &dyn Clients,
        certificates: &dyn Certificates,
        readiness: &Readiness,
        tasks: &Tasks,
    ) -> Result<Self> {
        let (publish, attachments) = watch::channel(None);
        let (policies, admissions) = Policies::channel();
        let events = Recorder::new(clients.kubelet(), "kubelet", &options.identity.name, tasks);
        let proxy_informers = Informers::new(clients.proxy(), tasks.clone());
        let attacher = network::deferred(attachments, policies, events.clone());
        let around = Around { peers: other_nodes(&options, certificates, &proxy_informers, tasks)?, network: attacher.clone() };
        let Opened { runtime, engine } = external::open(&options, paths, around, tasks).await?;
        let informers = Informers::new(clients.kubelet(), tasks.clone());
        let network = network::Start {
            informers: informers.clone(),
            proxy_informers,
            admissions,
            events,
            engine: runtime.clone(),
            attacher,
            readiness: readiness.clone(),
            tasks: tasks.clone(),
            proxy: options.proxy,
            options: network_options(&options, paths),
            node_name: options.identity.name.clone(),
            dns: name_servers::options(&options.cluster, &options.dns_upstreams, &options.stub_domains)?,
        };
        let volumes = (controllers::LOCAL_VOLUMES.to_owned(), paths.volumes().display().to_string());
        let kubelet = kubelet::Options {
            node_ips: options.identity.ips.clone(),
            data_dir: paths.kubelet(),
            volumes_dir: paths.volumes(),
            pod_logs_dir: paths.pod_logs(),
            log_limit: options.log_limit,
            network: network_state(&options, tasks),
            node_logs_dir: PathBuf::from("/var/log"),
            node_log_query: options.log_query,
            client: clients.kubelet(),
            informers,
            runtime,
            cluster_dns: kubelet::dns::Cluster { servers: options.cluster.dns.clone(), domain: options.cluster.domain.clone() },
            resolv_conf: "/etc/resolv.conf".into(),
            version: format!("{}+knarr", apiserver::VERSION),
            zpages: crate::version::BUILD.pages("kubelet", kubelet::server::PLACES, options.flags.clone()),
            max_pods: options.max_pods,
            pod_max_pids: Some(i64::from(options.pod_max_pids)).filter(|most| *most > 0),
            allowed_unsafe_sysctls: options.allowed_unsafe_sysctls.clone(),
            seccomp_default: options.seccomp_default,
            longest_restart_delay: options.max_container_restart_period,
            system_reserved: options.pressure.system_reserved()?,
            kube_reserved: options.pressure.kube_reserved()?,
            cpu_manager: options.pressure.cpu_manager(),
            cpu_options: options.pressure.cpu_options(),
            reserved_cpus: options.pressure.reserved_cpus(),
            memory_manager: options.pressure.memory_manager(),
            reserved_memory: options.pressure.reserved_memory()?,
            affinity: options.pressure.affinity(),
            eviction: options.pressure.eviction()?,
            image_gc: options.image_gc.policy()?,
            shutdown: options.shutdown.periods()?,
            verification: verification(&options)?,
            credential_providers: credential_providers(&options)?,
            sharing: engine
                .clone()
                .filter(|_| options.sharing != ShareImages::Off)
                .map(|engine| kubelet::sharing::Sharing { images: Arc::new(engine), names: options.sharing == ShareImages::All }),
            static_pods: options.static_pods.clone(),
            labels: options.labels.iter().cloned().collect(),
            taints: options.taints.clone(),
            annotations: options.annotations.clone().into_iter().chain([volumes]).collect(),
            server: Some(endpoint(&options, certificates)?),
            node_name: options.identity.name,
        };
        Ok(Self { network, kubelet, engine, socket: paths.images(), publish, readiness: readiness.clone(), tasks: tasks.clone() })
    }

    /// Starts the node's components. Tells when the node has to be built anew; `running` is given the kubelet.
    pub(crate) async fn start(self, running: &Running) -> Result<mpsc::Receiver<Again>> {
        let Self { network, kubelet, engine, socket, publish, readiness, tasks } = self;
        let (again, changed) = mpsc::channel(1);
        network.spawn(publish, again);
        let kubelet = kubelet::start(kubelet, tasks.clone(), readiness.gate("kubelet")).await?;
        running.set(kubelet.clone());
        // `knarr image` and the socket of the Container Runtime Interface are for the built-in runtime.
        if let Some(engine) = engine {
            let api = kubelet.clone();
            let changed: cri::server::Changed = Arc::new(move || {
                let api = api.clone();
                Box::pin(async move { api.images_changed().await })
            });
            let cri = socket.with_file_name("cri.sock");
            cri::server::start(&cri, Arc::new(engine.clone()), changed, &tasks).with_context(|| cri.display().to_string())?;
            images::server::start(&socket, engine, kubelet, &tasks)?;
        }
        Ok(changed)
    }
}

fn verification(options: &Options) -> Result<Verification> {
    let (policy, allowlist) = options.verification.clone();
    Verification::new(policy, allowlist).context("--preloaded-images-verification-allowlist")
}

fn credential_providers(options: &Options) -> Result<configuration::Configuration> {
    let read = |(path, directory): &(PathBuf, PathBuf)| configuration::Configuration::read(path, directory);
    let found = options.credential_providers.as_ref().map(read).transpose().context("--image-credential-provider-config")?;
    Ok(found.unwrap_or_default())
}

/// What the runtime asks of the rest of the node.
struct Around {
    peers: Option<Arc<dyn runtime::Peers>>,
    network: Arc<dyn PodNetwork>,
}

/// The other nodes, as those that may have images; none when nothing is to come from them. The list of nodes is the one that the pod network
/// follows anyway.
fn other_nodes(
    options: &Options,
    certificates: &dyn Certificates,
    informers: &Informers,
    tasks: &Tasks,
) -> Result<Option<Arc<dyn runtime::Peers>>> {
    if options.sharing == ShareImages::Off {
        return Ok(None);
    }
    let (own, names) = (options.identity.name.clone(), options.sharing == ShareImages::All);
    let tls = certificates.client(&options.identity)?;
    Ok(Some(Arc::new(OtherNodes::new(informers.clone(), own, tls, names, tasks.clone()))))
}

async fn open_runtime(options: &Options, paths: &Paths, around: Around, tasks: &Tasks) -> Result<runtime::Engine> {
    let registries = match &options.registries {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?
        }
        None => runtime::Registries::default(),
    };
    let Around { peers, network } = around;
    let options = runtime::Options { peers, ..runtime_options(paths, registries, Some(network), tasks) };
    runtime::Engine::open(options).await.context("container runtime")
}

/// Options of the runtime, the same for the node and for commands that clean up after it.
pub(crate) fn runtime_options(
    paths: &Paths,
    registries: runtime::Registries,
    network: Option<Arc<dyn PodNetwork>>,
    tasks: &Tasks,
) -> runtime::Options {
    runtime::Options {
        start_limit: runtime::START_LIMIT,
        dir: paths.runtime(),
        run_dir: paths.run(),
        cgroup_root: paths.cgroup(),
        helper: "/proc/self/exe".into(),
        registries,
        peers: None,
        network,
        tasks: tasks.clone(),
    }
}

/// Where the service proxy says how it is.
fn proxy_ports(options: &cli::Node, bind: IpAddr) -> Listen {
    let at = |address: IpAddr, port: u16| (port != 0).then(|| SocketAddr::new(address, port));
    Listen { health: at(bind, options.proxy_health_port), metrics: at(Ipv4Addr::LOCALHOST.into(), options.proxy_metrics_port) }
}

fn network_options(options: &Options, paths: &Paths) -> ::network::Options {
    let kubelet = (::network::Protocol::Tcp, options.listen.port());
    ::network::Options {
        cluster_cidrs: options.cluster.pods.clone(),
        backend: options.cluster.backend,
        cni: options.cni.clone(),
        local_addresses: options.cluster.dns.clone(),
        node_ip: Some(options.identity.ip()),
        reserved_ports: options.reserved_ports.iter().copied().chain([kubelet]).collect(),
        holders: vec![Holder::Services, Holder::Policies, Holder::Nodes],
        ..::network::Options::new(paths.network(), Vec::new(), options.cluster.services.clone())
    }
}

/// Tells why pods cannot be connected, as long as somebody listens: with plugins, until somebody has configured a network.
fn network_state(options: &Options, tasks: &Tasks) -> watch::Receiver<Option<String>> {
    let plugins = (options.cluster.backend == Backend::Cni).then(|| options.cni.clone());
    let (told, state) = watch::channel(plugins.as_ref().and_then(Directories::lacks));
    if let Some(plugins) = plugins {
        tasks.spawn_until_cancelled("network configuration", OnFailure::Shutdown, async move {
            plugins.follow(told).await;
            Ok::<_, Infallible>(())
        });
    }
    state
}

/// The kubelet's endpoint serves the API server, and whom the API lets.
fn endpoint(options: &Options, certificates: &dyn Certificates) -> Result<kubelet::Server> {
    let verifier = Verifier::new(&certificates.bundle())?;
    let serving = certificates.serving(&options.identity)?;
    expiry::follow(Certificate::Serving, &serving);
    let tls = tls::server_speaking(&options.protocols, serving, Some(verifier.clone()))?;
    Ok(kubelet::Server { listen: options.listen, tls, verifier, callers: vec!["system:kube-apiserver".to_owned()] })
}
