//! Elements of sets, and the addresses and ports that they are made of.

use std::net::IpAddr;

use super::batch::Value;
use super::set::SetId;
use super::{Family, octets};

/// Transport protocols that services and policies have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// By the name that the API uses; none means TCP.
    pub fn from_name(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where clients connect to. The unspecified address stands for every address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Address
    pub address: IpAddr,
    /// Protocol
    pub protocol: Protocol,
    /// Port
    pub port: u16,
}

impl Key {
    /// As the key of an element.
    pub(crate) fn bytes(self) -> Vec<u8> {
        [&octets(self.address)[..], &[self.protocol.number(), 0, 0, 0], &padded_port(self.port)].concat()
    }

    /// What [`Key::bytes`] has written; more may follow it.
    pub(crate) fn parse(family: Family, bytes: &[u8]) -> Option<Self> {
        let (address, rest) = split_address(family.address_len() as usize, bytes)?;
        let protocol =
            [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|one| Some(&one.number()) == rest.first())?;
        Some(Self { address, protocol, port: port_at(rest.get(4..)?)? })
    }
}

/// Where connections are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address
    pub address: IpAddr,
    /// Port
    pub port: u16,
}

impl Endpoint {
    /// As a part of an element.
    pub(crate) fn bytes(self) -> Vec<u8> {
        [&octets(self.address)[..], &padded_port(self.port)].concat()
    }

    /// What [`Endpoint::bytes`] has written.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (address, rest) = split_address(bytes.len().checked_sub(PORT)?, bytes)?;
        Some(Self { address, port: port_at(rest)? })
    }
}

/// Bytes of a port.
const PORT: usize = 4;

fn padded_port(port: u16) -> [u8; PORT] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn port_at(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// An address of this length, and what follows it.
fn split_address(len: usize, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (address, rest) = bytes.split_at_checked(len)?;
    let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
    Some((v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from)).ok()?, rest))
}

/// By what right an owner claims a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// The cluster has given the address to the owner.
    ClusterIp,
    /// The owner has named the address itself: node ports, host ports, external addresses.
    #[default]
    External,
    /// The owner is a load balancer, and the address is in its status.
    Balancer,
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub(crate) family: Family,
    pub(crate) set: SetId,
    pub(crate) key: Box<[u8]>,
    pub(crate) value: Value,
    pub(crate) claim: Claim,
}

impl Element {
    /// An element of the table of `family`.
    pub(crate) fn new(family: Family, set: SetId, key: Vec<u8>, value: Value) -> Self {
        Self { family, set, key: key.into(), value, claim: Claim::default() }
    }

    /// The same element with another right to it.
    pub fn claimed(self, claim: Claim) -> Self {
        Self { claim, ..self }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for address in ["192.0.2.1", "fd00::1"] {
            let (address, port): (IpAddr, u16) = (address.parse().unwrap(), 443);
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let key = Key { address, protocol, port };
                let slot = [key.bytes(), vec![7, 0, 0, 0]].concat();
                assert_eq!([&key.bytes(), &slot].map(|bytes| Key::parse(Family::of(address), bytes)), [Some(key); 2]);
            }
            let endpoint = Endpoint { address, port };
            assert_eq!(Endpoint::parse(&endpoint.bytes()), Some(endpoint));
        }
        assert_eq!((Endpoint::parse(&[1; 3]), Key::parse(Family::V4, &[1; 9])), (None, None));
    }
}
