//! Parsers of what comes from outside, fed with noise: they answer or refuse, and never panic. The same noise every time.
#![allow(clippy::unwrap_used)]

use apimachinery::{fields, labels, patch, quantity};
use proptest::prelude::*;
use proptest::test_runner::{TestRng, TestRunner};
use serde_json::{Value, json};

/// Pieces of a language, put together at random, with some characters that are none of it.
fn texts(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(pieces).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[a-z0-9./_-]{0,70}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn run<S: Strategy>(strategy: S, check: impl Fn(S::Value)) {
    let config = ProptestConfig { cases: 3000, ..ProptestConfig::default() };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let result = TestRunner::new_with_rng(config, rng).run(&strategy, |value| {
        check(value);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn selectors() {
    const PIECES: &[&str] =
        &["a", "b.io/c", "=", "==", "!=", "!", " in ", " notin ", "(", ")", ",", " ", ">", "<", "1", "\\", "metadata.name"];
    run(texts(PIECES), |text| {
        if let Ok(selector) = labels::Selector::parse(&text) {
            // What is shown means the same.
            assert_eq!(labels::Selector::parse(&selector.to_string()).as_ref(), Ok(&selector), "{text:?}");
        }
        let _ = fields::Selector::parse(&text).map(|selector| selector.exact("metadata.name").map(str::to_owned));
    });
}

#[test]
fn quantities() {
    const PIECES: &[&str] =
        &["1", "9", "0", ".", "-", "+", "e", "E", "n", "u", "m", "k", "Ki", "Mi", "Ei", "999999999999999999999", "00"];
    run(texts(PIECES), |text| {
        if let Ok(quantity) = quantity::Quantity::parse(&text) {
            let shown = quantity.to_string();
            assert_eq!(quantity::Quantity::parse(&shown).unwrap().to_string(), shown, "{text:?}");
            let _ = (quantity.as_i64(), quantity.as_milli(), quantity.as_f64(), quantity.times(i64::MAX));
        }
    });
}

const WORDS: &[&str] = &["", "a", "$patch", "delete", "replace", "merge", "/spec/-", "/metadata/name", "x"];
const KEYS: &[&str] = &[
    "metadata",
    "spec",
    "containers",
    "name",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "finalizers",
    "image",
    "ports",
];

fn values() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(WORDS).prop_map(Value::from);
    let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), words];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let object = |entries: Vec<(&str, Value)>| entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let entries = prop::collection::vec((prop::sample::select(KEYS), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            entries.prop_map(move |entries| Value::Object(object(entries)))
        ]
    })
}

fn pod() -> Value {
    let containers = json!([{"name": "a", "image": "i", "ports": [{"containerPort": 1}]}]);
    json!({"metadata": {"name": "p", "finalizers": ["a/b"]}, "spec": {"containers": containers}})
}

#[test]
fn merge_patches() {
    let (schema, pod) = (schema::Schema::builtin(), pod());
    let ty = schema.kind("", "v1", "Pod").unwrap();
    run((values(), values()), |(change, other)| {
        let body = change.to_string();
        for base in [&pod, &other] {
            let _ = patch::merge_patch(base, body.as_bytes());
            let _ = patch::json_patch(base, body.as_bytes());
            let _ = patch::strategic_merge_patch(schema, ty, base, body.as_bytes());
        }
    });
}

#[test]
fn json_patches() {
    const OPERATIONS: &[&str] = &["add", "remove", "replace", "move", "copy", "test"];
    const PATHS: &[&str] = &[
        "",
        "/",
        "/spec",
        "/spec/containers/-",
        "/spec/containers/0",
        "/spec/containers/-1",
        "/metadata",
        "/spec/containers/99999999999999999999",
        "~",
        "/~2",
    ];
    let select = prop::sample::select;
    let operations = prop::collection::vec((select(OPERATIONS), select(PATHS), select(PATHS)), 0..12);
    let pod = pod();
    run(operations, |operations| {
        let operation = |(op, path, from): (&str, &str, &str)| json!({"op": op, "path": path, "from": from, "value": {"a": 1}});
        let body = Value::from(operations.into_iter().map(operation).collect::<Vec<_>>()).to_string();
        if let Ok(patched) = patch::json_patch(&pod, body.as_bytes()) {
            assert!(patched.to_string().len() < 1 << 20);
        }
    });
}
