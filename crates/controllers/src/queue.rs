//! The work queue of a controller: each key once, never two workers on one key, delays, back-off per key, and rest for keys that are much
//! work.

mod metrics;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use client::Key;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use metrics::Meter;

/// The longest delay: users may write times that no clock reaches, and a look that comes too early does no harm.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
const RETRY_MIN: Duration = Duration::from_millis(5);
/// The longest back-off of client-go's controllers that say nothing else.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(1000);

/// The same for controllers that make pods: what a quota refuses is asked for again at last after this time, since nothing tells them
/// that there is room.
pub(crate) const PODS_RETRY_MAX: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    /// Keys, and since when they wait here.
    ready: VecDeque<(Key, Instant)>,
    /// Keys in `ready`, and keys to be put there when their worker is done.
    dirty: HashSet<Key>,
    /// Keys that are worked on, and since when.
    running: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
    delayed: BTreeMap<(Instant, Key), ()>,
    due: HashMap<Key, Instant>,
    /// Keys that are not worked on before.
    resting: HashMap<Key, Instant>,
}

/// Cheap to clone. One consumer.
#[derive(Clone)]
pub struct Queue {
    state: Arc<Mutex<State>>,
    meter: Arc<Meter>,
    wake: Arc<Notify>,
    retry_max: Duration,
}

impl State {
    /// Whether the key was not to be worked on before.
    fn add(&mut self, key: Key) -> bool {
        if self.running.contains_key(&key) {
            return self.dirty.insert(key);
        }
        let now = Instant::now();
        if let Some(until) = self.rests(&key, now) {
            let new = self.due.get(&key).is_none_or(|due| *due > until);
            self.delay(key, until);
            return new;
        }
        let new = self.dirty.insert(key.clone());
        if new {
            self.ready.push_back((key, now));
        }
        new
    }

    /// Until when a key is not to be worked on.
    fn rests(&mut self, key: &Key, now: Instant) -> Option<Instant> {
        let until = *self.resting.get(key)?;
        if until <= now {
            self.resting.remove(key);
        }
        Some(until).filter(|until| *until > now)
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
    fn ripen(&mut self, now: Instant, meter: &Meter) -> Option<Instant> {
        while let Some(((due, _), ())) = self.delayed.first_key_value() {
            if *due > now {
                return Some(*due);
            }
            if let Some(((_, key), ())) = self.delayed.pop_first() {
                self.due.remove(&key);
                meter.adds.inc_by(u64::from(self.add(key)));
            }
        }
        None
    }
}

impl Queue {
    /// A queue whose figures have this name, and where a key that fails waits no longer than `retry_max`.
    pub(crate) fn new(name: &'static str, retry_max: Duration) -> Self {
        let state = Arc::default();
        Self { meter: Arc::new(Meter::new(name, &state)), state, wake: Arc::default(), retry_max }
    }

    /// Adds a key now.
    pub fn add(&self, key: Key) {
        let mut state = self.state.lock();
        self.meter.adds.inc_by(u64::from(state.add(key)));
        self.tell_depth(&state);
        drop(state);
        self.wake.notify_one();
    }

    /// Adds a key after `delay`. Of several delays the earliest counts.
    pub fn add_after(&self, key: Key, delay: Duration) {
        self.state.lock().delay(key, Instant::now() + delay.min(FAR));
        self.wake.notify_one();
    }

    /// Adds a key after the back-off of its failures.
    pub(crate) fn retry(&self, key: Key) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let delay = jitter(backoff(*failures, self.retry_max));
        *failures += 1;
        state.delay(key, Instant::now() + delay);
        self.meter.retries.inc();
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
                let now = Instant::now();
                let due = state.ripen(now, &self.meter);
                if let Some((key, since)) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.running.insert(key.clone(), now);
                    self.meter.waited.observe(now.saturating_duration_since(since).as_secs_f64());
                    self.tell_depth(&state);
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

    /// The worker of `key` is through, and is not to come back to it for so long.
    pub(crate) fn done(&self, key: &Key, rest: Duration) {
        let mut state = self.state.lock();
        let now = Instant::now();
        if rest.is_zero() {
            state.resting.remove(key);
        } else {
            state.resting.insert(key.clone(), now + rest);
        }
        if let Some(started) = state.running.remove(key) {
            self.meter.worked.observe(now.saturating_duration_since(started).as_secs_f64());
        }
        if state.dirty.remove(key) {
            state.add(key.clone());
            self.tell_depth(&state);
            self.wake.notify_one();
        }
    }

    fn tell_depth(&self, state: &State) {
        self.meter.depth.set(i64::try_from(state.ready.len()).unwrap_or(i64::MAX));
    }
}

/// client-go's: 5 ms, doubled up to the longest.
fn backoff(failures: u32, longest: Duration) -> Duration {
    RETRY_MIN.saturating_mul(2_u32.saturating_pow(failures)).min(longest)
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
            assert_eq!(backoff(failures, RETRY_MAX), Duration::from_millis(millis));
        }
        assert_eq!(backoff(60, Duration::from_secs(60)), Duration::from_secs(60));
    }

    #[tokio::test]
    async fn gives_each_key_to_one_worker() {
        let (queue, a, b) = (Queue::new("test", RETRY_MAX), Key::cluster("a"), Key::cluster("b"));
        queue.add(a.clone());
        queue.add(a.clone());
        assert_eq!(queue.next().await, a);
        queue.add(a.clone());
        queue.add(b.clone());
        assert_eq!(queue.next().await, b);
        assert_eq!(queue.meter.depth.get(), 0);
        queue.done(&a, Duration::ZERO);
        assert_eq!(queue.next().await, a);
    }

    #[tokio::test]
    async fn delays_and_retries() {
        let (queue, a, b) = (Queue::new("test", RETRY_MAX), Key::cluster("a"), Key::cluster("b"));
        // Before anything is added: the machine may be busy.
        let start = Instant::now();
        // Some delays come from what users write.
        queue.add_after(Key::cluster("never"), Duration::MAX);
        queue.add_after(a.clone(), Duration::from_secs(60));
        // In the order of their ends: between the two, time may pass.
        queue.add_after(a.clone(), Duration::from_millis(10));
        queue.add_after(b.clone(), Duration::from_millis(20));
        assert_eq!(queue.next().await, a);
        assert_eq!(queue.next().await, b);
        assert!(start.elapsed() >= Duration::from_millis(20));
        queue.done(&b, Duration::ZERO);
        queue.retry(b.clone());
        assert_eq!(queue.next().await, b);
        assert!(start.elapsed() >= Duration::from_millis(25));
    }

    /// What happens to a key while it rests is worked on once, when it has rested.
    #[tokio::test]
    async fn rests_after_much_work() {
        let (queue, a, b) = (Queue::new("rested", RETRY_MAX), Key::cluster("a"), Key::cluster("b"));
        let (start, rest) = (Instant::now(), Duration::from_millis(30));
        queue.add(a.clone());
        assert_eq!(queue.next().await, a);
        // What came meanwhile waits too, and what is due before.
        queue.add(a.clone());
        queue.done(&a, rest);
        queue.add(a.clone());
        queue.add_after(a.clone(), Duration::from_millis(5));
        queue.add(b.clone());
        assert_eq!(queue.next().await, b);
        assert_eq!(queue.next().await, a);
        assert!(start.elapsed() >= rest);
        queue.done(&a, rest);
        queue.add(a.clone());
        assert_eq!(queue.next().await, a);
        assert!(start.elapsed() >= rest * 2);
        queue.done(&a, Duration::ZERO);
        let state = queue.state.lock();
        assert!(state.resting.is_empty() && state.due.is_empty() && state.delayed.is_empty() && state.dirty.is_empty());
        assert!(state.ready.is_empty());
    }

    #[test]
    fn waits_no_longer_than_its_controller_wants() {
        let (queue, a) = (Queue::new("test", Duration::from_secs(60)), Key::cluster("a"));
        for failures in 0..30 {
            queue.retry(a.clone());
            let mut state = queue.state.lock();
            let due = state.due.remove(&a).unwrap();
            state.delayed.clear();
            assert!(due <= Instant::now() + Duration::from_secs(75), "after {failures} failures");
        }
    }

    #[tokio::test]
    async fn is_measured_as_client_go_does() {
        let (queue, a, b) = (Queue::new("measured", RETRY_MAX), Key::cluster("a"), Key::cluster("b"));
        queue.add(a.clone());
        queue.add(a.clone());
        queue.add(b.clone());
        assert_eq!(queue.next().await, a);
        // Again while it is worked on: once more, afterwards.
        queue.add(a.clone());
        queue.retry(b.clone());
        let page = || base::metrics::Page::Server.encode(base::metrics::Format::Text);
        let check = |page: &str, metric: &str, expected: f64| {
            let start = format!("workqueue_{metric}{{name=\"measured\"}} ");
            let value = page.lines().find_map(|line| line.strip_prefix(&start)).and_then(|value| value.parse::<f64>().ok());
            assert_eq!(value, Some(expected), "{metric} in {page}");
        };
        let now = page();
        for (metric, expected) in [
            ("adds_total", 3.0),
            ("depth", 1.0),
            ("retries_total", 1.0),
            ("queue_duration_seconds_count", 1.0),
            ("work_duration_seconds_count", 0.0),
        ] {
            check(&now, metric, expected);
        }
        assert!(!now.lines().any(|line| line == "workqueue_unfinished_work_seconds{name=\"measured\"} 0.0"), "{now}");
        queue.done(&a, Duration::ZERO);
        let now = page();
        for (metric, expected) in [
            ("depth", 2.0),
            ("work_duration_seconds_count", 1.0),
            ("unfinished_work_seconds", 0.0),
            ("longest_running_processor_seconds", 0.0),
        ] {
            check(&now, metric, expected);
        }
    }
}
