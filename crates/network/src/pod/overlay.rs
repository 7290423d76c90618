//! The way between nodes: one VXLAN device per node (RFC 7348), which learns nothing. What leads where follows from the Node objects.
//!
//! A node's device has the network address of the node's pod range, and a hardware address made of it: nothing has to be announced. For each
//! other node there are routes to its pod ranges by way of its device's address, the neighbour that resolves that address, and the
//! forwarding entry that says at which node the hardware address is. What is there at the start is compared, not removed: packets flow on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use client::taken_ports::TakenPort;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use super::rtnl::{Links, Mac, Vxlan};
use super::{Error, Options, blocking, open_links};
use crate::nft::contents::Fragment;
use crate::nft::element::{Key, Protocol};
use crate::nft::features::guards::{self, OVERLAY};
use crate::nft::features::reserved;
use crate::nft::table::{Holder, Table};
use crate::nft::{machine, octets};

/// The network among those of other programs that use the same port.
const ID: u32 = 0x4b4e;
/// What the outer headers take of a packet: IP, UDP, VXLAN, Ethernet.
const HEADERS_V4: u32 = 50;
const HEADERS_V6: u32 = 70;

/// Another node, as its object tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its pod ranges.
    pub ranges: Vec<IpNet>,
    /// Where packets for its pods are sent.
    pub address: IpAddr,
}

impl Peer {
    /// The peer that a node is: it has pod ranges and an address of the family in which this node is reached.
    fn of(node: &Node, own: &IpAddr) -> Option<Self> {
        let ranges = node.spec.as_ref()?.pod_cidrs.as_ref()?.iter().filter_map(|range| range.parse().ok()).collect::<Vec<_>>();
        let addresses = node.status.as_ref()?.addresses.as_ref()?.iter();
        let mut addresses = addresses.filter(|address| address.type_ == "InternalIP").filter_map(|a| a.address.parse().ok());
        let address = addresses.find(|address: &IpAddr| address.is_ipv4() == own.is_ipv4() && address != own)?;
        (!ranges.is_empty()).then_some(Self { ranges, address })
    }

    /// The peers among the nodes of a cluster. A range of this node's is nobody else's.
    pub fn all<'a>(nodes: impl Iterator<Item = &'a Node>, name: &str, own: &IpAddr, own_ranges: &[IpNet]) -> BTreeSet<Self> {
        let overlaps = |range: &IpNet| own_ranges.iter().any(|one| one.contains(range) || range.contains(one));
        let others = nodes.filter(|node| node.metadata.name.as_deref() != Some(name));
        others.filter_map(|node| Self::of(node, own)).filter(|peer| !peer.ranges.iter().any(overlaps)).collect()
    }
}

/// The ports that are a node's own, at all of its addresses: who took them here would cut this node's pods off from that one's, or a kubelet off
/// from those who ask it.
fn own_ports(node: &Node) -> BTreeSet<Key> {
    let endpoints = node.status.as_ref().and_then(|status| status.daemon_endpoints.as_ref());
    let kubelet = endpoints.and_then(|all| u16::try_from(all.kubelet_endpoint.as_ref()?.port).ok());
    at_node(node, kubelet.map(|port| (Protocol::Tcp, port)).into_iter().chain([OVERLAY]).collect())
}

/// The ports that a node tells to have given to others than load balancers and external addresses, at all of its addresses.
fn taken_ports(node: &Node) -> BTreeSet<Key> {
    let port = |taken: TakenPort| Some((Protocol::from_name(Some(&taken.port.1))?, u16::try_from(taken.port.0).ok()?));
    at_node(node, TakenPort::told(node).into_iter().filter_map(port).collect())
}

fn at_node(node: &Node, ports: Vec<(Protocol, u16)>) -> BTreeSet<Key> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses
        .filter_map(|one| one.address.parse::<IpAddr>().ok())
        .flat_map(|address| ports.iter().map(move |(protocol, port)| Key { address, protocol: *protocol, port: *port }))
        .collect()
}

/// What the kernel must know of other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    /// By way of which address a range is reached.
    pub(super) routes: BTreeMap<IpNet, IpAddr>,
    pub(super) neighbours: BTreeMap<IpAddr, Mac>,
    /// At which node a hardware address is.
    pub(super) forwards: BTreeMap<Mac, IpAddr>,
}

impl Entries {
    fn of(peers: &BTreeSet<Peer>) -> Self {
        let mut entries = Self::default();
        for peer in peers {
            let mac = mac_of(peer.ranges[0]);
            entries.forwards.insert(mac, peer.address);
            for range in &peer.ranges {
                entries.routes.insert(*range, range.network());
                entries.neighbours.insert(range.network(), mac);
            }
        }
        entries
    }

    /// Takes `self` from the kernel to `wanted`: additions first, so that no packet finds half of a way.
    fn change(&self, wanted: &Self, links: &mut Links, link: u32) -> Result<(), crate::netlink::Error> {
        for (mac, address) in added(&self.forwards, &wanted.forwards) {
            links.add_forward(link, *mac, *address)?;
        }
        for (address, mac) in added(&self.neighbours, &wanted.neighbours) {
            links.add_neighbour(link, *address, *mac)?;
        }
        for (range, via) in added(&self.routes, &wanted.routes) {
            links.add_onlink_route(link, *range, *via)?;
        }
        for range in gone(&self.routes, &wanted.routes) {
            links.delete_route(link, *range)?;
        }
        for address in gone(&self.neighbours, &wanted.neighbours) {
            links.delete_neighbour(link, *address)?;
        }
        for mac in gone(&self.forwards, &wanted.forwards) {
            links.delete_forward(link, *mac)?;
        }
        Ok(())
    }
}

fn added<'a, K: Ord, V: PartialEq>(old: &BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> impl Iterator<Item = (&'a K, &'a V)> {
    new.iter().filter(|(key, value)| old.get(*key) != Some(*value))
}

fn gone<'a, K: Ord, V>(old: &'a BTreeMap<K, V>, new: &BTreeMap<K, V>) -> impl Iterator<Item = &'a K> {
    old.keys().filter(|key| !new.contains_key(*key))
}

/// The hardware address of the device of the node that has this range: from what tells the ranges of a cluster apart.
fn mac_of(range: IpNet) -> Mac {
    let octets = octets(range.network());
    let [a, b, c, d] = if octets.len() == 4 { [0, 1, 2, 3] } else { [4, 5, 6, 7] }.map(|at: usize| octets[at]);
    // Set apart from the hardware addresses of bridges and pods, which begin with 0a:58.
    [0x0a, 0x59, a, b, c, d]
}

/// What packets of pods may have on a link of this MTU.
pub(super) fn inner_mtu(address: IpAddr, lower: u32) -> u32 {
    lower.saturating_sub(if address.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 })
}

/// Makes the device, or takes over the one that is there if it is the same.
pub(super) fn set_up(options: &Options, links: &mut Links, address: IpAddr, mtu: u32) -> Result<(), Error> {
    let name = &options.overlay;
    let wanted = Vxlan { id: ID, port: OVERLAY.1, local: address, mac: mac_of(options.pod_cidrs[0]) };
    if links.vxlan(name)?.as_ref() != Some(&wanted) {
        links.delete(name)?;
        links.make_vxlan(name, &wanted, mtu)?;
    }
    links.set_mtu(name, mtu)?;
    links.up(name)?;
    let link = links.link(name)?.ok_or_else(|| Error::NoOverlay(name.clone()))?.index;
    for range in &options.pod_cidrs {
        links.add_address(link, range.network(), range.max_prefix_len())?;
    }
    Ok(())
}

/// What is known of other nodes.
#[derive(PartialEq, Eq)]
struct Known {
    peers: BTreeSet<Peer>,
    own_ports: BTreeSet<Key>,
    taken_ports: BTreeSet<Key>,
}

/// Keeps what the kernel knows of other nodes as their objects say.
pub struct Overlay {
    device: String,
    address: IpAddr,
    name: String,
    ranges: Vec<IpNet>,
    table: Table,
    known: Option<Known>,
}

impl Overlay {
    pub(super) fn new(options: &Options, address: IpAddr, name: &str, table: Table) -> Self {
        let (device, ranges) = (options.overlay.clone(), options.pod_cidrs.clone());
        Self { device, address, name: name.to_owned(), ranges, table, known: None }
    }

    /// Makes the ways to these nodes, and takes away all others. Says whether anything changed.
    pub async fn update<'a>(&mut self, nodes: impl Iterator<Item = &'a Node> + Clone) -> Result<bool, Error> {
        let peers = Peer::all(nodes.clone(), &self.name, &self.address, &self.ranges);
        let others = nodes.filter(|node| node.metadata.name.as_deref() != Some(&self.name));
        let (own_ports, taken_ports) = (others.clone().flat_map(own_ports).collect(), others.flat_map(taken_ports).collect());
        let known = Known { peers, own_ports, taken_ports };
        if self.known.as_ref() == Some(&known) {
            return Ok(false);
        }
        let (device, wanted, table) = (self.device.clone(), Entries::of(&known.peers), self.table.clone());
        let nodes: Vec<_> = known.peers.iter().map(|peer| guards::node(peer.address)).collect();
        let ports = known.own_ports.iter().copied().map(reserved::claim);
        let ports: Vec<_> = ports.chain(known.taken_ports.iter().copied().map(reserved::elsewhere)).collect();
        blocking(move || {
            let mut fragment = Fragment::from(nodes);
            // Somebody else's word takes no port of ours.
            let own = machine::addresses();
            let ports = ports.into_iter().filter(|port| !own.contains(&port.key.address));
            fragment.extend(ports.collect::<Vec<_>>().into());
            table.replace([("nodes".to_owned(), fragment)])?;
            table.release(Holder::Nodes)?;
            let mut links = open_links()?;
            let link = links.link(&device)?.ok_or(Error::NoOverlay(device))?.index;
            let present = links.entries(link)?;
            Ok(present.change(&wanted, &mut links, link)?)
        })
        .await?;
        self.known = Some(known);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use client::taken_ports::TAKEN_PORTS;
    use serde_json::{Value, json};

    fn node(name: &str, ranges: &[&str], addresses: &[&str]) -> Node {
        let addresses: Vec<Value> = addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
        let value = json!({"metadata": {"name": name}, "spec": {"podCIDRs": ranges}, "status": {"addresses": addresses}});
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn check(nodes: &[Node], expected: &[(&str, &str)]) {
        let own = ["10.42.0.0/24".parse().unwrap()];
        let peers = Peer::all(nodes.iter(), "a", &"192.168.0.1".parse().unwrap(), &own);
        let found: Vec<_> = peers.iter().map(|peer| (peer.ranges[0].to_string(), peer.address.to_string())).collect();
        let found: Vec<_> = found.iter().map(|(range, address)| (range.as_str(), address.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn peers() {
        check(&[node("a", &["10.42.0.0/24"], &["192.168.0.1"])], &[]);
        let b = node("b", &["10.42.1.0/24", "fd42:0:0:1::/64"], &["fd00::2", "192.168.0.2"]);
        check(&[b, node("c", &["10.42.2.0/24"], &[]), node("d", &[], &["192.168.0.4"])], &[("10.42.1.0/24", "192.168.0.2")]);
        // Somebody else's word takes neither our address nor our range.
        check(&[node("e", &["10.42.3.0/24"], &["192.168.0.1"]), node("f", &["10.42.0.0/23"], &["192.168.0.5"])], &[]);
    }

    #[test]
    fn ports_of_nodes() {
        let mut other = node("b", &[], &["192.168.0.2", "fd00::2", "b.example"]);
        let found = |node: &Node| -> Vec<String> {
            own_ports(node).into_iter().map(|key| format!("{} {} {}", key.protocol, key.address, key.port)).collect()
        };
        assert_eq!(found(&other), ["UDP 192.168.0.2 8472", "UDP fd00::2 8472"]);
        other.status.as_mut().unwrap().daemon_endpoints =
            serde_json::from_value(json!({"kubeletEndpoint": {"Port": 10251}})).unwrap();
        let expected = ["TCP 192.168.0.2 10251", "UDP 192.168.0.2 8472", "TCP fd00::2 10251", "UDP fd00::2 8472"];
        assert_eq!(found(&other), expected);
        assert!(taken_ports(&other).is_empty());
        other.metadata.annotations =
            Some([(TAKEN_PORTS.to_owned(), "a/web:80/TCP,a/web:70000/TCP,b/dns:53/UDP".to_owned())].into());
        let taken: Vec<String> =
            taken_ports(&other).iter().map(|key| format!("{} {} {}", key.protocol, key.address, key.port)).collect();
        assert_eq!(taken, ["TCP 192.168.0.2 80", "UDP 192.168.0.2 53", "TCP fd00::2 80", "UDP fd00::2 53"]);
    }

    #[test]
    fn entries_of_two_families() {
        let peer = Peer {
            ranges: vec!["10.42.1.0/24".parse().unwrap(), "fd42:0:0:1::/64".parse().unwrap()],
            address: "192.168.0.2".parse().unwrap(),
        };
        let entries = Entries::of(&[peer].into());
        let mac = [0x0a, 0x59, 10, 42, 1, 0];
        assert_eq!(entries.forwards, [(mac, "192.168.0.2".parse().unwrap())].into());
        let ways: Vec<_> = entries.routes.iter().map(|(range, via)| format!("{range} {via}")).collect();
        assert_eq!(ways, ["10.42.1.0/24 10.42.1.0", "fd42:0:0:1::/64 fd42:0:0:1::"]);
        assert!(entries.neighbours.values().all(|found| *found == mac) && entries.neighbours.len() == 2);
    }

    #[test]
    fn devices_have_addresses_of_their_own() {
        let check = |range: &str, expected: Mac| assert_eq!(mac_of(range.parse().unwrap()), expected);
        check("10.42.1.0/24", [0x0a, 0x59, 10, 42, 1, 0]);
        check("fd42:0:0:1::/64", [0x0a, 0x59, 0, 0, 0, 1]);
        assert_ne!(mac_of("10.42.1.0/24".parse().unwrap()), super::super::mac_of("10.42.1.0".parse().unwrap()));
    }

    /// In a network of its own, the kernel has what was asked for, and stale entries go.
    #[test]
    fn the_kernel_follows() {
        let alone = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            let mut links = open_links().unwrap();
            let address = "127.0.0.1".parse().unwrap();
            let wanted = Vxlan { id: ID, port: OVERLAY.1, local: address, mac: mac_of("10.42.0.0/24".parse().unwrap()) };
            links.make_vxlan("ov", &wanted, 1450).unwrap();
            links.up("ov").unwrap();
            assert_eq!(links.vxlan("ov").unwrap(), Some(wanted));
            links.set_mtu("ov", 1400).unwrap();
            let link = links.link("ov").unwrap().unwrap();
            assert_eq!(link.mtu, 1400);
            links.add_address(link.index, "10.42.0.0".parse().unwrap(), 32).unwrap();
            let peers = |all: &[(&str, &str)]| -> BTreeSet<Peer> {
                let peer = |(range, address): &(&str, &str)| Peer {
                    ranges: vec![range.parse().unwrap()],
                    address: address.parse().unwrap(),
                };
                all.iter().map(peer).collect()
            };
            let mut follow = |all: &[(&str, &str)]| {
                let wanted = Entries::of(&peers(all));
                let present = links.entries(link.index).unwrap();
                present.change(&wanted, &mut links, link.index).unwrap();
                assert_eq!(links.entries(link.index).unwrap(), wanted, "{all:?}");
            };
            follow(&[]);
            follow(&[("10.42.1.0/24", "192.168.0.2"), ("10.42.2.0/24", "192.168.0.3")]);
            // A node with another address; one that is gone.
            follow(&[("10.42.1.0/24", "192.168.0.9")]);
            follow(&[]);
        });
        alone.join().unwrap();
    }
}
