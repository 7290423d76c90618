//! Defaults (upstream: `schema/defaulting`).

use apimachinery::field::{Error, Errors, Path};
use serde_json::Value;

use crate::node::{Additional, Node};
use crate::validate;

/// Whether null stands for nothing here.
fn is_void(value: &Value, node: &Node) -> bool {
    value.is_null() && !node.nullable
}

/// Fills in what is missing, and goes on in what it has filled in.
pub(crate) fn apply(node: &Node, value: &mut Value) {
    if !node.has_defaults {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                let Some(default) = &property.default else { continue };
                if map.get(name).is_none_or(|value| is_void(value, property)) {
                    map.insert(name.clone(), default.clone());
                }
            }
            let additional = match &node.additional {
                Additional::Of(additional) => Some(&**additional),
                _ => None,
            };
            for (key, value) in map.iter_mut() {
                if let Some(property) = node.properties.get(key.as_str()) {
                    apply(property, value);
                } else if let Some(additional) = additional {
                    stand_in(additional, value);
                    apply(additional, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for item in items {
                    stand_in(node, item);
                    apply(node, item);
                }
            }
        }
        _ => {}
    }
}

fn stand_in(node: &Node, value: &mut Value) {
    if is_void(value, node)
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
}

/// Whether the defaults of a schema fit it.
pub(crate) fn validate(node: &Node, path: &Path) -> Errors {
    let mut errors = Errors::new();
    check(node, path, &mut errors);
    errors
}

fn check(node: &Node, path: &Path, errors: &mut Errors) {
    if !node.has_defaults {
        return;
    }
    if let Some(default) = &node.default {
        let at = path.child("default");
        if node.default_was_pruned {
            errors.push(Error::invalid(&at, default.clone(), "must not have unknown fields"));
        }
        let mut filled = default.clone();
        apply(node, &mut filled);
        errors.extend(validate::validate(node, &filled, None, at.as_str()));
    }
    for (name, property) in &node.properties {
        check(property, &path.child("properties").key(name), errors);
    }
    if let Additional::Of(additional) = &node.additional {
        check(additional, &path.child("additionalProperties"), errors);
    }
    if let Some(items) = &node.items {
        check(items, &path.child("items"), errors);
    }
}
