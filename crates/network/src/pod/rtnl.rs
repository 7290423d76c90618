//! Links, addresses and routes.

mod direct;
mod gateways;
mod shape;
mod unreachable;
mod vxlan;
mod wire;

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::netlink::{Buffer, CREATE, EXCL, Error, REPLACE, Socket, attribute};
use crate::nft::{Family, octets};

const NEW_LINK: u16 = libc::RTM_NEWLINK;
const DEL_LINK: u16 = libc::RTM_DELLINK;
const GET_LINK: u16 = libc::RTM_GETLINK;
const NEW_ADDR: u16 = libc::RTM_NEWADDR;
const DEL_ADDR: u16 = libc::RTM_DELADDR;
const GET_ADDR: u16 = libc::RTM_GETADDR;
const NEW_ROUTE: u16 = libc::RTM_NEWROUTE;
const GET_ROUTE: u16 = libc::RTM_GETROUTE;
const BRPORT_MODE: u16 = 4;
const BRPORT_LEARNING: u16 = 8;
const BRPORT_UNICAST_FLOOD: u16 = 9;
const BRPORT_MCAST_FLOOD: u16 = 27;
const BRPORT_BCAST_FLOOD: u16 = 30;
const BRPORT_ISOLATED: u16 = 33;
const NTF_MASTER: u8 = 4;
const FORWARDING_TIMEOUT: Duration = Duration::from_secs(2);
const UP: u32 = libc::IFF_UP as u32;

pub(crate) use gateways::Change;
pub(crate) use vxlan::Vxlan;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Text that somebody has given it.
    pub(crate) alias: Option<String>,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) master: Option<u32>,
    /// Switched on (IFF_UP).
    pub(crate) up: bool,
    /// Passes packets: carrier and queues are there (IF_OPER_UP).
    pub(crate) operating: bool,
    /// As a bridge port it forwards (BR_STATE_FORWARDING).
    pub(crate) forwarding: bool,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) link: u32,
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

/// A veth pair: one end on the bridge, the other as `eth0` in the pod.
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) alias: &'a str,
    pub(crate) bridge: u32,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    /// What the pod sends reaches the bridge itself and no other port.
    pub(crate) isolated: bool,
}

/// Receives a message for every change of a link (RTNLGRP_LINK).
pub(crate) fn link_events() -> std::io::Result<Socket> {
    Socket::subscribe(SockProtocol::NetlinkRoute, 1)
}

/// Routing sockets of one network namespace.
pub(crate) struct Links(Socket);

impl Links {
    /// In the calling thread's namespace.
    pub(crate) fn open() -> std::io::Result<Self> {
        Socket::open(SockProtocol::NetlinkRoute).map(Self)
    }

    /// In the namespace at `path`.
    pub(crate) fn open_in(path: &Path) -> std::io::Result<Self> {
        Socket::open_in(path, SockProtocol::NetlinkRoute).map(Self)
    }

    /// Makes a bridge. One that is there gets the hardware address: pods are told it and do not ask.
    pub(crate) fn make_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<(), Error> {
        let made = self.0.request("make the bridge", (NEW_LINK, CREATE | EXCL), &link_header(0, UP), |b| {
            b.string(libc::IFLA_IFNAME, name);
            b.attr(libc::IFLA_ADDRESS, &mac);
            b.u32(libc::IFLA_MTU, mtu);
            b.nested(libc::IFLA_LINKINFO, |b| b.string(1, "bridge"));
        });
        unless(Errno::EEXIST, made)?;
        if self.link(name)?.is_some_and(|link| link.mac != Some(mac)) {
            self.0.request("set the bridge's hardware address", (NEW_LINK, 0), &link_header(0, 0), |b| {
                b.string(libc::IFLA_IFNAME, name);
                b.attr(libc::IFLA_ADDRESS, &mac);
            })?;
        }
        Ok(())
    }

    /// Makes a veth pair with its far end in another namespace.
    pub(crate) fn make_veth(&mut self, veth: &Veth<'_>) -> Result<(), Error> {
        self.0.request("make the veth pair", (NEW_LINK, CREATE | EXCL), &link_header(0, UP), |b| {
            b.string(libc::IFLA_IFNAME, veth.name);
            b.u32(libc::IFLA_MTU, veth.mtu);
            b.u32(libc::IFLA_MASTER, veth.bridge);
            b.nested(libc::IFLA_LINKINFO, |b| {
                b.string(1, "veth");
                b.nested(2, |b| b.nested(1, |b| peer(b, veth)));
            });
        })?;
        self.0.request("set up the bridge port", (NEW_LINK, 0), &link_header(0, 0), |b| {
            b.string(libc::IFLA_IFNAME, veth.name);
            b.string(libc::IFLA_IFALIAS, veth.alias);
            // Where bridged packets pass netfilter, a pod that reaches itself through a service comes back by its own port.
            b.nested(libc::IFLA_LINKINFO, |b| {
                b.string(4, "bridge");
                // Nothing is learned from what a pod sends, and nothing that is not for it is sent to it: its hardware address
                // is pinned below.
                b.nested(5, |b| {
                    b.attr(BRPORT_MODE, &[1]);
                    for flooding in [BRPORT_LEARNING, BRPORT_UNICAST_FLOOD, BRPORT_MCAST_FLOOD, BRPORT_BCAST_FLOOD] {
                        b.attr(flooding, &[0]);
                    }
                    b.attr(BRPORT_ISOLATED, &[u8::from(veth.isolated)]);
                });
            });
        })?;
        let port = self.link(veth.name)?.map_or(0, |link| link.index);
        self.pin(port, veth.mac)
    }

    /// The bridge sends frames for the hardware address to this port, and nothing changes that.
    fn pin(&mut self, port: u32, mac: Mac) -> Result<(), Error> {
        const STATIC: u16 = libc::NUD_NOARP | libc::NUD_REACHABLE;
        let header =
            [&[libc::AF_BRIDGE as u8, 0, 0, 0], &port.to_ne_bytes()[..], &STATIC.to_ne_bytes(), &[NTF_MASTER, 0]].concat();
        self.0.request("pin the port", (libc::RTM_NEWNEIGH, CREATE | REPLACE), &header, |b| b.attr(libc::NDA_LLADDR, &mac))
    }

    /// Gives a link a text, at most 255 bytes.
    pub(crate) fn set_alias(&mut self, name: &str, alias: &str) -> Result<(), Error> {
        self.0.request("give the link its alias", (NEW_LINK, 0), &link_header(0, 0), |b| {
            b.string(libc::IFLA_IFNAME, name);
            b.string(libc::IFLA_IFALIAS, alias);
        })
    }

    /// Switches a link on.
    pub(crate) fn up(&mut self, name: &str) -> Result<(), Error> {
        self.0.request("switch the link on", (NEW_LINK, 0), &link_header(0, UP), |b| b.string(libc::IFLA_IFNAME, name))
    }

    /// Switches a link off.
    pub(crate) fn down(&mut self, name: &str) -> Result<(), Error> {
        // struct ifinfomsg: the flag is not among those that are set, and is among those that change
        let header = [[0; 4], [0; 4], [0; 4], UP.to_ne_bytes()].concat();
        self.0.request("switch the link off", (NEW_LINK, 0), &header, |b| b.string(libc::IFLA_IFNAME, name))
    }

    /// Deletes a link. No error when there is none.
    pub(crate) fn delete(&mut self, name: &str) -> Result<(), Error> {
        let deleted = self.0.request("delete the link", (DEL_LINK, 0), &link_header(0, 0), |b| b.string(libc::IFLA_IFNAME, name));
        unless(Errno::ENODEV, deleted)
    }

    /// The link of this name.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        self.look(name, parse_link)
    }

    /// What `parse` makes of the kernel's answer about the link of this name; none where there is no such link.
    fn look<T>(&mut self, name: &str, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, Error> {
        let mut found = None;
        let asked = self.0.query(
            "look for the link",
            GET_LINK,
            &link_header(0, 0),
            |b| b.string(libc::IFLA_IFNAME, name),
            |reply| found = parse(reply.payload),
        );
        unless(Errno::ENODEV, asked)?;
        Ok(found)
    }

    /// Waits until the port forwards and the bridge operates. The kernel gets there some milliseconds after the other end
    /// of the pair came up, and drops packets until then: a pod's first question would be lost.
    pub(crate) fn wait_forwarding(&mut self, events: &mut Socket, port: &str, bridge: &str) -> Result<bool, Error> {
        let deadline = Instant::now() + FORWARDING_TIMEOUT;
        loop {
            let port_ready = self.link(port)?.is_some_and(|link| link.operating && link.forwarding);
            if port_ready && self.link(bridge)?.is_some_and(|link| link.operating) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let event = events.event(left).map_err(|source| Error::Socket { what: "wait for the bridge port", source })?;
            if !event || left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// All links of the namespace.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut links = Vec::new();
        self.0.dump("list links", GET_LINK, &link_header(0, 0), |_| (), |reply| links.extend(parse_link(reply.payload)))?;
        Ok(links)
    }

    /// All addresses of the namespace.
    pub(crate) fn addresses(&mut self) -> Result<Vec<Assigned>, Error> {
        let mut all = Vec::new();
        self.0.dump("list addresses", GET_ADDR, &[0; 8], |_| (), |reply| all.extend(parse_address(reply.payload)))?;
        Ok(all)
    }

    /// Takes an address from its link.
    pub(crate) fn delete_address(&mut self, one: Assigned) -> Result<(), Error> {
        let header = address_header(one.link, one.address, one.prefix);
        let deleted =
            self.0.request("delete the address", (DEL_ADDR, 0), &header, |b| b.attr(libc::IFA_LOCAL, &octets(one.address)));
        unless(Errno::EADDRNOTAVAIL, deleted)
    }

    /// Gives the link an address; no error when it has it. Duplicate address detection is off: we hand the addresses out.
    pub(crate) fn add_address(&mut self, link: u32, address: IpAddr, prefix: u8) -> Result<(), Error> {
        let header = address_header(link, address, prefix);
        self.0.request("add the address", (NEW_ADDR, CREATE | REPLACE), &header, |b| {
            b.attr(libc::IFA_LOCAL, &octets(address));
            b.attr(libc::IFA_ADDRESS, &octets(address));
            b.u32(libc::IFA_FLAGS, libc::IFA_F_NODAD);
        })
    }

    /// A route to `to` over the link: through `gateway`, or direct, then optionally with `source` as own address.
    pub(crate) fn add_route(
        &mut self,
        link: u32,
        to: IpNet,
        gateway: Option<IpAddr>,
        source: Option<IpAddr>,
    ) -> Result<(), Error> {
        let scope = if gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        let mut header = vec![family(to.addr()), to.prefix_len(), 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope];
        header.extend_from_slice(&[libc::RTN_UNICAST, 0, 0, 0, 0]);
        self.0.request("add the route", (NEW_ROUTE, CREATE | REPLACE), &header, |b| {
            if to.prefix_len() > 0 {
                b.attr(libc::RTA_DST, &octets(to.network()));
            }
            b.u32(libc::RTA_OIF, link);
            if let Some(gateway) = gateway {
                b.attr(libc::RTA_GATEWAY, &octets(gateway));
            }
            if let Some(source) = source {
                b.attr(libc::RTA_PREFSRC, &octets(source));
            }
        })
    }

    /// Pins the hardware address of a neighbour, so that nothing has to be resolved.
    pub(crate) fn add_neighbour(&mut self, link: u32, address: IpAddr, mac: Mac) -> Result<(), Error> {
        let request = (libc::RTM_NEWNEIGH, CREATE | REPLACE);
        self.0.request("pin the neighbour", request, &neighbour_header(link, address), |b| {
            b.attr(libc::NDA_DST, &octets(address));
            b.attr(libc::NDA_LLADDR, &mac);
        })
    }

    /// Forgets a neighbour. No error when it is not known.
    pub(crate) fn delete_neighbour(&mut self, link: u32, address: IpAddr) -> Result<(), Error> {
        let request = (libc::RTM_DELNEIGH, 0);
        let deleted = self.0.request("forget the neighbour", request, &neighbour_header(link, address), |b| {
            b.attr(libc::NDA_DST, &octets(address));
        });
        unless(Errno::ENOENT, deleted)
    }

    /// Hands the routes of one family to `each`: what their messages carry.
    fn each_route(&mut self, of: Family, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        let header = [family(of.unspecified()), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.0.dump("list routes", GET_ROUTE, &header, |_| (), |reply| each(reply.payload))
    }

    /// The MTU of the link of the default route.
    pub(crate) fn default_mtu(&mut self) -> Result<Option<u32>, Error> {
        let mut link = None;
        self.each_route(Family::V4, |route| {
            // rtm_dst_len 0 in the main table
            if let Some([_, 0, _, _, libc::RT_TABLE_MAIN, ..]) = route.get(..12) {
                link = link.or(attribute(&route[12..], libc::RTA_OIF).and_then(number));
            }
        })?;
        Ok(self.links()?.into_iter().find(|candidate| Some(candidate.index) == link).map(|link| link.mtu))
    }
}

fn unless(harmless: Errno, result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.errno() == Some(harmless) => Ok(()),
        other => other,
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// struct ifinfomsg
fn link_header(index: u32, flags: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

/// `struct ifaddrmsg`
fn address_header(link: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    [[family(address), prefix, 0, 0], link.to_ne_bytes()].concat()
}

fn parse_address(payload: &[u8]) -> Option<Assigned> {
    let attrs = payload.get(8..)?;
    let local = attribute(attrs, libc::IFA_LOCAL).or_else(|| attribute(attrs, libc::IFA_ADDRESS))?;
    Some(Assigned { link: number(payload.get(4..8)?)?, address: address(local)?, prefix: *payload.get(1)? })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// `struct ndmsg`
fn neighbour_header(link: u32, address: IpAddr) -> Vec<u8> {
    let state = libc::NUD_PERMANENT.to_ne_bytes();
    [&[family(address), 0, 0, 0], &link.to_ne_bytes()[..], &state, &[0, 0]].concat()
}

fn peer(b: &mut Buffer, veth: &Veth<'_>) {
    // Not up yet: the kernel refuses that until both ends exist.
    b.raw(&link_header(0, 0));
    b.string(libc::IFLA_IFNAME, "eth0");
    b.attr(libc::IFLA_ADDRESS, &veth.mac);
    b.u32(libc::IFLA_MTU, veth.mtu);
    b.u32(libc::IFLA_NET_NS_FD, veth.netns.as_raw_fd().cast_unsigned());
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let attrs = payload.get(16..)?;
    let name = attribute(attrs, libc::IFLA_IFNAME)?;
    Some(Link {
        index: number(payload.get(4..8)?)?,
        name: text(name),
        alias: attribute(attrs, libc::IFLA_IFALIAS).map(text).filter(|alias| !alias.is_empty()),
        mac: attribute(attrs, libc::IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok()),
        mtu: attribute(attrs, libc::IFLA_MTU).and_then(number)?,
        master: attribute(attrs, libc::IFLA_MASTER).and_then(number),
        up: number(payload.get(8..12)?)? & UP != 0,
        operating: attribute(attrs, libc::IFLA_OPERSTATE) == Some(&[6]),
        forwarding: port_state(attrs) == Some(&[3]),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// IFLA_BRPORT_STATE
fn port_state(attrs: &[u8]) -> Option<&[u8]> {
    attribute(attribute(attribute(attrs, libc::IFLA_LINKINFO)?, 5)?, 1)
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
