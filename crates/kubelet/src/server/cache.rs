//! Answers that are good for a while, a bounded number of them. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Most answers that are remembered.
const CAPACITY: usize = 1024;

/// Answers by question.
pub(super) struct Cache<K, V>(HashMap<K, (V, Instant)>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// The answer, while it is good.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.0.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    /// Remembers an answer for `time`. When there is no room, the one goes that is good for the shortest time.
    pub(super) fn put(&mut self, key: K, value: V, now: Instant, time: Duration) {
        if self.0.len() >= CAPACITY && !self.0.contains_key(&key) {
            self.0.retain(|_, (_, until)| now < *until);
            if self.0.len() >= CAPACITY
                && let Some(first) = self.0.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone())
            {
                self.0.remove(&first);
            }
        }
        self.0.insert(key, (value, now + time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_with_time_and_for_want_of_room() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        cache.put(0, "short", now, Duration::from_secs(10));
        assert_eq!((cache.get(&0, after(9)), cache.get(&0, after(10)), cache.get(&1, now)), (Some("short"), None, None));
        for key in 1..=CAPACITY {
            cache.put(key, "long", now, Duration::from_secs(60));
        }
        assert_eq!((cache.0.len(), cache.get(&0, now), cache.get(&CAPACITY, now)), (CAPACITY, None, Some("long")));
        cache.put(0, "later", after(60), Duration::from_secs(1));
        assert_eq!(cache.0.len(), 1, "what is not good any more goes first");
    }
}
