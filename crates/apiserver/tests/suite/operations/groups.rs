//! One test per API group, with the conformance tests that it proves.

use serde_json::Value;

use super::group;
use crate::custom::define;
use crate::server::{admin, serve, start};

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
/// Conformance: [sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should apply changes to a resourcequota status [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota [Conformance]
/// Conformance: [sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status [Conformance]
/// Conformance: [sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC [Conformance]
#[tokio::test]
async fn core() {
    let names = "configmaps secrets podtemplates pods nodes serviceaccounts events endpoints services persistentvolumes \
        persistentvolumeclaims limitranges resourcequotas";
    check("v1", &names.split(' ').collect::<Vec<_>>()).await;
}

/// Conformance: [sig-apps] Deployment should validate Deployment Status endpoints [Conformance]
/// Conformance: [sig-apps] ReplicaSet should list and delete a collection of ReplicaSets [Conformance]
/// Conformance: [sig-apps] ReplicaSet should validate Replicaset Status endpoints [Conformance]
/// Conformance: [sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets [Conformance]
/// Conformance: [sig-apps] Daemon set [Serial] should verify changes to a daemon set status [Conformance]
/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of StatefulSets [Conformance]
/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints [Conformance]
/// Conformance: [sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision [Conformance]
#[tokio::test]
async fn apps() {
    check("apps/v1", &["deployments", "replicasets", "statefulsets", "daemonsets", "controllerrevisions"]).await;
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

/// Conformance: [sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver [Conformance]
/// Conformance: [sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode [Conformance]
/// Conformance: [sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations [Conformance]
/// Conformance: [sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass [Conformance]
/// Conformance: [sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status [Conformance]
/// Conformance: [sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment [Conformance]
/// Conformance: [sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass [Conformance]
#[tokio::test]
async fn storage() {
    let required =
        ["csidrivers", "csinodes", "csistoragecapacities", "storageclasses", "volumeattachments", "volumeattributesclasses"];
    check("storage.k8s.io/v1", &required).await;
}

/// Conformance: [sig-network] Ingress API should support creating Ingress API operations [Conformance]
/// Conformance: [sig-network] IngressClass API should support creating IngressClass API operations [Conformance]
/// Conformance: [sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations [Conformance]
/// Conformance: [sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations [Conformance]
#[tokio::test]
async fn networking() {
    check("networking.k8s.io/v1", &["ingresses", "ingressclasses", "networkpolicies", "ipaddresses", "servicecidrs"]).await;
}

/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass [Conformance]
/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim [Conformance]
/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate [Conformance]
/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice [Conformance]
#[tokio::test]
async fn resource() {
    check("resource.k8s.io/v1", &["deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices"]).await;
}

/// Conformance: [sig-apps] CronJob should support CronJob API operations [Conformance]
/// Conformance: [sig-apps] Job should apply changes to a job status [Conformance]
/// Conformance: [sig-apps] Job should manage the lifecycle of a job [Conformance]
#[tokio::test]
async fn batch() {
    check("batch/v1", &["jobs", "cronjobs"]).await;
}

/// Conformance: [sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets [Conformance]
/// Conformance: [sig-apps] DisruptionController should create a PodDisruptionBudget [Conformance]
/// Conformance: [sig-apps] DisruptionController should update/patch PodDisruptionBudget status [Conformance]
#[tokio::test]
async fn policy() {
    check("policy/v1", &["poddisruptionbudgets"]).await;
}

/// Conformance: [sig-api-machinery] API priority and fairness should support FlowSchema API operations [Conformance]
/// Conformance: [sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations [Conformance]
#[tokio::test]
async fn flowcontrol() {
    check("flowcontrol.apiserver.k8s.io/v1", &["flowschemas", "prioritylevelconfigurations"]).await;
}

/// Conformance: [sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicy API operations [Conformance]
/// Conformance: [sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicyBinding API operations [Conformance]
/// Conformance: [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations [Conformance]
/// Conformance: [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations [Conformance]
#[tokio::test]
async fn admission() {
    let required = [
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ];
    check("admissionregistration.k8s.io/v1", &required).await;
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
    "storage.k8s.io/v1",
    "networking.k8s.io/v1",
    "resource.k8s.io/v1",
    "batch/v1",
    "policy/v1",
    "flowcontrol.apiserver.k8s.io/v1",
    "admissionregistration.k8s.io/v1",
    "metrics.k8s.io/v1beta1",
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

/// A custom resource is a kind like any other.
#[tokio::test]
async fn custom_resources() {
    let server = serve().await;
    let schema = serde_json::json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    }});
    let mut definition = crate::custom::definition("gadgets", "Gadget", schema);
    definition["metadata"]["name"] = "gadgets.operations.example.com".into();
    definition["spec"]["group"] = "operations.example.com".into();
    definition["spec"]["versions"][0]["subresources"] = serde_json::json!({"status": {}});
    define(&server.api, &definition).await;
    group(&server.api, "operations.example.com/v1", &["gadgets", "gadgets/status"]).await;
}
