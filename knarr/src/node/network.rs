//! The node's network: pod network, service proxy and DNS, which start when the node has its pod ranges.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use base::readiness::{Gate, Readiness};
use base::tasks::{OnFailure, Tasks};
use client::events::{Recorder, Type};
use client::{Changes, Informers, Key};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use network::nft::table::Table;
use network::nft::watch::Loss;
use network::pod::nodes::{KEY_ANNOTATION, Missing, Nodes, Unreached};
use network::policy::{Admissions, Policies, Starting};
use network::proxy::Listen;
use runtime::api::{Error as RuntimeError, HostPort, PodIdentity, PodNetwork, Runtime, SandboxConfig};
use tokio::sync::{mpsc, watch};

use crate::process::Again;

/// In the directory of the network: the node's pod ranges, one a line.
const RANGES: &str = "ranges";
/// Delay before the ways to other nodes are tried again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What it takes to start the network, once the node has its pod range.
pub(super) struct Start {
    pub(super) informers: Informers,
    pub(super) proxy_informers: Informers,
    pub(super) admissions: Admissions,
    pub(super) events: Recorder,
    pub(super) engine: Arc<dyn Runtime>,
    /// What the built-in runtime connects pods with. Policies are followed as long as pods may be, also where plugins do it.
    pub(super) attacher: Arc<dyn PodNetwork>,
    pub(super) readiness: Readiness,
    pub(super) tasks: Tasks,
    pub(super) proxy: Listen,
    pub(super) options: network::Options,
    pub(super) node_name: String,
    pub(super) dns: dns::Options,
}

impl Start {
    /// Starts it; attached pods hear of the network by `publish`.
    pub(super) fn spawn(self, publish: watch::Sender<Option<network::PodNetwork>>, again: mpsc::Sender<Again>) {
        let tasks = self.tasks.clone();
        tasks.spawn_until_cancelled("pod network", OnFailure::Shutdown, self.run(publish, again));
    }

    async fn run(self, publish: watch::Sender<Option<network::PodNetwork>>, again: mpsc::Sender<Again>) -> Result<()> {
        let _attacher = self.attacher;
        let gate = self.readiness.gate("pod-network");
        let (proxy_gate, dns_gate) = (self.readiness.gate("service-proxy"), self.readiness.gate("dns"));
        let policies_gate = self.readiness.gate("network-policies");
        let own = self.informers.of_selected::<ApiNode>(&format!("metadata.name={}", self.node_name));
        let mut nodes = own.changes();
        let pod_cidrs = first_ranges(&mut nodes, &self.options.directory.join(RANGES)).await?;
        let options = network::Options { pod_cidrs: pod_cidrs.clone(), ..self.options };
        let inner_cidrs = [&options.cluster_cidrs[..], &options.service_cidrs].concat();
        let policies = network::policy::Options {
            node_name: self.node_name.clone(),
            dns: options.local_addresses.clone(),
            config: options.config(),
            node_ip: options.node_ip,
            backend: options.backend,
            events: self.events,
        };
        let pods = network::PodNetwork::start(options).await.context("pod network")?;
        let live = self.engine.sandboxes().await?.into_iter().filter_map(|sandbox| Some((sandbox.id, sandbox.netns?)));
        let live: BTreeMap<_, _> = live.collect();
        pods.reconcile(&live).await?;
        let release = pods.clone().release_gone();
        let release = async { Err::<(), std::convert::Infallible>(release.await) };
        self.tasks.spawn_until_cancelled("networks of sandboxes that are gone", OnFailure::Shutdown, release);
        publish.send_replace(Some(pods.clone()));
        gate.ready();
        self.tasks.spawn_until_cancelled("nf_tables watch", OnFailure::Shutdown, keep(pods.table().clone()));
        let key = {
            let client = self.informers.client().clone();
            network::Annotation::start(client, own, &self.node_name, KEY_ANNOTATION, &self.tasks)
        };
        // Where there is none, one that a node has told before is taken back: nobody listens to it any more.
        key.set(pods.public_key().await?.map(|key| key.to_string()));
        if let Some(nodes) = pods.nodes(&self.node_name) {
            let follow = follow(nodes, self.proxy_informers.clone(), self.readiness.gate("overlay-network"));
            self.tasks.spawn_until_cancelled("network to other nodes", OnFailure::Shutdown, follow);
        }
        let server = dns::Server::bind(self.dns, self.tasks.clone()).await?;
        server.run(&self.proxy_informers, dns_gate);
        let proxy = network::proxy::Options {
            node_name: self.node_name,
            node_client: self.informers.client().clone(),
            pod_cidrs: pod_cidrs.clone(),
            inner_cidrs,
            listen: self.proxy,
        };
        let informers = self.proxy_informers.clone();
        let run = network::policy::run(policies, informers, pods.table().clone(), self.admissions, policies_gate);
        self.tasks
            .spawn_until_cancelled("network policies", OnFailure::Shutdown, async { run.await.map(|never| match never {}) });
        let run = network::proxy::run(proxy, self.proxy_informers, pods.table().clone(), proxy_gate, self.tasks.clone());
        self.tasks.spawn_until_cancelled("service proxy", OnFailure::Shutdown, async { run.await.map(|never| match never {}) });
        // A node that was deleted and is there again may have been given other ranges: the old ones are another's by now.
        let others = other_ranges(&mut nodes, &pod_cidrs).await?;
        let ranges = others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        // Who does not listen ends anyway.
        let _ = again.send(Again::Ranges(ranges)).await;
        // The sender lives as long as pods may be attached, and others know the node by its key.
        publish.closed().await;
        drop(key);
        Ok(())
    }
}

/// The node's pod ranges, which are kept in the file at `path`: a node whose server does not answer begins with those that it had.
async fn first_ranges(changes: &mut Changes<ApiNode>, path: &Path) -> Result<Vec<IpNet>> {
    if let Ok(told) = tokio::time::timeout(kubelet::statics::PATIENCE, other_ranges(changes, &[])).await {
        return keep_ranges(path, told?);
    }
    match std::fs::read_to_string(path) {
        Ok(text) => {
            tracing::warn!("the server does not answer: the pod network starts with the ranges that the node had");
            text.lines().map(|range| range.parse().with_context(|| format!("{}: {range:?}", path.display()))).collect()
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => keep_ranges(path, other_ranges(changes, &[]).await?),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn keep_ranges(path: &Path, ranges: Vec<IpNet>) -> Result<Vec<IpNet>> {
    let text: String = ranges.iter().map(|range| format!("{range}\n")).collect();
    base::files::unless_older(path, base::files::replace_private(path, text.as_bytes()))?;
    Ok(ranges)
}

/// Waits for the node's pod ranges, which a controller assigns, until they are there and are not `known`.
async fn other_ranges(changes: &mut Changes<ApiNode>, known: &[IpNet]) -> Result<Vec<IpNet>> {
    loop {
        let change = changes.next().await;
        let spec = change.new.as_ref().and_then(|node| node.spec.as_ref());
        let cidrs = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        let parsed = cidrs.iter().map(|cidr| cidr.parse().with_context(|| format!("pod CIDR {cidr:?}")));
        let cidrs = parsed.collect::<Result<Vec<IpNet>>>()?;
        if !cidrs.is_empty() && cidrs != known {
            return Ok(cidrs);
        }
    }
}

/// Puts back what others delete of the table.
async fn keep(table: Table) -> Result<()> {
    let mut watch = table.watch().context("changes of nf_tables cannot be followed")?;
    loop {
        match watch.deleted().await.context("changes of nf_tables cannot be followed")? {
            Loss::Deleted => tracing::warn!("somebody else has changed the table in the kernel, putting it back"),
            Loss::Missed => tracing::info!("more changes in the kernel than could be followed, writing the table anew"),
        }
        let table = table.clone();
        // What cannot be put back now is tried again with the next change of services.
        if let Err(error) = tokio::task::spawn_blocking(move || table.put_back()).await? {
            tracing::error!(%error, "the table in the kernel cannot be put back");
        }
        // Who takes it away again and again does not keep the machine busy.
        tokio::time::sleep(RETRY.0).await;
    }
}

/// Keeps the ways to other nodes as the Node objects say, also when somebody else takes them away.
async fn follow(mut ways: Nodes, informers: Informers, gate: Gate) -> Result<()> {
    let nodes = informers.of::<ApiNode>();
    let mut changes = nodes.changes();
    nodes.synced().await;
    let mut retry = RETRY.0;
    let mut told = Unreached::new();
    loop {
        while changes.try_next().is_some() {}
        match ways.update(nodes.list().iter().map(AsRef::as_ref)).await {
            Ok(unreached) => {
                gate.ready();
                tell(unreached, &mut told);
                retry = RETRY.0;
                tokio::select! {
                    _ = changes.next() => {}
                    disturbed = ways.disturbed() => {
                        disturbed.context("changes of links and routes cannot be followed")?;
                        // Who takes them away again and again does not keep the machine busy.
                        tokio::time::sleep(RETRY.0).await;
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "the network to other nodes cannot be set up, trying again");
                gate.not_ready(error.to_string());
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
        }
    }
}

/// Logs to which pods there is no way, once.
fn tell(unreached: &Unreached, told: &mut Unreached) {
    for (range, missing) in unreached.iter().filter(|(range, missing)| told.get(*range) != Some(*missing)) {
        match missing {
            Missing::Link(node) => tracing::warn!(
                %range, %node,
                "pods of a node are not reached: it is on no link of this one; --pod-network vxlan needs none"
            ),
            Missing::Address => tracing::warn!(%range, "pods of a node are not reached: it has no address of this family"),
            Missing::Key => tracing::info!(%range, "pods of a node are not reached yet: it has told no key for WireGuard"),
        }
    }
    told.clone_from(unreached);
}

/// A network for pods that is there once it is published.
pub(super) fn deferred(
    network: watch::Receiver<Option<network::PodNetwork>>,
    policies: Policies,
    events: Recorder,
) -> Arc<dyn PodNetwork> {
    Arc::new(Deferred { network, policies, events })
}

/// The pod network, as soon as it is there: pods wait for it, and for the policies that isolate them.
struct Deferred {
    network: watch::Receiver<Option<network::PodNetwork>>,
    policies: Policies,
    events: Recorder,
}

impl Deferred {
    /// Tells a pod of the host ports that it has not got.
    fn tell(&self, pod: &PodIdentity, refused: &[network::nft::claims::Refused]) {
        let metadata = ObjectMeta {
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectMeta::default()
        };
        let object = Pod { metadata, ..Pod::default() };
        for one in refused {
            self.events.about(&object, Type::Warning, "HostPortConflict", format!("host port: {one}"));
        }
    }

    async fn get(&self) -> Result<network::PodNetwork, RuntimeError> {
        let mut receiver = self.network.clone();
        let there = receiver.wait_for(Option::is_some).await.map(|network| network.clone()).ok().flatten();
        there.ok_or_else(|| RuntimeError::Internal("the pod network has stopped".into()))
    }
}

#[async_trait]
impl PodNetwork for Deferred {
    async fn attach(&self, sandbox: &str, netns: &Path, config: &SandboxConfig) -> Result<Vec<IpAddr>, RuntimeError> {
        let SandboxConfig { pod, host_ports, bandwidth, .. } = config;
        let ports = host_ports.iter().map(host_port).collect::<Result<Vec<_>, _>>()?;
        let bandwidth = network::Bandwidth { ingress: bandwidth.ingress, egress: bandwidth.egress };
        let PodIdentity { namespace, name, uid } = pod.clone();
        let sysctls = config.sysctls_of_devices();
        let wanted = network::Attachment { ports, bandwidth, sysctls, pod: network::cni::Pod { namespace, name, uid } };
        let internal = |error: String| RuntimeError::Internal(error);
        let network = self.get().await?;
        let attached = network.attach(sandbox, netns, &wanted).await;
        let addresses = attached.map_err(|error| internal(error.to_string()))?;
        self.tell(pod, &network.refused(sandbox));
        let key = Key::namespaced(&pod.namespace, &pod.name);
        let starting = Starting { key, uid: pod.uid.clone(), addresses: addresses.clone() };
        match self.policies.admit(starting).await {
            // Nobody but the node says what static pods are, and they start without the server.
            Err(error) if !self.policies.are_known() && kubelet::statics::is_static(&pod.uid) => {
                tracing::warn!(pod = pod.name, %error, "a static pod starts before the server has told of network policies");
            }
            admitted => admitted.map_err(|error| internal(error.to_string()))?,
        }
        Ok(addresses)
    }

    async fn detach(&self, sandbox: &str) -> Result<(), RuntimeError> {
        self.get().await?.detach(sandbox).await.map_err(|error| RuntimeError::Internal(error.to_string()))
    }
}

fn host_port(port: &HostPort) -> Result<network::HostPort, RuntimeError> {
    let protocol = network::Protocol::from_name(Some(&port.protocol))
        .ok_or_else(|| RuntimeError::Unsupported(format!("protocol {:?} of a host port", port.protocol)))?;
    Ok(network::HostPort { protocol, container_port: port.container_port, host_port: port.host_port, host_ip: port.host_ip })
}
