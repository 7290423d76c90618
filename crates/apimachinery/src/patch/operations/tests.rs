use super::*;
use serde_json::{Map, json};

#[track_caller]
fn check(original: Value, patch: Value, expected: Result<Value, u16>) {
    assert_eq!(super::json(&original, &patch).map_err(|e| e.code), expected, "{patch}");
}

#[test]
fn operations() {
    check(json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": 2}]), Ok(json!({"a": 1, "b": 2})));
    check(json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), Ok(json!({"a": [1, 2]})));
    check(json!({"a": [1]}), json!([{"op": "add", "path": "/a/-1", "value": 2}]), Ok(json!({"a": [1, 2]})));
    check(json!({"a": [1]}), json!([{"op": "add", "path": "/a/0", "value": 2}]), Ok(json!({"a": [2, 1]})));
    check(json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}]), Ok(json!({"a": [1]})));
    check(json!({"a": [{}, {}]}), json!([{"op": "add", "path": "/a/-1/b", "value": 2}]), Ok(json!({"a": [{}, {"b": 2}]})));
    check(json!({"a~/b": 1}), json!([{"op": "replace", "path": "/a~0~1b", "value": 2}]), Ok(json!({"a~/b": 2})));
    check(json!({"a": 1}), json!([{"op": "move", "from": "/a", "path": "/b"}]), Ok(json!({"b": 1})));
    check(json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), Ok(json!({"a": 1, "b": 1})));
    check(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/a"}]), Ok(json!({})));
    check(json!({"a": {}}), json!([{"op": "test", "path": "/a/b", "value": null}]), Ok(json!({"a": {}})));
    check(json!({"a": 1}), json!([{"op": "add", "path": "/a"}]), Ok(json!({"a": null})));
}

#[test]
fn operations_that_fail() {
    check(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]), Err(422));
    check(json!({"a": []}), json!([{"op": "test", "path": "/a/0", "value": null}]), Err(422));
    check(json!({}), json!([{"op": "remove", "path": "/a"}]), Err(422));
    // What the oracle found: a missing member can be replaced and is copied as null, and the whole document has the path "".
    check(json!({}), json!([{"op": "replace", "path": "/a", "value": 1}]), Ok(json!({"a": 1})));
    check(json!({"a": []}), json!([{"op": "replace", "path": "/a/0", "value": 1}]), Err(422));
    check(json!({}), json!([{"op": "copy", "from": "/b", "path": "/a"}]), Ok(json!({"a": null})));
    check(json!({"a": []}), json!([{"op": "copy", "from": "/a/0", "path": "/b"}]), Err(422));
    check(json!({}), json!([{"op": "move", "from": "/b", "path": "/a"}]), Err(422));
    check(json!({"a": 1}), json!([{"op": "replace", "path": "", "value": {"b": 2}}]), Ok(json!({"b": 2})));
    check(json!({"a": 1}), json!([{"op": "replace", "path": "", "value": 2}]), Err(422));
    check(json!({"a": 1}), json!([{"op": "test", "path": "", "value": {"a": 1}}]), Ok(json!({"a": 1})));
    check(json!({"a": 1}), json!([{"op": "test", "path": "", "value": {"a": 2}}]), Err(422));
    check(json!({}), json!([{"op": "add", "path": "/a/b", "value": 1}]), Err(422));
    check(json!({"a": []}), json!([{"op": "add", "path": "/a/1", "value": 1}]), Err(422));
    check(json!({"a": []}), json!([{"op": "add", "path": "/a/b", "value": 1}]), Err(422));
    check(json!({"a": {}}), json!([{"op": "move", "from": "/a", "path": "/a/b"}]), Err(422));
    check(json!({}), json!([{"op": "conjure", "path": "/a"}]), Err(422));
    check(json!({}), json!([{"op": "add", "path": "", "value": 1}]), Err(422));
    check(json!({}), json!([null]), Err(422));
    check(json!({}), json!({"op": "add"}), Err(400));
    check(json!({}), json!([1]), Err(400));
}

#[test]
fn limits() {
    check(json!({}), Value::Array(vec![json!({"op": "test", "path": "/a", "value": null}); 10_001]), Err(413));
    let copies = |to: &str, n| Value::Array(vec![json!({"op": "copy", "from": "/a", "path": to}); n]);
    check(json!({"a": ["xxxxxxxx"]}), copies("/a/-", 30), Err(413));
    check(json!({"a": {}}), copies("/a/a", 200), Err(422));
    check(json!({}), json!([{"op": "add", "path": "/a".repeat(200), "value": 1}]), Err(422));
}

/// Moves nest an object into another one without copying a byte, over and over.
#[test]
fn moves_do_not_nest_without_end() {
    let chain = (0..118).fold(Value::Object(Map::new()), |inner, _| Value::Object(Map::from_iter([("a".to_owned(), inner)])));
    let hole = "/a".repeat(118);
    let mut operations = Vec::new();
    for _ in 0..300 {
        operations.push(json!({"op": "add", "path": "/b", "value": chain}));
        operations.push(json!({"op": "move", "from": "/c", "path": format!("/b{hole}/c")}));
        operations.push(json!({"op": "move", "from": "/b", "path": "/c"}));
    }
    check(json!({"c": {}}), Value::Array(operations), Err(422));
    // What comes out again is no deeper than it was, however often that happens.
    let back = [json!({"op": "move", "from": "/c", "path": "/b/c"}), json!({"op": "move", "from": "/b/c", "path": "/c"})];
    let there_and_back = Value::Array(back.into_iter().cycle().take(10_000).collect());
    check(json!({"b": {}, "c": {}}), there_and_back, Ok(json!({"b": {}, "c": {}})));
}

fn work(original: &Value, operations: Vec<Value>) -> Option<usize> {
    run(original, &Value::Array(operations)).map(|document| document.work).ok()
}

/// What an operation costs depends on its own path, not on how much else there is.
#[test]
fn the_size_of_the_object_does_not_count() {
    for size in [1_000, 4_000, 100_000] {
        let data: Map<String, Value> = (0..size).map(|n| (format!("k{n}"), json!("v"))).collect();
        let list: Vec<usize> = (0..size).collect();
        let object = json!({"data": data, "list": list});
        let operations = (0..10_000).map(|n| match n % 4 {
            0 => json!({"op": "replace", "path": format!("/data/k{}", n % size), "value": "w"}),
            1 => json!({"op": "test", "path": "/list/500", "value": 500}),
            2 => json!({"op": "add", "path": "/list/-", "value": n}),
            _ => json!({"op": "remove", "path": "/list/-1"}),
        });
        assert_eq!(work(&object, operations.collect()), Some(0), "{size}");
    }
}

/// Making room at the beginning of a list moves all of it: that is counted, and refused when it gets much.
#[test]
fn elements_that_make_room_count() {
    let insertions = |n| vec![json!({"op": "add", "path": "/l/0", "value": 0}); n];
    assert_eq!(work(&json!({"l": [0, 0, 0]}), insertions(2)), Some(7));
    assert_eq!(work(&json!({"l": vec![0; 1_000_000]}), insertions(10_000)), None);
}

#[test]
fn texts() {
    let text = |body: &str| parse_operations(body.as_bytes()).and_then(|p| super::json(&json!({}), &p)).map_err(|e| e.message);
    let hidden = "the server rejected our request due to an error in our request";
    assert_eq!(text(r#"[{"op":"remove","path":"/a"}]"#), Err(hidden.into()));
    let many = format!("[{}]", vec!["{}"; 10_001].join(","));
    let limit = "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!(text(&many), Err(limit.into()));
}

/// What `evanphx/json-patch` says.
#[test]
fn operations_that_fail_are_told_of() {
    let check = |operation: Value, expected: &str| {
        let object = json!({"a": 1, "l": [1], "o": {}});
        let found = super::apply_json(&object, &json!([operation])).map_err(|error| error.to_string());
        assert_eq!(found, Err(expected.to_owned()), "{operation}");
    };
    let add = |path: &str| json!({"op": "add", "path": path, "value": 1});
    check(add("/x/y"), "add operation does not apply: doc is missing path: \"/x/y\": missing value");
    check(add("/l/5"), "error in add for path: '/l/5': Unable to access invalid index: 5: invalid index referenced");
    check(
        add("/l/x"),
        "error in add for path: '/l/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": invalid syntax",
    );
    check(json!({"op": "add"}), "add operation failed to decode path: missing value");
    let remove = |path: &str| json!({"op": "remove", "path": path});
    check(remove("/o/k"), "error in remove for path: '/o/k': unable to remove nonexistent key: k: missing value");
    check(remove("/x/y"), "remove operation does not apply: doc is missing path: \"/x/y\": missing value");
    check(
        json!({"op": "replace", "path": "/x/y", "value": 1}),
        "replace operation does not apply: doc is missing path: /x/y: missing value",
    );
    check(json!({"op": "replace", "path": ""}), "replace operation value must be object or array");
    check(
        json!({"op": "move", "from": "/x/y", "path": "/b"}),
        "move operation does not apply: doc is missing from path: /x/y: missing value",
    );
    check(
        json!({"op": "copy", "from": "/a", "path": "/x/y"}),
        "copy operation does not apply: doc is missing destination path: /x/y: missing value",
    );
    check(json!({"op": "test", "path": "/a", "value": 2}), "testing value /a failed: test failed");
    check(json!({"op": "test", "path": "/x/y"}), "test operation does not apply: is missing path: /x/y: missing value");
    check(json!({"op": "swap", "path": "/a"}), "Unexpected kind: swap");
}
