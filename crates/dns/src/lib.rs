//! Cluster DNS: answers for the cluster domain from the informer caches, forwards everything else.
//!
//! The server listens on the cluster DNS address itself, which every node's pod network puts on the pod bridge. So
//! pods and host processes ask the server of their own node, nothing is translated, and names resolve also while the
//! API server or the service proxy is away. The kube-dns Service may exist beside it for clients that look it up; the
//! proxy leaves addresses alone that the node itself has.
//!
//! - [`core`]: question to answer, pure; [`state`]: what the names mean;
//! - `message`: what is asked and answered, EDNS, pure; `encode`: answers as bytes, within limits, pure;
//! - `forward`, `cache`, `resolv`: other servers and what they said; `wire`: their messages as bytes, pure;
//! - `known`: what was answered lately, encoded; [`batch`]: datagrams, many at once;
//! - [`server`]: sockets and tasks.

pub mod batch;
mod cache;
pub mod core;
mod encode;
mod forward;
mod known;
mod message;
mod metrics;
mod resolv;
pub mod server;
pub mod state;
mod wire;

pub use server::{Error, Options, Server, Upstreams};
