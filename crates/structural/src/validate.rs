//! Whether a value fits its schema (upstream: `kube-openapi/pkg/validation/validate` and the field errors that
//! `apiextensions-apiserver/pkg/apiserver/validation` makes of its results).

mod limits;

use apimachinery::field::{Error, Errors, Path};
use serde_json::Value;

use crate::node::{Additional, Kind, List, Node};
use crate::path::At;

/// Checks a value. With `old`, what is as it was before is not looked at again.
pub(crate) fn validate(node: &Node, value: &Value, old: Option<&Value>, name: &str) -> Errors {
    let mut found = Found::default();
    check(node, value, None, &At::Start(name), &mut found);
    if found.errors.is_empty() || old.is_none() {
        return found.errors;
    }
    // Something is wrong: was it before? Only then is it worth comparing.
    let mut found = Found::default();
    check(node, value, old, &At::Start(name), &mut found);
    found.errors
}

/// What is wrong, and how much is right: of several alternatives the one is told of of which most is right.
#[derive(Default)]
struct Found {
    errors: Errors,
    right: usize,
}

impl Found {
    fn merge(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.right += other.right;
    }

    /// What is said of no field, but of the whole.
    fn say(&mut self, text: String) {
        self.errors.push(Error::invalid(&Path::new("<nil>"), "", text));
    }
}

/// The field of an error.
fn field(at: &At<'_>) -> Path {
    Path::new(&at.to_string())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The types of which a value has to be and is. Where a format is said, it is told of instead, as upstream's formats of Go's types.
fn expected_and_given<'v>(node: &'v Node, value: &'v Value) -> (&'v str, &'static str) {
    let limits = node.limits.as_ref().filter(|limits| limits.format.is_some() || limits.number_format.is_some());
    let given = match value {
        Value::Bool(_) | Value::Object(_) => "",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Null | Value::String(_) | Value::Array(_) => return (node.kind.as_str(), kind_of(value)),
    };
    limits.map_or((node.kind.as_str(), kind_of(value)), |limits| (&limits.format_as_written, given))
}

fn fits(kind: Kind, value: &Value) -> bool {
    let whole = |value: &Value| match value {
        Value::Number(number) => !number.is_f64() || number.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    };
    match kind {
        Kind::Any => true,
        Kind::Object => value.is_object(),
        Kind::Array => value.is_array(),
        Kind::String => value.is_string(),
        Kind::Boolean => value.is_boolean(),
        Kind::Number => value.is_number(),
        Kind::Integer => whole(value),
        Kind::IntOrString => value.is_string() || whole(value),
    }
}

fn check(node: &Node, value: &Value, old: Option<&Value>, at: &At<'_>, found: &mut Found) {
    if found.errors.is_full() || old.is_some_and(|old| same(Some(node), value, old)) {
        return;
    }
    // A text or list with a format may be of another type, as upstream: its format is looked at instead.
    let formatted = (value.is_string() || value.is_array())
        && !matches!(node.kind, Kind::Integer | Kind::Number | Kind::IntOrString)
        && node.limits.as_ref().is_some_and(|limits| limits.format.is_some());
    if value.is_null() && node.nullable || formatted || fits(node.kind, value) {
        found.right += 2;
    } else {
        let (kind, given) = expected_and_given(node, value);
        let detail = format!("{at} in body must be of type {kind}: \"{given}\"");
        found.errors.push(Error::type_invalid(&field(at), given, detail));
    }
    if let Value::Number(number) = value
        && !limits::in_range(node, number)
    {
        limits::beyond(node, "Checked", at, found);
    }
    if let Some(limits) = &node.limits {
        if !value.is_null() {
            limits::junctors(limits, value, old, at, found);
        }
        limits::check(limits, node, value, at, found);
    }
    found.right += 1;
    match value {
        Value::Object(map) => {
            if let Some(limits) = &node.limits {
                limits::check_size(limits, map.len(), at, found);
            }
            let below = |key: &str| old.and_then(|old| old.get(key));
            for (key, value) in map {
                let at = At::Key(at, key);
                match (node.properties.get(key), &node.additional) {
                    (Some(property), _) => check(property, value, below(key), &at, found),
                    (None, Additional::Of(additional)) => check(additional, value, below(key), &at, found),
                    (None, Additional::None) => forbidden(&at, key, found),
                    (None, Additional::Any | Additional::Unsaid) => {}
                }
            }
            for name in node.limits.iter().flat_map(|limits| &limits.required) {
                if !map.contains_key(name) {
                    found.errors.push(Error::required(&field(&At::Key(at, name)), ""));
                }
            }
        }
        Value::Array(items) => elements(node, items, old, at, found),
        _ => {}
    }
}

/// Whether a value is as it was before, as upstream compares it (`cel/common/equality.go`): an object with a field that its schema
/// does not know is never the same, and elements that have keys may have changed their places.
fn same(node: Option<&Node>, value: &Value, old: &Value) -> bool {
    match (value, old) {
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(key, value)| {
                    let field = node.and_then(|node| node.field(key));
                    field.is_some() && old.get(key).is_some_and(|old| same(field, value, old))
                })
        }
        (Value::Array(new), Value::Array(old)) => {
            let keys = match node.map(|node| &node.list) {
                Some(List::Map(keys)) => keys,
                _ => return new == old,
            };
            let before = keyed(keys, old);
            let element = node.and_then(|node| node.items.as_deref());
            new.len() == old.len()
                && new.iter().all(|item| before.get(&key(keys, item)).is_some_and(|old| same(element, item, old)))
        }
        (new, old) => new == old,
    }
}

fn forbidden(at: &At<'_>, key: &str, found: &mut Found) {
    let At::Key(parent, _) = at else { return };
    found.errors.push(Error::invalid(&field(parent), key, format!("{at} in body is a forbidden property")));
}

fn elements(node: &Node, items: &[Value], old: Option<&Value>, at: &At<'_>, found: &mut Found) {
    let Some(element) = &node.items else { return };
    // Only elements that have keys are known to be the same as before.
    let before = match (&node.list, old.and_then(Value::as_array)) {
        (List::Map(keys), Some(old)) => Some((keys, keyed(keys, old))),
        _ => None,
    };
    for (index, item) in items.iter().enumerate() {
        let old = before.as_ref().and_then(|(keys, before)| before.get(&key(keys, item)).copied());
        check(element, item, old, &At::Index(at, index), found);
    }
}

fn key(keys: &[String], item: &Value) -> String {
    keys.iter().map(|key| item.get(key).unwrap_or(&Value::Null).to_string()).collect::<Vec<_>>().join(",")
}

fn keyed<'a>(keys: &[String], items: &'a [Value]) -> std::collections::HashMap<String, &'a Value> {
    items.iter().map(|item| (key(keys, item), item)).collect()
}
