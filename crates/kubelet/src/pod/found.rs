//! What is there of a pod before anything is done for it.

use base::files::{self, Outlives};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::PodStatus;
use runtime::api::{Container, Sandbox};

use crate::context::Context;

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

/// What the runtime holds, by pod.
///
/// # Errors
/// It does not say.
pub async fn inventory(cx: &Context) -> Result<HashMap<String, Found>, runtime::api::Error> {
    let runtime = cx.runtime();
    let (sandboxes, containers, past) =
        tokio::try_join!(runtime.sandboxes(), runtime.containers(None), runtime.past_containers())?;
    let pods: HashMap<String, String> = sandboxes.iter().map(|sandbox| (sandbox.id.clone(), sandbox.pod.uid.clone())).collect();
    let mut found: HashMap<String, Found> = HashMap::new();
    for sandbox in sandboxes {
        found.entry(sandbox.pod.uid.clone()).or_default().sandboxes.push(sandbox);
    }
    for container in containers {
        if let Some(uid) = pods.get(&container.sandbox) {
            found.entry(uid.clone()).or_default().containers.push(container);
        }
    }
    for (uid, container) in past {
        found.entry(uid).or_default().containers.push(container);
    }
    Ok(found)
}
