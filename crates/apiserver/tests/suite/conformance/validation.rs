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

/// What the headers of an answer warn of, in order.
fn warnings(answer: &crate::server::Answer) -> Vec<String> {
    let texts = answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().replace('\\', ""));
    texts.map(|text| text.trim_start_matches("299 - \"").trim_end_matches('"').to_owned() + "\"").collect()
}

/// Upstream: `test/integration/apiserver/field_validation_test.go` (`TestFieldValidationPatchTyped`, `TestFieldValidationSMP`,
/// `TestFieldValidationPost`, `TestFieldValidationPatchCRD`): what is told, how often and in which order.
#[tokio::test]
async fn fields_of_patches() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let path = "/apis/apps/v1/namespaces/n/deployments";
    assert_eq!(admin(api, &format!("POST {path}\n\n{}", deployment("", ""))).await.code, 201);
    let check = async |request: &str, body: &str, code: u16, expected: &[&str]| {
        let (resource, headers) =
            request.split_once('\n').map_or((request, String::new()), |(line, rest)| (line, format!("\n{rest}")));
        let ask = async |mode: &str| admin(api, &format!("{resource}?dryRun=All{mode}{headers}\n\n{body}")).await;
        for mode in ["", "&fieldValidation=Warn"] {
            let warned = ask(mode).await;
            assert_eq!(warnings(&warned), expected, "{request} {body} {:?}", warned.body);
            assert!(warned.code < 300, "{request} {body} {:?}", warned.body);
        }
        let ignored = ask("&fieldValidation=Ignore").await;
        assert!(ignored.code < 300 && warnings(&ignored).is_empty(), "{request} {body} {:?}", ignored.body);
        let strict = ask("&fieldValidation=Strict").await;
        if expected.is_empty() {
            assert_eq!(strict.code, ignored.code, "{request} {body} {:?}", strict.body);
            return Value::Null;
        }
        let status = strict.json();
        assert_eq!(strict.code, code, "{request} {body} {status}");
        let message = status["message"].as_str().unwrap();
        assert!(message.ends_with(&format!("strict decoding error: {}", expected.join(", "))), "{request} {message}");
        status
    };
    let of = |kind: &str| format!("PATCH {path}/d\ncontent-type: application/{kind}-patch+json");
    let spec = |fields: &str| format!(r#"{{"spec": {{{fields}}}}}"#);
    let nested = r#""template": {"spec": {"containers": [{"name": "c", "image": "nginx", "unknownNested": "val1",
        "imagePullPolicy": "Always", "imagePullPolicy": "Never"}]}}"#;
    let wrong = spec(&format!(r#""unknown1": 1, "unknownDupe": 1, "unknownDupe": 2, "paused": true, "paused": false, {nested}"#));
    let told = [
        r#"duplicate field "spec.unknownDupe""#,
        r#"duplicate field "spec.paused""#,
        r#"duplicate field "spec.template.spec.containers[0].imagePullPolicy""#,
        r#"unknown field "spec.template.spec.containers[0].unknownNested""#,
        r#"unknown field "spec.unknown1""#,
        r#"unknown field "spec.unknownDupe""#,
    ];
    let status = check(&of("merge"), &wrong, 422, &told).await;
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with(r#" "" is invalid: patch: Invalid value: "merge patch": strict"#), "{message}");
    assert_eq!((&status["reason"], &status["details"]["causes"][0]["field"]), (&json!("Invalid"), &json!("patch")));
    let status = check(&of("strategic-merge"), &wrong, 422, &told).await;
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with(r#" "" is invalid: patch: Invalid value: "strategic merge patch": strict"#), "{message}");
    check(&of("strategic-merge"), &spec(r#""paused": true, "paused": false"#), 422, &told[1..2]).await;
    check(&of("merge"), &spec(r#""paused": true"#), 422, &[]).await;

    let operations = r#"[{"op": "add", "path": "/spec/unknown1", "value": "val1", "foo": "bar"},
        {"op": "add", "path": "/spec/unknown2", "path": "/spec/unknown3", "value": "val1"},
        {"op": "add", "path": "/spec/paused", "value": true}, {"op": "add", "path": "/spec/paused", "value": false}]"#;
    let of_operations = [
        r#"json patch unknown field "[0].foo""#,
        r#"json patch duplicate field "[1].path""#,
        r#"unknown field "spec.unknown1""#,
        r#"unknown field "spec.unknown3""#,
    ];
    check(&of("json"), operations, 422, &of_operations).await;
    let scale = format!("PATCH {path}/d/scale\ncontent-type: application/merge-patch+json");
    let of_scale = [r#"duplicate field "spec.replicas""#, r#"unknown field "spec.x""#];
    check(&scale, &spec(r#""replicas": 2, "x": 1, "replicas": 3"#), 422, &of_scale).await;

    // Upstream's decoder of typed objects reads in one pass: what is unknown and occurs twice is unknown.
    let body = deployment("", r#""unknownDupe": 1, "unknownDupe": 2, "paused": true, "paused": false, "a": 1, "#);
    let body = body.replace(r#""name": "d""#, r#""name": "e""#);
    let of_body = [r#"unknown field "spec.unknownDupe""#, r#"duplicate field "spec.paused""#, r#"unknown field "spec.a""#];
    check(&format!("POST {path}"), &body, 400, &of_body).await;
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
