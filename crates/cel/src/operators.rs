//! Operators.

use std::cmp::Ordering;

use crate::ast::{Binary, Unary};
use crate::error::Error;
use crate::value::keys::{self, Work};
use crate::value::{List, Map, Value};

pub(crate) fn unary(operator: Unary, operand: Value<'_>) -> Result<Value<'_>, Error> {
    match (operator, operand) {
        (Unary::Not, Value::Bool(value)) => Ok(Value::Bool(!value)),
        (Unary::Negate, Value::Int(value)) => value.checked_neg().map(Value::Int).ok_or(Error::Overflow("integer")),
        (Unary::Negate, Value::Double(value)) => Ok(Value::Double(-value)),
        _ => Err(Error::NoOverload),
    }
}

pub(crate) fn binary<'a>(operator: Binary, left: &Value<'a>, right: &Value<'a>, work: &mut Work) -> Result<Value<'a>, Error> {
    let order =
        |wanted: &[Ordering]| left.order(right).map(|order| Value::Bool(wanted.contains(&order))).ok_or(Error::NoOverload);
    match operator {
        Binary::Equal | Binary::Unequal if !are_comparable(left, right) => Err(Error::NoOverload),
        Binary::Equal => Ok(Value::Bool(left.equals_within(right, work))),
        Binary::Unequal => Ok(Value::Bool(!left.equals_within(right, work))),
        Binary::Less => order(&[Ordering::Less]),
        Binary::LessOrEqual => order(&[Ordering::Less, Ordering::Equal]),
        Binary::Greater => order(&[Ordering::Greater]),
        Binary::GreaterOrEqual => order(&[Ordering::Greater, Ordering::Equal]),
        Binary::In => match right {
            Value::List(list) => Ok(Value::Bool(list.iter().any(|item| item.equals_within(left, work)))),
            Value::Map(map) => Ok(Value::Bool(map.get(left).is_some())),
            _ => Err(Error::NoOverload),
        },
        Binary::Add => add(left, right, work),
        Binary::Subtract => subtract(left, right),
        Binary::Multiply | Binary::Divide | Binary::Modulo => scale(operator, left, right),
    }
}

/// Upstream's lists and objects of a schema refuse to be compared with something else behind them, as no other values do.
fn are_comparable(left: &Value<'_>, right: &Value<'_>) -> bool {
    match left {
        Value::List(List::Json(_, Some(_))) => matches!(right, Value::List(_)),
        Value::Map(Map::Json(_, Some(_))) => matches!(right, Value::Map(_)),
        _ => true,
    }
}

fn whole<'a, T>(value: Option<T>, wrap: fn(T) -> Value<'a>, name: &'static str) -> Result<Value<'a>, Error> {
    value.map(wrap).ok_or(Error::Overflow(name))
}

fn add<'a>(left: &Value<'a>, right: &Value<'a>, work: &mut Work) -> Result<Value<'a>, Error> {
    let beyond = |kind| Error::Overflow(kind);
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_add(*b), Value::Int, "integer"),
        (Value::Uint(a), Value::Uint(b)) => whole(a.checked_add(*b), Value::Uint, "unsigned integer"),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::Text(a), Value::Text(b)) => Ok(Value::text(format!("{a}{b}"))),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        (Value::Duration(a), Value::Duration(b)) => whole(a.checked_add(*b), Value::Duration, "duration"),
        (Value::Time(time), Value::Duration(by)) | (Value::Duration(by), Value::Time(time)) => {
            time.checked_add(*by).map(Value::Time).map_err(|_| beyond("timestamp"))
        }
        (Value::List(a), Value::List(b)) => Ok(join(a, b, work)),
        _ => Err(Error::NoOverload),
    }
}

/// Two lists one after the other; to sets and lists by keys only what is new is added, and what has a known key is replaced.
fn join<'a>(left: &List<'a>, right: &List<'a>, work: &mut Work) -> Value<'a> {
    let mut out: Vec<Value<'a>> = left.iter().collect();
    let Some(shape) = left.shape().filter(|shape| shape.is_set() || !shape.keys().is_empty()) else {
        out.extend(right.iter());
        return Value::list(out);
    };
    let more: Vec<Value<'a>> = right.iter().collect();
    let (own, other) = (keys::identities(&out, shape), keys::identities(&more, shape));
    let mut places = keys::Places::new(&own);
    let same = |a: &[Option<Value<'a>>], b: &[Option<Value<'a>>], work: &mut Work| {
        a.len() == b.len()
            && a.iter().zip(b).all(|pair| match pair {
                (Some(a), Some(b)) => a.equals_within(b, work),
                (a, b) => a.is_none() && b.is_none(),
            })
    };
    // What stands where in the result: elements of the left list, then of the right one.
    let mut added: Vec<usize> = Vec::new();
    for (number, (item, identity)) in more.into_iter().zip(&other).enumerate() {
        let next = out.len();
        let found = places.as_mut().and_then(|places| places.add(identity, next));
        if found.is_none() {
            // It may equal others that have a key.
            places = None;
        }
        let found = found.unwrap_or_else(|| {
            let before = own.iter().chain(added.iter().map(|number| &other[*number]));
            before.enumerate().find(|(_, known)| same(known, identity, work)).map_or(next, |(at, _)| at)
        });
        if found == next {
            added.push(number);
            out.push(item);
        } else {
            out[found] = item;
        }
    }
    Value::list(out)
}

fn subtract<'a>(left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Error> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_sub(*b), Value::Int, "integer"),
        (Value::Uint(a), Value::Uint(b)) => whole(a.checked_sub(*b), Value::Uint, "unsigned integer"),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => whole(a.checked_sub(*b), Value::Duration, "duration"),
        (Value::Time(a), Value::Time(b)) => Ok(Value::Duration(a.duration_since(*b))),
        (Value::Time(time), Value::Duration(by)) => {
            time.checked_sub(*by).map(Value::Time).map_err(|_| Error::Overflow("timestamp"))
        }
        _ => Err(Error::NoOverload),
    }
}

fn scale<'a>(operator: Binary, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Error> {
    let zero = || if operator == Binary::Modulo { Error::ModulusByZero } else { Error::DivisionByZero };
    match (operator, left, right) {
        (Binary::Multiply, Value::Int(a), Value::Int(b)) => whole(a.checked_mul(*b), Value::Int, "integer"),
        (Binary::Multiply, Value::Uint(a), Value::Uint(b)) => whole(a.checked_mul(*b), Value::Uint, "unsigned integer"),
        (Binary::Multiply, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        (Binary::Divide, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        (_, Value::Int(_), Value::Int(0)) | (_, Value::Uint(_), Value::Uint(0)) => Err(zero()),
        (Binary::Divide, Value::Int(a), Value::Int(b)) => whole(a.checked_div(*b), Value::Int, "integer"),
        (Binary::Divide, Value::Uint(a), Value::Uint(b)) => whole(a.checked_div(*b), Value::Uint, "unsigned integer"),
        (Binary::Modulo, Value::Int(a), Value::Int(b)) => whole(a.checked_rem(*b), Value::Int, "integer"),
        (Binary::Modulo, Value::Uint(a), Value::Uint(b)) => whole(a.checked_rem(*b), Value::Uint, "unsigned integer"),
        _ => Err(Error::NoOverload),
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other)
    }
}
