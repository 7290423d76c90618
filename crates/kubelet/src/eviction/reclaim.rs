//! What goes before pods do when the disk is short: containers of pods that have ended, and images that nobody uses.

use std::collections::HashSet;

use runtime::api::ContainerState;

use crate::context::Context;
use crate::images;
use crate::spec::Model;
use crate::volumes::mounts::image_volumes;

/// Removes them. `active` are the pods that take something of the node.
pub async fn reclaim(cx: &Context, active: &[Model]) {
    if let Err(error) = remove_containers(cx, active).await {
        tracing::warn!(%error, "cannot remove containers of pods that have ended");
    }
    match remove_images(cx, active).await {
        Ok(0) => {}
        Ok(count) => {
            tracing::info!(count, "removed images that nobody uses, because the disk is short");
            cx.node_changed.notify_one();
            if let Err(error) = images::settle(cx).await {
                tracing::warn!(%error, "records of images that are gone are left");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot remove images that nobody uses"),
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

/// Images that a pod is about to use are used, too.
async fn remove_images(cx: &Context, active: &[Model]) -> Result<usize, runtime::api::Error> {
    let mut wanted = HashSet::new();
    for model in active {
        for member in model.members.iter() {
            let own = member.spec.image.iter().cloned();
            let mounted = image_volumes(model, &member.spec).filter_map(|(_, source)| source.reference.clone());
            for reference in own.chain(mounted) {
                // What cannot be looked for cannot be removed by that name either.
                if let Ok(Some(image)) = cx.runtime().image(&reference).await {
                    wanted.insert(image.id);
                }
            }
        }
    }
    let mut removed = 0;
    for image in cx.runtime().images().await?.into_iter().filter(|image| !image.pinned && !wanted.contains(&image.id)) {
        match cx.runtime().remove_image(&image.id).await {
            Ok(()) => removed += 1,
            Err(error) => tracing::debug!(image = image.id, %error, "the image stays"),
        }
    }
    Ok(removed)
}
