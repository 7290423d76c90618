//! Where connections get their destination: one order for all features that translate.

use super::{Config, Part, host_ports, reserved, rules, services};
use crate::nft::Family;
use crate::nft::batch::{Chain, Hook, Rule};
use crate::nft::expr::Verdict;

/// What is reserved for the node comes first, then host ports, then services.
pub(super) fn part(_: &Config, _: Family) -> Part {
    let jumps = || {
        let chains = [reserved::CHAIN, host_ports::CHAIN, services::CHAIN];
        chains.map(|chain| Rule::new(rules::verdict(Verdict::Jump(chain.to_owned())))).to_vec()
    };
    let nat = |number| Hook { kind: "nat", number, priority: -100 };
    let chains =
        vec![Chain::base("prerouting", nat(rules::PREROUTING), jumps()), Chain::base("output", nat(rules::OUTPUT), jumps())];
    Part { sets: Vec::new(), chains }
}
