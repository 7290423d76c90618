//! Parts of files, and files that have not changed (RFC 9110, sections 13 and 14). Pure.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

/// What of a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// The bytes from the first to the last of these.
    Bytes(u64, u64),
    /// Nothing that it has.
    Nothing,
    /// Nothing: who asks has it.
    Unchanged,
    /// Nothing: it is not the one that is meant.
    Changed,
}

impl Part {
    /// What the headers of a request ask for of a file of `length` bytes that was changed last at `changed`. Several ranges at once get the
    /// whole: a server may ignore them (section 14.2).
    pub(super) fn of(headers: &HeaderMap, length: u64, changed: SystemTime) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let date = |name: HeaderName| text(name).and_then(|text| httpdate::parse_http_date(text).ok());
        let changed = seconds(changed);
        if date(header::IF_UNMODIFIED_SINCE).is_some_and(|since| changed > since) {
            return Self::Changed;
        }
        if date(header::IF_MODIFIED_SINCE).is_some_and(|since| changed <= since) {
            return Self::Unchanged;
        }
        let is_meant = text(header::IF_RANGE).is_none() || date(header::IF_RANGE) == Some(changed);
        match text(header::RANGE).filter(|_| is_meant) {
            None => Self::Whole,
            Some(range) if range.contains(',') => Self::Whole,
            Some(range) => bytes(range, length).unwrap_or(if length == 0 { Self::Whole } else { Self::Nothing }),
        }
    }
}

/// The last second that a date of HTTP can say (RFC 9110, 5.6.7): the end of the year 9999.
const LAST: u64 = 253_402_300_799;

/// Dates of HTTP have no parts of seconds, and an end; a file's time may be any.
pub(super) fn seconds(time: SystemTime) -> SystemTime {
    let whole = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(whole.min(LAST))
}

fn bytes(range: &str, length: u64) -> Option<Part> {
    let (first, last) = range.strip_prefix("bytes=")?.trim().split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (first, last) = match (first, last) {
        ("", count) => (length.saturating_sub(number(count).filter(|count| *count > 0)?), length.checked_sub(1)?),
        (first, "") => (number(first)?, length.checked_sub(1)?),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            (first, last.min(length.checked_sub(1)?))
        }
    };
    (first < length).then_some(Part::Bytes(first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(HeaderName, &str)], length: u64, expected: Part) {
        let headers: HeaderMap = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        // Thu, 01 Jan 1970 00:01:40 GMT, and a half.
        let changed = SystemTime::UNIX_EPOCH + Duration::from_millis(100_500);
        assert_eq!(Part::of(&headers, length, changed), expected, "{headers:?}");
    }

    /// RFC 9110, section 14.1.2, of a file of ten bytes.
    #[test]
    fn a_range_is_a_part_of_what_is_there() {
        check(&[], 10, Part::Whole);
        for (range, expected) in [
            ("bytes=0-0", Part::Bytes(0, 0)),
            ("bytes=2-4", Part::Bytes(2, 4)),
            ("bytes=2-", Part::Bytes(2, 9)),
            ("bytes=2-100", Part::Bytes(2, 9)),
            ("bytes=-3", Part::Bytes(7, 9)),
            ("bytes=-100", Part::Bytes(0, 9)),
            ("bytes=0-1,4-5", Part::Whole),
            ("bytes=10-", Part::Nothing),
            ("bytes=-0", Part::Nothing),
            ("bytes=4-2", Part::Nothing),
            ("bytes=+1-2", Part::Nothing),
            ("bytes=x-", Part::Nothing),
            ("bytes=-", Part::Nothing),
            ("lines=1-2", Part::Nothing),
            ("bytes=99999999999999999999-", Part::Nothing),
        ] {
            check(&[(header::RANGE, range)], 10, expected);
        }
        check(&[(header::RANGE, "bytes=0-")], 0, Part::Whole);
    }

    #[test]
    fn who_has_the_file_does_not_get_it_again() {
        let at = |seconds: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let range = (header::RANGE, "bytes=0-1");
        check(&[(header::IF_MODIFIED_SINCE, &at(100))], 10, Part::Unchanged);
        check(&[(header::IF_MODIFIED_SINCE, &at(99))], 10, Part::Whole);
        check(&[(header::IF_MODIFIED_SINCE, "yesterday")], 10, Part::Whole);
        check(&[(header::IF_UNMODIFIED_SINCE, &at(99))], 10, Part::Changed);
        check(&[(header::IF_UNMODIFIED_SINCE, &at(100))], 10, Part::Whole);
        check(&[range.clone(), (header::IF_RANGE, &at(100))], 10, Part::Bytes(0, 1));
        check(&[range.clone(), (header::IF_RANGE, &at(101))], 10, Part::Whole);
        check(&[range, (header::IF_RANGE, "\"tag\"")], 10, Part::Whole);
    }
}
