//! Times and durations as the API writes them, with the errors of Go's `time` package.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// The layout that Go names in its errors.
const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
/// Go's zero time, which JSON shows as null.
const ZERO: &str = "0001-01-01T00:00:00Z";

/// The earliest time that four digits of a year can write in UTC, 0000-01-01T00:00:00Z, as RFC 3339 has them. Go reads no other ones, and the latest
/// is the calendar's own.
pub(crate) const FIRST: Timestamp = Timestamp::constant(-62_167_219_200, 0);

/// How many digits of the second are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// None, as of `metav1.Time`.
    Seconds,
    /// Six, as of `metav1.MicroTime`.
    Micros,
}

/// The canonical form of an RFC 3339 time, UTC; `None` for Go's zero time. The error is Go's message.
pub(crate) fn canonical(text: &str, precision: Precision) -> Result<Option<Cow<'_, str>>, String> {
    if precision == Precision::Seconds && is_canonical(text.as_bytes()) {
        return Ok(Some(Cow::Borrowed(text)));
    }
    let time = parse(text)?;
    let canonical = format(time, precision);
    Ok(match canonical {
        zero if zero.starts_with(&ZERO[..19]) => None,
        same if same == text => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(other)),
    })
}

/// Whether a text surely is canonical: the shape that nearly every time has. Days 29 to 31 are left to the calendar.
fn is_canonical(text: &[u8]) -> bool {
    let shape = text.len() == 20
        && text
            .iter()
            .zip(b"0000-00-00T00:00:00Z")
            .all(|(byte, like)| if *like == b'0' { byte.is_ascii_digit() } else { byte == like });
    let within = |at: usize, low: u8, high: u8| (low..=high).contains(&((text[at] - b'0') * 10 + text[at + 1] - b'0'));
    shape
        && text[0] != b'0'
        && within(5, 1, 12)
        && within(8, 1, 28)
        && within(11, 0, 23)
        && within(14, 0, 59)
        && within(17, 0, 59)
}

/// Writes a time: `2006-01-02T15:04:05Z`, or with six digits after the second. One before the year 0, which nobody could read, is written as its beginning.
pub fn format(time: Timestamp, precision: Precision) -> String {
    let at = Offset::UTC.to_datetime(time.max(FIRST));
    let (date, clock) = (at.date(), at.time());
    let mut out = Vec::with_capacity(27);
    digits(&mut out, i32::from(date.year()), 4);
    for (separator, value) in
        [(b'-', date.month()), (b'-', date.day()), (b'T', clock.hour()), (b':', clock.minute()), (b':', clock.second())]
    {
        out.push(separator);
        digits(&mut out, i32::from(value), 2);
    }
    if precision == Precision::Micros {
        out.push(b'.');
        digits(&mut out, clock.subsec_nanosecond() / 1000, 6);
    }
    out.push(b'Z');
    String::from_utf8(out).unwrap_or_default()
}

fn digits(out: &mut Vec<u8>, value: i32, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10i32.pow(place) % 10) as u8);
    }
}

/// Reads an RFC 3339 time as Go does; the error is Go's message. What cannot be written in UTC, by its offset, is no time.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    let mut reader = Reader { text, rest: text };
    let year = reader.number("2006", 4)?;
    reader.literal("-")?;
    let month = reader.number("01", 2)?;
    reader.literal("-")?;
    let day = reader.number("02", 2)?;
    reader.literal("T")?;
    let hour = reader.number("15", 2)?;
    reader.literal(":")?;
    let minute = reader.number("04", 2)?;
    reader.literal(":")?;
    let second = reader.number("05", 2)?;
    let nanos = reader.fraction();
    let offset = reader.offset()?;
    if !reader.rest.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {:?}", reader.rest));
    }
    let range = |what: &str| format!("parsing time {text:?}: {what} out of range");
    for (value, allowed, what) in [
        (month, 1..=12, "month"),
        (day, 1..=31, "day"),
        (hour, 0..=23, "hour"),
        (minute, 0..=59, "minute"),
        (second, 0..=59, "second"),
    ] {
        if !allowed.contains(&value) {
            return Err(range(what));
        }
    }
    let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(|value| value as i8);
    let local = DateTime::new(year as i16, month, day, hour, minute, second, nanos).map_err(|_| range("day"))?;
    let utc = Offset::UTC.to_timestamp(local).map_err(|_| range("year"))?;
    let utc = utc.checked_sub(jiff::SignedDuration::from_secs(offset)).ok().filter(|utc| *utc >= FIRST);
    utc.ok_or_else(|| range("year"))
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    fn fail(&self, element: &str) -> String {
        format!("parsing time {:?} as {LAYOUT:?}: cannot parse {:?} as {element:?}", self.text, self.rest)
    }

    fn number(&mut self, element: &str, width: usize) -> Result<i32, String> {
        let digits = self.rest.get(..width).filter(|head| head.bytes().all(|byte| byte.is_ascii_digit()));
        let value = digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| self.fail(element))?;
        self.rest = &self.rest[width..];
        Ok(value)
    }

    fn literal(&mut self, element: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(element).ok_or_else(|| self.fail(element))?;
        Ok(())
    }

    /// Nanoseconds after the second, which the layout does not show but Go accepts.
    fn fraction(&mut self) -> i32 {
        let Some(rest) = self.rest.strip_prefix(['.', ',']) else { return 0 };
        let count = rest.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return 0;
        }
        self.rest = &rest[count..];
        rest[..count].bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |value, digit| value * 10 + i32::from(digit - b'0'))
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let pair = |at: usize| match bytes.get(at..at + 2) {
            Some([tens @ b'0'..=b'9', ones @ b'0'..=b'9']) => Some(i64::from((tens - b'0') * 10 + ones - b'0')),
            _ => None,
        };
        let sign = match bytes.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.fail("Z07:00")),
        };
        match (pair(1), bytes.get(3), pair(4)) {
            (Some(hours @ 0..=24), Some(b':'), Some(minutes @ 0..=59)) => {
                self.rest = &self.rest[6..];
                Ok(sign * (hours * 3600 + minutes * 60))
            }
            _ => Err(self.fail("Z07:00")),
        }
    }
}

/// Nanoseconds per unit of a Go duration, longest names first.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Reads a Go duration such as `1h30m` into nanoseconds.
///
/// # Errors
/// Go's message.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let count = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let value: f64 = rest[..count].parse().map_err(|_| invalid())?;
        rest = &rest[count..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => unit,
        };
        let (_, nanos) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        total += value * nanos;
        rest = &rest[end..];
    }
    if total >= i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { -(total as i64) } else { total as i64 })
}

/// Writes nanoseconds as a Go duration.
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let decimal = |unit: u64, name: &str| {
        let fraction = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        let text = format!("{}.{fraction}", nanos / unit);
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    let text = match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = format!("{}.{:09}", nanos / 1_000_000_000 % 60, nanos % 1_000_000_000);
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.').to_owned();
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(text: &str, expected: Result<Option<&str>, &str>) {
        let actual = canonical(text, Precision::Seconds);
        assert_eq!(actual.as_ref().map(Option::as_deref).map_err(String::as_str), expected);
    }

    #[test]
    fn times() {
        check("2026-01-02T03:04:05Z", Ok(Some("2026-01-02T03:04:05Z")));
        check("2026-01-02T03:04:05.999+02:00", Ok(Some("2026-01-02T01:04:05Z")));
        check(ZERO, Ok(None));
        check("x", Err("parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\""));
        check("2026-01-02", Err("parsing time \"2026-01-02\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\""));
        check("2026-13-02T03:04:05Z", Err("parsing time \"2026-13-02T03:04:05Z\": month out of range"));
        check("2026-02-30T03:04:05Z", Err("parsing time \"2026-02-30T03:04:05Z\": day out of range"));
        check("2026-02-03T03:04:05Zx", Err("parsing time \"2026-02-03T03:04:05Zx\": extra text: \"x\""));
        check("0000-01-01T00:00:00Z", Ok(Some("0000-01-01T00:00:00Z")));
        check("0000-01-01T00:00:00+00:01", Err("parsing time \"0000-01-01T00:00:00+00:01\": year out of range"));
        check("9999-12-30T23:00:00-01:00", Err("parsing time \"9999-12-30T23:00:00-01:00\": year out of range"));
        let micro = canonical("2026-01-02T03:04:05.123Z", Precision::Micros);
        assert_eq!(micro.unwrap().as_deref(), Some("2026-01-02T03:04:05.123000Z"));
    }

    #[test]
    fn durations() {
        for (text, nanos, written) in [
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("0", 0, "0s"),
            ("-1.5s", -1_500_000_000, "-1.5s"),
            ("100ms", 100_000_000, "100ms"),
            ("1500us", 1_500_000, "1.5ms"),
            ("12ns", 12, "12ns"),
            ("90s", 90_000_000_000, "1m30s"),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
            assert_eq!(format_duration(nanos), written);
        }
        assert_eq!(parse_duration("5"), Err("time: missing unit in duration \"5\"".to_owned()));
        assert_eq!(parse_duration("5x"), Err("time: unknown unit \"x\" in duration \"5x\"".to_owned()));
    }

    proptest::proptest! {
        /// What is written can be read, and is that time: every list with the object fails otherwise for clients that want protobuf.
        #[test]
        fn what_is_written_can_be_read(second in Timestamp::MIN.as_second()..=Timestamp::MAX.as_second(), nano in 0..1_000_000_000i64) {
            let time = Timestamp::new(second, 0).unwrap().saturating_add(jiff::SignedDuration::from_nanos(nano)).unwrap();
            for (precision, unit) in [(Precision::Seconds, 1_000_000_000), (Precision::Micros, 1_000)] {
                let whole = time.max(FIRST).as_nanosecond().div_euclid(unit) * unit;
                proptest::prop_assert_eq!(parse(&format(time, precision)).map(Timestamp::as_nanosecond), Ok(whole));
            }
        }

        /// Whatever a client says of its offset, what is kept of it is kept again.
        #[test]
        fn what_is_taken_stays(year in 0..10_000, day in 1..366, second in 0..86_400, east: bool, offset in 0..25 * 60) {
            let (month, day) = (day / 31 + 1, day % 28 + 1);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            let (sign, offset) = (if east { '+' } else { '-' }, format!("{:02}:{:02}", offset / 60, offset % 60));
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{sign}{offset}");
            for precision in [Precision::Seconds, Precision::Micros] {
                if let Ok(Some(kept)) = canonical(&text, precision) {
                    let again = canonical(&kept, precision).unwrap().map(Cow::into_owned);
                    proptest::prop_assert_eq!(again.as_deref(), Some(&*kept));
                }
            }
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = (parse(&text), parse_duration(&text));
        }
    }
}
