//! Durations on the command line, as Go writes them (`1m30s`).

use std::time::Duration;

use tokio::time::Instant;

/// Reads one; a number alone is seconds, what is negative is for ever.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(u64::try_from(seconds).map_or(FOR_EVER, Duration::from_secs));
    }
    match apimachinery::time::parse_duration(text) {
        Some(duration) if duration.is_negative() => Ok(FOR_EVER),
        Some(duration) => Ok(duration.unsigned_abs()),
        None => Err("expected a duration such as 30s, 5m or 1h30m".to_owned()),
    }
}

/// As long as anybody waits: a week, as kubectl has it.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(7 * 24 * 3600);

/// When a time is over that begins now; none where it is nothing, which stands for no end.
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    (!timeout.is_zero()).then(|| Instant::now() + timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(parse(text).ok().map(|time| time.as_secs()), expected, "{text}");
        check("30s", Some(30));
        check("1m30s", Some(90));
        check("0", Some(0));
        check("15", Some(15));
        check("-1", Some(FOR_EVER.as_secs()));
        check("-1s", Some(FOR_EVER.as_secs()));
        check("soon", None);
    }
}
