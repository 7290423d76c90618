//! VXLAN between nodes (RFC 7348): one device per node, which learns nothing. What leads where follows from the Node objects.
//!
//! A node's device has the network address of the node's pod range, and a hardware address made of it: nothing has to be announced. For each
//! other node there are routes to its pod ranges by way of its device's address, the neighbour that resolves that address, and the
//! forwarding entry that says at which node the hardware address is. What is there at the start is compared, not removed: packets flow on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Peer, added, gone, switch_on};
use crate::netlink;
use crate::nft::features::guards::OVERLAY;
use crate::nft::octets;
use crate::pod::rtnl::{Links, Mac, Vxlan};
use crate::pod::{Error, Options};

/// The network among those of other programs that use the same port.
const ID: u32 = 0x4b4e;
/// What the outer headers take of a packet: IP, UDP, VXLAN, Ethernet.
const HEADERS_V4: u32 = 50;
const HEADERS_V6: u32 = 70;

/// What the kernel must know of other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    /// By way of which address a range is reached.
    pub(crate) routes: BTreeMap<IpNet, IpAddr>,
    pub(crate) neighbours: BTreeMap<IpAddr, Mac>,
    /// At which node a hardware address is.
    pub(crate) forwards: BTreeMap<Mac, IpAddr>,
}

impl Entries {
    fn of(peers: &BTreeSet<Peer>) -> Self {
        let mut entries = Self::default();
        for peer in peers {
            let mac = mac_of(peer.ranges[0]);
            entries.forwards.insert(mac, peer.address);
            for range in &peer.ranges {
                entries.routes.insert(*range, range.network());
                entries.neighbours.insert(range.network(), mac);
            }
        }
        entries
    }

    /// Takes `self` from the kernel to `wanted`: additions first, so that no packet finds half of a way.
    fn change(&self, wanted: &Self, links: &mut Links, link: u32) -> Result<(), netlink::Error> {
        for (mac, address) in added(&self.forwards, &wanted.forwards) {
            links.add_forward(link, *mac, *address)?;
        }
        for (address, mac) in added(&self.neighbours, &wanted.neighbours) {
            links.add_neighbour(link, *address, *mac)?;
        }
        for (range, via) in added(&self.routes, &wanted.routes) {
            links.add_onlink_route(link, *range, *via)?;
        }
        for range in gone(&self.routes, &wanted.routes) {
            links.delete_route(link, *range)?;
        }
        for address in gone(&self.neighbours, &wanted.neighbours) {
            links.delete_neighbour(link, *address)?;
        }
        for mac in gone(&self.forwards, &wanted.forwards) {
            links.delete_forward(link, *mac)?;
        }
        Ok(())
    }
}

/// The hardware address of the device of the node that has this range: from what tells the ranges of a cluster apart.
fn mac_of(range: IpNet) -> Mac {
    let octets = octets(range.network());
    let [a, b, c, d] = if octets.len() == 4 { [0, 1, 2, 3] } else { [4, 5, 6, 7] }.map(|at: usize| octets[at]);
    // Set apart from the hardware addresses of bridges and pods, which begin with 0a:58.
    [0x0a, 0x59, a, b, c, d]
}

/// What the outer headers take between nodes of such addresses, bytes.
pub(super) fn headers(address: IpAddr) -> u32 {
    if address.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 }
}

/// Makes the device, or takes over the one that is there if it is the same, and returns its index.
pub(super) fn set_up(options: &Options, links: &mut Links, address: IpAddr, mtu: u32) -> Result<u32, Error> {
    let name = &options.overlay;
    let wanted = Vxlan { id: ID, port: OVERLAY.1, local: address, mac: mac_of(options.pod_cidrs[0]) };
    if links.vxlan(name)?.as_ref() != Some(&wanted) {
        links.delete(name)?;
        links.make_vxlan(name, &wanted, mtu)?;
    }
    switch_on(options, links, name, mtu)
}

/// Makes the ways to these nodes over the device, which is made again if somebody has taken it away, and removes all others.
pub(super) fn follow(
    options: &Options,
    links: &mut Links,
    address: IpAddr,
    mtu: u32,
    peers: &BTreeSet<Peer>,
) -> Result<(), Error> {
    let link = match links.link(&options.overlay)? {
        Some(link) if link.up => link.index,
        _ => set_up(options, links, address, mtu)?,
    };
    Ok(links.entries(link)?.change(&Entries::of(peers), links, link)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pod::open_links;

    #[test]
    fn entries_of_two_families() {
        let peer = Peer {
            ranges: vec!["10.42.1.0/24".parse().unwrap(), "fd42:0:0:1::/64".parse().unwrap()],
            address: "192.168.0.2".parse().unwrap(),
            addresses: Vec::new(),
            key: None,
        };
        let entries = Entries::of(&[peer].into());
        let mac = [0x0a, 0x59, 10, 42, 1, 0];
        assert_eq!(entries.forwards, [(mac, "192.168.0.2".parse().unwrap())].into());
        let ways: Vec<_> = entries.routes.iter().map(|(range, via)| format!("{range} {via}")).collect();
        assert_eq!(ways, ["10.42.1.0/24 10.42.1.0", "fd42:0:0:1::/64 fd42:0:0:1::"]);
        assert!(entries.neighbours.values().all(|found| *found == mac) && entries.neighbours.len() == 2);
    }

    #[test]
    fn devices_have_addresses_of_their_own() {
        let check = |range: &str, expected: Mac| assert_eq!(mac_of(range.parse().unwrap()), expected);
        check("10.42.1.0/24", [0x0a, 0x59, 10, 42, 1, 0]);
        check("fd42:0:0:1::/64", [0x0a, 0x59, 0, 0, 0, 1]);
        assert_ne!(mac_of("10.42.1.0/24".parse().unwrap()), crate::pod::devices::mac_of("10.42.1.0".parse().unwrap()));
    }

    /// In a network of its own, the kernel has what was asked for, and stale entries go.
    #[test]
    fn the_kernel_follows() {
        let alone = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            let mut links = open_links().unwrap();
            let address = "127.0.0.1".parse().unwrap();
            let wanted = Vxlan { id: ID, port: OVERLAY.1, local: address, mac: mac_of("10.42.0.0/24".parse().unwrap()) };
            links.make_vxlan("ov", &wanted, 1450).unwrap();
            links.up("ov").unwrap();
            assert_eq!(links.vxlan("ov").unwrap(), Some(wanted));
            links.set_mtu("ov", 1400).unwrap();
            let link = links.link("ov").unwrap().unwrap();
            assert_eq!(link.mtu, 1400);
            links.add_address(link.index, "10.42.0.0".parse().unwrap(), 32).unwrap();
            let peers = |all: &[(&str, &str)]| -> BTreeSet<Peer> {
                let peer = |(range, address): &(&str, &str)| Peer {
                    ranges: vec![range.parse().unwrap()],
                    address: address.parse().unwrap(),
                    addresses: Vec::new(),
                    key: None,
                };
                all.iter().map(peer).collect()
            };
            let mut follow = |all: &[(&str, &str)]| {
                let wanted = Entries::of(&peers(all));
                let present = links.entries(link.index).unwrap();
                present.change(&wanted, &mut links, link.index).unwrap();
                assert_eq!(links.entries(link.index).unwrap(), wanted, "{all:?}");
            };
            follow(&[]);
            follow(&[("10.42.1.0/24", "192.168.0.2"), ("10.42.2.0/24", "192.168.0.3")]);
            // A node with another address; one that is gone.
            follow(&[("10.42.1.0/24", "192.168.0.9")]);
            follow(&[]);
        });
        alone.join().unwrap();
    }
}
