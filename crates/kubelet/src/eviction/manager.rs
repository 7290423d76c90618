//! The eviction manager: looks every ten seconds whether something is short, says so, and ends one pod after the other until it is not.
//!
//! Nothing tells that a disk or the process ids run out. That memory does is told by the kernel, where it has pressure stall information: then
//! it is looked at at once.

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base::metrics::Page;
use client::events::Type;
use k8s_openapi::api::core::v1::ObjectReference;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use runtime::Stalls;
use tokio_util::sync::CancellationToken;

use super::measure::{self, Measured};
use super::message;
use super::pressure::{Observations, Pressures};
use super::rank::rank;
use super::reclaim::reclaim;
use super::signal::{Condition, Signal};
use super::threshold::Threshold;
use crate::context::Context;
use crate::node::machine;
use crate::node::supply::Supply;
use crate::pod::state::Evicted;
use crate::spec::Model;

/// How long an evicted pod is waited for before it is looked again.
const CLEANUP: Duration = Duration::from_secs(30);
/// What a pod gets for a hard threshold.
const AT_ONCE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    eviction_signal: &'static str,
}

static EVICTIONS: LazyLock<Family<Label, Counter>> = LazyLock::new(|| {
    Page::Node.register_bare("kubelet_evictions", "Cumulative number of pod evictions by eviction signal", Family::default())
});

/// The eviction manager of one node.
pub struct Manager {
    cx: Arc<Context>,
    pressures: Pressures,
    image_dir: PathBuf,
    /// Images and what containers write are on another disk than volumes and logs.
    has_image_disk: bool,
}

/// What a round has found to do.
struct Starved {
    thresholds: Vec<Threshold>,
    observations: Observations,
}

impl Starved {
    fn signal(&self) -> Signal {
        self.thresholds[0].signal
    }
}

impl Manager {
    /// Looks for the first time, so that the node registers with the conditions that it has.
    pub async fn new(cx: Arc<Context>) -> Self {
        let image_dir = cx.runtime().image_directory();
        let device = |path: &PathBuf| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
        let has_image_disk = device(&image_dir) != device(&cx.options.data_dir);
        let mut manager = Self { cx, pressures: Pressures::default(), image_dir, has_image_disk };
        manager.look().await;
        manager
    }

    /// Runs until cancelled. `node` is what events are about.
    pub async fn run(mut self, node: ObjectReference) -> Result<(), Infallible> {
        let mut stalls = Stalls::open();
        loop {
            match self.round(&node).await {
                Some(settled) => {
                    if tokio::time::timeout(CLEANUP, settled.cancelled()).await.is_err() {
                        tracing::warn!("an evicted pod does not end in time");
                    }
                }
                None => tokio::select! {
                    () = tokio::time::sleep(self.cx.options.eviction.period) => {}
                    () = stalls.next() => {}
                },
            }
        }
    }

    /// Measures, and tells of the conditions.
    async fn look(&mut self) -> Option<Starved> {
        let observations = self.observe().await;
        let settings = &self.cx.options.eviction;
        let verdict = self.pressures.observe(settings, &observations, self.cx.clock.now());
        let changed = self.cx.conditions.send_if_modified(|known| {
            let changed = *known != verdict.conditions;
            known.clone_from(&verdict.conditions);
            changed
        });
        if changed {
            self.cx.node_changed.notify_one();
        }
        let thresholds: Vec<_> = verdict.starved.into_iter().cloned().collect();
        (!thresholds.is_empty()).then_some(Starved { thresholds, observations })
    }

    async fn observe(&self) -> Observations {
        let (data_dir, image_dir) = (self.cx.options.data_dir.clone(), self.image_dir.clone());
        let read = move || (machine::supplies(&data_dir), machine::disk(&image_dir));
        let Ok((node, image)) = tokio::task::spawn_blocking(read).await else { return Observations::new() };
        let (image_disk, image_inodes) = image.unzip();
        let all_pods = self.cx.runtime().group_usage("kubepods").await.ok().map(|usage| {
            let total = self.cx.allocatable.memory_limit;
            Supply { total, available: total.saturating_sub(i64::try_from(usage.memory.working_set).unwrap_or(i64::MAX)) }
        });
        // File systems that make inodes as they need them tell of none.
        let counted = |supply: Option<Supply>| supply.filter(|supply| supply.total > 0);
        let supplies = [
            (Signal::MemoryAvailable, node.memory),
            (Signal::AllocatableMemoryAvailable, all_pods),
            (Signal::NodeFsAvailable, node.disk),
            (Signal::NodeFsInodesFree, counted(node.inodes)),
            (Signal::ImageFsAvailable, image_disk),
            (Signal::ImageFsInodesFree, counted(image_inodes)),
            (Signal::PidAvailable, node.processes),
        ];
        supplies.into_iter().filter_map(|(signal, supply)| Some((signal, supply?))).collect()
    }

    /// Looks, gives back what nobody needs, and begins the end of one pod if that is not enough.
    async fn round(&mut self, node: &ObjectReference) -> Option<CancellationToken> {
        let starved = self.look().await?;
        let resource = starved.signal().resource();
        let message = format!("Attempting to reclaim {resource}");
        self.cx.recorder.event(node, Type::Warning, "EvictionThresholdMet", message);
        let active = self.cx.evictions.active().await;
        if self.reclaims(starved.signal()) {
            reclaim(&self.cx, &active).await;
            let observations = self.observe().await;
            if self.pressures.is_resolved(&self.cx.options.eviction, &observations) {
                tracing::info!(resource, "enough of it is free without the eviction of a pod");
                return None;
            }
        }
        self.evict_one(&starved, &active).await
    }

    /// Whether images and containers take of what is short.
    fn reclaims(&self, signal: Signal) -> bool {
        match signal {
            Signal::NodeFsAvailable | Signal::NodeFsInodesFree => !self.has_image_disk,
            _ => signal.condition() == Condition::Disk,
        }
    }

    async fn evict_one(&self, starved: &Starved, active: &[Model]) -> Option<CancellationToken> {
        let signal = starved.signal();
        let candidates: Vec<_> = active.iter().filter(|model| !pods::state::is_critical(&model.pod)).cloned().collect();
        let mut measured = measure::all(&self.cx, signal, self.has_image_disk, &candidates).await;
        let mut order: Vec<_> = measured.values().map(|measured| measured.candidate.clone()).collect();
        rank(signal, &mut order);
        let Some(first) = order.first() else {
            tracing::warn!(resource = signal.resource(), "something is short, and there is no pod to evict");
            return None;
        };
        let model = candidates.iter().find(|model| model.uid() == first.uid)?;
        let Measured { containers, .. } = measured.remove(&first.uid)?;
        let thresholds: Vec<_> = starved.thresholds.iter().collect();
        let why = message::of_pod(&thresholds, &starved.observations, model, &containers);
        let own = model.spec().termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30);
        let grace = match starved.thresholds[0].is_hard() {
            true => AT_ONCE,
            false => self.cx.options.eviction.max_pod_grace.min(Duration::from_secs(own)).max(AT_ONCE),
        };
        tracing::warn!(pod = model.title(), why = why.message, "evicting a pod");
        EVICTIONS.get_or_create(&Label { eviction_signal: signal.name() }).inc();
        Some(self.cx.evictions.evict(model.uid(), Evicted::under_pressure(why.message, why.annotations, grace)).await.settled)
    }
}
