//! Messages of the CSI specification that a kubelet sends and reads (`csi.v1`), with its names and numbers. What is not read is left out: a reader
//! of protobuf skips what it does not know.

use std::collections::HashMap;

use prost::{Enumeration, Message, Oneof};

/// Nothing is asked for beside the call.
#[derive(Clone, PartialEq, Message)]
pub struct NodeGetInfoRequest {}

/// What a driver says of its node.
#[derive(Clone, PartialEq, Message)]
pub struct NodeGetInfoResponse {
    /// The node, as the driver calls it.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// How many volumes it can have; 0 says nothing.
    #[prost(int64, tag = "2")]
    pub max_volumes_per_node: i64,
    /// Where it is.
    #[prost(message, optional, tag = "3")]
    pub accessible_topology: Option<Topology>,
}

/// A place.
#[derive(Clone, PartialEq, Message)]
pub struct Topology {
    /// Keys and values; they become labels of the Node.
    #[prost(map = "string, string", tag = "1")]
    pub segments: HashMap<String, String>,
}

/// Nothing is asked for beside the call.
#[derive(Clone, PartialEq, Message)]
pub struct NodeGetCapabilitiesRequest {}

/// What a driver can do.
#[derive(Clone, PartialEq, Message)]
pub struct NodeGetCapabilitiesResponse {
    /// One for each ability.
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<NodeServiceCapability>,
}

/// An ability.
#[derive(Clone, PartialEq, Message)]
pub struct NodeServiceCapability {
    /// The only kind that there is.
    #[prost(message, optional, tag = "1")]
    pub rpc: Option<NodeRpc>,
}

/// `NodeServiceCapability.RPC`
#[derive(Clone, PartialEq, Message)]
pub struct NodeRpc {
    /// Which one.
    #[prost(enumeration = "Capability", tag = "1")]
    pub kind: i32,
}

/// `NodeServiceCapability.RPC.Type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum Capability {
    /// None.
    Unknown = 0,
    /// Volumes are staged once for a node before they are published to pods.
    StageUnstageVolume = 1,
    /// It tells how much of a volume is used.
    GetVolumeStats = 2,
    /// File systems grow on the node.
    ExpandVolume = 3,
    /// It tells whether a volume is well.
    VolumeCondition = 4,
    /// It knows the access modes with one node and one or several writers.
    SingleNodeMultiWriter = 5,
    /// It gives volumes to a group by itself.
    VolumeMountGroup = 6,
}

/// How a volume is used.
#[derive(Clone, PartialEq, Message)]
pub struct VolumeCapability {
    /// As a device or as a file system.
    #[prost(oneof = "AccessType", tags = "1, 2")]
    pub access_type: Option<AccessType>,
    /// By whom.
    #[prost(message, optional, tag = "3")]
    pub access_mode: Option<AccessMode>,
}

/// As what a volume is used.
#[derive(Clone, PartialEq, Oneof)]
pub enum AccessType {
    /// A device.
    #[prost(message, tag = "1")]
    Block(BlockVolume),
    /// A file system.
    #[prost(message, tag = "2")]
    Mount(MountVolume),
}

/// Nothing more is said of devices.
#[derive(Clone, PartialEq, Message)]
pub struct BlockVolume {}

/// How a file system is mounted.
#[derive(Clone, PartialEq, Message)]
pub struct MountVolume {
    /// Its type; empty leaves it to the driver.
    #[prost(string, tag = "1")]
    pub fs_type: String,
    /// Options of the mount.
    #[prost(string, repeated, tag = "2")]
    pub mount_flags: Vec<String>,
    /// The group that it shall belong to.
    #[prost(string, tag = "3")]
    pub volume_mount_group: String,
}

/// `VolumeCapability.AccessMode`
#[derive(Clone, PartialEq, Message)]
pub struct AccessMode {
    /// Which one.
    #[prost(enumeration = "Mode", tag = "1")]
    pub mode: i32,
}

/// `VolumeCapability.AccessMode.Mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum Mode {
    /// None.
    Unknown = 0,
    /// One node reads and writes.
    SingleNodeWriter = 1,
    /// One node reads.
    SingleNodeReaderOnly = 2,
    /// Several nodes read.
    MultiNodeReaderOnly = 3,
    /// Several nodes read, one writes.
    MultiNodeSingleWriter = 4,
    /// Several nodes read and write.
    MultiNodeMultiWriter = 5,
    /// One pod reads and writes.
    SingleNodeSingleWriter = 6,
    /// Several pods of one node read and write.
    SingleNodeMultiWriter = 7,
}

/// Prepares a volume for a node.
#[derive(Clone, PartialEq, Message)]
pub struct NodeStageVolumeRequest {
    /// The volume, as the driver calls it.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// What came of its attachment.
    #[prost(map = "string, string", tag = "2")]
    pub publish_context: HashMap<String, String>,
    /// A directory that exists.
    #[prost(string, tag = "3")]
    pub staging_target_path: String,
    /// How it will be used.
    #[prost(message, optional, tag = "4")]
    pub volume_capability: Option<VolumeCapability>,
    /// What the driver needs to know and nobody else.
    #[prost(map = "string, string", tag = "5")]
    pub secrets: HashMap<String, String>,
    /// What came of its creation.
    #[prost(map = "string, string", tag = "6")]
    pub volume_context: HashMap<String, String>,
}

/// Shows a volume to a pod.
#[derive(Clone, PartialEq, Message)]
pub struct NodePublishVolumeRequest {
    /// The volume, as the driver calls it.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// What came of its attachment.
    #[prost(map = "string, string", tag = "2")]
    pub publish_context: HashMap<String, String>,
    /// Where it was staged, if it was.
    #[prost(string, tag = "3")]
    pub staging_target_path: String,
    /// A path in a directory that exists; the driver makes it.
    #[prost(string, tag = "4")]
    pub target_path: String,
    /// How it is used.
    #[prost(message, optional, tag = "5")]
    pub volume_capability: Option<VolumeCapability>,
    /// It is only read.
    #[prost(bool, tag = "6")]
    pub readonly: bool,
    /// What the driver needs to know and nobody else.
    #[prost(map = "string, string", tag = "7")]
    pub secrets: HashMap<String, String>,
    /// What came of its creation, and what the driver asks to know of the pod.
    #[prost(map = "string, string", tag = "8")]
    pub volume_context: HashMap<String, String>,
}

/// Undoes [`NodePublishVolumeRequest`].
#[derive(Clone, PartialEq, Message)]
pub struct NodeUnpublishVolumeRequest {
    /// The volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where it was shown.
    #[prost(string, tag = "2")]
    pub target_path: String,
}

/// Undoes [`NodeStageVolumeRequest`].
#[derive(Clone, PartialEq, Message)]
pub struct NodeUnstageVolumeRequest {
    /// The volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where it was staged.
    #[prost(string, tag = "2")]
    pub staging_target_path: String,
}

/// Lets a file system grow to what its volume has become.
#[derive(Clone, PartialEq, Message)]
pub struct NodeExpandVolumeRequest {
    /// The volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where it was shown or staged.
    #[prost(string, tag = "2")]
    pub volume_path: String,
    /// How large it shall be.
    #[prost(message, optional, tag = "3")]
    pub capacity_range: Option<CapacityRange>,
    /// Where it was staged, if it was.
    #[prost(string, tag = "4")]
    pub staging_target_path: String,
    /// How it is used.
    #[prost(message, optional, tag = "5")]
    pub volume_capability: Option<VolumeCapability>,
    /// What the driver needs to know and nobody else.
    #[prost(map = "string, string", tag = "6")]
    pub secrets: HashMap<String, String>,
}

/// Bytes, at least and at most; 0 says nothing.
#[derive(Clone, PartialEq, Message)]
pub struct CapacityRange {
    /// At least.
    #[prost(int64, tag = "1")]
    pub required_bytes: i64,
    /// At most.
    #[prost(int64, tag = "2")]
    pub limit_bytes: i64,
}

/// What an expansion came to.
#[derive(Clone, PartialEq, Message)]
pub struct NodeExpandVolumeResponse {
    /// Bytes; 0 says nothing.
    #[prost(int64, tag = "1")]
    pub capacity_bytes: i64,
}

/// An answer that says only that it is done.
#[derive(Clone, PartialEq, Message)]
pub struct Done {}
