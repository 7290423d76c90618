//! Links of a kind that needs no more to be said, and routes that lead over a link without a gateway.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::gateways::destination;
use super::{Links, NEW_LINK, link_header, number, text};
use crate::netlink::{CREATE, EXCL, Error, attribute};
use crate::nft::Family;

const INFO_KIND: u16 = 1;

impl Links {
    /// Makes a link of a kind.
    pub(crate) fn make(&mut self, name: &str, kind: &str, mtu: u32) -> Result<(), Error> {
        self.0.request("make the device to other nodes", (NEW_LINK, CREATE | EXCL), &link_header(0, 0), |b| {
            b.string(libc::IFLA_IFNAME, name);
            b.u32(libc::IFLA_MTU, mtu);
            b.nested(libc::IFLA_LINKINFO, |b| b.string(INFO_KIND, kind));
        })
    }

    /// Of which kind the link of this name is; none when there is none, or it is of no kind.
    pub(crate) fn kind(&mut self, name: &str) -> Result<Option<String>, Error> {
        self.look(name, |payload| attribute(attribute(payload.get(16..)?, libc::IFLA_LINKINFO)?, INFO_KIND).map(text))
    }

    /// Where the routes over a link lead that somebody has put there without a gateway.
    pub(crate) fn direct_routes(&mut self, link: u32) -> Result<BTreeSet<IpNet>, Error> {
        let mut all = BTreeSet::new();
        for kind in [Family::V4, Family::V6] {
            self.each_route(kind, |route| all.extend(direct(route, link)))?;
        }
        Ok(all)
    }
}

fn direct(payload: &[u8], link: u32) -> Option<IpNet> {
    let attrs = payload.get(12..)?;
    let is_ours = payload[5] == libc::RTPROT_STATIC && attribute(attrs, libc::RTA_OIF).and_then(number) == Some(link);
    if !is_ours || attribute(attrs, libc::RTA_GATEWAY).is_some() {
        return None;
    }
    destination(payload)
}
