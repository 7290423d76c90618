//! Objects of a custom kind: schemas, sub-resources, versions.

use serde_json::{Value, json};

use super::*;

fn patch(kind: &str) -> String {
    format!("PATCH {FOOS}/a\ncontent-type: application/{kind}")
}

fn typed() -> Value {
    json!({"type": "object", "properties": {
        "n": {"type": "integer", "minimum": 1, "maximum": 5}, "kind": {"type": "string", "enum": ["x", "y"], "default": "x"},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
            "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
        }},
    }})
}

/// Conformance: [sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema [Conformance]
/// Conformance: [sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema [Conformance]
#[tokio::test]
async fn schemas_prune_default_and_refuse() {
    let server = with_spec(typed()).await;
    let api = &server.api;
    let made = ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"n": 3, "other": {"a": 1}}))).await;
    assert_eq!((&made["spec"], &made["metadata"]["generation"]), (&json!({"n": 3, "kind": "x"}), &json!(1)));
    let wrong = ask(api, 422, &format!("POST {FOOS}"), &foo("b", json!({"n": 9, "kind": "z"}))).await;
    let causes: Vec<&str> =
        wrong["details"]["causes"].as_array().unwrap().iter().filter_map(|cause| cause["field"].as_str()).collect();
    assert_eq!(causes, ["spec.kind", "spec.n"]);
    assert!(wrong["message"].as_str().unwrap().contains("spec.n in body should be less than or equal to 5"), "{wrong}");
    let strict = ask(api, 400, &format!("POST {FOOS}?fieldValidation=Strict"), &foo("b", json!({"other": 1}))).await;
    assert!(strict["message"].as_str().unwrap().contains("strict decoding error: unknown field \"spec.other\""), "{strict}");
    let warned = send(api, &format!("POST {FOOS}?fieldValidation=Warn"), &foo("b", json!({"other": 1}))).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.other\\\"\"");
    let applied = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "c"}, "spec": {"n": 1}});
    let path = format!("PATCH {FOOS}/c?fieldManager=t&fieldValidation=Strict\ncontent-type: application/apply-patch+yaml");
    ask(api, 201, &path, &applied).await;
}

/// Upstream: the strategy of custom resources warns of new finalizers that another controller may have chosen, too; those of built-in kinds
/// are refused (contract tests of the registry).
#[tokio::test]
async fn new_finalizers_without_a_domain_are_warned_of() {
    let server = with_spec(typed()).await;
    let api = &server.api;
    let finalizers = json!(["orphan", "example.com/x", "mine"]);
    let mut object = foo("a", json!({"n": 1}));
    object["metadata"]["finalizers"] = finalizers.clone();
    let made = send(api, &format!("POST {FOOS}"), &object).await;
    let warnings: Vec<_> = made.headers.get_all("warning").iter().collect();
    let told = "299 - \"metadata.finalizers: \\\"mine\\\": prefer a domain-qualified finalizer name";
    assert!(made.code == 201 && warnings.len() == 1 && warnings[0].to_str().unwrap().starts_with(told), "{warnings:?}");
    let merge = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    let warned = async |finalizers: Value| {
        let changed = send(api, &patch("merge-patch+json"), &merge(finalizers)).await;
        assert_eq!(changed.code, 200, "{:?}", changed.body);
        changed.headers.contains_key("warning")
    };
    assert!(!warned(json!(["mine", "orphan"])).await, "it is known");
    assert!(warned(json!(["mine", "orphan", "other"])).await);
}

/// Upstream: `TestFieldValidationPostCRD` and `TestFieldValidationPatchCRD` of `test/integration/apiserver/field_validation_test.go`.
#[tokio::test]
async fn fields_that_are_unknown_or_occur_twice() {
    let server = with_spec(typed()).await;
    let api = &server.api;
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"n": 1}))).await;
    let spec = r#""spec": {"unknown1": 1, "unknownDupe": 1, "unknownDupe": 2, "n": 1, "n": 2,
        "parts": [{"name": "p", "size": 1, "size": 2, "nested": 1}]}"#;
    let told = [
        "duplicate field \"spec.unknownDupe\"",
        "duplicate field \"spec.n\"",
        "duplicate field \"spec.parts[0].size\"",
        "unknown field \"spec.parts[0].nested\"",
        "unknown field \"spec.unknown1\"",
        "unknown field \"spec.unknownDupe\"",
    ];
    let whole = format!(r#"{{"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {{"name": "b"}}, {spec}}}"#);
    let patched = patch("merge-patch+json");
    let (line, header) = patched.split_once('\n').unwrap();
    let cases = [
        (format!("POST {FOOS}?"), String::new(), whole, 400),
        (format!("{line}?"), format!("\n{header}"), format!("{{{spec}}}"), 422),
    ];
    for (line, header, body, code) in cases {
        let send = async |mode: &str| admin(api, &format!("{line}dryRun=All&fieldValidation={mode}{header}\n\n{body}")).await;
        let strict = send("Strict").await;
        let message = strict.json()["message"].as_str().unwrap().to_owned();
        assert_eq!(strict.code, code, "{message}");
        assert!(message.ends_with(&format!("strict decoding error: {}", told.join(", "))), "{message}");
        let warned = send("Warn").await;
        let texts = warned.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().replace('\\', ""));
        assert_eq!(texts.collect::<Vec<_>>(), told.map(|text| format!("299 - \"{text}\"")), "{line}");
        assert!(send("Ignore").await.headers.get("warning").is_none());
    }
}

/// Conformance: [sig-api-machinery] FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema [Conformance]
/// Conformance: [sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown fields [Conformance]
#[tokio::test]
async fn unknown_fields_are_kept_where_the_schema_says_so() {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let server = with_definition(definition("foos", "Foo", open)).await;
    let api = &server.api;
    let made =
        ask(api, 201, &format!("POST {FOOS}?fieldValidation=Strict"), &foo("a", json!({"any": {"thing": [1, "x"]}}))).await;
    assert_eq!(made["spec"], json!({"any": {"thing": [1, "x"]}}));
    let twice = r#"{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"b"},"spec":{"a":1,"a":2}}"#;
    let refused = admin(api, &format!("POST {FOOS}?fieldValidation=Strict\n\n{twice}")).await;
    assert_eq!(refused.code, 400);
    assert!(refused.json()["message"].as_str().unwrap().contains("duplicate field \"spec.a\""), "{:?}", refused.body);
}

#[tokio::test]
async fn patches() {
    let server = with_spec(typed()).await;
    let api = &server.api;
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"n": 1}))).await;
    let refused = send(api, &patch("strategic-merge-patch+json"), &json!({})).await;
    assert_eq!(refused.code, 415);
    let merged = ask(api, 200, &patch("merge-patch+json"), &json!({"spec": {"n": 2, "gone": 1}})).await;
    assert_eq!((&merged["spec"], &merged["metadata"]["generation"]), (&json!({"n": 2, "kind": "x"}), &json!(2)));
    let same = ask(api, 200, &patch("merge-patch+json"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(same["metadata"]["generation"], 2);
    ask(api, 422, &patch("json-patch+json"), &json!([{"op": "replace", "path": "/spec/n", "value": 0}])).await;
    // Two managers own an element each.
    let apply = |manager: &str, parts: Value| {
        let request = format!("PATCH {FOOS}/a?fieldManager={manager}\ncontent-type: application/apply-patch+yaml");
        let body = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": {"parts": parts}});
        async move { ask(api, 200, &request, &body).await }
    };
    apply("one", json!([{"name": "p", "size": 1}])).await;
    let both = apply("two", json!([{"name": "q", "size": 2}])).await;
    assert_eq!(both["spec"]["parts"], json!([{"name": "p", "size": 1}, {"name": "q", "size": 2}]));
    let less = apply("one", json!([])).await;
    assert_eq!(less["spec"]["parts"], json!([{"name": "q", "size": 2}]));
    let unversioned = foo("a", json!({"n": 1}));
    let missing = ask(api, 422, &format!("PUT {FOOS}/a"), &unversioned).await;
    let expected =
        "foos.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
    assert_eq!((missing["message"].as_str(), missing["details"]["kind"].as_str()), (Some(expected), Some("foos")));
}

/// What a status cannot change is not owned by who applies it: upstream's PR 137689. A later apply of it is no conflict.
#[tokio::test]
async fn metadata_that_a_status_brings_are_nobodys() {
    let server = with_definition(with_subresources()).await;
    let api = &server.api;
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"replicas": 1}))).await;
    let apply = async |path: &str, manager: &str, rest: Value| {
        let mut config = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"labels": {"l": manager}, "annotations": {"a": manager}}});
        config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let request = format!("PATCH {FOOS}/{path}?fieldManager={manager}\ncontent-type: application/apply-patch+yaml");
        ask(api, 200, &request, &config).await
    };
    let applied = apply("a/status", "one", json!({"status": {"replicas": 1}, "spec": {"replicas": 9}})).await;
    let managers = applied["metadata"]["managedFields"].as_array().unwrap();
    let one = managers.iter().find(|entry| entry["manager"] == "one").unwrap();
    assert_eq!(one["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    assert_eq!((applied["metadata"].get("labels"), applied["metadata"].get("annotations")), (None, None));
    let other = apply("a", "two", json!({})).await;
    assert_eq!((&other["metadata"]["labels"], &other["status"]), (&json!({"l": "two"}), &json!({"replicas": 1})));
}

fn with_subresources() -> Value {
    let counts = json!({"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"spec": counts, "status": counts}});
    let mut definition = definition("foos", "Foo", schema);
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {}, "scale": {
        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector",
    }});
    definition
}

#[tokio::test]
async fn status_and_scale() {
    let server = with_definition(with_subresources()).await;
    let api = &server.api;
    let mut object = foo("a", json!({"replicas": 1}));
    object["status"] = json!({"replicas": 7});
    let made = ask(api, 201, &format!("POST {FOOS}"), &object).await;
    assert_eq!(made.get("status"), None);
    let status =
        json!({"metadata": {"labels": {"not": "this"}}, "spec": {"replicas": 9}, "status": {"replicas": 2, "selector": "a=b"}});
    let request = format!("PATCH {FOOS}/a/status\ncontent-type: application/merge-patch+json");
    let patched = ask(api, 200, &request, &status).await;
    assert_eq!((&patched["status"], &patched["spec"]), (&json!({"replicas": 2, "selector": "a=b"}), &json!({"replicas": 1})));
    assert_eq!((patched["metadata"].get("labels"), &patched["metadata"]["generation"]), (None, &json!(1)));
    let scale = get(api, &format!("{FOOS}/a/scale")).await;
    assert_eq!((&scale["kind"], &scale["spec"]), (&json!("Scale"), &json!({"replicas": 1})));
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=b"}));
    let more = json!({"spec": {"replicas": 4}});
    let scaled = ask(api, 200, &format!("PATCH {FOOS}/a/scale\ncontent-type: application/merge-patch+json"), &more).await;
    assert_eq!(scaled["spec"]["replicas"], 4);
    let now = get(api, &format!("{FOOS}/a")).await;
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(4), &json!(2)));
    // What the main path says of the status is dropped.
    let ignored = json!({"status": {"replicas": 100}});
    let kept = ask(api, 200, &patch("merge-patch+json"), &ignored).await;
    assert_eq!(kept["status"]["replicas"], 2);
}

/// Upstream: `statusStrategy.ValidateUpdate`. A list by keys that had two elements of a key could be applied by nobody any more.
#[tokio::test]
async fn a_status_keeps_the_rules_of_its_lists() {
    let conditions = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {
        "type": "object", "required": ["type"], "properties": {"type": {"type": "string"}, "status": {"type": "string"}}}});
    let status = json!({"type": "object", "properties": {"conditions": conditions, "replicas": {"type": "integer"}}});
    let mut definition = definition("foos", "Foo", json!({"type": "object", "properties": {"status": status}}));
    definition["spec"]["versions"][0]["subresources"] =
        json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}});
    let server = with_definition(definition).await;
    let api = &server.api;
    ask(api, 201, &format!("POST {FOOS}"), &json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}}))
        .await;
    let request = format!("PATCH {FOOS}/a/status\ncontent-type: application/merge-patch+json");
    let write = async |code: u16, status: Value| ask(api, code, &request, &json!({"status": status})).await["message"].clone();
    let ready = |status: &str| json!({"type": "Ready", "status": status});
    write(200, json!({"conditions": [ready("True")], "replicas": 1})).await;
    let refused = write(422, json!({"conditions": [ready("True"), ready("False")]})).await;
    assert!(refused.as_str().unwrap().ends_with("status.conditions[1]: Duplicate value: {\"type\":\"Ready\"}"), "{refused}");
    let refused = write(422, json!({"replicas": -1})).await;
    assert!(
        refused.as_str().unwrap().ends_with(".status.replicas: Invalid value: -1: should be a non-negative integer"),
        "{refused}"
    );
}

/// Upstream (`registry/customresource/etcd.go`): "the spec replicas field does not exist" is what its Scale is refused for; a change of it
/// says a number.
#[tokio::test]
async fn the_scale_of_an_object_without_replicas() {
    let server = with_definition(with_subresources()).await;
    let api = &server.api;
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({}))).await;
    let scale = format!("{FOOS}/a/scale");
    let refused = ask(api, 500, &format!("GET {scale}"), &Value::Null).await;
    assert_eq!(refused["message"], "Internal error occurred: the spec replicas field \".spec.replicas\" does not exist");
    let change = format!("PATCH {scale}\ncontent-type: application/merge-patch+json");
    let refused = ask(api, 400, &change, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(refused["message"], "the spec replicas field \".spec.replicas\" cannot be empty");
    assert_eq!(get(api, &format!("{FOOS}/a")).await["spec"], json!({}));
    ask(api, 200, &change, &json!({"spec": {"replicas": 0}})).await;
    assert_eq!(get(api, &scale).await["spec"], json!({}));
    assert_eq!(get(api, &format!("{FOOS}/a")).await["spec"], json!({"replicas": 0}));
}

/// KEP-4358: selectable fields may be used in field selectors; `selected.rs` has those of several versions.
#[tokio::test]
async fn tables_and_field_selectors() {
    let spec = json!({"type": "object", "properties": {"host": {"type": "string"}, "port": {"type": "integer"}}});
    let mut definition = definition("foos", "Foo", json!({"type": "object", "properties": {"spec": spec}}));
    let version = &mut definition["spec"]["versions"][0];
    version["additionalPrinterColumns"] = json!([{"name": "Host", "type": "string", "jsonPath": ".spec.host"}]);
    version["selectableFields"] = json!([{"jsonPath": ".spec.host"}, {"jsonPath": ".spec.port"}]);
    let server = with_definition(definition).await;
    let api = &server.api;
    let mut watch = Watch::start(api, &format!("{FOOS}?fieldSelector=spec.host%3Dh1%2Cspec.port%3D80")).await;
    for (name, host, port) in [("a", "h1", 80), ("b", "h2", 80), ("c", "h1", 81)] {
        ask(api, 201, &format!("POST {FOOS}"), &foo(name, json!({"host": host, "port": port}))).await;
    }
    let names =
        |list: Value| list["items"].as_array().unwrap().iter().map(|one| one["metadata"]["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(get(api, &format!("{FOOS}?fieldSelector=spec.host%3Dh1")).await), ["a", "c"]);
    assert_eq!(names(get(api, &format!("{FOOS}?fieldSelector=spec.host%3Dh1%2Cspec.port%3D80")).await), ["a"]);
    assert_eq!(watch.next().await["object"]["metadata"]["name"], "a");
    ask(api, 400, &format!("GET {FOOS}?fieldSelector=spec.other%3D1"), &Value::Null).await;
    let table = admin(api, &format!("GET {FOOS}\nAccept: application/json;as=Table;g=meta.k8s.io;v=v1")).await.json();
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!((columns, &table["rows"][1]["cells"]), (vec!["Name", "Host"], &json!(["b", "h2"])));
}

#[tokio::test]
async fn wire_formats() {
    let server = with_spec(typed()).await;
    let api = &server.api;
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"n": 1}))).await;
    let protobuf = "application/vnd.kubernetes.protobuf";
    assert_eq!(admin(api, &format!("GET {FOOS}\nAccept: {protobuf}")).await.code, 406);
    let either = admin(api, &format!("GET {FOOS}\nAccept: {protobuf},application/json")).await;
    assert_eq!((either.code, either.json()["kind"].clone()), (200, json!("FooList")));
    let metadata = format!("{protobuf};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let listed = admin(api, &format!("GET {FOOS}\nAccept: {metadata}")).await;
    assert_eq!((listed.code, listed.headers["content-type"].to_str().unwrap()), (200, protobuf));
    assert!(listed.body.starts_with(b"k8s\0"));
    assert_eq!(admin(api, &format!("POST {FOOS}\nContent-Type: {protobuf}\n\nk8s")).await.code, 415);
    let yaml = "apiVersion: example.com/v1\nkind: Foo\nmetadata: {name: b}\nspec: {n: 2}\n";
    assert_eq!(admin(api, &format!("POST {FOOS}\nContent-Type: application/yaml\n\n{yaml}")).await.code, 201);
}

fn versions(names: &[(&str, bool)]) -> Value {
    let version = |(name, storage): &(&str, bool)| {
        let spec =
            json!({"type": "object", "properties": {"n": {"type": "integer"}, "since": {"type": "string", "default": name}}});
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}})
    };
    names.iter().map(version).collect()
}

#[tokio::test]
async fn several_versions_show_the_same_objects() {
    let mut definition = definition("foos", "Foo", json!({"type": "object"}));
    definition["spec"]["versions"] = versions(&[("v1beta1", true), ("v1", false)]);
    let server = with_definition(definition).await;
    let api = &server.api;
    let group = get(api, "/apis/example.com").await;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"n": 1}))).await;
    let beta = "/apis/example.com/v1beta1/namespaces/ns/foos";
    let (new, old) = (get(api, &format!("{FOOS}/a")).await, get(api, &format!("{beta}/a")).await);
    assert_eq!((&new["apiVersion"], &old["apiVersion"]), (&json!("example.com/v1"), &json!("example.com/v1beta1")));
    assert_eq!((&new["metadata"]["uid"], &new["spec"]), (&old["metadata"]["uid"], &old["spec"]));
    let mut watch = Watch::start(api, FOOS).await;
    assert_eq!(watch.next().await["object"]["apiVersion"], "example.com/v1");
    // The other version is stored from now on; what is there stays.
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut other = get(api, &path).await;
    other["spec"]["versions"] = versions(&[("v1beta1", false), ("v1", true)]);
    let changed = ask(api, 200, &format!("PUT {path}"), &other).await;
    assert_eq!(changed["status"]["storedVersions"], json!(["v1beta1", "v1"]));
    // Watches begin again under the new definition.
    assert!(watch.end_or_next().await.is_none());
    assert_eq!(get(api, &format!("{FOOS}/a")).await["spec"], json!({"n": 1, "since": "v1"}));
    let patched = ask(api, 200, &patch("merge-patch+json"), &json!({"spec": {"n": 2}})).await;
    assert_eq!(patched["spec"], json!({"n": 2, "since": "v1"}));
    assert_eq!(get(api, &format!("{beta}/a")).await["spec"]["n"], 2);
}

/// Conformance: [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and from storage works [Conformance]
#[tokio::test]
async fn a_changed_schema_counts_for_what_is_stored() {
    let server = with_spec(json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}})).await;
    let api = &server.api;
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"a": 1, "b": 2}))).await;
    let mut watch = Watch::start(api, FOOS).await;
    watch.next().await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let spec = json!({"type": "object", "properties": {"a": {"type": "integer"}, "c": {"type": "string", "default": "new"}}});
    let change = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec", "value": spec}]);
    ask(api, 200, &format!("PATCH {path}\ncontent-type: application/json-patch+json"), &change).await;
    while watch.end_or_next().await.is_some() {}
    assert_eq!(get(api, &format!("{FOOS}/a")).await["spec"], json!({"a": 1, "c": "new"}));
    assert_eq!(get(api, FOOS).await["items"][0]["spec"], json!({"a": 1, "c": "new"}));
    let mut watch = Watch::start(api, FOOS).await;
    assert_eq!(watch.next().await["object"]["spec"], json!({"a": 1, "c": "new"}));
}
