//! Patches of objects in JSON form.
//!
//! [`json()`], [`merge()`] and [`strategic()`] take the stored object and a parsed patch and return the patched object, which still has to
//! be decoded, defaulted and validated. [`parse_operations`] and [`parse_object`] read the body of the request, [`strict_operations`] and
//! [`strict_object`] also tell what is wrong with its keys; [`json_patch()`], [`merge_patch`] and [`strategic_merge_patch`] do both at
//! once. Server-side apply is in [`crate::apply`].

mod failure;
mod lists;
mod operations;
mod pointer;
mod strategic;

use crate::json_syntax;
use crate::status::{Details, Reason, Status};
pub use failure::JsonPatchError;
pub use operations::{MAX_COPIED_BYTES, MAX_JSON_PATCH_OPERATIONS, apply_json, json, parse_operations, strict_operations};
use schema::{Schema, TypeId};
use serde_json::Value;
pub use strategic::{StrategicError, strategic};

/// Media type of JSON patch (RFC 6902).
pub const JSON_PATCH: &str = "application/json-patch+json";
/// Media type of JSON merge patch (RFC 7386).
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Media type of strategic merge patch.
pub const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";
/// Media type of server-side apply.
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Patches that built-in kinds take, in the order in which errors list them.
pub const BUILTIN_PATCHES: &[&str] = &[JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH];
/// Patches that custom resources take: without types there is no strategic merge.
pub const CUSTOM_PATCHES: &[&str] = &[JSON_PATCH, MERGE_PATCH, APPLY_PATCH];

/// Applies a JSON merge patch.
///
/// # Errors
/// 400 when the patch is not a JSON object: it would replace the object by something else.
pub fn merge(original: &Value, patch: &Value) -> Result<Value, Status> {
    check_object(patch)?;
    let mut out = original.clone();
    merge_value(&mut out, patch);
    Ok(out)
}

/// RFC 7386, and as upstream's library: members that are null are left out also in lists, and where nothing was before.
fn merge_value(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                match target.get_mut(key) {
                    _ if value.is_null() => drop(target.remove(key)),
                    Some(current) if !current.is_null() => merge_value(current, value),
                    _ => drop(target.insert(key.clone(), without_nulls(value))),
                }
            }
        }
        (target @ Value::Object(_), other) => *target = other.clone(),
        (target, patch) => *target = without_nulls(patch),
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.iter().filter(|(_, value)| !value.is_null());
            members.map(|(key, value)| (key.clone(), without_nulls(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// [`json`] of the body of a request.
///
/// # Errors
/// As [`parse_operations`] and [`json`].
pub fn json_patch(original: &Value, body: &[u8]) -> Result<Value, Status> {
    json(original, &parse_operations(body)?)
}

/// [`merge`] of the body of a request.
///
/// # Errors
/// As [`parse_object`].
pub fn merge_patch(original: &Value, body: &[u8]) -> Result<Value, Status> {
    merge(original, &parse_object(body)?)
}

/// [`strategic()`] of the body of a request.
///
/// # Errors
/// As [`parse_object`] and [`strategic()`].
pub fn strategic_merge_patch(schema: &Schema, ty: TypeId, original: &Value, body: &[u8]) -> Result<Value, Status> {
    strategic(schema, ty, original, &parse_object(body)?)
}

/// Reads the body of a merge, strategic merge or apply patch in JSON.
///
/// # Errors
/// 400 when it is not a JSON object.
pub fn parse_object(body: &[u8]) -> Result<Value, Status> {
    let patch = parse(body)?;
    check_object(&patch)?;
    Ok(patch)
}

/// As [`parse_object`]; the second value tells of keys that occur twice: `duplicate field "spec.paused"`.
///
/// # Errors
/// As [`parse_object`].
pub fn strict_object(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let (patch, duplicates) = schema::parse_strict(body).map_err(|error| unreadable(body, &error))?;
    check_object(&patch)?;
    Ok((patch, duplicates.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect()))
}

fn parse(body: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(body).map_err(|error| unreadable(body, &error))
}

fn unreadable(body: &[u8], error: &serde_json::Error) -> Status {
    Status::bad_request(format!("error decoding patch: {}", json_syntax::told(body, error)))
}

fn check_object(patch: &Value) -> Result<(), Status> {
    if patch.is_object() { Ok(()) } else { Err(wrong_type(patch, "map[string]interface {}")) }
}

fn wrong_type(patch: &Value, go: &str) -> Status {
    Status::bad_request(format!("error decoding patch: json: cannot unmarshal {} into Go value of type {go}", kind_of(patch)))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// 422 for a well-formed patch that does not fit the object. Upstream hides the cause.
fn unprocessable() -> Status {
    let mut status = Status::new(422, Reason::Invalid, "the server rejected our request due to an error in our request");
    status.details = Some(Box::new(Details::default()));
    status
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn merges() {
        let check = |original: Value, patch: Value, expected: Value| {
            assert_eq!(merge(&original, &patch), Ok(expected));
        };
        check(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}));
        check(json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"}));
        // What the oracle found: nulls in lists, and in what is new.
        check(json!({"a": [1]}), json!({"a": [{"b": null, "c": [{"d": null}]}, null]}), json!({"a": [{"c": [{}]}, null]}));
        check(json!({}), json!({"a": {"b": null, "c": 1}}), json!({"a": {"c": 1}}));
        check(json!({"a": null}), json!({"a": {"b": null}}), json!({"a": {}}));
        check(json!({"a": {"x": 1}}), json!({"a": [{"b": null}]}), json!({"a": [{"b": null}]}));
        check(json!({"a": [1]}), json!({"a": [2, 3]}), json!({"a": [2, 3]}));
        check(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null, "d": 3}}), json!({"a": {"c": 2, "d": 3}}));
        check(json!({}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}}));
        assert_eq!(merge(&json!({}), &json!([])).unwrap_err().code, 400);
    }

    #[test]
    fn bodies() {
        let check = |body: &str, expected: Result<(), &str>| {
            assert_eq!(parse_object(body.as_bytes()).map(drop).map_err(|e| e.message), expected.map_err(str::to_owned));
        };
        check("{}", Ok(()));
        let list = "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
        check("[]", Err(list));
        assert_eq!(merge_patch(&json!({"a": 1}), br#"{"a":2}"#), Ok(json!({"a": 2})));
        assert_eq!(json_patch(&json!({"a": 1}), br#"[{"op":"remove","path":"/a"}]"#), Ok(json!({})));
        check("{", Err("error decoding patch: unexpected end of JSON input"));
    }

    /// Upstream: `applyJSPatch` and `strategicPatchObject` decode what is a patch strictly, too.
    #[test]
    fn strict_bodies() {
        let told = |(_, problems): (Value, Vec<String>)| problems;
        let object = |body: &str| strict_object(body.as_bytes()).map(told).map_err(|status| status.message);
        assert_eq!(object(r#"{"a":{"b":1,"b":2},"c":1}"#), Ok(vec![r#"duplicate field "a.b""#.to_owned()]));
        let list = "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
        assert_eq!(object("[]"), Err(list.to_owned()));
        let operations = |body: &str| strict_operations(body.as_bytes()).map(told).map_err(|status| status.message);
        assert_eq!(operations(r#"[{"op":"remove","path":"/a"},null]"#), Ok(Vec::new()));
        let both = [r#"json patch unknown field "[0].foo""#, r#"json patch duplicate field "[1].path""#].map(str::to_owned);
        let text = r#"[{"op":"add","path":"/a","foo":"bar"},{"op":"add","path":"/b","path":"/c","value":1}]"#;
        assert_eq!(operations(text), Ok(both.to_vec()));
        let of = |what: &str, go: &str| Err(format!("error decoding patch: json: cannot unmarshal {what} into Go {go}"));
        assert_eq!(operations("{}"), of("object", "value of type []handlers.jsonPatchOp"));
        assert_eq!(operations("[1]"), of("number", "value of type handlers.jsonPatchOp"));
        assert_eq!(operations(r#"[{"op":1}]"#), of("number", "struct field jsonPatchOp.op of type string"));
        assert_eq!(operations(r#"[{"op":null}]"#), Ok(Vec::new()));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[ab]".prop_map(Value::from)];
        let inner = leaf.prop_recursive(3, 16, 4, |v| {
            prop_oneof![
                proptest::collection::vec(v.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", v, 0..3).prop_map(|m| Value::Object(m.into_iter().collect()))
            ]
        });
        proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    /// The same without null inside of lists: whether upstream drops those depends on what the list replaces, so that merging
    /// twice may differ there.
    fn plain_lists(value: Value, in_list: bool) -> Value {
        match value {
            Value::Null if in_list => Value::Bool(true),
            Value::Array(items) => items.into_iter().map(|item| plain_lists(item, true)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, plain_lists(value, in_list))).collect(),
            other => other,
        }
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(original in values(), patch in values().prop_map(|patch| plain_lists(patch, false))) {
            let once = merge(&original, &patch).unwrap();
            prop_assert_eq!(merge(&once, &patch).unwrap(), once);
        }
    }
}
