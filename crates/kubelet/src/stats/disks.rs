//! What containers have on the node's disk. To measure it takes longer than all else, so that scrapes get what was measured last.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::OnFailure;
use parking_lot::Mutex;
use runtime::DiskUsage;
use tokio::time::Instant;

use super::{PodUsage, Snapshot};
use crate::context::Context;

/// How long a scrape waits for a measurement that it has begun; then it gets what is known from before.
const PATIENCE: Duration = Duration::from_millis(500);
/// What scrapes get is at least so old before it is measured again, and no more than a tenth of a processor is used for that.
const PAUSE: Duration = Duration::from_secs(10);

/// What a container has on the node's disk; none where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// What it changed of its image.
    pub(crate) rootfs: Option<DiskUsage>,
    pub(crate) logs: Option<DiskUsage>,
}

/// What was measured last.
#[derive(Default)]
struct Last {
    disks: HashMap<String, Disk>,
    /// Scrapes measure again from then on.
    due: Option<Instant>,
    is_running: bool,
}

/// What the containers have on disk, by identifier. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Disks(Arc<Mutex<Last>>);

impl Disks {
    /// Measures the containers of a snapshot, and remembers it for scrapes.
    pub(crate) async fn measure(&self, cx: &Arc<Context>, snapshot: &mut Snapshot) {
        let begun = Instant::now();
        let disks = measure(cx, &snapshot.pods).await;
        let ended = Instant::now();
        {
            let mut last = self.0.lock();
            last.due = Some(ended + PAUSE.max((ended - begun) * 9));
            last.disks = disks;
        }
        self.fill(snapshot);
    }

    /// Completes a snapshot with what is known, and measures anew when it is time to.
    pub(crate) async fn scrape(&self, cx: &Arc<Context>, snapshot: &mut Snapshot) {
        if self.begin(Instant::now()) {
            let (own, of, mut measured) = (self.clone(), cx.clone(), snapshot.clone());
            let (done, is_done) = tokio::sync::oneshot::channel();
            cx.tasks.spawn_until_cancelled("sizes of containers", OnFailure::Log, async move {
                own.measure(&of, &mut measured).await;
                own.0.lock().is_running = false;
                // Who asked may have gone on with what was known.
                let _ = done.send(());
                Ok::<_, Infallible>(())
            });
            // What is not known in time is there at the next scrape.
            let _ = tokio::time::timeout(PATIENCE, is_done).await;
        }
        self.fill(snapshot);
    }

    /// Whether it is time to measure, by whoever asks first.
    fn begin(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let begins = !last.is_running && last.due.is_none_or(|due| due <= now);
        last.is_running |= begins;
        begins
    }

    fn fill(&self, snapshot: &mut Snapshot) {
        let last = self.0.lock();
        for container in snapshot.pods.iter_mut().flat_map(|pod| &mut pod.containers) {
            container.disk = last.disks.get(&container.id).copied().unwrap_or_default();
        }
    }
}

async fn measure(cx: &Arc<Context>, pods: &[PodUsage]) -> HashMap<String, Disk> {
    let mut disks = HashMap::new();
    for pod in pods {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapes_measure_one_at_a_time_and_not_all_the_time() {
        let (disks, now) = (Disks::default(), Instant::now());
        assert!(disks.begin(now) && !disks.begin(now), "one measures");
        {
            let mut last = disks.0.lock();
            (last.is_running, last.due) = (false, Some(now + PAUSE));
        }
        assert!(!disks.begin(now + PAUSE / 2) && disks.begin(now + PAUSE));
    }
}
