//! Schemas that are huge, deep, contradictory, or that refer to themselves.

use super::*;

async fn refused(api: &Api, definition: &Value, code: u16, expected: &str) {
    let answer = send(api, &format!("POST {DEFINITIONS}"), definition).await;
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(answer.code == code && message.contains(expected), "{} {message}", answer.code);
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"a": inner}}))
}

fn value(depth: usize) -> Value {
    (0..depth).fold(json!("x"), |inner, _| json!({"a": inner}))
}

/// Schemas are trees: upstream's `ValidateStructural` forbids `$ref`, wherever it leads to.
#[tokio::test]
async fn that_refer_to_themselves() {
    let server = serve().await;
    for to in ["#", "#/properties/spec", "#/definitions/A", "https://example.com/schema"] {
        let spec = json!({"type": "object", "properties": {"again": {"type": "object", "$ref": to}}});
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        refused(&server.api, &definition("foos", "Foo", schema), 422, ".$ref: Forbidden: $ref is not supported").await;
    }
    let mut of = definition("foos", "Foo", json!({"type": "object", "definitions": {"A": {"type": "object"}}}));
    refused(&server.api, &of, 422, ".definitions: Forbidden: definitions is not supported").await;
    of["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object", "properties": {"a": {"$ref": 5}}});
    refused(&server.api, &of, 400, "").await;
}

/// What is as deep as a body may be is taken, and its objects are looked at to the bottom; what is deeper is no body.
#[tokio::test]
async fn that_are_deep() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "ns").await;
    let of = |depth: usize| definition("foos", "Foo", json!({"type": "object", "properties": {"spec": nested(depth)}}));
    refused(api, &of(500), 400, "recursion limit exceeded").await;
    define(api, &of(50)).await;
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", value(50))).await;
    let (mut wrong, mut place) = (value(50), "spec".to_owned());
    *wrong.pointer_mut(&"/a".repeat(50)).unwrap() = json!(5);
    place.push_str(&".a".repeat(50));
    let answer = ask(api, 422, &format!("POST {FOOS}"), &foo("b", wrong)).await;
    assert_eq!(answer["details"]["causes"][0]["field"], place, "{answer}");
    let made = ask(api, 201, &format!("POST {FOOS}"), &foo("c", json!({"a": {"b": value(60)}}))).await;
    assert_eq!(made["spec"], json!({"a": {}}), "what the schema does not know is pruned");
}

/// As many fields as a body holds: the definition is served, its objects are checked, and documents tell of it.
#[tokio::test]
async fn that_are_huge() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "ns").await;
    let fields: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (format!("field{n}"), json!({"type": "integer", "minimum": 0, "default": 1}))).collect();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}});
    define(api, &definition("foos", "Foo", schema)).await;
    let made = ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"field7": 7, "other": 1}))).await;
    let spec = made["spec"].as_object().unwrap();
    assert_eq!((spec.len(), &spec["field7"], &spec["field19999"]), (20_000, &json!(7), &json!(1)));
    let wrong = ask(api, 422, &format!("POST {FOOS}"), &foo("b", json!({"field19999": -1}))).await;
    assert_eq!(wrong["details"]["causes"][0]["field"], "spec.field19999");
    assert_eq!(admin(api, "GET /openapi/v3/apis/example.com/v1").await.code, 200);
    // A rule that looks at each for each for each costs more than a definition may.
    let list = json!({"type": "array", "items": {"type": "string"}});
    let rule = json!([{"rule": "self.all(a, self.all(b, self.all(c, a + b == c)))"}]);
    let mut costly = list.clone();
    costly["x-kubernetes-validations"] = rule;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"l": costly}}}});
    refused(api, &definition("bars", "Bar", schema), 422, "estimated rule cost exceeds budget").await;
}

/// What no object can satisfy is a schema all the same, as upstream has it, and refuses every object; a default that it refuses itself
/// is refused.
#[tokio::test]
async fn that_contradict_themselves() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "ns").await;
    let nothing = json!({
        "n": {"type": "integer", "minimum": 5, "maximum": 3},
        "s": {"type": "string", "enum": [5]},
        "l": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 1},
        "a": {"type": "string", "allOf": [{"pattern": "^a$"}, {"pattern": "^b$"}]},
        "x": {"type": "string", "not": {}},
        "o": {"type": "string", "oneOf": [{"pattern": "a"}, {"pattern": "a"}]},
    });
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": nothing}}});
    define(api, &definition("foos", "Foo", schema)).await;
    for (field, value) in [
        ("n", json!(4)),
        ("n", json!(6)),
        ("s", json!("5")),
        ("l", json!(["a"])),
        ("l", json!(["a", "b"])),
        ("a", json!("a")),
        ("x", json!("")),
        ("o", json!("a")),
    ] {
        let answer = ask(api, 422, &format!("POST {FOOS}"), &foo("a", json!({field: value}))).await;
        assert!(answer["message"].as_str().unwrap().contains(&format!("spec.{field}")), "{answer}");
    }
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({}))).await;
    let default = json!({"type": "integer", "minimum": 5, "maximum": 3, "default": 4});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": default}}}});
    refused(api, &definition("bars", "Bar", schema), 422, ".properties[spec].properties[n].default: Invalid value: 4").await;
}
