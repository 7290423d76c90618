//! Routes between nodes on one link, each of which is the gateway to its pods (flannel calls that host-gw): packets go as they are, with
//! nothing around them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Missing, Peer, Unreached, added, gone};
use crate::netlink::Error;
use crate::pod::rtnl::Links;

/// The gateway of each pod range of these nodes: the node's first address of the range's family.
fn wanted(peers: &BTreeSet<Peer>) -> BTreeMap<IpNet, Option<IpAddr>> {
    let of = |peer: &Peer, range: &IpNet| peer.addresses.iter().copied().find(|one| one.is_ipv4() == range.addr().is_ipv4());
    peers.iter().flat_map(|peer| peer.ranges.iter().map(move |range| (range.trunc(), of(peer, range)))).collect()
}

/// Makes the routes to these nodes' pods, and removes all others. What is there at the start is compared, not removed: packets flow on.
pub(super) fn follow(links: &mut Links, peers: &BTreeSet<Peer>) -> Result<Unreached, Error> {
    let present = links.gateways()?;
    let all = wanted(peers);
    let wanted: BTreeMap<_, _> = all.iter().filter_map(|(range, gateway)| Some((*range, (*gateway)?))).collect();
    let mut reached: BTreeSet<IpNet> =
        present.iter().filter(|(range, gateway)| wanted.get(*range) == Some(gateway)).map(|(range, _)| *range).collect();
    for (range, gateway) in added(&present, &wanted) {
        if links.add_gateway(*range, *gateway)? {
            reached.insert(*range);
        } else {
            // Where the node was before is somebody else's by now.
            links.delete_gateway(*range)?;
        }
    }
    for range in gone(&present, &wanted) {
        links.delete_gateway(*range)?;
    }
    let left = all.into_iter().filter(|(range, _)| !reached.contains(range));
    Ok(left.map(|(range, gateway)| (range, gateway.map_or(Missing::Address, Missing::Link))).collect())
}

/// Removes all of them.
pub(super) fn remove(links: &mut Links) -> Result<(), Error> {
    follow(links, &BTreeSet::new()).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::changes::{Changes, Ways};
    use super::*;
    use crate::pod::open_links;

    fn peer(ranges: &[&str], addresses: &[&str]) -> Peer {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Peer { ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(), address: addresses[0], addresses, key: None }
    }

    #[test]
    fn gateways_of_two_families() {
        #[track_caller]
        fn check(ranges: &[&str], addresses: &[&str], expected: &[&str]) {
            let found = wanted(&[peer(ranges, addresses)].into());
            let found: Vec<String> = found.iter().map(|(range, gateway)| format!("{range} {gateway:?}")).collect();
            assert_eq!(found, expected);
        }
        let both = ["10.42.1.0/24", "fd42:0:0:1::/64"];
        check(&both, &["192.168.0.2", "fd00::2"], &["10.42.1.0/24 Some(192.168.0.2)", "fd42:0:0:1::/64 Some(fd00::2)"]);
        check(&both, &["192.168.0.2"], &["10.42.1.0/24 Some(192.168.0.2)", "fd42:0:0:1::/64 None"]);
        check(&["10.42.1.9/24"], &["fd00::2", "192.168.0.2", "192.168.0.3"], &["10.42.1.0/24 Some(192.168.0.2)"]);
    }

    /// In a network of its own: the kernel has what was asked for, says what is not on a link, and what others take away is noticed.
    #[test]
    fn the_kernel_follows() {
        let alone = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _entered = runtime.enter();
            let mut links = open_links().unwrap();
            links.make_bridge("link", [2, 0, 0, 0, 0, 1], 1500).unwrap();
            links.up("link").unwrap();
            let link = links.link("link").unwrap().unwrap().index;
            for (address, prefix) in [("192.168.0.1", 24), ("fd00::1", 64)] {
                links.add_address(link, address.parse().unwrap(), prefix).unwrap();
            }
            // What somebody else has put there stays.
            links.add_route(link, "172.20.0.0/16".parse().unwrap(), Some("192.168.0.9".parse().unwrap()), None).unwrap();
            let show = |all: &BTreeMap<IpNet, IpAddr>| all.iter().map(|(to, by)| format!("{to} {by}")).collect::<Vec<_>>();
            let b = peer(&["10.42.1.0/24", "fd42:0:0:1::/64"], &["192.168.0.2", "fd00::2"]);
            let c = peer(&["10.42.2.0/24"], &["192.168.0.3"]);
            assert!(follow(&mut links, &[b.clone(), c].into()).unwrap().is_empty());
            let all = ["10.42.1.0/24 192.168.0.2", "10.42.2.0/24 192.168.0.3", "fd42:0:0:1::/64 fd00::2"];
            assert_eq!(show(&links.gateways().unwrap()), all);

            // One has another address, and one is not on the link any more.
            let moved = peer(&["10.42.1.0/24", "fd42:0:0:1::/64"], &["192.168.0.7", "fd00::2"]);
            let far = peer(&["10.42.2.0/24", "fd42:0:0:2::/64"], &["192.0.2.3", "fd77::3"]);
            let peers: BTreeSet<Peer> = [moved, far].into();
            let unreached = follow(&mut links, &peers).unwrap();
            let unreached: Vec<String> = unreached.iter().map(|(range, missing)| format!("{range} {missing:?}")).collect();
            assert_eq!(unreached, ["10.42.2.0/24 Link(192.0.2.3)", "fd42:0:0:2::/64 Link(fd77::3)"]);
            assert_eq!(show(&links.gateways().unwrap()), ["10.42.1.0/24 192.168.0.7", "fd42:0:0:1::/64 fd00::2"]);

            let soon = |changes: &mut Changes, missing| {
                let ways = Ways { peers: &peers, device: None, refused: &[], missing };
                let patience = std::time::Duration::from_secs(10);
                runtime.block_on(async { tokio::time::timeout(patience, changes.disturb(&ways)).await.unwrap().unwrap() });
            };
            let mut changes = Changes::listen().unwrap();
            links.delete_gateway("10.42.1.0/24".parse().unwrap()).unwrap();
            soon(&mut changes, false);
            follow(&mut links, &peers).unwrap();
            let mut changes = Changes::listen().unwrap();
            links.down("link").unwrap();
            soon(&mut changes, false);
            assert!(links.gateways().unwrap().is_empty());
            let mut changes = Changes::listen().unwrap();
            assert_eq!(follow(&mut links, &peers).unwrap().len(), 4);
            links.up("link").unwrap();
            soon(&mut changes, true);
            // The address of IPv6 went with the link; that of IPv4 stays, and so does what leads by it.
            follow(&mut links, &peers).unwrap();
            assert_eq!(show(&links.gateways().unwrap()), ["10.42.1.0/24 192.168.0.7"]);
            let mut changes = Changes::listen().unwrap();
            links.add_address(link, "192.0.2.1".parse().unwrap(), 24).unwrap();
            soon(&mut changes, true);
            follow(&mut links, &peers).unwrap();
            assert_eq!(show(&links.gateways().unwrap()), ["10.42.1.0/24 192.168.0.7", "10.42.2.0/24 192.0.2.3"]);
            remove(&mut links).unwrap();
            assert!(links.gateways().unwrap().is_empty());
        });
        alone.join().unwrap();
    }
}
