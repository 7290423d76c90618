//! The node's network: pod network, service proxy, and the one nf_tables table that both share.
//!
//! - [`pod`]: bridge, addresses, veth pairs, host ports;
//! - [`nft`]: the table, its pure contents and their encoding;

pub mod netlink;
pub mod nft;
pub mod pod;

pub use pod::{HostPort, Options, PodNetwork, teardown};
pub mod proxy;
