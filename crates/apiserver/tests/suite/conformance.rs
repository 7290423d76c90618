//! What upstream's conformance tests check of the API, one file per theme; see docs/conformance.md for what is cited.

mod documents;
mod identity;
mod immutable;
mod lists;
mod namespaces;
mod pods;
mod scale;
mod validation;
mod watches;
mod webhooks;

use apiserver::Api;
use serde_json::{Value, json};

use crate::server::admin;

const CONFIG_MAPS: &str = "/api/v1/namespaces/n/configmaps";

/// Sends JSON as the administrator (`METHOD /path`), expects this code, and returns the answer.
async fn send(api: &Api, code: u16, request: &str, body: &Value) -> Value {
    let content_type = if request.starts_with("PATCH ") { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = admin(api, &format!("{request}\ncontent-type: {content_type}\n\n{body}")).await;
    assert_eq!(answer.code, code, "{request} {body}: {:?}", answer.body);
    answer.json()
}

async fn get(api: &Api, path: &str) -> Value {
    send(api, 200, &format!("GET {path}"), &Value::Null).await
}

/// A ConfigMap with one label.
fn labelled(name: &str, key: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {key: value}}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "nginx"}]}})
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}
