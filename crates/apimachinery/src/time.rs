//! Times as the API writes them: `metav1.Time` in whole seconds and `metav1.MicroTime`, both in UTC.

use jiff::{SignedDuration, Timestamp};
use schema::Precision;

/// Now as `metav1.Time`: RFC 3339 in whole seconds, such as `2026-01-31T08:00:00Z`.
pub fn now() -> String {
    format(Timestamp::now())
}

/// Now as `metav1.MicroTime`, such as `2026-01-31T08:00:00.123456Z`.
pub fn now_micro() -> String {
    format_micro(Timestamp::now())
}

/// As `metav1.Time`; fractions of a second are cut off. A time before the year 0, which nobody could read, is written as its beginning.
pub fn format(time: Timestamp) -> String {
    schema::format_time(time, Precision::Seconds)
}

/// As `metav1.MicroTime`, with the same bound; fractions of a microsecond are cut off.
pub fn format_micro(time: Timestamp) -> String {
    schema::format_time(time, Precision::Micros)
}

/// A duration as Go prints it: `312ms`, `2m40s`.
pub fn duration_text(duration: std::time::Duration) -> String {
    schema::format_duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// Parses a duration as Go writes it; `None` when it is malformed.
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    schema::parse_duration(text).ok().map(SignedDuration::from_nanos)
}

/// Parses an RFC 3339 time; `None` when it is malformed.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Whole seconds from `then` to `now`; negative when `then` lies ahead.
pub fn seconds_between(then: Timestamp, now: Timestamp) -> i64 {
    (now.as_nanosecond() - then.as_nanosecond()).div_euclid(1_000_000_000) as i64
}

/// Whole seconds since an RFC 3339 time; `None` when it is malformed.
pub fn seconds_since(text: &str, now: Timestamp) -> Option<i64> {
    Some(seconds_between(parse(text)?, now))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations() {
        let check = |millis: u64, expected: &str| {
            assert_eq!(duration_text(std::time::Duration::from_millis(millis)), expected);
        };
        for (millis, expected) in [(312, "312ms"), (1500, "1.5s"), (40_000, "40s"), (75_100, "1m15.1s"), (160_000, "2m40s")] {
            check(millis, expected);
        }
        assert_eq!(parse_duration("1m15.1s"), Some(SignedDuration::from_millis(75_100)));
        assert_eq!(parse_duration("15"), None);
        check(300_000, "5m0s");
        check(3_600_000, "1h0m0s");
    }

    #[test]
    fn forms() {
        let t = parse("2026-01-31T08:00:00.123456789Z").unwrap();
        assert_eq!(format(t), "2026-01-31T08:00:00Z");
        assert_eq!(format_micro(t), "2026-01-31T08:00:00.123456Z");
        assert_eq!(parse("2026-01-31T09:00:00+01:00").map(format), Some("2026-01-31T08:00:00Z".into()));
        assert_eq!(parse("yesterday"), None);
        assert_eq!(format(Timestamp::MIN), "0000-01-01T00:00:00Z");
        assert_eq!(format_micro(Timestamp::MIN), "0000-01-01T00:00:00.000000Z");
        assert_eq!(seconds_since("2026-01-31T07:59:00Z", t), Some(60));
    }
}
