//! Fields that only the server sets: what becomes of a client's word on them.

use serde_json::json;

use crate::server::{admin, populated_namespace, start};

const SERVICE: &str = "/api/v1/namespaces/n/services";

/// Upstream: `TestPatchAllocatedValues`, and kubernetes/kubernetes#120937: an address that has been taken out of a manifest stays, whatever
/// writes the manifest.
#[tokio::test]
async fn an_address_that_is_left_out_stays() {
    let server = start(false).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    for address in ["10.43.55.55", "None"] {
        let service =
            |spec: &str| format!(r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "w"}}, "spec": {spec}}}"#);
        let given = service(&format!(r#"{{"clusterIP": "{address}", "ports": [{{"port": 1}}]}}"#));
        let apply =
            |body: &str| format!("PATCH {SERVICE}/w?fieldManager=m\ncontent-type: application/apply-patch+yaml\n\n{body}");
        assert_eq!(admin(api, &apply(&given)).await.code, 201);
        let bare = r#"{"ports": [{"port": 1}]}"#;
        for request in [
            apply(&service(bare)),
            format!(
                "PATCH {SERVICE}/w\ncontent-type: application/strategic-merge-patch+json\n\n{{\"spec\": {{\"clusterIP\": null}}}}"
            ),
            format!("PATCH {SERVICE}/w\ncontent-type: application/merge-patch+json\n\n{{\"spec\": {{\"clusterIP\": \"\"}}}}"),
            format!("PUT {SERVICE}/w\n\n{}", service(&format!(r#"{{"clusterIPs": ["{address}"], "ports": [{{"port": 1}}]}}"#))),
            format!("PUT {SERVICE}/w\n\n{}", service(bare)),
        ] {
            let answer = admin(api, &request).await;
            let spec = &answer.json()["spec"];
            assert_eq!(
                (answer.code, &spec["clusterIP"], &spec["clusterIPs"]),
                (200, &json!(address), &json!([address])),
                "{request}"
            );
        }
        assert_eq!(admin(api, &format!("DELETE {SERVICE}/w")).await.code, 200);
    }
}

/// Upstream: `rest.BeforeUpdate` and `ValidateObjectMetaAccessorUpdate`: an update deletes nothing, and says so.
#[tokio::test]
async fn nothing_is_deleted_by_an_update() {
    let server = start(false).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let path = "/api/v1/namespaces/n/configmaps";
    let map = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "finalizers": ["example.com/hold"]}}"#;
    assert_eq!(admin(api, &format!("POST {path}\n\n{map}")).await.code, 201);
    let patch = async |metadata: serde_json::Value| {
        let body = json!({ "metadata": metadata });
        let answer = admin(api, &format!("PATCH {path}/c\ncontent-type: application/merge-patch+json\n\n{body}")).await;
        (answer.code, answer.json())
    };
    let time = "2024-01-01T00:00:00Z";
    for (metadata, field) in [
        (json!({"deletionTimestamp": time}), "deletionTimestamp"),
        (json!({"deletionGracePeriodSeconds": 0}), "deletionGracePeriodSeconds"),
    ] {
        let (code, status) = patch(metadata).await;
        let message = status["message"].as_str().unwrap();
        assert!(code == 422 && message.contains(&format!("metadata.{field}: Invalid value: ")), "{code} {message}");
        assert!(message.ends_with("field is immutable"), "{message}");
    }
    assert_eq!(admin(api, &format!("DELETE {path}/c")).await.code, 200);
    let (code, going) = patch(json!({"deletionTimestamp": null, "deletionGracePeriodSeconds": null})).await;
    assert!(code == 200 && going["metadata"]["deletionTimestamp"].is_string(), "{code} {going}");
}
