//! The kernel's table of tracked connections: UDP flows are found in it and forgotten.
//!
//! The rules are asked about the first packet of a flow only. A client that keeps its port keeps its entry, and with it the destination chosen first,
//! for as long as it sends: [`crate::nft::table`] has those forgotten that go elsewhere than the rules lead.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::netlink::{self, Socket, attribute};
use crate::nft::Family;
use crate::nft::element::{Endpoint, Protocol};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;

/// A tracked UDP flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Where the client sends to.
    pub(crate) to: Endpoint,
    /// Where answers come from.
    pub(crate) from: Endpoint,
    original: Vec<u8>,
    id: Vec<u8>,
}

#[cfg(test)]
impl Flow {
    pub(crate) fn new(to: Endpoint, from: Endpoint) -> Self {
        Self { to, from, original: Vec::new(), id: Vec::new() }
    }
}

/// The UDP flows of a family to where `is_asked` says so.
pub(crate) fn find(family: Family, is_asked: impl Fn(Endpoint) -> bool) -> Result<Vec<Flow>, netlink::Error> {
    let mut found = Vec::new();
    let take = |reply: &netlink::Reply<'_>| {
        let attrs = reply.payload.get(4..).unwrap_or_default();
        found.extend(parse(attrs, &is_asked));
    };
    open()?.dump("list connections", GET, &fixed(family), |_| (), take)?;
    Ok(found)
}

/// Forgets flows of a family. Returns how many were still there.
pub(crate) fn forget(family: Family, flows: &[Flow]) -> Result<usize, netlink::Error> {
    let mut socket = open()?;
    let mut count = 0;
    for flow in flows {
        let deleted = socket.request("forget a connection", (DELETE, 0), &fixed(family), |b| {
            b.nested(TUPLE_ORIGINAL, |b| b.raw(&flow.original));
            b.attr(ID, &flow.id);
        });
        match deleted {
            Ok(()) => count += 1,
            Err(error) if error.errno() == Some(Errno::ENOENT) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn open() -> Result<Socket, netlink::Error> {
    let error = |source| netlink::Error::Socket { what: "open the connection table", source };
    Socket::open(SockProtocol::NetlinkNetFilter).map_err(error)
}

fn fixed(family: Family) -> [u8; 4] {
    [family.protocol(), 0, 0, 0]
}

fn parse(attrs: &[u8], is_asked: impl Fn(Endpoint) -> bool) -> Option<Flow> {
    let original = attribute(attrs, TUPLE_ORIGINAL)?;
    let protocol = *attribute(attribute(original, 2)?, 1)?.first()?;
    if protocol != Protocol::Udp.number() {
        return None;
    }
    let to = end(original, false)?;
    if !is_asked(to) {
        return None;
    }
    let from = end(attribute(attrs, TUPLE_REPLY)?, true)?;
    Some(Flow { to, from, original: original.to_vec(), id: attribute(attrs, ID)?.to_vec() })
}

/// The source or destination of a tuple.
fn end(tuple: &[u8], source: bool) -> Option<Endpoint> {
    let (ip, protocol) = (attribute(tuple, 1)?, attribute(tuple, 2)?);
    let (v4, v6, port) = if source { (1, 3, 2) } else { (2, 4, 3) };
    let address = match (attribute(ip, v4), attribute(ip, v6)) {
        (Some(bytes), _) => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        (None, bytes) => IpAddr::from(<[u8; 16]>::try_from(bytes?).ok()?),
    };
    Some(Endpoint { address, port: u16::from_be_bytes(attribute(protocol, port)?.try_into().ok()?) })
}
