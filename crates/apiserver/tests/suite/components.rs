//! The parts of the control plane as ComponentStatuses.

use serde_json::json;

use crate::server::{admin, ask, serve};

const ALL: &str = "/api/v1/componentstatuses";

#[tokio::test]
async fn parts_of_the_control_plane_tell_whether_they_work() {
    let server = serve().await;
    let get = async |path: &str| admin(&server.api, &format!("GET {ALL}{path}")).await;
    let listed = get("").await;
    assert_eq!(listed.headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    let listed = listed.json();
    assert_eq!(listed["kind"], "ComponentStatusList");
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["controller-manager", "etcd-0", "scheduler"]);

    let store = get("/etcd-0").await.json();
    assert_eq!((&store["apiVersion"], &store["kind"]), (&json!("v1"), &json!("ComponentStatus")));
    assert_eq!(store["conditions"], json!([{"type": "Healthy", "status": "True", "message": "ok"}]));
    // Nothing but the API runs in this test.
    let scheduler = get("/scheduler").await.json();
    assert_eq!(scheduler["conditions"], json!([{"type": "Healthy", "status": "Unknown", "error": "not a part of this server"}]));

    let count = async |query: &str| get(query).await.json()["items"].as_array().unwrap().len();
    assert_eq!((count("?fieldSelector=metadata.name%3Detcd-0").await, count("?labelSelector=a%3Db").await), (1, 0));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = admin(&server.api, &format!("GET {ALL}\nAccept: {table}")).await.json();
    assert_eq!(table["rows"][1]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    assert_eq!(table["rows"][2]["cells"], json!(["scheduler", "Unhealthy", "", "not a part of this server"]));
}

#[tokio::test]
async fn nobody_writes_them() {
    let server = serve().await;
    let code = async |request: &str| admin(&server.api, request).await.code;
    assert_eq!(code(&format!("GET {ALL}/none")).await, 404);
    assert_eq!(code(&format!("POST {ALL}\n\n{{}}")).await, 405);
    assert_eq!(code(&format!("DELETE {ALL}/etcd-0")).await, 405);
    assert_eq!(code(&format!("GET {ALL}?watch=true")).await, 405);
    assert_eq!(ask(&server.api, "somebody", &format!("GET {ALL}")).await.code, 403);
}
