//! What of the node is not for others.

use std::net::IpAddr;

use super::{Config, Part, rules};
use crate::nft::batch::{Chain, Hook, Rule, Value};
use crate::nft::element::{Element, Protocol};
use crate::nft::expr::{Expr, Meta, Verdict};
use crate::nft::set::{Field, SetKind};
use crate::nft::{Family, octets};

/// The port to which nodes send each other the packets of pods: the one that Linux uses for VXLAN, as flannel does.
pub const OVERLAY: (Protocol, u16) = (Protocol::Udp, 8472);

/// The addresses of the other nodes.
static NODES: SetKind = SetKind::set("nodes", &[Field::Address]);

/// The host's loopback addresses are for the host: `route_localnet` lets it reach host ports and node ports by 127.0.0.1, and would let pods and
/// neighbours reach what listens there, and speak for it. And what the node serves at a service address (cluster DNS) is for pods and for the node: for
/// neighbours that route to it, it would be an open resolver.
///
/// Who sends to the port of an overlay that knows nobody by a key speaks for every pod, whatever its address: only other nodes may. A pod would by
/// way of its node, behind whose address it is hidden.
///
/// Packets of pods that the connection tracking takes for no part of their connection are not translated (kubernetes#74839): they would come to a
/// client from an address that it has never spoken to, and the connection through the service would be reset.
pub(super) fn part(config: &Config, family: Family) -> Part {
    let drop = || rules::verdict(Verdict::Drop);
    let filter = |number, priority| Hook { kind: "filter", number, priority };
    let mut chains = Vec::new();
    if let Some(loopback) = rules::loopback(family) {
        let rule = |address| {
            let elsewhere = rules::interface(Meta::InputName, "lo", false);
            Rule::new([elsewhere, rules::within(address, &loopback, true), drop()].concat())
        };
        let rules = vec![rule(rules::destination(family, 0)), rule(rules::source(family, 0))];
        chains.push(Chain::base("guard", filter(rules::PREROUTING, -300), rules));
    }
    let rule = |cidr| {
        let mut exprs: Vec<Expr> = rules::within(rules::destination(family, 0), cidr, true);
        exprs.extend(["lo", &config.bridge].into_iter().flat_map(|name| rules::interface(Meta::InputName, name, false)));
        let inside = Config::of_family(&config.cluster_cidrs, family);
        exprs.extend(inside.flat_map(|cidr| rules::within(rules::source(family, 0), cidr, false)));
        Rule::new([exprs, drop()].concat())
    };
    let mut neighbours: Vec<Rule> = Config::of_family(&config.service_cidrs, family).map(rule).collect();
    let to_overlay = || {
        let (protocol, port) = OVERLAY;
        let port = vec![rules::destination_port(0), rules::equals(port.to_be_bytes())];
        [rules::of_protocol(protocol.number()).to_vec(), port].concat()
    };
    let stranger = vec![rules::source(family, 0), Expr::Lookup { set: NODES.only(), reg: 0, data: None, invert: true }];
    let from_pod = rules::interface(Meta::InputName, &config.bridge, true);
    let to_other = vec![rules::destination(family, 0), rules::contained(NODES.only(), 0)];
    let mut forged = Vec::new();
    if config.is_overlay_open {
        neighbours.push(Rule::new([to_overlay(), stranger, drop()].concat()));
        forged.push(Rule::new([from_pod, to_overlay(), to_other, drop()].concat()));
    }
    let of_pods = Config::of_family(&config.cluster_cidrs, family).flat_map(|cidr| {
        [rules::source(family, 0), rules::destination(family, 0)].map(|address| rules::within(address, cidr, true))
    });
    let invalid = of_pods.map(|of_pod| Rule::new([rules::invalid(), of_pod, drop()].concat())).collect();
    chains.push(Chain::base("invalid", filter(rules::FORWARD, -20), invalid));
    chains.push(Chain::base("neighbours", filter(rules::INPUT, -10), neighbours));
    chains.push(Chain::base("pods-to-nodes", filter(rules::FORWARD, -10), forged));
    if family == Family::V6 {
        chains.push(Chain::base("redirects", filter(rules::OUTPUT, -10), vec![Rule::new(redirect(&config.bridge))]));
    }
    Part { sets: vec![NODES.only()], chains }
}

/// No pod is told that another one is its neighbour: pods of one node talk through the node. For IPv4 the kernel has a setting (`send_redirects`),
/// for IPv6 it has none: ICMPv6 of type 137.
fn redirect(bridge: &str) -> Vec<Expr> {
    let kind = vec![Expr::Transport { offset: 0, len: 1, reg: 0 }, rules::equals([137])];
    let to_pod = rules::interface(Meta::OutputName, bridge, true);
    [rules::of_protocol(58).to_vec(), kind, to_pod, rules::verdict(Verdict::Drop)].concat()
}

/// Another node is at this address.
pub(crate) fn node(address: IpAddr) -> Element {
    Element::new(Family::of(address), NODES.only(), octets(address), Value::None)
}
