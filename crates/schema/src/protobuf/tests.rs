#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::{Schema, Type, TypeId};

/// Upstream's vectors: every kind with every field set.
fn golden() -> BTreeMap<String, (TypeId, Value, Vec<u8>)> {
    let mut text = String::new();
    let archive: &[u8] = include_bytes!("../../testdata/golden.json.gz");
    flate2::read::GzDecoder::new(archive).read_to_string(&mut text).unwrap();
    let vectors: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let find = |name: &str| {
        let mut parts = name.split('/');
        let mut next = || parts.next().unwrap();
        Schema::builtin().kind(next(), next(), next()).unwrap()
    };
    vectors
        .into_iter()
        .map(|(name, vector)| {
            let pb = STANDARD.decode(vector["pb"].as_str().unwrap()).unwrap();
            (name.clone(), (find(&name), vector["json"].clone(), pb))
        })
        .collect()
}

/// Whether a type reaches a field that embeds JSON, of which protobuf keeps the order of keys.
fn embeds_json(ty: TypeId) -> bool {
    let (mut queue, mut seen) = (vec![ty], Vec::new());
    while let Some(id) = queue.pop() {
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        for field in &Schema::builtin().get(id).fields {
            match &field.ty {
                Type::RawExtension => return true,
                Type::List(inner) if **inner == Type::RawExtension => return true,
                Type::List(inner) | Type::Map(inner) => queue.extend(as_struct(inner)),
                other => queue.extend(as_struct(other)),
            }
        }
    }
    false
}

fn as_struct(ty: &Type) -> Option<TypeId> {
    if let Type::Struct(id) = ty { Some(*id) } else { None }
}

fn without_type(value: &Value) -> Value {
    let mut value = value.clone();
    let map = value.as_object_mut().unwrap();
    map.remove("apiVersion");
    map.remove("kind");
    value
}

#[test]
fn every_kind_keeps_its_json() {
    for (name, (ty, json, _)) in golden() {
        let mut value = json.clone();
        assert_eq!(crate::decode(Schema::builtin(), ty, &mut value), Ok(Vec::new()), "{name}");
        pretty_eq(&name, &value, &json);
    }
}

#[test]
fn every_kind_from_protobuf() {
    for (name, (ty, json, pb)) in golden() {
        let (api_version, kind, raw) = unwrap_envelope(&pb).unwrap();
        assert_eq!((Some(api_version), Some(kind)), (json["apiVersion"].as_str(), json["kind"].as_str()));
        let value = decode(Schema::builtin(), ty, raw).unwrap_or_else(|error| panic!("{name}: {error}"));
        pretty_eq(&name, &value, &without_type(&json));
    }
}

#[test]
fn every_kind_to_protobuf() {
    let vectors = golden();
    assert!(vectors.len() > 70, "{}", vectors.len());
    for (name, (ty, json, pb)) in vectors {
        let raw = encode(Schema::builtin(), ty, &json).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (api_version, kind, expected) = unwrap_envelope(&pb).unwrap();
        if embeds_json(ty) {
            let again = decode(Schema::builtin(), ty, &raw).unwrap();
            pretty_eq(&name, &again, &without_type(&json));
            assert_eq!(raw.len(), expected.len(), "{name}");
        } else {
            assert!(raw == expected, "{name}: bytes differ from offset {:?}", raw.iter().zip(expected).position(|(a, b)| a != b));
        }
        if raw == expected {
            assert!(wrap_envelope(api_version, kind, &raw) == pb, "{name}: envelope");
        }
    }
}

fn pretty_eq(name: &str, actual: &Value, expected: &Value) {
    if actual != expected {
        let (actual, expected) = (serde_json::to_string_pretty(actual).unwrap(), serde_json::to_string_pretty(expected).unwrap());
        let at = actual.lines().zip(expected.lines()).position(|(a, b)| a != b).unwrap_or_default();
        let show = |text: &str| text.lines().skip(at.saturating_sub(5)).take(10).collect::<Vec<_>>().join("\n");
        panic!("{name}\n--- is\n{}\n--- should be\n{}", show(&actual), show(&expected));
    }
}

/// What JSON decoding and protobuf make of a nearly empty object is the same.
#[test]
fn zero_values_survive() {
    let schema = Schema::builtin();
    let check = |group, version, kind, given: Value| {
        let ty = schema.kind(group, version, kind).unwrap();
        let mut json = given;
        crate::decode(schema, ty, &mut json).unwrap();
        let pb = encode(schema, ty, &json).unwrap();
        pretty_eq(kind, &decode(schema, ty, &pb).unwrap(), &json);
        assert_eq!(encode(schema, ty, &decode(schema, ty, &pb).unwrap()).unwrap(), pb);
    };
    check("apps", "v1", "Deployment", json!({"spec": {"replicas": 0, "minReadySeconds": 0}}));
    check("", "v1", "Event", json!({"lastTimestamp": null}));
    check("", "v1", "Service", json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": -1}]}}));
    check("", "v1", "Pod", json!({"spec": {"volumes": [{"name": "a"}, {"emptyDir": {}}], "containers": [{}]}}));
    check("rbac.authorization.k8s.io", "v1", "ClusterRole", json!({}));
    check("authentication.k8s.io", "v1", "TokenReview", json!({"status": {"user": {"extra": {"a": ["b"], "c": []}}}}));
    for (group, version, kind, _) in schema.kinds().filter(|kind| !kind.2.starts_with("Table") && !kind.2.starts_with("Partial"))
    {
        check(group, version, kind, json!({}));
    }
}

#[test]
fn hostile_bytes_are_errors() {
    let schema = Schema::builtin();
    let list = schema.kind("", "v1", "List").unwrap();
    let mut nested = Vec::new();
    for _ in 0..200 {
        let mut item = Vec::new();
        put_message(&mut item, 1, &wrap_envelope("v1", "List", &nested));
        nested.clear();
        put_message(&mut nested, 2, &item);
    }
    assert_eq!(decode(schema, list, &nested), Err(Error::Depth));
    assert_eq!(decode(schema, list, &[0x12, 0xff]), Err(Error::Truncated));
    assert_eq!(decode(schema, list, &[0xff; 20]), Err(Error::Varint));
    assert_eq!(decode(schema, list, &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(Error::Truncated));
    assert_eq!(decode(schema, list, &[0x10, 0x01]), Err(Error::WireType { field: "items", wire: 0 }));
    assert_eq!(unwrap_envelope(b"{}"), Err(Error::Prefix));
}

#[test]
fn unknown_fields_and_groups_are_skipped() {
    let schema = Schema::builtin();
    let map = schema.kind("", "v1", "ConfigMap").unwrap();
    // Field 100: a group holding a varint, a 32-bit and a 64-bit value; then immutable = true.
    let bytes = [0xa3, 0x06, 0x08, 0x01, 0xa4, 0x06, 0xa5, 0x06, 1, 2, 3, 4, 0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8, 0x20, 0x01];
    assert_eq!(decode(schema, map, &bytes).unwrap(), json!({"metadata": {}, "immutable": true}));
}

#[test]
fn watch_events_hold_envelopes() {
    let schema = Schema::builtin();
    let object = wrap_envelope("v1", "ConfigMap", &[]);
    let value = decode(schema, schema.kind("", "v1", "WatchEvent").unwrap(), &watch_event("ADDED", &object)).unwrap();
    assert_eq!(value, json!({"type": "ADDED", "object": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}}));
}

proptest::proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let schema = Schema::builtin();
        for kind in ["Pod", "Service", "Event", "List"] {
            let _ = decode(schema, schema.kind("", "v1", kind).unwrap(), &bytes);
        }
        let _ = unwrap_envelope(&[MAGIC, &bytes].concat());
    }

    #[test]
    fn damaged_messages_never_panic(at in 0usize..10_000, byte in proptest::num::u8::ANY) {
        let schema = Schema::builtin();
        let ty = schema.kind("", "v1", "Pod").unwrap();
        thread_local!(static POD: Vec<u8> = {
            let (_, _, pb) = golden().remove("/v1/Pod").unwrap();
            unwrap_envelope(&pb).unwrap().2.to_vec()
        });
        POD.with(|pod| {
            let mut bytes = pod.clone();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(value) = decode(schema, ty, &bytes) {
                encode(schema, ty, &value).unwrap();
            }
        });
    }
}

/// Replaces the value at a position of the tree (counted in pre-order) by another; returns what is left to count.
fn replace(value: &mut Value, at: usize, with: &Value) -> Option<usize> {
    let Some(mut at) = at.checked_sub(1) else {
        *value = with.clone();
        return None;
    };
    let children: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => Vec::new(),
    };
    for child in children {
        at = replace(child, at, with)?;
    }
    Some(at)
}

/// What decoding accepts is canonical: decoding it again changes nothing, and protobuf carries it unchanged.
fn check_canonical(name: &str, ty: TypeId, mut value: Value) {
    let schema = Schema::builtin();
    if crate::decode(schema, ty, &mut value).is_err() {
        return;
    }
    let mut again = value.clone();
    assert_eq!(crate::decode(schema, ty, &mut again), Ok(Vec::new()), "{name}");
    pretty_eq(name, &again, &value);
    let pb = encode(schema, ty, &value).unwrap();
    let decoded = decode(schema, ty, &pb).unwrap();
    pretty_eq(name, &loosen(decoded), &loosen(without_type(&value)));
}

/// Protobuf cannot tell an empty list or map from none.
fn loosen(value: Value) -> Value {
    match value {
        Value::Array(items) if !items.is_empty() => items.into_iter().map(loosen).collect(),
        Value::Object(map) if !map.is_empty() => map.into_iter().map(|(key, value)| (key, loosen(value))).collect(),
        Value::Array(_) | Value::Object(_) => Value::Null,
        other => other,
    }
}

#[test]
fn any_field_may_be_absent_or_odd() {
    let odd =
        [json!(null), json!(""), json!(0), json!(-1), json!(false), json!([]), json!({}), json!([null]), json!({"a": null})];
    // Kinds share most of their types, so every 23rd position of each is enough, starting elsewhere each time.
    for (start, (name, (ty, json, _))) in (1..).zip(golden()) {
        for at in (start % 23 + 1..).step_by(23) {
            let mut value = json.clone();
            if replace(&mut value, at, &odd[at % odd.len()]).is_some() {
                break;
            }
            check_canonical(&name, ty, value);
        }
    }
}

#[test]
fn noise_is_refused_or_read() {
    use proptest::prelude::*;
    // Every kind's vector with some bytes changed, cut or repeated, the same every time.
    let golden = golden();
    let vectors: Vec<_> = golden.values().map(|(ty, _, bytes)| (*ty, bytes.clone())).collect();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12);
    let strategy = (any::<prop::sample::Index>(), changes, any::<prop::sample::Index>());
    let config = ProptestConfig { cases: 3000, ..ProptestConfig::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(config, rng);
    let result = runner.run(&strategy, |(which, changes, cut)| {
        let (ty, mut bytes) = which.get(&vectors).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let body = unwrap_envelope(&bytes).map_or(bytes.as_slice(), |(_, _, body)| body);
        if let Ok(value) = decode(Schema::builtin(), ty, body) {
            // What was read is an object of its type.
            let mut again = value.clone();
            prop_assert!(crate::decode(Schema::builtin(), ty, &mut again).is_ok(), "{value}");
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn small_messages_do_not_make_huge_objects() {
    let pod = Schema::builtin().kind("", "v1", "Pod").unwrap();
    // spec (2) with a million empty containers (2).
    let containers = [0x12, 0].repeat(1_000_000);
    let mut body = vec![0x12];
    wire::put_varint(&mut body, containers.len() as u64);
    body.extend_from_slice(&containers);
    assert_eq!(decode(Schema::builtin(), pod, &body), Err(Error::TooMany));
    let mut object = json!({"spec": {"containers": vec![json!({}); 1_000_000]}});
    assert!(crate::decode(Schema::builtin(), pod, &mut object).unwrap_err().to_string().contains("parts"));
}
