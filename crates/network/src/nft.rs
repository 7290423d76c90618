//! The data plane in nf_tables: one table of a fixed set of rules that look everything up in maps.
//!
//! No chain belongs to a service. `services` maps (address, protocol, port) to a *code*: how many endpoints there
//! are and how to choose one. `dispatch` maps the code to a chain shared by all services of that code, which draws a
//! slot at random and looks (address, protocol, port, slot) up in `slots` for the endpoint. A change of a service is
//! therefore a change of a few map elements, sent as one atomic batch. The kernel is never listed: our own state is
//! the truth, and when a batch does not fit, the table is replaced as a whole.
//!
//! [`ruleset`] is the pure part (elements, claims, deltas), [`skeleton`] the rules, [`batch`] the encoding,
//! [`table`] the effects, [`host`] a look at the host's own firewall.

pub(crate) mod batch;
pub(crate) mod expr;
pub mod host;
mod map;
pub mod ruleset;
pub(crate) mod skeleton;
pub mod table;

pub use skeleton::Config;

use std::net::IpAddr;

/// An address family; each has its own table, so that keys have one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// NFPROTO_IPV4 or NFPROTO_IPV6.
    pub(crate) fn protocol(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Bytes of an address.
    pub(crate) fn address_len(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// 32-bit registers that an address takes.
    pub(crate) fn address_regs(self) -> u32 {
        self.address_len() / 4
    }

    /// The address that stands for every address of the node.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([0; 4]),
            Self::V6 => IpAddr::from([0; 16]),
        }
    }
}

/// Bytes of an address in network order.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
