//! Custom resources on the real API: what upstream's tests of CustomResourceDefinitions expect.

mod applied;
mod cleanup;
mod collisions;
mod converted;
mod hostile;
mod lifecycle;
mod many;
mod objects;
mod published;
mod schemas;
mod selected;

use apiserver::Api;
use serde_json::{Value, json};

use crate::server::{Answer, Server, admin, namespace, serve};
use crate::watch::Watch;

/// Objects are as they are written.
const OPEN: &str = "x-kubernetes-preserve-unknown-fields";
pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition of a namespaced kind in the group `example.com`, in one version with this schema.
pub(crate) fn definition(plural: &str, kind: &str, schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Creates a definition, and waits until it says that its kind is served.
pub(crate) async fn define(api: &Api, definition: &Value) -> Value {
    let made = admin(api, &format!("POST {DEFINITIONS}\n\n{definition}")).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
    until(api, &definition["metadata"]["name"], |object| condition(object, "Established") == "True").await
}

/// Waits for a state of a definition.
pub(crate) async fn until(api: &Api, name: &Value, reached: impl Fn(&Value) -> bool) -> Value {
    let mut watch = Watch::start(api, &format!("{DEFINITIONS}?fieldSelector=metadata.name%3D{}", name.as_str().unwrap())).await;
    loop {
        let event = watch.next().await;
        if reached(&event["object"]) {
            return event["object"].clone();
        }
    }
}

pub(crate) fn condition<'a>(definition: &'a Value, kind: &str) -> &'a str {
    let all = definition["status"]["conditions"].as_array().into_iter().flatten();
    all.into_iter().find(|one| one["type"] == kind).and_then(|one| one["status"].as_str()).unwrap_or_default()
}

/// A server with a namespace `ns` and one definition: a `Foo` has a spec with this schema.
async fn with_spec(spec: Value) -> Server {
    with_definition(definition("foos", "Foo", json!({"type": "object", "properties": {"spec": spec}}))).await
}

async fn with_definition(definition: Value) -> Server {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    define(&server.api, &definition).await;
    server
}

const FOOS: &str = "/apis/example.com/v1/namespaces/ns/foos";

fn foo(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": spec})
}

async fn send(api: &Api, request: &str, body: &Value) -> Answer {
    admin(api, &format!("{request}\n\n{body}")).await
}

/// Sends a request and expects its code.
async fn ask(api: &Api, code: u16, request: &str, body: &Value) -> Value {
    let answer = if body.is_null() { admin(api, request).await } else { send(api, request, body).await };
    assert_eq!(answer.code, code, "{request} {body}: {:?}", answer.body);
    answer.json()
}

async fn get(api: &Api, path: &str) -> Value {
    ask(api, 200, &format!("GET {path}"), &Value::Null).await
}
