//! The schema of a custom resource as version 2 of the specification can say it (upstream: `controller/openapi/v2/conversion.go`).

use serde_json::{Map, Value};

use super::is_true;

/// Leaves out what version 2 of the specification has not, and what its clients trip over.
pub(super) fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for junctor in ["allOf", "anyOf", "oneOf", "not"] {
        map.remove(junctor);
    }
    let nullable = map.remove("nullable") == Some(Value::Bool(true));
    let keeps = is_true(map, "x-kubernetes-preserve-unknown-fields");
    if nullable || keeps {
        map.remove("items");
        map.remove("properties");
    }
    // kubectl wants to know the items of whatever is called an array, and takes an object for closed.
    let untyped = match map.get("type").and_then(Value::as_str) {
        Some("array") => !map.contains_key("items"),
        Some("object") => keeps,
        _ => false,
    };
    if nullable || untyped {
        map.remove("type");
    }
    relax(map);
    for (name, value) in map.iter_mut() {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(simplify),
            ("items" | "additionalProperties", value) => simplify(value),
            _ => {}
        }
    }
}

/// Requires no field that may be null: version 2 cannot say that it may.
fn relax(map: &mut Map<String, Value>) {
    let nullable = |schema: Option<&Value>| schema.and_then(Value::as_object).is_some_and(|schema| is_true(schema, "nullable"));
    if nullable(map.get("additionalProperties")) {
        map.remove("required");
    }
    let Some(Value::Array(required)) = map.get("required") else { return };
    let properties = map.get("properties");
    let left: Vec<Value> =
        required.iter().filter(|name| !nullable(name.as_str().and_then(|name| properties?.get(name)))).cloned().collect();
    match left.is_empty() {
        true => map.remove("required"),
        false => map.insert("required".into(), left.into()),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(mut schema: Value, expected: &Value) {
        simplify(&mut schema);
        assert_eq!(schema, *expected);
    }

    /// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an embedded object [Conformance]
    #[test]
    fn what_keeps_unknown_fields_has_no_type() {
        let keeps = "x-kubernetes-preserve-unknown-fields";
        check(json!({"type": "object", keeps: true, "properties": {"x": {"type": "string"}}}), &json!({keeps: true}));
        check(json!({"type": "array", keeps: true, "items": {"type": "string"}}), &json!({keeps: true}));
        let embedded = json!({"type": "object", "properties": {"spec": {"type": "object", keeps: true, "description": "what"}}});
        check(embedded, &json!({"type": "object", "properties": {"spec": {keeps: true, "description": "what"}}}));
    }

    #[test]
    fn what_may_be_null_has_no_type_and_is_not_required() {
        check(json!({"type": "array", "nullable": true, "items": {"type": "string"}}), &json!({}));
        let nullable = json!({"type": "string", "nullable": true});
        check(
            json!({"type": "object", "required": ["a", "b"], "properties": {"a": nullable, "b": {"type": "string"}}}),
            &json!({"type": "object", "required": ["b"], "properties": {"a": {}, "b": {"type": "string"}}}),
        );
        check(
            json!({"type": "object", "required": ["a"], "properties": {"a": nullable}}),
            &json!({"type": "object", "properties": {"a": {}}}),
        );
        check(
            json!({"type": "object", "required": ["a"], "additionalProperties": nullable}),
            &json!({"type": "object", "additionalProperties": {}}),
        );
    }

    #[test]
    fn junctors_are_gone() {
        let items = json!({"type": "object", "anyOf": [{}], "not": {}, "pattern": "a"});
        check(
            json!({"type": "array", "oneOf": [{}], "allOf": [{}], "items": items}),
            &json!({"type": "array", "items": {"type": "object", "pattern": "a"}}),
        );
    }
}
