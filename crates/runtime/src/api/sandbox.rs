//! Sandboxes: what pods are made in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Resources;

/// Where a namespace of a container comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Shared by the containers of the pod.
    #[default]
    Pod,
    /// Private to each container (the default for pid).
    Container,
    /// The host's.
    Node,
}

/// Identity of a pod sandbox; also the labels by which it is found again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
}

/// A port on the host that leads to the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the host.
    pub host_port: u16,
    /// Host address, all when none.
    pub host_ip: Option<IpAddr>,
}

/// How much a pod may send and receive, bits a second; none is as much as the links carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// What the pod receives.
    pub ingress: Option<u64>,
    /// What the pod sends.
    pub egress: Option<u64>,
}

/// What a sandbox is made from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Whose sandbox it is.
    pub pod: PodIdentity,
    /// How often the sandbox of this pod was made anew.
    pub attempt: u32,
    /// The pod's host name.
    pub hostname: String,
    /// Directory of the pod's log files, `/var/log/pods/NAMESPACE_NAME_UID` by convention.
    pub log_directory: PathBuf,
    /// Contents of the pod's /etc/resolv.conf; none leaves the image's.
    pub resolv_conf: Option<String>,
    /// Host network: no network namespace of its own.
    pub host_network: bool,
    /// Ids of the node that are the pod's users from 0 on; none without a user namespace of its own (KEP-127).
    #[serde(default)]
    pub users: Option<IdRange>,
    /// Host ports that lead to the pod.
    pub host_ports: Vec<HostPort>,
    /// How much the pod may send and receive.
    #[serde(default)]
    pub bandwidth: Bandwidth,
    /// Where the pid namespace comes from.
    pub pid: NamespaceMode,
    /// Where the ipc namespace comes from.
    pub ipc: NamespaceMode,
    /// Namespaced sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Cgroup of the pod, relative to the runtime's root, such as `kubepods/burstable/podUID`. Its limits are `resources`.
    pub cgroup_parent: String,
    /// Limits of the pod's cgroup.
    pub resources: Resources,
    /// Name of the OCI runtime: empty for the built-in one, else a program such as `runc`.
    pub runtime_handler: String,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
    /// Pod annotations.
    pub annotations: BTreeMap<String, String>,
}

impl SandboxConfig {
    /// Those of its sysctls that are of devices which the network makes, by their files below `/proc/sys`.
    pub fn sysctls_of_devices(&self) -> BTreeMap<String, String> {
        let of_devices = self.sysctls.iter().filter(|(name, _)| pods::sysctls::of_device(name));
        of_devices.filter_map(|(name, value)| Some((pods::sysctls::file(name)?, value.clone()))).collect()
    }
}

/// A range of user and group ids of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// Whether a sandbox serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// Its namespaces are held.
    Ready,
    /// It was stopped or its shim is gone.
    #[default]
    NotReady,
}

/// A sandbox as the runtime sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sandbox {
    /// Runtime-wide identifier.
    pub id: String,
    /// Whose it is.
    pub pod: PodIdentity,
    /// See [`SandboxConfig::attempt`].
    pub attempt: u32,
    /// State.
    pub state: SandboxState,
    /// When it was made.
    pub created: Timestamp,
    /// Pod addresses, the first is the primary one. Empty on the host network.
    pub ips: Vec<IpAddr>,
    /// Path of the network namespace, none on the host network.
    pub netns: Option<PathBuf>,
    /// See [`SandboxConfig::runtime_handler`].
    pub runtime_handler: String,
    /// Limits of the pod's cgroup, as they are now.
    #[serde(default)]
    pub resources: Resources,
    /// See [`SandboxConfig::labels`].
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// See [`SandboxConfig::annotations`].
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// See [`SandboxConfig::host_network`].
    #[serde(default)]
    pub host_network: bool,
    /// See [`SandboxConfig::pid`].
    #[serde(default)]
    pub pid: NamespaceMode,
    /// See [`SandboxConfig::ipc`].
    #[serde(default)]
    pub ipc: NamespaceMode,
    /// See [`SandboxConfig::log_directory`].
    #[serde(default)]
    pub log_directory: PathBuf,
}
