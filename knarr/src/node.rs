//! A node: container runtime, pod network, service proxy, cluster DNS and kubelet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::Api;
use async_trait::async_trait;
use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use base::tls::{self, Authority, Request, Resolver, Verifier};
use client::Informers;
use k8s_openapi::api::core::v1::Node as ApiNode;
use runtime::api::{Error as RuntimeError, HostPort, PodIdentity, PodNetwork, Runtime};
use tokio::sync::watch;

use crate::paths::Paths;
use crate::{cli, identity};

/// Who the node is.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    pub(crate) dns: IpAddr,
    pub(crate) authority: Arc<Authority>,
}

/// Starts the node's components.
pub(crate) async fn start(
    options: &cli::Server,
    paths: &Paths,
    node: Node,
    api: &Api,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<()> {
    let (publish, network) = watch::channel(None);
    let engine = open_runtime(options, paths, Arc::new(Deferred(network)), tasks).await?;
    let informers = Informers::new(identity::node(api, &node.name), tasks.clone());
    let proxy_informers = Informers::new(identity::proxy(api), tasks.clone());
    let network = NetworkStart {
        informers: informers.clone(),
        proxy_informers,
        engine: engine.clone(),
        readiness: readiness.clone(),
        tasks: tasks.clone(),
        options: network_options(options, paths, &node),
        node_name: node.name.clone(),
        dns: dns::Options {
            listen: vec![SocketAddr::new(node.dns, 53)],
            domain: options.cluster_domain.clone(),
            upstreams: dns::Upstreams::File("/etc/resolv.conf".into()),
            stub_domains: Default::default(),
        },
    };
    tasks.spawn_until_cancelled("pod network", OnFailure::Shutdown, network.run(publish));
    let kubelet = kubelet::Options {
        node_ips: vec![node.ip],
        data_dir: paths.kubelet(),
        pod_logs_dir: paths.pod_logs(),
        client: identity::node(api, &node.name),
        informers,
        runtime: engine,
        cluster_dns: kubelet::dns::Cluster { servers: vec![node.dns], domain: options.cluster_domain.clone() },
        resolv_conf: "/etc/resolv.conf".into(),
        version: format!("{}+knarr", apiserver::VERSION),
        max_pods: options.max_pods,
        pod_max_pids: Some(i64::from(options.pod_max_pids)).filter(|most| *most > 0),
        labels: options.labels.iter().cloned().collect(),
        taints: Vec::new(),
        server: Some(kubelet_server(options, paths, &node)?),
        node_name: node.name,
    };
    kubelet::start(kubelet, tasks.clone(), readiness.gate("kubelet")).await?;
    Ok(())
}

async fn open_runtime(
    options: &cli::Server,
    paths: &Paths,
    network: Arc<dyn PodNetwork>,
    tasks: &Tasks,
) -> Result<Arc<dyn Runtime>> {
    let registries = match &options.registries {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?
        }
        None => runtime::Registries::default(),
    };
    let options = runtime_options(paths, registries, Some(network), tasks);
    Ok(Arc::new(runtime::Engine::open(options).await.context("container runtime")?))
}

/// Options of the runtime, the same for the server and for commands that clean up after it.
pub(crate) fn runtime_options(
    paths: &Paths,
    registries: runtime::Registries,
    network: Option<Arc<dyn PodNetwork>>,
    tasks: &Tasks,
) -> runtime::Options {
    runtime::Options {
        dir: paths.runtime(),
        run_dir: paths.run(),
        cgroup_root: paths.cgroup(),
        helper: "/proc/self/exe".into(),
        registries,
        network,
        tasks: tasks.clone(),
    }
}

fn network_options(options: &cli::Server, paths: &Paths, node: &Node) -> network::Options {
    network::Options {
        cluster_cidrs: vec![options.cluster_cidr],
        local_addresses: vec![node.dns],
        reserved_ports: vec![options.port, options.kubelet_port],
        ..network::Options::new(paths.network(), Vec::new(), vec![options.service_cidr])
    }
}

/// The kubelet's endpoint serves the API server, and whom the API lets.
fn kubelet_server(options: &cli::Server, paths: &Paths, node: &Node) -> Result<kubelet::Server> {
    let request = Request::Both {
        user: format!("system:node:{}", node.name),
        groups: vec!["system:nodes".to_owned()],
        sans: vec![node.name.clone(), node.ip.to_string(), "127.0.0.1".to_owned()],
    };
    let resolver = Resolver::issued(node.authority.clone(), &paths.pki(), "kubelet", request)?;
    let verifier = Verifier::new(node.authority.bundle())?;
    let tls = tls::server(resolver, Some(verifier.clone()))?;
    let listen = SocketAddr::new(options.bind_address, options.kubelet_port);
    Ok(kubelet::Server { listen, tls, verifier, callers: vec!["system:kube-apiserver".to_owned()] })
}

/// What it takes to start the network, once the node has its pod range.
struct NetworkStart {
    informers: Informers,
    proxy_informers: Informers,
    engine: Arc<dyn Runtime>,
    readiness: Readiness,
    tasks: Tasks,
    options: network::Options,
    node_name: String,
    dns: dns::Options,
}

impl NetworkStart {
    async fn run(self, publish: watch::Sender<Option<network::PodNetwork>>) -> Result<()> {
        let gate = self.readiness.gate("pod-network");
        let (proxy_gate, dns_gate) = (self.readiness.gate("service-proxy"), self.readiness.gate("dns"));
        let pod_cidrs = self.pod_cidrs().await?;
        let options = network::Options { pod_cidrs: pod_cidrs.clone(), ..self.options };
        let inner_cidrs = [&options.cluster_cidrs[..], &options.service_cidrs].concat();
        let pods = network::PodNetwork::start(options).await.context("pod network")?;
        let live: BTreeSet<_> = self.engine.sandboxes().await?.into_iter().map(|sandbox| sandbox.id).collect();
        pods.reconcile(&live).await?;
        publish.send_replace(Some(pods.clone()));
        gate.ready();
        let server = dns::Server::bind(self.dns, self.tasks.clone()).await?;
        server.run(&self.proxy_informers, dns_gate);
        let proxy = network::proxy::Options { node_name: self.node_name, pod_cidrs, inner_cidrs };
        let run = network::proxy::run(proxy, self.proxy_informers, pods.table().clone(), proxy_gate, self.tasks.clone());
        self.tasks.spawn_until_cancelled("service proxy", OnFailure::Shutdown, async { run.await.map(|never| match never {}) });
        // The sender lives as long as pods may be attached.
        publish.closed().await;
        Ok(())
    }

    /// Waits for the node's pod ranges, which a controller assigns.
    async fn pod_cidrs(&self) -> Result<Vec<ipnet::IpNet>> {
        let nodes = self.informers.of_selected::<ApiNode>(&format!("metadata.name={}", self.node_name));
        let mut changes = nodes.changes();
        loop {
            let change = changes.next().await;
            let spec = change.new.as_ref().and_then(|node| node.spec.as_ref());
            let cidrs = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
            if !cidrs.is_empty() {
                return cidrs.iter().map(|cidr| cidr.parse().with_context(|| format!("pod CIDR {cidr:?}"))).collect();
            }
        }
    }
}

/// The pod network, as soon as it is there: pods wait for it.
struct Deferred(watch::Receiver<Option<network::PodNetwork>>);

impl Deferred {
    async fn get(&self) -> Result<network::PodNetwork, RuntimeError> {
        let mut receiver = self.0.clone();
        let there = receiver.wait_for(Option::is_some).await.map(|network| network.clone()).ok().flatten();
        there.ok_or_else(|| RuntimeError::Internal("the pod network has stopped".into()))
    }
}

#[async_trait]
impl PodNetwork for Deferred {
    async fn attach(
        &self,
        sandbox: &str,
        netns: &Path,
        _: &PodIdentity,
        ports: &[HostPort],
    ) -> Result<Vec<IpAddr>, RuntimeError> {
        let ports = ports.iter().map(host_port).collect::<Result<Vec<_>, _>>()?;
        self.get().await?.attach(sandbox, netns, &ports).await.map_err(|error| RuntimeError::Internal(error.to_string()))
    }

    async fn detach(&self, sandbox: &str) -> Result<(), RuntimeError> {
        self.get().await?.detach(sandbox).await.map_err(|error| RuntimeError::Internal(error.to_string()))
    }
}

fn host_port(port: &HostPort) -> Result<network::HostPort, RuntimeError> {
    let protocol = network::nft::ruleset::Protocol::from_name(Some(&port.protocol))
        .ok_or_else(|| RuntimeError::Unsupported(format!("protocol {:?} of a host port", port.protocol)))?;
    Ok(network::HostPort { protocol, container_port: port.container_port, host_port: port.host_port, host_ip: port.host_ip })
}
