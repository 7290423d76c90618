//! Defaults (upstream: `schema/defaulting`).

use apimachinery::field::{Error, Errors, Path};
use serde_json::Value;

use crate::node::{Additional, Node};
use crate::{embedded, rules, validate};

/// Whether null stands for nothing here.
fn is_void(value: &Value, node: &Node) -> bool {
    value.is_null() && !node.nullable
}

/// Bytes of JSON that defaults add to an object at most: more than any object may have that is stored. A short list of a client may be a hundred
/// gigabytes with its defaults, and be refused only then.
const MOST: usize = 2 << 20;

/// Fills in what is missing, and goes on in what it has filled in. Of what would be too large to be stored some is missing.
pub(crate) fn apply(node: &Node, value: &mut Value) {
    fill(node, value, &mut Room(MOST));
}

/// How many bytes may still be added.
struct Room(usize);

impl Room {
    /// A default as it stands under its name. The last one that is taken fills what room there is: what lacks one has no room left, and stays too large.
    fn take(&mut self, name: &str, default: &Value) -> Option<Value> {
        if self.is_full() {
            return None;
        }
        self.0 = self.0.saturating_sub(name.len() + length(default));
        Some(default.clone())
    }

    fn is_full(&self) -> bool {
        self.0 == 0
    }
}

/// How many bytes of JSON a value has, or a few less.
fn length(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 1,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(length).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(name, value)| name.len() + 3 + length(value)).sum::<usize>(),
    }
}

fn fill(node: &Node, value: &mut Value, room: &mut Room) {
    if !node.has_defaults || room.is_full() {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                let Some(default) = &property.default else { continue };
                if map.get(name).is_none_or(|value| is_void(value, property)) {
                    let Some(default) = room.take(name, default) else { return };
                    map.insert(name.clone(), default);
                }
            }
            let additional = match &node.additional {
                Additional::Of(additional) => Some(&**additional),
                _ => None,
            };
            for (key, value) in map.iter_mut() {
                if let Some(property) = node.properties.get(key.as_str()) {
                    fill(property, value, room);
                } else if let Some(additional) = additional {
                    stand_in(additional, value, room);
                    fill(additional, value, room);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for item in items {
                    stand_in(node, item, room);
                    fill(node, item, room);
                }
            }
        }
        _ => {}
    }
}

fn stand_in(node: &Node, value: &mut Value, room: &mut Room) {
    if is_void(value, node)
        && let Some(default) = &node.default
        && let Some(default) = room.take("", default)
    {
        *value = default;
    }
}

/// Whether the defaults of a schema fit it.
pub(crate) fn validate(node: &Node, path: &Path) -> Errors {
    let mut errors = Errors::new();
    each(node, path, &mut |node, default, at| {
        if node.default_was_pruned {
            errors.push(Error::invalid(at, default.clone(), "must not have unknown fields"));
        }
        errors.extend(validate::validate(node, &filled(node, default), None, at.as_str()));
    });
    errors
}

/// Whether the defaults of a schema fit its rules in CEL, and are good objects where they are some (upstream: `schema/defaulting/validation.go`).
/// Nothing was there before: rules about changes are not asked. All defaults share what the rules of one object may cost.
pub(crate) fn validate_rules(node: &Node, path: &Path) -> Errors {
    let (mut errors, mut left) = (Errors::new(), rules::OBJECT_LIMIT);
    each(node, path, &mut |node, default, at| {
        let filled = filled(node, default);
        let wrong = embedded::validate_all(node, &filled, at);
        match wrong.is_empty() {
            true => errors.extend(rules::validate_at(node, &filled, at, &mut left)),
            false => errors.extend(wrong),
        }
    });
    errors
}

/// A default with those below it.
fn filled(node: &Node, default: &Value) -> Value {
    let mut filled = default.clone();
    apply(node, &mut filled);
    filled
}

/// Every default of a schema, and where it stands.
fn each(node: &Node, path: &Path, look: &mut impl FnMut(&Node, &Value, &Path)) {
    if !node.has_defaults {
        return;
    }
    if let Some(default) = &node.default {
        look(node, default, &path.child("default"));
    }
    for (name, property) in &node.properties {
        each(property, &path.child("properties").key(name), look);
    }
    if let Additional::Of(additional) = &node.additional {
        each(additional, &path.child("additionalProperties"), look);
    }
    if let Some(items) = &node.items {
        each(items, &path.child("items"), look);
    }
}
