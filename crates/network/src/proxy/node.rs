//! The node that a plan is for.

use ipnet::IpNet;

use crate::nft::Family;

/// What the plan must know of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone (`topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// Its pod ranges.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of all pods and services of the cluster. An external address in one of them is somebody's already: it is ignored.
    pub inner_cidrs: Vec<IpNet>,
    /// Families that the cluster has.
    pub families: Vec<Family>,
}
