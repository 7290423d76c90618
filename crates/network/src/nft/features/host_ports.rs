//! Ports of the node that lead to a pod.

use super::{Config, Part, rules};
use crate::nft::Family;
use crate::nft::batch::{Chain, Rule, Value};
use crate::nft::claims::Claimed;
use crate::nft::contents::Contents;
use crate::nft::element::{Element, Endpoint, Key};
use crate::nft::expr::Expr;
use crate::nft::set::{Field, SetId, SetKind};

pub(super) const CHAIN: &str = "host-ports";

/// Key to endpoint.
static HOST_PORTS: SetKind = SetKind::map("host-ports", rules::KEY, &[Field::Address, Field::Port]);

/// A pod says which address its host port is at; only addresses of the node are for it to claim.
pub(super) fn part(_: &Config, family: Family) -> Part {
    let rule = |any_address| {
        let mut exprs = rules::to_node();
        exprs.extend(rules::load_key(family, 0, any_address));
        exprs.push(Expr::Lookup { set: HOST_PORTS.only(), reg: 0, data: Some(0), invert: false });
        exprs.push(Expr::Dnat { address: 0, port: family.address_regs() });
        Rule::new(exprs)
    };
    Part { sets: vec![HOST_PORTS.only()], chains: vec![Chain::regular(CHAIN, vec![rule(false), rule(true)])] }
}

pub(super) fn is_of(set: SetId) -> bool {
    set.is(&HOST_PORTS)
}

/// The pod to which a host port leads.
pub(super) fn endpoint(table: &Contents, key: Key) -> Option<Endpoint> {
    table.value(HOST_PORTS.only(), key.address, &key.bytes())?.data().and_then(Endpoint::parse)
}

/// A port of the node that leads to a pod, when it is for it to have.
pub fn claim(key: Key, endpoint: Endpoint) -> Claimed {
    let value = Value::Data(endpoint.bytes().into());
    let element = Element::new(Family::of(key.address), HOST_PORTS.only(), key.bytes(), value);
    Claimed::first(key, vec![element])
}
