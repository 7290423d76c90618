//! Rounds of the collector: what of this node's images is in use, and who hears of those that went.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use client::events::Type;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::time::Instant;

use super::collector::{Error, Round};
use crate::context::Context;
use crate::images;
use crate::node::machine;
use crate::spec::Model;
use crate::volumes::mounts::image_volumes;

/// How often it is looked whether images have to go: upstream's `ImageGCPeriod`. Nothing tells that a disk fills up.
const PERIOD: Duration = Duration::from_secs(300);

/// The images that containers have, and those that these pods have or are about to have.
async fn used(cx: &Context, pods: &[Model]) -> Result<HashSet<String>, runtime::api::Error> {
    let containers = cx.runtime().containers(None).await?;
    let mut used: HashSet<String> = containers.into_iter().map(|container| container.image).collect();
    for model in pods {
        for member in model.members.iter() {
            let own = member.spec.image.iter().cloned();
            let mounted = image_volumes(model, &member.spec).filter_map(|(_, source)| source.reference.clone());
            for reference in own.chain(mounted) {
                // What cannot be looked for cannot be removed by that name either.
                if let Ok(Some(image)) = cx.runtime().image(&reference).await {
                    used.insert(image.id);
                }
            }
        }
    }
    Ok(used)
}

/// Has the rest of the kubelet know of images that are gone.
async fn tell(cx: &Context, removed: usize) {
    if removed > 0 {
        cx.node_changed.notify_one();
        if let Err(error) = images::settle(cx).await {
            tracing::warn!(%error, "records of images that are gone are left");
        }
    }
}

/// Removes all images that nobody uses, because the disk is short.
pub async fn free_unused(cx: &Context, active: &[Model]) -> Result<(), Error> {
    let Round { removed, outcome } =
        cx.collector.free_unused(cx.runtime().as_ref(), &used(cx, active).await?, Instant::now()).await;
    tell(cx, removed).await;
    outcome
}

/// Removes images, now and every five minutes, until cancelled. `node` is what events are about.
pub async fn run(cx: Arc<Context>, node: ObjectReference) -> Result<(), Infallible> {
    // Before that nobody knows which images pods are about to use.
    cx.pods_of_node().synced().await;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut has_failed = false;
    loop {
        ticks.tick().await;
        let Err(error) = round(&cx).await else {
            has_failed = false;
            continue;
        };
        tracing::warn!(%error, "images cannot be collected");
        if let Some(reason) = error.reason() {
            cx.recorder.event(&node, Type::Warning, reason, error.to_string());
        }
        // As upstream: what fails once may be well the next time.
        if std::mem::replace(&mut has_failed, true) {
            cx.recorder.event(&node, Type::Warning, "ImageGCFailed", error.to_string());
        }
    }
}

async fn round(cx: &Arc<Context>) -> Result<(), Error> {
    let of_api = cx.pods_of_node().list().into_iter().map(Model::new);
    let pods: Vec<Model> = cx.evictions.active().await.into_iter().chain(of_api).collect();
    let used = used(cx, &pods).await?;
    let directory = cx.runtime().image_directory();
    // A process that stops collects nothing.
    let disk = tokio::task::spawn_blocking(move || machine::disk(&directory)).await.ok().flatten();
    let (runtime, bytes) = (cx.runtime().as_ref(), disk.map(|(bytes, _)| bytes));
    let Round { removed, outcome } = cx.collector.collect(runtime, &used, bytes, Instant::now()).await;
    tell(cx, removed).await;
    outcome
}
