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

use super::{Missing, Peer, Unreached, switch_on};
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
    switch_on(options, links, name, mtu)
}

/// The ranges of which everything is unreachable to which no way leads.
pub(super) fn refused(options: &Options) -> Vec<IpNet> {
    options.cluster_cidrs.iter().map(IpNet::trunc).collect()
}

/// Has what goes to pods of the cluster refused unless a way leads to them: a node whose key is not known yet, or whose way is gone, is not
/// spoken to in the clear by the default route.
pub(super) fn refuse_the_rest(options: &Options, links: &mut Links) -> Result<(), Error> {
    let wanted: BTreeSet<IpNet> = refused(options).into_iter().collect();
    let there = links.unreachable()?;
    for range in there.difference(&wanted) {
        links.delete_unreachable(*range)?;
    }
    // Those that are there as well: what somebody has changed of them is as it was.
    wanted.iter().try_for_each(|range| links.add_unreachable(*range))?;
    Ok(())
}

/// Removes the device, and with it all ways over it, and refuses nothing any more.
pub(super) fn remove(options: &Options, links: &mut Links) -> Result<(), Error> {
    links.delete(&options.wireguard)?;
    for range in links.unreachable()? {
        links.delete_unreachable(range)?;
    }
    Ok(())
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
    refuse_the_rest(options, links)?;
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
    use crate::netns::within;
    use crate::pod::hosts::namespace_path;

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

    /// Runs in a network namespace that `ip netns` has made.
    fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
        within(&namespace_path(name), work).unwrap()
    }

    fn ip(line: &str) {
        let status = std::process::Command::new("ip").args(line.split(' ')).status().unwrap();
        assert!(status.success(), "ip {line}");
    }

    /// A node in a namespace: its device, and its public key.
    fn node(namespace: &'static str, range: &'static str) -> (Options, PublicKey) {
        let directory = tempfile::tempdir().unwrap().keep();
        let options = Options {
            backend: super::super::Backend::WireGuard,
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            ..Options::new(directory, vec![range.parse().unwrap()], Vec::new())
        };
        let own = options.clone();
        let key = inside(namespace, move || {
            let mut links = crate::pod::open_links().unwrap();
            set_up(&own, &mut links, 1420).unwrap();
            let key = device::public_key(&own.wireguard).unwrap().unwrap();
            // What is there is taken over.
            let private = private(&own.directory).unwrap();
            assert!(!Device::open(&own.wireguard).unwrap().configure(&private, PORT).unwrap(), "it has its key");
            set_up(&own, &mut links, 1400).unwrap();
            assert_eq!(device::public_key(&own.wireguard).unwrap(), Some(key));
            assert_eq!(links.link(&own.wireguard).unwrap().unwrap().mtu, 1400);
            key
        });
        (options, key)
    }

    /// The kernel has what was asked for and no more, and what nodes send comes from the other one's range.
    #[test]
    #[ignore = "needs a kernel with WireGuard: `cargo xtask kernel`"]
    fn two_nodes_talk() {
        for line in [
            "netns add wg1",
            "netns add wg2",
            "-n wg1 link add e1 type veth peer name e2 netns wg2",
            "-n wg1 address add 192.168.0.1/24 dev e1",
            "-n wg2 address add 192.168.0.2/24 dev e2",
            "-n wg1 link set e1 up",
            "-n wg2 link set e2 up",
            "-n wg1 route add default via 192.168.0.2",
        ] {
            ip(line);
        }
        let ((first, one), (second, other)) = (node("wg1", "10.42.1.0/24"), node("wg2", "10.42.2.0/24"));
        let told = |range: &str, address: &str, key: PublicKey| Peer { key: Some(key), ..peer(1, range, address) };
        let (to_second, to_first) = (told("10.42.2.0/24", "192.168.0.2", other), told("10.42.1.0/24", "192.168.0.1", one));
        let gone = told("10.42.9.0/24", "192.168.0.9", key(9));
        let unknown = peer(0, "10.42.8.0/24", "192.168.0.8");
        let all: BTreeSet<Peer> = [to_second.clone(), gone, unknown].into();
        inside("wg1", move || {
            let mut links = crate::pod::open_links().unwrap();
            let unreached = follow(&first, &mut links, 1400, &all, None).unwrap();
            assert_eq!(unreached, [("10.42.8.0/24".parse().unwrap(), Missing::Key)].into());
            let link = links.link(&first.wireguard).unwrap().unwrap().index;
            assert_eq!(links.direct_routes(link).unwrap(), ranges(&["10.42.2.0/24", "10.42.9.0/24"]));
            // Where there is no key nothing is said in the clear, though there is a default route.
            let reaches = |to: &str| std::net::UdpSocket::bind("0.0.0.0:0").unwrap().connect((to, 9)).is_ok();
            assert_eq!(["10.42.8.1", "10.42.9.1", "10.99.0.1"].map(reaches), [false, true, true]);
            let kept: BTreeSet<Peer> = [to_second].into();
            follow(&first, &mut links, 1400, &kept, Some(&all)).unwrap();
            assert_eq!(links.direct_routes(link).unwrap(), ranges(&["10.42.2.0/24"]));
            let (_, present) = Device::open(&first.wireguard).unwrap().peers().unwrap();
            assert_eq!(present, [(other, Present { ranges: ranges(&["10.42.2.0/24"]), handshake: None })].into());
            links.delete(&first.wireguard).unwrap();
            assert!(!reaches("10.42.2.1"), "with the device gone");
            follow(&first, &mut links, 1400, &kept, Some(&kept)).unwrap();
            assert!(reaches("10.42.2.1"));
        });
        let receiver = inside("wg2", move || {
            let mut links = crate::pod::open_links().unwrap();
            follow(&second, &mut links, 1400, &[to_first].into(), None).unwrap();
            std::net::UdpSocket::bind("10.42.2.0:7000").unwrap()
        });
        let sender = inside("wg1", || std::net::UdpSocket::bind("10.42.1.0:7000").unwrap());
        sender.send_to(b"hello", "10.42.2.0:7000").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"hello"[..], "10.42.1.0:7000".parse().unwrap()));
        let (_, present) = inside("wg2", || Device::open("knarr-wg").unwrap().peers().unwrap());
        assert!(present[&one].handshake.is_some_and(|ago| ago < LIVE), "{present:?}");
        ip("netns del wg1");
        ip("netns del wg2");
    }
}
