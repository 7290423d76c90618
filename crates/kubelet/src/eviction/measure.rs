//! What pods have of something that is short.

use std::collections::BTreeMap;
use std::sync::Arc;

use runtime::DiskUsage;

use super::message::ContainerUse;
use super::rank::Candidate;
use super::signal::Signal;
use crate::context::Context;
use crate::spec::Model;
use crate::{resources, stats, storage};

/// One pod's part.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// For its place in the order.
    pub candidate: Candidate,
    /// What its containers have, for the message.
    pub containers: Vec<ContainerUse>,
}

/// Measures all of `models`. Pods of which nothing runs have no measurement, and go first.
pub async fn all(cx: &Arc<Context>, signal: Signal, has_image_disk: bool, models: &[Model]) -> BTreeMap<String, Measured> {
    let pods: Vec<_> = models.iter().map(|model| model.pod.clone()).collect();
    let snapshot = stats::collect(cx, &pods).await.inspect_err(|error| tracing::warn!(%error, "cannot measure the pods")).ok();
    let running = |uid: &str| snapshot.as_ref().and_then(|snapshot| snapshot.pods.iter().find(|pod| pod.uid == uid));
    let mut all = BTreeMap::new();
    for model in models {
        let mut measured = Measured { candidate: candidate(model, signal), ..Measured::default() };
        if let Some(pod) = running(model.uid()) {
            match signal {
                Signal::MemoryAvailable | Signal::AllocatableMemoryAvailable => of_memory(&mut measured, pod),
                Signal::PidAvailable => measured.candidate.used = i64::try_from(pod.usage.processes).ok(),
                _ => of_disk(cx, signal, has_image_disk, model, pod, &mut measured).await,
            }
        }
        all.insert(model.uid().to_owned(), measured);
    }
    all
}

fn candidate(model: &Model, signal: Signal) -> Candidate {
    let request = match signal.resource() {
        // Nobody can ask for the others.
        name @ ("memory" | "ephemeral-storage") => resources::pod_request(model, name) / 1000,
        _ => 0,
    };
    Candidate { uid: model.uid().to_owned(), priority: model.spec().priority.unwrap_or(0), used: None, request }
}

fn of_memory(measured: &mut Measured, pod: &stats::PodUsage) {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    measured.candidate.used = Some(bytes(pod.usage.memory.working_set));
    let container = |container: &stats::ContainerUsage| ContainerUse {
        name: container.name.clone(),
        used: bytes(container.usage.memory.working_set),
    };
    measured.containers = pod.containers.iter().map(container).collect();
}

async fn of_disk(
    cx: &Context,
    signal: Signal,
    has_image_disk: bool,
    model: &Model,
    pod: &stats::PodUsage,
    measured: &mut Measured,
) {
    let containers = pod.containers.iter().map(|container| (container.name.clone(), container.id.clone())).collect();
    let usage = storage::measure(cx, model, containers).await;
    let of_image_disk = matches!(signal, Signal::ImageFsAvailable | Signal::ImageFsInodesFree);
    let number = |usage: &DiskUsage| {
        let of_bytes = matches!(signal, Signal::NodeFsAvailable | Signal::ImageFsAvailable);
        i64::try_from(if of_bytes { usage.bytes } else { usage.inodes }).unwrap_or(i64::MAX)
    };
    // With a disk for images, what a container changes of its image is there, and volumes and logs are not.
    let all = |parts: &BTreeMap<String, DiskUsage>| parts.values().map(number).sum::<i64>();
    let (own, others) = (all(&usage.written), all(&usage.volumes) + all(&usage.logs));
    measured.candidate.used = Some(match (has_image_disk, of_image_disk) {
        (false, _) => own + others,
        (true, true) => own,
        (true, false) => others,
    });
    if signal.resource() == "ephemeral-storage" {
        let used =
            |name: &String| [&usage.written, &usage.logs].into_iter().filter_map(|parts| parts.get(name)).map(number).sum();
        let named = pod.containers.iter().map(|container| &container.name);
        measured.containers = named.map(|name| ContainerUse { name: name.clone(), used: used(name) }).collect();
    }
}
