//! The node's network: pod network, service proxy, and the one nf_tables table that both share.
//!
//! - [`pod`]: bridge, addresses, veth pairs, host ports;
//! - [`addresses`]: changes of the machine's own;
//! - [`hosts`]: several hosts on one machine;
//! - [`nft`]: the table, its pure contents and their encoding;
//! - [`proxy`]: what Services and their endpoints contribute to it;
//! - [`policy`]: what network policies contribute to it.

mod annotation;
mod conntrack;
pub mod netlink;
mod netns;
pub mod nft;
pub mod pod;
pub mod policy;

pub use annotation::Annotation;
pub use nft::element::Protocol;
pub use pod::{Attachment, Backend, Bandwidth, HostPort, Options, PodNetwork, addresses, check_owner, cni, hosts, teardown};
pub mod proxy;
mod retry;
