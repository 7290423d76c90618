//! What values are restricted to beyond their type.

use std::cmp::Ordering;
use std::collections::HashSet;

use apimachinery::field::Error;
use apimachinery::text;
use serde_json::{Number, Value};

use super::{At, Found, check as check_node, field};
use crate::node::{Kind, Limits, Node, NumberFormat};

/// Enum, and what the kind of value can be restricted to.
pub(super) fn check(limits: &Limits, node: &Node, value: &Value, at: &At<'_>, found: &mut Found) {
    match value {
        Value::String(text) => check_text(limits, text, at, found),
        Value::Number(number) => check_number(limits, node, number, at, found),
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
    if limits.format.is_some_and(|format| !format.takes(text)) {
        let detail = format!("{at} in body must be of type {}: {}", limits.format_as_written, text::quote(text));
        found.errors.push(Error::type_invalid(&field(at), text, detail));
    }
}

/// A number, or a limit of numbers, that is not of the type and the format which its schema says.
pub(super) fn beyond(node: &Node, what: &str, at: &At<'_>, found: &mut Found) {
    let kind = node.kind.as_str();
    let format = match node.limits.as_ref().filter(|limits| limits.number_format.is_some()) {
        Some(limits) => format!("with format {}", limits.format_as_written),
        None => "(default format)".to_owned(),
    };
    found.say(format!("{what} value must be of type {kind} {format} in {at}"));
}

/// Whether a number is of the type and the format that a schema says.
pub(super) fn in_range(node: &Node, number: &Number) -> bool {
    let format = node.limits.as_ref().and_then(|limits| limits.number_format);
    match (node.kind, format) {
        (Kind::Integer, format) => {
            let real = || number.as_f64().filter(|real| real.fract() == 0.0 && real.abs() < BEYOND_INT64);
            let whole = number.as_i64().or_else(|| real().map(|real| real as i64));
            whole.is_some_and(|whole| format != Some(NumberFormat::Int32) || i32::try_from(whole).is_ok())
        }
        (_, Some(NumberFormat::Float)) => number.as_f64().is_some_and(|real| (real as f32).is_finite()),
        _ => true,
    }
}

/// The first number above all of an int64.
const BEYOND_INT64: f64 = 9_223_372_036_854_775_808.0;

fn check_number(limits: &Limits, node: &Node, number: &Number, at: &At<'_>, found: &mut Found) {
    let Some(value) = number.as_f64() else { return };
    let mut compare = |limit: Option<f64>, what: &str, wrong: fn(Pair) -> bool, words: &str| {
        let Some(limit) = limit else { return };
        let fits = Number::from_f64(limit).is_some_and(|limit| in_range(node, &limit));
        if !fits {
            beyond(node, what, at, found);
        }
        let pair = match number.as_i64().filter(|_| fits) {
            Some(value) => Pair::Whole(value, limit as i64),
            None => Pair::Real(value, limit),
        };
        let refuse = |value: Value, detail: String| Error::invalid(&field(at), value, detail);
        match pair {
            Pair::Whole(_, limit) if what == MULTIPLE && limit <= 0 => {
                found.errors.push(refuse(limit.into(), format!("factor MultipleOf declared for {at} must be positive: {limit}")));
            }
            Pair::Real(_, limit) if what == MULTIPLE && limit <= 0.0 => {
                let detail = format!("factor MultipleOf declared for {at} must be positive: {}", text::general(limit));
                found.errors.push(refuse(limit.into(), detail));
            }
            pair if wrong(pair) => {
                found.errors.push(refuse(Value::Number(number.clone()), format!("{at} in body {words} {}", pair.limit())));
            }
            _ => {}
        }
    };
    compare(limits.multiple_of, MULTIPLE, |pair| !pair.is_multiple(), "should be a multiple of");
    match limits.exclusive_minimum {
        true => compare(limits.minimum, MINIMUM, |pair| pair.order().is_le(), "should be greater than"),
        false => compare(limits.minimum, MINIMUM, |pair| pair.order().is_lt(), "should be greater than or equal to"),
    }
    match limits.exclusive_maximum {
        true => compare(limits.maximum, MAXIMUM, |pair| pair.order().is_ge(), "should be less than"),
        false => compare(limits.maximum, MAXIMUM, |pair| pair.order().is_gt(), "should be less than or equal to"),
    }
    found.right += 1;
}

/// How upstream calls the limits of numbers.
const MULTIPLE: &str = "MultipleOf";
const MINIMUM: &str = "Minimum boundary";
const MAXIMUM: &str = "Maximum boundary";

/// A number and its limit. A whole number is compared with the whole part of a limit, as upstream compares it, and so exactly beyond 2^53.
#[derive(Clone, Copy)]
enum Pair {
    Whole(i64, i64),
    Real(f64, f64),
}

impl Pair {
    fn order(self) -> Ordering {
        match self {
            Self::Whole(value, limit) => value.cmp(&limit),
            Self::Real(value, limit) => value.partial_cmp(&limit).unwrap_or(Ordering::Equal),
        }
    }

    fn is_multiple(self) -> bool {
        match self {
            Self::Whole(value, limit) => value.checked_rem(limit).unwrap_or(0) == 0,
            Self::Real(value, limit) => {
                let times = if limit < 1.0 { 1.0 / limit * value } else { value / limit };
                let (off, sum) = ((times - times.trunc()).abs(), times.abs() + times.trunc().abs());
                off == 0.0 || times.trunc() != 0.0 && off / sum < 1e-9
            }
        }
    }

    fn limit(self) -> String {
        match self {
            Self::Whole(_, limit) => limit.to_string(),
            Self::Real(_, limit) => text::general(limit),
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

/// Whether an object has too many fields or too few.
pub(super) fn check_size(limits: &Limits, size: usize, at: &At<'_>, found: &mut Found) {
    let count = size as u64;
    if let Some(min) = limits.min_properties.filter(|min| count < *min) {
        let detail = format!("{at} in body should have at least {min} properties");
        found.errors.push(Error::invalid(&field(at), count, detail));
    }
    if let Some(max) = limits.max_properties.filter(|max| count > *max) {
        found.errors.push(Error::too_many(&field(at), size, usize::try_from(max).unwrap_or(usize::MAX)));
    }
    found.right += 1;
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
