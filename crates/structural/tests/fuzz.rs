//! Schemas of custom resources with faults in them: refused, or they mean the same each time.

use fuzz::fuzz;
use serde_json::{Value, json};
use structural::Structural;

const WORDS: &[&str] = &[
    "\"type\":\"string\"",
    "\"nullable\":true",
    "\"default\":",
    "\"pattern\":\"(a+)+$\"",
    "\"x-kubernetes-preserve-unknown-fields\":true",
    "\"x-kubernetes-int-or-string\":true",
    "\"x-kubernetes-embedded-resource\":true",
    "\"items\":",
    "\"allOf\":",
    "\"not\":",
    "null",
    "{}",
    "[]",
    "\"maxLength\":-1",
    "\"$ref\":\"#\"",
    "1e308",
];

#[test]
fn fuzz_schemas() {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer", "minimum": 0, "default": 1}, "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]*$"},
            "port": {"x-kubernetes-int-or-string": true}, "size": {"type": "string", "format": "date-time"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
            "map": {"type": "object", "additionalProperties": {"type": "number", "enum": [1, 2.5]}}},
            "x-kubernetes-validations": [{"rule": "self.replicas >= 0 && (!has(self.name) || self.name != 'x')", "message": "m"}]}}});
    let object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}, "spec": {"replicas": 2, "name": "abc", "port": "http",
        "list": [{"k": "a"}, {"k": "b"}], "map": {"x": 1}, "more": [null, {}]}});
    let good = Structural::compile(&schema).ok();
    fuzz(&[schema.to_string().as_bytes(), object.to_string().as_bytes()], WORDS, |input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
        if let Ok(changed) = Structural::compile(&value) {
            check(&changed, object.clone());
        }
        good.iter().for_each(|good| check(good, value.clone()));
    });
}

/// What is stored is as it would be stored again.
fn check(schema: &Structural, mut object: Value) {
    if schema.decode(&mut object).is_err() {
        return;
    }
    schema.apply_defaults(&mut object);
    let mut again = object.clone();
    if schema.decode(&mut again).is_ok() {
        schema.apply_defaults(&mut again);
        assert_eq!(again, object);
    }
    let old = object.clone();
    let _ = (schema.validate(&object), schema.validate_update(&object, &old));
}
