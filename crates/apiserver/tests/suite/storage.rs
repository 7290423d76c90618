//! What the API server does for storage, networking and device kinds beyond their own rules.

use serde_json::{Value, json};

use crate::server::{Server, admin, ask, grant, namespace, serve, start};

async fn post(server: &Server, path: &str, object: Value) -> (u16, Value) {
    let answer = admin(&server.api, &format!("POST {path}\n\n{object}")).await;
    (answer.code, answer.json())
}

async fn get(server: &Server, path: &str) -> Value {
    admin(&server.api, &format!("GET {path}")).await.json()
}

async fn merge(server: &Server, path: &str, patch: Value) -> (u16, Value) {
    let request = format!("PATCH {path}\ncontent-type: application/merge-patch+json\n\n{patch}");
    let answer = admin(&server.api, &request).await;
    (answer.code, answer.json())
}

const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";

fn claim(name: &str, class: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": class}})
}

fn class(name: &str, grows: bool) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/disk", "allowVolumeExpansion": grows,
        "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}})
}

#[tokio::test]
async fn claims_get_the_default_class_and_protection() {
    let server = start(false).await;
    namespace(&server.api, "n").await;
    let (_, none) = post(&server, CLAIMS, claim("none", Value::Null)).await;
    assert_eq!(none["spec"].get("storageClassName"), None);
    assert_eq!(post(&server, "/apis/storage.k8s.io/v1/storageclasses", class("fast", true)).await.0, 201);
    let (_, one) = post(&server, CLAIMS, claim("one", Value::Null)).await;
    assert_eq!(
        (&one["spec"]["storageClassName"], &one["metadata"]["finalizers"]),
        (&json!("fast"), &json!(["kubernetes.io/pvc-protection"]))
    );
    let (_, two) = post(&server, CLAIMS, claim("two", json!(""))).await;
    assert_eq!(two["spec"]["storageClassName"], "");
}

#[tokio::test]
async fn claims_grow_where_their_class_allows_it() {
    let server = start(false).await;
    namespace(&server.api, "n").await;
    for (name, grows) in [("grows", true), ("stays", false)] {
        assert_eq!(post(&server, "/apis/storage.k8s.io/v1/storageclasses", class(name, grows)).await.0, 201);
        assert_eq!(post(&server, CLAIMS, claim(name, json!(name))).await.0, 201);
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        assert_eq!(merge(&server, &format!("{CLAIMS}/{name}/status"), bound).await.0, 200);
    }
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    assert_eq!(merge(&server, &format!("{CLAIMS}/grows"), more.clone()).await.0, 200);
    let (code, refused) = merge(&server, &format!("{CLAIMS}/stays"), more).await;
    assert_eq!(
        (code, refused["message"].as_str().unwrap_or_default()),
        (
            403,
            "persistentvolumeclaims \"stays\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
        )
    );
}

#[tokio::test]
async fn ingresses_get_the_default_class() {
    let server = start(false).await;
    namespace(&server.api, "n").await;
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "spec": {"controller": "example.com/c"},
        "metadata": {"name": "front", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}});
    assert_eq!(post(&server, "/apis/networking.k8s.io/v1/ingressclasses", class).await.0, 201);
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"},
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}});
    let (_, made) = post(&server, "/apis/networking.k8s.io/v1/namespaces/n/ingresses", ingress).await;
    assert_eq!((&made["spec"]["ingressClassName"], &made["metadata"]["generation"]), (&json!("front"), &json!(1)));
}

/// Conformance: [sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations [Conformance]
#[tokio::test]
async fn the_default_range_of_services_is_published() {
    let server = start(false).await;
    let path = "/apis/networking.k8s.io/v1/servicecidrs";
    let list = get(&server, path).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let range = get(&server, &format!("{path}/kubernetes")).await;
    let ready = &get(&server, &format!("{path}/kubernetes/status")).await["status"]["conditions"][0];
    assert_eq!((&range["spec"], &ready["type"], &ready["status"]), (&list["items"][0]["spec"], &json!("Ready"), &json!("True")));
    let noted = json!({"metadata": {"annotations": {"a": "b"}}});
    let (code, patched) = merge(&server, &format!("{path}/kubernetes/status"), noted.clone()).await;
    assert_eq!((code, &patched["metadata"]["annotations"]["a"]), (200, &json!(null)), "ResetObjectMetaForStatus");
    let (code, patched) = merge(&server, &format!("{path}/kubernetes"), noted).await;
    assert_eq!((code, &patched["metadata"]["annotations"]["a"]), (200, &json!("b")));
    let other = json!({"spec": {"cidrs": ["10.1.0.0/16"]}});
    assert_eq!(merge(&server, &format!("{path}/kubernetes"), other).await.0, 422);
}

/// KEP-5018: "Only users with access to the admin namespace can create ResourceClaim or ResourceClaimTemplate objects with adminAccess".
#[tokio::test]
async fn administrative_access_to_devices_needs_a_label() {
    let server = start(false).await;
    namespace(&server.api, "n").await;
    let path = "/apis/resource.k8s.io/v1/namespaces/n/resourceclaims";
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"}, "spec": {"devices": {
        "requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu", "adminAccess": true}}]}}});
    let (code, refused) = post(&server, path, claim.clone()).await;
    assert_eq!((code, &refused["details"]["causes"][0]["reason"]), (422, &json!("FieldValueForbidden")), "{refused}");
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    assert_eq!(merge(&server, "/api/v1/namespaces/n", label).await.0, 200);
    assert_eq!(post(&server, path, claim).await.0, 201);
}

/// KEP-4817, and documentation, "Hardening Guide - Dynamic Resource Allocation": `resourceclaims/binding` is "required to modify
/// status.allocation and status.reservedFor", and `resourceclaims/driver` "required to modify status.devices", driver by driver, by
/// `associated-node:<verb>` on the claim's own node or `arbitrary-node:<verb>`.
#[tokio::test]
async fn the_parts_of_a_claims_status_have_their_own_rights() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "n").await;
    let claims = "/apis/resource.k8s.io/v1/namespaces/n/resourceclaims";
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"}, "spec": {"devices": {
        "requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}}});
    assert_eq!(post(&server, claims, claim).await.0, 201);
    let rule = |verbs: &[&str], resource: &str, names: &[&str]| json!({"apiGroups": ["resource.k8s.io"], "resources": [resource], "verbs": verbs, "resourceNames": names});
    let status = || rule(&["get", "update", "patch"], "resourceclaims/status", &[]);
    let read = format!("GET {claims}/c/status");
    let grants = [
        ("writer", None),
        ("binder", Some(rule(&["patch"], "resourceclaims/binding", &[]))),
        ("everywhere", Some(rule(&["arbitrary-node:patch"], "resourceclaims/driver", &["a.example.com"]))),
        (DRIVER, Some(rule(&["associated-node:patch"], "resourceclaims/driver", &["a.example.com"]))),
    ];
    for (user, more) in grants {
        let rules: Vec<Value> = [status()].into_iter().chain(more).collect();
        grant(api, user, json!(rules), &read).await;
    }

    let result = |driver: &str| json!({"request": "gpu", "driver": driver, "pool": "p", "device": "d"});
    let selector =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]});
    let allocation = json!({"nodeSelector": selector,
        "devices": {"results": [result("a.example.com"), result("b.example.com")]}});
    let allocated = json!({"status": {"allocation": allocation}});
    let reserved = json!({"status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": "1"}]}});
    let of = |driver: &str| json!({"status": {"devices": [{"driver": driver, "pool": "p", "device": "d", "data": {"k": "v"}}]}});
    let nothing = json!({"status": {"devices": null}});
    let binding = "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"patch\" permission: ";
    let steps: [(&str, &str, &Value, &str); 12] = [
        ("writer", "", &allocated, binding),
        ("everywhere", "", &allocated, binding),
        ("binder", "", &allocated, ""),
        ("binder", "", &reserved, ""),
        ("writer", "", &of("a.example.com"), "verb=\"[arbitrary-node:patch]\" permission: "),
        ("binder", "", &of("a.example.com"), "verb=\"[arbitrary-node:patch]\" permission: "),
        (DRIVER, "n2", &of("a.example.com"), "verb=\"[arbitrary-node:patch]\" permission: "),
        (DRIVER, "n1", &of("b.example.com"), "verb=\"[associated-node:patch arbitrary-node:patch]\" permission: "),
        (DRIVER, "n1", &of("a.example.com"), ""),
        ("writer", "", &nothing, "verb=\"[arbitrary-node:patch]\" permission: "),
        ("everywhere", "", &nothing, ""),
        ("everywhere", "", &of("b.example.com"), "verb=\"[arbitrary-node:patch]\" permission: "),
    ];
    for (user, node, patch, refusal) in steps {
        let who = match node {
            "" => String::new(),
            node => format!("impersonate-user: {user}\nimpersonate-extra-authentication.kubernetes.io%2fnode-name: {node}\n"),
        };
        let request = format!("PATCH {claims}/c/status\n{who}content-type: application/merge-patch+json\n\n{patch}");
        let answer = ask(api, if node.is_empty() { user } else { "admin" }, &request).await;
        let body = answer.json();
        assert_eq!(answer.code, if refusal.is_empty() { 200 } else { 422 }, "{user} {node} {patch}: {body}");
        let message = body["message"].as_str().unwrap_or_default();
        assert!(message.contains(refusal), "{user} {node} {patch}: {message}");
    }
}

const DRIVER: &str = "system:serviceaccount:n:driver";
