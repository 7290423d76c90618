//! The kubelet's device plugin API (`v1beta1`), by the names and numbers of its `api.proto`: what a plugin is asked and what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;

use grpc::{Endpoint, Error, Messages};

/// The version of the interface, which plugins name when they register.
pub const VERSION: &str = "v1beta1";
/// The call by which a plugin registers.
pub const REGISTER: &str = "/v1beta1.Registration/Register";
/// What a device's health has to be for pods to get it.
pub const HEALTHY: &str = "Healthy";

/// How long a plugin may take to say what it is and to begin with its list.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to give devices, which may mean to set them up.
const ALLOCATE: Duration = Duration::from_secs(120);
/// How long it may take before a container starts (upstream's `KubeletPreStartContainerRPCTimeoutInSecs`).
const PRE_START: Duration = Duration::from_secs(30);

/// Nothing.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// What a plugin wants to be asked.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct DevicePluginOptions {
    /// Before each start of a container with devices.
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    /// Which of the free devices it prefers to give.
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// A plugin makes itself known.
#[derive(Clone, PartialEq, Message)]
pub struct RegisterRequest {
    /// The version that it speaks.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Name of its socket in the kubelet's directory of device plugins.
    #[prost(string, tag = "2")]
    pub endpoint: String,
    /// The extended resource that its devices are.
    #[prost(string, tag = "3")]
    pub resource_name: String,
    /// What it wants to be asked.
    #[prost(message, optional, tag = "4")]
    pub options: Option<DevicePluginOptions>,
}

/// All devices of a plugin, each time that one of them changes.
#[derive(Clone, PartialEq, Message)]
pub struct ListAndWatchResponse {
    /// The devices.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
}

/// A device.
#[derive(Clone, PartialEq, Message)]
pub struct Device {
    /// Its name at the plugin.
    #[prost(string, tag = "1")]
    pub id: String,
    /// [`HEALTHY`], or `Unhealthy`.
    #[prost(string, tag = "2")]
    pub health: String,
    /// Where it is.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// Where a device is.
#[derive(Clone, PartialEq, Message)]
pub struct TopologyInfo {
    /// NUMA nodes.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NumaNode>,
}

/// A NUMA node.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct NumaNode {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Which devices a plugin prefers to give.
#[derive(Clone, PartialEq, Message)]
pub struct PreferredAllocationRequest {
    /// One for each container.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerPreferredAllocationRequest>,
}

/// Of which devices, and how many.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerPreferredAllocationRequest {
    /// Those that can be had.
    #[prost(string, repeated, tag = "1")]
    pub available_device_ids: Vec<String>,
    /// Those that the container gets in any case.
    #[prost(string, repeated, tag = "2")]
    pub must_include_device_ids: Vec<String>,
    /// How many it gets in all.
    #[prost(int32, tag = "3")]
    pub allocation_size: i32,
}

/// The answer to [`PreferredAllocationRequest`].
#[derive(Clone, PartialEq, Message)]
pub struct PreferredAllocationResponse {
    /// One for each container.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerPreferredAllocationResponse>,
}

/// Devices for a container.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerPreferredAllocationResponse {
    /// The devices.
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// Containers get devices.
#[derive(Clone, PartialEq, Message)]
pub struct AllocateRequest {
    /// One for each container.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerAllocateRequest>,
}

/// The devices of a container.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerAllocateRequest {
    /// The devices.
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// The answer to [`AllocateRequest`].
#[derive(Clone, PartialEq, Message)]
pub struct AllocateResponse {
    /// One for each container.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerAllocateResponse>,
}

/// What a container needs to use its devices.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerAllocateResponse {
    /// Environment.
    #[prost(btree_map = "string, string", tag = "1")]
    pub envs: BTreeMap<String, String>,
    /// Files and directories of the host.
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
    /// Device nodes.
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<DeviceSpec>,
    /// Annotations for the container runtime.
    #[prost(btree_map = "string, string", tag = "4")]
    pub annotations: BTreeMap<String, String>,
    /// Devices of the Container Device Interface.
    #[prost(message, repeated, tag = "5")]
    pub cdi_devices: Vec<CdiDevice>,
}

/// A file or directory of the host in a container.
#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    /// In the container.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// On the host.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Read-only.
    #[prost(bool, tag = "3")]
    pub read_only: bool,
}

/// A device node of the host in a container.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceSpec {
    /// In the container.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// On the host.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Of `r`, `w` and `m`.
    #[prost(string, tag = "3")]
    pub permissions: String,
}

/// A device of the Container Device Interface.
#[derive(Clone, PartialEq, Message)]
pub struct CdiDevice {
    /// Its qualified name, `VENDOR/CLASS=NAME`.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A container with these devices is about to start.
#[derive(Clone, PartialEq, Message)]
pub struct PreStartContainerRequest {
    /// The devices.
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// A device plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    endpoint: Endpoint,
}

impl Plugin {
    /// The one that listens at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// What it wants to be asked.
    ///
    /// # Errors
    /// As of every call: it does not answer, or it refuses.
    pub async fn options(&self) -> Result<DevicePluginOptions, Error> {
        self.endpoint.call("/v1beta1.DevicePlugin/GetDevicePluginOptions", &Empty {}, ANSWER).await
    }

    /// Its devices, from now on.
    ///
    /// # Errors
    /// See [`Self::options`].
    pub async fn list_and_watch(&self) -> Result<Messages<ListAndWatchResponse>, Error> {
        self.endpoint.stream("/v1beta1.DevicePlugin/ListAndWatch", &Empty {}, ANSWER).await
    }

    /// Which of the devices it prefers to give to a container that gets `size` of them.
    ///
    /// # Errors
    /// See [`Self::options`].
    pub async fn preferred(&self, available: Vec<String>, included: Vec<String>, size: usize) -> Result<Vec<String>, Error> {
        let request = ContainerPreferredAllocationRequest {
            available_device_ids: available,
            must_include_device_ids: included,
            allocation_size: i32::try_from(size).unwrap_or(i32::MAX),
        };
        let request = PreferredAllocationRequest { container_requests: vec![request] };
        let answer: PreferredAllocationResponse =
            self.endpoint.call("/v1beta1.DevicePlugin/GetPreferredAllocation", &request, ANSWER).await?;
        Ok(answer.container_responses.into_iter().next().map(|first| first.device_ids).unwrap_or_default())
    }

    /// Gives devices to a container; none when the plugin says nothing of it.
    ///
    /// # Errors
    /// See [`Self::options`].
    pub async fn allocate(&self, device_ids: Vec<String>) -> Result<Option<ContainerAllocateResponse>, Error> {
        let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { device_ids }] };
        let answer: AllocateResponse = self.endpoint.call("/v1beta1.DevicePlugin/Allocate", &request, ALLOCATE).await?;
        Ok(answer.container_responses.into_iter().next())
    }

    /// A container with these devices is about to start.
    ///
    /// # Errors
    /// See [`Self::options`].
    pub async fn pre_start(&self, device_ids: Vec<String>) -> Result<(), Error> {
        let request = PreStartContainerRequest { device_ids };
        self.endpoint.call("/v1beta1.DevicePlugin/PreStartContainer", &request, PRE_START).await.map(|_: Empty| ())
    }
}
