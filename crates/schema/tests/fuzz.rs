//! Objects as clients send them, with faults in them: refused, or understood the same way each time.
#![allow(clippy::unwrap_used)]

use fuzz::fuzz;
use schema::{Schema, TypeId};
use serde_json::{Value, json};

const WORDS: &[&str] =
    &["null", "true", "{}", "[]", "\"\"", "\"x\":", "\\u0000", "\u{e9}", "2026-01-01T00:00:00Z", "100m", "AAEC"];

fn types() -> Vec<(TypeId, Value)> {
    let schema = Schema::builtin();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}, "creationTimestamp": null,
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true}]},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "B"}],
            "resources": {"requests": {"cpu": "100m"}}, "livenessProbe": {"httpGet": {"port": "http", "path": "/"}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}], "tolerations": [{"operator": "Exists"}]},
        "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "generation": 5}, "data": {"a": "AAEC"}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, "template": {"spec": pod["spec"]}}});
    let kinds = [(("", "Pod"), pod), (("", "Secret"), secret), (("apps", "Deployment"), deployment)];
    kinds.into_iter().map(|((group, kind), example)| (schema.kind(group, "v1", kind).unwrap(), example)).collect()
}

#[test]
fn fuzz_json() {
    let types = types();
    let examples: Vec<String> = types.iter().map(|(_, example)| example.to_string()).collect();
    let examples: Vec<&[u8]> = examples.iter().map(String::as_bytes).collect();
    fuzz(&examples, WORDS, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let _ = schema::parse_strict(text.as_bytes());
        let Ok(value) = serde_json::from_str::<Value>(text) else { return };
        for (ty, _) in &types {
            let mut decoded = value.clone();
            if schema::decode(Schema::builtin(), *ty, &mut decoded).is_err() {
                continue;
            }
            // What is decoded is as it would be written.
            let mut again = decoded.clone();
            assert_eq!(schema::decode(Schema::builtin(), *ty, &mut again), Ok(Vec::new()));
            assert_eq!(again, decoded);
            stable(*ty, &decoded);
        }
    });
}

#[test]
fn fuzz_protobuf() {
    let types = types();
    let encode = |(ty, example): &(TypeId, Value)| schema::protobuf::encode(Schema::builtin(), *ty, example).unwrap();
    let examples: Vec<Vec<u8>> = types.iter().map(encode).collect();
    let examples: Vec<&[u8]> = examples.iter().map(Vec::as_slice).collect();
    fuzz(&examples, &["\u{a}", "\u{12}", "\u{0}", "\u{7f}"], |input| {
        for (ty, _) in &types {
            if let Ok(value) = schema::protobuf::decode(Schema::builtin(), *ty, input) {
                stable(*ty, &value);
            }
        }
    });
}

/// What was read once is written and read the same way.
fn stable(ty: TypeId, value: &Value) {
    let Ok(bytes) = schema::protobuf::encode(Schema::builtin(), ty, value) else { return };
    let read = schema::protobuf::decode(Schema::builtin(), ty, &bytes).unwrap();
    assert_eq!(schema::protobuf::encode(Schema::builtin(), ty, &read).unwrap(), bytes, "{value}");
}
