//! Devices that carry packets to other nodes, and what they know.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;

use super::{Links, Mac, NEW_LINK, NEW_ROUTE, address, family, link_header, neighbour_header, number, octets, unless};
use crate::netlink::{CREATE, EXCL, Error, REPLACE, attribute};
use crate::nft::Family;
use crate::pod::nodes::Entries;

// linux/if_link.h
const VXLAN_ID: u16 = 1;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_TTL: u16 = 5;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;
const VXLAN_LOCAL6: u16 = 17;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
/// The hops of the outer packets, and what marks a gateway as reachable though no route says so.
const TTL: u8 = 64;
const ONLINK: u32 = 4;
/// An entry of the device itself, not of a bridge that it is a port of.
const NTF_SELF: u8 = 2;

/// A device that carries packets to other nodes in UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vxlan {
    pub(crate) id: u32,
    pub(crate) port: u16,
    /// Where its packets come from.
    pub(crate) local: IpAddr,
    pub(crate) mac: Mac,
}

impl Links {
    /// Makes a device that learns nothing.
    pub(crate) fn make_vxlan(&mut self, name: &str, vxlan: &Vxlan, mtu: u32) -> Result<(), Error> {
        let local = if vxlan.local.is_ipv4() { VXLAN_LOCAL } else { VXLAN_LOCAL6 };
        self.0.request("make the device to other nodes", (NEW_LINK, CREATE | EXCL), &link_header(0, 0), |b| {
            b.string(libc::IFLA_IFNAME, name);
            b.attr(libc::IFLA_ADDRESS, &vxlan.mac);
            b.u32(libc::IFLA_MTU, mtu);
            b.nested(libc::IFLA_LINKINFO, |b| {
                b.string(INFO_KIND, "vxlan");
                b.nested(INFO_DATA, |b| {
                    b.u32(VXLAN_ID, vxlan.id);
                    b.attr(local, &octets(vxlan.local));
                    b.attr(VXLAN_TTL, &[TTL]);
                    b.attr(VXLAN_LEARNING, &[0]);
                    b.attr(VXLAN_PORT, &vxlan.port.to_be_bytes());
                });
            });
        })
    }

    /// The device of this name; none when there is none, or another kind of link has the name.
    pub(crate) fn vxlan(&mut self, name: &str) -> Result<Option<Vxlan>, Error> {
        self.look(name, |payload| parse(payload.get(16..)?))
    }

    /// Sets the largest packet of a link.
    pub(crate) fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), Error> {
        self.0.request("set the MTU", (NEW_LINK, 0), &link_header(0, 0), |b| {
            b.string(libc::IFLA_IFNAME, name);
            b.u32(libc::IFLA_MTU, mtu);
        })
    }

    /// The MTU of the link that has this address.
    pub(crate) fn mtu_at(&mut self, address: IpAddr) -> Result<Option<u32>, Error> {
        let link = self.addresses()?.into_iter().find(|one| one.address == address).map(|one| one.link);
        Ok(self.links()?.into_iter().find(|candidate| Some(candidate.index) == link).map(|link| link.mtu))
    }

    /// Says at which node a hardware address is.
    pub(crate) fn add_forward(&mut self, link: u32, mac: Mac, node: IpAddr) -> Result<(), Error> {
        let request = (libc::RTM_NEWNEIGH, CREATE | REPLACE);
        self.0.request("say where a node is", request, &forward_header(link), |b| {
            b.attr(libc::NDA_LLADDR, &mac);
            b.attr(libc::NDA_DST, &octets(node));
        })
    }

    /// Forgets where a hardware address is.
    pub(crate) fn delete_forward(&mut self, link: u32, mac: Mac) -> Result<(), Error> {
        let request = (libc::RTM_DELNEIGH, 0);
        let deleted =
            self.0.request("forget where a node is", request, &forward_header(link), |b| b.attr(libc::NDA_LLADDR, &mac));
        unless(Errno::ENOENT, deleted)
    }

    /// A route to `to` by way of an address that is on the link, whatever other routes say of it.
    pub(crate) fn add_onlink_route(&mut self, link: u32, to: IpNet, via: IpAddr) -> Result<(), Error> {
        self.0.request(
            "add the route to a node",
            (NEW_ROUTE, CREATE | REPLACE),
            &route_header(to, libc::RTPROT_STATIC, ONLINK),
            |b| {
                b.attr(libc::RTA_DST, &octets(to.network()));
                b.u32(libc::RTA_OIF, link);
                b.attr(libc::RTA_GATEWAY, &octets(via));
            },
        )
    }

    /// Removes a route over the link. No error when there is none.
    pub(crate) fn delete_route(&mut self, link: u32, to: IpNet) -> Result<(), Error> {
        let mut header = route_header(to, libc::RTPROT_STATIC, 0);
        // Whichever scope it has.
        header[6] = libc::RT_SCOPE_NOWHERE;
        let deleted = self.0.request("remove the route to a node", (libc::RTM_DELROUTE, 0), &header, |b| {
            b.attr(libc::RTA_DST, &octets(to.network()));
            b.u32(libc::RTA_OIF, link);
        });
        unless(Errno::ESRCH, deleted)
    }

    /// What a device knows of other nodes. What the kernel itself has put there is none of it.
    pub(crate) fn entries(&mut self, link: u32) -> Result<Entries, Error> {
        let mut entries = Entries::default();
        for family in [Family::V4, Family::V6] {
            let code = self::family(family.unspecified());
            let header = [code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            self.each_route(family, |route| entries.routes.extend(parse_route(route, link)))?;
            self.0.dump(
                "list neighbours",
                libc::RTM_GETNEIGH,
                &header,
                |_| (),
                |reply| {
                    entries
                        .neighbours
                        .extend(parse_neighbour(reply.payload, link, code).and_then(|(mac, address)| Some((address?, mac?))));
                },
            )?;
        }
        let header = [libc::AF_BRIDGE as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.0.dump(
            "list forwarding entries",
            libc::RTM_GETNEIGH,
            &header,
            |_| (),
            |reply| {
                let found = parse_neighbour(reply.payload, link, libc::AF_BRIDGE as u8);
                entries.forwards.extend(found.and_then(|(mac, address)| Some((mac?, address?))));
            },
        )?;
        Ok(entries)
    }
}

/// struct ndmsg of an entry of the device itself
fn forward_header(link: u32) -> Vec<u8> {
    let mut header = neighbour_header(link, IpAddr::from([0, 0, 0, 0]));
    header[0] = libc::AF_BRIDGE as u8;
    header[10] = NTF_SELF;
    header
}

/// struct rtmsg
pub(super) fn route_header(to: IpNet, protocol: u8, flags: u32) -> Vec<u8> {
    let scope = libc::RT_SCOPE_UNIVERSE;
    let mut header = vec![family(to.addr()), to.prefix_len(), 0, 0, libc::RT_TABLE_MAIN, protocol, scope];
    header.push(libc::RTN_UNICAST);
    header.extend_from_slice(&flags.to_ne_bytes());
    header
}

fn parse(attrs: &[u8]) -> Option<Vxlan> {
    let info = attribute(attrs, libc::IFLA_LINKINFO)?;
    if attribute(info, INFO_KIND)?.strip_suffix(&[0])? != b"vxlan" {
        return None;
    }
    let data = attribute(info, INFO_DATA)?;
    Some(Vxlan {
        id: attribute(data, VXLAN_ID).and_then(number)?,
        port: u16::from_be_bytes(attribute(data, VXLAN_PORT)?.try_into().ok()?),
        local: attribute(data, VXLAN_LOCAL).or_else(|| attribute(data, VXLAN_LOCAL6)).and_then(address)?,
        mac: attribute(attrs, libc::IFLA_ADDRESS)?.try_into().ok()?,
    })
}

/// A route of the main table over the link, that somebody has put there.
fn parse_route(payload: &[u8], link: u32) -> Option<(IpNet, IpAddr)> {
    let header = payload.get(..12)?;
    let attrs = payload.get(12..)?;
    let ours = header[4] == libc::RT_TABLE_MAIN && header[5] == libc::RTPROT_STATIC;
    if !ours || attribute(attrs, libc::RTA_OIF).and_then(number) != Some(link) {
        return None;
    }
    let to = IpNet::new(address(attribute(attrs, libc::RTA_DST)?)?, header[1]).ok()?;
    Some((to, address(attribute(attrs, libc::RTA_GATEWAY)?)?))
}

/// A pinned entry of the link: hardware address and address.
fn parse_neighbour(payload: &[u8], link: u32, family: u8) -> Option<(Option<Mac>, Option<IpAddr>)> {
    let header = payload.get(..12)?;
    let pinned = u16::from_ne_bytes(header[8..10].try_into().ok()?) & libc::NUD_PERMANENT != 0;
    if header[0] != family || number(&header[4..8])? != link || !pinned {
        return None;
    }
    let attrs = payload.get(12..)?;
    let mac = attribute(attrs, libc::NDA_LLADDR).and_then(|bytes| Mac::try_from(bytes).ok());
    Some((mac, attribute(attrs, libc::NDA_DST).and_then(address)))
}
