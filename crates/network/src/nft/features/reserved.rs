//! What is nodes' own: service addresses that this node serves itself, and ports of nodes: of the API server, of kubelets, of the way
//! between nodes.

use super::{Config, Part, rules};
use crate::nft::Family;
use crate::nft::batch::{Chain, Rule, Value};
use crate::nft::claims::{Claimed, Right};
use crate::nft::contents::Contents;
use crate::nft::element::{Element, Key};
use crate::nft::expr::{Expr, Verdict};
use crate::nft::set::{SetId, SetKind};

pub(super) const CHAIN: &str = "reserved";

/// Ports of this node (at the unspecified address), and of others.
static RESERVED: SetKind = SetKind::set("reserved", rules::KEY);

/// Connections to it keep their destination.
pub(super) fn part(config: &Config, family: Family) -> Part {
    let untouched = || rules::verdict(Verdict::Accept);
    let mut all = Vec::new();
    for cidr in Config::of_family(&config.service_cidrs, family) {
        let to_service = rules::within(rules::destination(family, 0), cidr, true);
        all.push(Rule::new([to_service, rules::to_node(), untouched()].concat()));
    }
    let contained = |any_address| -> Vec<Expr> {
        [rules::load_key(family, 0, any_address), vec![rules::contained(RESERVED.only(), 0)], untouched()].concat()
    };
    all.push(Rule::new(contained(false)));
    all.push(Rule::new([rules::to_node(), contained(true)].concat()));
    Part { sets: vec![RESERVED.only()], chains: vec![Chain::regular(CHAIN, all)] }
}

pub(super) fn is_of(set: SetId) -> bool {
    set.is(&RESERVED)
}

/// Whether what goes there keeps its destination.
pub(super) fn has(table: &Contents, key: Key) -> bool {
    table.value(RESERVED.only(), key.address, &key.bytes()).is_some()
}

/// The ports of this node that nobody gets.
pub(super) fn own(config: &Config, family: Family) -> impl Iterator<Item = Claimed> {
    config
        .reserved_ports
        .iter()
        .map(move |(protocol, port)| claim(Key { address: family.unspecified(), protocol: *protocol, port: *port }))
}

/// A port of a node that nobody gets. The unspecified address is this node.
pub(crate) fn claim(key: Key) -> Claimed {
    untouched(key, Right::Reserved)
}

/// A port that another node has given to others than those who ask for it at all nodes.
pub(crate) fn elsewhere(key: Key) -> Claimed {
    untouched(key, Right::Elsewhere)
}

fn untouched(key: Key, right: Right) -> Claimed {
    let element = Element::new(Family::of(key.address), RESERVED.only(), key.bytes(), Value::None);
    Claimed { right, ..Claimed::first(key, vec![element]) }
}
