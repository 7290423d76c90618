//! Routes by way of other nodes, and notices of what changes on the way to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;

use super::vxlan::route_header;
use super::{Links, NEW_LINK, NEW_ROUTE, UP, address, number, octets, text, unless};
use crate::netlink::{CREATE, Error, REPLACE, Reply, attribute};
use crate::nft::Family;

/// What marks these routes among those of others (`rtm_protocol`): a number that no other routing program is known by.
pub(super) const PROTOCOL: u8 = 75;

/// What somebody has changed of links and routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A link was switched on or off, or taken away.
    Link {
        /// Its name.
        name: String,
    },
    /// A route of the main table was taken away.
    RouteGone(IpNet),
    /// The kernel has added a route of its own to the main table: that of an address that a link has got.
    Connected(IpNet),
}

impl Links {
    /// Adds or changes the route to `to` by way of `gateway`. False when that is on no link of this node.
    pub(crate) fn add_gateway(&mut self, to: IpNet, gateway: IpAddr) -> Result<bool, Error> {
        let request = (NEW_ROUTE, CREATE | REPLACE);
        let added = self.0.request("add the route by a node", request, &route_header(to, PROTOCOL, 0), |b| {
            b.attr(libc::RTA_DST, &octets(to.network()));
            b.attr(libc::RTA_GATEWAY, &octets(gateway));
        });
        match added {
            // The one is said of an address of IPv4, the others of one of IPv6, of a link that is off, and of an address of this node.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::ENODEV | Errno::EINVAL)
                ) =>
            {
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Removes a route that [`Self::add_gateway`] has added. No error when there is none.
    pub(crate) fn delete_gateway(&mut self, to: IpNet) -> Result<(), Error> {
        let header = route_header(to, PROTOCOL, 0);
        let deleted = self.0.request("remove the route by a node", (libc::RTM_DELROUTE, 0), &header, |b| {
            b.attr(libc::RTA_DST, &octets(to.network()));
        });
        unless(Errno::ESRCH, deleted)
    }

    /// The routes that [`Self::add_gateway`] has added, also in an earlier process.
    pub(crate) fn gateways(&mut self) -> Result<BTreeMap<IpNet, IpAddr>, Error> {
        let mut all = BTreeMap::new();
        for kind in [Family::V4, Family::V6] {
            self.each_route(kind, |route| all.extend(gateway(route)))?;
        }
        Ok(all)
    }

    /// The names of the links by which those of IPv4 lead.
    pub(crate) fn gateway_links(&mut self) -> Result<BTreeSet<String>, Error> {
        let mut all = BTreeSet::new();
        self.each_route(Family::V4, |route| {
            let link = || attribute(route.get(12..)?, libc::RTA_OIF).and_then(number);
            all.extend(gateway(route).and_then(|_| link()));
        })?;
        Ok(self.links()?.into_iter().filter(|link| all.contains(&link.index)).map(|link| link.name).collect())
    }
}

impl Change {
    /// The groups whose messages tell of changes: RTNLGRP_LINK, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE.
    pub(crate) const GROUPS: u32 = 1 << 0 | 1 << 6 | 1 << 10;

    /// What a message of these groups tells; nothing where that does not matter for other nodes.
    pub(crate) fn of(message: &Reply<'_>) -> Option<Self> {
        match message.kind {
            NEW_LINK | libc::RTM_DELLINK => {
                let changed = number(message.payload.get(12..16)?)?;
                let name = text(attribute(message.payload.get(16..)?, libc::IFLA_IFNAME)?);
                (message.kind == libc::RTM_DELLINK || changed & UP != 0).then_some(Self::Link { name })
            }
            libc::RTM_DELROUTE => destination(message.payload).map(Self::RouteGone),
            NEW_ROUTE if message.payload.get(5) == Some(&libc::RTPROT_KERNEL) => {
                destination(message.payload).map(Self::Connected)
            }
            _ => None,
        }
    }
}

fn gateway(payload: &[u8]) -> Option<(IpNet, IpAddr)> {
    if payload.get(5) != Some(&PROTOCOL) {
        return None;
    }
    Some((destination(payload)?, address(attribute(payload.get(12..)?, libc::RTA_GATEWAY)?)?))
}

/// Where a route of the main table leads.
pub(super) fn destination(payload: &[u8]) -> Option<IpNet> {
    let header = payload.get(..12)?;
    if header[4] != libc::RT_TABLE_MAIN {
        return None;
    }
    IpNet::new(address(attribute(&payload[12..], libc::RTA_DST)?)?, header[1]).ok()
}
