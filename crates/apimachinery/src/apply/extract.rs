//! Which fields a configuration names, and whether it can be applied at all.

use super::set::{self, Set, node};
use super::shape::{Fields, Keys, Ref, Shape, field_element, set_element};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The fields of an object.
pub(crate) fn extract(root: Ref<'_>, object: &Value) -> Set {
    fields_of(root, object).unwrap_or_default()
}

fn fields_of(ty: Ref<'_>, value: &Value) -> Option<Set> {
    match (ty.shape(value), value) {
        (Shape::Map(_) | Shape::Set | Shape::List(..), Value::Null) => None,
        (Shape::Map(fields), Value::Object(map)) => node(map_fields(fields, map), false),
        (Shape::Set, Value::Array(items)) => {
            node(items.iter().map(|i| (set_element(i), Value::Object(Set::new()))).collect(), false)
        }
        (Shape::List(keys, item), Value::Array(items)) => node(list_fields(keys, item, items), false),
        _ => Some(Set::new()),
    }
}

fn map_fields(fields: Fields<'_>, map: &Map<String, Value>) -> Set {
    let mut out = Set::new();
    for (key, value) in map {
        let below = fields_of(fields.get(key), value);
        let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        let member = empty || !fields.is_named(key) || below.as_ref().is_some_and(set::is_member);
        if let Some(node) = node(below.unwrap_or_default(), member) {
            out.insert(field_element(key), Value::Object(node));
        }
    }
    out
}

fn list_fields(keys: Keys<'_>, item_type: Ref<'_>, items: &[Value]) -> Set {
    let mut out = Set::new();
    for item in items {
        let Ok(key) = keys.element(item) else { continue };
        // Items with the same key cannot be told apart: what lies below belongs to nobody.
        let below = if out.contains_key(&key) { Set::new() } else { fields_of(item_type, item).unwrap_or_default() };
        out.insert(key, Value::Object(node(below, true).unwrap_or_default()));
    }
    out
}

/// Adds the fields of structs that only lead to others (upstream: `EnsureNamedFieldsAreMembers`).
pub(crate) fn with_named_fields(ty: Ref<'_>, set: &Set) -> Set {
    with_named(Some(ty), set)
}

fn with_named(ty: Option<Ref<'_>>, below: &Set) -> Set {
    // A set says by itself whether it goes into fields or items.
    let fields = ty.and_then(|ty| match ty.shape(&Value::Object(Map::new())) {
        Shape::Map(fields) => Some(fields),
        _ => None,
    });
    let item = ty.and_then(|ty| match ty.shape(&Value::Array(Vec::new())) {
        Shape::List(_, item) => Some(item),
        _ => None,
    });
    let mut out = Set::new();
    for (key, child) in set::children(below) {
        let name = key.strip_prefix("f:");
        let child_type = name.map_or(item, |name| fields.map(|f| f.get(name)));
        let named = name.is_some_and(|name| fields.is_some_and(|f| f.is_named(name)));
        let member = named || set::is_member(child);
        if let Some(node) = node(with_named(child_type, child), member) {
            out.insert(key.to_owned(), Value::Object(node));
        }
    }
    out
}

/// What is wrong with a configuration: undeclared fields, items without keys, duplicate items. The texts are upstream's. Only the
/// first ones, `limit` bytes but for the last.
pub(crate) fn validate(root: Ref<'_>, object: &Value, limit: usize) -> Vec<String> {
    let mut errors = Errors { all: Vec::new(), left: limit };
    check(root, object, &mut String::new(), &mut errors);
    errors.all
}

struct Errors {
    all: Vec<String>,
    left: usize,
}

impl Errors {
    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        if self.left > 0 {
            let text = text.to_string();
            self.left = self.left.saturating_sub(text.len());
            self.all.push(text);
        }
    }
}

fn check(ty: Ref<'_>, value: &Value, path: &mut String, errors: &mut Errors) {
    let (fields, items) = match (ty.shape(value), value) {
        (_, Value::Null) | (Shape::Leaf, _) => return,
        (Shape::Map(fields), Value::Object(map)) => (Some((fields, map)), None),
        (Shape::Map(_), _) => return errors.push(format_args!("{path}: expected map, got {value}")),
        (shape @ (Shape::Set | Shape::List(..)), Value::Array(items)) => (None, Some((shape, items))),
        (Shape::Set | Shape::List(..), _) => return errors.push(format_args!("{path}: expected list, got {value}")),
    };
    let length = path.len();
    if let Some((fields, map)) = fields {
        for (key, value) in map {
            path.push('.');
            path.push_str(key);
            match fields.declared(key) {
                Some(ty) => check(ty, value, path, errors),
                None => errors.push(format_args!("{path}: field not declared in schema")),
            }
            path.truncate(length);
        }
    }
    if let Some((shape, items)) = items {
        check_items(&shape, items, path, errors);
    }
}

fn check_items(shape: &Shape<'_>, items: &[Value], path: &mut String, errors: &mut Errors) {
    let mut seen = HashSet::new();
    let length = path.len();
    for (i, item) in items.iter().enumerate() {
        let (element, ty) = match shape {
            Shape::List(keys, ty) if item.is_object() => match keys.element(item) {
                Ok(element) => (element, *ty),
                Err(key) => {
                    errors.push(format_args!(
                        "{path}: element {i}: associative list with keys has an element that omits key field {} (and doesn't have default value)",
                        crate::text::quote(key)
                    ));
                    continue;
                }
            },
            Shape::List(..) => {
                errors.push(format_args!("{path}: element {i}: associative list with keys may not have non-map elements"));
                continue;
            }
            _ if item.is_object() || item.is_array() || item.is_null() => {
                errors.push(format_args!("{path}: element {i}: associative lists without keys may not have non-scalar elements"));
                continue;
            }
            _ => (set_element(item), Ref::Scalar),
        };
        let text = set::element_text(&element);
        if !seen.insert(element) {
            errors.push(format_args!("{path}: duplicate entries for key {text}"));
        }
        path.push_str(&text);
        check(ty, item, path, errors);
        path.truncate(length);
    }
}
