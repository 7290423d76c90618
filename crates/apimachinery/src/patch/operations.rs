//! JSON patch.

use super::unprocessable;
use crate::status::Status;
use json_patch::PatchOperation;
use serde_json::Value;

/// A patch of more operations is refused.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;
/// Bytes of JSON that all copy operations of a patch may add: small patches must not make huge objects.
pub const MAX_COPIED_BYTES: usize = 3 << 20;

/// Levels of nesting that operations may make: what is deeper could be stored but not read again.
const MAX_DEPTH: usize = 120;

/// Reads the body of a JSON patch.
///
/// # Errors
/// 400 when it is not a JSON list, 413 when it has too many operations.
pub fn parse_operations(body: &[u8]) -> Result<Value, Status> {
    let operations = super::parse(body)?;
    check_operations(&operations)?;
    Ok(operations)
}

fn check_operations(operations: &Value) -> Result<&[Value], Status> {
    let list = operations.as_array().ok_or_else(|| super::wrong_type(operations, "jsonpatch.Patch"))?;
    if list.len() > MAX_JSON_PATCH_OPERATIONS {
        let count = list.len();
        let text = format!("The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {count}");
        return Err(Status::too_large(text));
    }
    Ok(list)
}

/// Applies a JSON patch. As upstream, a missing member passes a test for null, and negative indices count from the end.
///
/// # Errors
/// 400 when the patch is not a list, 413 beyond the limits, 422 when an operation fails.
pub fn json(original: &Value, operations: &Value) -> Result<Value, Status> {
    let operations = check_operations(operations)?;
    let mut out = original.clone();
    let mut copied = 0;
    for operation in operations {
        apply(&mut out, operation.clone(), &mut copied)?;
    }
    if out.is_object() && depth(&out) <= MAX_DEPTH { Ok(out) } else { Err(unprocessable()) }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn apply(document: &mut Value, mut operation: Value, copied: &mut usize) -> Result<(), Status> {
    for key in ["path", "from"] {
        if let Some(Value::String(path)) = operation.get_mut(key) {
            if path.split('/').count() > MAX_DEPTH {
                return Err(unprocessable());
            }
            resolve_negative(document, path);
        }
    }
    let operation: PatchOperation = serde_json::from_value(operation).map_err(|_| unprocessable())?;
    match &operation {
        PatchOperation::Test(test) if test.value.is_null() && is_absent_member(document, test.path.as_str()) => {
            return Ok(());
        }
        PatchOperation::Copy(copy) => {
            *copied += document.pointer(copy.from.as_str()).map_or(0, |v| v.to_string().len());
            if *copied > MAX_COPIED_BYTES {
                let text = format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED_BYTES}"
                );
                return Err(Status::too_large(text));
            }
        }
        _ => {}
    }
    json_patch::patch_unsafe(document, std::slice::from_ref(&operation)).map_err(|_| unprocessable())
}

fn is_absent_member(document: &Value, path: &str) -> bool {
    let Some((parent, _)) = path.rsplit_once('/') else { return false };
    document.pointer(path).is_none() && document.pointer(parent).is_some_and(Value::is_object)
}

/// Turns a last token such as `-1` into the index it means, if it points into a list.
fn resolve_negative(document: &Value, path: &mut String) {
    let Some((parent, last)) = path.rsplit_once('/') else { return };
    let Some(back) = last.strip_prefix('-').and_then(|n| n.parse::<usize>().ok()) else { return };
    if let Some(index) = document.pointer(parent).and_then(Value::as_array).and_then(|list| list.len().checked_sub(back)) {
        *path = format!("{parent}/{index}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations() {
        let check = |original: Value, patch: Value, expected: Result<Value, u16>| {
            assert_eq!(super::json(&original, &patch).map_err(|e| e.code), expected, "{patch}");
        };
        check(json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": 2}]), Ok(json!({"a": 1, "b": 2})));
        check(json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), Ok(json!({"a": [1, 2]})));
        check(json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}]), Ok(json!({"a": [1]})));
        check(json!({"a~/b": 1}), json!([{"op": "replace", "path": "/a~0~1b", "value": 2}]), Ok(json!({"a~/b": 2})));
        check(json!({"a": 1}), json!([{"op": "move", "from": "/a", "path": "/b"}]), Ok(json!({"b": 1})));
        check(json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), Ok(json!({"a": 1, "b": 1})));
        check(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/a"}]), Ok(json!({})));
        check(json!({"a": {}}), json!([{"op": "test", "path": "/a/b", "value": null}]), Ok(json!({"a": {}})));
        check(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]), Err(422));
        check(json!({}), json!([{"op": "remove", "path": "/a"}]), Err(422));
        check(json!({}), json!([{"op": "replace", "path": "/a", "value": 1}]), Err(422));
        check(json!({}), json!([{"op": "add", "path": "/a/b", "value": 1}]), Err(422));
        check(json!({}), json!([{"op": "conjure", "path": "/a"}]), Err(422));
        check(json!({}), json!([{"op": "add", "path": "", "value": 1}]), Err(422));
        check(json!({}), json!({"op": "add"}), Err(400));
        check(json!({}), Value::Array(vec![json!({"op": "test", "path": "/a", "value": null}); 10_001]), Err(413));
        let copies = |to: &str, n| Value::Array(vec![json!({"op": "copy", "from": "/a", "path": to}); n]);
        check(json!({"a": ["xxxxxxxx"]}), copies("/a/-", 30), Err(413));
        check(json!({"a": {}}), copies("/a/a", 200), Err(422));
        check(json!({}), json!([{"op": "add", "path": "/a".repeat(200), "value": 1}]), Err(422));
    }

    #[test]
    fn texts() {
        let text =
            |body: &str| parse_operations(body.as_bytes()).and_then(|p| super::json(&json!({}), &p)).map_err(|e| e.message);
        let hidden = "the server rejected our request due to an error in our request";
        assert_eq!(text(r#"[{"op":"remove","path":"/a"}]"#), Err(hidden.into()));
        let many = format!("[{}]", vec!["{}"; 10_001].join(","));
        let limit = "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001";
        assert_eq!(text(&many), Err(limit.into()));
    }
}
