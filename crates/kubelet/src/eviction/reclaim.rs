//! What goes before pods do when the disk is short: containers of pods that have ended, and images that nobody uses.

use std::collections::HashSet;

use runtime::api::ContainerState;

use crate::context::Context;
use crate::images::garbage::rounds;
use crate::spec::Model;

/// Removes them. `active` are the pods that take something of the node.
pub async fn reclaim(cx: &Context, active: &[Model]) {
    if let Err(error) = remove_containers(cx, active).await {
        tracing::warn!(%error, "cannot remove containers of pods that have ended");
    }
    if let Err(error) = rounds::free_unused(cx, active).await {
        tracing::warn!(%error, "cannot remove images that nobody uses");
    }
}

/// Their logs stay, and what is reported of them; what they have written goes.
async fn remove_containers(cx: &Context, active: &[Model]) -> Result<(), runtime::api::Error> {
    let alive: HashSet<&str> = active.iter().map(Model::uid).collect();
    for sandbox in cx.runtime().sandboxes().await?.iter().filter(|sandbox| !alive.contains(sandbox.pod.uid.as_str())) {
        let containers = cx.runtime().containers(Some(&sandbox.id)).await?;
        for container in containers.iter().filter(|container| container.state == ContainerState::Exited) {
            cx.runtime().remove_container(&container.id).await?;
        }
    }
    Ok(())
}
