//! What clients learn of custom kinds from OpenAPI.

use serde_json::{Value, json};

use super::*;

const V3: &str = "/openapi/v3/apis/example.com/v1";

/// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema [Conformance]
/// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version but different kinds [Conformance]
#[tokio::test]
async fn schemas_are_published() {
    let spec =
        json!({"type": "object", "description": "What is wanted.", "properties": {"n": {"type": "integer", "minimum": 1}}});
    let server = with_spec(spec.clone()).await;
    let api = &server.api;
    define(api, &definition("bars", "Bar", json!({"type": "object"}))).await;
    let v3 = get(api, V3).await;
    let schema = &v3["components"]["schemas"]["com.example.v1.Foo"];
    assert_eq!((&schema["properties"]["spec"], schema["properties"]["kind"]["type"].as_str()), (&spec, Some("string")));
    assert_eq!(schema["x-kubernetes-group-version-kind"], json!([{"group": "example.com", "version": "v1", "kind": "Foo"}]));
    assert!(v3["components"]["schemas"].get("com.example.v1.Bar").is_some());
    let item = &v3["paths"]["/apis/example.com/v1/namespaces/{namespace}/foos/{name}"];
    let reads = &item["put"]["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(reads, "#/components/schemas/com.example.v1.Foo");
    assert_eq!(item["patch"]["requestBody"]["content"].get("application/strategic-merge-patch+json"), None);
    let text = v3.to_string();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(v3["components"]["schemas"].get(name).is_some(), "{name} is referred to and not there");
    }
    let v2 = get(api, "/openapi/v2").await;
    assert_eq!(v2["definitions"]["com.example.v1.Foo"]["properties"]["spec"], spec);
    assert_eq!(v2["definitions"]["com.example.v1.FooList"]["required"], json!(["items"]));
    assert!(v2["paths"].get("/apis/example.com/v1/watch/foos").is_none());
}

/// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema [Conformance]
/// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the schema root [Conformance]
#[tokio::test]
async fn open_schemas_are_published() {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let server = with_definition(definition("foos", "Foo", open)).await;
    let schema = get(&server.api, "/openapi/v2").await["definitions"]["com.example.v1.Foo"].clone();
    let kind = json!([{"group": "example.com", "version": "v1", "kind": "Foo"}]);
    assert_eq!(schema, json!({"type": "object", "x-kubernetes-group-version-kind": kind}));
    let v3 = get(&server.api, V3).await;
    assert!(v3["components"]["schemas"]["com.example.v1.Foo"]["properties"]["metadata"].is_object());
}

/// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets renamed [Conformance]
/// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version gets changed to not be served [Conformance]
/// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but different versions [Conformance]
/// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups [Conformance]
#[tokio::test]
async fn what_is_published_follows_the_definitions() {
    let version = |name: &str, served: bool, storage: bool| json!({"name": name, "served": served, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let mut first = definition("foos", "Foo", json!({"type": "object"}));
    first["spec"]["versions"] = json!([version("v1", true, true), version("v2", true, false)]);
    let server = with_definition(first).await;
    let api = &server.api;
    let mut other = definition("bars", "Bar", json!({"type": "object"}));
    other["metadata"]["name"] = "bars.other.org".into();
    other["spec"]["group"] = "other.org".into();
    define(api, &other).await;
    let has = |document: &Value, name: &str| document["definitions"].get(name).is_some();
    let before = get(api, "/openapi/v2").await;
    assert!(has(&before, "com.example.v1.Foo") && has(&before, "com.example.v2.Foo") && has(&before, "org.other.v1.Bar"));
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut renamed = get(api, &path).await;
    renamed["spec"]["versions"] = json!([version("v1", true, true), version("v3", true, false)]);
    ask(api, 200, &format!("PUT {path}"), &renamed).await;
    while admin(api, "GET /apis/example.com/v3").await.code != 200 {
        tokio::task::yield_now().await;
    }
    let after = get(api, "/openapi/v2").await;
    assert!(has(&after, "com.example.v3.Foo") && !has(&after, "com.example.v2.Foo"));
    let mut unserved = get(api, &path).await;
    unserved["spec"]["versions"] = json!([version("v1", true, true), version("v3", false, false)]);
    ask(api, 200, &format!("PUT {path}"), &unserved).await;
    while admin(api, "GET /apis/example.com/v3").await.code == 200 {
        tokio::task::yield_now().await;
    }
    let last = get(api, "/openapi/v2").await;
    assert!(has(&last, "com.example.v1.Foo") && !has(&last, "com.example.v3.Foo") && has(&last, "org.other.v1.Bar"));
}
