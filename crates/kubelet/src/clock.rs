//! The clock that due times are of. It goes on evenly whatever happens to the machine's: a clock that is set must neither stop retries,
//! reports and limits for as long as it was set back, nor make all of them due at once.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runtime::uptime;

use crate::backoff::signed;

/// A clock that showed the time of day when it was started, and has not been set since.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Timestamp,
    /// Of the time since the machine started.
    since: Duration,
}

impl Clock {
    /// A clock that is right now.
    pub fn start() -> Self {
        Self { started: Timestamp::now(), since: uptime() }
    }

    /// Its time. Only for what is due, never shown.
    pub fn now(&self) -> Timestamp {
        moved(self.started, signed(uptime().saturating_sub(self.since)))
    }

    /// Its time at `shown` o'clock, by what the machine's clock shows now.
    pub fn of(&self, shown: Timestamp) -> Timestamp {
        by(shown, Timestamp::now(), self.now())
    }
}

/// The time of a clock at `shown` o'clock by another, which shows `other` when the clock shows `now`.
pub fn by(shown: Timestamp, other: Timestamp, now: Timestamp) -> Timestamp {
    moved(now, shown.duration_since(other))
}

fn moved(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::at;

    #[test]
    fn it_goes_on_from_the_time_of_day() {
        let before = Timestamp::now();
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second && first.duration_since(before) < SignedDuration::from_secs(60));
        let hour = SignedDuration::from_hours(1);
        let off = clock.of(Timestamp::now() + hour).duration_since(clock.now() + hour).abs();
        assert!(off < SignedDuration::from_secs(60), "{off}");
    }

    #[test]
    fn times_of_another_clock_are_as_far_away() {
        let check = |shown, other, now, expected| assert_eq!(by(at(shown), at(other), at(now)), at(expected));
        check(105, 100, 100, 105);
        // The other was set back by 7200 s, or forward.
        check(105, 100, 7300, 7305);
        check(7305, 7300, 100, 105);
        check(95, 100, 7300, 7295);
    }
}
