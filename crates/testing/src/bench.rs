//! What `cargo xtask bench` measures. It runs in a program of its own, built for speed as the server is.

pub mod alone;
pub mod extensions;
pub mod hollow;
pub mod load;
pub mod names;
pub mod pods;
pub mod ratios;
pub mod scale;
pub mod services;
pub mod traffic;
pub mod usage;
pub mod web;
pub mod yardstick;

use bytes::Bytes;
use serde_json::json;

/// Connections of the load generator.
pub const CLIENTS: usize = 64;
/// ConfigMaps of the load.
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Pods of the load.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// A ConfigMap of 2 KB.
pub fn config_map(prefix: &str, number: u64) -> Bytes {
    let data = "x".repeat(2048);
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{prefix}-{number}")}, "data": {"d": data}});
    Bytes::from(object.to_string())
}
