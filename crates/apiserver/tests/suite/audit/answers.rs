//! What requests are answered with, at the level `RequestResponse`.

use apiserver::{AuditOptions, LogOptions};
use serde_json::{Value, json};

use crate::server::{admin, ask, config_map, grant, namespace, serve_with};

const POLICY: &str =
    "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], omitManagedFields: true, rules: [
    {level: RequestResponse, resources: [{group: '', resources: [configmaps]}], users: [admin, jane]}, {level: None}]}";

/// `LogResponseObject`: the object that is answered, as JSON, whatever the client has asked for; that of a list is the list.
#[tokio::test]
async fn answers_are_told_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let log = LogOptions { path: path.clone(), ..LogOptions::default() };
    let server = serve_with(|options| options.audit = Some(AuditOptions { policy, log: Some(log), webhook: None })).await;
    let api = &server.api;
    namespace(api, "n").await;
    let maps = "/api/v1/namespaces/n/configmaps";
    let event_of = async |id: &str| loop {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(event) = events.find(|event| event["auditID"] == id) {
            break event;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(admin(api, &format!("POST {maps}\n\n{}", config_map("m"))).await.code, 201);
    for (id, accept) in
        [("json", "application/json"), ("protobuf", "application/vnd.kubernetes.protobuf"), ("yaml", "application/yaml")]
    {
        assert_eq!(admin(api, &format!("GET {maps}/m\naccept: {accept}\naudit-id: {id}")).await.code, 200);
        let object = &event_of(id).await["responseObject"];
        assert_eq!((&object["metadata"]["name"], &object["data"]), (&json!("m"), &json!({"a": "b"})), "{id}: {object}");
        assert_eq!(admin(api, &format!("GET {maps}\naccept: {accept}\naudit-id: list-{id}")).await.code, 200);
        let list = &event_of(&format!("list-{id}")).await["responseObject"];
        let named = list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "m").unwrap();
        assert_eq!((&list["kind"], named["metadata"].get("managedFields")), (&json!("ConfigMapList"), None), "{id}: {list}");
        assert_eq!(admin(api, &format!("GET {maps}/none\naccept: {accept}\naudit-id: none-{id}")).await.code, 404);
        let status = &event_of(&format!("none-{id}")).await["responseStatus"];
        assert_eq!((&status["reason"], &status["code"]), (&json!("NotFound"), &json!(404)), "{id}: {status}");
        assert_eq!(status["message"], "configmaps \"none\" not found");
    }
    // Large enough to be compressed, and too large to be told.
    for (name, size) in
        [("large", 200 << 10), ("other", 900 << 10), ("third", 900 << 10), ("fourth", 900 << 10), ("fifth", 900 << 10)]
    {
        let mut map = config_map(name);
        map["data"]["a"] = "x".repeat(size).into();
        assert_eq!(admin(api, &format!("POST {maps}\n\n{map}")).await.code, 201);
        if name == "large" {
            let zipped = admin(api, &format!("GET {maps}\naccept-encoding: gzip\naudit-id: gzip")).await;
            assert_eq!(zipped.headers["content-encoding"], "gzip");
            let list = &event_of("gzip").await["responseObject"];
            assert!(list["items"].as_array().is_some_and(|items| items.len() > 1), "{list}");
        }
    }
    let list = admin(api, &format!("GET {maps}\naudit-id: whole")).await;
    assert!(list.json()["items"].as_array().unwrap().len() > 5, "all of it is answered");
    let event = event_of("whole").await;
    assert_eq!((event.get("responseObject"), &event["annotations"]["audit.k8s.io/truncated"]), (None, &json!("true")));

    // `authorization.k8s.io/reason`: by what a request was allowed.
    assert_eq!(event["annotations"]["authorization.k8s.io/reason"], "");
    grant(api, "jane", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]), &format!("GET {maps}/m"))
        .await;
    assert_eq!(ask(api, "jane", &format!("GET {maps}/m\naudit-id: jane")).await.code, 200);
    let reason = "RBAC: allowed by ClusterRoleBinding \"jane\" of ClusterRole \"jane\" to User \"jane\"";
    assert_eq!(event_of("jane").await["annotations"]["authorization.k8s.io/reason"], reason);
}
