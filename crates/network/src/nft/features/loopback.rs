//! The host's loopback addresses are not for pods: `route_localnet` lets the host reach host ports by 127.0.0.1, and would
//! let pods reach what listens there.

use super::{Config, Part, rules};
use crate::nft::Family;
use crate::nft::batch::{Chain, Hook, Rule};
use crate::nft::expr::{Expr, Meta, Verdict};

/// The guard, of IPv4 only: IPv6 has no such setting.
pub(super) fn part(config: &Config, family: Family) -> Part {
    let Some(loopback) = rules::loopback(family) else { return Part::default() };
    let from_pod = rules::interface(Meta::InputName, &config.bridge, true);
    let to_loopback = rules::within(rules::destination(family, 0), &loopback, true);
    let rule = [from_pod, to_loopback, vec![Expr::Verdict(Verdict::Drop)]].concat();
    let hook = Hook { kind: "filter", number: rules::PREROUTING, priority: -300 };
    Part { sets: Vec::new(), chains: vec![Chain::base("guard", hook, vec![Rule::new(rule)])] }
}
