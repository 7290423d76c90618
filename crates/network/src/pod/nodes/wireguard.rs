//! WireGuard between nodes: one device for each node, which encrypts what goes to others' pods and takes from each only what is from the
//! pods of that one. Each node tells its public key in an annotation of its Node ([`ANNOTATION`]); the private one never leaves its directory.
//!
//! What is there at the start is compared, not removed: packets flow on. Where a node is, its Node says at first. Then the kernel
//! follows whoever proves to have the key (roaming), so that a node behind an address translator is reached where its packets come from.

pub(crate) mod device;
mod key;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::{Missing, Peer, Unreached};
use crate::pod::rtnl::Links;
use crate::pod::{Error, Options};
use device::{Device, Present};
pub(in crate::pod) use key::of_node as key_of_node;
pub(crate) use key::private;
pub use key::{ANNOTATION, PublicKey};

/// Where nodes hear each other (UDP): not 51820, which people use for networks of their own.
pub(super) const PORT: u16 = 51871;
/// What the outer headers take of a packet: IP, UDP, WireGuard with its tag. They are padded to 16 bytes.
const HEADERS_V4: u32 = 60;
const HEADERS_V6: u32 = 80;
/// A node that has shaken hands since then is where the kernel found it (REJECT_AFTER_TIME of the protocol).
const LIVE: Duration = Duration::from_secs(180);

/// A node as the device is to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// Where its Node says that it is.
    node: IpAddr,
    /// Where its packets come from, and what is sent to it.
    ranges: BTreeSet<IpNet>,
}

/// What is changed of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// It is a peer no longer.
    Remove,
    Set {
        /// Where it is from now on; none leaves that to what the kernel knows.
        endpoint: Option<SocketAddr>,
        ranges: BTreeSet<IpNet>,
    },
}

/// What the outer headers take between nodes of such addresses, bytes.
pub(super) fn headers(address: IpAddr) -> u32 {
    if address.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 }
}

/// Makes the device, or takes over the one that is there, and returns its index.
pub(super) fn set_up(options: &Options, links: &mut Links, mtu: u32) -> Result<u32, Error> {
    let name = &options.wireguard;
    let private = private(&options.directory)?;
    if links.kind(name)?.as_deref() != Some(device::KIND) {
        links.delete(name)?;
        links.make(name, device::KIND, mtu).map_err(Error::NoWireguard)?;
    }
    Device::open(name)?.configure(&private, PORT)?;
    links.set_mtu(name, mtu)?;
    links.up(name)?;
    let link = links.link(name)?.ok_or_else(|| Error::NoOverlay(name.clone()))?.index;
    for range in &options.pod_cidrs {
        links.add_address(link, range.network(), range.max_prefix_len())?;
    }
    Ok(link)
}

/// Makes the ways to these nodes over the device, which is made again if somebody has taken it away, and removes all others. `before` are the
/// nodes of the last time. Returns the ranges of which there is no key.
pub(super) fn follow(
    options: &Options,
    links: &mut Links,
    mtu: u32,
    peers: &BTreeSet<Peer>,
    before: Option<&BTreeSet<Peer>>,
) -> Result<Unreached, Error> {
    let link = match links.link(&options.wireguard)? {
        Some(link) if link.up => link.index,
        _ => set_up(options, links, mtu)?,
    };
    let mut device = Device::open(&options.wireguard)?;
    let (own, present) = device.peers()?;
    let wanted = wanted(peers, own);
    let told = before.map(|peers| self::wanted(peers, own));
    device.change(&changes(&present, &wanted, told.as_ref()))?;
    let routes: BTreeSet<IpNet> = wanted.values().flat_map(|wanted| wanted.ranges.iter().copied()).collect();
    let there = links.direct_routes(link)?;
    for range in routes.difference(&there) {
        links.add_route(link, *range, None, None)?;
    }
    for range in there.difference(&routes) {
        links.delete_route(link, *range)?;
    }
    let ranges = peers.iter().flat_map(|peer| &peer.ranges).filter(|range| !routes.contains(range));
    Ok(ranges.map(|range| (*range, Missing::Key)).collect())
}

/// The peers by their keys. Who tells another's key takes nothing from it: what is sent is for the one who has the key, whoever tells it.
fn wanted(peers: &BTreeSet<Peer>, own: Option<PublicKey>) -> BTreeMap<PublicKey, Wanted> {
    let mut all: BTreeMap<PublicKey, Wanted> = BTreeMap::new();
    for peer in peers {
        let Some(key) = peer.key.filter(|key| Some(*key) != own) else { continue };
        let wanted = all.entry(key).or_insert_with(|| Wanted { node: peer.address, ranges: BTreeSet::new() });
        wanted.ranges.extend(peer.ranges.iter().map(IpNet::trunc));
    }
    all
}

/// What makes of the peers that are there those that are wanted, in this order. `told` are those of the last time; none at the start.
fn changes(
    present: &BTreeMap<PublicKey, Present>,
    wanted: &BTreeMap<PublicKey, Wanted>,
    told: Option<&BTreeMap<PublicKey, Wanted>>,
) -> Vec<(PublicKey, Change)> {
    let gone = present.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (*key, Change::Remove));
    let changed = wanted.iter().filter_map(|(key, wanted)| {
        let there = present.get(key);
        let is_found = match told {
            _ if there.is_none() => false,
            Some(told) => told.get(key).is_some_and(|told| told.node == wanted.node),
            None => there.is_some_and(|there| there.handshake.is_some_and(|ago| ago < LIVE)),
        };
        if is_found && there.is_some_and(|there| there.ranges == wanted.ranges) {
            return None;
        }
        let endpoint = (!is_found).then(|| SocketAddr::new(wanted.node, PORT));
        Some((*key, Change::Set { endpoint, ranges: wanted.ranges.clone() }))
    });
    gone.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(number: u8) -> PublicKey {
        PublicKey::from([number; 32])
    }

    fn peer(number: u8, range: &str, address: &str) -> Peer {
        Peer {
            ranges: vec![range.parse().unwrap()],
            address: address.parse().unwrap(),
            addresses: Vec::new(),
            key: (number > 0).then(|| key(number)),
        }
    }

    fn ranges(all: &[&str]) -> BTreeSet<IpNet> {
        all.iter().map(|range| range.parse().unwrap()).collect()
    }

    #[test]
    fn who_is_a_peer() {
        let peers = [
            peer(0, "10.42.1.0/24", "192.168.0.2"),
            peer(1, "10.42.2.0/24", "192.168.0.3"),
            peer(1, "10.42.3.0/24", "192.168.0.4"),
            peer(9, "10.42.4.0/24", "192.168.0.5"),
        ];
        let found = wanted(&peers.into(), Some(key(9)));
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [key(1)]);
        assert_eq!(found[&key(1)].ranges, ranges(&["10.42.2.0/24", "10.42.3.0/24"]));
    }

    #[test]
    fn where_the_kernel_has_found_a_node_it_stays() {
        let wanted = wanted(&[peer(1, "10.42.1.0/24", "192.168.0.2")].into(), None);
        let there = |seconds: Option<u64>, all: &[&str]| {
            BTreeMap::from([(key(1), Present { ranges: ranges(all), handshake: seconds.map(Duration::from_secs) })])
        };
        let endpoint: SocketAddr = "192.168.0.2:51871".parse().unwrap();
        let set = |endpoint: Option<SocketAddr>| vec![(key(1), Change::Set { endpoint, ranges: ranges(&["10.42.1.0/24"]) })];
        assert_eq!(changes(&BTreeMap::new(), &wanted, None), set(Some(endpoint)));
        // At the start: by when it was heard of.
        assert_eq!(changes(&there(Some(100), &["10.42.1.0/24"]), &wanted, None), []);
        assert_eq!(changes(&there(Some(200), &["10.42.1.0/24"]), &wanted, None), set(Some(endpoint)));
        assert_eq!(changes(&there(None, &["10.42.1.0/24"]), &wanted, None), set(Some(endpoint)));
        // Later: by whether another address is told.
        assert_eq!(changes(&there(None, &["10.42.1.0/24"]), &wanted, Some(&wanted)), []);
        assert_eq!(changes(&there(None, &["10.42.7.0/24"]), &wanted, Some(&wanted)), set(None));
        let moved = super::wanted(&[peer(1, "10.42.1.0/24", "192.168.0.9")].into(), None);
        assert_eq!(changes(&there(Some(1), &["10.42.1.0/24"]), &wanted, Some(&moved)), set(Some(endpoint)));
        assert_eq!(changes(&there(Some(1), &[]), &BTreeMap::new(), Some(&wanted)), [(key(1), Change::Remove)]);
    }
}
