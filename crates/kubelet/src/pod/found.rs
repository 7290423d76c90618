//! What is there of a pod before anything is done for it.

use base::files::{self, Outlives};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::PodStatus;
use runtime::api::{Container, Sandbox};

/// What the runtime holds of a pod when its worker starts.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// Its containers. Where there is no sandbox, those of before a restart of the machine.
    pub containers: Vec<Container>,
    /// By name, the number from which on a container was made after the newest restart of all.
    pub rounds: BTreeMap<String, u32>,
}

/// In a pod's directory, the record of the newest restart of all its containers (KEP-5532).
const ROUNDS: &str = "restarts";

/// Reads the record, nothing where there is none. Blocking.
///
/// # Errors
/// It cannot be read.
pub fn read_rounds(pod_dir: &Path) -> io::Result<BTreeMap<String, u32>> {
    Ok(base::records::read_json(&pod_dir.join(ROUNDS))?.unwrap_or_default())
}

/// Replaces the record, also when the machine crashes. Blocking.
///
/// # Errors
/// It is not written: the containers that ended would be taken for ones of the new round.
pub fn write_rounds(pod_dir: &Path, rounds: &BTreeMap<String, u32>) -> io::Result<()> {
    files::replace(&pod_dir.join(ROUNDS), &serde_json::to_vec(rounds)?, Outlives::Machine)
}

/// Whether the API has the pod's final phase.
pub fn ended(status: &PodStatus) -> bool {
    pods::state::is_last_phase(status.phase.as_deref().unwrap_or_default())
}
