//! The work queue of a controller: each key once, never two workers on one key, delays, and back-off per key.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use client::Key;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1000);

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    /// Keys in `ready`, and keys to be put there when their worker is done.
    dirty: HashSet<Key>,
    running: HashSet<Key>,
    failures: HashMap<Key, u32>,
    delayed: BTreeMap<(Instant, Key), ()>,
    due: HashMap<Key, Instant>,
}

/// Cheap to clone. One consumer.
#[derive(Clone, Default)]
pub(crate) struct Queue {
    state: Arc<Mutex<State>>,
    wake: Arc<Notify>,
}

impl State {
    fn add(&mut self, key: Key) {
        if self.dirty.insert(key.clone()) && !self.running.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: Key, due: Instant) {
        match self.due.get(&key) {
            Some(earlier) if *earlier <= due => return,
            Some(later) => self.delayed.remove(&(*later, key.clone())),
            None => None,
        };
        self.due.insert(key.clone(), due);
        self.delayed.insert((due, key), ());
    }

    /// Moves what is due to `ready`; the time of the next that is not.
    fn ripen(&mut self, now: Instant) -> Option<Instant> {
        while let Some(((due, _), ())) = self.delayed.first_key_value() {
            if *due > now {
                return Some(*due);
            }
            if let Some(((_, key), ())) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
        None
    }
}

impl Queue {
    /// Adds a key now.
    pub(crate) fn add(&self, key: Key) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// Adds a key after `delay`. Of several delays the earliest counts.
    pub(crate) fn add_after(&self, key: Key, delay: Duration) {
        self.state.lock().delay(key, Instant::now() + delay);
        self.wake.notify_one();
    }

    /// Adds a key after the back-off of its failures.
    pub(crate) fn retry(&self, key: Key) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let delay = jitter(backoff(*failures));
        *failures += 1;
        state.delay(key, Instant::now() + delay);
        self.wake.notify_one();
    }

    /// Forgets the failures of a key.
    pub(crate) fn succeeded(&self, key: &Key) {
        self.state.lock().failures.remove(key);
    }

    /// The next key to work on; [`Queue::done`] must follow. Safe to drop and call again.
    pub(crate) async fn next(&self) -> Key {
        loop {
            let due = {
                let mut state = self.state.lock();
                let due = state.ripen(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.running.insert(key.clone());
                    return key;
                }
                due
            };
            match due {
                Some(due) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    /// The worker of `key` is through.
    pub(crate) fn done(&self, key: &Key) {
        let mut state = self.state.lock();
        state.running.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            self.wake.notify_one();
        }
    }

    /// How many keys wait now.
    pub(crate) fn depth(&self) -> usize {
        self.state.lock().ready.len()
    }
}

/// client-go's: 5 ms, doubled up to 1,000 s.
fn backoff(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY_MAX)
}

/// Up to a quarter more, so that keys that failed together do not come back together.
fn jitter(delay: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 256;
    delay + delay.mul_f64(random as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backs_off_exponentially() {
        for (failures, millis) in [(0, 5), (1, 10), (10, 5120), (18, 1_000_000), (60, 1_000_000)] {
            assert_eq!(backoff(failures), Duration::from_millis(millis));
        }
    }

    #[tokio::test]
    async fn gives_each_key_to_one_worker() {
        let (queue, a, b) = (Queue::default(), Key::cluster("a"), Key::cluster("b"));
        queue.add(a.clone());
        queue.add(a.clone());
        assert_eq!(queue.next().await, a);
        queue.add(a.clone());
        queue.add(b.clone());
        assert_eq!(queue.next().await, b);
        assert_eq!(queue.depth(), 0);
        queue.done(&a);
        assert_eq!(queue.next().await, a);
    }

    #[tokio::test]
    async fn delays_and_retries() {
        let (queue, a, b) = (Queue::default(), Key::cluster("a"), Key::cluster("b"));
        queue.add_after(a.clone(), Duration::from_secs(60));
        queue.add_after(b.clone(), Duration::from_millis(20));
        queue.add_after(a.clone(), Duration::from_millis(10));
        let start = Instant::now();
        assert_eq!(queue.next().await, a);
        assert_eq!(queue.next().await, b);
        assert!(start.elapsed() >= Duration::from_millis(20));
        queue.done(&b);
        queue.retry(b.clone());
        assert_eq!(queue.next().await, b);
        assert!(start.elapsed() >= Duration::from_millis(25));
    }
}
