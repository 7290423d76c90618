//! What the composition tells the kubelet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::tls::Verifier;
use client::Informers;
use k8s_openapi::api::core::v1::Taint;
use runtime::api::Runtime;
use tokio::sync::watch;

use crate::affinity;
use crate::allocatable::Reserved;
use crate::cpus::{self, set::CpuSet};
use crate::dns::Cluster;
use crate::eviction::Settings;
use crate::images::access::Verification;
use crate::images::garbage;
use crate::images::providers;
use crate::numa::{self, reservation::Reservation};
use crate::sharing::Sharing;
use crate::shutdown;
use crate::sysctls::Pattern;

/// Configuration of one node's kubelet.
#[derive(Clone)]
pub struct Options {
    /// The node's name.
    pub node_name: String,
    /// The node's addresses, primary first; one or one of each family.
    pub node_ips: Vec<IpAddr>,
    /// State of pods: volumes, /etc/hosts files, termination messages.
    pub data_dir: PathBuf,
    /// Persistent volumes that are directories of this node, one each.
    pub volumes_dir: PathBuf,
    /// Container logs; `/var/log/pods` by convention.
    pub pod_logs_dir: PathBuf,
    /// Bytes of a container's log file before it is rotated, and how many files of it are kept, at least two.
    pub log_limit: (u64, u32),
    /// What `/logs/` shows of the node; `/var/log` by convention.
    pub node_logs_dir: PathBuf,
    /// Whether `/logs/` answers queries of services' logs, for which journalctl(1) is run.
    pub node_log_query: bool,
    /// A client with the identity `system:node:NAME`.
    pub client: kube::Client,
    /// Informers over that client.
    pub informers: Informers,
    /// Why pods cannot be connected to the network; none when they can.
    pub network: watch::Receiver<Option<String>>,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The cluster's DNS.
    pub cluster_dns: Cluster,
    /// The host's resolver configuration, `/etc/resolv.conf` by convention.
    pub resolv_conf: PathBuf,
    /// `nodeInfo.kubeletVersion`, such as `v1.36.4+knarr`.
    pub version: String,
    /// What `/statusz` and `/flagz` say.
    pub zpages: base::zpages::Pages,
    /// Most pods.
    pub max_pods: u32,
    /// Most processes and threads of one pod; none is no limit.
    pub pod_max_pids: Option<i64>,
    /// Unsafe sysctls that pods may set.
    pub allowed_unsafe_sysctls: Vec<Pattern>,
    /// Containers that name no seccomp profile have `RuntimeDefault` (KEP-2413).
    pub seccomp_default: bool,
    /// The longest delay before a container that ends again and again is started again (KEP-4603), from one second to [`crate::backoff::MAX`].
    pub longest_restart_delay: Duration,
    /// What pods do not get of the node: the operating system's.
    pub system_reserved: Reserved,
    /// And Knarr's own; none where nobody says, which is [`Reserved::for_knarr`].
    pub kube_reserved: Option<Reserved>,
    /// Who gets processors for itself.
    pub cpu_manager: cpus::Policy,
    /// How they are given.
    pub cpu_options: cpus::options::Options,
    /// Processors that no container gets for itself, in the place of as many as are reserved.
    pub reserved_cpus: Option<CpuSet>,
    /// Who gets memory of NUMA nodes for itself.
    pub memory_manager: numa::Policy,
    /// Of which NUMA nodes comes the memory that pods do not get.
    pub reserved_memory: Reservation,
    /// Whether containers get their parts from the same NUMA nodes.
    pub affinity: Alignment,
    /// When pods must go because the node runs short of something.
    pub eviction: Settings,
    /// When images go that nobody uses.
    pub image_gc: garbage::Policy,
    /// How long pods have to end when the machine shuts down.
    pub shutdown: shutdown::Periods,
    /// Directory of static pods, if there is one.
    pub static_pods: Option<PathBuf>,
    /// For which images of the node pods have to show credentials.
    pub verification: Verification,
    /// Programs that give credentials for images.
    pub credential_providers: providers::configuration::Configuration,
    /// What other nodes get of the images; none gives nothing.
    pub sharing: Option<Sharing>,
    /// Labels to register the node with.
    pub labels: BTreeMap<String, String>,
    /// Annotations to register the node with.
    pub annotations: BTreeMap<String, String>,
    /// Taints to register the node with.
    pub taints: Vec<Taint>,
    /// The HTTPS endpoint; none does not serve.
    pub server: Option<Server>,
}

/// The topology manager's options.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alignment {
    /// What pods are refused for.
    pub policy: affinity::Policy,
    /// What is aligned.
    pub scope: affinity::Scope,
    /// How well sets of NUMA nodes do.
    pub options: affinity::options::Options,
}

/// The kubelet's HTTPS endpoint.
#[derive(Clone)]
pub struct Server {
    /// Where to listen, port 10250 by convention.
    pub listen: SocketAddr,
    /// The endpoint's certificate. Built with `verifier`, so that clients are asked for theirs.
    pub tls: Arc<rustls::ServerConfig>,
    /// Says who a client is.
    pub verifier: Arc<Verifier>,
    /// User names that may do everything: the API server's.
    pub callers: Vec<String>,
}

impl Options {
    /// The labels that the node registers with.
    pub fn node_labels(&self, architecture: &str) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, String> = [
            ("kubernetes.io/hostname", self.node_name.clone()),
            ("kubernetes.io/os", "linux".to_owned()),
            ("kubernetes.io/arch", architecture.to_owned()),
            ("beta.kubernetes.io/os", "linux".to_owned()),
            ("beta.kubernetes.io/arch", architecture.to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        labels.extend(self.labels.clone());
        labels
    }

    /// The port that the node announces.
    pub fn port(&self) -> u16 {
        self.server.as_ref().map_or(10250, |server| server.listen.port())
    }
}
