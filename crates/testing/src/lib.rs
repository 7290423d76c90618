//! Clusters for tests and benchmarks: the real `knarr` binary on a [`Machine`] of its own, driven by real clients.
//!
//! A machine is a set of Linux namespaces (network, mount, process, host name, IPC, cgroup) with its own address, so
//! several run side by side and each vanishes as a whole. The thread that makes one enters its network: clients
//! started from that thread reach the cluster at 127.0.0.1.

#![allow(clippy::unwrap_used, reason = "only tests and benchmarks use this crate; a panic is a failed test")]

pub mod api;
pub mod bench;
pub mod cluster;
mod disk;
mod hosts;
pub mod http;
pub mod kubectl;
pub mod machine;
pub mod manifests;
pub mod pebble;
pub mod programs;
pub mod readme;
pub mod registry;
pub mod steady;
pub mod wait;

pub use api::{Answer, Api};
pub use cluster::Cluster;
pub use kubectl::{Background, Outcome};
pub use machine::Machine;
pub use readme::Reader;
pub use registry::RegistryProxy;
pub use wait::{eventually, eventually_or};
