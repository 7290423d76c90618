//! Ports of other nodes: their own, and those that they have given to others. What a node says counts at its own addresses only.

use std::collections::BTreeSet;
use std::net::IpAddr;

use client::node_addresses;
use client::taken_ports::TakenPort;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use crate::nft::element::{Key, Protocol};

/// Places of all nodes that are taken of what they say to have given to others: each node may say 65,536 ports, at each of its addresses.
const MOST: usize = 1 << 18;

/// Places at other nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    /// That are a node's own: who took them here would cut this node's pods off from that one's, or a kubelet off from those who ask it.
    pub(super) own: BTreeSet<Key>,
    /// That a node tells to have given to others than load balancers and external addresses.
    pub(super) taken: BTreeSet<Key>,
}

impl Ports {
    /// What the nodes of a cluster say, other than the one called `name`. At `way` nodes hear each other; `inside` are the ranges of pods and
    /// services.
    pub(super) fn of<'a>(
        nodes: impl Iterator<Item = &'a Node>,
        name: &str,
        way: Option<(Protocol, u16)>,
        inside: &[IpNet],
    ) -> Self {
        let mut nodes: Vec<&Node> = nodes.collect();
        let all = nodes.iter().copied();
        let addresses = node_addresses::believed(all, Some(name), |address| inside.iter().any(|range| range.contains(address)));
        nodes.retain(|node| node.metadata.name.as_deref() != Some(name));
        let mut ports = Self::default();
        let mut taken = Vec::new();
        for node in nodes {
            let Some(addresses) = addresses.get(node.metadata.name.as_deref().unwrap_or_default()) else { continue };
            let addresses: Vec<IpAddr> = addresses.iter().map(|(_, address)| *address).collect();
            ports.own.extend(at(&addresses, own(node, way)));
            let there: BTreeSet<Key> = at(&addresses, given(node)).collect();
            if !there.is_empty() {
                taken.push(there);
            }
        }
        // Who says little is heard in full, whoever says much. Places of different nodes are different ones.
        taken.sort_by_key(BTreeSet::len);
        let (mut room, mut left) = (MOST, taken.len());
        for there in taken {
            let share = there.len().min(room / left);
            ports.taken.extend(there.into_iter().take(share));
            (room, left) = (room - share, left - 1);
        }
        ports
    }
}

fn at(addresses: &[IpAddr], ports: BTreeSet<(Protocol, u16)>) -> impl Iterator<Item = Key> {
    let of_port = move |(protocol, port)| addresses.iter().map(move |address| Key { address: *address, protocol, port });
    ports.into_iter().flat_map(of_port)
}

fn own(node: &Node, way: Option<(Protocol, u16)>) -> BTreeSet<(Protocol, u16)> {
    let endpoints = node.status.as_ref().and_then(|status| status.daemon_endpoints.as_ref());
    let kubelet = endpoints.and_then(|all| u16::try_from(all.kubelet_endpoint.as_ref()?.port).ok());
    kubelet.map(|port| (Protocol::Tcp, port)).into_iter().chain(way).collect()
}

fn given(node: &Node) -> BTreeSet<(Protocol, u16)> {
    let port = |taken: TakenPort| Some((Protocol::from_name(Some(&taken.port.1))?, u16::try_from(taken.port.0).ok()?));
    TakenPort::told(node).into_iter().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use client::taken_ports::TAKEN_PORTS;
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, addresses: &[&str], kubelet: Option<i32>, taken: &str) -> Node {
        let addresses: Vec<Value> = addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
        let mut status = json!({"addresses": addresses});
        if let Some(port) = kubelet {
            status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": port}});
        }
        let annotations = if taken.is_empty() { json!({}) } else { json!({TAKEN_PORTS: taken}) };
        serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}, "status": status})).unwrap()
    }

    fn of(nodes: &[Node]) -> Ports {
        Ports::of(
            nodes.iter(),
            "own",
            Some((Protocol::Udp, 8472)),
            &["10.42.0.0/16".parse().unwrap(), "10.43.0.0/16".parse().unwrap()],
        )
    }

    fn text(all: &BTreeSet<Key>) -> Vec<String> {
        all.iter().map(|key| format!("{} {} {}", key.protocol, key.address, key.port)).collect()
    }

    #[test]
    fn ports_of_nodes() {
        let addresses = ["192.168.0.2", "fd00::2", "b.example"];
        let found = of(&[node("b", &addresses, None, "")]);
        assert_eq!(text(&found.own), ["UDP 192.168.0.2 8472", "UDP fd00::2 8472"]);
        assert!(found.taken.is_empty());
        let found = of(&[node("b", &addresses, Some(10251), "a/web:80/TCP,a/web:70000/TCP,b/dns:53/UDP")]);
        let expected = ["TCP 192.168.0.2 10251", "UDP 192.168.0.2 8472", "TCP fd00::2 10251", "UDP fd00::2 8472"];
        assert_eq!(text(&found.own), expected);
        let expected = ["TCP 192.168.0.2 80", "UDP 192.168.0.2 53", "TCP fd00::2 80", "UDP fd00::2 53"];
        assert_eq!(text(&found.taken), expected);
        assert_eq!(of(&[node("own", &addresses, Some(10251), "a/web:80/TCP")]), Ports::default());
    }

    /// A node's word takes what is its own, and nothing from others.
    #[test]
    fn a_node_says_nothing_of_others() {
        let own = node("own", &["192.168.0.1"], None, "");
        for address in ["10.43.0.1", "10.42.3.4", "0.0.0.0", "::", "127.0.0.1", "169.254.169.254", "192.168.0.1"] {
            let evil = node("evil", &[address], Some(443), "a/b:1-65535/TCP");
            assert_eq!(of(&[own.clone(), evil]), Ports::default(), "{address}");
        }
        let mut old = node("z", &["192.168.0.2"], None, "");
        old.metadata.creation_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        let mut evil = node("evil", &["192.168.0.2", "192.168.0.9"], Some(443), "a/b:80/TCP");
        evil.metadata.creation_timestamp = Some(serde_json::from_value(json!("2026-01-02T00:00:00Z")).unwrap());
        let found = of(&[evil, old]);
        assert_eq!(text(&found.own), ["UDP 192.168.0.2 8472", "TCP 192.168.0.9 443", "UDP 192.168.0.9 8472"]);
        assert_eq!(text(&found.taken), ["TCP 192.168.0.9 80"]);
    }

    /// Each of its many addresses times each of its many ports.
    #[test]
    fn there_is_room_for_who_says_little() {
        let evil = |number: usize| {
            let addresses: Vec<String> = (1..200).map(|last| format!("192.168.{number}.{last}")).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            node(&format!("evil-{number}"), &addresses, None, "a/b:1-65535/TCP")
        };
        let mut nodes: Vec<Node> = (1..5).map(evil).collect();
        nodes.push(node("good", &["192.168.0.2"], None, "a/web:80/TCP,b/dns:53/UDP"));
        let found = of(&nodes);
        assert_eq!(found.taken.len(), MOST);
        assert!(text(&found.taken)[..2] == ["TCP 192.168.0.2 80", "UDP 192.168.0.2 53"]);
        assert_eq!(found.own.len(), 4 * node_addresses::MOST + 1);
    }
}
