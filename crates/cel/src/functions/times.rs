//! Parts of times and durations.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Zoned};

use super::{Function, Style, other, ranged, text};
use crate::error::Error;
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    ranged("getFullYear", Style::Method, 1, 2, |a| part(a, |time| time.year().into(), None)),
    ranged("getMonth", Style::Method, 1, 2, |a| part(a, |time| i64::from(time.month()) - 1, None)),
    ranged("getDayOfYear", Style::Method, 1, 2, |a| part(a, |time| i64::from(time.day_of_year()) - 1, None)),
    ranged("getDayOfMonth", Style::Method, 1, 2, |a| part(a, |time| i64::from(time.day()) - 1, None)),
    ranged("getDate", Style::Method, 1, 2, |a| part(a, |time| time.day().into(), None)),
    ranged("getDayOfWeek", Style::Method, 1, 2, |a| part(a, |time| time.weekday().since(Weekday::Sunday).into(), None)),
    ranged("getHours", Style::Method, 1, 2, |a| part(a, |time| time.hour().into(), Some(|span| span.as_secs() / 3600))),
    ranged("getMinutes", Style::Method, 1, 2, |a| part(a, |time| time.minute().into(), Some(|span| span.as_secs() / 60))),
    ranged("getSeconds", Style::Method, 1, 2, |a| part(a, |time| time.second().into(), Some(|span| span.as_secs()))),
    ranged("getMilliseconds", Style::Method, 1, 2, |a| {
        part(a, |time| time.millisecond().into(), Some(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }),
];

/// A part of a time, in a zone if one is given; some of them are also of durations, of which they are the whole.
fn part<'a>(
    a: &[Value<'a>],
    of_time: fn(&Zoned) -> i64,
    of_duration: Option<fn(SignedDuration) -> i64>,
) -> Result<Value<'a>, Error> {
    match (&a[0], of_duration, a.get(1)) {
        (Value::Duration(span), Some(of_duration), None) => Ok(Value::Int(of_duration(*span))),
        (Value::Time(time), _, None) => Ok(Value::Int(of_time(&time.to_zoned(TimeZone::UTC)))),
        (Value::Time(time), _, Some(zone)) => {
            let name = text(zone)?;
            match zone_of(name) {
                Some(zone) => Ok(Value::Int(of_time(&time.to_zoned(zone)))),
                None => other(format!("unknown time zone {name}")),
            }
        }
        _ => Err(Error::NoOverload),
    }
}

fn zone_of(name: &str) -> Option<TimeZone> {
    let (negative, rest) = match name.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, name.strip_prefix('+').unwrap_or(name)),
    };
    if let Some((hours, minutes)) = rest.split_once(':') {
        let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
        let offset = jiff::tz::Offset::from_seconds(if negative { -seconds } else { seconds }).ok()?;
        return Some(TimeZone::fixed(offset));
    }
    if matches!(name, "" | "UTC" | "Z") { Some(TimeZone::UTC) } else { TimeZone::get(name).ok() }
}
