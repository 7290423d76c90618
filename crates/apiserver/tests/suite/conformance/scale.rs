//! The scale sub-resource.

use serde_json::json;

use super::{get, send};
use crate::server::{admin, namespace, start};

/// Reads, replaces and patches the scale of a controller, as the conformance tests do; only the replicas change.
async fn check(group_version: &str, kind: &str, plural: &str) {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let root = if group_version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{group_version}") };
    let labels = json!({"app": "x"});
    let selector = if group_version == "v1" { labels.clone() } else { json!({"matchLabels": labels}) };
    let object = json!({"apiVersion": group_version, "kind": kind, "metadata": {"name": "c"}, "spec": {"replicas": 1,
        "selector": selector, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}});
    let path = format!("{root}/namespaces/n/{plural}");
    let made = send(api, 201, &format!("POST {path}"), &object).await;
    let scale_path = format!("{path}/c/scale");
    let mut scale = get(api, &scale_path).await;
    assert_eq!(
        (&scale["apiVersion"], &scale["kind"], &scale["spec"]["replicas"]),
        (&json!("autoscaling/v1"), &json!("Scale"), &json!(1))
    );
    assert_eq!((&scale["status"]["selector"], &scale["metadata"]["uid"]), (&json!("app=x"), &made["metadata"]["uid"]));
    scale["spec"]["replicas"] = json!(2);
    let updated = send(api, 200, &format!("PUT {scale_path}"), &scale).await;
    assert_eq!(updated["spec"]["replicas"], 2);
    let conflict = send(api, 409, &format!("PUT {scale_path}"), &scale).await;
    assert_eq!(conflict["reason"], "Conflict");
    let patched = send(api, 200, &format!("PATCH {scale_path}"), &json!({"spec": {"replicas": 4}})).await;
    assert_eq!(patched["spec"]["replicas"], 4);
    // What is said of the object is a condition.
    let says = |key: &str, value: &str| {
        let mut metadata = json!({"name": "c"});
        metadata[key] = json!(value);
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata})
    };
    for (verb, content) in [("PUT", "json"), ("PATCH", "merge-patch+json"), ("PATCH", "apply-patch+yaml")] {
        for (code, key, value) in
            [(409, "uid", "other"), (409, "resourceVersion", "1"), (400, "namespace", "other"), (400, "name", "d")]
        {
            let request =
                format!("{verb} {scale_path}?fieldManager=me\ncontent-type: application/{content}\n\n{}", says(key, value));
            let answer = admin(api, &request).await;
            assert_eq!(answer.code, code, "{request}: {:?}", answer.body);
        }
    }
    let object = get(api, &format!("{path}/c")).await;
    assert_eq!((&object["spec"]["replicas"], &object["spec"]["template"]), (&json!(4), &made["spec"]["template"]));
}

/// Conformance: [sig-apps] Deployment Deployment should have a working scale subresource [Conformance]
#[tokio::test]
async fn deployment() {
    check("apps/v1", "Deployment", "deployments").await;
}

/// Conformance: [sig-apps] ReplicaSet Replicaset should have a working scale subresource [Conformance]
#[tokio::test]
async fn replica_set() {
    check("apps/v1", "ReplicaSet", "replicasets").await;
}

/// Conformance: [sig-apps] ReplicationController should get and update a ReplicationController scale [Conformance]
#[tokio::test]
async fn replication_controller() {
    check("v1", "ReplicationController", "replicationcontrollers").await;
}

/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource [Conformance]
#[tokio::test]
async fn stateful_set() {
    check("apps/v1", "StatefulSet", "statefulsets").await;
}
