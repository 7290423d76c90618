//! Laying a configuration over an object, and taking fields out of one.

use super::set::{Set, is_member};
use super::shape::{Ref, Shape, field_element, set_element};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// The object with the configuration laid over it.
pub(crate) fn merge(ty: Ref<'_>, live: &Value, config: &Value) -> Value {
    match (ty.shape(if config.is_null() { live } else { config }), live, config) {
        (Shape::Map(fields), Value::Object(live), Value::Object(config)) => {
            let mut out = Map::new();
            for (key, value) in live {
                let merged = config.get(key).map_or_else(|| value.clone(), |c| merge(fields.get(key), value, c));
                out.insert(key.clone(), merged);
            }
            for (key, value) in config.iter().filter(|(k, _)| !live.contains_key(*k)) {
                out.insert(key.clone(), value.clone());
            }
            Value::Object(out)
        }
        (Shape::Set, Value::Array(live), Value::Array(config)) => {
            lists(live, config, |item| Some(set_element(item)), |_, item| item.clone())
        }
        (Shape::List(keys, ty), Value::Array(live), Value::Array(config)) => {
            lists(live, config, |item| keys.element(item), |live, config| merge(ty, live, config))
        }
        (Shape::Map(_) | Shape::Set | Shape::List(..), live, Value::Null) if !is_empty(live) => live.clone(),
        (_, _, config) => config.clone(),
    }
}

/// Merges lists of items with keys. Items of the configuration keep its order; items that only the object has stay between their
/// neighbours as well as that order allows.
fn lists(
    live: &[Value],
    config: &[Value],
    element: impl Fn(&Value) -> Option<String>,
    merge_item: impl Fn(&Value, &Value) -> Value,
) -> Value {
    let key = |(i, item): (usize, &Value)| element(item).unwrap_or_else(|| format!("i:{i}"));
    let left: Vec<String> = live.iter().enumerate().map(key).collect();
    let right: Vec<String> = config.iter().enumerate().map(key).collect();
    // A key that the object has twice is merged with neither.
    let mut observed: HashMap<&str, Option<&Value>> = HashMap::new();
    for (key, item) in left.iter().zip(live) {
        observed.entry(key).and_modify(|v| *v = None).or_insert(Some(item));
    }
    let wanted: HashSet<&str> = right.iter().map(String::as_str).collect();
    let mut shared = right.iter().filter(|k| observed.contains_key(k.as_str())).peekable();
    let mut merged: HashSet<&str> = HashSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut r) = (0, 0);
    loop {
        let (next_live, next_config) = (left.get(l), right.get(r));
        if let (Some(ours), Some(theirs)) = (next_live, next_config)
            && ours != theirs
            && wanted.contains(ours.as_str())
            && shared.peek().is_some_and(|next| *next != ours)
        {
            // It is in both, but others come first in the configuration.
            l += 1;
            continue;
        }
        match next_live {
            Some(ours) if !wanted.contains(ours.as_str()) => {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            Some(ours) if next_config == Some(ours) || merged.contains(ours.as_str()) => l += 1,
            _ => {}
        }
        match next_config {
            Some(theirs) => {
                let counterpart = observed.get(theirs.as_str()).copied().flatten();
                out.push(counterpart.map_or_else(|| config[r].clone(), |live| merge_item(live, &config[r])));
                merged.insert(theirs);
                shared.next_if(|next| *next == theirs);
                r += 1;
            }
            None if next_live.is_none() => return Value::Array(out),
            None => {}
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The value without the fields of a set. Where that leaves nothing it is null, as upstream's: who owns the place still owns it.
pub(crate) fn remove(ty: Ref<'_>, value: &Value, set: &Set) -> Value {
    if set.is_empty() {
        return value.clone();
    }
    let below = |element: &str| set.get(element).and_then(Value::as_object);
    let kept = |ty: Ref<'_>, value: &Value, node: Option<&Set>| match node {
        None => Some(value.clone()),
        Some(node) if is_member(node) => None,
        Some(node) => Some(remove(ty, value, node)),
    };
    let left = match (ty.shape(value), value) {
        (Shape::Map(fields), Value::Object(map)) => {
            let kept =
                |(key, value): (&String, &Value)| Some((key.clone(), kept(fields.get(key), value, below(&field_element(key)))?));
            Value::Object(map.iter().filter_map(kept).collect())
        }
        (Shape::Set, Value::Array(items)) => items.iter().filter(|item| below(&set_element(item)).is_none()).cloned().collect(),
        (Shape::List(keys, ty), Value::Array(items)) => {
            items.iter().filter_map(|item| kept(ty, item, keys.element(item).as_deref().and_then(below))).collect()
        }
        (_, Value::Object(_) | Value::Array(_)) => Value::Null,
        (_, scalar) => scalar.clone(),
    };
    if is_empty(&left) { Value::Null } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_of_sets() {
        let check = |live: Value, config: Value, expected: Value| {
            let schema = json!({"type": "object", "properties": {"l": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}});
            let got = merge(Ref::Json(&schema), &json!({"l": live}), &json!({"l": config}));
            assert_eq!(got["l"], expected, "{live} {config}");
        };
        check(json!(["a", "b"]), json!(["b", "c"]), json!(["a", "b", "c"]));
        check(json!(["a", "b", "c"]), json!(["c", "a"]), json!(["b", "c", "a"]));
        check(json!(["a", "b"]), json!(["x", "a"]), json!(["x", "a", "b"]));
        check(json!(["a"]), json!(["b"]), json!(["a", "b"]));
        check(json!(["a", "b", "c", "d"]), json!(["d", "b"]), json!(["a", "c", "d", "b"]));
        check(json!([]), json!(["a"]), json!(["a"]));
        check(json!(["a"]), json!([]), json!(["a"]));
    }
}
