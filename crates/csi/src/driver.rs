//! The node service of a driver.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::messages::{
    Capability, Done, NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest,
};
use grpc::{Endpoint, Error};

/// How long a driver may take for what it does to volumes, as with upstream.
const LIMIT: Duration = Duration::from_secs(120);
/// How long it may take to say what it knows.
const ANSWER: Duration = Duration::from_secs(15);

/// A driver of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    endpoint: Endpoint,
}

impl Driver {
    /// The one that listens at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// What it says of its node.
    ///
    /// # Errors
    /// As of every call: it does not answer, or it refuses.
    pub async fn info(&self) -> Result<NodeGetInfoResponse, Error> {
        self.endpoint.call("/csi.v1.Node/NodeGetInfo", &NodeGetInfoRequest {}, ANSWER).await
    }

    /// What it can do; what this kubelet does not know is left out.
    ///
    /// # Errors
    /// See [`Self::info`].
    pub async fn capabilities(&self) -> Result<BTreeSet<Capability>, Error> {
        let answer: NodeGetCapabilitiesResponse =
            self.endpoint.call("/csi.v1.Node/NodeGetCapabilities", &NodeGetCapabilitiesRequest {}, ANSWER).await?;
        let kinds = answer.capabilities.iter().filter_map(|capability| capability.rpc.as_ref());
        Ok(kinds.filter_map(|rpc| Capability::try_from(rpc.kind).ok()).filter(|kind| *kind != Capability::Unknown).collect())
    }

    /// Prepares a volume for the node.
    ///
    /// # Errors
    /// See [`Self::info`].
    pub async fn stage(&self, request: &NodeStageVolumeRequest) -> Result<(), Error> {
        self.endpoint.call("/csi.v1.Node/NodeStageVolume", request, LIMIT).await.map(|_: Done| ())
    }

    /// Shows a volume to a pod.
    ///
    /// # Errors
    /// See [`Self::info`].
    pub async fn publish(&self, request: &NodePublishVolumeRequest) -> Result<(), Error> {
        self.endpoint.call("/csi.v1.Node/NodePublishVolume", request, LIMIT).await.map(|_: Done| ())
    }

    /// Undoes [`Self::publish`].
    ///
    /// # Errors
    /// See [`Self::info`].
    pub async fn unpublish(&self, request: &NodeUnpublishVolumeRequest) -> Result<(), Error> {
        self.endpoint.call("/csi.v1.Node/NodeUnpublishVolume", request, LIMIT).await.map(|_: Done| ())
    }

    /// Undoes [`Self::stage`].
    ///
    /// # Errors
    /// See [`Self::info`].
    pub async fn unstage(&self, request: &NodeUnstageVolumeRequest) -> Result<(), Error> {
        self.endpoint.call("/csi.v1.Node/NodeUnstageVolume", request, LIMIT).await.map(|_: Done| ())
    }

    /// Lets a file system grow; gives its size, 0 when the driver does not say.
    ///
    /// # Errors
    /// See [`Self::info`].
    pub async fn expand(&self, request: &NodeExpandVolumeRequest) -> Result<i64, Error> {
        let answer: NodeExpandVolumeResponse = self.endpoint.call("/csi.v1.Node/NodeExpandVolume", request, LIMIT).await?;
        Ok(answer.capacity_bytes)
    }
}
