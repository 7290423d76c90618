//! How long a failed pod stays before another takes its place: a pod that a kubelet refuses would otherwise come and go all the time.

use std::collections::HashMap;
use std::time::Duration;

use client::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

#[derive(Clone, Copy)]
struct Entry {
    last: Instant,
    delay: Duration,
}

/// Waits by set and node.
#[derive(Default)]
pub(super) struct Backoff {
    entries: Mutex<HashMap<Key, HashMap<String, Entry>>>,
}

impl Backoff {
    /// How long the failed pod of the set on `node` has to stay yet.
    pub(super) fn left(&self, set: &Key, node: &str, now: Instant) -> Option<Duration> {
        let entries = self.entries.lock();
        let entry = entries.get(set)?.get(node)?;
        entry.delay.checked_sub(now - entry.last).filter(|left| !left.is_zero())
    }

    /// A failed pod of the set on `node` is replaced now: the next one waits longer.
    pub(super) fn failed(&self, set: &Key, node: &str, now: Instant) {
        let mut entries = self.entries.lock();
        let nodes = entries.entry(set.clone()).or_default();
        // Who ran that long without failing begins anew.
        nodes.retain(|_, entry| now - entry.last <= 2 * LONGEST);
        let delay = nodes.get(node).map_or(FIRST, |entry| (entry.delay * 2).min(LONGEST));
        nodes.insert(node.to_owned(), Entry { last: now, delay });
    }

    /// The set is gone.
    pub(super) fn forget(&self, set: &Key) {
        self.entries.lock().remove(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_is_forgotten() {
        let (backoff, set) = (Backoff::default(), Key::namespaced("a", "web"));
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
        backoff.failed(&set, "n", start + 2 * LONGEST + FIRST);
        check("n", 1801, Some(1));
        backoff.forget(&set);
        check("n", 1801, None);
    }
}
