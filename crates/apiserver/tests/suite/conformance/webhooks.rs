//! Webhook configurations as objects.

use serde_json::{Value, json};

use super::{get, send};
use crate::server::start;

/// Conditions are stored as they were sent, and replaced as a whole.
async fn check(kind: &str, plural: &str) {
    let server = start(true).await;
    let api = &server.api;
    let collection = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    let path = format!("{collection}/conditions");
    let condition = |name: &str, expression: &str| json!({"name": name, "expression": expression});
    let initial = json!([
        condition("expression-1", "object.metadata.namespace == 'production'"),
        condition("expression-2", "object.metadata.name != 'skip-me'"),
    ]);
    let hook = json!({"name": "conditions.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "default", "name": "hook", "path": "/always-deny"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "matchConditions": initial});
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "conditions"},
        "webhooks": [hook]});
    send(api, 201, &format!("POST {collection}"), &object).await;
    let mut stored = get(api, &path).await;
    assert_eq!(stored["webhooks"][0]["matchConditions"], initial);
    let updated = json!([
        condition("expression-2", "object.metadata.name != 'skip-me'"),
        condition("expression-3", "'dev-admins' in request.userInfo.groups"),
    ]);
    stored["webhooks"][0]["matchConditions"] = updated.clone();
    send(api, 200, &format!("PUT {path}"), &stored).await;
    assert_eq!(get(api, &path).await["webhooks"][0]["matchConditions"], updated);
    send(api, 200, &format!("DELETE {path}"), &Value::Null).await;
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update mutating webhook configurations with match conditions [Conformance]
#[tokio::test]
async fn mutating() {
    check("MutatingWebhookConfiguration", "mutatingwebhookconfigurations").await;
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update validating webhook configurations with match conditions [Conformance]
#[tokio::test]
async fn validating() {
    check("ValidatingWebhookConfiguration", "validatingwebhookconfigurations").await;
}
