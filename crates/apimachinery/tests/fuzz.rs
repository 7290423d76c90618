//! Manifests and schedules with faults in them.
#![allow(clippy::unwrap_used)]

use apimachinery::apply::{self, By, Types};
use apimachinery::schedule::Schedule;
use apimachinery::{time, yaml};
use fuzz::fuzz;
use schema::Schema;
use serde_json::{Value, json};

const MANIFEST: &str = r#"# A comment.
apiVersion: v1
kind: Pod
metadata: &meta
  name: "p\n\u00e9"
  labels: {a: b, "c": 'd''e'}
  annotations:
    text: |+
      one
        two

    folded: >-
      three
      four
spec:
  containers:
  - name: c
    image: i
    args: [0644, yes, 10.0, 1e3, ~, .inf, 2026-01-01, 0x1F, "no"]
  other: *meta
---
kind: List
"#;

#[test]
fn fuzz_yaml() {
    const WORDS: &[&str] =
        &["*meta", "&x ", "<<: ", "!!binary ", "---\n", "? ", "- ", "  ", "\t", "|2-\n", "%YAML 1.1\n", "[{", "\u{feff}"];
    fuzz(&[MANIFEST.as_bytes(), br#"{"a": [1, {"b": null}]}"#], WORDS, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok((value, _)) = yaml::parse(text) {
            // JSON is YAML, but for keys of more than 1,024 characters (YAML 1.1, "simple keys"), and characters that are not printable.
            let text = value.to_string();
            if text.len() <= 1024 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                let (again, _) = yaml::parse(&text).unwrap_or_else(|error| panic!("{value}: {error}"));
                assert_eq!(again, value);
            }
        }
    });
}

#[test]
fn fuzz_applies() {
    const WORDS: &[&str] = &["f:spec", "k:{\"name\":\"c\"}", ".", "null", "{}", "[]", "\"name\":", "\"v1\"", "managedFields"];
    let schema = Schema::builtin();
    let ty = schema.kind("", "v1", "Pod").unwrap();
    let by = |manager| By { manager, subresource: "", now: "2026-01-01T00:00:00Z", reset: &[&["status"]] };
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}});
    let live = apply::apply(Types::Builtin(schema, ty).into(), None, &config, &by("first"), false).unwrap();
    fuzz(&[config.to_string().as_bytes(), live.to_string().as_bytes()], WORDS, |input| {
        let Ok(mut value) = serde_json::from_slice::<Value>(input) else { return };
        // As a configuration, and as an object whose managed fields somebody has written.
        for force in [false, true] {
            let applied = apply::apply(Types::Builtin(schema, ty).into(), Some(&live), &value, &by("second"), force);
            if let Ok(applied) = applied {
                let again = apply::apply(Types::Builtin(schema, ty).into(), Some(&applied), &value, &by("second"), force);
                assert_eq!(again.as_ref(), Ok(&applied), "{value}");
            }
        }
        if schema::decode(schema, ty, &mut value).is_ok() {
            let _ = apply::apply(Types::Builtin(schema, ty).into(), Some(&value), &config, &by("second"), true);
            apply::update(Types::Builtin(schema, ty).into(), Some(&live), &mut value, &by("third"));
        }
    });
}

#[test]
fn fuzz_times() {
    let examples: [&[u8]; 5] = [
        b"*/5 1-3,7 * jan mon-fri",
        b"@every 1h30m",
        b"CRON_TZ=Europe/Berlin 0 0 29 2 *",
        b"2026-01-01T00:00:00.5+02:00",
        b"-1.5h3ms",
    ];
    fuzz(&examples, &["/", "-", ",", "*", "?", "@daily", "TZ=UTC ", "Z", "ns"], |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let _ = (Schedule::parse(text), time::parse(text), time::parse_duration(text), schema::parse_duration(text));
    });
}
