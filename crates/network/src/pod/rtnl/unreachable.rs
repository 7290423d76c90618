//! Routes that say that something cannot be reached, where no other route leads there.

use std::collections::BTreeSet;

use ipnet::IpNet;
use nix::errno::Errno;

use super::gateways::{PROTOCOL, destination};
use super::vxlan::route_header;
use super::{Links, NEW_ROUTE, octets, unless};
use crate::netlink::{Buffer, CREATE, Error, REPLACE};
use crate::nft::Family;

/// The last that the kernel looks at among routes to the same range: the pods of a cluster of one node may have all of it.
const METRIC: u32 = u32::MAX - 1;
/// Where the type stands in `struct rtmsg`.
const TYPE: usize = 7;

impl Links {
    /// Adds a route by which packets to `to` are answered as unreachable (RTN_UNREACHABLE), unless a longer one leads there.
    pub(crate) fn add_unreachable(&mut self, to: IpNet) -> Result<(), Error> {
        let request = (NEW_ROUTE, CREATE | REPLACE);
        self.0.request("add the unreachable route", request, &header(to), |b| attributes(b, to))
    }

    /// Removes a route that [`Self::add_unreachable`] has added. No error when there is none.
    pub(crate) fn delete_unreachable(&mut self, to: IpNet) -> Result<(), Error> {
        let request = (libc::RTM_DELROUTE, 0);
        let deleted = self.0.request("remove the unreachable route", request, &header(to), |b| attributes(b, to));
        unless(Errno::ESRCH, deleted)
    }

    /// The routes that [`Self::add_unreachable`] has added, also in an earlier process.
    pub(crate) fn unreachable(&mut self) -> Result<BTreeSet<IpNet>, Error> {
        let mut all = BTreeSet::new();
        for kind in [Family::V4, Family::V6] {
            self.each_route(kind, |route| all.extend(parse(route)))?;
        }
        Ok(all)
    }
}

fn header(to: IpNet) -> Vec<u8> {
    let mut header = route_header(to, PROTOCOL, 0);
    header[TYPE] = libc::RTN_UNREACHABLE;
    header
}

fn attributes(b: &mut Buffer, to: IpNet) {
    b.attr(libc::RTA_DST, &octets(to.network()));
    b.u32(libc::RTA_PRIORITY, METRIC);
}

fn parse(payload: &[u8]) -> Option<IpNet> {
    let is_ours = payload.get(5) == Some(&PROTOCOL) && payload.get(TYPE) == Some(&libc::RTN_UNREACHABLE);
    destination(payload).filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::UdpSocket;

    use crate::pod::open_links;

    /// In a network of its own, with a default route: what no other route leads to is refused, in both families, and nothing is left.
    #[test]
    fn what_has_no_other_way_is_refused() {
        let alone = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            let mut links = open_links().unwrap();
            links.make_bridge("link", [2, 0, 0, 0, 0, 1], 1500).unwrap();
            links.up("link").unwrap();
            let link = links.link("link").unwrap().unwrap().index;
            let families = [
                ("192.168.0.1", 24, "0.0.0.0/0", "192.168.0.2", "10.42.0.0/16", "10.42.1.0/24", "10.42.1.1", "10.42.2.1"),
                ("fd00::1", 64, "::/0", "fd00::2", "fd42::/56", "fd42::/64", "fd42::1", "fd42:0:0:1::1"),
            ];
            for (own, prefix, all, gateway, cluster, node, here, elsewhere) in families {
                links.add_address(link, own.parse().unwrap(), prefix).unwrap();
                links.add_route(link, all.parse().unwrap(), Some(gateway.parse().unwrap()), None).unwrap();
                let reach = |to: &str| {
                    let socket = UdpSocket::bind((own.parse::<std::net::IpAddr>().unwrap(), 0)).unwrap();
                    socket.connect((to.parse::<std::net::IpAddr>().unwrap(), 9)).is_ok()
                };
                assert!(reach(elsewhere), "by the default route");
                let cluster = cluster.parse().unwrap();
                links.add_unreachable(cluster).unwrap();
                links.add_unreachable(cluster).unwrap();
                links.add_route(link, node.parse().unwrap(), None, None).unwrap();
                assert_eq!((reach(here), reach(elsewhere)), (true, false), "{elsewhere}");
                assert_eq!(links.unreachable().unwrap(), [cluster].into());
                // Who has all of the range reaches it.
                links.add_route(link, cluster, None, None).unwrap();
                assert!(reach(elsewhere), "{elsewhere}");
                links.delete_route(link, cluster).unwrap();
                assert!(!reach(elsewhere), "{elsewhere}");
                links.delete_unreachable(cluster).unwrap();
                links.delete_unreachable(cluster).unwrap();
                assert!(reach(elsewhere) && links.unreachable().unwrap().is_empty());
            }
        });
        alone.join().unwrap();
    }
}
