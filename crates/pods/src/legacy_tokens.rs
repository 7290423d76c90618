//! Tokens without an end that Secrets hold (docs page "Managing Service Accounts"): the API server writes down on which days they are used, and
//! the controller `legacy-serviceaccount-token-cleaner` ends those that nobody uses. By what stands here the two understand each other.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Type of the Secrets.
pub const TYPE: &str = "kubernetes.io/service-account-token";
/// Label of a Secret: the day on which its token was last used.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// Label of a Secret: the day since which its token has been invalid.
pub const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Name of the ConfigMap in `kube-system` that says since when uses are written down.
pub const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// Key of the ConfigMap: the day since which uses are written down.
pub const SINCE: &str = "since";

/// A day as the labels and the ConfigMap have it, such as `2026-01-31`; None when the text is none, or is written in another way.
pub fn day(text: &str) -> Option<Date> {
    text.parse().ok().filter(|day: &Date| day.to_string() == text)
}

/// The day of a time, in UTC as all days here are. Its text is what [`day`] reads.
pub fn day_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_are_read_as_they_are_written() {
        let check = |text: &str, expected: bool| assert_eq!(day(text).is_some(), expected, "{text}");
        check("2020-02-29", true);
        check("2020-02-30", false);
        check("20200229", false);
        check("2020-02-29T00:00:00Z", false);
        check(" 2020-02-29", false);
        check("", false);
        assert_eq!(day_of("2026-01-31T23:59:59Z".parse().unwrap()).to_string(), "2026-01-31");
    }
}
