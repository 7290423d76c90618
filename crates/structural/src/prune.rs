//! What a schema does not know goes (upstream: `schema/pruning`), and so does null where it may not be and no default stands in for
//! it (`schema/defaulting/prunenulls.go`).

use serde_json::Value;

use crate::node::{Additional, Node};
use crate::path::At;

/// Fields of every object, which the schema need not know.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// Unknown fields that are told of one object.
const MAX_TOLD: usize = 100;
/// Bytes of their paths.
const MAX_TOLD_BYTES: usize = 64 << 10;

/// Prunes a value. The paths of unknown fields.
pub(crate) fn prune(node: &Node, value: &mut Value) -> Vec<String> {
    let mut told = Told::default();
    walk(value, Some(node), false, &At::Start(""), &mut told);
    told.paths
}

#[derive(Default)]
struct Told {
    paths: Vec<String>,
    bytes: usize,
}

impl Told {
    fn push(&mut self, at: &At<'_>) {
        if self.paths.len() < MAX_TOLD && self.bytes < MAX_TOLD_BYTES {
            let path = at.to_string();
            self.bytes += path.len();
            self.paths.push(path);
        }
    }
}

/// A null that means that the field is absent.
fn is_absent(value: &Value, node: Option<&Node>) -> bool {
    value.is_null() && node.is_some_and(|node| !node.nullable && node.default.is_none())
}

/// `kept` says that the value is an element of a list which preserves unknown fields.
fn walk(value: &mut Value, node: Option<&Node>, kept: bool, at: &At<'_>, told: &mut Told) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| {
                let Some(node) = node else {
                    told.push(&At::Key(at, key));
                    return false;
                };
                if node.embeds && META.contains(&key.as_str()) {
                    return true;
                }
                let below = At::Key(at, key);
                if let Some(property) = node.properties.get(key.as_str()) {
                    if is_absent(value, Some(property)) {
                        return false;
                    }
                    walk(value, Some(property), false, &below, told);
                    return true;
                }
                match &node.additional {
                    Additional::Of(additional) => {
                        if is_absent(value, Some(additional)) {
                            return false;
                        }
                        walk(value, Some(additional), false, &below, told);
                        true
                    }
                    _ if node.preserves || kept => true,
                    Additional::Any | Additional::None => {
                        walk(value, None, false, &below, told);
                        true
                    }
                    Additional::Unsaid => {
                        told.push(&below);
                        false
                    }
                }
            });
        }
        Value::Array(items) => {
            let kept = kept || node.is_some_and(|node| node.preserves);
            let below = node.and_then(|node| node.items.as_deref());
            if kept && below.is_none() {
                return;
            }
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, below, kept, &At::Index(at, index), told);
            }
        }
        _ => {}
    }
}
