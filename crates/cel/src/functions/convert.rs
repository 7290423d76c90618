//! Conversions, sizes, and optional values.

use std::sync::Arc;

use super::{Function, Style, global, method, optional, other, ranged, text};
use crate::error::Error;
use crate::time::{format_duration, parse_duration};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    ranged("size", Style::Both, 1, 1, size),
    global("type", 1, |a| Ok(Value::Type(a[0].kind()))),
    global("dyn", 1, |a| Ok(a[0].clone())),
    global("bool", 1, to_bool),
    global("string", 1, |a| match &a[0] {
        Value::List(_)
        | Value::Map(_)
        | Value::Null
        | Value::Type(_)
        | Value::Semver(_)
        | Value::Optional(_)
        | Value::Question(_)
        | Value::Decision(_) => Err(Error::NoOverload),
        value => Ok(Value::text(show(value))),
    }),
    global("int", 1, to_int),
    global("uint", 1, to_uint),
    global("double", 1, to_double),
    global("bytes", 1, |a| match &a[0] {
        Value::Bytes(_) => Ok(a[0].clone()),
        value => text(value).map(|text| Value::Bytes(text.as_bytes().into())),
    }),
    global("duration", 1, |a| match &a[0] {
        Value::Duration(_) => Ok(a[0].clone()),
        value => {
            let text = text(value)?;
            parse_duration(text)
                .map_or_else(|| other(format!("time: invalid duration {text:?}")), |found| Ok(Value::Duration(found)))
        }
    }),
    global("timestamp", 1, |a| match &a[0] {
        Value::Time(_) => Ok(a[0].clone()),
        Value::Int(seconds) => jiff::Timestamp::from_second(*seconds).map(Value::Time).map_err(|_| Error::Overflow("timestamp")),
        value => {
            let text = text(value)?;
            text.parse().map_or_else(|_| other(format!("parsing time {text:?}: cannot parse")), |found| Ok(Value::Time(found)))
        }
    }),
    global("optional.of", 1, |a| Ok(optional(Some(a[0].clone())))),
    global("optional.none", 0, |_| Ok(optional(None))),
    global("optional.ofNonZeroValue", 1, |a| Ok(optional(Some(a[0].clone()).filter(|value| !is_zero(value))))),
    method("hasValue", 1, |a| inner(&a[0]).map(|value| Value::Bool(value.is_some()))),
    method("value", 1, |a| match inner(&a[0])? {
        Some(value) => Ok(Value::clone(value)),
        None => other("optional.none() dereference"),
    }),
    global("optional.unwrap", 1, unwrapped),
    method("unwrapOpt", 1, unwrapped),
    method("orValue", 2, |a| Ok(inner(&a[0])?.map_or_else(|| a[1].clone(), |value| Value::clone(value)))),
    method("or", 2, |a| if inner(&a[0])?.is_some() { Ok(a[0].clone()) } else { inner(&a[1]).map(|_| a[1].clone()) }),
];

fn inner<'v, 'a>(value: &'v Value<'a>) -> Result<Option<&'v Arc<Value<'a>>>, Error> {
    match value {
        Value::Optional(inner) => Ok(inner.as_ref()),
        _ => Err(Error::NoOverload),
    }
}

/// The values that there are, of a list of optional ones.
fn unwrapped<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let mut out = Vec::new();
    for item in super::list(&a[0])? {
        match item {
            Value::Optional(value) => out.extend(value.map(|value| Value::clone(&value))),
            item => return other(format!("value {} is not optional", show(&item))),
        }
    }
    Ok(Value::list(out))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Text(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.len() == 0,
        Value::Map(map) => map.len() == 0,
        Value::Duration(value) => value.is_zero(),
        number => number.as_double() == Some(0.0),
    }
}

fn size<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let length = match &a[0] {
        Value::Text(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return Err(Error::NoOverload),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn to_bool<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match &a[0] {
        Value::Bool(_) => Ok(a[0].clone()),
        value => match text(value)? {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            wrong => other(format!("strconv.ParseBool: parsing {wrong:?}: invalid syntax")),
        },
    }
}

fn to_int<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let beyond = || Error::Overflow("integer");
    match &a[0] {
        Value::Int(_) => Ok(a[0].clone()),
        Value::Uint(value) => i64::try_from(*value).map(Value::Int).map_err(|_| beyond()),
        Value::Double(value) if value.is_finite() && value.abs() < 9_223_372_036_854_775_807.0 => Ok(Value::Int(*value as i64)),
        Value::Double(_) => Err(beyond()),
        Value::Time(time) => Ok(Value::Int(time.as_second())),
        Value::Duration(value) => i64::try_from(value.as_nanos()).map(Value::Int).map_err(|_| beyond()),
        value => {
            let text = text(value)?;
            text.parse().map_or_else(
                |_| other(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
                |found| Ok(Value::Int(found)),
            )
        }
    }
}

fn to_uint<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let beyond = || Error::Overflow("unsigned integer");
    match &a[0] {
        Value::Uint(_) => Ok(a[0].clone()),
        Value::Int(value) => u64::try_from(*value).map(Value::Uint).map_err(|_| beyond()),
        Value::Double(value) if *value >= 0.0 && *value < 18_446_744_073_709_551_615.0 => Ok(Value::Uint(*value as u64)),
        Value::Double(_) => Err(beyond()),
        value => {
            let text = text(value)?;
            text.parse().map_or_else(
                |_| other(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")),
                |found| Ok(Value::Uint(found)),
            )
        }
    }
}

fn to_double<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match a[0].as_double() {
        Some(value) => Ok(Value::Double(value)),
        None => {
            let text = text(&a[0])?;
            text.parse().map_or_else(
                |_| other(format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")),
                |found| Ok(Value::Double(found)),
            )
        }
    }
}

/// A value as text.
pub(crate) fn show(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) if value.is_infinite() => (if *value > 0.0 { "+Inf" } else { "-Inf" }).to_owned(),
        Value::Double(value) => apimachinery::text::general(*value),
        Value::Text(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(value) => format_duration(*value),
        Value::Time(time) => time.to_string(),
        Value::Type(kind) => kind.0.to_owned(),
        Value::Optional(None) => "optional.none()".to_owned(),
        Value::Quantity(quantity) => quantity.to_string(),
        Value::Url(url) => url.0.to_string(),
        Value::Ip(address) => address.to_string(),
        Value::Cidr(network) => network.to_string(),
        Value::Semver(version) => version.to_string(),
        Value::Format(name) => (*name).to_owned(),
        Value::Question(_) | Value::Decision(_) => value.kind().0.to_owned(),
        Value::List(_) | Value::Map(_) | Value::Optional(Some(_)) => {
            let mut left = MOST_SHOWN;
            show_within(value, &mut left)
        }
    }
}

/// How much of lists and maps is shown. Errors say it.
const MOST_SHOWN: usize = 16 << 10;

/// What is in others, as far as there is room for it.
fn show_within(value: &Value<'_>, left: &mut usize) -> String {
    let bytes = match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    match left.checked_sub(1 + bytes) {
        Some(rest) => *left = rest,
        None => {
            *left = 0;
            return "...".to_owned();
        }
    }
    match value {
        Value::Optional(Some(inner)) => format!("optional({})", show_within(inner, left)),
        Value::List(list) => {
            let mut items = Vec::new();
            for item in list.iter() {
                items.push(show_within(&item, left));
                if *left == 0 {
                    break;
                }
            }
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let mut entries = Vec::new();
            for key in map.keys() {
                let value = map.get(&key).map(|value| show_within(&value, left)).unwrap_or_default();
                entries.push(format!("{}: {value}", show_within(&key, left)));
                if *left == 0 {
                    break;
                }
            }
            entries.sort();
            format!("{{{}}}", entries.join(", "))
        }
        value => show(value),
    }
}
