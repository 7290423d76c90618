//! Links of hosts that are network namespaces.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::{Links, Mac, NEW_LINK, UP, link_header};
use crate::netlink::{CREATE, EXCL, Error};

impl Links {
    /// Connects a namespace with a bridge: there its end is `eth0`, here it has a name of its own.
    pub(crate) fn connect(&mut self, name: &str, bridge: u32, netns: &File, mac: Mac) -> Result<(), Error> {
        self.0.request("connect the host", (NEW_LINK, CREATE | EXCL), &link_header(0, UP), |b| {
            b.string(libc::IFLA_IFNAME, name);
            b.u32(libc::IFLA_MASTER, bridge);
            b.nested(libc::IFLA_LINKINFO, |b| {
                b.string(1, "veth");
                b.nested(2, |b| {
                    b.nested(1, |b| {
                        b.raw(&link_header(0, 0));
                        b.string(libc::IFLA_IFNAME, "eth0");
                        b.attr(libc::IFLA_ADDRESS, &mac);
                        b.u32(libc::IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
                    });
                });
            });
        })
    }
}
