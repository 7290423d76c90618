//! How long an owner of pods waits before another takes the place of one that has failed: pods that a kubelet refuses would otherwise come and go
//! hundreds of times a second, for as long as the node has no room for them. (Upstream's controllers are also held by the rate of their client.)

use std::collections::HashMap;
use std::time::Duration;

use client::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Entry {
    last: Instant,
    delay: Duration,
}

/// Waits by owner and place: a node, the name of a pod, or the owner as a whole (an empty one).
pub(crate) struct Backoff {
    longest: Duration,
    entries: Mutex<HashMap<Key, HashMap<String, Entry>>>,
}

impl Backoff {
    /// Each wait is twice the one before, up to `longest`.
    pub(crate) fn new(longest: Duration) -> Self {
        Self { longest, entries: Mutex::default() }
    }

    /// How long a failure of before counts.
    pub(crate) fn memory(&self) -> Duration {
        2 * self.longest
    }

    /// How long the failed pod of the owner at `place` is not replaced yet.
    pub(crate) fn left(&self, owner: &Key, place: &str, now: Instant) -> Option<Duration> {
        let entries = self.entries.lock();
        let entry = entries.get(owner)?.get(place)?;
        entry.delay.checked_sub(now - entry.last).filter(|left| !left.is_zero())
    }

    /// A failed pod of the owner at `place` is replaced now: the next one waits longer.
    pub(crate) fn failed(&self, owner: &Key, place: &str, now: Instant) {
        let mut entries = self.entries.lock();
        let places = entries.entry(owner.clone()).or_default();
        // Who ran that long without failing begins anew.
        places.retain(|_, entry| now - entry.last <= self.memory());
        let delay = places.get(place).map_or(FIRST, |entry| (entry.delay * 2).min(self.longest));
        places.insert(place.to_owned(), Entry { last: now, delay });
    }

    /// How long the replacement waits; none when it is made now, after which the next one waits longer.
    pub(crate) fn wait(&self, owner: &Key, place: &str, now: Instant) -> Option<Duration> {
        let left = self.left(owner, place, now);
        if left.is_none() {
            self.failed(owner, place, now);
        }
        left
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.entries.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_is_forgotten() {
        let (backoff, set) = (Backoff::new(Duration::from_secs(900)), Key::namespaced("a", "web"));
        let start = Instant::now();
        let check = |node: &str, after: u64, expected: Option<u64>| {
            let left = backoff.left(&set, node, start + Duration::from_secs(after));
            assert_eq!(left.map(|left| left.as_secs()), expected, "{node} after {after} s");
        };
        check("n", 0, None);
        for expected in [1, 2, 4] {
            backoff.failed(&set, "n", start);
            check("n", 0, Some(expected));
            check("m", 0, None);
        }
        check("n", 3, Some(1));
        check("n", 4, None);
        (0..20).for_each(|_| backoff.failed(&set, "n", start));
        check("n", 0, Some(900));
        backoff.failed(&set, "n", start + backoff.memory() + FIRST);
        check("n", 1801, Some(1));
        backoff.forget(&set);
        check("n", 1801, None);
    }

    #[test]
    fn replacements_come_less_and_less_often() {
        let (backoff, set) = (Backoff::new(Duration::from_secs(60)), Key::namespaced("a", "web"));
        let (mut made, mut waits) = (Instant::now(), Vec::new());
        for _ in 0..9 {
            let mut now = made;
            while let Some(left) = backoff.wait(&set, "", now) {
                now += left;
            }
            waits.push((now - made).as_secs());
            made = now;
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
