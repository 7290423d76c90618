//! Exponential back-off of restarts and pulls, with the kubelet's own reset rule.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// First delay.
pub const BASE: Duration = Duration::from_secs(10);
/// Longest delay, unless a shorter one is set.
pub const MAX: Duration = Duration::from_secs(300);
/// A delay that was not used for so long is forgotten, however long the longest is (KEP-4603).
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Grows from 10 s by doubling to 5 minutes; starts anew after 10 quiet minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    entry: Option<(Duration, Timestamp)>,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(MAX)
    }
}

impl Backoff {
    /// With another longest delay; the first is no longer than that.
    pub fn up_to(longest: Duration) -> Self {
        Self { entry: None, longest }
    }

    /// Starts anew.
    pub fn reset(&mut self) {
        self.entry = None;
    }

    /// Until when nothing must be tried after the failure at `failed`, and the current delay; none when it may be tried at once.
    pub fn until(&self, failed: Timestamp, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let (delay, updated) = self.entry?;
        let until = failed.saturating_add(signed(delay)).ok()?;
        (!expired(failed, updated) && now < until).then_some((until, delay))
    }

    /// Records that something is tried again after the failure at `failed`.
    pub fn next(&mut self, failed: Timestamp) {
        self.entry = Some(match self.entry {
            Some((delay, updated)) if !expired(failed, updated) => ((delay * 2).min(self.longest), failed),
            _ => (BASE.min(self.longest), failed),
        });
    }
}

fn expired(event: Timestamp, updated: Timestamp) -> bool {
    event.duration_since(updated) > signed(FORGOTTEN)
}

/// A duration that timestamps can be moved by.
pub fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Failures at the given seconds, each retried; then whether another failure at `last` waits, and how long.
    #[track_caller]
    fn check(failures: &[i64], last: i64, delay: Option<u64>) {
        let mut backoff = Backoff::default();
        failures.iter().for_each(|failure| backoff.next(at(*failure)));
        assert_eq!(backoff.until(at(last), at(last)).map(|(_, delay)| delay.as_secs()), delay);
    }

    #[test]
    fn doubles_and_forgets() {
        check(&[], 0, None);
        check(&[0], 1, Some(10));
        check(&[0, 10], 20, Some(20));
        check(&[0, 10, 30, 70, 150, 310, 610], 900, Some(300));
        check(&[0, 10], 10 + 601, None);
        check(&[0, 10, 700], 701, Some(10));
    }

    /// KEP-4603: maxContainerRestartPeriod is the longest delay, and the first one where that is shorter than 10 s. A container recovers after ten
    /// minutes all the same.
    #[test]
    fn the_longest_delay_can_be_set() {
        let check = |longest: u64, failures: &[i64], last: i64, delay: Option<u64>| {
            let mut backoff = Backoff::up_to(Duration::from_secs(longest));
            failures.iter().for_each(|failure| backoff.next(at(*failure)));
            assert_eq!(backoff.until(at(last), at(last)).map(|(_, delay)| delay.as_secs()), delay);
        };
        check(1, &[0], 1, Some(1));
        check(1, &[0, 10, 20], 30, Some(1));
        check(15, &[0], 10, Some(10));
        check(15, &[0, 10, 20], 30, Some(15));
        check(15, &[0, 10, 20], 500, Some(15));
        check(15, &[0, 10, 20], 700, None);
    }
}
