//! Queries of kubelet requests. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::logs::LogOptions;

/// Decodes `%XX` and `+`.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Names and values of a query, in order.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// The command of an exec request.
pub fn command(query: &str) -> Vec<String> {
    pairs(query).filter(|(name, _)| name == "command").map(|(_, value)| value).collect()
}

/// The options of a log request; the error says which one is wrong.
pub fn log_options(query: &str, now: Timestamp) -> Result<LogOptions, String> {
    let mut options = LogOptions::default();
    for (name, value) in pairs(query) {
        let flag = || matches!(value.as_str(), "true" | "1" | "t" | "True");
        let number = || value.parse::<u64>().map_err(|_| format!("{name} must be a number of at least 0, not {value:?}"));
        match name.as_str() {
            "follow" => options.follow = flag(),
            "previous" => options.previous = flag(),
            "timestamps" => options.timestamps = flag(),
            "tailLines" => options.tail = Some(number()?),
            "limitBytes" => options.limit = Some(number()?),
            "sinceSeconds" => {
                let seconds = i64::try_from(number()?).unwrap_or(i64::MAX);
                options.since = Some(now.saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
            }
            "sinceTime" => options.since = Some(value.parse().map_err(|_| format!("sinceTime {value:?} is no RFC 3339 time"))?),
            "stream" => options.stream = Some(value),
            _ => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        assert_eq!(command("command=sh&input=1&command=-c&command=echo+%24A%26b"), ["sh", "-c", "echo $A&b"]);
    }

    #[test]
    fn options_of_logs() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let check = |query: &str, expected: Result<LogOptions, &str>| {
            assert_eq!(log_options(query, now), expected.map_err(str::to_owned));
        };
        check("", Ok(LogOptions::default()));
        check(
            "follow=true&tailLines=5&timestamps=1",
            Ok(LogOptions { follow: true, tail: Some(5), timestamps: true, ..Default::default() }),
        );
        let since = Some("2026-01-01T00:00:30Z".parse().unwrap());
        check("sinceSeconds=30", Ok(LogOptions { since, ..Default::default() }));
        check("sinceTime=2026-01-01T00%3A00%3A30Z", Ok(LogOptions { since, ..Default::default() }));
        check("limitBytes=x", Err("limitBytes must be a number of at least 0, not \"x\""));
    }
}
