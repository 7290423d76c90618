//! What a scalar of YAML 1.1 is, by the rules of go-yaml 2.

use base64::Engine;
use serde_json::{Number, Value};

/// What a scalar stands for.
#[derive(Debug, PartialEq)]
pub(super) enum Resolved {
    Value(Value),
    /// The key `<<`.
    Merge,
}

/// A scalar that is not what its tag says, or nothing that JSON knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScalarError {
    #[error("cannot decode `{text}` as a !!{tag}")]
    Tag { text: String, tag: String },
    #[error("!!binary value contains invalid base64 data")]
    Binary,
    #[error("json: unsupported value: {0}")]
    NotInJson(String),
}

/// Resolves a scalar. `tag` is what follows `!!`; empty for any other tag, whose scalars are text.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Resolved, ScalarError> {
    let value = match tag {
        None if !plain => Value::String(text.to_owned()),
        None if text == "<<" => return Ok(Resolved::Merge),
        None => implicit(text)?,
        Some("merge") => return Ok(Resolved::Merge),
        Some("binary") => binary(text)?,
        Some(tag @ ("null" | "bool" | "int" | "float")) => tagged(text, tag)?,
        Some(_) => Value::String(text.to_owned()),
    };
    Ok(Resolved::Value(value))
}

fn tagged(text: &str, tag: &str) -> Result<Value, ScalarError> {
    let value = implicit(text)?;
    let fits = match &value {
        Value::Null => tag == "null",
        Value::Bool(_) => tag == "bool",
        Value::Number(_) => tag == "float" || tag == "int" && integer(&text.replace('_', "")).is_some(),
        _ => false,
    };
    if fits { Ok(value) } else { Err(ScalarError::Tag { text: text.to_owned(), tag: tag.to_owned() }) }
}

fn binary(text: &str) -> Result<Value, ScalarError> {
    let packed: String = text.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|_| ScalarError::Binary)?;
    Ok(Value::String(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A plain scalar without a tag.
fn implicit(text: &str) -> Result<Value, ScalarError> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Err(ScalarError::NotInJson("NaN".to_owned())),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Err(ScalarError::NotInJson("+Inf".to_owned())),
        "-.inf" | "-.Inf" | "-.INF" => return Err(ScalarError::NotInJson("-Inf".to_owned())),
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    })
}

fn number(text: &str) -> Option<Value> {
    match text.as_bytes().first()? {
        b'.' => float(text),
        b'+' | b'-' | b'0'..=b'9' => {
            let digits = text.replace('_', "");
            integer(&digits).map(Value::Number).or_else(|| float(&digits))
        }
        _ => None,
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

/// A decimal fraction or a power of ten. What is whole is an integer, as Go writes it in JSON.
fn float(text: &str) -> Option<Value> {
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
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    // 2^63 and more are beyond what a signed integer holds exactly here.
    if value.fract() == 0.0 && value.abs() < 9.0e18 {
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

/// A key of a mapping as text.
pub(super) fn key(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
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
            assert_eq!(resolve(text, true, None), Ok(Resolved::Value(expected)), "{text}");
            assert_eq!(resolve(text, false, None), Ok(Resolved::Value(text.into())), "{text}");
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
        check("-1.5e-3", json!(-0.0015));
        for text in [
            "yEs",
            "1.2.3",
            "1:30",
            "2026-01-01",
            "0x",
            "0b",
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
            assert_eq!(resolve(text, true, Some(tag)).map_err(drop), expected.map(Resolved::Value), "{tag} {text}");
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
        check("2026-01-01", "timestamp", Ok(json!("2026-01-01")));
    }
}
