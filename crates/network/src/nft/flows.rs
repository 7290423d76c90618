//! Which tracked UDP flows go elsewhere than the table leads. Pure.
//!
//! Whatever changes where datagrams are led (endpoints, services and node ports that come and go, host ports, a port that a program of the host or
//! another node gives up or takes back) changes elements of the table. So the flows to look at follow from the changed elements, and each of
//! them is held against the table as it is then.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Family;
use super::contents::Contents;
use super::element::{Endpoint, Key};
use super::features::translation;
use crate::conntrack::Flow;

/// Which flows are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Those to these places.
    pub(super) keys: HashSet<Key>,
    /// And all to these ranges.
    pub(super) ranges: Vec<IpNet>,
    /// Addresses of the node, for which the unspecified address stands.
    pub(super) local: HashSet<IpAddr>,
}

impl Asked {
    /// The families in which there is anything to look at.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        let addresses = self.keys.iter().map(|key| key.address).chain(self.ranges.iter().map(IpNet::addr));
        let there: HashSet<Family> = addresses.map(Family::of).collect();
        [Family::V4, Family::V6].into_iter().filter(move |family| there.contains(family))
    }

    /// Whether flows to there are to be looked at.
    pub(super) fn has(&self, to: Endpoint) -> bool {
        translation::places(to, self.local.contains(&to.address)).any(|key| self.keys.contains(&key))
            || self.ranges.iter().any(|range| range.contains(&to.address))
    }
}

impl Contents {
    /// All places of which the table says where UDP flows are led.
    pub(super) fn udp_places(&self) -> HashSet<Key> {
        self.keys().filter_map(|(family, set, key)| translation::place(family, set, key)).collect()
    }

    /// Keeps those of the flows that go elsewhere than a new one to the same place would: to what is no endpoint any more, neither for new clients nor
    /// for those that it has.
    pub(super) fn keep_stale(&self, flows: &mut Vec<Flow>, local: &HashSet<IpAddr>, service_cidrs: &[IpNet]) {
        let lingering: HashSet<(Key, Endpoint)> = self.lingering().collect();
        let mut known: HashMap<Endpoint, Option<HashSet<Endpoint>>> = HashMap::new();
        flows.retain(|flow| {
            let is_local = local.contains(&flow.to.address);
            let led = known.entry(flow.to).or_insert_with(|| {
                let is_own = is_local && service_cidrs.iter().any(|cidr| cidr.contains(&flow.to.address));
                let led = if is_own { None } else { translation::led(self, flow.to, is_local) };
                led.map(|endpoints| endpoints.into_iter().collect())
            });
            match led {
                None => flow.from != flow.to,
                Some(endpoints) => {
                    let lingers = || translation::places(flow.to, is_local).any(|key| lingering.contains(&(key, flow.from)));
                    !endpoints.contains(&flow.from) && !lingers()
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
