//! Where connections get their destination: one order for all features that translate.

use std::collections::HashSet;

use super::{Config, Part, host_ports, reserved, rules, services};
use crate::nft::Family;
use crate::nft::batch::{Chain, Hook, Rule};
use crate::nft::contents::{Contents, Delta};
use crate::nft::element::{Endpoint, Key, Protocol};
use crate::nft::expr::Verdict;
use crate::nft::set::SetId;

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

/// The places at which something may be said of datagrams to `to`: itself, and the port of the node.
pub(crate) fn places(to: Endpoint, is_local: bool) -> impl Iterator<Item = Key> {
    let key = move |address| Key { address, protocol: Protocol::Udp, port: to.port };
    [Some(to.address), is_local.then(|| Family::of(to.address).unspecified())].into_iter().flatten().map(key)
}

/// Where new datagrams to `to` are led, found as the rules find it; none where they keep their destination. At service addresses of the node
/// itself nothing is looked up.
pub(crate) fn led(table: &Contents, to: Endpoint, is_local: bool) -> Option<Vec<Endpoint>> {
    let places = || places(to, is_local);
    if places().any(|key| reserved::has(table, key)) {
        return None;
    }
    let host_port = || places().filter(|_| is_local).find_map(|key| host_ports::endpoint(table, key));
    host_port().map(|endpoint| vec![endpoint]).or_else(|| places().find_map(|key| services::endpoints(table, key)))
}

/// The place that is led to, or is not, by an element of a set, if it is one of UDP.
pub(crate) fn place(family: Family, set: SetId, key: &[u8]) -> Option<Key> {
    let is_place = reserved::is_of(set) || host_ports::is_of(set) || services::is_port(set) || services::is_endpoint(set);
    is_place.then(|| Key::parse(family, key)).flatten().filter(|key| key.protocol == Protocol::Udp)
}

/// The places from which UDP flows may be led elsewhere since a change. A further endpoint, and a first one where packets were refused, lead none
/// elsewhere.
pub(crate) fn turned(family: Family, delta: &Delta) -> impl Iterator<Item = Key> {
    let removed = delta.remove.iter().filter(|(set, _)| !services::is_port(**set));
    let removed = removed.flat_map(|(set, keys)| keys.iter().map(move |key| (*set, key)));
    let added = delta.add.iter().filter(|(set, _)| !services::is_endpoint(**set)).flat_map(|(set, pairs)| {
        let changed = delta.remove.get(set).filter(|_| services::is_port(*set));
        let changed: HashSet<&[u8]> = changed.into_iter().flatten().map(|key| &**key).collect();
        pairs.iter().filter(move |(key, _)| !changed.contains(&**key)).map(move |(key, _)| (*set, key))
    });
    removed.chain(added).filter_map(move |(set, key)| place(family, set, key))
}
