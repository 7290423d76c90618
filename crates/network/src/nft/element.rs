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
}

fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
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
