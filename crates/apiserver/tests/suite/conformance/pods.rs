//! Pods, as far as the API alone decides.

use serde_json::{Value, json};

use super::{get, pod, send};
use crate::server::{populated_namespace, start};

const PODS: &str = "/api/v1/namespaces/n/pods";

fn with_resources(name: &str, resources: Value) -> Value {
    let mut object = pod(name);
    object["spec"]["containers"][0]["resources"] = resources;
    object
}

/// Conformance: [sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu [Conformance]
#[tokio::test]
async fn quality_of_service() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let all = json!({"cpu": "100m", "memory": "100Mi"});
    let cases = [
        ("guaranteed", json!({"requests": all, "limits": all}), "Guaranteed"),
        ("limits", json!({"limits": all}), "Guaranteed"),
        ("burstable", json!({"requests": {"cpu": "100m"}}), "Burstable"),
        ("besteffort", json!({}), "BestEffort"),
    ];
    for (name, resources, class) in cases {
        send(api, 201, &format!("POST {PODS}"), &with_resources(name, resources)).await;
        assert_eq!(get(api, &format!("{PODS}/{name}")).await["status"]["qosClass"], class, "{name}");
    }
}

/// Conformance: [sig-node] Pods Extended (pod generation) Pod Generation custom-set generation on new pods and graceful delete [Conformance]
#[tokio::test]
async fn generation() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let mut object = pod("p");
    object["metadata"]["generation"] = json!(100);
    object["spec"]["nodeName"] = json!("node");
    assert_eq!(send(api, 201, &format!("POST {PODS}"), &object).await["metadata"]["generation"], 1);
    let patch = json!({"spec": {"activeDeadlineSeconds": 5000}});
    assert_eq!(send(api, 200, &format!("PATCH {PODS}/p"), &patch).await["metadata"]["generation"], 2);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(send(api, 200, &format!("PATCH {PODS}/p"), &label).await["metadata"]["generation"], 2, "only the spec counts");
    send(api, 200, &format!("DELETE {PODS}/p"), &Value::Null).await;
    let going = get(api, &format!("{PODS}/p")).await;
    assert_eq!((&going["metadata"]["generation"], &going["metadata"]["deletionGracePeriodSeconds"]), (&json!(3), &json!(30)));
}

/// Conformance: [sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance] [Conformance]
/// Conformance: [sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [NodeConformance] [Conformance]
#[tokio::test]
async fn runtime_classes() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "r"}, "handler": "h",
        "overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}}});
    let mut object = pod("p");
    object["spec"]["runtimeClassName"] = json!("r");
    let refused = send(api, 403, &format!("POST {PODS}"), &object).await;
    assert!(refused["message"].as_str().unwrap().contains(r#"RuntimeClass "r" not found"#), "{refused}");
    send(api, 201, "POST /apis/node.k8s.io/v1/runtimeclasses", &class).await;
    let made = send(api, 201, &format!("POST {PODS}?dryRun=All"), &object).await;
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "10m", "memory": "1Mi"}));
    send(api, 200, "DELETE /apis/node.k8s.io/v1/runtimeclasses/r", &Value::Null).await;
    send(api, 403, &format!("POST {PODS}"), &object).await;
}

/// Conformance: [sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API [Conformance]
#[tokio::test]
async fn inline_volumes() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let mut object = pod("p");
    object["metadata"]["labels"] = json!({"inline": "yes"});
    object["spec"]["nodeName"] = json!("node");
    object["spec"]["volumes"] = json!([{"name": "v", "csi": {"driver": "e2e.example.com", "readOnly": true,
        "volumeAttributes": {"purpose": "test"}}}]);
    let made = send(api, 201, &format!("POST {PODS}"), &object).await;
    assert_eq!(made["spec"]["volumes"][0]["csi"]["volumeAttributes"]["purpose"], "test");
    assert_eq!(get(api, "/api/v1/pods?labelSelector=inline%3Dyes").await["items"].as_array().unwrap().len(), 1);
    let finalizer = json!({"metadata": {"finalizers": ["e2e.example.com/stays"]}});
    assert_eq!(
        send(api, 200, &format!("PATCH {PODS}/p"), &finalizer).await["metadata"]["finalizers"].as_array().unwrap().len(),
        1
    );
    send(api, 200, &format!("PATCH {PODS}/p"), &json!({"metadata": {"finalizers": null}})).await;
    let now = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    send(api, 200, &format!("DELETE {PODS}/p"), &now).await;
    send(api, 404, &format!("GET {PODS}/p"), &Value::Null).await;
}
