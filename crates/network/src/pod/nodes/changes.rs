//! Notices of what others change on the way to other nodes: a route that somebody deletes, a link that goes and comes back.

use std::collections::BTreeSet;
use std::io;

use ipnet::IpNet;
use nix::sys::socket::SockProtocol;

use crate::netlink::listener::Listener;
use crate::netlink::replies;
use crate::nft::features::frames;
use crate::pod::SHAPERS;
use crate::pod::rtnl::Change;

/// Room for the changes that are still to be read, in bytes: each pod makes some.
const ROOM: usize = 1 << 20;

/// Changes of links and routes from now on.
pub(super) struct Changes(Listener);

impl Changes {
    /// In the network namespace of the calling thread.
    pub(super) fn listen() -> io::Result<Self> {
        Listener::open(SockProtocol::NetlinkRoute, Change::GROUPS, ROOM).map(Self)
    }

    /// Waits for a change that may concern these pod ranges of other nodes; `missing` is whether there is none of the ways to them, so that a new
    /// link may help.
    pub(super) async fn disturb(&mut self, ranges: &BTreeSet<IpNet>, missing: bool) -> io::Result<()> {
        let find = |messages: &[u8]| {
            let mut changes = replies(messages).filter_map(|message| Change::of(&message));
            changes.any(|change| matters(&change, ranges, missing)).then_some(())
        };
        self.0.find((), find).await
    }
}

fn matters(change: &Change, ranges: &BTreeSet<IpNet>, missing: bool) -> bool {
    match change {
        // With a link all routes over it go, of which nobody tells.
        Change::Link { name } => ![frames::PORTS, SHAPERS].iter().any(|pods| name.starts_with(pods)),
        Change::RouteGone(range) => ranges.contains(range),
        Change::Connected(_) => missing,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_matters() {
        #[track_caller]
        fn check(change: Change, missing: bool, expected: bool) {
            let ranges = ["10.42.1.0/24".parse().unwrap()].into();
            assert_eq!(matters(&change, &ranges, missing), expected, "{change:?}");
        }
        let link = |name: &str| Change::Link { name: name.to_owned() };
        let range = |range: &str| range.parse().unwrap();
        check(link("eth0"), false, true);
        check(link("knarr-vxlan"), false, true);
        // Those of pods come and go all the time.
        check(link("knv0123456789a"), true, false);
        check(link("knq0123456789a"), true, false);
        check(Change::RouteGone(range("10.42.1.0/24")), false, true);
        check(Change::RouteGone(range("10.42.2.0/24")), true, false);
        check(Change::Connected(range("192.168.0.0/24")), true, true);
        check(Change::Connected(range("192.168.0.0/24")), false, false);
    }
}
