//! What sandboxes that are gone still have of network plugins. A plugin may fail, or be gone itself for a while: it is asked again, ever more seldom, until it has taken away
//! what it has given, and nobody waits for it.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::PodNetwork;
use crate::retry::Retry;

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Sandboxes whose plugins run at once: each may take minutes.
const PARALLEL: usize = 4;

/// Sandboxes to be released, shared with those who find them.
#[derive(Debug, Default)]
pub(super) struct Gone {
    waiting: Mutex<BTreeMap<String, Retry>>,
    news: Notify,
}

impl Gone {
    /// One more, at once; or, if that was tried just now, in a while.
    pub(super) fn add(&self, sandbox: &str, now: Instant, tried: bool) {
        let retry = || {
            let mut retry = Retry::new(RETRY_MIN, RETRY_MAX);
            if tried {
                retry.failed(now);
            }
            retry
        };
        self.waiting.lock().entry(sandbox.to_owned()).or_insert_with(retry);
        self.news.notify_one();
    }

    /// It has nothing any more, or is there again.
    pub(super) fn remove(&self, sandbox: &str) {
        self.waiting.lock().remove(sandbox);
    }

    /// Those whose time has come, but for those that are tried already; and when the next one's comes.
    fn due(&self, now: Instant, under_way: &HashSet<String>) -> (Vec<String>, Option<Instant>) {
        let waiting = self.waiting.lock();
        // What has not been tried is due.
        let mut all: Vec<(Instant, &String)> =
            waiting.iter().filter(|(id, _)| !under_way.contains(*id)).map(|(id, one)| (one.at().unwrap_or(now), id)).collect();
        all.sort_unstable();
        let later = all.partition_point(|(at, _)| *at <= now);
        (all[..later].iter().map(|(_, id)| (*id).clone()).collect(), all.get(later).map(|(at, _)| *at))
    }

    /// Returns after how long it is tried again.
    fn failed(&self, sandbox: &str, now: Instant) -> Option<Duration> {
        let mut waiting = self.waiting.lock();
        let one = waiting.get_mut(sandbox)?;
        one.failed(now);
        Some(one.at()?.saturating_duration_since(now))
    }
}

impl PodNetwork {
    /// Releases, as long as it runs, what network plugins have not taken away when they were asked first, and what [`Self::reconcile`] has left to it.
    pub async fn release_gone(self) -> Infallible {
        let gone = &self.0.gone;
        let mut under_way = HashSet::new();
        let mut running = FuturesUnordered::new();
        loop {
            let (due, next) = gone.due(Instant::now(), &under_way);
            for sandbox in due.into_iter().take(PARALLEL - running.len()) {
                under_way.insert(sandbox.clone());
                let network = &self;
                running.push(async move {
                    let released = network.detach(&sandbox).await;
                    (sandbox, released)
                });
            }
            tokio::select! {
                Some((sandbox, released)) = running.next(), if !running.is_empty() => {
                    under_way.remove(&sandbox);
                    if let Err(error) = released
                        && let Some(wait) = gone.failed(&sandbox, Instant::now())
                    {
                        tracing::warn!(%sandbox, %error, "what a sandbox that is gone has of the network cannot be released, trying again in {wait:?}");
                    }
                }
                () = gone.news.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() && running.len() < PARALLEL => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_is_tried_ever_more_seldom() {
        let (gone, none) = (Gone::default(), HashSet::new());
        let start = Instant::now();
        gone.add("a", start, false);
        gone.add("b", start, true);
        let (due, next) = gone.due(start, &none);
        assert_eq!((due, next), (vec!["a".to_owned()], Some(start + RETRY_MIN)));
        assert_eq!(gone.due(start, &["a".to_owned()].into()).0, Vec::<String>::new());
        let mut now = start;
        let mut fail = || {
            let wait = gone.failed("a", now).unwrap();
            now += wait;
            wait.as_secs()
        };
        let waits: Vec<u64> = (0..11).map(|_| fail()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // Found once more, it waits all the same.
        gone.add("a", now - RETRY_MIN, false);
        assert_eq!(gone.due(now - RETRY_MIN, &none).0, ["b"]);
        gone.remove("b");
        assert_eq!(gone.due(now, &none).0, ["a"]);
        gone.remove("a");
        assert_eq!((gone.due(now, &none), gone.failed("a", now)), ((Vec::new(), None), None));
    }
}
