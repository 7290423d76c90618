//! What webhooks make of metadata that the API server keeps in order.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, Hooks, MUTATING, Reply, allow, config_map, patch, register, with_hooks};
use crate::custom::{define, definition};
use crate::server::{Answer, Server, admin, namespace, serve};

const INVALID: &str = ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: ";

async fn ask(server: &Server, request: &str, kind: &str, body: &Value) -> Answer {
    let answer = admin(&server.api, &format!("{request}\ncontent-type: application/{kind}\n\n{body}")).await;
    assert!(answer.code < 300, "{request}: {:?}", answer.body);
    answer
}

/// The texts of warnings, as they stand in their headers.
fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").into_iter();
    let texts = all.map(|value| value.to_str().unwrap().strip_prefix("299 - ").unwrap());
    texts.map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// Changes the first entry of the managed fields as the data of the object says.
fn corrupt(_: &str, question: &Value) -> Reply {
    let object = &question["object"];
    match (object["metadata"]["managedFields"].as_array(), object["data"]["operations"].as_str()) {
        (Some(_), Some(operations)) => patch(&serde_json::from_str(operations).unwrap()),
        _ => allow(),
    }
}

/// Upstream's `TestMutatingWebhookResetsInvalidManagedFields` (test/integration/apiserver/admissionwebhook/invalid_managedFields_test.go):
/// managed fields that nobody could read are those from before admission, with a warning, and the object can be applied.
#[tokio::test]
async fn managed_fields_stay_readable() {
    let (server, hooks) = with_hooks(corrupt).await;
    register(&server.api, MUTATING, "corrupt", &[hooks.hook("corrupt", &["CREATE", "UPDATE"], &["configmaps"], json!({}))]).await;
    let remove = |field: &str| json!({"op": "remove", "path": format!("/metadata/managedFields/0/{field}")});
    let set = |field: &str, value: Value| json!({"op": "replace", "path": format!("/metadata/managedFields/0/{field}"), "value": value});
    let guess = r#"metadata.managedFields[0].operation: Invalid value: "Guess": must be `Apply` or `Update`"#;
    let cases = [
        (json!([remove("apiVersion"), remove("fieldsV1"), remove("fieldsType")]), Some("apiVersion must not be empty")),
        (json!([remove("fieldsType")]), Some("missing fieldsType in managed fields entry 0")),
        (json!([set("operation", json!("Guess"))]), Some(guess)),
        (json!([set("fieldsV1", json!({"no-path": {}}))]), Some("error decoding set: ")),
        (json!([set("manager", json!("other"))]), None),
        (json!([{"op": "remove", "path": "/metadata/managedFields"}]), None),
    ];
    for (number, (operations, why)) in cases.into_iter().enumerate() {
        let mut object = config_map(&format!("c{number}"), json!({"operations": operations.to_string()}));
        let path = format!("{CONFIG_MAPS}/c{number}");
        let check = |answer: &Answer| {
            let warnings = warnings(answer);
            match why {
                Some(why) => {
                    assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("{INVALID}{why}")), "{why}: {warnings:?}")
                }
                None => assert!(warnings.is_empty(), "{operations}: {warnings:?}"),
            }
            if why.is_some() {
                let first = &answer.json()["metadata"]["managedFields"][0];
                assert_eq!((&first["fieldsType"], &first["manager"]), (&json!("FieldsV1"), &json!("unknown")), "{operations}");
            }
        };
        check(&ask(&server, &format!("POST {CONFIG_MAPS}"), "json", &object).await);
        if why.is_none() {
            continue;
        }
        check(&ask(&server, &format!("PATCH {path}"), "json-patch+json", &json!([])).await);
        object["data"]["more"] = "yes".into();
        check(&ask(&server, &format!("PUT {path}"), "json", &object).await);
        let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": object["metadata"]["name"]}, "data": {"own": "yes"}});
        let applied = ask(&server, &format!("PATCH {path}?fieldManager=unknown"), "apply-patch+yaml", &applied).await;
        check(&applied);
        assert_eq!(applied.json()["metadata"]["managedFields"].as_array().map(Vec::len), Some(2), "{operations}");
    }
}

/// One more owner, the same as the first.
fn repeat(path: &str, question: &Value) -> Reply {
    let owner = &question["object"]["metadata"]["ownerReferences"][0];
    match path {
        "/repeat" if owner.is_object() => patch(&json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner}])),
        _ => allow(),
    }
}

/// Upstream's `TestDedupOwnerReferences` (test/integration/apiserver/apiserver_test.go) and `TestMutatingWebhookDuplicateOwnerReferences`
/// (admissionwebhook/duplicate_owner_ref_test.go): creations and updates are told before admission, patches and webhooks after it.
#[tokio::test]
async fn owner_references_are_there_once() {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    let hooks = Hooks::serve(&server.tasks, repeat).await;
    define(&server.api, &definition("foos", "Foo", json!({"type": "object"}))).await;
    let text = |when: &str| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject \
             such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: uid-a"
        )
    };
    let (before, after) = (text(""), text(" after mutating admission happens"));
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": format!("uid-{name}")});
    let check = |answer: &Answer, expected: &[&Value], told: &[&str]| {
        let metadata = answer.json()["metadata"].clone();
        assert_eq!(metadata["ownerReferences"], json!(expected));
        assert!(metadata["managedFields"].is_array(), "{metadata}");
        assert_eq!(warnings(answer), told);
    };
    let (a, b, c) = (owner("a"), owner("b"), owner("c"));
    let kinds = [("v1", "ConfigMap", CONFIG_MAPS), ("example.com/v1", "Foo", "/apis/example.com/v1/namespaces/ns/foos")];
    for (version, kind, collection) in kinds {
        let with = |owners: &[&Value]| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "dependent", "ownerReferences": owners}});
        let path = format!("{collection}/dependent");
        let add = |owner: &Value| json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner}]);
        let put = async |owners: &[&Value]| {
            let mut object = with(owners);
            let stored = ask(&server, &format!("GET {path}"), "json", &Value::Null).await.json();
            object["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
            ask(&server, &format!("PUT {path}"), "json", &object).await
        };
        check(&ask(&server, &format!("POST {collection}"), "json", &with(&[&a, &a])).await, &[&a], &[&before]);
        check(&put(&[&a, &a]).await, &[&a], &[&before]);
        check(&ask(&server, &format!("PATCH {path}"), "json-patch+json", &add(&a)).await, &[&a], &[&after]);
        check(&put(&[&a, &b]).await, &[&a, &b], &[]);
        check(&ask(&server, &format!("PATCH {path}"), "json-patch+json", &add(&c)).await, &[&a, &b, &c], &[]);
        register(
            &server.api,
            MUTATING,
            kind.to_lowercase().as_str(),
            &[hooks.hook("repeat", &["CREATE", "UPDATE"], &["configmaps", "foos"], json!({}))],
        )
        .await;
        check(&ask(&server, &format!("PATCH {path}"), "json-patch+json", &json!([])).await, &[&a, &b, &c], &[&after]);
        check(&put(&[&a]).await, &[&a], &[&after]);
        ask(&server, &format!("DELETE {}/{}", super::collection(MUTATING), kind.to_lowercase()), "json", &json!({})).await;
    }
}
