//! What a NetworkPolicy says, in the terms of the compiler. Pure.

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

/// What one rule decides: every port with every peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) peers: Vec<Peer>,
    pub(super) ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    All,
    Pods(Selection),
    /// Ranges by their first and last address, without overlaps.
    Blocks(Vec<(IpAddr, IpAddr)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
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
            ingress: isolates(spec, Direction::Ingress).then(|| ingress.collect()),
            egress: isolates(spec, Direction::Egress).then(|| egress.collect()),
        }
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
        let blocks = ranges(peers.iter().filter_map(|peer| peer.ip_block.as_ref()));
        if !blocks.is_empty() {
            read.push(Peer::Blocks(blocks));
        }
        Self {
            action: Action::Accept,
            peers: if peers.is_empty() { vec![Peer::All] } else { read },
            ports: if ports.is_empty() { vec![Port::All] } else { ports.iter().filter_map(port).collect() },
        }
    }
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
