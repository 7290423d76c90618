//! What a runtime says of itself: its version, its state, what it can.

use std::collections::BTreeMap;

use prost::{Enumeration, Message};

/// Asks who serves.
#[derive(Clone, PartialEq, Message)]
pub struct VersionRequest {
    /// Version of the interface that the client has.
    #[prost(string, tag = "1")]
    pub version: String,
}

/// Who serves.
#[derive(Clone, PartialEq, Message)]
pub struct VersionResponse {
    /// Version of the kubelet's interface, `0.1.0` since there is one.
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// A semantic version, as the next one.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    #[prost(string, tag = "4")]
    pub runtime_api_version: String,
}

/// Asks for the state of the runtime.
#[derive(Clone, PartialEq, Message)]
pub struct StatusRequest {
    /// Wants [`StatusResponse::info`].
    #[prost(bool, tag = "1")]
    pub verbose: bool,
}

/// The state of a runtime.
#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<RuntimeStatus>,
    /// JSON by name, for who looks for faults.
    #[prost(btree_map = "string, string", tag = "2")]
    pub info: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    pub runtime_handlers: Vec<RuntimeHandler>,
    #[prost(message, optional, tag = "4")]
    pub features: Option<RuntimeFeatures>,
}

/// Its conditions.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    pub conditions: Vec<RuntimeCondition>,
}

/// A condition; `RuntimeReady` and `NetworkReady` are those that a kubelet goes by.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeCondition {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(bool, tag = "2")]
    pub status: bool,
    #[prost(string, tag = "3")]
    pub reason: String,
    #[prost(string, tag = "4")]
    pub message: String,
}

/// A handler that runtime classes can name.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeHandler {
    /// The default one has no name.
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub features: Option<RuntimeHandlerFeatures>,
}

/// What containers of one handler can have.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeHandlerFeatures {
    #[prost(bool, tag = "1")]
    pub recursive_read_only_mounts: bool,
    #[prost(bool, tag = "2")]
    pub user_namespaces: bool,
}

/// What containers of every handler can have.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeFeatures {
    #[prost(bool, tag = "1")]
    pub supplemental_groups_policy: bool,
    /// User namespaces in pods with the node's network.
    #[prost(bool, tag = "2")]
    pub user_namespaces_host_network: bool,
}

/// Asks what the kubelet should go by.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeConfigRequest {}

/// What the kubelet should go by.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeConfigResponse {
    #[prost(message, optional, tag = "1")]
    pub linux: Option<LinuxRuntimeConfiguration>,
}

/// The same for Linux.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxRuntimeConfiguration {
    #[prost(enumeration = "CgroupDriver", tag = "1")]
    pub cgroup_driver: i32,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum CgroupDriver {
    /// systemd, asked over D-Bus.
    Systemd = 0,
    /// The runtime, in the file system.
    Cgroupfs = 1,
}

/// Tells the runtime what the kubelet knows.
#[derive(Clone, PartialEq, Message)]
pub struct UpdateRuntimeConfigRequest {
    #[prost(message, optional, tag = "1")]
    pub runtime_config: Option<RuntimeConfig>,
}

/// What the kubelet knows.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeConfig {
    #[prost(message, optional, tag = "1")]
    pub network_config: Option<NetworkConfig>,
}

/// Of the network.
#[derive(Clone, PartialEq, Message)]
pub struct NetworkConfig {
    /// The node's range of pods; empty where it has none.
    #[prost(string, tag = "1")]
    pub pod_cidr: String,
}

/// It has been told.
#[derive(Clone, PartialEq, Message)]
pub struct UpdateRuntimeConfigResponse {}
