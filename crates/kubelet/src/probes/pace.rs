//! When a probe is due. Pure: times count from the first probe.
//!
//! "While a container is not Ready, the ReadinessProbe may be executed at times other than the configured periodSeconds
//! interval. This is to make the Pod ready faster." (Kubernetes documentation, configure liveness, readiness and startup probes.)
//! Servers listen a moment after their process began, so the first probe fails as a rule, and the period is long.

use std::time::Duration;

/// From the first failure to the next probe; doubles from probe to probe. Most servers listen a few milliseconds after their process began.
const SOON: Duration = Duration::from_millis(5);
/// The same of a probe that is a command: a process in the container costs more than a connection.
const SOON_COMMAND: Duration = Duration::from_millis(20);
/// The same for a container that was ready before: it has a trouble, and is not on its way up.
const LATER: Duration = Duration::from_secs(1);

/// The next probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Duration,
    /// It is between two of the period. Its failure counts for nothing, so that thresholds keep their time.
    pub(super) extra: bool,
}

/// Decides when a probe is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    period: Duration,
    /// The next probe of the period.
    tick: Duration,
    gap: Duration,
}

impl Pace {
    /// The first probe is due at once.
    pub(super) fn new(period: Duration, is_command: bool) -> Self {
        Self { period, tick: Duration::ZERO, gap: if is_command { SOON_COMMAND } else { SOON } }
    }

    /// The probe after one that ended at `now`; `eager` while somebody waits for a success.
    pub(super) fn next(&mut self, now: Duration, eager: bool) -> Due {
        let soon = now + self.gap;
        if eager && soon < self.tick {
            self.gap = self.gap.saturating_mul(2);
            return Due { at: soon, extra: true };
        }
        let at = self.tick.max(now);
        self.tick = at + self.period;
        Due { at, extra: false }
    }

    /// The container is not ready any more.
    pub(super) fn lost(&mut self) {
        self.gap = LATER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds at which probes that take `length` begin; those of the period are negative.
    #[track_caller]
    fn check(mut pace: Pace, eager: bool, length: u64, expected: &[i64]) {
        let mut now = Duration::ZERO;
        let seen: Vec<i64> = expected
            .iter()
            .map(|_| {
                let due = pace.next(now, eager);
                now = due.at + Duration::from_millis(length);
                let at = i64::try_from(due.at.as_millis()).unwrap();
                if due.extra { at } else { -at }
            })
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn gaps_grow_up_to_the_period() {
        let pace = Pace::new(Duration::from_secs(10), false);
        check(pace, true, 0, &[0, 5, 15, 35, 75, 155, 315, 635, 1275, 2555, 5115, -10_000, 15_120, -20_000, -30_000]);
        let pace = Pace::new(Duration::from_secs(10), true);
        check(pace, true, 0, &[0, 20, 60, 140, 300, 620, 1260, 2540, 5100, -10_000, 15_120, -20_000, -30_000]);
        check(pace, true, 1000, &[0, 1020, 2060, 3140, 4300, 5620, 7260, 9540, -10_540, 14_100, 20_220, -21_220, -31_220]);
        check(pace, false, 0, &[0, -10_000, -20_000]);
        let second = Pace::new(Duration::from_secs(1), true);
        check(second, true, 0, &[0, 20, 60, 140, 300, 620, -1000, 1640, -2000, -3000]);
        check(second, true, 1500, &[0, -1500, -3000]);
    }

    #[test]
    fn a_container_that_was_ready_is_asked_less_often() {
        let mut pace = Pace::new(Duration::from_secs(10), false);
        assert_eq!(pace.next(Duration::ZERO, true), Due { at: Duration::ZERO, extra: false });
        pace.lost();
        check(pace, true, 0, &[1000, 3000, 7000, -10_000, 18_000, -20_000]);
    }
}
