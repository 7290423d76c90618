//! Field selectors of custom resources: each version has fields of its own.

use std::sync::atomic::Ordering;

use futures::future::join_all;
use serde_json::{Value, json};

use super::converted::{V1, V2, foo, honest, with_hook};
use super::{DEFINITIONS, FOOS, ask, definition, get, with_definition};
use crate::watch::Watch;
use apiserver::Api;

fn fields(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"jsonPath": format!(".{name}")})).collect()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// The names of what is selected.
async fn selected(api: &Api, path: &str, selector: &str) -> Vec<String> {
    let selector = selector.replace('=', "%3D").replace(',', "%2C");
    names(&get(api, &format!("{path}?fieldSelector={selector}")).await).into_iter().map(str::to_owned).collect()
}

async fn watched(api: &Api, path: &str, selector: &str) -> Watch {
    Watch::start(api, &format!("{path}?fieldSelector={}", selector.replace('=', "%3D").replace(',', "%2C"))).await
}

/// Changes the definition, and waits until watches have begun again under it.
async fn redefine(api: &Api, change: impl FnOnce(&mut Value)) {
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut watch = Watch::start(
        api,
        &format!("{V1}?resourceVersion={}", get(api, V1).await["metadata"]["resourceVersion"].as_str().unwrap()),
    )
    .await;
    let mut definition = get(api, &path).await;
    change(&mut definition["spec"]);
    ask(api, 200, &format!("PUT {path}"), &definition).await;
    assert!(watch.end_or_next().await.is_none());
}

/// Conformance: [sig-api-machinery] CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch custom resources matching the field selector [Conformance]
#[tokio::test]
async fn each_version_is_selected_by_its_own_fields() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    redefine(api, |spec| {
        spec["versions"][0]["selectableFields"] = fields(&["hostPort"]);
        spec["versions"][1]["selectableFields"] = fields(&["host", "port"]);
    })
    .await;
    let start = get(api, V2).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut by_host = watched(api, V2, "host=host1").await;
    let mut by_both = watched(api, V2, "host=host1,port=80").await;
    let mut by_text = watched(api, V1, "hostPort=host1:80").await;
    for (name, host, port) in [("a", "host1", "80"), ("b", "host1", "8080"), ("c", "host2", "")] {
        ask(api, 201, &format!("POST {V2}"), &foo(name, json!({"host": host, "port": port}))).await;
    }
    assert_eq!(selected(api, V2, "host=host1").await, ["a", "b"]);
    assert_eq!(selected(api, V2, "host!=host1").await, ["c"]);
    assert_eq!(selected(api, V2, "host=host1,port=80").await, ["a"]);
    assert_eq!(selected(api, V2, "metadata.name=b,host=host1").await, ["b"]);
    assert_eq!(selected(api, V1, "hostPort=host1:80").await, ["a"]);
    assert_eq!(selected(api, V1, "hostPort=host1:8080").await, ["b"]);
    // A version has no fields of another one.
    ask(api, 400, &format!("GET {V1}?fieldSelector=host%3Dhost1"), &Value::Null).await;
    ask(api, 400, &format!("GET {V2}?fieldSelector=hostPort%3Dx"), &Value::Null).await;
    let event = by_host.next().await;
    assert_eq!(
        (&event["type"], &event["object"]["apiVersion"], &event["object"]["port"]),
        (&json!("ADDED"), &json!("example.com/v2"), &json!("80"))
    );
    let is = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    assert_eq!(by_host.next_named().await, is("ADDED", "b"));
    assert_eq!(by_both.next_named().await, is("ADDED", "a"));
    assert_eq!(by_text.next_named().await, is("ADDED", "a"));
    // Collections and changes.
    let gone = ask(api, 200, &format!("DELETE {V2}?fieldSelector=host%3Dhost1%2Cport%3D80"), &Value::Null).await;
    assert_eq!(names(&gone), ["a"]);
    let change = json!({"host": "host2"});
    ask(api, 200, &format!("PATCH {V2}/b\ncontent-type: application/merge-patch+json"), &change).await;
    assert!(selected(api, V2, "host=host1").await.is_empty());
    assert!(selected(api, V2, "host=host1,port=80").await.is_empty());
    assert_eq!(by_host.next_named().await, is("DELETED", "a"));
    let event = by_host.next().await;
    let version = get(api, &format!("{V2}/b")).await["metadata"]["resourceVersion"].clone();
    assert_eq!(
        (&event["type"], &event["object"]["host"], &event["object"]["metadata"]["resourceVersion"]),
        (&json!("DELETED"), &json!("host1"), &version),
        "it is shown as it was selected last, at the revision of the change"
    );
    assert_eq!(by_both.next_named().await, is("DELETED", "a"));
    assert_eq!(by_text.next_named().await, is("DELETED", "a"));
    // Back again, and changed where it stays selected.
    for change in [json!({"host": "host1"}), json!({"port": "1"})] {
        ask(api, 200, &format!("PATCH {V2}/b\ncontent-type: application/merge-patch+json"), &change).await;
    }
    assert_eq!(by_host.next_named().await, is("ADDED", "b"));
    assert_eq!(by_host.next_named().await, is("MODIFIED", "b"));
    // The same from the past.
    let mut late = Watch::start(api, &format!("{V2}?fieldSelector=host%3Dhost1&resourceVersion={start}")).await;
    for (kind, name) in [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("DELETED", "b"), ("ADDED", "b"), ("MODIFIED", "b")] {
        assert_eq!(late.next_named().await, is(kind, name));
    }
    hook.behave(|review| json!({"uid": review["request"]["uid"], "result": {"status": "Failed", "message": "no"}}));
    ask(api, 500, &format!("DELETE {V2}?fieldSelector=host!%3Dkeep"), &Value::Null).await;
    hook.behave(honest);
    assert_eq!(names(&get(api, V1).await), ["b", "c"]);
}

/// "The webhook must not mutate any property of `metadata` inside the converted object other than `labels` and `annotations`": clients select by the
/// labels that they see, as upstream, where each version has a cache of its own.
#[tokio::test]
async fn labels_that_a_webhook_changes_are_selected_as_they_are_shown() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    hook.behave(|review| {
        let mut answer = honest(review);
        for object in answer["convertedObjects"].as_array_mut().unwrap() {
            let tier = object["metadata"]["labels"]["tier"].as_str().unwrap_or_default();
            let tier = if object["apiVersion"] == "example.com/v2" { tier.to_uppercase() } else { tier.to_lowercase() };
            object["metadata"]["labels"] = json!({"tier": tier});
        }
        answer
    });
    let labelled = async |path: &str, tier: &str| {
        names(&get(api, &format!("{path}?labelSelector=tier%3D{tier}")).await).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut of_shown = Watch::start(api, &format!("{V2}?labelSelector=tier%3DGOLD")).await;
    let mut of_stored = Watch::start(api, &format!("{V1}?labelSelector=tier%3Dgold")).await;
    for (name, tier) in [("a", "gold"), ("b", "tin")] {
        let object = json!({"kind": "Foo", "metadata": {"name": name, "labels": {"tier": tier}}, "hostPort": "h:1"});
        ask(api, 201, &format!("POST {V1}"), &object).await;
    }
    assert_eq!((labelled(V1, "gold").await, labelled(V2, "GOLD").await), (vec!["a".to_owned()], vec!["a".to_owned()]));
    assert!(labelled(V1, "GOLD").await.is_empty() && labelled(V2, "gold").await.is_empty());
    assert_eq!(of_shown.next_named().await, ("ADDED".to_owned(), "a".to_owned()));
    assert_eq!(of_stored.next_named().await, ("ADDED".to_owned(), "a".to_owned()));
    let change = json!({"metadata": {"labels": {"tier": "tin"}}});
    ask(api, 200, &format!("PATCH {V1}/a\ncontent-type: application/merge-patch+json"), &change).await;
    assert_eq!(of_shown.next_named().await, ("DELETED".to_owned(), "a".to_owned()));
    assert_eq!(of_stored.next_named().await, ("DELETED".to_owned(), "a".to_owned()));
    let gone = ask(api, 200, &format!("DELETE {V2}?labelSelector=tier%3DTIN"), &Value::Null).await;
    assert_eq!(names(&gone), ["a", "b"]);
}

/// A limit is of what is selected, and what many watch is converted once.
#[tokio::test]
async fn what_is_shown_is_selected_in_pages_and_for_many() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    redefine(api, |spec| spec["versions"][1]["selectableFields"] = fields(&["host"])).await;
    for number in 0..9 {
        let host = if number % 2 == 0 { "even" } else { "odd" };
        ask(api, 201, &format!("POST {V1}"), &foo(&format!("n{number}"), json!({"hostPort": format!("{host}:{number}")}))).await;
    }
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = get(api, &format!("{V2}?fieldSelector=host%3Deven&limit=2&continue={token}")).await;
        assert!(names(&page).len() <= 2);
        found.extend(names(&page).into_iter().map(str::to_owned));
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => token = next.to_owned(),
            _ => break,
        }
    }
    assert_eq!(found, ["n0", "n2", "n4", "n6", "n8"]);
    let gone = ask(api, 200, &format!("DELETE {V2}?fieldSelector=host!%3Dodd"), &Value::Null).await;
    assert_eq!(names(&gone), ["n0", "n2", "n4", "n6", "n8"]);
    assert_eq!(names(&get(api, V1).await), ["n1", "n3", "n5", "n7"]);
    let version = get(api, V1).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("{V2}?fieldSelector=host%3Dodd&resourceVersion={version}");
    let mut watches = join_all((0..20).map(|_| Watch::start(api, &path))).await;
    let before = hook.calls.load(Ordering::SeqCst);
    ask(api, 201, &format!("POST {V1}"), &foo("new", json!({"hostPort": "odd:1"}))).await;
    let events = join_all(watches.iter_mut().map(Watch::next)).await;
    assert!(events.iter().all(|event| event["object"]["host"] == "odd"));
    assert_eq!(hook.calls.load(Ordering::SeqCst) - before, 1);
}

/// What was stored in another version is selected by what it is now.
#[tokio::test]
async fn objects_of_several_stored_versions_are_selected_alike() {
    let (server, _hook) = with_hook().await;
    let api = &server.api;
    ask(api, 201, &format!("POST {V1}"), &foo("a", json!({"hostPort": "h:1"}))).await;
    redefine(api, |spec| {
        spec["versions"][0]["storage"] = false.into();
        spec["versions"][1]["storage"] = true.into();
        spec["versions"][0]["selectableFields"] = fields(&["hostPort"]);
        spec["versions"][1]["selectableFields"] = fields(&["port", "host"]);
    })
    .await;
    ask(api, 201, &format!("POST {V2}"), &foo("b", json!({"host": "h", "port": "2"}))).await;
    assert_eq!(selected(api, V2, "host=h").await, ["a", "b"]);
    assert_eq!(selected(api, V2, "port=1").await, ["a"]);
    assert_eq!(selected(api, V1, "hostPort=h:1").await, ["a"]);
    assert_eq!(selected(api, V1, "hostPort=h:2").await, ["b"]);
    let mut watch = watched(api, V2, "port=1").await;
    assert_eq!(watch.next_named().await, ("ADDED".to_owned(), "a".to_owned()));
}

/// Without a webhook the versions differ by their fields and defaults.
#[tokio::test]
async fn versions_that_nobody_converts_have_their_own_fields() {
    let mut definition = definition("foos", "Foo", json!({"type": "object"}));
    let version = |name: &str, storage: bool, selectable: &[&str]| {
        let spec =
            json!({"type": "object", "properties": {"host": {"type": "string"}, "tier": {"type": "string", "default": name}}});
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
        json!({"name": name, "served": true, "storage": storage, "schema": schema, "selectableFields": fields(selectable)})
    };
    let versions = json!([version("v1", false, &["spec.tier", "spec.host"]), version("v2", true, &["spec.host"])]);
    definition["spec"]["versions"] = versions;
    let server = with_definition(definition).await;
    let api = &server.api;
    let v2 = "/apis/example.com/v2/namespaces/ns/foos";
    let mut watch = watched(api, FOOS, "spec.tier=other").await;
    for (name, spec) in [("a", json!({"host": "x", "tier": "other"})), ("b", json!({"host": "y"}))] {
        ask(api, 201, &format!("POST {v2}"), &json!({"kind": "Foo", "metadata": {"name": name}, "spec": spec})).await;
    }
    assert_eq!(selected(api, FOOS, "spec.tier=other").await, ["a"]);
    assert_eq!(selected(api, FOOS, "spec.host=y,spec.tier!=other").await, ["b"]);
    assert_eq!(selected(api, v2, "spec.host=x").await, ["a"]);
    ask(api, 400, &format!("GET {v2}?fieldSelector=spec.tier%3Dx"), &Value::Null).await;
    assert_eq!(watch.next_named().await, ("ADDED".to_owned(), "a".to_owned()));
    let change = json!({"spec": {"tier": "none"}});
    ask(api, 200, &format!("PATCH {v2}/a\ncontent-type: application/merge-patch+json"), &change).await;
    assert_eq!(watch.next_named().await, ("DELETED".to_owned(), "a".to_owned()));
    let gone = ask(api, 200, &format!("DELETE {FOOS}?fieldSelector=spec.tier!%3Dnone"), &Value::Null).await;
    assert_eq!(names(&gone), ["b"]);
    assert_eq!(names(&get(api, FOOS).await), ["a"]);
}
