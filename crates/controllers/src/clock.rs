//! The time of day, which a test can hold.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

/// Tells the time of day. Cheap to clone; clones of a held clock show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The time at which it is held.
    held: Option<Arc<Mutex<Timestamp>>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that shows `at` until it is [set](Self::set).
    pub fn held(at: Timestamp) -> Self {
        Self { held: Some(Arc::new(Mutex::new(at))) }
    }

    /// Sets a held clock; the machine's goes on.
    pub fn set(&self, at: Timestamp) {
        if let Some(held) = &self.held {
            *held.lock() = at;
        }
    }

    /// Time that has passed since some moment. It goes on evenly while the time of day is set forward or back.
    pub(crate) fn passed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let held = self.held.as_ref().map(|held| Duration::try_from(held.lock().duration_since(Timestamp::UNIX_EPOCH)));
        held.map_or_else(|| START.elapsed(), Result::unwrap_or_default)
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        self.held.as_ref().map_or_else(Timestamp::now, |held| *held.lock())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn is_held_and_set() {
        let check = |clock: &Clock, at: &str, expected: bool| {
            let at: Timestamp = at.parse().unwrap();
            clock.set(at);
            assert_eq!(clock.clone().now() == at, expected);
        };
        let held = Clock::held(Timestamp::UNIX_EPOCH);
        assert_eq!(held.now(), Timestamp::UNIX_EPOCH);
        let before = held.passed();
        check(&held, "2026-01-01T00:00:00Z", true);
        assert_eq!(held.passed() - before, Duration::from_secs(1_767_225_600));
        check(&Clock::system(), "2026-01-01T00:00:00Z", false);
    }
}
