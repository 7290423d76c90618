//! What containers have on the node's disk. To measure it takes longer than all else, so that whoever asks gets what was measured
//! last, and one that has much keeps back none of the others.

use std::path::PathBuf;
use std::sync::Arc;

use runtime::DiskUsage;

use super::paced::Each;
use super::{ContainerUsage, PodUsage, Snapshot};
use crate::context::Context;

/// What a container has on the node's disk; none where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// What it changed of its image.
    pub(crate) rootfs: Option<DiskUsage>,
    pub(crate) logs: Option<DiskUsage>,
}

/// What the containers have on disk, by identifier. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Disks(Each<Disk>);

impl Disks {
    /// Completes a snapshot with what is known, and measures anew what it is time for.
    pub(crate) async fn complete(&self, cx: &Arc<Context>, snapshot: &mut Snapshot) {
        let of_pod = |pod: &PodUsage| {
            let logs = cx.options.pod_logs_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid));
            let one = |container: &ContainerUsage| {
                (container.id.clone(), measure(cx.clone(), container.id.clone(), logs.join(&container.name)))
            };
            pod.containers.iter().map(one).collect::<Vec<_>>()
        };
        let all = snapshot.pods.iter().flat_map(of_pod).collect();
        let disks = self.0.scraped(&cx.tasks, "size of a container", all).await;
        for container in snapshot.pods.iter_mut().flat_map(|pod| &mut pod.containers) {
            container.disk = disks.get(&container.id).map(|disk| **disk).unwrap_or_default();
        }
    }
}

async fn measure(cx: Arc<Context>, id: String, log: PathBuf) -> Disk {
    Disk {
        rootfs: cx.runtime().container_disk_usage(&id).await.ok(),
        logs: tokio::task::spawn_blocking(move || runtime::disk_usage(&log)).await.ok(),
    }
}
