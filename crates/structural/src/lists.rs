//! What is unique in lists (upstream: `schema/listtype`).

use std::collections::HashMap;

use apimachinery::field::{Error, Errors, Path};
use serde_json::{Map, Value};

use crate::node::{List, Node};

pub(crate) fn validate(node: &Node, object: &Value) -> Errors {
    let mut errors = Errors::new();
    walk(node, object, &Path::root(), &mut errors);
    errors
}

fn walk(node: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    if !node.has_unique || errors.is_full() {
        return;
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(property) = node.properties.get(key) {
                    if property.has_unique {
                        walk(property, value, &path.child(key), errors);
                    }
                } else if let Some(additional) = node.field(key).filter(|node| node.has_unique) {
                    walk(additional, value, &path.key(key), errors);
                }
            }
        }
        Value::Array(items) => {
            match &node.list {
                List::Atomic => {}
                List::Set => {
                    for index in repeated(items.iter().map(Value::to_string)) {
                        errors.push(Error::duplicate(&path.index(index), items[index].clone()));
                    }
                }
                List::Map(keys) => keyed(keys, items, path, errors),
            }
            if let Some(node) = node.items.as_deref().filter(|node| node.has_unique) {
                for (index, item) in items.iter().enumerate() {
                    walk(node, item, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

fn keyed(keys: &[String], items: &[Value], path: &Path, errors: &mut Errors) {
    if let Some(index) = items.iter().position(|item| !item.is_null() && !item.is_object()) {
        let detail = "must be an object for an array of list-type map";
        return errors.push(Error::invalid(&path.index(index), items[index].clone(), detail));
    }
    let key = |item: &Value| -> Value {
        let fields = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(fields.collect::<Map<_, _>>())
    };
    let all: Vec<Value> = items.iter().map(key).collect();
    for index in repeated(all.iter().map(Value::to_string)) {
        errors.push(Error::duplicate(&path.index(index), all[index].clone()));
    }
}

/// Where values stand that were there before, once each.
fn repeated(values: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut out = Vec::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value).or_default();
        *times += 1;
        if *times == 2 {
            out.push(index);
        }
    }
    out
}
