//! Objects and histories as large as a body may be. Whatever looks at all of one list for each element of another does not end
//! within the time of a test.

use super::*;

const MANY: usize = 10_000;

fn by(manager: &str) -> By<'_> {
    By { manager, subresource: "", now: "2026-01-01T00:00:00Z", reset: &[] }
}

fn pod(containers: impl Iterator<Item = Value>) -> Value {
    let containers: Vec<Value> = containers.collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": containers}})
}

fn container(n: usize, image: &str) -> Value {
    json!({"name": format!("c{n}"), "image": image})
}

#[test]
fn keyed_lists() {
    let types = builtin("Pod");
    let forth = pod((0..MANY).map(|n| container(n, "1")));
    let back = pod((0..MANY).rev().map(|n| container(n, "2")));
    let mut live = apply(types.into(), None, &forth, &by("a"), false).unwrap();
    live = apply(types.into(), Some(&live), &back, &by("a"), false).unwrap();
    assert_eq!(live.pointer("/spec/containers/0/name"), Some(&json!(format!("c{}", MANY - 1))));
    let mut fewer = pod((0..MANY / 2).map(|n| container(n, "3")));
    update(types.into(), Some(&live), &mut fewer, &by("b"));
    let entries = meta::managed_fields(&fewer);
    assert_eq!(entries.len(), 2);
    live = apply(types.into(), Some(&live), &pod(std::iter::empty()), &by("a"), false).unwrap();
    assert_eq!(live.pointer("/spec/containers"), None);
}

#[test]
fn plain_sets() {
    let finalizers =
        |names: Vec<String>| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "finalizers": names}});
    let name = |n: usize| format!("s.e/{n}");
    let types = builtin("ConfigMap");
    let live = apply(types.into(), None, &finalizers((0..MANY).map(name).collect()), &by("a"), false).unwrap();
    let live = apply(types.into(), Some(&live), &finalizers((0..MANY).rev().map(name).collect()), &by("b"), false).unwrap();
    assert_eq!(live.pointer("/metadata/finalizers/0"), Some(&json!(name(MANY - 1))));
}

/// Managers, each with its own entry of the history.
fn history(count: usize, operation: &str, version: impl Fn(usize) -> String) -> Vec<Value> {
    let entry = |n: usize| {
        json!({"manager": format!("m{n}"), "operation": operation, "apiVersion": version(n), "time": "2025-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {format!("f:k{n}"): {}}}})
    };
    (0..count).map(entry).collect()
}

fn config_map(count: usize, value: &str, history: Vec<Value>) -> Value {
    let data: Map<String, Value> = (0..count).map(|n| (format!("k{n}"), json!(value))).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "managedFields": history}, "data": data})
}

#[test]
fn many_managers() {
    const COUNT: usize = 20_000;
    let types = builtin("ConfigMap");
    let check = |history: Vec<Value>, left: usize| {
        let live = config_map(COUNT, "1", Vec::new());
        let mut new = config_map(COUNT, "1", history);
        new["data"]["more"] = json!("1");
        update(types.into(), Some(&live), &mut new, &by("me"));
        assert_eq!(meta::managed_fields(&new).len(), left);
    };
    check(history(COUNT, "Update", |_| "v1".into()), 10);
    check(history(COUNT, "Update", |n| format!("g{n}/v1")), 1);
    check(history(COUNT, "Apply", |_| "v1".into()), COUNT + 1);
}

#[test]
fn many_conflicts_are_told_in_part() {
    const COUNT: usize = 20_000;
    let live = config_map(COUNT, "1", history(COUNT, "Apply", |_| "v1".into()));
    let mut changed = config_map(COUNT, "2", Vec::new());
    meta::remove(&mut changed, "managedFields");
    let status = apply(builtin("ConfigMap").into(), Some(&live), &changed, &by("me"), false).unwrap_err();
    assert_eq!(status.code, 409);
    assert!(status.message.len() < 4 * MAX_TOLD, "{}", status.message.len());
}

/// Every error names the whole way to its field.
#[test]
fn errors_below_a_long_key_are_told_in_part() {
    let mut object = pod(std::iter::once(json!({"name": "x".repeat(1 << 20)})));
    let unknown: Map<String, Value> = (0..MANY).map(|n| (format!("u{n}"), json!(1))).collect();
    object["spec"]["containers"][0].as_object_mut().unwrap().extend(unknown);
    let status = apply(builtin("Pod").into(), None, &object, &by("me"), false).unwrap_err();
    assert!(status.message.len() < 4 << 20, "{}", status.message.len());
}
