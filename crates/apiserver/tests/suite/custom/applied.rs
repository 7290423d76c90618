//! Server-side apply through versions that a webhook converts: who owns what is found out by objects in each manager's version (KEP-555,
//! `structured-merge-diff/merge/update.go`).

use std::sync::atomic::Ordering;

use super::converted::{V1, V2, foo, honest, with_hook};
use super::*;

/// Applies as a manager. What is asked for is created or changed.
async fn apply(api: &Api, (path, manager): (&str, &str), fields: Value, query: &str) -> Answer {
    let version = if path == V1 { "example.com/v1" } else { "example.com/v2" };
    let mut config = foo("a", fields);
    config["apiVersion"] = version.into();
    let request = format!("PATCH {path}/a?fieldManager={manager}{query}\ncontent-type: application/apply-patch+yaml");
    send(api, &request, &config).await
}

/// `manager operation version: fields` of the object, without the metadata's.
async fn owners(api: &Api) -> Vec<String> {
    let object = get(api, &format!("{V1}/a")).await;
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let line = |entry: &Value| {
        let fields = entry["fieldsV1"].as_object().unwrap().keys().filter(|key| *key != "f:metadata");
        let fields: Vec<&str> = fields.map(|key| key.trim_start_matches("f:")).collect();
        let version = text(entry, "apiVersion").replace("example.com/", "");
        format!("{} {} {version}: {}", text(entry, "manager"), text(entry, "operation"), fields.join(" "))
    };
    let mut lines: Vec<String> = object["metadata"]["managedFields"].as_array().into_iter().flatten().map(line).collect();
    lines.sort();
    lines
}

/// A change through one version is a conflict with who has applied, through the other, the field that it comes from.
#[tokio::test]
async fn conflicts_cross_versions() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    assert_eq!(apply(api, (V1, "first"), json!({"hostPort": "h:80"}), "").await.code, 201);
    assert_eq!(hook.calls.load(Ordering::SeqCst), 0, "one version needs no conversion");
    // The same in the other version changes nothing: both own it, each in the version of its own.
    assert_eq!(apply(api, (V2, "second"), json!({"host": "h", "port": "80"}), "").await.code, 200);
    assert_eq!(owners(api).await, ["first Apply v1: hostPort", "second Apply v2: host port"]);
    let conflict = async |by: (&str, &str), fields: Value, expected: &str| {
        let answer = apply(api, by, fields, "").await;
        let told = answer.json();
        assert_eq!((answer.code, told["message"].as_str()), (409, Some(expected)), "{told}");
    };
    let port = "Apply failed with 1 conflict: conflict with \"first\": .hostPort";
    conflict((V2, "second"), json!({"host": "h", "port": "81"}), port).await;
    // A field that is applied no more stays where it is part of what another manager owns in its version.
    assert_eq!(apply(api, (V2, "second"), json!({"host": "h"}), "").await.code, 200);
    assert_eq!(owners(api).await, ["first Apply v1: hostPort", "second Apply v2: host"]);
    assert_eq!(get(api, &format!("{V1}/a")).await["hostPort"], "h:80");
    assert_eq!(apply(api, (V2, "second"), json!({"host": "h", "port": "80"}), "").await.code, 200);
    let port = "Apply failed with 1 conflict: conflict with \"second\": .port";
    conflict((V1, "first"), json!({"hostPort": "h:81"}), port).await;
    let both = "Apply failed with 2 conflicts: conflicts with \"second\":\n- .host\n- .port";
    conflict((V1, "first"), json!({"hostPort": "i:81"}), both).await;
    // By force the others lose what has changed, and nothing else.
    assert_eq!(apply(api, (V1, "first"), json!({"hostPort": "h:81"}), "&force=true").await.code, 200);
    assert_eq!(owners(api).await, ["first Apply v1: hostPort", "second Apply v2: host"]);
    assert_eq!(apply(api, (V2, "second"), json!({"host": "i"}), "&force=true").await.code, 200);
    assert_eq!(owners(api).await, ["second Apply v2: host"]);
    assert_eq!(get(api, &format!("{V1}/a")).await["hostPort"], "i:81");
}

/// Updates and patches take fields from those who own them in another version.
#[tokio::test]
async fn updates_cross_versions() {
    let (server, _hook) = with_hook().await;
    let api = &server.api;
    assert_eq!(apply(api, (V1, "first"), json!({"hostPort": "h:80"}), "").await.code, 201);
    let merge = async |path: &str, change: Value| {
        let request = format!("PATCH {path}/a?fieldManager=patch\ncontent-type: application/merge-patch+json");
        ask(api, 200, &request, &change).await
    };
    merge(V2, json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(owners(api).await, ["first Apply v1: hostPort", "patch Update v2: "]);
    merge(V2, json!({"port": "81"})).await;
    assert_eq!(owners(api).await, ["patch Update v2: port"]);
    merge(V1, json!({"hostPort": "h:82"})).await;
    assert_eq!(owners(api).await, ["patch Update v1: hostPort", "patch Update v2: "]);
}

/// An apply, whose conflicts nobody knows, is refused. Other writes go on, and the object "is returned with managedFields cleared"
/// (`k8s.io/apimachinery/pkg/util/managedfields`, `UpdateNoErrors` of v1.36).
#[tokio::test]
async fn a_webhook_that_fails() {
    let (server, hook) = with_hook().await;
    let api = &server.api;
    assert_eq!(apply(api, (V1, "first"), json!({"hostPort": "h:80"}), "").await.code, 201);
    assert_eq!(apply(api, (V2, "second"), json!({"host": "h", "port": "80"}), "").await.code, 200);
    let before = owners(api).await;
    hook.behave(|review| json!({"uid": review["request"]["uid"], "result": {"status": "Failed", "message": "not today"}}));
    let answer = apply(api, (V1, "first"), json!({"hostPort": "h:82"}), "&force=true").await;
    let told = answer.json()["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!((answer.code, &*told), (500, "conversion webhook for example.com/v1, Kind=Foo failed: not today"));
    assert_eq!((get(api, &format!("{V1}/a")).await["hostPort"].clone(), owners(api).await), (json!("h:80"), before));
    let request = format!("PATCH {V1}/a?fieldManager=patch\ncontent-type: application/merge-patch+json");
    let patched = ask(api, 200, &request, &json!({"hostPort": "h:81"})).await;
    assert_eq!((&patched["hostPort"], owners(api).await), (&json!("h:81"), Vec::new()));
    hook.behave(honest);
    assert_eq!(apply(api, (V1, "first"), json!({"hostPort": "h:82"}), "&force=true").await.code, 200);
    assert_eq!(owners(api).await, ["first Apply v1: hostPort"]);
}
