#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn patched(kind: &str, original: Value, patch: Value) -> Result<Value, StrategicError> {
    let schema = Schema::builtin();
    let group = if kind == "Deployment" { "apps" } else { "" };
    merge_object(schema, schema.kind(group, "v1", kind).unwrap(), &original, &patch)
}

#[track_caller]
fn check(kind: &str, original: Value, patch: Value, expected: Value) {
    assert_eq!(patched(kind, original, patch), Ok(expected));
}

#[track_caller]
fn check_containers(original: Value, patch: Value, expected: Value) {
    let pod = |containers: Value| json!({"spec": {"containers": containers}});
    check("Pod", pod(original), pod(patch), pod(expected));
}

#[track_caller]
fn refuses(original: Value, patch: Value, text: &str, code: u16) {
    let error = patched("Pod", json!({"spec": original}), json!({"spec": patch})).unwrap_err();
    assert!(error.to_string().contains(text), "{error}");
    assert_eq!(Status::from(error).code, code);
}

#[test]
fn maps() {
    check(
        "ConfigMap",
        json!({"data": {"a": "1", "b": "2"}}),
        json!({"data": {"a": null, "c": "3"}}),
        json!({"data": {"b": "2", "c": "3"}}),
    );
    check(
        "ConfigMap",
        json!({"data": {"a": "1"}}),
        json!({"data": {"$patch": "replace", "b": "2"}}),
        json!({"data": {"b": "2"}}),
    );
    check("ConfigMap", json!({"data": {"a": "1"}}), json!({"data": {"$patch": "delete"}}), json!({"data": {}}));
    check("ConfigMap", json!({"data": {"a": "1"}}), json!({"data": null}), json!({}));
    check("ConfigMap", json!({}), json!({"data": {"a": null, "b": "1"}}), json!({"data": {"b": "1"}}));
    check("ConfigMap", json!({}), json!({"data": {"$patch": "replace", "b": "1"}}), json!({}));
}

#[test]
fn lists_merge_by_key() {
    let (a, b) = (json!({"name": "a", "image": "1"}), json!({"name": "b", "image": "1"}));
    check_containers(json!([a]), json!([{"name": "a", "image": "2"}]), json!([{"name": "a", "image": "2"}]));
    check_containers(json!([a]), json!([b]), json!([b, a]));
    check_containers(json!([a, b]), json!([{"name": "a", "$patch": "delete"}]), json!([b]));
    check_containers(json!([a, b]), json!([{"$patch": "replace"}, {"name": "c"}]), json!([{"name": "c"}]));
    check_containers(json!([a]), json!([{"name": "a", "args": ["x"]}]), json!([{"name": "a", "image": "1", "args": ["x"]}]));
}

/// What the oracle found: `kubectl apply` of a list whose element got another name, beside one that only the server has.
#[test]
fn what_is_added_takes_the_place_of_what_is_deleted() {
    let spec =
        |names: &[&str]| json!({"spec": {"containers": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}});
    let renamed = json!({"spec": {"$setElementOrder/containers": [{"name": "new"}],
        "containers": [{"name": "new"}, {"$patch": "delete", "name": "old"}]}});
    check("Pod", spec(&["old", "injected"]), renamed.clone(), spec(&["injected", "new"]));
    check("Pod", spec(&["injected", "old"]), renamed.clone(), spec(&["injected", "new"]));
    check("Pod", spec(&["injected"]), renamed, spec(&["new", "injected"]));
    let replaced = json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a"}, {"$patch": "replace"}]});
    refuses(json!({"containers": [{"name": "b"}]}), replaced, "The order in patch list", 500);
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let args = |args: Value| json!([{"name": "a", "args": args}]);
    check_containers(args(json!(["x", "y"])), args(json!(["z"])), args(json!(["z"])));
    let tolerations = |keys: Value| json!({"spec": {"tolerations": keys}});
    check("Pod", tolerations(json!([{"key": "a"}])), tolerations(json!([{"key": "b"}])), tolerations(json!([{"key": "b"}])));
}

#[test]
fn ports_merge_by_their_key() {
    let ports = |ports: Value| json!([{"name": "c", "ports": ports}]);
    let both = json!([{"containerPort": 81}, {"containerPort": 80, "name": "x"}]);
    check_containers(ports(json!([{"containerPort": 80, "name": "x"}])), ports(json!([{"containerPort": 81}])), ports(both));
}

#[test]
fn primitive_lists() {
    let meta = |m: Value| json!({"metadata": m});
    let finalizers = |f: Value| meta(json!({"finalizers": f}));
    check("Pod", finalizers(json!(["a", "b"])), finalizers(json!(["c", "a"])), finalizers(json!(["c", "a", "b"])));
    check(
        "Pod",
        finalizers(json!(["a", "b"])),
        meta(json!({"$deleteFromPrimitiveList/finalizers": ["a"]})),
        finalizers(json!(["b"])),
    );
    let order =
        json!({"$setElementOrder/finalizers": ["c", "a"], "$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["c"]});
    check("Pod", finalizers(json!(["a", "b"])), meta(order), finalizers(json!(["c", "a"])));
}

#[test]
fn element_order() {
    let spec = |s: Value| json!({"spec": s});
    let names = |names: &[&str]| json!({"containers": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()});
    let order = |names: &[&str], containers: Value| {
        let order: Vec<_> = names.iter().map(|n| json!({"name": n})).collect();
        spec(json!({"$setElementOrder/containers": order, "containers": containers}))
    };
    check("Pod", spec(names(&["a", "b"])), order(&["b", "a"], json!([])), spec(names(&["b", "a"])));
    check(
        "Pod",
        spec(names(&["a", "s", "b"])),
        order(&["b", "c", "a"], json!([{"name": "c"}])),
        spec(names(&["s", "b", "c", "a"])),
    );
    check("Pod", spec(json!({})), order(&["a", "b"], json!([{"name": "a"}, {"name": "b"}])), spec(names(&["a", "b"])));
    check("Pod", spec(names(&["a", "b"])), order(&["a"], json!([{"name": "b", "$patch": "delete"}])), spec(names(&["a"])));
}

#[test]
fn retained_keys() {
    let strategy = |s: Value| json!({"spec": {"strategy": s}});
    let rolling = strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}));
    check(
        "Deployment",
        rolling,
        strategy(json!({"$retainKeys": ["type"], "type": "Recreate"})),
        strategy(json!({"type": "Recreate"})),
    );
    let volumes = |v: Value| json!({"spec": {"volumes": [v]}});
    let patch = volumes(json!({"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}));
    check("Pod", volumes(json!({"name": "v", "emptyDir": {}})), patch, volumes(json!({"name": "v", "hostPath": {"path": "/"}})));
}

#[test]
fn refusals() {
    let one = json!({"containers": [{"name": "a"}]});
    refuses(one.clone(), json!({"containers": [{"image": "x"}]}), "does not contain declared merge key: name", 500);
    refuses(one.clone(), json!({"containers": [{"name": "a", "$patch": "guess"}]}), "unknown patch type: \"guess\" in map", 500);
    refuses(one.clone(), json!({"containers": ["a"]}), "list element types are not identical", 500);
    refuses(json!({}), json!({"$retainKeys": ["a"], "b": 1}), "invalid patch format of retainKeys", 400);
    refuses(json!({}), json!({"$deleteFromPrimitiveList": []}), "invalid patch format of primitive list", 400);
    refuses(json!({}), json!({"$setElementOrder": []}), "invalid patch format of setElementOrder list", 400);
    refuses(
        one,
        json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "c"}]}),
        "The order in patch list",
        500,
    );
    refuses(json!({"$patch": 1}), json!({"$patch": "merge"}), "unknown patch type", 500);
}

/// Containers with distinct names.
fn containers() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-e]", "[12]", 0..4)
        .prop_map(|m| m.into_iter().map(|(name, image)| json!({"name": name, "image": image})).collect())
}

proptest! {
    #[test]
    fn merging_twice_is_merging_once(original in containers(), patch in containers()) {
        let pod = |containers: &Value| json!({"spec": {"containers": containers}});
        let once = patched("Pod", pod(&original), pod(&patch)).unwrap();
        let twice = patched("Pod", once.clone(), pod(&patch)).unwrap();
        let sorted = |v: &Value| {
            let mut items = v["spec"]["containers"].as_array().unwrap().clone();
            items.sort_by_key(|i| i["name"].as_str().unwrap().to_owned());
            items
        };
        prop_assert_eq!(sorted(&once), sorted(&twice));
    }
}

/// As many elements as the largest body holds: whatever looks for each in a list of all would not end within the test's time.
const MANY: usize = 60_000;

fn many<T>(f: impl Fn(usize) -> T) -> Vec<T> {
    (0..MANY).map(f).collect()
}

#[test]
fn large_plain_lists() {
    let name = |n: usize| format!("s.e/{n}");
    let (names, backwards) = (many(name), many(|n| name(MANY - 1 - n)));
    let meta = |m: Value| json!({"metadata": m});
    let finalizers = |list: &[String]| meta(json!({"finalizers": list}));
    check("ConfigMap", finalizers(&["s.e/7".to_owned()]), finalizers(&names), finalizers(&names));
    check("ConfigMap", finalizers(&names), finalizers(&backwards), finalizers(&backwards));
    let ordered = meta(json!({"$setElementOrder/finalizers": backwards, "finalizers": ["s.e/7"]}));
    check("ConfigMap", finalizers(&names), ordered, finalizers(&backwards));
    let emptied = meta(json!({"$deleteFromPrimitiveList/finalizers": names}));
    check("ConfigMap", finalizers(&backwards), emptied, finalizers(&[]));
    let labels = |m: &dyn Fn(usize) -> (String, Value)| many(m).into_iter().collect::<Object>();
    let mut changed = labels(&|n| (name(n), json!("2")));
    changed.insert("$retainKeys".into(), json!(names));
    let labelled = |value: &'static str| meta(json!({"labels": labels(&|n| (name(n), json!(value)))}));
    check("ConfigMap", labelled("1"), meta(json!({"labels": changed})), labelled("2"));
}

#[test]
fn large_lists_with_keys() {
    let named = |n: usize| json!({"name": n.to_string()});
    let image = |n: usize, image: &str| json!({"name": n.to_string(), "image": image});
    check_containers(many(|n| image(n, "1")).into(), many(|n| image(n, "2")).into(), many(|n| image(n, "2")).into());
    check_containers(json!([]), many(named).into(), many(named).into());
    let pod = |spec: Value| json!({"spec": spec});
    let (original, reversed) = (pod(json!({"containers": many(named)})), many(|n| named(MANY - 1 - n)));
    let ordered = pod(json!({"$setElementOrder/containers": reversed, "containers": reversed}));
    check("Pod", original.clone(), ordered, pod(json!({"containers": reversed})));
    let deleted = many(|n| json!({"name": n.to_string(), "$patch": "delete"}));
    check("Pod", original, pod(json!({"containers": deleted})), pod(json!({"containers": []})));
}
