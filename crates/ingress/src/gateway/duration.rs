//! Durations as the Gateway API writes them. Pure.

use std::time::Duration;

/// A duration of the Gateway API (GEP-2257): `1h30m`, `10s`, `150ms`.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok().filter(|number| *number < 100_000)?;
        let unit = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        sum += match &rest[end..unit] {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = &rest[unit..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        };
        check("10s", Some(10_000));
        check("1h30m", Some(5_400_000));
        check("150ms", Some(150));
        check("0s", Some(0));
        check("1", None);
        check("1d", None);
        check("-1s", None);
    }
}
