//! Changes of pods, and the size of logs.
//!
//! A runtime is asked for all that it has once a second, and at once after what the kubelet itself has done. The interface has a stream of
//! events, which CRI-O and containerd serve only where they are configured to, and in which what happened while nobody was connected is lost:
//! who follows it has to ask for everything anyway, as upstream does (KEP-3386, "Generic PLEG"). This is the one place of Knarr where
//! something is looked at again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use runtime::api::{Result, RuntimeEvent};
use runtime::rotation;
use tokio::sync::watch;

use super::Inner;
use super::records::{Log, internal};
use super::requests::POD_UID;
use crate::messages::*;

/// Time between two looks; upstream's.
const AGAIN: Duration = Duration::from_secs(1);
/// Looks between two at the size of logs; upstream's `containerLogMonitorInterval` is 10 s.
const LOGS: u32 = 10;

/// What each pod has, by its UID: identifiers and states of sandboxes and containers.
pub(super) type Seen = Arc<BTreeMap<String, BTreeMap<String, i32>>>;

impl Inner {
    /// Looks for changes until it is dropped.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut told = false;
        for look in 1_u32.. {
            match self.look().await {
                Ok(seen) => {
                    told = false;
                    self.seen.send_if_modified(|known| {
                        let changed = *known != seen;
                        *known = seen;
                        changed
                    });
                }
                // Nothing of what runs is taken for gone.
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(%error, "the container runtime does not answer");
                }
                Err(_) => {}
            }
            if look % LOGS == 0 {
                let seen = self.seen.borrow().clone();
                self.rotate_logs(&seen).await;
            }
            // Who acted wants to be told at once.
            let _ = tokio::time::timeout(AGAIN, self.acted.notified()).await;
        }
    }

    async fn look(&self) -> Result<Seen> {
        let (sandboxes, containers) = (self.listed_sandboxes().await?, self.listed(None).await?);
        let of_sandboxes = sandboxes.into_iter().map(|one| (one.labels, one.id, one.state));
        let of_containers = containers.into_iter().map(|one| (one.labels, one.id, one.state));
        let mut seen = BTreeMap::<String, BTreeMap<String, i32>>::new();
        for (mut labels, id, state) in of_sandboxes.chain(of_containers) {
            if let Some(uid) = labels.remove(POD_UID) {
                seen.entry(uid).or_default().insert(id, state);
            }
        }
        Ok(Arc::new(seen))
    }

    /// Moves logs away that have become too long. The runtime writes them, and opens them again when it is told to.
    async fn rotate_logs(&self, seen: &Seen) {
        let running = seen.values().flatten().filter(|(_, state)| **state == ContainerState::Running as i32);
        // What has a sandbox's number is none of a container.
        let logs: Vec<_> = running.filter_map(|(id, _)| Some((id.clone(), self.records.containers.get(id)?.log?))).collect();
        let long = move |(_, log): &(String, Log)| std::fs::metadata(&log.path).is_ok_and(|found| found.len() > log.bytes);
        let too_long = tokio::task::spawn_blocking(move || logs.into_iter().filter(long).collect::<Vec<_>>()).await;
        for (id, log) in too_long.unwrap_or_default() {
            if let Err(error) = self.rotate(&id, log).await {
                tracing::warn!(container = id, %error, "the log cannot be rotated");
            }
        }
    }

    async fn rotate(&self, id: &str, log: Log) -> Result<()> {
        let Log { path, files, .. } = log;
        let old = rotation::aside(&path);
        tokio::fs::rename(&path, &old).await.map_err(internal)?;
        let opened = self.call(ReopenContainerLogRequest { container_id: id.to_owned() }).await;
        if let Err(error) = opened {
            // It goes on under its name.
            let _ = tokio::fs::rename(&old, &path).await;
            return Err(error);
        }
        let removed = tokio::task::spawn_blocking(move || rotation::remove_surplus(&path, files)).await;
        removed.map_err(internal)?.map_err(internal)
    }
}

/// The pods that change from now on. A slow reader compares what it saw last with what is there now: it misses none.
pub(super) fn events(mut seen: watch::Receiver<Seen>) -> BoxStream<'static, RuntimeEvent> {
    let known = seen.borrow_and_update().clone();
    let changes = stream::unfold((seen, known), |(mut seen, known)| async move {
        seen.changed().await.ok()?;
        let now = seen.borrow_and_update().clone();
        let changed: Vec<_> = changed(&known, &now).into_iter().map(|pod_uid| RuntimeEvent { pod_uid }).collect();
        Some((stream::iter(changed), (seen, now)))
    });
    changes.flatten().boxed()
}

fn changed(known: &Seen, now: &Seen) -> Vec<String> {
    let gone = known.keys().filter(|uid| !now.contains_key(*uid));
    let others = now.iter().filter(|(uid, has)| known.get(*uid) != Some(*has)).map(|(uid, _)| uid);
    gone.chain(others).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn seen(pods: &[(&str, &[(&str, i32)])]) -> Seen {
        let has = |ids: &[(&str, i32)]| ids.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect();
        Arc::new(pods.iter().map(|(uid, ids)| ((*uid).to_owned(), has(ids))).collect())
    }

    #[tokio::test]
    async fn a_slow_reader_misses_no_pod() {
        let (sender, receiver) = watch::channel(seen(&[("a", &[("1", 0)]), ("b", &[("2", 1)]), ("c", &[])]));
        let mut events = events(receiver);
        sender.send_replace(seen(&[("a", &[("1", 1)]), ("b", &[("2", 1)])]));
        sender.send_replace(seen(&[("a", &[("1", 1)]), ("b", &[("2", 1)]), ("d", &[("3", 0)])]));
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(events.next().await.unwrap().pod_uid);
        }
        told.sort();
        assert_eq!(told, ["a", "c", "d"]);
        drop(sender);
        assert!(events.next().await.is_none());
    }
}
