//! Field validation, and what is refused of small kinds.

use serde_json::{Value, json};

use super::{pod, send};
use crate::server::{admin, populated_namespace, start};

fn deployment(metadata: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "d"{metadata}, "labels": {{"app": "x"}}}},
            "spec": {{{spec}"selector": {{"matchLabels": {{"app": "x"}}}}, "template": {{"metadata": {{"labels": {{"app": "x"}}}},
            "spec": {{"containers": [{{"name": "c", "image": "nginx"}}]}}}}}}}}"#
    )
}

/// Conformance: [sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object [Conformance]
/// Conformance: [sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object [Conformance]
#[tokio::test]
async fn strict_and_lenient() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let path = "/apis/apps/v1/namespaces/n/deployments";
    let both = deployment("", r#""unknownField": "foo", "replicas": 2, "replicas": 3, "#);
    let meta = deployment(r#", "unknownMeta": "foo""#, "");
    let cases = [
        (&both, r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#),
        (&meta, r#"strict decoding error: unknown field "metadata.unknownMeta""#),
    ];
    for (body, message) in cases {
        let strict = admin(api, &format!("POST {path}?fieldManager=m&fieldValidation=Strict\n\n{body}")).await;
        assert_eq!(strict.code, 400, "{:?}", strict.body);
        assert!(strict.json()["message"].as_str().unwrap().contains(message), "{:?}", strict.body);
        let warn = admin(api, &format!("POST {path}?dryRun=All&fieldValidation=Warn\n\n{body}")).await;
        let warnings: Vec<_> = warn.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().replace('\\', "")).collect();
        let told = message.strip_prefix("strict decoding error: ").unwrap().split(", ");
        assert_eq!(warn.code, 201);
        for part in told {
            assert!(warnings.iter().any(|warning| warning.contains(part)), "{warnings:?}");
        }
        let ignore = admin(api, &format!("POST {path}?dryRun=All&fieldValidation=Ignore\n\n{body}")).await;
        assert_eq!((ignore.code, ignore.headers.get("warning")), (201, None));
    }
}

/// Conformance: [sig-node] ConfigMap should fail to create ConfigMap with empty key [Conformance]
/// Conformance: [sig-node] Secrets should fail to create secret due to empty secret key [Conformance]
#[tokio::test]
async fn empty_keys() {
    let server = start(true).await;
    populated_namespace(&server.api, "n").await;
    for (kind, plural, value) in [("ConfigMap", "configmaps", "value"), ("Secret", "secrets", "dmFsdWU=")] {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "m"}, "data": {"": value}});
        let refused = send(&server.api, 422, &format!("POST /api/v1/namespaces/n/{plural}"), &object).await;
        assert_eq!((&refused["reason"], &refused["details"]["causes"][0]["field"]), (&json!("Invalid"), &json!("data[]")));
    }
}

/// Conformance: [sig-node] Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls [Conformance]
#[tokio::test]
async fn names_of_sysctls() {
    let server = start(true).await;
    populated_namespace(&server.api, "n").await;
    let mut object = pod("p");
    let names = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar..", "bar..", "x y"];
    let sysctls: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
    object["spec"]["securityContext"] = json!({"sysctls": sysctls});
    let refused = send(&server.api, 422, "POST /api/v1/namespaces/n/pods", &object).await;
    let fields: Vec<_> = refused["details"]["causes"].as_array().unwrap().iter().filter_map(|c| c["field"].as_str()).collect();
    let at = |index: usize| format!("spec.securityContext.sysctls[{index}].name");
    assert_eq!(fields, [at(0), at(3), at(4), at(5)], "{refused}");
}
