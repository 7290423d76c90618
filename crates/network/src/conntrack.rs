//! Forgetting tracked UDP connections that still go to endpoints which are gone.
//!
//! A UDP client that keeps its port keeps its entry in the connection table, and with it the endpoint chosen first.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::netlink::{self, Socket, attribute};
use crate::nft::Family;
use crate::nft::element::{Endpoint, Key, Protocol};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    protocol: u8,
    /// Where the client sends to.
    to: Endpoint,
    /// Where answers come from.
    from: Endpoint,
    original: Vec<u8>,
    id: Vec<u8>,
}

/// Deletes the connections to each key that lead to none of its endpoints. Returns how many.
pub(crate) fn forget(stale: &[(Key, Vec<Endpoint>)]) -> Result<usize, netlink::Error> {
    let open = |source| netlink::Error::Socket { what: "open the connection table", source };
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(open)?;
    let mut count = 0;
    for family in [Family::V4, Family::V6] {
        let concerned = stale.iter().filter(|(key, _)| Family::of(key.address) == family);
        let concerned: Vec<&(Key, Vec<Endpoint>)> = concerned.collect();
        if concerned.is_empty() {
            continue;
        }
        let fixed = [family.protocol(), 0, 0, 0];
        let mut doomed = Vec::new();
        socket.dump(
            "list connections",
            GET,
            &fixed,
            |_| (),
            |reply| {
                let attrs = reply.payload.get(4..).unwrap_or_default();
                doomed.extend(parse(attrs).filter(|flow| concerned.iter().any(|(key, valid)| is_stale(flow, *key, valid))));
            },
        )?;
        for flow in doomed {
            let deleted = socket.request("forget a connection", (DELETE, 0), &fixed, |b| {
                b.nested(TUPLE_ORIGINAL, |b| b.raw(&flow.original));
                b.attr(ID, &flow.id);
            });
            match deleted {
                Ok(()) => count += 1,
                Err(error) if error.errno() == Some(Errno::ENOENT) => (),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(count)
}

fn is_stale(flow: &Flow, key: Key, valid: &[Endpoint]) -> bool {
    flow.protocol == Protocol::Udp.number()
        && key.protocol == Protocol::Udp
        && flow.to.port == key.port
        && (flow.to.address == key.address || key.address.is_unspecified())
        && !valid.contains(&flow.from)
}

fn parse(attrs: &[u8]) -> Option<Flow> {
    let original = attribute(attrs, TUPLE_ORIGINAL)?;
    let reply = attribute(attrs, TUPLE_REPLY)?;
    let protocol = *attribute(attribute(original, 2)?, 1)?.first()?;
    Some(Flow {
        protocol,
        to: end(original, false)?,
        from: end(reply, true)?,
        original: original.to_vec(),
        id: attribute(attrs, ID)?.to_vec(),
    })
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
