//! What webhooks make of metadata that the API server keeps in order.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, MUTATING, Reply, allow, config_map, patch, register, with_hooks};
use crate::server::{Answer, Server, admin};

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
