//! What values are restricted to beyond their type.

use std::collections::HashSet;

use apimachinery::field::Error;
use serde_json::{Number, Value};

use super::{At, Found, check as check_node, field};
use crate::node::{Limits, Node};

/// Enum, and what the kind of value can be restricted to.
pub(super) fn check(limits: &Limits, value: &Value, at: &At<'_>, found: &mut Found) {
    match value {
        Value::String(text) => check_text(limits, text, at, found),
        Value::Number(number) => check_number(limits, number, at, found),
        Value::Array(items) => check_list(limits, items, at, found),
        _ => {}
    }
    if let Some(values) = &limits.values {
        if values.iter().any(|one| same(one, value)) {
            found.right += 1;
        } else {
            let texts: Vec<String> =
                values.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
            found.errors.push(Error::not_supported(&field(at), value.clone(), &texts));
        }
    }
}

/// Equal, also as numbers of other types.
fn same(one: &Value, other: &Value) -> bool {
    one == other || one.is_number() && other.is_number() && one.as_f64() == other.as_f64()
}

fn check_text(limits: &Limits, text: &str, at: &At<'_>, found: &mut Found) {
    let invalid = |detail: String| Error::invalid(&field(at), text, detail);
    let length = || text.chars().count() as u64;
    if let Some(max) = limits.max_length.filter(|max| length() > *max) {
        found.errors.push(Error::too_long(&field(at), usize::try_from(max).unwrap_or(usize::MAX)));
    } else if let Some(min) = limits.min_length.filter(|min| length() < *min) {
        found.errors.push(invalid(format!("{at} in body should be at least {min} chars long")));
    } else if let Some(pattern) = limits.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
        found.errors.push(invalid(format!("{at} in body should match '{}'", pattern.source())));
    } else {
        found.right += 1;
    }
    if let Some(format) = limits.format.filter(|format| !format.takes(text)) {
        let detail = format!("{at} in body must be of type {}: {text:?}", format.name());
        found.errors.push(Error::type_invalid(&field(at), text, detail));
    }
}

fn check_number(limits: &Limits, number: &Number, at: &At<'_>, found: &mut Found) {
    let Some(value) = number.as_f64() else { return };
    let mut refuse = |detail: String| {
        found.errors.push(Error::invalid(&field(at), Value::Number(number.clone()), format!("{at} in body {detail}")))
    };
    if let Some(factor) = limits.multiple_of.filter(|factor| *factor > 0.0)
        && !is_multiple(number, value, factor)
    {
        refuse(format!("should be a multiple of {factor}"));
    }
    if let Some(min) = limits.minimum {
        if limits.exclusive_minimum && !is_above(number, value, min) {
            refuse(format!("should be greater than {min}"));
        } else if !limits.exclusive_minimum && is_below(number, value, min) {
            refuse(format!("should be greater than or equal to {min}"));
        }
    }
    if let Some(max) = limits.maximum {
        if limits.exclusive_maximum && !is_below(number, value, max) {
            refuse(format!("should be less than {max}"));
        } else if !limits.exclusive_maximum && is_above(number, value, max) {
            refuse(format!("should be less than or equal to {max}"));
        }
    }
    found.right += 1;
}

/// Comparisons of whole numbers stay exact beyond 2^53.
fn exact(number: &Number, bound: f64) -> Option<(i64, i64)> {
    let whole = bound.fract() == 0.0 && bound.abs() < i64::MAX as f64;
    number.as_i64().filter(|_| whole).map(|number| (number, bound as i64))
}

fn is_below(number: &Number, value: f64, bound: f64) -> bool {
    exact(number, bound).map_or(value < bound, |(number, bound)| number < bound)
}

fn is_above(number: &Number, value: f64, bound: f64) -> bool {
    exact(number, bound).map_or(value > bound, |(number, bound)| number > bound)
}

fn is_multiple(number: &Number, value: f64, factor: f64) -> bool {
    match exact(number, factor) {
        Some((_, 0)) => true,
        Some((number, factor)) => number % factor == 0,
        None => {
            let quotient = value / factor;
            (quotient - quotient.round()).abs() < 1e-9
        }
    }
}

fn check_list(limits: &Limits, items: &[Value], at: &At<'_>, found: &mut Found) {
    let size = items.len() as u64;
    if let Some(min) = limits.min_items.filter(|min| size < *min) {
        let detail = format!("{at} in body should have at least {min} items");
        found.errors.push(Error::invalid(&field(at), size, detail));
    }
    if let Some(max) = limits.max_items.filter(|max| size > *max) {
        found.errors.push(Error::too_many(&field(at), items.len(), usize::try_from(max).unwrap_or(usize::MAX)));
    }
    let mut seen = HashSet::new();
    if limits.unique_items && !items.iter().all(|item| seen.insert(item.to_string())) {
        found.errors.push(Error::invalid(&field(at), "", format!("{at} in body shouldn't contain duplicates")));
    }
    found.right += 1;
}

/// Whether an object has too many fields or too few: then nothing else is said of them.
pub(super) fn wrong_size(limits: &Limits, size: usize, at: &At<'_>, found: &mut Found) -> bool {
    let count = size as u64;
    if let Some(min) = limits.min_properties.filter(|min| count < *min) {
        let detail = format!("{at} in body should have at least {min} properties");
        found.errors.push(Error::invalid(&field(at), min, detail));
        return true;
    }
    if let Some(max) = limits.max_properties.filter(|max| count > *max) {
        found.errors.push(Error::too_many(&field(at), size, usize::try_from(max).unwrap_or(usize::MAX)));
        return true;
    }
    found.right += 1;
    false
}

/// anyOf, oneOf, allOf and not.
pub(super) fn junctors(limits: &Limits, value: &Value, old: Option<&Value>, at: &At<'_>, found: &mut Found) {
    let ask = |node: &Node| {
        let mut found = Found::default();
        check_node(node, value, old, at, &mut found);
        found
    };
    any_of(&limits.any_of, &ask, at, found);
    one_of(&limits.one_of, &ask, at, found);
    let answers: Vec<Found> = limits.all_of.iter().map(ask).collect();
    let right = answers.iter().filter(|answer| answer.errors.is_empty()).count();
    let wrong = right != answers.len();
    answers.into_iter().for_each(|answer| found.merge(answer));
    if wrong {
        let none = if right == 0 { ". None validated" } else { "" };
        found.say(format!("{:?} must validate all the schemas (allOf){none}", at.to_string()));
    }
    if limits.not.as_ref().is_some_and(|not| ask(not).errors.is_empty()) {
        found.say(format!("{:?} must not validate the schema (not)", at.to_string()));
    }
}

fn any_of(parts: &[Node], ask: &impl Fn(&Node) -> Found, at: &At<'_>, found: &mut Found) {
    let mut best: Option<Found> = None;
    for part in parts {
        let answer = ask(part);
        if answer.errors.is_empty() {
            return found.merge(answer);
        }
        if best.as_ref().is_none_or(|best| answer.right > best.right) {
            best = Some(answer);
        }
    }
    if let Some(best) = best {
        found.say(format!("{:?} must validate at least one schema (anyOf)", at.to_string()));
        found.merge(best);
    }
}

fn one_of(parts: &[Node], ask: &impl Fn(&Node) -> Found, at: &At<'_>, found: &mut Found) {
    if parts.is_empty() {
        return;
    }
    let (mut right, mut first, mut best) = (0, None, None::<Found>);
    for part in parts {
        let answer = ask(part);
        if answer.errors.is_empty() {
            right += 1;
            first.get_or_insert(answer);
        } else if right == 0 && best.as_ref().is_none_or(|best| answer.right > best.right) {
            best = Some(answer);
        }
    }
    if let (1, Some(first)) = (right, first) {
        return found.merge(first);
    }
    let more = if right == 0 { "Found none valid".to_owned() } else { format!("Found {right} valid alternatives") };
    found.say(format!("{:?} must validate one and only one schema (oneOf). {more}", at.to_string()));
    if let Some(best) = best.filter(|_| right == 0) {
        found.merge(best);
    }
}
