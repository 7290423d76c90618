//! Versions that a webhook converts: a real one, over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apiserver::Api;
use base64::Engine as _;
use futures::future::join_all;
use http::Response;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{DEFINITIONS, ask, define, get, send};
use crate::https::Https;
use crate::policies::{put_in_force, validating};
use crate::server::{Server, admin, namespace, serve};
use crate::watch::Watch;
use crate::webhooks::{CONFIG_MAPS, Hooks, MUTATING, config_map, patch, register};

pub(super) const V1: &str = "/apis/example.com/v1/namespaces/ns/foos";
pub(super) const V2: &str = "/apis/example.com/v2/namespaces/ns/foos";

/// What a webhook does to a review.
type Behaviour = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// A webhook that converts `hostPort` of v1 to `host` and `port` of v2, as upstream's does, or does what a test says.
pub(super) struct Hook {
    https: Https,
    pub(super) calls: Arc<AtomicUsize>,
    behaviour: Arc<Mutex<Behaviour>>,
}

fn convert(object: &Value, version: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = version.into();
    let map = object.as_object_mut().unwrap();
    if version.ends_with("/v2") {
        let both = map.remove("hostPort").unwrap_or_default();
        let (host, port) = both.as_str().unwrap_or_default().split_once(':').unwrap_or_default();
        map.insert("host".into(), host.into());
        map.insert("port".into(), port.into());
    } else {
        let text = |value: Option<Value>| value.unwrap_or_default().as_str().unwrap_or_default().to_owned();
        let (host, port) = (text(map.remove("host")), text(map.remove("port")));
        map.insert("hostPort".into(), format!("{host}:{port}").into());
    }
    object
}

pub(super) fn honest(review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let all = request["objects"].as_array().unwrap().iter();
    assert!(all.clone().all(|object| object["apiVersion"] != wanted), "what is of the version is not asked for");
    let objects: Vec<Value> = all.map(|object| convert(object, wanted)).collect();
    json!({"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects})
}

/// Foos in two versions, v1 of which is stored, that a server converts.
pub(super) fn converted_by(https: &Https) -> Value {
    let text = json!({"type": "string"});
    let version = |name: &str, storage: bool, properties: Value| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}});
    let bundle = base64::engine::general_purpose::STANDARD.encode(https.authority.bundle());
    let client = json!({"url": format!("https://localhost:{}/convert", https.port), "caBundle": bundle});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [version("v1", true, json!({"hostPort": text})), version("v2", false, json!({"host": text, "port": text}))],
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}},
        },
    })
}

impl Hook {
    async fn start() -> Self {
        let (calls, behaviour) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Arc::new(honest) as Behaviour)));
        let (count, how) = (calls.clone(), behaviour.clone());
        let https = Https::start("localhost", None, 0, move |request, _| {
            let (count, how) = (count.clone(), how.clone());
            Box::pin(async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(
                    (&review["kind"], &review["apiVersion"]),
                    (&json!("ConversionReview"), &json!("apiextensions.k8s.io/v1"))
                );
                count.fetch_add(1, Ordering::SeqCst);
                let behaviour = how.lock().clone();
                let answer =
                    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": behaviour(&review)});
                Response::new(BodyExt::boxed(Full::from(answer.to_string())))
            })
        })
        .await;
        Self { https, calls, behaviour }
    }

    /// From now on it does this.
    pub(super) fn behave(&self, how: impl Fn(&Value) -> Value + Send + Sync + 'static) {
        *self.behaviour.lock() = Arc::new(how);
    }
}

pub(super) async fn with_hook() -> (Server, Hook) {
    let (server, hook) = (serve().await, Hook::start().await);
    namespace(&server.api, "ns").await;
    define(&server.api, &converted_by(&hook.https)).await;
    (server, hook)
}

pub(super) fn foo(name: &str, fields: Value) -> Value {
    let mut object = json!({"kind": "Foo", "metadata": {"name": name}});
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    object
}

/// Stores v2 from now on.
async fn store_v2(api: &Api) {
    // What tells clients which version is stored.
    let hash = async || get(api, "/apis/example.com/v2").await["resources"][0]["storageVersionHash"].clone();
    let before = hash().await;
    let mut definition = get(api, &format!("{DEFINITIONS}/foos.example.com")).await;
    definition["spec"]["versions"][0]["storage"] = false.into();
    definition["spec"]["versions"][1]["storage"] = true.into();
    ask(api, 200, &format!("PUT {DEFINITIONS}/foos.example.com"), &definition).await;
    while hash().await == before {
        tokio::task::yield_now().await;
    }
    let definition = get(api, &format!("{DEFINITIONS}/foos.example.com")).await;
    assert_eq!(definition["status"]["storedVersions"], json!(["v1", "v2"]));
}

/// Conformance: [sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert from CR v1 to CR v2 [Conformance]
#[tokio::test]
async fn each_version_is_read_and_written() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    let made = ask(api, 201, &format!("POST {V1}"), &foo("a", json!({"hostPort": "h:80"}))).await;
    assert_eq!(
        (&made["hostPort"], hook.calls.load(Ordering::SeqCst)),
        (&json!("h:80"), 0),
        "the stored version is not converted"
    );
    let v2 = get(api, &format!("{V2}/a")).await;
    assert_eq!(
        (&v2["apiVersion"], &v2["host"], &v2["port"], v2.get("hostPort")),
        (&json!("example.com/v2"), &json!("h"), &json!("80"), None)
    );
    assert_eq!(v2["metadata"], made["metadata"]);
    // Written as v2, stored as v1.
    let made = ask(api, 201, &format!("POST {V2}"), &foo("b", json!({"host": "i", "port": "81"}))).await;
    assert_eq!((&made["apiVersion"], &made["host"]), (&json!("example.com/v2"), &json!("i")));
    assert_eq!(get(api, &format!("{V1}/b")).await["hostPort"], "i:81");
    let change = json!({"port": "82"});
    let patched = ask(api, 200, &format!("PATCH {V2}/b\ncontent-type: application/merge-patch+json"), &change).await;
    assert_eq!((&patched["host"], &patched["port"]), (&json!("i"), &json!("82")));
    assert_eq!(get(api, &format!("{V1}/b")).await["hostPort"], "i:82");
    // Watched as v2.
    let mut watch = Watch::start(api, &format!("{V2}?fieldSelector=metadata.name%3Da")).await;
    assert_eq!(watch.next().await["object"]["host"], "h");
    ask(api, 200, &format!("PATCH {V1}/a\ncontent-type: application/merge-patch+json"), &json!({"hostPort": "j:1"})).await;
    let event = watch.next().await;
    assert_eq!(
        (&event["type"], &event["object"]["host"], &event["object"]["apiVersion"]),
        (&json!("MODIFIED"), &json!("j"), &json!("example.com/v2"))
    );
    ask(api, 200, &format!("DELETE {V2}/a"), &Value::Null).await;
    assert_eq!(watch.next().await["type"], "DELETED");
}

/// Conformance: [sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non homogeneous list of CRs [Conformance]
#[tokio::test]
async fn a_list_of_objects_of_several_stored_versions() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    ask(api, 201, &format!("POST {V1}"), &foo("a", json!({"hostPort": "h:80"}))).await;
    ask(api, 201, &format!("POST {V1}"), &foo("b", json!({"hostPort": "h:81"}))).await;
    store_v2(api).await;
    ask(api, 201, &format!("POST {V2}"), &foo("c", json!({"host": "h", "port": "82"}))).await;
    let before = hook.calls.load(Ordering::SeqCst);
    let of = |list: &Value, key: &str| {
        list["items"].as_array().unwrap().iter().map(|item| item[key].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let list = get(api, V1).await;
    assert_eq!(of(&list, "hostPort"), ["h:80", "h:81", "h:82"]);
    assert_eq!(of(&list, "apiVersion"), ["example.com/v1"; 3]);
    let list = get(api, V2).await;
    assert_eq!(of(&list, "port"), ["80", "81", "82"]);
    assert_eq!(hook.calls.load(Ordering::SeqCst) - before, 2, "one call for each list");
    // A write brings what was stored as v1 to v2.
    let change = json!({"metadata": {"labels": {"x": "y"}}});
    ask(api, 200, &format!("PATCH {V1}/a\ncontent-type: application/merge-patch+json"), &change).await;
    let before = hook.calls.load(Ordering::SeqCst);
    assert_eq!(get(api, &format!("{V2}/a")).await["port"], "80");
    assert_eq!(hook.calls.load(Ordering::SeqCst), before);
}

/// Upstream converts an event once for each version, in that version's watch cache, however many watch it: here the webhook is asked once,
/// and for many objects at once by a watch that begins with them.
#[tokio::test]
async fn watchers_share_what_is_converted() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    let calls = || hook.calls.load(Ordering::SeqCst);
    let post = async |name: &str| ask(api, 201, &format!("POST {V1}"), &foo(name, json!({"hostPort": "h:80"}))).await;
    let before = calls();
    post("a").await;
    let written = calls() - before;
    let mut watches = join_all((0..20).map(|_| Watch::start(api, V2))).await;
    let named = |name: &str| ("ADDED".to_owned(), name.to_owned());
    let next = async |watches: &mut Vec<Watch>| join_all(watches.iter_mut().map(Watch::next)).await;
    let is = |event: &Value, name: &str| event["object"]["metadata"]["name"] == name && event["object"]["host"] == "h";
    assert!(next(&mut watches).await.iter().all(|event| is(event, "a")));
    assert_eq!(calls() - before, written + 1);
    let before = calls();
    post("b").await;
    assert!(next(&mut watches).await.iter().all(|event| is(event, "b")));
    assert_eq!(calls() - before, written + 1);
    // A failure is everybody's who waits, and nobody's who comes later.
    hook.behave(|review| json!({"uid": review["request"]["uid"], "result": {"status": "Failed", "message": "no"}}));
    post("c").await;
    assert!(next(&mut watches).await.iter().all(|event| event["type"] == "ERROR"));
    hook.behave(honest);
    for index in 0..300 {
        post(&format!("n{index:03}")).await;
    }
    let before = calls();
    let mut watch = Watch::start(api, V2).await;
    let mut seen = Vec::new();
    for _ in 0..303 {
        seen.push(watch.next_named().await);
    }
    seen.sort();
    assert_eq!((&seen[0], &seen[2], &seen[302]), (&named("a"), &named("c"), &named("n299")));
    assert!(calls() - before <= 3, "{}", calls() - before);
}

/// A list of large objects is converted in parts, none of which is large.
#[tokio::test]
async fn a_list_of_large_objects() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    let largest = Arc::new(AtomicUsize::new(0));
    let seen = largest.clone();
    hook.behave(move |review| {
        seen.fetch_max(review.to_string().len(), Ordering::SeqCst);
        honest(review)
    });
    for number in 0..12 {
        let host = format!("{}:{number}", "h".repeat(900_000));
        ask(api, 201, &format!("POST {V1}"), &foo(&format!("f{number:02}"), json!({"hostPort": host}))).await;
    }
    let list = get(api, V2).await;
    let ports: Vec<&str> = list["items"].as_array().unwrap().iter().map(|item| item["port"].as_str().unwrap()).collect();
    assert_eq!(ports, (0..12).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(hook.calls.load(Ordering::SeqCst), 3);
    assert!(largest.load(Ordering::SeqCst) < 5 << 20, "{largest:?}");
}

/// Webhooks that change names, lose objects, fail or say nothing are refused, in upstream's words; what needs no conversion goes on.
#[tokio::test]
async fn webhooks_that_lie() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    ask(api, 201, &format!("POST {V1}"), &foo("a", json!({"hostPort": "h:80"}))).await;
    let check = async |how: fn(&Value) -> Value, expected: &str| {
        hook.behave(how);
        for request in [format!("GET {V2}/a"), format!("GET {V2}"), format!("DELETE {V2}/a")] {
            let answer = send(api, &request, &json!({})).await;
            let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
            assert_eq!((answer.code, message.as_str()), (500, expected), "{request}");
        }
        assert_eq!(get(api, &format!("{V1}/a")).await["hostPort"], "h:80");
    };
    let of = "conversion webhook for example.com/v1, Kind=Foo";
    let renamed = |review: &Value| {
        let mut response = honest(review);
        response["convertedObjects"][0]["metadata"]["name"] = "b".into();
        response
    };
    check(renamed, &format!("{of} returned invalid converted object at index 0: must have the same name: a != b")).await;
    let moved = |review: &Value| {
        let mut response = honest(review);
        response["convertedObjects"][0]["metadata"]["namespace"] = "other".into();
        response
    };
    check(moved, &format!("{of} returned invalid converted object at index 0: must have the same namespace: ns != other")).await;
    let twice = |review: &Value| {
        let mut response = honest(review);
        let one = response["convertedObjects"][0].clone();
        response["convertedObjects"].as_array_mut().unwrap().push(one);
        response
    };
    check(twice, &format!("{of} returned 2 objects, expected 1")).await;
    let lost = |review: &Value| {
        let mut response = honest(review);
        response["convertedObjects"] = json!([]);
        response
    };
    check(lost, &format!("{of} returned 0 objects, expected 1")).await;
    let failed =
        |review: &Value| json!({"uid": review["request"]["uid"], "result": {"status": "Failed", "message": "not today"}});
    check(failed, &format!("{of} failed: not today")).await;
    check(|_| Value::Null, &format!("{of} failed: no response provided")).await;
    hook.https.tasks.token().cancel();
    let answer = loop {
        let answer = admin(api, &format!("GET {V2}/a")).await;
        if answer.json()["message"].as_str().unwrap().contains("connection refused") {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    let url = format!("https://localhost:{}/convert?timeout=30s", hook.https.port);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with(&format!("{of} failed: Post \"{url}\": dial tcp ")), "{message}");
}

/// Of many objects none may be another one: those of a list that come in another order, or with other uids.
#[tokio::test]
async fn webhooks_that_mix_up_objects() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    for name in ["a", "b"] {
        ask(api, 201, &format!("POST {V1}"), &foo(name, json!({"hostPort": "h:80"}))).await;
    }
    let refused = async |expected: &str| {
        let answer = admin(api, &format!("GET {V2}")).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.code == 500 && message.contains(expected), "{} {message}", answer.code);
    };
    hook.behave(|review| {
        let mut response = honest(review);
        response["convertedObjects"].as_array_mut().unwrap().reverse();
        response
    });
    refused("returned invalid converted object at index 0: must have the same name: a != b").await;
    hook.behave(|review| {
        let mut response = honest(review);
        response["convertedObjects"][1]["metadata"]["uid"] = "forged".into();
        response
    });
    refused("returned invalid converted object at index 1: must have the same UID: ").await;
    // What is said beyond that is the object's own.
    hook.behave(|review| {
        let mut response = honest(review);
        response["convertedObjects"][1]["metadata"]["finalizers"] = json!(["forged"]);
        response["convertedObjects"][1]["metadata"]["ownerReferences"] = json!([{"forged": 1}]);
        response
    });
    let list = get(api, V2).await;
    assert_eq!(list["items"][1]["metadata"], get(api, &format!("{V1}/b")).await["metadata"]);
}

/// An admission webhook that asks for one version sees requests for another one in it, and changes them there.
#[tokio::test]
async fn admission_sees_the_version_that_it_asks_for() {
    let (server, hook) = with_hook().await;
    let hooks = Hooks::serve(&server.tasks, |_, question| {
        let port = question["object"]["port"].as_str().unwrap_or_default();
        patch(&json!([{"op": "replace", "path": "/port", "value": format!("{port}9")}]))
    })
    .await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["v2"], "resources": ["foos"]}]);
    let admission = hooks.hook("ports", &[], &[], json!({"rules": rules}));
    register(&server.api, MUTATING, "ports", &[admission]).await;
    let made = ask(&server.api, 201, &format!("POST {V1}"), &foo("a", json!({"hostPort": "h:80"}))).await;
    assert_eq!((&made["apiVersion"], &made["hostPort"]), (&json!("example.com/v1"), &json!("h:809")));
    assert_eq!(hooks.asked_at("/ports")[0]["object"]["host"], "h");
    assert_eq!(hook.calls.load(Ordering::SeqCst), 2);
}

/// KEP-3488: parameters are read as the version that `paramKind` names. What a webhook has converted is good until it changes: who writes does
/// not wait for it each time.
#[tokio::test]
async fn parameters_of_policies_are_converted() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    ask(api, 201, &format!("POST {V1}"), &foo("limit", json!({"hostPort": "bad:80"}))).await;
    let validation = json!([{"expression": "object.metadata.name != params.host", "messageExpression": "'not ' + params.host"}]);
    let spec = validating(validation, json!({"paramKind": {"apiVersion": "example.com/v2", "kind": "Foo"}}));
    let reference = json!({"name": "limit", "namespace": "ns", "parameterNotFoundAction": "Deny"});
    put_in_force(&server, "Validating", "limit", spec, json!({"validationActions": ["Deny"], "paramRef": reference})).await;
    let calls = || hook.calls.load(Ordering::SeqCst);
    let check = async |name: &str, code: u16, expected: &str| {
        let answer = send(api, &format!("POST {CONFIG_MAPS}?dryRun=All"), &config_map(name, json!({}))).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.code == code && message.contains(expected), "{name}: {} {message}", answer.code);
    };
    let before = calls();
    check("bad", 422, "denied request: not bad").await;
    check("worse", 201, "").await;
    check("bad", 422, "denied request: not bad").await;
    assert_eq!(calls() - before, 1);
    ask(api, 200, &format!("PATCH {V1}/limit\ncontent-type: application/merge-patch+json"), &json!({"hostPort": "worse:80"}))
        .await;
    let before = calls();
    check("worse", 422, "denied request: not worse").await;
    check("bad", 201, "").await;
    assert_eq!(calls() - before, 1);
    // What cannot be converted is no parameter.
    hook.behave(|review| json!({"uid": review["request"]["uid"], "result": {"status": "Failed", "message": "not today"}}));
    ask(api, 200, &format!("PATCH {V1}/limit\ncontent-type: application/merge-patch+json"), &json!({"hostPort": "none:80"}))
        .await;
    check("none", 422, "failed to configure binding: conversion webhook for example.com/v1, Kind=Foo failed: not today").await;
}

/// Parameters are selected by their stored labels: an object that no binding selects is not converted, and fails nobody's request when it cannot be.
#[tokio::test]
async fn what_is_no_parameter_is_not_converted() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    let labelled = |name: &str, labels: Value| json!({"kind": "Foo", "metadata": {"name": name, "labels": labels}, "hostPort": format!("{name}:80")});
    ask(api, 201, &format!("POST {V1}"), &labelled("limit", json!({"role": "limit"}))).await;
    ask(api, 201, &format!("POST {V1}"), &labelled("broken", json!({}))).await;
    hook.behave(|review| {
        let mut objects = review["request"]["objects"].as_array().unwrap().iter();
        match objects.any(|object| object["metadata"]["name"] == "broken") {
            true => json!({"uid": review["request"]["uid"], "result": {"status": "Failed", "message": "broken"}}),
            false => honest(review),
        }
    });
    let validation = json!([{"expression": "object.metadata.name != params.host", "messageExpression": "'not ' + params.host"}]);
    let spec = validating(validation, json!({"paramKind": {"apiVersion": "example.com/v2", "kind": "Foo"}}));
    let selector = json!({"matchLabels": {"role": "limit"}});
    let reference = json!({"selector": selector, "namespace": "ns", "parameterNotFoundAction": "Deny"});
    put_in_force(&server, "Validating", "limit", spec, json!({"validationActions": ["Deny"], "paramRef": reference})).await;
    let before = hook.calls.load(Ordering::SeqCst);
    for (name, code) in [("limit", 422), ("other", 201), ("broken", 201)] {
        let answer = send(api, &format!("POST {CONFIG_MAPS}?dryRun=All"), &config_map(name, json!({}))).await;
        assert_eq!(answer.code, code, "{name}: {}", answer.json()["message"]);
    }
    assert_eq!(hook.calls.load(Ordering::SeqCst) - before, 1, "the parameter is converted once");
}
