#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

fn check(text: &str, expected: Value) {
    assert_eq!(parse(text).map(|(value, _)| value).map_err(|error| error.to_string()), Ok(expected), "{text}");
}

#[track_caller]
fn refuses(text: &str, part: &str) {
    let error = parse(text).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn documents() {
    check("", json!(null));
    check("# nothing\n", json!(null));
    check("a: 1\nb: [x, 'yes', yes, \"0644\", 0644]\n", json!({"a": 1, "b": ["x", "yes", true, "0644", 420]}));
    check("---\na: |\n  x\n  y\n...\n", json!({"a": "x\ny\n"}));
    check("a:\n- b: {c: null}\n- \n", json!({"a": [{"b": {"c": null}}, null]}));
    check(r#"{"a": [1, 2.0, true]}"#, json!({"a": [1, 2, true]}));
    // The first of several documents counts, and what follows is not even read.
    check("a: 1\n---\nb: 2\n", json!({"a": 1}));
    check("a: 1\n---\n", json!({"a": 1}));
    check("a: 1\n...\n][\n", json!({"a": 1}));
    check("---\n---\na: 1\n", json!(null));
    refuses("a: b: c\n", "yaml: ");
    refuses("a: [\n", "yaml: ");
}

#[test]
fn keys() {
    check("1: a\ntrue: b\n1.5: c\nyes: d\n", json!({"1": "a", "true": "d", "1.5": "c"}));
    refuses("~: a\n", "invalid map key");
    refuses("[a]: b\n", "invalid map key");
    let duplicates = |text: &str| parse(text).unwrap().1;
    assert_eq!(duplicates("a: 1\nb: 2\n"), [""; 0]);
    let told = "yaml: unmarshal errors:\n  line 2: key \"a\" already set in map\n  line 4: key 1 already set in map";
    assert_eq!(duplicates("a: 1\na: 2\nl:\n- x: {1: 1, 1: 2}\n"), [told]);
    assert_eq!(duplicates("<<: {a: 1}\na: 2\n"), ["yaml: unmarshal errors:\n  line 2: key \"a\" already set in map"]);
    check("a: 1\na: 2\n", json!({"a": 2}));
}

#[test]
fn anchors_and_merges() {
    check("a: &x [1]\nb: *x\n", json!({"a": [1], "b": [1]}));
    check("a: &x {k: 1, l: 1}\nb:\n  <<: *x\n  l: 2\n", json!({"a": {"k": 1, "l": 1}, "b": {"k": 1, "l": 2}}));
    check("x: {<<: [{a: 1}, {a: 2, b: 2}]}\n", json!({"x": {"a": 1, "b": 2}}));
    check("'<<': 1\n", json!({"<<": 1}));
    refuses("<<: 1\n", "map merge");
    refuses("a: &x [{k: 1}]\nb:\n  <<: *x\n", "map merge");
    check("a: &x 1.5\n*x : b\n", json!({"a": 1.5, "1.5": "b"}));
    refuses("a: &x 9223372036854775808\n*x : b\n", "invalid map key");
    refuses("a: &a [*a]\n", "contains itself");
    refuses("a: *b\n", "yaml: ");
}

/// A short text that stands for a very long one, in width, in bytes and in what anchors keep.
#[test]
fn laughs() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..30 {
        let before = format!("*a{}", n - 1);
        laughs.push_str(&format!("a{n}: &a{n} [{}]\n", [before.as_str(); 9].join(", ")));
    }
    refuses(&laughs, "excessive aliasing");
    refuses(&format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(1000)), "excessive aliasing");
    let nested: String = (0..100).map(|n| format!("&a{n} [")).collect();
    refuses(&format!("{nested}{}{}", "x, ".repeat(100_000), "]".repeat(100)), "excessive aliasing");
    refuses(&"[".repeat(100_000), "yaml: ");
    refuses(&"- ".repeat(100_000), "yaml: ");
    refuses(&format!("{}a: b", "a: {".repeat(50_000)), "yaml: ");
}

/// What this server writes reads as the same, with the rules by which clients read.
#[test]
fn what_is_written_is_read() {
    let texts = [
        "yes",
        "No",
        "on",
        "y",
        "~",
        "null",
        "0644",
        "010",
        "1_000",
        "0x1F",
        "10.0",
        "1e3",
        ".5",
        "2026-01-01",
        "<<",
        "a: b",
        "",
        " ",
        "-",
        "true",
    ];
    let value = json!({"texts": texts, "numbers": [1, 1.5, -3], "y": {"no": true, "0644": null}});
    let written = serde_saphyr::to_string(&value).unwrap();
    check(&written, value);
}
