//! Bad input for each verb and type of body: the answer is a Status, and nothing has changed.

use serde_json::{Value, json};

use crate::server::{admin, ask, config_map, namespace, start};

const PATH: &str = "/api/v1/namespaces/n/configmaps";
const BODIES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Asks, and then looks whether the list is still what it was, its resource version included.
async fn check(api: &apiserver::Api, user: &str, request: &str, code: u16, reason: &str) {
    let get = format!("GET {PATH}");
    let list = || admin(api, &get);
    let before = list().await.body;
    let answer = ask(api, user, request).await;
    let shown: String = request.chars().take(200).collect();
    let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    assert_eq!((&status["kind"], answer.code), (&json!("Status"), code), "{shown}: {:?}", answer.body);
    assert_eq!((&status["code"], &status["reason"]), (&json!(code), &json!(reason)), "{shown}: {status}");
    assert!(answer.body.len() < 4 << 20, "{shown}: {} bytes", answer.body.len());
    assert_eq!(list().await.body, before, "{shown}");
}

#[tokio::test]
async fn malformed_and_oversized() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    assert_eq!(admin(api, &format!("POST {PATH}\n\n{}", config_map("m"))).await.code, 201);
    let large = "x".repeat((3 << 20) + 1);
    let heads = BODIES
        .iter()
        .flat_map(|body| [format!("POST {PATH}\ncontent-type: {body}"), format!("PUT {PATH}/m\ncontent-type: {body}")]);
    let patches = PATCHES.iter().map(|patch| {
        let query = if patch.contains("apply") { "?fieldManager=me" } else { "" };
        format!("PATCH {PATH}/m{query}\ncontent-type: {patch}")
    });
    for head in heads.chain(patches) {
        check(api, "admin", &format!("{head}\n\n{{"), 400, "BadRequest").await;
        check(api, "admin", &format!("{head}\n\n{}", "[".repeat(200_000)), 400, "BadRequest").await;
        check(api, "admin", &format!("{head}\n\n{large}"), 413, "RequestEntityTooLarge").await;
        check(api, "jane", &format!("{head}\n\n{{}}"), 403, "Forbidden").await;
    }
    check(api, "admin", &format!("POST {PATH}\ncontent-type: text/plain\n\n{{}}"), 415, "UnsupportedMediaType").await;
    check(api, "admin", &format!("PATCH {PATH}/m\ncontent-type: application/json\n\n{{}}"), 415, "UnsupportedMediaType").await;
    for method in ["GET", "DELETE"] {
        check(api, "jane", &format!("{method} {PATH}/m"), 403, "Forbidden").await;
        check(api, "jane", &format!("{method} {PATH}"), 403, "Forbidden").await;
        check(api, "admin", &format!("{method} {PATH}/none"), 404, "NotFound").await;
    }
    check(api, "admin", &format!("DELETE {PATH}/m\n\n{{"), 400, "BadRequest").await;
}

#[tokio::test]
async fn conflicting_and_contradictory() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let made = admin(api, &format!("POST {PATH}\n\n{}", config_map("m"))).await.json();
    let changed = |field: &str, value: Value| {
        let mut object = made.clone();
        match field.strip_prefix("metadata.") {
            Some(field) => object["metadata"][field] = value,
            None => object[field] = value,
        }
        object
    };
    let put = |object: Value| format!("PUT {PATH}/m\n\n{object}");
    check(api, "admin", &format!("POST {PATH}\n\n{}", config_map("m")), 409, "AlreadyExists").await;
    check(api, "admin", &put(changed("metadata.resourceVersion", json!("1"))), 409, "Conflict").await;
    check(api, "admin", &put(changed("metadata.uid", json!("other"))), 409, "Conflict").await;
    check(api, "admin", &put(changed("metadata.name", json!("other"))), 400, "BadRequest").await;
    check(api, "admin", &put(changed("metadata.namespace", json!("other"))), 400, "BadRequest").await;
    check(api, "admin", &put(changed("kind", json!("Pod"))), 400, "BadRequest").await;
    check(api, "admin", &put(changed("apiVersion", json!("v2"))), 400, "BadRequest").await;
    let patch = |kind: usize, body: Value| {
        let query = if kind == 3 { "?fieldManager=me" } else { "" };
        format!("PATCH {PATH}/m{query}\ncontent-type: {}\n\n{body}", PATCHES[kind])
    };
    check(api, "admin", &patch(1, json!({"metadata": {"resourceVersion": "1"}})), 409, "Conflict").await;
    check(api, "admin", &patch(0, json!([{"op": "test", "path": "/data/a", "value": "c"}])), 422, "Invalid").await;
    check(api, "admin", &patch(0, json!({"op": "test"})), 400, "BadRequest").await;
    check(api, "admin", &patch(1, json!([])), 400, "BadRequest").await;
    check(api, "admin", &patch(1, json!({"kind": "Pod"})), 422, "Invalid").await;
    check(api, "admin", &patch(2, json!({"data": {"a": 1}})), 422, "Invalid").await;
    check(api, "admin", &patch(3, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "m"}})), 400, "BadRequest")
        .await;
    let mut theirs = config_map("m");
    theirs["data"]["a"] = json!("theirs");
    check(api, "admin", &patch(3, theirs), 409, "Conflict").await;
    check(api, "admin", &format!("DELETE {PATH}/m\n\n{}", json!({"preconditions": {"uid": "other"}})), 409, "Conflict").await;
    for precondition in ["uid=other", "resourceVersion=1"] {
        check(api, "admin", &format!("DELETE {PATH}/m?{precondition}"), 409, "Conflict").await;
    }
}
