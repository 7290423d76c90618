//! What a pod means, for everyone who asks: API server, scheduler, controllers and kubelet. Pure.
//!
//! Each rule stands here once. The types are those of the API.

pub mod app_armor;
pub mod claims;
pub mod csi;
pub mod features;
pub mod legacy_tokens;
pub mod nodes;
pub mod ports;
pub mod qos;
pub mod quota;
pub mod references;
pub mod resources;
pub mod security;
pub mod signals;
pub mod slices;
pub mod state;
pub mod sysctls;
pub mod tolerations;
pub mod volumes;

use codec::Decode;
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// The specification of a pod as it is stored; None when it is none.
pub fn spec_of_value(pod: &serde_json::Value) -> Option<PodSpec> {
    PodSpec::from_tree(pod.get("spec")?).ok()
}

/// Whether an init container is a sidecar: it starts in its turn and stays beside the others (KEP-753).
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// Containers and init containers. Ephemeral ones have no resources and no rights of their own.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}
