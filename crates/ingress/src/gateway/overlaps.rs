//! Listeners over TLS whose hosts overlap with those of others at their port: a client that takes one connection for several names may send a request for one to
//! the other. Pure.
//!
//! "Controllers MUST detect the presence of overlapping hostnames", and "this condition MUST be set on all Listeners with overlapping TLS config"
//! (ListenerConditionOverlappingTLSConfig).

use std::collections::{HashMap, HashSet};

use super::Entrance;
use super::placed::Placed;

/// The places of the listeners that overlap with another one of these.
pub(super) fn overlapping(listeners: &[Placed<'_>]) -> HashSet<usize> {
    let over_tls = listeners.iter().map(Placed::over_tls).enumerate();
    let all: Vec<(usize, (Entrance, String))> = over_tls.filter_map(|(place, one)| Some((place, one?))).collect();
    let mut below: HashMap<(Entrance, &str), usize> = HashMap::new();
    for (_, (entrance, name)) in &all {
        for broader in broader(name) {
            *below.entry((*entrance, broader)).or_default() += 1;
        }
    }
    let named: HashSet<(Entrance, &str)> = all.iter().map(|(_, (entrance, name))| (*entrance, name.as_str())).collect();
    let overlaps = |(_, (entrance, name)): &&(usize, (Entrance, String))| {
        below.contains_key(&(*entrance, name)) || broader(name).any(|broader| named.contains(&(*entrance, broader)))
    };
    all.iter().filter(overlaps).map(|(place, ..)| *place).collect()
}

/// The wildcards that stand for a name, named as in [`Placed::over_tls`]: those of the domains that it is in, and any.
fn broader(name: &str) -> impl Iterator<Item = &str> {
    let wildcards = name.char_indices().filter(|(at, letter)| *letter == '.' && *at > 0).map(|(dot, _)| &name[dot..]);
    wildcards.chain((!name.is_empty()).then_some(""))
}
