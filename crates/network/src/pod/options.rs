//! What the pod network of a node is to be.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::devices::mac_of;
use super::ipam::gateway;
use super::nodes::Backend;
use super::{Error, cni};
use crate::nft::Config;
use crate::nft::element::Protocol;
use crate::nft::table::Holder;

/// How the pod network of a node looks.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the bridge, at most 15 characters.
    pub bridge: String,
    /// Name of the nf_tables table.
    pub table: String,
    /// This node's pod ranges, one of each family (`Node.spec.podCIDRs`).
    pub pod_cidrs: Vec<IpNet>,
    /// Pod ranges of the whole cluster.
    pub cluster_cidrs: Vec<IpNet>,
    /// Service ranges.
    pub service_cidrs: Vec<IpNet>,
    /// Service addresses that the node itself serves, such as the cluster DNS address.
    pub local_addresses: Vec<IpAddr>,
    /// Ports of the node that no service and no pod gets, those of the API server and of the kubelet, besides that of the way to other nodes.
    pub reserved_ports: Vec<(Protocol, u16)>,
    /// The node's own address, by which others reach it; none is a node without others.
    pub node_ip: Option<IpAddr>,
    /// How packets go to other nodes.
    pub backend: Backend,
    /// Where network plugins are, for those who leave the network of pods to them.
    pub cni: cni::Directories,
    /// Name of the VXLAN device to other nodes, at most 15 characters.
    pub overlay: String,
    /// Name of the WireGuard device to other nodes, at most 15 characters.
    pub wireguard: String,
    /// Largest packet, bytes; none takes that of the default route's link.
    pub mtu: Option<u32>,
    /// Hide pods behind the node's address when they talk to the outside.
    pub masquerade: bool,
    /// Who will contribute to the table: one that an earlier process left serves until all of them know all that it had.
    pub holders: Vec<Holder>,
    /// Where leases are kept, `DIR/network`.
    pub directory: PathBuf,
}

impl Options {
    /// The usual names, with these pod and service ranges.
    pub fn new(directory: impl Into<PathBuf>, pod_cidrs: Vec<IpNet>, service_cidrs: Vec<IpNet>) -> Self {
        Self {
            bridge: "knarr0".to_owned(),
            table: "knarr".to_owned(),
            cluster_cidrs: pod_cidrs.clone(),
            pod_cidrs,
            service_cidrs,
            local_addresses: Vec::new(),
            reserved_ports: Vec::new(),
            node_ip: None,
            backend: Backend::default(),
            cni: cni::Directories::default(),
            overlay: "knarr-vxlan".to_owned(),
            wireguard: "knarr-wg".to_owned(),
            mtu: None,
            masquerade: true,
            holders: vec![Holder::Services],
            directory: directory.into(),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Options(message));
        if self.bridge.is_empty() || self.bridge.len() > 15 || self.bridge.contains(['/', ' ', ':']) {
            return wrong(format!("bridge name {:?} must have 1 to 15 characters without '/', ':' and space", self.bridge));
        }
        if self.pod_cidrs.is_empty() {
            return wrong("the node has no pod CIDR yet: wait for spec.podCIDRs".to_owned());
        }
        if let Some(cidr) = self.pod_cidrs.iter().find(|cidr| cidr.max_prefix_len() - cidr.prefix_len() < 2) {
            return wrong(format!("pod CIDR {cidr} is too small: it must have room for a gateway and a pod"));
        }
        // What is of no pod in these ranges is unreachable then, and with it the nodes.
        let holds_node = |cidr: &&IpNet| self.node_ip.is_some_and(|node| cidr.contains(&node));
        match self.cluster_cidrs.iter().find(holds_node).filter(|_| self.backend == Backend::WireGuard) {
            Some(cidr) => {
                wrong(format!("the pod range of the cluster {cidr} has the node's own address, which WireGuard does not allow"))
            }
            None => Ok(()),
        }
    }

    /// The device over which all ways to other nodes lead; none where there is none.
    pub(super) fn device(&self) -> Option<&str> {
        match self.backend {
            Backend::Vxlan => Some(&self.overlay),
            Backend::WireGuard => Some(&self.wireguard),
            Backend::HostGw | Backend::Cni => None,
        }
    }

    /// What the table must know of it.
    pub fn config(&self) -> Config {
        Config {
            bridge: self.bridge.clone(),
            bridge_address: self.pod_cidrs.first().map_or([0; 6], |range| mac_of(gateway(*range))),
            pod_cidrs: self.pod_cidrs.clone(),
            cluster_cidrs: self.cluster_cidrs.clone(),
            service_cidrs: self.service_cidrs.clone(),
            reserved_ports: self.reserved_ports.iter().copied().chain(self.node_ip.and(self.backend.port())).collect(),
            is_overlay_open: self.backend == Backend::Vxlan,
            masquerade: self.masquerade,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_that_cannot_work() {
        let check = |backend: Backend, cluster: &str, node: &str, expected: Option<&str>| {
            let options = Options {
                backend,
                cluster_cidrs: vec![cluster.parse().unwrap()],
                node_ip: Some(node.parse().unwrap()),
                ..Options::new("/nowhere", vec!["10.42.1.0/24".parse().unwrap()], Vec::new())
            };
            let found = options.check().err().map(|error| error.to_string());
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(found.is_none_or(|found| found.contains(expected.unwrap_or_default())));
        };
        check(Backend::WireGuard, "10.42.0.0/16", "192.168.0.2", None);
        check(Backend::WireGuard, "10.0.0.0/8", "10.0.2.1", Some("10.0.0.0/8 has the node's own address"));
        check(Backend::Vxlan, "10.0.0.0/8", "10.0.2.1", None);
    }
}
