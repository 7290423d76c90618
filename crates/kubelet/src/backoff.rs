//! Exponential back-off of restarts and pulls, with the kubelet's own reset rule.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// First delay.
pub const BASE: Duration = Duration::from_secs(10);
/// Longest delay. A delay that was not used for twice as long is forgotten.
pub const MAX: Duration = Duration::from_secs(300);

/// Grows from 10 s by doubling to 5 minutes; starts anew after 10 quiet minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    entry: Option<(Duration, Timestamp)>,
}

impl Backoff {
    /// Until when nothing must be tried after the failure at `failed`, and the current delay; none when it may be tried at once.
    pub fn until(&self, failed: Timestamp, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let (delay, updated) = self.entry?;
        let until = failed.saturating_add(signed(delay)).ok()?;
        (!expired(failed, updated) && now < until).then_some((until, delay))
    }

    /// Records that something is tried again after the failure at `failed`.
    pub fn next(&mut self, failed: Timestamp) {
        self.entry = Some(match self.entry {
            Some((delay, updated)) if !expired(failed, updated) => ((delay * 2).min(MAX), failed),
            _ => (BASE, failed),
        });
    }
}

fn expired(event: Timestamp, updated: Timestamp) -> bool {
    event.duration_since(updated) > signed(MAX * 2)
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
}
