//! ConfigMaps and Secrets that are marked immutable.

use serde_json::{Value, json};

use super::{get, send};
use crate::server::{namespace, start};

/// Changes an object of this kind until it is immutable, and tries to afterwards.
async fn check(kind: &str, plural: &str, [first, second, third]: [&str; 3]) {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let collection = format!("/api/v1/namespaces/n/{plural}");
    let path = format!("{collection}/m");
    let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "m"}, "data": {"key": first}});
    send(api, 201, &format!("POST {collection}"), &object).await;
    let changed = async |code: u16, change: &dyn Fn(&mut Value)| {
        let mut object = get(api, &path).await;
        change(&mut object);
        send(api, code, &format!("PUT {path}"), &object).await
    };
    let mutable = changed(200, &|object| object["data"]["key"] = json!(second)).await;
    assert_eq!(mutable["data"]["key"], second);
    changed(200, &|object| object["immutable"] = json!(true)).await;
    let refused = [
        (changed(422, &|object| object["data"]["key"] = json!(third)).await, "data"),
        (changed(422, &|object| object["immutable"] = Value::Null).await, "immutable"),
        (changed(422, &|object| object["immutable"] = json!(false)).await, "immutable"),
    ];
    for (status, field) in refused {
        assert_eq!((&status["reason"], &status["details"]["causes"][0]["field"]), (&json!("Invalid"), &json!(field)), "{status}");
    }
    let labelled = changed(200, &|object| object["metadata"]["labels"] = json!({"label": "changed"})).await;
    assert_eq!((&labelled["data"]["key"], &labelled["immutable"]), (&json!(second), &json!(true)));
    send(api, 200, &format!("DELETE {path}"), &Value::Null).await;
    send(api, 404, &format!("GET {path}"), &Value::Null).await;
}

/// Conformance: [sig-storage] ConfigMap should be immutable if `immutable` field is set [Conformance]
#[tokio::test]
async fn config_map() {
    check("ConfigMap", "configmaps", ["one", "two", "three"]).await;
}

/// Conformance: [sig-storage] Secrets should be immutable if `immutable` field is set [Conformance]
#[tokio::test]
async fn secret() {
    check("Secret", "secrets", ["b25l", "dHdv", "dGhyZWU="]).await;
}
