//! What containers have on the node's disk. To measure it takes longer than all else, so that scrapes get what was measured last.

use std::collections::HashMap;
use std::sync::Arc;

use runtime::DiskUsage;

use super::paced::Paced;
use super::{PodUsage, Snapshot};
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
pub(crate) struct Disks(Paced<HashMap<String, Disk>>);

impl Disks {
    /// Measures the containers of a snapshot, and remembers it for scrapes.
    pub(crate) async fn measure(&self, cx: &Arc<Context>, snapshot: &mut Snapshot) {
        let disks = self.0.measured(measure(cx.clone(), snapshot.pods.clone())).await;
        fill(snapshot, &disks);
    }

    /// Completes a snapshot with what is known, and measures anew when it is time to.
    pub(crate) async fn scrape(&self, cx: &Arc<Context>, snapshot: &mut Snapshot) {
        let (of, pods) = (cx.clone(), &snapshot.pods);
        let disks = self.0.scraped(&cx.tasks, "sizes of containers", || measure(of, pods.clone())).await;
        fill(snapshot, &disks);
    }
}

fn fill(snapshot: &mut Snapshot, disks: &HashMap<String, Disk>) {
    for container in snapshot.pods.iter_mut().flat_map(|pod| &mut pod.containers) {
        container.disk = disks.get(&container.id).copied().unwrap_or_default();
    }
}

async fn measure(cx: Arc<Context>, pods: Vec<PodUsage>) -> HashMap<String, Disk> {
    let mut disks = HashMap::new();
    for pod in &pods {
        let logs = cx.options.pod_logs_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid));
        for container in &pod.containers {
            let log = logs.join(&container.name);
            let disk = Disk {
                rootfs: cx.runtime().container_disk_usage(&container.id).await.ok(),
                logs: tokio::task::spawn_blocking(move || runtime::disk_usage(&log)).await.ok(),
            };
            disks.insert(container.id.clone(), disk);
        }
    }
    disks
}
