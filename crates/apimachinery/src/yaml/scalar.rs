//! What a scalar of YAML 1.1 is, by the rules of go-yaml 2.

use base64::Engine;
use serde_json::{Number, Value};

/// What a scalar stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Integer(Number),
    Float(f64),
    Text(String),
}

/// A scalar that is not what its tag says, or nothing that JSON knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    #[error("cannot decode `{text}` as a !!{tag}")]
    Tag { text: String, tag: String },
    #[error("!!binary value contains invalid base64 data")]
    Binary,
    #[error("json: unsupported value: {0}")]
    NotInJson(&'static str),
}

impl Scalar {
    /// The same in JSON, where what is whole is an integer, as Go writes it.
    pub(super) fn into_json(self) -> Result<Value, ScalarError> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Integer(number) => Value::Number(number),
            // Below 1e21 Go writes all digits of what is whole.
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 1e21 => {
                let digits = value.to_string();
                let integer = digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from));
                integer.ok().or_else(|| Number::from_f64(value)).map_or(Value::Null, Value::Number)
            }
            Self::Float(value) => Value::Number(Number::from_f64(value).ok_or_else(|| ScalarError::NotInJson(name(value)))?),
            Self::Text(text) => Value::String(text),
        })
    }

    /// The same as a key of a mapping, which is text: none for null, and for numbers that no signed integer holds.
    pub(super) fn to_key(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Bool(value) => Some(value.to_string()),
            Self::Integer(number) => number.as_i64().map(|number| number.to_string()),
            Self::Float(value) if (*value as f32).is_finite() => Some(crate::text::general(*value as f32)),
            Self::Float(value) => Some(match name(*value) {
                "NaN" => ".nan".to_owned(),
                "-Inf" => "-.inf".to_owned(),
                _ => ".inf".to_owned(),
            }),
            Self::Text(text) => Some(text.clone()),
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

/// Go's name of a number that is none of JSON.
fn name(value: f64) -> &'static str {
    match value {
        value if value.is_nan() => "NaN",
        value if value < 0.0 => "-Inf",
        _ => "+Inf",
    }
}

/// Resolves a scalar. `tag` is what follows `!!`; empty for any other tag, whose scalars are text.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Scalar, ScalarError> {
    Ok(match tag {
        None if !plain => Scalar::Text(text.to_owned()),
        None => implicit(text),
        Some("binary") => binary(text)?,
        Some(tag @ ("null" | "bool" | "int" | "float" | "timestamp")) => tagged(text, tag)?,
        Some(_) => Scalar::Text(text.to_owned()),
    })
}

fn tagged(text: &str, tag: &str) -> Result<Scalar, ScalarError> {
    let value = implicit(text);
    let value = match (&value, tag) {
        (Scalar::Null, "null") | (Scalar::Bool(_), "bool") | (Scalar::Integer(_), "int") | (Scalar::Float(_), "float") => {
            Some(value)
        }
        // What is beyond a signed integer is no float by its tag.
        (Scalar::Integer(number), "float") => number.as_i64().map(|number| Scalar::Float(number as f64)),
        (Scalar::Text(text), "timestamp") if is_timestamp(text) => Some(value),
        _ => None,
    };
    value.ok_or_else(|| ScalarError::Tag { text: text.to_owned(), tag: tag.to_owned() })
}

fn binary(text: &str) -> Result<Scalar, ScalarError> {
    // Go passes over the ends of lines, and over nothing else.
    let packed: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|_| ScalarError::Binary)?;
    Ok(Scalar::Text(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A plain scalar without a tag. What looks like a time is text.
fn implicit(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        _ => number(text).unwrap_or_else(|| Scalar::Text(text.to_owned())),
    }
}

fn number(text: &str) -> Option<Scalar> {
    match text.as_bytes().first()? {
        b'.' if text.contains('_') => separates_digits(text).then(|| float(&text.replace('_', "")))?,
        b'.' => float(text),
        b'+' | b'-' | b'0'..=b'9' => {
            let digits = text.replace('_', "");
            integer(&digits).map(Scalar::Integer).or_else(|| float(&digits)).or_else(|| signed_binary(&digits))
        }
        _ => None,
    }
}

/// Whether each `_` stands between digits.
fn separates_digits(text: &str) -> bool {
    let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    (0..bytes.len()).filter(|at| bytes[*at] == b'_').all(|at| digit(bytes.get(at - 1)) && digit(bytes.get(at + 1)))
}

/// `0b-1`: go-yaml takes a sign behind the prefix.
fn signed_binary(text: &str) -> Option<Scalar> {
    i64::from_str_radix(text.strip_prefix("0b")?, 2).ok().map(|number| Scalar::Integer(number.into()))
}

/// A date, or a date and a time: with a zone after `T` or `t`, without one after a space.
fn is_timestamp(text: &str) -> bool {
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>, range: std::ops::RangeInclusive<u32>| {
        let fits = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        fits && text.parse().is_ok_and(|number| range.contains(&number))
    };
    let date = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        let [year, month, day] = parts[..] else { return false };
        let fits = number(year, 4..=4, 0..=9999) && number(month, 1..=2, 1..=12) && number(day, 1..=2, 1..=31);
        let (Ok(year), Ok(month), Ok(day)) = (year.parse(), month.parse(), day.parse()) else { return false };
        fits && jiff::civil::Date::new(year, month, day).is_ok()
    };
    let clock = |text: &str| {
        let (time, fraction) = text.split_once('.').map_or((text, None), |(time, fraction)| (time, Some(fraction)));
        let parts: Vec<&str> = time.split(':').collect();
        let [hour, minute, second] = parts[..] else { return false };
        let fits = number(hour, 1..=2, 0..=23) && number(minute, 1..=2, 0..=59) && number(second, 1..=2, 0..=59);
        fits && fraction.is_none_or(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let zone = |text: &str| match text.split_once(':') {
        Some((hours, minutes)) => number(hours, 2..=2, 0..=24) && number(minutes, 2..=2, 0..=60),
        None => false,
    };
    if let Some((day, time)) = text.split_once(' ') {
        return date(day) && clock(time);
    }
    let Some((day, rest)) = text.split_once(['T', 't']) else { return date(text) };
    match rest
        .strip_suffix('Z')
        .map(|time| (time, None))
        .or_else(|| rest.find(['+', '-']).map(|at| (&rest[..at], Some(&rest[at + 1..]))))
    {
        Some((time, offset)) => date(day) && clock(time) && offset.is_none_or(zone),
        None => false,
    }
}

/// As Go's `ParseInt` and `ParseUint` of any base: `0x`, `0o`, `0b`, and `0` for octal.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0b") if digits.len() > 2 => (2, &digits[2..]),
        Some("0o") if digits.len() > 2 => (8, &digits[2..]),
        Some("0x") if digits.len() > 2 => (16, &digits[2..]),
        Some(zero) if zero.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    // Rust takes a sign here, too.
    if !digits.starts_with(|c: char| c.is_digit(base)) {
        return None;
    }
    match negative {
        true => i64::from_str_radix(&format!("-{digits}"), base).ok().map(Number::from),
        // Go takes no plus before what only fits without a sign.
        false => {
            u64::from_str_radix(digits, base).ok().filter(|n| *n <= i64::MAX as u64 || !text.starts_with('+')).map(Number::from)
        }
    }
}

/// A decimal fraction or a power of ten.
fn float(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_float = digits(whole) && digits(fraction) && whole.len() + fraction.len() > 0;
    if !is_float || exponent.is_some_and(|exponent| exponent.is_empty() || !digits(exponent)) {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite()).map(Scalar::Float)
}

/// The text of a key that an alias stands for.
pub(super) fn key_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) if number.is_f64() => number.as_f64().and_then(|number| Scalar::Float(number).to_key()),
        Value::Number(number) => Scalar::Integer(number.clone()).to_key(),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars() {
        let check = |text: &str, expected: Value| {
            let json = |plain: bool| resolve(text, plain, None).and_then(Scalar::into_json);
            assert_eq!((json(true), json(false)), (Ok(expected), Ok(text.into())), "{text}");
        };
        for text in ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"] {
            check(text, json!(true));
        }
        for text in ["n", "N", "no", "off", "OFF", "false", "False"] {
            check(text, json!(false));
        }
        for text in ["", "~", "null", "Null", "NULL"] {
            check(text, json!(null));
        }
        for (text, number) in
            [("0644", 420), ("0400", 256), ("010", 8), ("0", 0), ("08", 8), ("-010", -8), ("+1", 1), ("0o14", 12)]
        {
            check(text, json!(number));
        }
        for (text, number) in [("0x1F", 31), ("0b101", 5), ("1_000", 1000), ("10.0", 10), ("1e3", 1000), ("-0.0", 0), ("1.", 1)] {
            check(text, json!(number));
        }
        check("18446744073709551615", json!(u64::MAX));
        check("1.5", json!(1.5));
        check(".5", json!(0.5));
        check(".5_0", json!(0.5));
        check("0b-1", json!(-1));
        check("0b+1", json!(1));
        check("+9223372036854775808", json!(9_223_372_036_854_776_000_u64));
        check("1e20", json!(1e20));
        check("-1.5e-3", json!(-0.0015));
        for text in [
            "yEs",
            "1.2.3",
            "1:30",
            "2026-01-01",
            "0x",
            "0b",
            "._5",
            ".5_",
            ".5__0",
            "-",
            "+",
            ".",
            "1e",
            "e3",
            "_1",
            "1e400",
            "0xg",
            "--1",
            "-+1",
            "100m",
        ] {
            check(text, json!(text));
        }
    }

    #[test]
    fn tags() {
        let check = |text: &str, tag: &str, expected: Result<Value, ()>| {
            let got = resolve(text, true, Some(tag)).and_then(Scalar::into_json);
            assert_eq!(got.map_err(drop), expected, "{tag} {text}");
        };
        check("0644", "str", Ok(json!("0644")));
        check("yes", "", Ok(json!("yes")));
        check("5", "int", Ok(json!(5)));
        check("1", "float", Ok(json!(1)));
        check("1.5", "int", Err(()));
        check("x", "int", Err(()));
        check("x", "bool", Err(()));
        check("aGk=", "binary", Ok(json!("hi")));
        check("aG", "binary", Err(()));
        check("aG k=", "binary", Err(()));
        for text in ["2026-01-01", "2026-1-2", "2026-1-2T3:4:5Z", "2026-1-2t3:4:5.5+01:00", "2026-01-02 03:04:05.123"] {
            check(text, "timestamp", Ok(json!(text)));
        }
        for text in ["x", "1", "2026-02-30", "2026-01-01T", "2026-1-2T3:4:5", "2026-1-2 3:4:5Z", "26-01-01", "2026-1-2T24:0:0Z"] {
            check(text, "timestamp", Err(()));
        }
        check(".inf", "float", Err(()));
        check("18446744073709551615", "float", Err(()));
    }

    #[test]
    fn keys() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(resolve(text, true, None).map(|scalar| scalar.to_key()), Ok(expected.map(str::to_owned)), "{text}");
        };
        for (text, key) in
            [("yes", "true"), ("010", "8"), ("1.5", "1.5"), ("1e3", "1000"), ("1e6", "1e+06"), ("0.00001", "1e-05")]
        {
            check(text, Some(key));
        }
        for (text, key) in
            [("0.1", "0.1"), ("-.inf", "-.inf"), (".NaN", ".nan"), ("1e400", "1e400"), ("16777217.0", "1.6777216e+07")]
        {
            check(text, Some(key));
        }
        check("1e300", Some(".inf"));
        check("1234567.0", Some("1.234567e+06"));
        check("~", None);
        check("18446744073709551615", None);
    }
}
