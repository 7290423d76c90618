//! Random schemas, and objects that fit them more or less.

use serde_json::{Map, Value, json};
use structural::Structural;

use crate::dice::Dice;

pub fn question(dice: &mut Dice) -> Value {
    let spec = schema(dice, 3);
    let mut root = json!({"type": "object", "properties": {"spec": spec}});
    if dice.chance(30) {
        root["required"] = json!(["spec"]);
    }
    let resource = |dice: &mut Dice| {
        let mut object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}});
        if dice.chance(95) {
            object["spec"] = value(dice, &root["properties"]["spec"], 12);
        }
        object
    };
    let (current, mut old) = (resource(dice), resource(dice));
    // What has not changed may stay wrong.
    if dice.chance(50) {
        old = current.clone();
        if old["spec"].is_object() {
            old["spec"]["a"] = json!(1);
        }
    }
    json!({"op": "schema", "original": root, "current": current, "modified": old})
}

pub fn answer(question: &Value) -> Value {
    let schema = match Structural::compile(&question["original"]) {
        Ok(schema) => schema,
        Err(error) => return json!({"failed": error.to_string()}),
    };
    let settled = |source: &Value| {
        let mut object = source.clone();
        let unknown = schema.decode(&mut object).unwrap_or_default();
        schema.apply_defaults(&mut object);
        (object, unknown)
    };
    let ((object, mut unknown), (old, _)) = (settled(&question["current"]), settled(&question["modified"]));
    unknown.sort();
    let texts = |errors: apimachinery::field::Errors| {
        let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        texts.sort();
        texts
    };
    let (created, updated) = (texts(schema.validate(&object)), texts(schema.validate_update(&object, &old)));
    json!({"object": object, "unknown": unknown, "created": created, "updated": updated})
}

/// A structural schema.
fn schema(dice: &mut Dice, depth: usize) -> Value {
    let kinds = ["string", "integer", "number", "boolean", "object", "array", "map", "int-or-string", "open"];
    let kind = dice.word(if depth == 0 { &kinds[..4] } else { &kinds });
    let mut out = match kind {
        "object" => {
            let fields: Map<String, Value> =
                ["a", "b", "c"].iter().map(|name| ((*name).to_owned(), schema(dice, depth - 1))).collect();
            let mut out = json!({"type": "object", "properties": fields});
            if dice.chance(40) {
                out["required"] = json!([dice.word(&["a", "b", "d"])]);
            }
            out
        }
        "array" => {
            let mut out = json!({"type": "array", "items": schema(dice, depth - 1)});
            if dice.chance(30) && ["string", "integer"].iter().any(|kind| out["items"]["type"] == *kind) {
                out["x-kubernetes-list-type"] = "set".into();
            }
            out
        }
        "map" => json!({"type": "object", "additionalProperties": schema(dice, depth - 1)}),
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        "open" => {
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": schema(dice, depth - 1)}})
        }
        plain => json!({"type": plain}),
    };
    let limits: &[&str] = match kind {
        "string" => &["maxLength", "minLength"],
        "integer" | "number" => &["maximum", "minimum"],
        "array" => &["maxItems", "minItems"],
        "map" => &["maxProperties", "minProperties"],
        _ => &[],
    };
    for limit in limits {
        if dice.chance(25) {
            out[*limit] = (if limit.starts_with("max") { 1 + dice.below(3) } else { dice.below(3) }).into();
        }
    }
    match kind {
        "string" if dice.chance(20) => out["pattern"] = dice.word(&["^a*$", "b"]).into(),
        "string" if dice.chance(20) => out["enum"] = json!(["a", "ab"]),
        "string" if dice.chance(20) => {
            out["format"] = dice.word(&["date-time", "date", "byte", "ipv4", "uuid", "duration"]).into()
        }
        "integer" if dice.chance(20) => out["multipleOf"] = 2.into(),
        "integer" if dice.chance(20) => out["exclusiveMinimum"] = true.into(),
        _ => {}
    }
    if dice.chance(15) {
        out["nullable"] = true.into();
    }
    if dice.chance(20) {
        let default = value(dice, &out, 0);
        if !default.is_null() {
            out["default"] = default;
        }
    }
    out
}

/// A value of a schema; of another one in so many of a hundred cases.
fn value(dice: &mut Dice, schema: &Value, wrong: usize) -> Value {
    if wrong > 0 && dice.chance(wrong) {
        return dice
            .pick(&[Value::Null, json!(true), json!(-1), json!("x"), json!({"a": 1}), json!(["a", "a"]), json!(1.5)])
            .clone();
    }
    match schema["type"].as_str().unwrap_or_default() {
        "string" => dice.word(&["", "a", "ab", "abc", "b", "2026-01-02T03:04:05Z", "2026-01-02", "YQ==", "1.2.3.4", "1h"]).into(),
        "integer" => dice.below(5).into(),
        "number" => (dice.below(9) as f64 / 2.0).into(),
        "boolean" => dice.chance(50).into(),
        "array" => (0..dice.below(4)).map(|_| value(dice, &schema["items"], wrong)).collect::<Vec<_>>().into(),
        "object" => {
            let mut out = Map::new();
            for name in ["a", "b", "c", "d"] {
                let child = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                match child {
                    Some(child) if dice.chance(70) => drop(out.insert(name.to_owned(), value(dice, child, wrong))),
                    // Unknown fields, which go.
                    None if wrong > 0 && dice.chance(15) => drop(out.insert(name.to_owned(), json!({"z": [1]}))),
                    _ => {}
                }
            }
            out.into()
        }
        _ => {
            if dice.chance(50) {
                dice.below(5).into()
            } else {
                "a".into()
            }
        }
    }
}
