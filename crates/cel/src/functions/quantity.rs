//! Quantities, and what they have in common with versions: comparing (`library/quantity.go`).

use std::cmp::Ordering;

use apimachinery::quantity::Quantity;

use super::{Function, global, method, other, text};
use crate::error::Error;
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    global("quantity", 1, |a| {
        let text = text(&a[0])?;
        Quantity::parse(text).map_or_else(
            |_| other("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
            |quantity| Ok(Value::Quantity(quantity)),
        )
    }),
    global("isQuantity", 1, |a| Ok(Value::Bool(Quantity::parse(text(&a[0])?).is_ok()))),
    method("isInteger", 1, |a| own(&a[0]).map(|quantity| Value::Bool(quantity.as_exact_i64().is_some()))),
    method("asInteger", 1, |a| match own(&a[0])?.as_exact_i64() {
        Some(value) => Ok(Value::Int(value)),
        None => other("cannot convert value to integer"),
    }),
    method("asApproximateFloat", 1, |a| own(&a[0]).map(|quantity| Value::Double(quantity.as_f64()))),
    global("sign", 1, |a| own(&a[0]).map(|quantity| Value::Int(quantity.signum().into()))),
    method("add", 2, |a| Ok(Value::Quantity(own(&a[0])? + operand(&a[1])?))),
    method("sub", 2, |a| Ok(Value::Quantity(own(&a[0])? - operand(&a[1])?))),
    method("isGreaterThan", 2, |a| compare(a).map(|order| Value::Bool(order == Ordering::Greater))),
    method("isLessThan", 2, |a| compare(a).map(|order| Value::Bool(order == Ordering::Less))),
    method("compareTo", 2, |a| compare(a).map(|order| Value::Int(order as i64))),
];

fn own(value: &Value<'_>) -> Result<Quantity, Error> {
    match value {
        Value::Quantity(quantity) => Ok(*quantity),
        _ => Err(Error::NoOverload),
    }
}

fn operand(value: &Value<'_>) -> Result<Quantity, Error> {
    match value {
        Value::Int(units) => Ok(Quantity::from_units(*units, apimachinery::quantity::Format::DecimalSi)),
        value => own(value),
    }
}

fn compare(a: &[Value<'_>]) -> Result<Ordering, Error> {
    match a {
        [Value::Semver(own), Value::Semver(other)] => Ok(own.cmp(other)),
        [own_value, other] => Ok(own(own_value)?.cmp(&own(other)?)),
        _ => Err(Error::NoOverload),
    }
}
