//! The math extension and encodings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::cmp::Ordering;

use super::{Function, Style, global, list, other, ranged, text};
use crate::error::Error;
use crate::value::Value;

/// Most arguments of the functions that take any number of them.
const MANY: usize = 64;

pub(super) const FUNCTIONS: &[Function] = &[
    ranged("math.greatest", Style::Global, 1, MANY, |a| extreme(a, Ordering::Greater)),
    ranged("math.least", Style::Global, 1, MANY, |a| extreme(a, Ordering::Less)),
    global("math.abs", 1, |a| match &a[0] {
        Value::Int(value) => value.checked_abs().map(Value::Int).ok_or(Error::Overflow("integer")),
        Value::Uint(value) => Ok(Value::Uint(*value)),
        Value::Double(value) => Ok(Value::Double(value.abs())),
        _ => Err(Error::NoOverload),
    }),
    global("math.sign", 1, |a| match &a[0] {
        Value::Int(value) => Ok(Value::Int(value.signum())),
        Value::Uint(value) => Ok(Value::Uint((*value).min(1))),
        Value::Double(value) => Ok(Value::Double(if *value == 0.0 { 0.0 } else { value.signum() })),
        _ => Err(Error::NoOverload),
    }),
    global("math.ceil", 1, |a| double(&a[0]).map(|value| Value::Double(value.ceil()))),
    global("math.floor", 1, |a| double(&a[0]).map(|value| Value::Double(value.floor()))),
    global("math.round", 1, |a| double(&a[0]).map(|value| Value::Double(value.round()))),
    global("math.trunc", 1, |a| double(&a[0]).map(|value| Value::Double(value.trunc()))),
    global("math.isNaN", 1, |a| double(&a[0]).map(|value| Value::Bool(value.is_nan()))),
    global("math.isInf", 1, |a| double(&a[0]).map(|value| Value::Bool(value.is_infinite()))),
    global("math.isFinite", 1, |a| double(&a[0]).map(|value| Value::Bool(value.is_finite()))),
    global("base64.encode", 1, |a| match &a[0] {
        Value::Bytes(bytes) => Ok(Value::text(STANDARD.encode(bytes))),
        _ => Err(Error::NoOverload),
    }),
    global("base64.decode", 1, |a| match STANDARD.decode(text(&a[0])?) {
        Ok(bytes) => Ok(Value::Bytes(bytes.into())),
        Err(_) => other("illegal base64 data"),
    }),
];

fn double(value: &Value<'_>) -> Result<f64, Error> {
    match value {
        Value::Double(value) => Ok(*value),
        _ => Err(Error::NoOverload),
    }
}

fn extreme<'a>(a: &[Value<'a>], wanted: Ordering) -> Result<Value<'a>, Error> {
    let items = match a {
        [one @ Value::List(_)] => list(one)?,
        many => many.to_vec(),
    };
    let mut items = items.into_iter();
    let mut best = items.next().ok_or(Error::NoOverload)?;
    best.as_double().ok_or(Error::NoOverload)?;
    for item in items {
        item.as_double().ok_or(Error::NoOverload)?;
        if item.order(&best) == Some(wanted) {
            best = item;
        }
    }
    Ok(best)
}
