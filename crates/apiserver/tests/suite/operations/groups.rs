//! One test per API group, with the conformance tests that it proves.

use serde_json::Value;

use super::group;
use crate::server::{admin, start};

async fn check(group_version: &str, required: &[&str]) {
    let server = start(false).await;
    group(&server.api, group_version, required).await;
}

/// Conformance: [sig-node] ConfigMap should run through a ConfigMap lifecycle [Conformance]
/// Conformance: [sig-node] ConfigMap should update ConfigMap successfully [NodeConformance] [Conformance]
/// Conformance: [sig-node] Secrets should patch a secret [Conformance]
/// Conformance: [sig-node] PodTemplates should delete a collection of pod templates [Conformance]
/// Conformance: [sig-node] PodTemplates should replace a pod template [Conformance]
/// Conformance: [sig-node] PodTemplates should run the lifecycle of PodTemplates [Conformance]
/// Conformance: [sig-node] Pods should delete a collection of pods [Conformance]
/// Conformance: [sig-node] Pods should patch a pod status [Conformance]
/// Conformance: [sig-node] Node Lifecycle should run through the lifecycle of a node [Conformance]
/// Conformance: [sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount [Conformance]
/// Conformance: [sig-auth] ServiceAccounts should update a ServiceAccount [Conformance]
/// Conformance: [sig-instrumentation] Events should delete a collection of events [Conformance]
/// Conformance: [sig-instrumentation] Events should manage the lifecycle of an event [Conformance]
/// Conformance: [sig-network] Endpoints should test the lifecycle of an Endpoint [Conformance]
/// Conformance: [sig-network] Services should complete a service status lifecycle [Conformance]
/// Conformance: [sig-network] Services should delete a collection of services [Conformance]
/// Conformance: [sig-network] Services should find a service from listing all namespaces [Conformance]
#[tokio::test]
async fn core() {
    let required =
        ["configmaps", "secrets", "podtemplates", "pods", "nodes", "serviceaccounts", "events", "endpoints", "services"];
    check("v1", &required).await;
}

/// Conformance: [sig-apps] Deployment should validate Deployment Status endpoints [Conformance]
/// Conformance: [sig-apps] ReplicaSet should list and delete a collection of ReplicaSets [Conformance]
/// Conformance: [sig-apps] ReplicaSet should validate Replicaset Status endpoints [Conformance]
/// Conformance: [sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision [Conformance]
#[tokio::test]
async fn apps() {
    check("apps/v1", &["deployments", "replicasets", "controllerrevisions"]).await;
}

/// Conformance: [sig-node] Lease lease API should be available [Conformance]
#[tokio::test]
async fn coordination() {
    check("coordination.k8s.io/v1", &["leases"]).await;
}

/// Conformance: [sig-network] EndpointSlice should support creating EndpointSlice API operations [Conformance]
#[tokio::test]
async fn discovery() {
    check("discovery.k8s.io/v1", &["endpointslices"]).await;
}

/// Conformance: [sig-instrumentation] Events API should delete a collection of events [Conformance]
/// Conformance: [sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed [Conformance]
#[tokio::test]
async fn events() {
    check("events.k8s.io/v1", &["events"]).await;
}

/// Conformance: [sig-node] RuntimeClass should support RuntimeClasses API operations [Conformance]
#[tokio::test]
async fn node() {
    check("node.k8s.io/v1", &["runtimeclasses"]).await;
}

/// Conformance: [sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods [Conformance]
#[tokio::test]
async fn scheduling() {
    check("scheduling.k8s.io/v1", &["priorityclasses"]).await;
}

#[tokio::test]
async fn rbac() {
    check("rbac.authorization.k8s.io/v1", &["roles", "rolebindings", "clusterroles", "clusterrolebindings"]).await;
}

/// Groups that a test above goes through.
const TESTED: &[&str] = &[
    "v1",
    "apps/v1",
    "coordination.k8s.io/v1",
    "discovery.k8s.io/v1",
    "events.k8s.io/v1",
    "node.k8s.io/v1",
    "scheduling.k8s.io/v1",
    "rbac.authorization.k8s.io/v1",
];

/// What is served without a test of its own above is gone through here.
#[tokio::test]
async fn others() {
    let server = start(false).await;
    let groups = admin(&server.api, "GET /apis").await.json();
    let versions = groups["groups"].as_array().unwrap().iter().flat_map(|g| g["versions"].as_array().unwrap());
    let served: Vec<&str> = versions.filter_map(|version| version["groupVersion"].as_str()).collect();
    for version in TESTED {
        assert!(*version == "v1" || served.contains(version), "{version} is not served");
    }
    for version in served.iter().filter(|version| !TESTED.contains(version)) {
        group(&server.api, version, &[] as &[&str]).await;
    }
    assert!(groups["groups"].as_array().is_some_and(|groups| groups.iter().all(|g| g["preferredVersion"] != Value::Null)));
}
