//! Scalars, and the types that read and write themselves.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::error::{Target, TypeError};
use crate::path::Path;
use crate::quantity;
use crate::time::{self, Precision};
use crate::types::Type;

/// Checks a value that is not null, and makes it canonical.
pub(super) fn check(ty: &Type, value: &mut Value, target: &Target<'_>, path: &Path<'_>) -> Result<(), TypeError> {
    match ty {
        Type::Bool => is(value.is_boolean(), value, target, path),
        Type::String => is(value.is_string(), value, target, path),
        Type::Float64 => {
            is(value.is_number(), value, target, path)?;
            if let Some(float) = value.as_f64().filter(|_| value.is_f64()) {
                *value = of_float(float);
            }
            Ok(())
        }
        Type::Int32 => integer(value, |value| i32::try_from(value).is_ok(), target, path),
        Type::Int64 => integer(value, |_| true, target, path),
        Type::Bytes => bytes(value, target, path),
        Type::Quantity => quantity(value),
        Type::IntOrString => int_or_string(value),
        Type::Time => at(value, Precision::Seconds),
        Type::MicroTime => at(value, Precision::Micros),
        Type::Duration => {
            let nanos = time::parse_duration(text(value)?).map_err(TypeError::Text)?;
            *value = Value::String(time::format_duration(nanos));
            Ok(())
        }
        Type::RawExtension | Type::FieldsV1 | Type::Json | Type::Any => Ok(()),
        Type::SchemaOr(..) | Type::Struct(_) | Type::List(_) | Type::Map(_) => Err(target.mismatch(value, path)),
    }
}

/// A float as Go writes it: without a fraction when it has none, as far as a signed integer of 64 bits goes. Not a number becomes null.
pub fn of_float(value: f64) -> Value {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && (-BEYOND..BEYOND).contains(&value) { Value::from(value as i64) } else { Value::from(value) }
}

fn is(fits: bool, value: &Value, target: &Target<'_>, path: &Path<'_>) -> Result<(), TypeError> {
    if fits { Ok(()) } else { Err(target.mismatch(value, path)) }
}

fn integer(value: &mut Value, fits: impl Fn(i64) -> bool, target: &Target<'_>, path: &Path<'_>) -> Result<(), TypeError> {
    match value {
        Value::Number(number) if number.as_i64().is_some_and(fits) => Ok(()),
        // `-0` is read as a float.
        Value::Number(number) if number.as_f64().is_some_and(|float| float == 0.0 && float.is_sign_negative()) => {
            *value = 0.into();
            Ok(())
        }
        Value::Number(_) => Err(target.number(value, path)),
        _ => Err(target.mismatch(value, path)),
    }
}

fn bytes(value: &mut Value, target: &Target<'_>, path: &Path<'_>) -> Result<(), TypeError> {
    let Value::String(text) = value else { return Err(target.mismatch(value, path)) };
    // Go skips line breaks inside base64.
    if text.contains(['\n', '\r']) {
        text.retain(|c| c != '\n' && c != '\r');
    }
    match STANDARD.decode(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(error) => Err(TypeError::Text(format!("illegal base64 data at input byte {}", offset(&error, text.len())))),
    }
}

fn offset(error: &base64::DecodeError, len: usize) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol { offset: at, .. } => *at,
        _ => len - len % 4,
    }
}

fn quantity(value: &mut Value) -> Result<(), TypeError> {
    let text = match &*value {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        other => Cow::Owned(other.to_string()),
    };
    let fixed = match quantity::canonical(&text).map_err(|error| TypeError::Text(error.to_string()))? {
        Cow::Borrowed(same) if value.as_str() == Some(same) => return Ok(()),
        other => other.into_owned(),
    };
    *value = Value::String(fixed);
    Ok(())
}

fn int_or_string(value: &Value) -> Result<(), TypeError> {
    let go = || "int32".to_owned();
    match value {
        Value::String(_) => Ok(()),
        Value::Number(number) if number.as_i64().is_some_and(|value| i32::try_from(value).is_ok()) => Ok(()),
        Value::Number(_) => Err(TypeError::Value { found: format!("number {value}"), go: go() }),
        _ => Err(TypeError::mismatch(value, go(), None)),
    }
}

fn at(value: &mut Value, precision: Precision) -> Result<(), TypeError> {
    let fixed = match time::canonical(text(value)?, precision).map_err(TypeError::Text)? {
        Some(Cow::Borrowed(_)) => return Ok(()),
        Some(Cow::Owned(other)) => Value::String(other),
        None => Value::Null,
    };
    *value = fixed;
    Ok(())
}

fn text(value: &Value) -> Result<&str, TypeError> {
    value.as_str().ok_or_else(|| TypeError::mismatch(value, "string".to_owned(), None))
}
