//! The data plane in nf_tables: one table whose rules look everything up in maps.
//!
//! It is made of *features* ([`features`]): services, host ports, policies, guards. Each contributes sets, chains and elements;
//! what is contributed by whom, and what therefore changes, is decided by [`contents`], and who owns an address and port of the node by
//! [`claims`], which are pure. A change is sent as one
//! atomic batch of the differences. The kernel is never listed: our own state is the truth, and when a batch does not fit,
//! the table is replaced as a whole.
//!
//! [`batch`] is the encoding, [`table`] the effects, [`flows`] says which tracked UDP flows the rules would lead elsewhere, [`watch`] tells when somebody else deletes of it, [`host`] a look at the host's own firewall.

pub(crate) mod batch;
pub mod claims;
pub mod contents;
pub mod element;
pub(crate) mod expr;
pub mod features;
mod flows;
pub mod host;
pub(crate) mod machine;
pub(crate) mod outside;
pub(crate) mod set;
pub mod table;
pub mod watch;

pub use features::Config;

use std::net::IpAddr;

/// An address family; each has its own table, so that keys have one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
    /// Frames of bridges.
    Bridge,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// NFPROTO_IPV4, NFPROTO_IPV6 or NFPROTO_BRIDGE.
    pub(crate) fn protocol(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
            Self::Bridge => 7,
        }
    }

    /// Bytes of an address. In frames there are both, as fields of their own.
    pub(crate) fn address_len(self) -> u32 {
        match self {
            Self::V4 | Self::Bridge => 4,
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
            Self::V4 | Self::Bridge => IpAddr::from([0; 4]),
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
