//! Removing everything of a pod that the API no longer has.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use runtime::api::ContainerState;

use crate::claims;
use crate::context::Context;
use crate::logs::links;
use crate::volumes;

/// Time for the containers of a pod that nobody knows any more.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

/// Stops and removes the pod's sandboxes, then its volumes, logs and directory, which says which logs are its own. Idempotent.
pub async fn remove_pod(cx: &Context, uid: &str, logs: Option<&Path>) -> Result<(), String> {
    let runtime = cx.runtime();
    let sandboxes = runtime.sandboxes().await.map_err(|error| error.to_string())?;
    for sandbox in sandboxes.iter().filter(|sandbox| sandbox.pod.uid == uid) {
        let removed = async {
            let containers = runtime.containers(Some(&sandbox.id)).await?;
            let running = containers.iter().filter(|container| container.state == ContainerState::Running);
            join_all(running.map(|container| runtime.stop_container(&container.id, ORPHAN_GRACE, None))).await;
            runtime.stop_sandbox(&sandbox.id).await?;
            runtime.remove_sandbox(&sandbox.id).await
        };
        removed.await.map_err(|error: runtime::api::Error| format!("cannot remove sandbox {}: {error}", sandbox.id))?;
    }
    runtime.forget_past(uid).await.map_err(|error| error.to_string())?;
    let directory = cx.pod_dir(uid);
    volumes::remove(cx, uid).await?;
    cx.give_back(uid).await;
    claims::prepare::give_back(cx, uid).await?;
    if let Some(logs) = logs {
        forget_links(cx, logs.to_owned()).await;
    }
    for path in logs.into_iter().chain([directory.as_path()]) {
        let (tree, failed) = (path.to_owned(), |error: String| format!("cannot remove {}: {error}", path.display()));
        let removed = tokio::task::spawn_blocking(move || base::trees::remove(&tree)).await;
        removed.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    }
    cx.users.release(uid);
    Ok(())
}

/// Removes what leads log collectors to logs that are about to go.
pub async fn forget_links(cx: &Context, logs: PathBuf) {
    let directory = links::directory(&cx.options.pod_logs_dir);
    let removed = tokio::task::spawn_blocking(move || links::remove(&directory, &logs)).await;
    if let Err(error) = removed.unwrap_or_else(|error| Err(io::Error::other(error))) {
        tracing::warn!(%error, "links to logs that are gone are left");
    }
}
