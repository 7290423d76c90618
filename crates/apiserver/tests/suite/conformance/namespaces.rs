//! Namespaces through the API alone.

use serde_json::{Value, json};

use super::{get, send};
use crate::server::{namespace, start};

const PATH: &str = "/api/v1/namespaces/n";

/// Conformance: [sig-api-machinery] Namespaces [Serial] should patch a Namespace [Conformance]
/// Conformance: [sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace [Conformance]
#[tokio::test]
async fn labels() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let patched = send(api, 200, &format!("PATCH {PATH}"), &json!({"metadata": {"labels": {"patched": "yes"}}})).await;
    assert_eq!(patched["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "n", "patched": "yes"}));
    let mut object = get(api, PATH).await;
    object["metadata"]["labels"]["updated"] = json!("yes");
    send(api, 200, &format!("PUT {PATH}"), &object).await;
    let got = get(api, PATH).await;
    assert_eq!((&got["metadata"]["labels"]["patched"], &got["metadata"]["labels"]["updated"]), (&json!("yes"), &json!("yes")));
}

/// Conformance: [sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status [Conformance]
#[tokio::test]
async fn status() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let path = format!("{PATH}/status");
    assert_eq!(get(api, &path).await["status"]["phase"], "Active");
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "Tested", "message": "by a test"});
    let patch = json!({"metadata": {"annotations": {"patched": "yes"}}, "status": {"conditions": [condition("StatusPatch")]}});
    let mut patched = send(api, 200, &format!("PATCH {path}"), &patch).await;
    assert_eq!(
        (&patched["metadata"]["annotations"]["patched"], &patched["status"]["conditions"][0]["type"]),
        (&json!("yes"), &json!("StatusPatch"))
    );
    patched["status"]["conditions"].as_array_mut().unwrap().push(condition("StatusUpdate"));
    send(api, 200, &format!("PUT {path}"), &patched).await;
    let status = get(api, PATH).await["status"].clone();
    assert_eq!((&status["conditions"][1]["type"], &status["phase"]), (&json!("StatusUpdate"), &json!("Active")), "{status}");
}

/// Conformance: [sig-api-machinery] Namespaces [Serial] should apply a finalizer to a Namespace [Conformance]
#[tokio::test]
async fn finalizers() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let path = format!("{PATH}/finalize");
    let mut object = get(api, PATH).await;
    assert_eq!(object["spec"]["finalizers"], json!(["kubernetes"]));
    object["spec"]["finalizers"] = json!(["kubernetes", "e2e.example.com/fakeFinalizer"]);
    let added = send(api, 200, &format!("PUT {path}"), &object).await;
    assert_eq!(added["spec"]["finalizers"], object["spec"]["finalizers"]);
    let mut removed = added.clone();
    removed["spec"]["finalizers"] = json!(["kubernetes"]);
    assert_eq!(send(api, 200, &format!("PUT {path}"), &removed).await["spec"]["finalizers"], json!(["kubernetes"]));
    // A deleted namespace takes nothing new, and goes with its last finalizer.
    let deleted = send(api, 200, &format!("DELETE {PATH}"), &Value::Null).await;
    assert_eq!(
        (&deleted["status"]["phase"], deleted["metadata"]["deletionTimestamp"].is_string()),
        (&json!("Terminating"), true)
    );
    let refused = send(api, 403, &format!("POST {PATH}/configmaps"), &crate::server::config_map("m")).await;
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating", "{refused}");
    let mut last = get(api, PATH).await;
    last["spec"]["finalizers"] = json!([]);
    send(api, 200, &format!("PUT {path}"), &last).await;
    send(api, 404, &format!("GET {PATH}"), &Value::Null).await;
}
