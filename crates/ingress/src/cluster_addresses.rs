//! The addresses of the cluster: those of its pods, Services and nodes.

use std::collections::HashSet;
use std::net::IpAddr;

use arc_swap::ArcSwap;
use ipnet::IpNet;

/// What is known of them. Nodes come and go.
#[derive(Debug, Default)]
pub struct ClusterAddresses {
    /// Ranges of pods and Services.
    ranges: Vec<IpNet>,
    /// Addresses of this node.
    own: Vec<IpAddr>,
    nodes: ArcSwap<HashSet<IpAddr>>,
}

impl ClusterAddresses {
    /// The ranges of pods and Services, and the addresses of this node.
    pub fn new(ranges: Vec<IpNet>, own: Vec<IpAddr>) -> Self {
        let nodes = ArcSwap::from_pointee(own.iter().copied().collect());
        Self { ranges, own, nodes }
    }

    /// These are the addresses of all nodes. Whether others are than before.
    pub fn set_nodes(&self, nodes: impl IntoIterator<Item = IpAddr>) -> bool {
        let nodes: HashSet<IpAddr> = nodes.into_iter().chain(self.own.iter().copied()).collect();
        let changed = **self.nodes.load() != nodes;
        if changed {
            self.nodes.store(nodes.into());
        }
        changed
    }

    /// Whether it is one of a pod or a Service.
    pub fn is_in_range(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.ranges.iter().any(|range| range.contains(&address))
    }

    /// Whether it is one of a node.
    pub fn is_node(&self, address: IpAddr) -> bool {
        self.nodes.load().contains(&address.to_canonical())
    }
}
