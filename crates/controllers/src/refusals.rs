//! How long a controller waits before it replaces pods that their node has refused: they would otherwise come and go hundreds of times a second
//! for as long as the node has no room for them. Upstream's controllers are held by the rate of their client (`--kube-api-qps`, 20).

use std::collections::HashMap;
use std::time::Duration;

use client::Key;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Pods that were made in the place of refused ones.
#[derive(Clone, Copy)]
struct Round {
    made: Timestamp,
    since: Instant,
    /// How long they have to stay when they are refused, too.
    delay: Duration,
}

/// The last round of each owner, or of each pod that has a name of its own.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<HashMap<Key, Round>>);

impl Refusals {
    /// How long nothing is made for `key` yet, of whose pods the last that was refused is of this time; none when it is made now, which begins a
    /// round.
    pub(crate) fn wait(&self, key: &Key, refused: Option<Timestamp>) -> Option<Duration> {
        self.wait_at(key, refused?, Timestamp::now(), Instant::now())
    }

    fn wait_at(&self, key: &Key, refused: Timestamp, now: Timestamp, instant: Instant) -> Option<Duration> {
        let mut rounds = self.0.lock();
        // Times of creation are whole seconds.
        let of_last = |round: &&Round| refused.duration_since(round.made) > SignedDuration::from_secs(-1);
        let mut delay = FIRST;
        if let Some(round) = rounds.get(key).filter(of_last) {
            let left = round.delay.saturating_sub(instant - round.since);
            if !left.is_zero() {
                return Some(left);
            }
            delay = (round.delay * 2).min(LONGEST);
        }
        rounds.retain(|_, round| (instant - round.since) < 2 * LONGEST);
        rounds.insert(key.clone(), Round { made: now, since: instant, delay });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_are_refused_come_less_and_less_often() {
        let (refusals, key, start) = (Refusals::default(), Key::namespaced("a", "web"), Instant::now());
        let at = |after: Duration| Timestamp::UNIX_EPOCH + SignedDuration::try_from(after).unwrap_or_default();
        let wait = |key: &Key, refused, after: Duration| refusals.wait_at(key, refused, at(after), start + after);
        assert_eq!(refusals.wait(&key, None), None, "nothing was refused");
        let (mut made, mut rounds) = (Duration::ZERO, Vec::new());
        for _ in 0..9 {
            let mut now = made;
            while let Some(left) = wait(&key, at(made), now) {
                now += left;
            }
            rounds.push((now - made).as_secs());
            made = now;
        }
        assert_eq!(rounds, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        // What was refused before the last round holds up nothing.
        assert_eq!(wait(&key, at(made - Duration::from_secs(5)), made + FIRST), None);
    }
}
