#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

fn builtin(kind: &str) -> Types<'static> {
    let schema = Schema::builtin();
    let group = if matches!(kind, "Deployment" | "StatefulSet") { "apps" } else { "" };
    Types::Builtin(schema, schema.kind(group, "v1", kind).unwrap())
}

fn canonical(types: Types<'_>, mut object: Value) -> Value {
    if let Types::Builtin(schema, id) = types {
        assert_eq!(schema::decode(schema, id, &mut object).unwrap(), Vec::<String>::new());
    }
    object
}

/// A cluster of one object: each step is a request, time is the number of the step.
struct Story<'s> {
    types: Types<'s>,
    live: Option<Value>,
    step: u32,
}

impl<'s> Story<'s> {
    fn new(types: Types<'s>) -> Self {
        Self { types, live: None, step: 0 }
    }

    fn now(&mut self) -> String {
        self.step += 1;
        format!("2026-01-01T00:00:{:02}Z", self.step)
    }

    fn put(&mut self, manager: &str, object: Value) -> &mut Self {
        let mut new = canonical(self.types, object);
        let now = self.now();
        let by = By { manager, subresource: "", now: &now, reset: &[] };
        update(self.types.into(), self.live.as_ref(), &mut new, &by);
        self.live = Some(new);
        self
    }

    fn try_apply(&mut self, manager: &str, patch: Value, force: bool) -> Result<(), Status> {
        let now = self.now();
        let by = By { manager, subresource: "", now: &now, reset: &[] };
        let got = apply(self.types.into(), self.live.as_ref(), &patch, &by, force)?;
        let mut got = canonical(self.types, got);
        if let Some(live) = &self.live {
            keep_times(live, &mut got);
        }
        self.live = Some(got);
        Ok(())
    }

    fn apply(&mut self, manager: &str, patch: Value) -> &mut Self {
        self.try_apply(manager, patch, false).unwrap();
        self
    }

    fn change(&mut self, manager: &str, change: impl FnOnce(&mut Value)) -> &mut Self {
        let mut object = self.live.clone().unwrap();
        change(&mut object);
        self.put(manager, object)
    }

    /// Fields by manager and operation, such as `kubectl/Apply`.
    #[track_caller]
    fn owns(&mut self, expected: Value) -> &mut Self {
        let live = self.live.as_ref().unwrap();
        let text = |e: &Value, k: &str| e[k].as_str().unwrap().to_owned();
        let got: Map<String, Value> = meta::managed_fields(live)
            .iter()
            .map(|e| (format!("{}/{}", text(e, "manager"), text(e, "operation")), e["fieldsV1"].clone()))
            .collect();
        assert_eq!(Value::Object(got), expected);
        self
    }

    #[track_caller]
    fn holds(&mut self, pointer: &str, expected: Value) -> &mut Self {
        assert_eq!(self.live.as_ref().unwrap().pointer(pointer).cloned().unwrap_or(Value::Null), expected);
        self
    }

    #[track_caller]
    fn conflicts(&mut self, manager: &str, patch: Value, message: &str) -> &mut Self {
        assert_eq!(self.try_apply(manager, patch, false).unwrap_err().message, message);
        self
    }
}

fn config_map(labels: Value, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "n", "labels": labels}, "data": data})
}

#[test]
fn create_records_everything_set() {
    let mut story = Story::new(builtin("ConfigMap"));
    story.put("curl", config_map(json!({"a": "1"}), json!({"k": "v"})));
    let expected = json!([{"manager": "curl", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:01Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:data": {".": {}, "f:k": {}}}}]);
    story.holds("/metadata/managedFields", expected);
}

#[test]
fn updates_move_ownership() {
    let mut story = Story::new(builtin("ConfigMap"));
    story.put("a", config_map(json!({}), json!({"x": "1", "y": "1"})));
    story.change("b", |o| o["data"]["x"] = "2".into());
    story.owns(json!({"a/Update": {"f:data": {".": {}, "f:y": {}}}, "b/Update": {"f:data": {"f:x": {}}}}));
    story.holds("/metadata/managedFields/1/time", json!("2026-01-01T00:00:02Z"));
    story.change("b", |_| ()).holds("/metadata/managedFields/1/time", json!("2026-01-01T00:00:02Z"));
    story.change("b", |o| drop(o["data"].as_object_mut().unwrap().remove("y")));
    story.owns(json!({"a/Update": {"f:data": {}}, "b/Update": {"f:data": {"f:x": {}}}}));
    story.change("c", |o| drop(o.as_object_mut().unwrap().remove("data"))).owns(json!({}));
    story.change("d", |o| o["data"] = json!({"z": ""})).owns(json!({}));
}

#[test]
fn sent_entries_count_unless_reset() {
    let mut story = Story::new(builtin("ConfigMap"));
    story.put("a", config_map(json!({}), json!({"x": "1"})));
    story.change("b", |o| drop(meta::remove(o, "managedFields"))).owns(json!({"a/Update": {"f:data": {".": {}, "f:x": {}}}}));
    story.change("b", |o| o["metadata"]["managedFields"][0]["manager"] = "renamed".into());
    story.owns(json!({"renamed/Update": {"f:data": {".": {}, "f:x": {}}}}));
    story.change("b", |o| o["metadata"]["managedFields"] = json!([{}])).owns(json!({}));
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "n"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
                "volumes": [{"name": "e", "emptyDir": {}}]}}}})
}

#[test]
fn create_of_nested_structs() {
    let mut story = Story::new(builtin("Deployment"));
    let container = json!({".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}});
    story.put("kubectl-create", deployment()).owns(json!({"kubectl-create/Update": {"f:spec": {
        "f:replicas": {}, "f:selector": {}, "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
        "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": container}, "f:volumes": {".": {}, "k:{\"name\":\"e\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}}}}}}}));
}

fn replicas(n: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "n"}, "spec": {"replicas": n}})
}

#[test]
fn conflicts_and_force() {
    let mut story = Story::new(builtin("Deployment"));
    story.put("kubectl-client-side-apply", deployment());
    let one = r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas"#;
    story.conflicts("me", replicas(5), one);
    story.apply("me", replicas(3));
    story.conflicts(
        "you",
        replicas(4),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.replicas\nconflicts with \"me\":\n- .spec.replicas",
    );
    story.try_apply("you", replicas(4), true).unwrap();
    story.holds("/spec/replicas", json!(4));
    let managers: Vec<_> = meta::managed_fields(story.live.as_ref().unwrap()).iter().map(|e| e["manager"].clone()).collect();
    assert_eq!(managers, ["you", "kubectl-client-side-apply"]);
    let status = story.try_apply("me", replicas(5), false).unwrap_err();
    assert_eq!((status.code, status.cause("FieldManagerConflict").unwrap().field.as_str()), (409, ".spec.replicas"));
}

#[test]
fn fields_no_longer_applied_go_away() {
    let mut story = Story::new(builtin("ConfigMap"));
    story.apply("me", config_map(json!({"l": "1"}), json!({"a": "1", "b": "1"})));
    story.owns(json!({"me/Apply": {"f:metadata": {"f:labels": {"f:l": {}}}, "f:data": {"f:a": {}, "f:b": {}}}}));
    story.apply("other", data(&[("b".to_owned(), "1".to_owned())].into()));
    story.change("patch", |o| o["data"]["c"] = "1".into());
    story.apply("me", data(&BTreeMap::new()));
    story.holds("/data", json!({"b": "1", "c": "1"})).holds("/metadata/labels", Value::Null).holds("/metadata/name", json!("cm"));
    story.owns(json!({"other/Apply": {"f:data": {"f:b": {}}}, "patch/Update": {"f:data": {"f:c": {}}}}));
}

#[test]
fn keyed_lists() {
    let containers =
        |items: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": items}});
    let mut story = Story::new(builtin("Pod"));
    story.apply("a", containers(json!([{"name": "x", "image": "1"}, {"name": "y", "image": "1"}])));
    story.apply("b", containers(json!([{"name": "z", "image": "1"}, {"name": "y", "imagePullPolicy": "Never"}])));
    story.holds("/spec/containers/0/name", json!("x")).holds("/spec/containers/1/name", json!("z"));
    story.apply("a", containers(json!([{"name": "x", "image": "1"}])));
    story.holds("/spec/containers/2", json!({"name": "y", "imagePullPolicy": "Never", "resources": {}}));
    story.apply("b", containers(json!([{"name": "z", "image": "1"}])));
    story.holds("/spec/containers/2", Value::Null);
    story.owns(json!({
        "a/Apply": {"f:spec": {"f:containers": {"k:{\"name\":\"x\"}": {".": {}, "f:image": {}, "f:name": {}}}}},
        "b/Apply": {"f:spec": {"f:containers": {"k:{\"name\":\"z\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}));
}

#[test]
fn defaults_of_keys() {
    let port = json!([{"name": "c", "ports": [{"containerPort": 80}]}]);
    let patch = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": port}});
    let mut story = Story::new(builtin("Pod"));
    let ports = json!({"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}});
    let containers = json!({"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:ports": ports}});
    story.apply("me", patch).owns(json!({"me/Apply": {"f:spec": {"f:containers": containers}}}));
}

/// A claimRef is granular, while other fields of its type are atomic.
#[test]
fn atomic_types_may_be_granular_fields() {
    let patch = |name: &str| json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "a"}, "spec": {"claimRef": {"name": name}}});
    let mut story = Story::new(builtin("PersistentVolume"));
    story.apply("me", patch("b")).owns(json!({"me/Apply": {"f:spec": {"f:claimRef": {"f:name": {}}}}}));
}

#[test]
fn first_apply_after_untracked_writes() {
    let mut story = Story::new(builtin("ConfigMap"));
    story.put("a", config_map(json!({}), json!({"x": "1"}))).change("a", |o| o["metadata"]["managedFields"] = json!([{}]));
    let message = r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.x"#;
    story.conflicts("me", config_map(json!({}), json!({"x": "2"})), message);
    story.apply("me", config_map(json!({"l": "1"}), json!({})));
    story.owns(json!({"before-first-apply/Update": {"f:data": {".": {}, "f:x": {}}},
        "me/Apply": {"f:metadata": {"f:labels": {"f:l": {}}}, "f:data": {}}}));
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let mut object = config_map(json!({}), json!({"x": "1"}));
    let annotation = format!("{object}\n");
    meta::set_annotation(&mut object, LAST_APPLIED, annotation);
    let mut story = Story::new(builtin("ConfigMap"));
    story.put("kubectl-client-side-apply", object).apply("kubectl", config_map(json!({}), json!({"x": "2"})));
    story.holds("/data/x", json!("2"));
    let last: Value = serde_json::from_str(meta::annotation(story.live.as_ref().unwrap(), LAST_APPLIED).unwrap()).unwrap();
    assert_eq!(last["data"]["x"], "2");
    story.change("edit", |o| o["data"]["x"] = "3".into());
    let message = r#"Apply failed with 1 conflict: conflict with "edit" using v1: .data.x"#;
    story.conflicts("kubectl", config_map(json!({}), json!({"x": "4"})), message);
}

#[test]
fn subresources_and_reset_fields() {
    let types = builtin("Pod");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
    let mut new = canonical(types, pod.clone());
    update(types.into(), None, &mut new, &By { manager: "m", subresource: "", now: "t", reset: &[&["status"]] });
    assert_eq!(new["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:spec": {"f:nodeName": {}}}));
    let live = new.clone();
    new["status"]["phase"] = "Failed".into();
    new["metadata"]["managedFields"] = json!([]);
    update(types.into(), Some(&live), &mut new, &By { manager: "m", subresource: "status", now: "u", reset: &[&["spec"]] });
    let entry = &new["metadata"]["managedFields"][1];
    assert_eq!((&entry["subresource"], &entry["fieldsV1"]), (&json!("status"), &json!({"f:status": {"f:phase": {}}})));
}

#[test]
fn custom_resources() {
    let item = json!({"type": "object", "properties": {"id": {"type": "integer"}, "v": {"type": "string"}}});
    let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": item});
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let spec = json!({"type": "object", "properties": {"list": list, "set": set, "free": free, "plain": {"type": "array", "items": {"type": "string"}}}});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    let object = |spec: Value| json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "o"}, "spec": spec});
    let mut story = Story::new(Types::Structural(&schema));
    story.apply("a", object(json!({"list": [{"id": 1, "v": "a"}], "set": ["x", "y"], "free": {"k": {"n": 1}}, "plain": ["p"]})));
    story.owns(json!({"a/Apply": {"f:spec": {"f:list": {"k:{\"id\":1}": {".": {}, "f:id": {}, "f:v": {}}},
        "f:set": {"v:\"x\"": {}, "v:\"y\"": {}}, "f:free": {"f:k": {".": {}, "f:n": {}}}, "f:plain": {}}}}));
    story.apply("b", object(json!({"list": [{"id": 2}], "set": ["y", "z"]})));
    story.holds("/spec/set", json!(["x", "y", "z"]));
    story.apply("a", object(json!({"set": ["x"]})));
    story.holds("/spec", json!({"list": [{"id": 2}], "set": ["x", "y", "z"]}));
    let untyped = |spec: Value| extract::extract(Types::Untyped.root(), &json!({"spec": spec}));
    assert_eq!(
        Value::Object(untyped(json!({"a": [1], "b": {"c": 1}}))),
        json!({"f:spec": {".": {}, "f:a": {}, "f:b": {".": {}, "f:c": {}}}})
    );
}

#[test]
fn refuses_what_cannot_be_applied() {
    let check = |patch: Value, expected: &str| {
        let got = Story::new(builtin("Pod")).try_apply("me", patch, false).unwrap_err();
        assert!(got.message.ends_with(expected), "{got}");
    };
    let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": spec});
    check(
        pod(json!({"foo": 1})),
        "failed to create typed patch object (n/p; /v1, Kind=Pod): .spec.foo: field not declared in schema",
    );
    check(
        pod(json!({"containers": [{"name": "a"}, {"name": "a"}]})),
        r#".spec.containers: duplicate entries for key [name="a"]"#,
    );
    // A field that is always written has a default, which tells the item apart.
    check(pod(json!({"containers": [{}, {}]})), r#".spec.containers: duplicate entries for key [name=""]"#);
    // What is only replaced as a whole must be right inside.
    let selector =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"foo": 1}]}}});
    let path = ".spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].foo";
    check(pod(json!({"affinity": selector})), &format!("{path}: field not declared in schema"));
    let env = |value: Value| pod(json!({"containers": [{"name": "c", "env": [{"name": "E", "value": value}]}]}));
    let path = r#".spec.containers[name="c"].env[name="E"].value: expected string, got &value.valueUnstructured{Value:"#;
    check(env(json!(1)), &format!("{path}1}}"));
    check(env(json!(["a", {"b": true}])), &format!(r#"{path}[]interface {{}}{{"a", map[string]interface {{}}{{"b":true}}}}}}"#));
    check(pod(json!({"priority": "high"})), ".spec.priority: expected numeric (int or float), got string");
    check(pod(json!({"hostNetwork": "yes"})), ".spec.hostNetwork: expected boolean, got &{yes}");
    check(pod(json!({"nodeSelector": ["a", 1]})), ".spec.nodeSelector: expected map, got &{[a 1]}");
    check(pod(json!({"containers": {"b": 1, "a": []}})), ".spec.containers: expected list, got &{map[a:[] b:1]}");
    check(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"managedFields": []}}), "metadata.managedFields must be nil");
    let mut story = Story::new(builtin("Pod"));
    story.put("a", pod(json!({})));
    story.conflicts("me", json!({"apiVersion": "v2", "kind": "Pod"}), "invalid object type: /v2, Kind=Pod");
}

/// An item that has some of the keys is told apart by those (structured-merge-diff 6).
#[test]
fn items_without_some_keys() {
    let item = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["b", "a"], "items": item});
    let schema = json!({"type": "object", "properties": {"l": list}});
    let object = |list: Value| json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "o"}, "l": list});
    let mut story = Story::new(Types::Structural(&schema));
    story.apply("me", object(json!([{"a": "1"}, {"a": "1", "b": "2"}])));
    story.owns(json!({"me/Apply": {"f:l": {"k:{\"a\":\"1\"}": {".": {}, "f:a": {}},
        "k:{\"a\":\"1\",\"b\":\"2\"}": {".": {}, "f:a": {}, "f:b": {}}}}}));
    let got = story.try_apply("me", object(json!([{}])), false).unwrap_err();
    let told = r#".l: element 0: associative list with keys has an element that omits all key fields ["b" "a"] (and doesn't have default values for any key fields)"#;
    assert!(got.message.ends_with(told), "{got}");
}

/// An apply that changes nothing has no time of its own (`managedFieldsUpdater`), and what is emptied stays its other owner's.
#[test]
fn what_changes_nothing() {
    let mut story = Story::new(builtin("ConfigMap"));
    let config = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": data});
    story.apply("z", config(json!({"a": "1"}))).apply("x", config(json!({"a": "1"})));
    let entries: Vec<_> =
        meta::managed_fields(story.live.as_ref().unwrap()).iter().map(|e| [&e["manager"], &e["time"]]).collect();
    assert_eq!(entries, [[&json!("x"), &Value::Null], [&json!("z"), &json!("2026-01-01T00:00:01Z")]]);
    story.apply("y", config(json!({}))).apply("x", config(json!({}))).apply("z", config(json!({})));
    let expected = json!({"f:data": {}});
    story.owns(json!({"x/Apply": expected, "y/Apply": expected, "z/Apply": expected})).holds("/data", Value::Null);
}

/// Twice the same key is one thing, which comes and goes as a whole.
#[test]
fn duplicates_come_and_go() {
    let ports = |ports: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "ports": ports}]}});
    let (one, two) =
        (json!({"containerPort": 1, "protocol": "TCP"}), json!({"containerPort": 1, "protocol": "TCP", "name": "x"}));
    let owned = |below: Value| {
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:resources": {},
            "f:ports": {".": {}, "k:{\"containerPort\":1,\"protocol\":\"TCP\"}": below}}}}})
    };
    let fields = json!({".": {}, "f:containerPort": {}, "f:protocol": {}});
    let mut story = Story::new(builtin("Pod"));
    story.put("a", ports(json!([one]))).owns(json!({"a/Update": owned(fields.clone())}));
    story.put("a", ports(json!([one, two]))).owns(json!({"a/Update": owned(json!({}))}));
    story.put("a", ports(json!([one]))).owns(json!({"a/Update": owned(fields)}));
}

#[test]
fn old_updates_are_merged() {
    let mut story = Story::new(builtin("ConfigMap"));
    story.put("m0", config_map(json!({}), json!({"k0": ""})));
    for i in 1..12 {
        story.change(&format!("m{i}"), |o| o["data"][format!("k{i}")] = "".into());
    }
    let entries = meta::managed_fields(story.live.as_ref().unwrap());
    assert_eq!(entries.len(), 10);
    let ancient = entries.iter().find(|e| e["manager"] == "ancient-changes").unwrap();
    assert_eq!(ancient["fieldsV1"], json!({"f:data": {".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}}}));
}

/// A configuration of some data, or of none at all.
fn data(data: &BTreeMap<String, String>) -> Value {
    let mut out = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "n"}});
    if !data.is_empty() {
        out["data"] = json!(data);
    }
    out
}

fn maps() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[a-d]", "[12]", 0..4)
}

proptest! {
    /// Applying the same twice changes nothing, and what was applied is there until nobody applies it.
    #[test]
    fn applying_is_idempotent(first in maps(), second in maps()) {
        let mut story = Story::new(builtin("ConfigMap"));
        story.apply("a", data(&first));
        story.try_apply("b", data(&second), true).unwrap();
        let once = story.live.clone();
        story.try_apply("b", data(&second), true).unwrap();
        prop_assert_eq!(&story.live, &once);
        let mut expected = first.clone();
        expected.extend(second.clone());
        prop_assert_eq!(meta_free(&once.unwrap()), data(&expected));
        story.apply("b", data(&BTreeMap::new()));
        let kept: BTreeMap<_, _> = first.clone().into_iter().filter(|(k, v)| second.get(k).is_none_or(|w| w == v)).collect();
        prop_assert_eq!(meta_free(story.live.as_ref().unwrap()), data(&kept));
        story.apply("a", data(&BTreeMap::new()));
        prop_assert_eq!(meta_free(story.live.as_ref().unwrap()), data(&BTreeMap::new()));
    }
}

fn meta_free(object: &Value) -> Value {
    let mut out = object.clone();
    meta::remove(&mut out, "managedFields");
    out
}

mod large;

/// Statuses of a pod, and its labels.
fn statuses() -> impl Strategy<Value = (Value, Value)> {
    let conditions = proptest::collection::btree_map("[ABC]", "True|False", 0..3).prop_map(|conditions| {
        let all: Vec<Value> = conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
        json!(all)
    });
    let addresses = proptest::collection::btree_set("10\\.0\\.0\\.[12]", 0..2);
    let status = (conditions, "Running|Failed", addresses, any::<bool>()).prop_map(|(conditions, phase, addresses, more)| {
        let addresses: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let mut status = json!({"conditions": conditions, "phase": phase, "podIPs": addresses});
        if more {
            status["containerStatuses"] = json!([{"name": "a", "ready": true, "restartCount": 0, "image": "i", "imageID": "",
                "lastState": {}, "state": {}}]);
        }
        status
    });
    let labels = prop_oneof![Just(json!({"x": "1"})), Just(json!({"x": "1", "y\"": "2"}))];
    (status, labels)
}

proptest! {
    /// Entries as text are treated as entries that are decoded.
    #[test]
    fn what_is_not_decoded_is_noted_alike(
        steps in proptest::collection::vec((statuses(), "[a-m]", prop_oneof![4 => Just("status"), 1 => Just("other")]), 1..24),
    ) {
        let pod = builtin("Pod");
        let mut live = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"x": "1"}},
            "spec": {"containers": [{"name": "a", "image": "i"}]}});
        let by = By { manager: "z", subresource: "", now: "2026-01-01T00:00:00Z", reset: &[&["status"]] };
        live = canonical(pod, live);
        update(pod.into(), None, &mut live, &by);
        for (step, ((status, labels), manager, subresource)) in steps.into_iter().enumerate() {
            let now = format!("2026-01-01T00:01:{step:02}Z");
            let by = By { manager: &manager, subresource, now: &now, reset: &[&["spec"]] };
            let mut new = live.clone();
            new["status"] = status;
            new["metadata"]["labels"] = labels;
            let mut new = canonical(pod, new);
            let bare = |object: &Value| {
                let mut object = object.clone();
                let managed = meta::remove(&mut object, "managedFields");
                (object, managed.unwrap_or_default().to_string())
            };
            let ((old, stored), (bare_new, _)) = (bare(&live), bare(&new));
            let text = update_encoded(pod.into(), &stored, &old, &bare_new, &by);
            update(pod.into(), Some(&live), &mut new, &by);
            prop_assert_eq!(text, Some(bare(&new).1));
            live = new;
        }
    }
}

#[test]
fn entries_that_cannot_be_read_are_none() {
    let pod = builtin("Pod");
    let [old, new] = ["Running", "Failed"].map(|phase| {
        canonical(pod, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": phase}}))
    });
    let by = By { manager: "m", subresource: "status", now: "2026-01-01T00:00:00Z", reset: &[&["spec"]] };
    for stored in ["", "null", "[]", "[1]", "[{}]", "{}", r#"[{"operation":"Update"}]"#] {
        assert_eq!(update_encoded(pod.into(), stored, &old, &new, &by), None, "{stored}");
    }
}
