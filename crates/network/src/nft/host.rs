//! What the host's own firewall does that pods depend on.
//!
//! A packet that one table drops no other can save: where the firewall forwards nothing by default, as Docker and many
//! hardened hosts set it up, pods reach nobody until the administrator lets them. All we can do is say so.

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::Family;
use super::table::Error;
use crate::netlink::{Socket, attribute};

/// NFT_MSG_GETCHAIN
const GET_CHAIN: u16 = 10 << 8 | 4;
/// NFTA_CHAIN_POLICY
const POLICY: u16 = 5;

/// Whether the chain FORWARD of the table `filter`, where iptables keeps its rules, drops what no rule accepts.
pub fn drops_forwarded(family: Family) -> Result<bool, Error> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(Error::Open)?;
    let fixed = [family.protocol(), 0, 0, 0];
    let mut policy = None;
    let name = |b: &mut crate::netlink::Buffer| {
        b.string(1, "filter");
        b.string(3, "FORWARD");
    };
    let found = socket.query("look for the host's firewall", GET_CHAIN, &fixed, name, |reply| {
        policy = reply.payload.get(4..).and_then(|attrs| attribute(attrs, POLICY)).map(<[u8]>::to_vec);
    });
    match found {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
        Err(source) => Err(Error::Batch { table: "filter".to_owned(), source }),
        // NF_DROP
        Ok(()) => Ok(policy.as_deref() == Some(&[0, 0, 0, 0])),
    }
}

/// Tells the administrator when pods depend on rules of the firewall.
pub(crate) fn warn(families: &[Family], bridge: &str) {
    for family in families {
        let program = if *family == Family::V4 { "iptables" } else { "ip6tables" };
        match drops_forwarded(*family) {
            Ok(true) => tracing::warn!(
                "the host's firewall forwards nothing by default ({program} chain FORWARD has the policy DROP): where it has no rules \
                 for pods they reach nobody; allow them: {program} -I FORWARD -i {bridge} -j ACCEPT; \
                 {program} -I FORWARD -o {bridge} -j ACCEPT"
            ),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the host's firewall cannot be read"),
        }
    }
}
