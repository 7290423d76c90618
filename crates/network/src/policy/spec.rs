//! What a NetworkPolicy says, in the terms of the compiler. Pure.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

use apimachinery::labels::Selector;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::nft::element::Protocol;
use crate::nft::features::policies::{Action, Direction};

/// A policy: the pods that it concerns, and its rules in each direction in which it concerns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) tier: Tier,
    pub(super) subject: Selection,
    pub(super) ingress: Option<Vec<Rule>>,
    pub(super) egress: Option<Vec<Rule>>,
}

/// When a policy is asked. Of one tier of the cluster's policies, those of a lower priority are asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// Before NetworkPolicies.
    Admin(i32),
    /// A NetworkPolicy, which isolates its pods: what none of them allows is dropped.
    Namespaced,
    /// When no NetworkPolicy concerns the pod.
    Baseline(i32),
}

/// What one rule decides: every port with every peer. Both are sets, so that a rule costs what it says and not one times the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) peers: Peers,
    pub(super) ports: Ports,
}

/// The peers of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peers {
    /// Everybody.
    All,
    /// Those that any of these selects.
    Some {
        /// Without duplicates.
        pods: Vec<Selection>,
        /// Ranges by their first and last address, in order and without overlaps.
        blocks: Vec<(IpAddr, IpAddr)>,
    },
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ports {
    /// Any of any protocol.
    All,
    /// These.
    Some {
        /// Ranges by their first and last port, in order and without overlaps. One of all ports stands for the protocol.
        ranges: Vec<(Protocol, u16, u16)>,
        /// In order and without duplicates.
        named: Vec<(Protocol, String)>,
    },
}

/// A peer as a policy names it.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    All,
    Pods(Selection),
    /// Ranges by their first and last address.
    Blocks(Vec<(IpAddr, IpAddr)>),
}

/// A port as a policy names it.
#[derive(Clone, Debug)]
pub(super) enum Port {
    All,
    Of(Protocol),
    Range(Protocol, u16, u16),
    Named(Protocol, String),
}

/// Pods of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    pub(super) namespaces: Namespaces,
    pub(super) pods: Selector,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Namespaces {
    One(String),
    Selected(Selector),
}

impl Spec {
    /// Reads a policy.
    pub(super) fn of(policy: &NetworkPolicy) -> Self {
        let none = NetworkPolicySpec::default();
        let spec = policy.spec.as_ref().unwrap_or(&none);
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let ingress = spec.ingress.iter().flatten().map(|rule| Rule::of(namespace, &rule.from, &rule.ports));
        let egress = spec.egress.iter().flatten().map(|rule| Rule::of(namespace, &rule.to, &rule.ports));
        // One that is left out selects as an empty one does.
        let pods = selector(Some(&spec.pod_selector.clone().unwrap_or_default()));
        Self {
            tier: Tier::Namespaced,
            subject: Selection { namespaces: Namespaces::One(namespace.to_owned()), pods },
            ingress: isolates(spec, Direction::Ingress).then(|| combined(ingress.collect())),
            egress: isolates(spec, Direction::Egress).then(|| combined(egress.collect())),
        }
    }

    /// What holds in place of a policy that cannot be enforced: it fails closed, as the API of the cluster's policies says. What accepts matches nothing, and a
    /// NetworkPolicy goes on to isolate its pods; where something denies or passes, all is denied.
    pub(super) fn closed(&self) -> Self {
        let closed = |rules: &[Rule]| match rules.iter().all(|rule| rule.action == Action::Accept) {
            true => Vec::new(),
            false => vec![Rule::new(Action::Deny, vec![Peer::All], vec![Port::All])],
        };
        Self { ingress: self.ingress.as_deref().map(closed), egress: self.egress.as_deref().map(closed), ..self.clone() }
    }

    /// The rules of a direction; None: the policy is not about it.
    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Policies without `policyTypes` are about ingress, and about egress when they have rules of it.
fn isolates(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|one| one == "Ingress"),
        Direction::Egress if types.is_empty() => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        Direction::Egress => types.iter().any(|one| one == "Egress"),
    }
}

pub(super) fn selector(selector: Option<&LabelSelector>) -> Selector {
    // What is no selector was refused by the API; it selects nothing.
    Selector::from_label_selector(selector).unwrap_or_else(|_| Selector::nothing())
}

impl Rule {
    fn of(namespace: &str, peers: &Option<Vec<NetworkPolicyPeer>>, ports: &Option<Vec<NetworkPolicyPort>>) -> Self {
        let (peers, ports) = (peers.as_deref().unwrap_or_default(), ports.as_deref().unwrap_or_default());
        let mut read: Vec<Peer> = peers.iter().filter_map(|peer| selection(namespace, peer)).map(Peer::Pods).collect();
        read.push(Peer::Blocks(ranges(peers.iter().filter_map(|peer| peer.ip_block.as_ref()))));
        let peers = if peers.is_empty() { vec![Peer::All] } else { read };
        let ports = if ports.is_empty() { vec![Port::All] } else { ports.iter().filter_map(port).collect() };
        Self::new(Action::Accept, peers, ports)
    }

    /// The rule about these peers and ports.
    pub(super) fn new(action: Action, peers: Vec<Peer>, ports: Vec<Port>) -> Self {
        Self { action, peers: Peers::of(peers), ports: Ports::of(ports) }
    }
}

impl Peers {
    fn of(peers: Vec<Peer>) -> Self {
        let (mut seen, mut pods, mut blocks) = (HashSet::new(), Vec::new(), Vec::new());
        for peer in peers {
            match peer {
                Peer::All => return Self::All,
                Peer::Pods(one) => {
                    if seen.insert(one.clone()) {
                        pods.push(one);
                    }
                }
                Peer::Blocks(ranges) => blocks.extend(ranges),
            }
        }
        Self::Some { pods, blocks: merged(blocks) }
    }

    fn gathered(all: Vec<Self>) -> Self {
        let peers = all.into_iter().flat_map(|peers| match peers {
            Self::All => vec![Peer::All],
            Self::Some { pods, blocks } => pods.into_iter().map(Peer::Pods).chain([Peer::Blocks(blocks)]).collect(),
        });
        Self::of(peers.collect())
    }

    fn is_nobody(&self) -> bool {
        matches!(self, Self::Some { pods, blocks } if pods.is_empty() && blocks.is_empty())
    }
}

impl Ports {
    fn of(ports: Vec<Port>) -> Self {
        let (mut ranges, mut named) = (Vec::new(), Vec::new());
        for port in ports {
            match port {
                Port::All => return Self::All,
                Port::Of(protocol) => ranges.push((protocol, 0, u16::MAX)),
                Port::Range(protocol, first, last) => ranges.push((protocol, first, last)),
                Port::Named(protocol, name) => named.push((protocol, name)),
            }
        }
        // One that ends before it begins has no port.
        ranges.retain(|(_, first, last)| first <= last);
        ranges.sort_unstable();
        named.sort_unstable();
        named.dedup();
        let mut disjoint: Vec<(Protocol, u16, u16)> = Vec::new();
        for (protocol, first, last) in ranges {
            match disjoint.last_mut() {
                Some(before) if before.0 == protocol && first <= before.2.saturating_add(1) => before.2 = before.2.max(last),
                _ => disjoint.push((protocol, first, last)),
            }
        }
        Self::Some { ranges: disjoint, named }
    }

    fn gathered(all: Vec<Self>) -> Self {
        let ports = all.into_iter().flat_map(|ports| match ports {
            Self::All => vec![Port::All],
            Self::Some { ranges, named } => {
                let ranges = ranges.into_iter().map(|(protocol, first, last)| Port::Range(protocol, first, last));
                ranges.chain(named.into_iter().map(|(protocol, name)| Port::Named(protocol, name))).collect()
            }
        });
        Self::of(ports.collect())
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::Some { ranges, named } if ranges.is_empty() && named.is_empty())
    }
}

/// Rules that all accept, as fewer: those with equal ports are one about the peers of all, and those with equal peers one about all their ports.
fn combined(rules: Vec<Rule>) -> Vec<Rule> {
    let rules = rules.into_iter().filter(|rule| !rule.peers.is_nobody() && !rule.ports.is_none());
    let by_ports = gathered(rules.map(|rule| (rule.ports, rule.peers)), Peers::gathered);
    let by_peers = gathered(by_ports.into_iter().map(|(ports, peers)| (peers, ports)), Ports::gathered);
    by_peers.into_iter().map(|(peers, ports)| Rule { action: Action::Accept, peers, ports }).collect()
}

/// The values of each key, in the order in which the keys came.
fn gathered<K: Hash + Eq + Clone, V>(pairs: impl Iterator<Item = (K, V)>, union: fn(Vec<V>) -> V) -> Vec<(K, V)> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut found: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in pairs {
        match places.get(&key) {
            Some(place) => found[*place].1.push(value),
            None => {
                places.insert(key.clone(), found.len());
                found.push((key, vec![value]));
            }
        }
    }
    found.into_iter().map(|(key, values)| (key, union(values))).collect()
}

fn selection(namespace: &str, peer: &NetworkPolicyPeer) -> Option<Selection> {
    let everything = LabelSelector::default();
    let namespaces = match (&peer.namespace_selector, &peer.pod_selector) {
        (Some(namespaces), _) => Namespaces::Selected(selector(Some(namespaces))),
        (None, Some(_)) => Namespaces::One(namespace.to_owned()),
        (None, None) => return None,
    };
    Some(Selection { namespaces, pods: selector(Some(peer.pod_selector.as_ref().unwrap_or(&everything))) })
}

fn port(port: &NetworkPolicyPort) -> Option<Port> {
    let protocol = Protocol::from_name(port.protocol.as_deref())?;
    Some(match &port.port {
        None => Port::Of(protocol),
        Some(IntOrString::String(name)) => Port::Named(protocol, name.clone()),
        Some(IntOrString::Int(first)) => {
            let first = u16::try_from(*first).ok()?;
            let last = port.end_port.map_or(Some(first), |last| u16::try_from(last).ok())?;
            Port::Range(protocol, first, last)
        }
    })
}

/// The addresses that are in a block and not in one of its exceptions, in order.
pub(super) fn ranges<'a>(blocks: impl Iterator<Item = &'a IPBlock>) -> Vec<(IpAddr, IpAddr)> {
    let mut all: Vec<(bool, u128, u128)> = Vec::new();
    for block in blocks {
        let Some(cidr) = block.cidr.parse::<IpNet>().ok() else { continue };
        let excepted = block.except.iter().flatten().filter_map(|one| one.parse::<IpNet>().ok());
        let mut excepted: Vec<(u128, u128)> =
            excepted.filter(|one| one.addr().is_ipv4() == cidr.addr().is_ipv4()).map(ends).collect();
        excepted.sort_unstable();
        let (mut first, end) = ends(cidr);
        let mut rest = true;
        for (from, to) in excepted.into_iter().filter(|(_, to)| *to >= ends(cidr).0) {
            if from > end {
                break;
            }
            if from > first {
                all.push((cidr.addr().is_ipv4(), first, from - 1));
            }
            first = first.max(to.saturating_add(1));
            rest = to < end;
            if !rest {
                break;
            }
        }
        if rest && first <= end {
            all.push((cidr.addr().is_ipv4(), first, end));
        }
    }
    merge(all)
}

/// The same addresses in order, without overlaps.
pub(super) fn merged(ranges: Vec<(IpAddr, IpAddr)>) -> Vec<(IpAddr, IpAddr)> {
    merge(ranges.into_iter().map(|(first, last)| (first.is_ipv4(), number(first), number(last))).collect())
}

fn merge(mut all: Vec<(bool, u128, u128)>) -> Vec<(IpAddr, IpAddr)> {
    all.sort_unstable();
    let mut merged: Vec<(bool, u128, u128)> = Vec::new();
    for (v4, first, last) in all {
        match merged.last_mut() {
            Some(before) if before.0 == v4 && first <= before.2.saturating_add(1) => before.2 = before.2.max(last),
            _ => merged.push((v4, first, last)),
        }
    }
    merged.into_iter().map(|(v4, first, last)| (address(v4, first), address(v4, last))).collect()
}

fn ends(cidr: IpNet) -> (u128, u128) {
    (number(cidr.network()), number(cidr.broadcast()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(v4: bool, number: u128) -> IpAddr {
    if v4 { IpAddr::V4((number as u32).into()) } else { IpAddr::V6(number.into()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn blocks_without_their_exceptions() {
        let check = |blocks: Value, expected: &[&str]| {
            let blocks: Vec<IPBlock> = serde_json::from_value(blocks).unwrap();
            let found: Vec<String> = ranges(blocks.iter()).iter().map(|(first, last)| format!("{first} {last}")).collect();
            assert_eq!(found, expected);
        };
        let ten = |except: Value| json!([{"cidr": "10.0.0.0/24", "except": except}]);
        check(json!([{"cidr": "10.0.0.0/24"}]), &["10.0.0.0 10.0.0.255"]);
        check(
            json!([{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]),
            &["0.0.0.0 255.255.255.255", ":: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"].iter().rev().copied().collect::<Vec<_>>()
                [..],
        );
        check(ten(json!(["10.0.0.0/28"])), &["10.0.0.16 10.0.0.255"]);
        check(ten(json!(["10.0.0.240/28"])), &["10.0.0.0 10.0.0.239"]);
        check(ten(json!(["10.0.0.8/32", "10.0.0.6/31"])), &["10.0.0.0 10.0.0.5", "10.0.0.9 10.0.0.255"]);
        check(ten(json!(["10.0.0.0/16"])), &[]);
        check(ten(json!(["10.0.0.0/25", "10.0.0.0/26", "10.0.0.128/25"])), &[]);
        check(ten(json!(["10.1.0.0/16", "fd00::/8", "9.0.0.0/8"])), &["10.0.0.0 10.0.0.255"]);
        check(json!([{"cidr": "::/0", "except": ["8000::/1"]}]), &[":: 7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
        check(json!([{"cidr": "::/0", "except": ["::/0"]}]), &[]);
        // What one block excepts another may have; what touches is one range.
        check(
            json!([{"cidr": "10.0.0.0/24", "except": ["10.0.0.64/26"]}, {"cidr": "10.0.0.96/27"}, {"cidr": "10.0.1.0/24"}]),
            &["10.0.0.0 10.0.0.63", "10.0.0.96 10.0.1.255"],
        );
    }

    #[test]
    fn directions_of_a_policy() {
        let check = |spec: Value, ingress: Option<usize>, egress: Option<usize>| {
            let policy = serde_json::from_value(json!({"metadata": {"namespace": "a"}, "spec": spec})).unwrap();
            let Spec { ingress: i, egress: e, .. } = Spec::of(&policy);
            assert_eq!((i.map(|rules| rules.len()), e.map(|rules| rules.len())), (ingress, egress), "{spec}");
        };
        check(json!({"podSelector": {}}), Some(0), None);
        check(json!({"podSelector": {}, "egress": [{}]}), Some(0), Some(1));
        check(json!({"podSelector": {}, "policyTypes": ["Egress"]}), None, Some(0));
        check(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}), None, Some(0));
        check(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}]}), Some(1), Some(0));
    }
}
