//! Definitions come and go.

use serde_json::{Value, json};

use super::*;
use crate::webhooks::{Hooks, VALIDATING, allow, register};

/// Conformance: [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition creating/deleting custom resource definition objects works [Conformance]
/// Conformance: [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource definition resources in discovery documents [Conformance]
/// Conformance: [sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface for CRDs [Conformance]
/// Conformance: [sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery request for CRDs [Conformance]
#[tokio::test]
async fn a_kind_comes_and_goes() {
    let server = with_spec(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
    let api = &server.api;
    let made = get(api, &format!("{DEFINITIONS}/foos.example.com")).await;
    assert_eq!(
        made["status"]["acceptedNames"],
        json!({"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"})
    );
    assert_eq!((condition(&made, "NamesAccepted"), &made["status"]["storedVersions"]), ("True", &json!(["v1"])));
    let list = get(api, "/apis/example.com/v1").await;
    assert_eq!((list["resources"][0]["name"].as_str(), list["resources"][0]["kind"].as_str()), (Some("foos"), Some("Foo")));
    let groups = get(api, "/apis").await;
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "example.com"));
    let wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = admin(api, &format!("GET /apis\nAccept: {wanted}")).await.json();
    let group = aggregated["items"].as_array().unwrap().iter().find(|group| group["metadata"]["name"] == "example.com").unwrap();
    assert_eq!(group["versions"][0]["resources"][0]["responseKind"]["kind"], "Foo");

    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"x": 1}))).await;
    let mut watch = Watch::start(api, FOOS).await;
    assert_eq!(watch.next().await["type"], "ADDED");
    let answer = ask(api, 200, &format!("DELETE {DEFINITIONS}/foos.example.com"), &Value::Null).await;
    assert_eq!(answer["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(watch.next_named().await, ("DELETED".to_owned(), "a".to_owned()));
    assert_eq!(watch.end_or_next().await, None);
    while admin(api, &format!("GET {FOOS}")).await.code != 404 {
        tokio::task::yield_now().await;
    }
    assert_eq!(admin(api, &format!("GET {DEFINITIONS}/foos.example.com")).await.code, 404);
    assert_eq!(admin(api, "GET /apis/example.com").await.code, 404);
    // And comes again, with nothing of before.
    define(api, &definition("foos", "Foo", json!({"type": "object"}))).await;
    assert_eq!(get(api, FOOS).await["items"], json!([]));
}

/// Upstream (`customresource_handler.go`): "create not allowed while custom resource definition is terminating", in whatever way; discovery
/// tells of the verbs by which objects go, and who watches them sees them go.
#[tokio::test]
async fn objects_with_finalizers_hold_up_their_definition() {
    let server = with_spec(json!({"type": "object"})).await;
    let api = &server.api;
    let mut kept = foo("a", json!({}));
    kept["metadata"]["finalizers"] = json!(["example.com/keep"]);
    ask(api, 201, &format!("POST {FOOS}"), &kept).await;
    ask(api, 201, &format!("POST {FOOS}"), &foo("free", json!({}))).await;
    let mut watch = Watch::start(api, FOOS).await;
    assert_eq!(watch.next_named().await.0, "ADDED");
    assert_eq!(watch.next_named().await.0, "ADDED");
    ask(api, 200, &format!("DELETE {DEFINITIONS}/foos.example.com"), &Value::Null).await;
    let name = json!("foos.example.com");
    until(api, &name, |object| condition(object, "Terminating") == "True").await;
    while get(api, &format!("{FOOS}/a")).await["metadata"].get("deletionTimestamp").is_none() {
        tokio::task::yield_now().await;
    }
    // No new ones meanwhile.
    let apply = format!("PATCH {FOOS}/b?fieldManager=m\ncontent-type: application/apply-patch+yaml");
    for request in [format!("POST {FOOS}"), format!("POST {FOOS}?dryRun=All"), apply] {
        let refused = ask(api, 403, &request, &foo("b", json!({}))).await;
        let expected = "foos.example.com \"b\" is forbidden: create not allowed while custom resource definition is terminating";
        assert_eq!(refused["message"], expected, "{request}");
    }
    let verbs = get(api, "/apis/example.com/v1").await["resources"][0]["verbs"].clone();
    assert_eq!(verbs, json!(["delete", "deletecollection", "get", "list", "watch"]));
    let mut seen = [watch.next_named().await, watch.next_named().await];
    seen.sort();
    let expected = [("DELETED", "free"), ("MODIFIED", "a")].map(|(kind, name)| (kind.to_owned(), name.to_owned()));
    assert_eq!(seen, expected);
    let free = json!({"metadata": {"finalizers": null}});
    ask(api, 200, &format!("PATCH {FOOS}/a\ncontent-type: application/merge-patch+json"), &free).await;
    assert_eq!(watch.next_named().await, ("DELETED".to_owned(), "a".to_owned()));
    while admin(api, &format!("GET {DEFINITIONS}/foos.example.com")).await.code != 404 {
        tokio::task::yield_now().await;
    }
}

/// A definition goes while an object of it is admitted: the object is not made. It would keep its definition for ever, or come back with the
/// next definition of that name.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn objects_that_come_too_late() {
    let (server, kept) = (with_spec(json!({"type": "object"})).await, [true, false]);
    let api = &server.api;
    let (arrive, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let (release, held) = std::sync::mpsc::channel();
    let held = parking_lot::Mutex::new(held);
    let hooks = Hooks::serve(&server.tasks, move |_, _| {
        arrive.send(()).unwrap();
        tokio::task::block_in_place(|| held.lock().recv()).unwrap();
        allow()
    })
    .await;
    let only = json!({"objectSelector": {"matchLabels": {"slow": "yes"}}});
    register(api, VALIDATING, "slow", &[hooks.hook("slow", &["CREATE"], &["foos"], only)]).await;
    let mut late = foo("late", json!({}));
    late["metadata"]["labels"] = json!({"slow": "yes"});
    let name = json!("foos.example.com");
    for kept in kept {
        if kept {
            let mut object = foo("a", json!({}));
            object["metadata"]["finalizers"] = json!(["example.com/keep"]);
            ask(api, 201, &format!("POST {FOOS}"), &object).await;
        }
        let request = format!("POST {FOOS}");
        let (made, ()) = tokio::join!(send(api, &request, &late), async {
            arrived.recv().await.unwrap();
            ask(api, 200, &format!("DELETE {DEFINITIONS}/foos.example.com"), &Value::Null).await;
            match kept {
                true => drop(until(api, &name, |object| condition(object, "Terminating") == "True").await),
                false => gone(api).await,
            }
            release.send(()).unwrap();
        });
        assert_eq!(made.code, if kept { 403 } else { 404 }, "{:?}", made.body);
        if kept {
            let free = json!({"metadata": {"finalizers": null}});
            ask(api, 200, &format!("PATCH {FOOS}/a\ncontent-type: application/merge-patch+json"), &free).await;
            gone(api).await;
        }
        define(api, &definition("foos", "Foo", json!({"type": "object"}))).await;
        assert_eq!(get(api, FOOS).await["items"], json!([]));
    }
}

async fn gone(api: &Api) {
    while admin(api, &format!("GET {DEFINITIONS}/foos.example.com")).await.code != 404
        || admin(api, &format!("GET {FOOS}")).await.code != 404
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn names_belong_to_one_definition() {
    let server = with_spec(json!({"type": "object"})).await;
    let api = &server.api;
    let other = definition("bars", "Foo", json!({"type": "object"}));
    ask(api, 201, &format!("POST {DEFINITIONS}"), &other).await;
    let name = json!("bars.example.com");
    until(api, &name, |object| condition(object, "NamesAccepted") == "False").await;
    assert_eq!(admin(api, "GET /apis/example.com/v1/bars").await.code, 404);
    ask(api, 200, &format!("DELETE {DEFINITIONS}/foos.example.com"), &Value::Null).await;
    until(api, &name, |object| condition(object, "Established") == "True").await;
    assert_eq!(get(api, "/apis/example.com/v1/bars").await["kind"], "FooList");
}

/// Conformance: [sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom resource definition objects [Conformance]
/// Conformance: [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition listing custom resource definition objects works [Conformance]
#[tokio::test]
async fn objects_are_watched() {
    let server = with_spec(json!({"type": "object", "properties": {"n": {"type": "integer"}}})).await;
    let api = &server.api;
    let labelled = json!({"metadata": {"labels": {"x": "y"}}});
    ask(api, 200, &format!("PATCH {DEFINITIONS}/foos.example.com\ncontent-type: application/merge-patch+json"), &labelled).await;
    assert_eq!(get(api, &format!("{DEFINITIONS}?labelSelector=x%3Dy")).await["items"].as_array().unwrap().len(), 1);
    let mut watch = Watch::start(api, FOOS).await;
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({"n": 1}))).await;
    let merge = json!({"spec": {"n": 2}});
    ask(api, 200, &format!("PATCH {FOOS}/a\ncontent-type: application/merge-patch+json"), &merge).await;
    ask(api, 200, &format!("DELETE {FOOS}/a"), &Value::Null).await;
    for (kind, n) in [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 2)] {
        let event = watch.next().await;
        assert_eq!((event["type"].as_str(), event["object"]["spec"]["n"].as_i64()), (Some(kind), Some(n)));
    }
}

/// Conformance: [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works [Conformance]
#[tokio::test]
async fn the_status_of_a_definition_is_a_sub_resource() {
    let server = with_spec(json!({"type": "object"})).await;
    let (api, path) = (&server.api, format!("{DEFINITIONS}/foos.example.com/status"));
    let mut own = get(api, &path).await;
    let tested = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"});
    own["status"]["conditions"].as_array_mut().unwrap().push(tested);
    ask(api, 200, &format!("PUT {path}"), &own).await;
    let operations = json!([{"op": "add", "path": "/status/conditions", "value": [{"type": "StatusPatched", "status": "True"}]}]);
    ask(api, 200, &format!("PATCH {path}\ncontent-type: application/json-patch+json"), &operations).await;
    // The server's own conditions come back.
    until(api, &json!("foos.example.com"), |object| {
        condition(object, "StatusPatched") == "True" && condition(object, "Established") == "True"
    })
    .await;
}

/// What a definition served before a restart it serves when the server is back.
#[tokio::test]
async fn definitions_survive_restarts() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}});
    let mut server = with_definition(definition("foos", "Foo", schema)).await;
    ask(&server.api, 201, &format!("POST {FOOS}"), &foo("a", json!({"n": 1}))).await;
    server.restart().await;
    assert_eq!(get(&server.api, &format!("{FOOS}/a")).await["spec"], json!({"n": 1}));
    let wrong = send(&server.api, &format!("POST {FOOS}"), &foo("b", json!({"n": "x"}))).await;
    assert_eq!(wrong.code, 422, "{:?}", wrong.body);
}

/// Upstream: `apiextensions/validation/cel_validation.go`, and KEP-2876, "Resource constraints": what could cost too much is refused when it is
/// written, with a hint.
#[tokio::test]
async fn rules_are_checked_before_they_are_in_force() {
    let server = serve().await;
    let api = &server.api;
    let with = |rule: &str, most: Option<u64>| {
        let mut list = json!({"type": "array", "items": {"type": "integer"}});
        list.as_object_mut().unwrap().extend(most.map(|most| ("maxItems".to_owned(), most.into())));
        let spec = json!({"type": "object", "properties": {"list": list}, "x-kubernetes-validations": [{"rule": rule}]});
        definition("foos", "Foo", json!({"type": "object", "properties": {"spec": spec}}))
    };
    let refused = async |rule: &str, expected: &str| {
        let answer = ask(api, 422, &format!("POST {DEFINITIONS}"), &with(rule, None)).await;
        assert!(answer["message"].as_str().unwrap().contains(expected), "{answer}");
    };
    let at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: ";
    let pairs = "self.list.all(a, self.list.all(b, a + b > 0))";
    refused(pairs, &format!("{at}Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying"))
        .await;
    refused("self.list == 'a'", "compilation failed: ERROR: <input>:1:11: found no matching overload for '_==_'").await;
    refused("self.lists.size() > 1", "undefined field 'lists'").await;
    refused("self.list", &format!("{at}Invalid value: \"self.list\": cel expression must evaluate to a bool")).await;
    define(api, &with(pairs, Some(20))).await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut changed = get(api, &path).await;
    changed["metadata"]["labels"] = json!({"a": "b"});
    ask(api, 200, &format!("PUT {path}"), &changed).await;
    changed = get(api, &path).await;
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["list"]["maxItems"] =
        1_000_000.into();
    ask(api, 422, &format!("PUT {path}"), &changed).await;
}
