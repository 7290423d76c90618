//! Which fields a configuration names, and whether it can be applied at all.

use super::set::{self, Set, node};
use super::shape::{Fields, Keys, Ref, Scalar, Shape, field_element, set_element};
use crate::text::quote;
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
        let Some(key) = keys.element(item) else { continue };
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
    let (fields, items) = match (ty.inside(value), value) {
        (_, Value::Null) => return,
        (Shape::Leaf, value) => return check_scalar(ty.scalar(), value, path, errors),
        (Shape::Map(fields), Value::Object(map)) => (Some((fields, map)), None),
        (Shape::Map(_), _) => return errors.push(format_args!("{path}: expected map, got &{{{}}}", shown(value))),
        (shape @ (Shape::Set | Shape::List(..) | Shape::Row(_)), Value::Array(items)) => (None, Some((shape, items))),
        (Shape::Set | Shape::List(..) | Shape::Row(_), _) => {
            return errors.push(format_args!("{path}: expected list, got &{{{}}}", shown(value)));
        }
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

fn check_scalar(scalar: Option<Scalar>, value: &Value, path: &str, errors: &mut Errors) {
    let whole = value.is_object() || value.is_array();
    match scalar {
        Some(Scalar::Text) if !value.is_string() => {
            errors.push(format_args!("{path}: expected string, got &value.valueUnstructured{{Value:{}}}", declared(value)));
        }
        Some(Scalar::Number) if !value.is_number() => {
            errors.push(format_args!("{path}: expected numeric (int or float), got {}", type_name(value)));
        }
        Some(Scalar::Boolean) if !value.is_boolean() => {
            errors.push(format_args!("{path}: expected boolean, got &{{{}}}", shown(value)));
        }
        Some(Scalar::Any) if whole => errors.push(format_args!("{path}: expected any scalar, got &{{{}}}", shown(value))),
        _ => {}
    }
}

/// A value as Go's `%v` shows it.
fn shown(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", join(items.iter().map(shown).collect())),
        Value::Object(map) => {
            format!("map[{}]", join(map.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect()))
        }
        scalar => scalar.to_string(),
    }
}

/// A value as Go's `%#v` shows it.
fn declared(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => quote(text),
        Value::Array(items) => format!("[]interface {{}}{{{}}}", join(items.iter().map(declared).collect())),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{}:{}", quote(key), declared(value))).collect();
            format!("map[string]interface {{}}{{{}}}", join(pairs))
        }
        scalar => scalar.to_string(),
    }
}

/// The name of a value's type in Go.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn check_items(shape: &Shape<'_>, items: &[Value], path: &mut String, errors: &mut Errors) {
    let mut seen = HashSet::new();
    let length = path.len();
    for (i, item) in items.iter().enumerate() {
        let (element, ty) = match element(shape, i, item) {
            Ok(found) => found,
            // What follows cannot be told apart either.
            Err(why) => return errors.push(format_args!("{path}: element {i}: {why}")),
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

/// The path element and the type of an item, or what is wrong with it.
fn element<'s>(shape: &Shape<'s>, index: usize, item: &Value) -> Result<(String, Ref<'s>), String> {
    match shape {
        Shape::Row(ty) => Ok((format!("i:{index}"), *ty)),
        Shape::List(..) if item.is_null() => Err("associative list with keys may not have a null element".to_owned()),
        Shape::List(keys, ty) if item.is_object() => keys.element(item).map(|element| (element, *ty)).ok_or_else(|| {
            let keys = keys.told();
            format!("associative list with keys has an element that omits all key fields {keys} (and doesn't have default values for any key fields)")
        }),
        Shape::List(..) => Err("associative list with keys may not have non-map elements".to_owned()),
        _ => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            _ => Ok((set_element(item), Ref::Scalar)),
        },
    }
}

/// Ownership of fields below what is only replaced as a whole is ownership of the whole: the type may have changed since.
pub(crate) fn settle(ty: Ref<'_>, set: &mut Set) {
    let fields = match ty.shape(&Value::Object(Map::new())) {
        Shape::Map(fields) => Some(fields),
        _ => None,
    };
    let item = match ty.shape(&Value::Array(Vec::new())) {
        Shape::List(_, item) => Some(item),
        _ => None,
    };
    for (key, below) in set.iter_mut() {
        let name = key.strip_prefix("f:");
        let ty = name.map_or(item, |name| fields.and_then(|fields| fields.declared(name)));
        let Some(ty) = ty.filter(|ty| !matches!(ty, Ref::Deduced)) else { continue };
        let Some(below) = below.as_object_mut().filter(|below| set::children(below).next().is_some()) else { continue };
        if ty.is_whole() { below.clear() } else { settle(ty, below) }
    }
}
