//! Which of a cluster's nodes are peers, and what is believed of what their objects say.
//!
//! Pod ranges are given by a controller, and a node may not set its own; addresses are what nodes say of themselves. A range that nobody could
//! have been given is not taken all the same: packets of this machine would go to another one, or to none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use client::node_addresses::{self, Kind, age};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use super::wireguard::{self, PublicKey};

/// Another node, as its object tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its pod ranges.
    pub ranges: Vec<IpNet>,
    /// Its address of the family in which this node is reached.
    pub address: IpAddr,
    /// All of its addresses, of both families.
    pub addresses: Vec<IpAddr>,
    /// By which it is known where packets are encrypted.
    pub key: Option<PublicKey>,
}

/// This node.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Its name.
    pub name: &'a str,
    /// The address by which others reach it.
    pub address: IpAddr,
    /// Its pod ranges.
    pub ranges: &'a [IpNet],
    /// Those of the whole cluster.
    pub cluster: &'a [IpNet],
}

/// Ranges of which none overlaps another: the last address of each by its first one.
#[derive(Default)]
struct Ranges(BTreeMap<IpAddr, IpAddr>);

impl Ranges {
    fn insert(&mut self, range: IpNet) {
        self.0.insert(range.network(), range.broadcast());
    }

    fn overlaps(&self, range: &IpNet) -> bool {
        self.0.range(..=range.broadcast()).next_back().is_some_and(|(_, last)| *last >= range.network())
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.overlaps(&IpNet::from(address))
    }
}

impl Peer {
    /// The peers among the nodes of a cluster. Ranges are inside the cluster's and nobody else's: of two nodes with the same addresses the older
    /// one has them. An address inside of somebody's pod range is no node's.
    pub fn all<'a>(nodes: impl Iterator<Item = &'a Node>, own: Own<'_>) -> BTreeSet<Self> {
        let (believed, taken) = with_ranges(nodes, own);
        let peer = |(node, ranges)| {
            let is_node = |address: &IpAddr| *address != own.address && !taken.contains(*address);
            let addresses: Vec<IpAddr> = addresses(node).filter(is_node).collect();
            let address = *addresses.iter().find(|address| address.is_ipv4() == own.address.is_ipv4())?;
            Some(Self { ranges, address, addresses, key: wireguard::key_of_node(node) })
        };
        believed.into_iter().filter_map(peer).collect()
    }
}

/// The nodes of which there may be pods, with their pod ranges, but for the own one; and all of these ranges.
fn with_ranges<'a>(nodes: impl Iterator<Item = &'a Node>, own: Own<'_>) -> (Vec<(&'a Node, Vec<IpNet>)>, Ranges) {
    let mut others: Vec<&Node> = nodes.filter(|node| node.metadata.name.as_deref() != Some(own.name)).collect();
    others.sort_by(|one, other| age(one).cmp(&age(other)));
    let mut taken = Ranges::default();
    own.ranges.iter().for_each(|range| taken.insert(*range));
    let mut believed = Vec::new();
    for node in others {
        let ranges = ranges(node);
        let is_good = |range: &IpNet| {
            own.cluster.iter().any(|all| all.contains(range)) && !range.contains(&own.address) && !taken.overlaps(range)
        };
        if ranges.is_empty() || !ranges.iter().all(is_good) {
            continue;
        }
        ranges.iter().for_each(|range| taken.insert(*range));
        believed.push((node, ranges));
    }
    (believed, taken)
}

/// In which ranges the pods of each other node are, by the nodes' names.
pub(crate) fn pod_ranges<'a>(nodes: impl Iterator<Item = &'a Node>, own: Own<'_>) -> BTreeMap<String, Vec<IpNet>> {
    let (all, _) = with_ranges(nodes, own);
    all.into_iter().filter_map(|(node, ranges)| Some((node.metadata.name.clone()?, ranges))).collect()
}

/// The pod ranges of a node.
fn ranges(node: &Node) -> Vec<IpNet> {
    let all = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
    all.filter_map(|range| range.parse::<IpNet>().ok()).map(|range| range.trunc()).collect()
}

fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    node_addresses::told(node).into_iter().filter(|(kind, _)| *kind == Kind::Internal).map(|(_, address)| address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// A node that was made in this second.
    fn node(second: u8, name: &str, ranges: &[&str], addresses: &[&str]) -> Node {
        let addresses: Vec<Value> = addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
        let meta = json!({"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")});
        let value = json!({"metadata": meta, "spec": {"podCIDRs": ranges}, "status": {"addresses": addresses}});
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn check(nodes: &[Node], expected: &[(&str, &str)]) {
        let cidrs = |all: &[&str]| all.iter().map(|range| range.parse().unwrap()).collect::<Vec<IpNet>>();
        let (ranges, cluster) = (cidrs(&["10.42.0.0/24"]), cidrs(&["10.42.0.0/16", "fd42::/48"]));
        let own = Own { name: "a", address: "192.168.0.1".parse().unwrap(), ranges: &ranges, cluster: &cluster };
        // Whatever the order in which they are told.
        for nodes in [nodes.iter().collect::<Vec<_>>(), nodes.iter().rev().collect()] {
            let peers = Peer::all(nodes.into_iter(), own);
            let found: Vec<_> = peers.iter().map(|peer| (peer.ranges[0].to_string(), peer.address.to_string())).collect();
            let found: Vec<_> = found.iter().map(|(range, address)| (range.as_str(), address.as_str())).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn who_has_a_range_and_an_address() {
        check(&[node(1, "a", &["10.42.0.0/24"], &["192.168.0.1"])], &[]);
        let b = node(1, "b", &["10.42.1.0/24", "fd42:0:0:1::/64"], &["fd00::2", "192.168.0.2"]);
        let (c, d) = (node(1, "c", &["10.42.2.0/24"], &[]), node(1, "d", &[], &["192.168.0.4"]));
        check(&[b, c, d], &[("10.42.1.0/24", "192.168.0.2")]);
    }

    #[test]
    fn somebody_elses_word_takes_nothing_of_others() {
        let good = || node(5, "b", &["10.42.1.0/24"], &["192.168.0.2"]);
        let refused =
            |ranges: &[&str]| check(&[good(), node(9, "evil", ranges, &["192.168.0.9"])], &[("10.42.1.0/24", "192.168.0.2")]);
        // This node's, the API server's, all addresses, the cluster's, and those of the older node.
        refused(&["10.42.0.0/23"]);
        refused(&["10.42.0.128/25"]);
        refused(&["203.0.113.7/32"]);
        refused(&["192.168.0.0/24"]);
        refused(&["0.0.0.0/0"]);
        refused(&["::/0"]);
        refused(&["10.42.0.0/16"]);
        refused(&["10.42.1.0/24"]);
        refused(&["10.42.1.7/32"]);
        refused(&["10.42.0.0/15"]);
        refused(&["10.42.9.0/24", "192.168.0.2/32"]);
        // The younger one loses, whatever its name is.
        check(&[good(), node(1, "z", &["10.42.1.0/24"], &["192.168.0.9"])], &[("10.42.1.0/24", "192.168.0.9")]);
        // Our address, and that of a pod of another node, whose packets would be taken for a node's then.
        check(&[good(), node(1, "e", &["10.42.3.0/24"], &["192.168.0.1"])], &[("10.42.1.0/24", "192.168.0.2")]);
        check(&[good(), node(1, "e", &["10.42.3.0/24"], &["10.42.1.7"])], &[("10.42.1.0/24", "192.168.0.2")]);
        check(&[good(), node(1, "e", &["10.42.3.0/24"], &["10.42.0.7"])], &[("10.42.1.0/24", "192.168.0.2")]);
    }

    #[test]
    fn a_range_never_holds_our_address() {
        let ranges = ["10.0.1.0/24".parse().unwrap()];
        let cluster = ["10.0.0.0/8".parse().unwrap()];
        let own = Own { name: "a", address: "10.0.2.1".parse().unwrap(), ranges: &ranges, cluster: &cluster };
        let (b, c) = (node(1, "b", &["10.0.2.0/24"], &["10.0.4.2"]), node(1, "c", &["10.0.3.0/24"], &["10.0.4.3"]));
        let peers = Peer::all([&b, &c].into_iter(), own);
        assert_eq!(peers.iter().map(|peer| peer.ranges[0].to_string()).collect::<Vec<_>>(), ["10.0.3.0/24"]);
    }
}
