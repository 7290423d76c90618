//! What a pod's node must have, and be able to do, for the pod to be changed.

use apiserver::Api;
use serde_json::{Value, json};

use crate::server::{admin, populated_namespace, start};

async fn post(api: &Api, path: &str, object: Value) {
    let answer = admin(api, &format!("POST {path}\n\n{object}")).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
}

async fn node(api: &Api, name: &str, os: &str, features: Value) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": os}},
        "status": {"allocatable": {"cpu": "4", "memory": "1Gi", "pods": "10"}, "declaredFeatures": features}});
    post(api, "/api/v1/nodes", node).await;
}

/// Resizes a pod of its own; the answer's code and message, and the first cause.
async fn resized(api: &Api, name: &str, spec: Value, to: Value) -> (u16, String, Value) {
    let pods = "/api/v1/namespaces/n/pods";
    post(api, pods, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})).await;
    let head = format!("PATCH {pods}/{name}/resize\ncontent-type: application/strategic-merge-patch+json");
    let answer = admin(api, &format!("{head}\n\n{}", json!({"spec": to}))).await;
    let status = answer.json();
    let message = status["message"].as_str().unwrap_or_default().to_owned();
    (answer.code, message, status["details"]["causes"][0]["reason"].clone())
}

fn asking(amounts: &Value) -> Value {
    json!([{"name": "c", "image": "i", "resources": {"requests": amounts, "limits": amounts}}])
}

/// KEP-1287, v1.36: "resize requests that exceed the node's allocatable capacity ... fail in admission".
#[tokio::test]
async fn resizes_that_no_node_can_do_are_refused() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    for (name, os) in [("node", "linux"), ("other", "windows")] {
        node(api, name, os, json!([])).await;
    }
    let check = async |name: &str, node: &str, to: Value, expected: (u16, &str, Value)| {
        let spec = json!({"nodeName": node, "containers": asking(&json!({"cpu": "1", "memory": "64Mi"}))});
        let (code, message, cause) = resized(api, name, spec, json!({"containers": asking(&to)})).await;
        let message = message.trim_start_matches(&format!("pods \"{name}\" is forbidden: ")).to_owned();
        assert_eq!((code, message.as_str(), cause), expected, "{name}");
    };
    check("fits", "node", json!({"cpu": "4", "memory": "1Gi"}), (200, "", Value::Null)).await;
    let more = "Node didn't have enough allocatable resources: cpu, requested: 4500, allocatable: 4000; \
        memory, requested: 2147483648, allocatable: 1073741824";
    check("large", "node", json!({"cpu": "4500m", "memory": "2Gi"}), (403, more, json!("NodeCapacity"))).await;
    let windows = "pod resize is only supported on linux nodes, node \"other\" is \"windows\"";
    check("alien", "other", json!({"cpu": "2", "memory": "64Mi"}), (403, windows, json!("UnsupportedPlatform"))).await;
    check("lost", "none", json!({"cpu": "2", "memory": "64Mi"}), (403, "node \"none\" not found", Value::Null)).await;
    check("waits", "", json!({"cpu": "100", "memory": "64Mi"}), (200, "", Value::Null)).await;
}

/// KEP-5328: "NodeDeclaredFeatureValidator ... validates pod updates against a node's declared features".
#[tokio::test]
async fn changes_need_features_of_the_node() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    node(api, "old", "linux", json!([])).await;
    node(api, "new", "linux", json!(["InPlacePodVerticalScalingInitContainers"])).await;
    let check = async |name: &str, node: &str, from: Value, to: Value, lacking: Option<&str>| {
        let mut spec = from;
        spec["nodeName"] = json!(node);
        let (code, message, _) = resized(api, name, spec, to).await;
        let expected = lacking.map(|lacking| {
            format!("pods {name:?} is forbidden: pod update requires features {lacking} which are not available on node {node:?}")
        });
        let code_expected = if lacking.is_some() { 403 } else { 200 };
        assert_eq!((code, message), (code_expected, expected.unwrap_or_default()), "{name}");
    };
    let guaranteed = |cpu: &str| json!({"containers": asking(&json!({"cpu": cpu, "memory": "64Mi"}))});
    check("a", "old", guaranteed("1"), guaranteed("2"), None).await;
    let init = |cpu: &str| {
        json!({"containers": [{"name": "c", "image": "i"}],
            "initContainers": [{"name": "i", "image": "i", "resources": {"requests": {"cpu": cpu}}}]})
    };
    check("c", "old", init("1"), init("2"), Some("InPlacePodVerticalScalingInitContainers")).await;
    check("d", "new", init("1"), init("2"), None).await;
    // What needs nothing is no concern of the node's.
    let burstable = |cpu: &str| json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]});
    check("e", "old", burstable("1"), burstable("2"), None).await;
}
