//! Patches of objects in JSON form.
//!
//! Each function takes the stored object and the body of the request and returns the patched object, which still has to be decoded,
//! defaulted and validated. Server-side apply is in [`crate::apply`].

mod json;
mod lists;
mod strategic;

use crate::status::{Details, Reason, Status};
pub use json::{MAX_COPIED_BYTES, MAX_JSON_PATCH_OPERATIONS, json_patch};
use serde_json::Value;
pub use strategic::{StrategicError, merge_strategic, strategic_merge_patch};

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
/// 400 when the body is not a JSON object.
pub fn merge_patch(original: &Value, body: &[u8]) -> Result<Value, Status> {
    let patch = parse_object(body)?;
    let mut out = original.clone();
    json_patch::merge(&mut out, &patch);
    Ok(out)
}

/// Reads a patch that must be a JSON object.
fn parse_object(body: &[u8]) -> Result<Value, Status> {
    match serde_json::from_slice::<Value>(body) {
        Ok(patch @ Value::Object(_)) => Ok(patch),
        Ok(other) => {
            let text = format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", kind_of(&other));
            Err(Status::bad_request(format!("error decoding patch: {text}")))
        }
        Err(error) => Err(Status::bad_request(format!("error decoding patch: {error}"))),
    }
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
            assert_eq!(merge_patch(&original, patch.to_string().as_bytes()), Ok(expected));
        };
        check(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}));
        check(json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"}));
        check(json!({"a": [1]}), json!({"a": [2, 3]}), json!({"a": [2, 3]}));
        check(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null, "d": 3}}), json!({"a": {"c": 2, "d": 3}}));
        check(json!({}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}}));
        assert_eq!(merge_patch(&json!({}), b"[]").unwrap_err().code, 400);
        assert_eq!(merge_patch(&json!({}), b"{").unwrap_err().code, 400);
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

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(original in values(), patch in values()) {
            let body = patch.to_string();
            let once = merge_patch(&original, body.as_bytes()).unwrap();
            prop_assert_eq!(merge_patch(&once, body.as_bytes()).unwrap(), once);
        }
    }
}
