//! Amounts that are a number or a percentage.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{intstr, names};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

/// A number that is not negative, or a percentage.
pub(crate) fn positive(path: &Path, value: &IntOrString, errors: &mut Errors) {
    match value {
        IntOrString::Int(count) => super::non_negative(path, (*count).into(), errors),
        IntOrString::String(text) => errors.invalid_each(path, text, names::percent(text)),
    }
}

/// A percentage is one of a whole.
pub(crate) fn at_most_all(path: &Path, value: &IntOrString, errors: &mut Errors) {
    if intstr::percent(value).is_some_and(|percent| percent > 100) {
        errors.push(Error::invalid(path, json!(value), "must not be greater than 100%"));
    }
}

/// Nothing, of whatever it is a number or part of.
pub(crate) fn is_zero(value: &IntOrString) -> bool {
    match value {
        IntOrString::Int(count) => *count == 0,
        text => intstr::percent(text).unwrap_or(0) == 0,
    }
}
