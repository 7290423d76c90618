//! Small helpers for defaults and columns over JSON objects.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Sets `key` when it is absent, or null as a zero value without `omitempty` is.
pub fn set_default(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && map.get(key).is_none_or(Value::is_null)
    {
        map.insert(key.to_owned(), value.into());
    }
}

/// Like [`set_default`] for a field whose zero value means that it is not set: numbers and texts that are no pointers in the Go types.
pub fn set_zero(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && map.get(key).is_none_or(|old| old.is_null() || old == 0 || old == "")
    {
        map.insert(key.to_owned(), value.into());
    }
}

/// The object at `key`, made when it is absent.
pub fn child<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    &mut object[key]
}

/// Like [`child`], an object for certain.
pub fn child_object<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    let child = child(object, key);
    if child.is_null() {
        *child = Value::Object(Map::new());
    }
    child
}

/// The elements of the list at `key`, none when there is no list.
pub fn each<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The text at a JSON pointer, empty when absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a JSON pointer.
pub fn integer(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// Removes a field of an object.
pub fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

/// Copies the field `key` from `old`, or removes it where `old` has none.
pub fn carry_over(object: &mut Value, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) => object[key] = value.clone(),
        None => remove(object, key),
    }
}

/// Makes all fields those of the old value, but for some. What is the same already is not copied.
pub fn keep_all_but(value: &mut Value, old: &Value, but: &[&str]) {
    let (Some(map), Some(old)) = (value.as_object_mut(), old.as_object()) else { return };
    map.retain(|key, value| but.contains(&key.as_str()) || old.get(key) == Some(value));
    for (key, value) in old.iter().filter(|(key, _)| !but.contains(&key.as_str())) {
        if !map.contains_key(key) {
            map.insert(key.clone(), value.clone());
        }
    }
}

/// Makes all fields those of the old object, but for one field of one part.
pub fn keep_all_but_part(object: &mut Value, old: &Value, part: &str, field: &str) {
    keep_all_but(object, old, &[part]);
    let value = object.as_object_mut().map(|map| map.entry(part).or_insert_with(|| Value::Object(Map::new())));
    if let Some(value) = value {
        keep_all_but(value, old.get(part).unwrap_or(&Value::Object(Map::new())), &[field]);
    }
}

/// Time since a typed timestamp.
pub fn age_of(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(|| "<unknown>".to_owned(), |since| apimachinery::table::human_duration(now.as_second() - since.as_second()))
}

/// `text`, or `<none>` when it is empty.
pub fn or_none(text: impl Into<String>) -> Value {
    let text = text.into();
    if text.is_empty() { "<none>".into() } else { text.into() }
}
