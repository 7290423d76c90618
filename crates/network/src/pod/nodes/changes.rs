//! Notices of what others change on the way to other nodes: a route that somebody deletes, a link that goes and comes back.

use std::collections::BTreeSet;
use std::io;

use ipnet::IpNet;
use nix::sys::socket::SockProtocol;

use super::Peer;
use crate::netlink::listener::Listener;
use crate::netlink::replies;
use crate::nft::features::frames;
use crate::pod::devices::SHAPERS;
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

    /// Waits for a change that may concern the ways to other nodes.
    pub(super) async fn disturb(&mut self, ways: &Ways<'_>) -> io::Result<()> {
        let find = |messages: &[u8]| {
            let mut changes = replies(messages).filter_map(|message| Change::of(&message));
            changes.any(|change| ways.concerns(&change)).then_some(())
        };
        self.0.find((), find).await
    }
}

/// The ways to other nodes, as far as a change may concern them.
pub(super) struct Ways<'a> {
    /// Those to whose pods they lead.
    pub(super) peers: &'a BTreeSet<Peer>,
    /// The device over which all of them lead; none where that may be any link but those of pods.
    pub(super) device: Option<&'a str>,
    /// Ranges of which everything else is unreachable ([`super::wireguard::refuse_the_rest`]).
    pub(super) refused: &'a [IpNet],
    /// One of them is not there, so that a new link may help.
    pub(super) missing: bool,
}

impl Ways<'_> {
    fn concerns(&self, change: &Change) -> bool {
        match change {
            // With a link all routes over it go, of which nobody tells.
            Change::Link { name } => match self.device {
                Some(device) => name == device,
                None => ![frames::PORTS, SHAPERS].iter().any(|pods| name.starts_with(pods)),
            },
            Change::RouteGone(range) => self.refused.contains(range) || self.peers.iter().any(|peer| peer.ranges.contains(range)),
            Change::Connected(_) => self.missing,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_concerns_the_ways() {
        let peer = Peer {
            ranges: vec!["10.42.1.0/24".parse().unwrap()],
            address: "192.168.0.2".parse().unwrap(),
            addresses: Vec::new(),
            key: None,
        };
        let peers = [peer].into();
        let check = |change: Change, device: Option<&str>, missing: bool, expected: bool| {
            let refused = ["10.99.0.0/16".parse().unwrap()];
            let ways = Ways { peers: &peers, device, refused: &refused, missing };
            assert_eq!(ways.concerns(&change), expected, "{change:?} {device:?}");
        };
        let link = |name: &str| Change::Link { name: name.to_owned() };
        let range = |range: &str| range.parse().unwrap();
        check(link("eth0"), None, false, true);
        check(link("eth0"), Some("knarr-vxlan"), true, false);
        check(link("knarr-vxlan"), Some("knarr-vxlan"), false, true);
        // Those of pods come and go all the time.
        check(link("knv0123456789a"), None, true, false);
        check(link("knq0123456789a"), None, true, false);
        for device in [None, Some("knarr-vxlan")] {
            check(Change::RouteGone(range("10.42.1.0/24")), device, false, true);
            check(Change::RouteGone(range("10.42.2.0/24")), device, true, false);
            // Without it, packets to nodes without a key would leave in the clear.
            check(Change::RouteGone(range("10.99.0.0/16")), device, false, true);
            check(Change::Connected(range("192.168.0.0/24")), device, true, true);
            check(Change::Connected(range("192.168.0.0/24")), device, false, false);
        }
    }
}
