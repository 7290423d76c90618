//! What of the node is not for others.

use super::{Config, Part, rules};
use crate::nft::Family;
use crate::nft::batch::{Chain, Hook, Rule};
use crate::nft::expr::{Expr, Meta, Verdict};

/// The host's loopback addresses are not for pods: `route_localnet` lets the host reach host ports by 127.0.0.1, and would let pods
/// reach what listens there. And what the node serves at a service address (cluster DNS) is for pods and for the node: for
/// neighbours that route to it, it would be an open resolver.
pub(super) fn part(config: &Config, family: Family) -> Part {
    let drop = || rules::verdict(Verdict::Drop);
    let filter = |number, priority| Hook { kind: "filter", number, priority };
    let mut chains = Vec::new();
    if let Some(loopback) = rules::loopback(family) {
        let from_pod = rules::interface(Meta::InputName, &config.bridge, true);
        let to_loopback = rules::within(rules::destination(family, 0), &loopback, true);
        let rule = [from_pod, to_loopback, drop()].concat();
        chains.push(Chain::base("guard", filter(rules::PREROUTING, -300), vec![Rule::new(rule)]));
    }
    let rule = |cidr| {
        let mut exprs: Vec<Expr> = rules::within(rules::destination(family, 0), cidr, true);
        exprs.extend(["lo", &config.bridge].into_iter().flat_map(|name| rules::interface(Meta::InputName, name, false)));
        let inside = Config::of_family(&config.cluster_cidrs, family);
        exprs.extend(inside.flat_map(|cidr| rules::within(rules::source(family, 0), cidr, false)));
        Rule::new([exprs, drop()].concat())
    };
    let neighbours = Config::of_family(&config.service_cidrs, family).map(rule).collect();
    chains.push(Chain::base("neighbours", filter(rules::INPUT, -10), neighbours));
    Part { sets: Vec::new(), chains }
}
