//! What is there of a pod before anything is done for it.

use k8s_openapi::api::core::v1::PodStatus;
use runtime::api::{Container, Sandbox};

/// What the runtime holds of a pod when its worker starts.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// Its containers.
    pub containers: Vec<Container>,
}

/// Whether the API has the pod's final phase.
pub fn ended(status: &PodStatus) -> bool {
    pods::state::is_last_phase(status.phase.as_deref().unwrap_or_default())
}
