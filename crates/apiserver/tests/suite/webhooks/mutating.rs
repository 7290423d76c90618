//! Webhooks that change objects.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, MUTATING, Reply, allow, collection, config_map, patch, register, send, with_hooks};
use crate::custom::{define, definition};
use crate::server::{namespace, populated_namespace, serve};

/// Adds a key to the data of what has the key of the stage before, as upstream's `mutateConfigMaps` does.
fn stages(path: &str, question: &Value) -> Reply {
    let stage = if path == "/first" { 1 } else { 2 };
    let before = if stage == 1 { "mutation-start".to_owned() } else { format!("mutation-stage-{}", stage - 1) };
    let own = format!("mutation-stage-{stage}");
    match (question["object"]["data"].get(before), question["object"]["data"].get(&own)) {
        (Some(_), None) => patch(&json!([{"op": "add", "path": format!("/data/{own}"), "value": "yes"}])),
        _ => allow(),
    }
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate configmap [Conformance]
#[tokio::test]
async fn stages_follow_each_other() {
    let (server, hooks) = with_hooks(stages).await;
    let resources = ["configmaps"];
    let both = ["first", "second"].map(|path| hooks.hook(path, &["CREATE"], &resources, json!({})));
    register(&server.api, MUTATING, "stages", &both).await;
    let made = send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &config_map("a", json!({"mutation-start": "yes"}))).await;
    assert_eq!(made["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}));
    // Connections are kept: two webhooks of one server have one each.
    send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &config_map("b", json!({}))).await;
    assert_eq!(hooks.connections.load(std::sync::atomic::Ordering::SeqCst), 2);
}

/// "Webhooks are called in the order of their configurations' names"; one that is behind and wants to be called again when the object
/// changes after it is, once.
#[tokio::test]
async fn order_and_reinvocation() {
    let count = |path: &str, question: &Value| {
        let seen = question["object"]["data"]["seen"].as_str().unwrap_or_default().to_owned();
        let letter = &path[1..];
        if letter == "b" && seen.contains('b') {
            return allow();
        }
        patch(&json!([{"op": "replace", "path": "/data/seen", "value": format!("{seen}{letter}")}]))
    };
    for (policy, expected) in [("Never", "ab"), ("IfNeeded", "aba")] {
        let (server, hooks) = with_hooks(count).await;
        let hook = |path: &str| hooks.hook(path, &["CREATE"], &["configmaps"], json!({"reinvocationPolicy": policy}));
        register(&server.api, MUTATING, "2", &[hook("b")]).await;
        register(&server.api, MUTATING, "1", &[hook("a")]).await;
        let made = send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &config_map("a", json!({"seen": ""}))).await;
        assert_eq!(made["data"]["seen"], expected, "{policy}");
    }
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate pod and apply defaults after mutation [Conformance]
#[tokio::test]
async fn what_is_added_gets_its_defaults() {
    let (server, hooks) = with_hooks(|_, _| {
        let init = json!([{"name": "webhook-added-init-container", "image": "webhook-added-image"}]);
        patch(&json!([{"op": "add", "path": "/spec/initContainers", "value": init}]))
    })
    .await;
    populated_namespace(&server.api, "pods").await;
    let hook = hooks.hook("init", &["CREATE"], &["pods"], json!({}));
    register(&server.api, MUTATING, "pods", &[hook]).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = send(&server.api, 201, "POST /api/v1/namespaces/pods/pods", &pod).await;
    let init = &made["spec"]["initContainers"][0];
    assert_eq!((&init["name"], &init["terminationMessagePolicy"]), (&json!("webhook-added-init-container"), &json!("File")));
    // Plugins of the program have seen it too: it mounts the token of its account.
    assert_eq!(init["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount", "{init}");
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate everything except 'skip-me' configmaps [Conformance]
#[tokio::test]
async fn match_conditions() {
    let (server, hooks) = with_hooks(stages).await;
    let conditions = json!([{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]);
    let hook = hooks.hook("first", &["CREATE"], &["configmaps"], json!({"matchConditions": conditions}));
    register(&server.api, MUTATING, "conditions", &[hook]).await;
    for (name, expected) in [("skip-me", Value::Null), ("other", json!("yes"))] {
        let made = config_map(name, json!({"mutation-start": "yes"}));
        let made = send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &made).await;
        assert_eq!(made["data"]["mutation-stage-1"], expected, "{name}");
    }
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing mutating webhooks should work [Conformance]
#[tokio::test]
async fn configurations_are_listed_and_deleted_together() {
    let (server, hooks) = with_hooks(stages).await;
    for index in 0..10 {
        let hook = hooks.hook("first", &["CREATE"], &["configmaps"], json!({}));
        register(&server.api, MUTATING, &format!("list-{index}"), &[hook]).await;
    }
    let selected = format!("{}?labelSelector=of%3Dtest", collection(MUTATING));
    let list = send(&server.api, 200, &format!("GET {selected}"), &Value::Null).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(10));
    let data = json!({"mutation-start": "yes"});
    let made = send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &config_map("a", data.clone())).await;
    assert_eq!(made["data"]["mutation-stage-1"], "yes");
    send(&server.api, 200, &format!("DELETE {selected}"), &Value::Null).await;
    let made = send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &config_map("b", data.clone())).await;
    assert_eq!(made["data"], data);
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a mutating webhook should work [Conformance]
#[tokio::test]
async fn configurations_change() {
    let (server, hooks) = with_hooks(stages).await;
    let hook = hooks.hook("first", &["CREATE"], &["configmaps"], json!({}));
    register(&server.api, MUTATING, "change", std::slice::from_ref(&hook)).await;
    let path = format!("{}/change", collection(MUTATING));
    let check = async |name: &str, expected: Value| {
        let made = config_map(name, json!({"mutation-start": "yes"}));
        let made = send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &made).await;
        assert_eq!(made["data"]["mutation-stage-1"], expected, "{name}");
    };
    check("created", json!("yes")).await;
    let mut stored = send(&server.api, 200, &format!("GET {path}"), &Value::Null).await;
    stored["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    send(&server.api, 200, &format!("PUT {path}"), &stored).await;
    check("updated", Value::Null).await;
    send(&server.api, 200, &format!("PATCH {path}"), &json!({"webhooks": [hook]})).await;
    check("patched", json!("yes")).await;
}

fn custom() -> Value {
    let data = json!({"type": "object", "additionalProperties": {"type": "string"}});
    definition("foos", "Foo", json!({"type": "object", "properties": {"data": data}}))
}

const FOOS: &str = "/apis/example.com/v1/namespaces/ns/foos";

fn foo(version: &str, data: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Foo", "metadata": {"name": "foo"}, "data": data})
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource [Conformance]
/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with pruning [Conformance]
#[tokio::test]
async fn custom_resources() {
    let pruned =
        json!({"type": "object", "properties": {"mutation-start": {"type": "string"}, "mutation-stage-1": {"type": "string"}}});
    for (schema, second) in [(None, json!("yes")), (Some(pruned), Value::Null)] {
        let server = serve().await;
        namespace(&server.api, "ns").await;
        let hooks = super::Hooks::serve(&server.tasks, stages).await;
        let mut definition = custom();
        if let Some(schema) = schema {
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["data"] = schema;
        }
        define(&server.api, &definition).await;
        let both = ["first", "second"].map(|path| hooks.hook(path, &["CREATE"], &["foos"], json!({})));
        register(&server.api, MUTATING, "custom", &both).await;
        let made = send(&server.api, 201, &format!("POST {FOOS}"), &foo("v1", json!({"mutation-start": "yes"}))).await;
        assert_eq!((&made["data"]["mutation-stage-1"], &made["data"]["mutation-stage-2"]), (&json!("yes"), &second));
    }
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with different stored version [Conformance]
#[tokio::test]
async fn custom_resources_of_another_stored_version() {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    let hooks = super::Hooks::serve(&server.tasks, stages).await;
    let mut definition = custom();
    let mut second = definition["spec"]["versions"][0].clone();
    (second["name"], second["storage"]) = (json!("v2"), json!(false));
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    define(&server.api, &definition).await;
    // The webhook asks for one version, and sees requests for both as that one.
    let rules =
        json!([{"operations": ["CREATE", "UPDATE"], "apiGroups": ["example.com"], "apiVersions": ["v2"], "resources": ["foos"]}]);
    let hook = hooks.hook("first", &[], &[], json!({"rules": rules}));
    register(&server.api, MUTATING, "custom", &[hook]).await;
    let made = send(&server.api, 201, &format!("POST {FOOS}"), &foo("v1", json!({"mutation-start": "yes"}))).await;
    assert_eq!((&made["apiVersion"], &made["data"]["mutation-stage-1"]), (&json!("example.com/v1"), &json!("yes")));
    let asked = hooks.asked_at("/first").remove(0);
    assert_eq!((&asked["object"]["apiVersion"], &asked["requestKind"]["version"]), (&json!("example.com/v2"), &json!("v1")));
    assert_eq!((&asked["kind"]["version"], &asked["resource"]["version"]), (&json!("v2"), &json!("v2")));
    // Now the other version is stored.
    let path = format!("{}/foos.example.com", crate::custom::DEFINITIONS);
    let mut stored = send(&server.api, 200, &format!("GET {path}"), &Value::Null).await;
    (stored["spec"]["versions"][0]["storage"], stored["spec"]["versions"][1]["storage"]) = (json!(false), json!(true));
    send(&server.api, 200, &format!("PUT {path}"), &stored).await;
    crate::custom::until(&server.api, &json!("foos.example.com"), |object| object["status"]["storedVersions"][1] == "v2").await;
    let patched =
        send(&server.api, 200, &format!("PATCH {FOOS}/foo"), &json!({"data": {"mutation-stage-1": null, "dummy": "yes"}})).await;
    assert_eq!(patched["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes", "dummy": "yes"}));
}

/// Sub-resources have their own bodies: a webhook sees a Scale, and can change it.
#[tokio::test]
async fn sub_resources() {
    let (server, hooks) = with_hooks(|_, question| match question["kind"]["kind"].as_str() {
        Some("Scale") => patch(&json!([{"op": "replace", "path": "/spec/replicas", "value": 3}])),
        _ => allow(),
    })
    .await;
    let hook = hooks.hook("scale", &["UPDATE"], &["deployments/scale"], json!({}));
    register(&server.api, MUTATING, "scale", &[hook]).await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let path = "/apis/apps/v1/namespaces/ns/deployments";
    send(&server.api, 201, &format!("POST {path}"), &deployment).await;
    let scaled = send(&server.api, 200, &format!("PATCH {path}/d/scale"), &json!({"spec": {"replicas": 2}})).await;
    assert_eq!(scaled["spec"]["replicas"], 3);
    let asked = hooks.asked_at("/scale").remove(0);
    assert_eq!((&asked["subResource"], &asked["object"]["spec"]["replicas"]), (&json!("scale"), &json!(2)));
    assert_eq!((&asked["oldObject"]["spec"]["replicas"], &asked["options"]["kind"]), (&json!(1), &json!("PatchOptions")));
}
