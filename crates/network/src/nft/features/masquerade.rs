//! Whose address is hidden behind the node's.

use std::net::IpAddr;

use super::{Config, Part, rules};
use crate::nft::batch::{Chain, Hook, Rule, Value};
use crate::nft::element::Element;
use crate::nft::expr::{Expr, Meta};
use crate::nft::set::{Field, SetKind};
use crate::nft::{Family, octets};

/// Pairs of equal addresses: local endpoints that may connect to themselves through a service.
static HAIRPIN: SetKind = SetKind::set("hairpin", &[Field::Address, Field::Address]);

/// Marked connections, those of a pod to itself through a service, those of the host's loopback address, and those of pods
/// that leave the cluster.
pub(super) fn part(config: &Config, family: Family) -> Part {
    let mut all = vec![marked()];
    let addresses = vec![rules::source(family, 0), rules::destination(family, family.address_regs())];
    let itself = vec![rules::contained(HAIRPIN.only(), 0), Expr::Masquerade];
    all.push([rules::translated(), addresses, itself].concat());
    if let Some(loopback) = rules::loopback(family) {
        let from_loopback = rules::within(rules::source(family, 0), &loopback, true);
        let elsewhere = rules::interface(Meta::OutputName, "lo", false);
        all.push([rules::translated(), from_loopback, elsewhere, vec![Expr::Masquerade]].concat());
    }
    for cidr in Config::of_family(&config.pod_cidrs, family).filter(|_| config.masquerade) {
        let mut rule = rules::within(rules::source(family, 0), cidr, true);
        for inside in Config::of_family(&config.cluster_cidrs, family) {
            rule.extend(rules::within(rules::destination(family, 0), inside, false));
        }
        rule.extend(rules::interface(Meta::OutputName, &config.bridge, false));
        rule.push(Expr::Masquerade);
        all.push(rule);
    }
    let hook = Hook { kind: "nat", number: rules::POSTROUTING, priority: 100 };
    let chain = Chain::base("postrouting", hook, all.into_iter().map(Rule::new).collect());
    Part { sets: vec![HAIRPIN.only()], chains: vec![chain] }
}

fn marked() -> Vec<Expr> {
    let mut exprs = vec![Expr::Meta { key: Meta::Mark, reg: 0 }];
    exprs.extend(rules::any_bit(rules::MARK));
    exprs.extend([
        Expr::Meta { key: Meta::Mark, reg: 0 },
        Expr::Bitwise { reg: 0, mask: (!rules::MARK).to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::SetMark { reg: 0 },
        Expr::Masquerade,
    ]);
    exprs
}

/// Connections of `address` to itself are masqueraded.
pub fn hairpin(address: IpAddr) -> Element {
    Element::new(Family::of(address), HAIRPIN.only(), octets(address).repeat(2), Value::None)
}
