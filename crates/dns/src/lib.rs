//! Cluster DNS: answers for the cluster domain from the informer caches, forwards everything else.
//!
//! The server listens on the cluster DNS address itself, which every node's pod network puts on the pod bridge. So
//! pods and host processes ask the server of their own node, nothing is translated, and names resolve also while the
//! API server or the service proxy is away. The kube-dns Service may exist beside it for clients that look it up.

pub mod core;
pub mod state;
