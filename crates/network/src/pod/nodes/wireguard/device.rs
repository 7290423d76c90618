//! A WireGuard device as the kernel has it (linux/wireguard.h).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use nix::errno::Errno;

use super::{Change, PublicKey};
use crate::netlink::generic::Family;
use crate::netlink::{Buffer, Error, attribute, attributes};
use crate::nft::octets;

/// The kind of such links.
pub(crate) const KIND: &str = "wireguard";

const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const DEVICE_IFNAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_ALLOWED: u16 = 9;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_PREFIX: u16 = 3;
const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;
/// Seconds between two packets to a peer: its address translator keeps the way, and finds a peer that has moved.
const KEEPALIVE: u16 = 25;
/// Peers of one message: what an attribute holds has 64 KiB at most.
const AT_ONCE: usize = 64;

/// What the kernel has of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) ranges: BTreeSet<IpNet>,
    /// How long ago it proved last that it has the key.
    pub(super) handshake: Option<Duration>,
}

/// The device of this name.
pub(crate) struct Device {
    family: Family,
    name: String,
}

impl Device {
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        Ok(Self { family: Family::open("look for WireGuard", KIND)?, name: name.to_owned() })
    }

    /// Gives it its key and its port; says whether it had to: a key that is given again makes it shake hands with everybody anew.
    pub(super) fn configure(&mut self, private: &[u8; 32], port: u16) -> Result<bool, Error> {
        let mut has = false;
        self.get(|all| {
            let is_key = attribute(all, DEVICE_PRIVATE_KEY).is_some_and(|key| is_same(key, private));
            has |= is_key && attribute(all, DEVICE_LISTEN_PORT) == Some(&port.to_ne_bytes());
        })?;
        if has {
            return Ok(false);
        }
        let set = self.family.request("set up WireGuard", SET_DEVICE, |b| {
            b.string(DEVICE_IFNAME, &self.name);
            b.attr(DEVICE_PRIVATE_KEY, private);
            b.attr(DEVICE_LISTEN_PORT, &port.to_ne_bytes());
        });
        set.map(|()| true)
    }

    /// Its own public key, which the kernel makes of the private one, and its peers.
    pub(super) fn peers(&mut self) -> Result<(Option<PublicKey>, BTreeMap<PublicKey, Present>), Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (mut own, mut peers) = (None, BTreeMap::<_, Present>::new());
        self.get(|all| {
            own = own.or(attribute(all, DEVICE_PUBLIC_KEY).and_then(key));
            // A peer with many ranges comes in several messages.
            for (key, present) in
                attributes(attribute(all, DEVICE_PEERS).unwrap_or_default()).filter_map(|(_, one)| peer(one, now))
            {
                let known = peers.entry(key).or_default();
                known.ranges.extend(present.ranges);
                known.handshake = known.handshake.or(present.handshake);
            }
        })?;
        Ok((own, peers))
    }

    /// Its own public key.
    pub(crate) fn public_key(&mut self) -> Result<Option<PublicKey>, Error> {
        self.peers().map(|(own, _)| own)
    }

    /// Makes these changes, in this order.
    pub(super) fn change(&mut self, changes: &[(PublicKey, Change)]) -> Result<(), Error> {
        for part in changes.chunks(AT_ONCE) {
            self.family.request("change the peers of WireGuard", SET_DEVICE, |b| {
                b.string(DEVICE_IFNAME, &self.name);
                b.nested(DEVICE_PEERS, |b| part.iter().for_each(|(key, change)| b.nested(0, |b| put(b, key, change))));
            })?;
        }
        Ok(())
    }

    fn get(&mut self, each: impl FnMut(&[u8])) -> Result<(), Error> {
        let name = self.name.clone();
        self.family.dump("look at WireGuard", GET_DEVICE, |b| b.string(DEVICE_IFNAME, &name), each)
    }
}

/// No error where there is no such device.
pub(crate) fn public_key(name: &str) -> Result<Option<PublicKey>, Error> {
    match Device::open(name).and_then(|mut device| device.public_key()) {
        Err(error) if matches!(error.errno(), Some(Errno::ENODEV | Errno::ENOENT)) => Ok(None),
        other => other,
    }
}

/// Compares keys in a time that says nothing of them.
fn is_same(one: &[u8], other: &[u8; 32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |found, (a, b)| found | (a ^ b)) == 0
}

fn put(b: &mut Buffer, key: &PublicKey, change: &Change) {
    b.attr(PEER_PUBLIC_KEY, key.bytes());
    match change {
        Change::Remove => b.u32(PEER_FLAGS, REMOVE),
        Change::Set { endpoint, ranges } => {
            b.u32(PEER_FLAGS, REPLACE_ALLOWED);
            if let Some(endpoint) = endpoint {
                b.attr(PEER_ENDPOINT, &socket_address(*endpoint));
            }
            b.attr(PEER_KEEPALIVE, &KEEPALIVE.to_ne_bytes());
            b.nested(PEER_ALLOWED, |b| ranges.iter().for_each(|range| b.nested(0, |b| put_range(b, *range))));
        }
    }
}

fn put_range(b: &mut Buffer, range: IpNet) {
    b.attr(ALLOWED_FAMILY, &family(range.addr()).to_ne_bytes());
    b.attr(ALLOWED_ADDRESS, &octets(range.network()));
    b.attr(ALLOWED_PREFIX, &[range.prefix_len()]);
}

fn family(address: IpAddr) -> u16 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u16
}

/// struct sockaddr_in or sockaddr_in6
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let begin = [family(address.ip()).to_ne_bytes(), address.port().to_be_bytes()].concat();
    match address.ip() {
        IpAddr::V4(v4) => [&begin, &v4.octets()[..], &[0; 8]].concat(),
        IpAddr::V6(v6) => [&begin, &[0; 4][..], &v6.octets(), &[0; 4]].concat(),
    }
}

fn key(bytes: &[u8]) -> Option<PublicKey> {
    <[u8; 32]>::try_from(bytes).ok().map(PublicKey::from)
}

fn peer(one: &[u8], now: Duration) -> Option<(PublicKey, Present)> {
    let ranges = attributes(attribute(one, PEER_ALLOWED).unwrap_or_default()).filter_map(|(_, allowed)| range(allowed)).collect();
    // struct __kernel_timespec; zero before the first one.
    let seconds = attribute(one, PEER_LAST_HANDSHAKE).and_then(|bytes| bytes.get(..8)?.try_into().ok()).map(u64::from_ne_bytes);
    let handshake = seconds.filter(|seconds| *seconds > 0).map(|seconds| now.saturating_sub(Duration::from_secs(seconds)));
    Some((key(attribute(one, PEER_PUBLIC_KEY)?)?, Present { ranges, handshake }))
}

fn range(allowed: &[u8]) -> Option<IpNet> {
    let bytes = attribute(allowed, ALLOWED_ADDRESS)?;
    let address = <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()?;
    IpNet::new(address, *attribute(allowed, ALLOWED_PREFIX)?.first()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_as_the_kernel_has_them() {
        let found = socket_address("192.0.2.1:51871".parse().unwrap());
        assert_eq!(found, [2, 0, 0xca, 0x9f, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let found = socket_address("[fd00::1]:51871".parse().unwrap());
        assert_eq!((found.len(), &found[..8], found[8], found[23]), (28, &[10, 0, 0xca, 0x9f, 0, 0, 0, 0][..], 0xfd, 1));
    }

    /// What is put is what is read.
    #[test]
    fn peers_as_the_kernel_has_them() {
        let all: BTreeSet<IpNet> = ["10.42.1.0/24", "fd42:0:0:1::/64"].map(|range| range.parse().unwrap()).into();
        let change = Change::Set { endpoint: None, ranges: all.clone() };
        let mut b = Buffer::default();
        put(&mut b, &PublicKey::from([7; 32]), &change);
        let at = Duration::from_secs(1_000);
        b.attr(PEER_LAST_HANDSHAKE, &[900_u64.to_ne_bytes(), [0; 8]].concat());
        let expected = Present { ranges: all, handshake: Some(Duration::from_secs(100)) };
        assert_eq!(peer(b.as_slice(), at), Some((PublicKey::from([7; 32]), expected)));
        for end in 0..b.len() {
            peer(&b.as_slice()[..end], at);
        }
    }

    #[test]
    fn a_hundred_peers_fit_into_messages() {
        let ranges: BTreeSet<IpNet> = ["10.42.1.0/24", "fd42:0:0:1::/64"].map(|range| range.parse().unwrap()).into();
        let endpoint = Some("[fd00::1]:51871".parse().unwrap());
        let mut b = Buffer::default();
        let all = |b: &mut Buffer| {
            (0..AT_ONCE).for_each(|n| {
                b.nested(0, |b| put(b, &PublicKey::from([n as u8; 32]), &Change::Set { endpoint, ranges: ranges.clone() }))
            })
        };
        b.nested(DEVICE_PEERS, all);
        assert!(b.len() < usize::from(u16::MAX) / 2, "{}", b.len());
    }
}
