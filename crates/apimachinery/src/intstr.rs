//! `IntOrString`: a number or a percentage of one.

use crate::text::quote;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

/// Why a value is neither a number nor a percentage. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A string without a trailing `%`.
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotPercentage,
    /// A string whose part before `%` is not an integer.
    #[error("invalid value for IntOrString: invalid value {}: strconv.Atoi: parsing {}: invalid syntax", quote(.0), quote(.0.trim_end_matches('%')))]
    NotNumber(String),
    /// Neither a number nor a string.
    #[error("invalid value for IntOrString: invalid type: neither int nor percentage")]
    WrongType,
}

/// Reads JSON; `None` when it is neither an integer nor a string.
pub fn from_value(value: &Value) -> Option<IntOrString> {
    match value {
        Value::Number(n) => Some(IntOrString::Int(i32::try_from(n.as_i64()?).ok()?)),
        Value::String(s) => Some(IntOrString::String(s.clone())),
        _ => None,
    }
}

/// The number, or the percentage of `total`, rounded as asked (upstream: `GetScaledValueFromIntOrPercent`).
pub fn scaled(value: &IntOrString, total: i64, round_up: bool) -> Result<i64, Error> {
    let text = match value {
        IntOrString::Int(i) => return Ok(i64::from(*i)),
        IntOrString::String(s) => s,
    };
    let percent: i64 = text.strip_suffix('%').ok_or(Error::NotPercentage)?.parse().map_err(|_| Error::NotNumber(text.clone()))?;
    let product = i128::from(percent) * i128::from(total);
    let floor = product.div_euclid(100);
    let value = if round_up && product.rem_euclid(100) != 0 { floor + 1 } else { floor };
    Ok(value.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

/// [`scaled`] of JSON.
pub fn scaled_value(value: &Value, total: i64, round_up: bool) -> Result<i64, Error> {
    scaled(&from_value(value).ok_or(Error::WrongType)?, total, round_up)
}

/// The percentage of a string such as `25%`; `None` for anything else.
pub fn percent(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::String(s) if crate::names::percent(s).is_empty() => s.strip_suffix('%')?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scales() {
        let check = |value: Value, total, up, expected: Result<i64, &str>| {
            assert_eq!(scaled_value(&value, total, up).map_err(|e| e.to_string()), expected.map_err(str::to_owned), "{value}");
        };
        check(json!(4), 10, false, Ok(4));
        check(json!("25%"), 10, true, Ok(3));
        check(json!("25%"), 10, false, Ok(2));
        check(json!("0%"), 10, true, Ok(0));
        check(json!("100%"), 3, false, Ok(3));
        check(json!("4"), 10, true, Err("invalid value for IntOrString: invalid type: string is not a percentage"));
        let bad = r#"invalid value for IntOrString: invalid value "x%": strconv.Atoi: parsing "x": invalid syntax"#;
        check(json!("x%"), 10, true, Err(bad));
        check(json!(true), 10, true, Err("invalid value for IntOrString: invalid type: neither int nor percentage"));
    }
}
