//! Webhooks that refuse.

use serde_json::{Value, json};

use super::{
    CONFIG_MAPS, GROUP, MUTATING, Reply, VALIDATING, allow, answer_of, collection, config_map, deny, patch, register, send,
    with_hooks,
};
use crate::custom::{DEFINITIONS, define, definition};
use crate::server::{admin, namespace, populated_namespace, serve};

const DENIED: &str = "admission webhook \"deny.webhook.example\" denied the request: ";

/// Refuses whatever says `disallow`, as upstream's webhook for tests does.
fn disallow(_: &str, question: &Value) -> Reply {
    let object = if question["object"].is_null() { &question["oldObject"] } else { &question["object"] };
    let unwanted = |place: &str, key: &str| object.pointer(place).is_some_and(|value| value[key] == "disallow");
    match () {
        () if unwanted("/data", "webhook-e2e-test") => deny("the configmap contains unwanted key and value"),
        () if unwanted("/metadata/labels", "webhook-e2e-test") => deny("the pod contains unwanted label"),
        () => allow(),
    }
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny pod and configmap creation [Conformance]
#[tokio::test]
async fn pods_and_config_maps() {
    let (server, hooks) = with_hooks(|path, question| if path == "/hang" { Reply::Hang } else { disallow(path, question) }).await;
    let api = &server.api;
    populated_namespace(api, "pods").await;
    let selector = json!({"matchExpressions": [{"key": "skip-webhook-admission", "operator": "NotIn", "values": ["yes"]}]});
    let hook = hooks.hook("deny", &["CREATE", "UPDATE"], &["pods", "configmaps"], json!({"namespaceSelector": selector}));
    let slow = json!({"timeoutSeconds": 1, "objectSelector": {"matchLabels": {"hang": "yes"}}});
    let slow = hooks.hook("hang", &["CREATE"], &["pods"], slow);
    register(api, VALIDATING, "deny", &[hook, slow]).await;
    let pod = |labels: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/pods/pods";
    let refused = send(api, 403, &format!("POST {pods}"), &pod(json!({"webhook-e2e-test": "disallow"}))).await;
    assert_eq!(
        (&refused["message"], &refused["reason"]),
        (&json!(format!("{DENIED}the pod contains unwanted label")), &json!("Forbidden"))
    );
    let hangs = send(api, 500, &format!("POST {pods}"), &pod(json!({"hang": "yes"}))).await;
    let message = hangs["message"].as_str().unwrap();
    assert!(message.starts_with("Internal error occurred: failed calling webhook \"hang.webhook.example\": failed to call webhook: Post \"https://127.0.0.1:"), "{message}");
    assert!(message.ends_with("/hang?timeout=1s\": context deadline exceeded"), "{message}");
    let (bad, good) = (json!({"webhook-e2e-test": "disallow"}), json!({"mutation-start": "yes"}));
    let text = format!("{DENIED}the configmap contains unwanted key and value");
    let refused = send(api, 403, &format!("POST {CONFIG_MAPS}"), &config_map("bad", bad.clone())).await;
    assert_eq!(refused["message"], text);
    send(api, 201, &format!("POST {CONFIG_MAPS}"), &config_map("good", good)).await;
    let refused = send(api, 403, &format!("PUT {CONFIG_MAPS}/good"), &config_map("good", bad.clone())).await;
    assert_eq!(refused["message"], text);
    let refused = send(api, 403, &format!("PATCH {CONFIG_MAPS}/good"), &json!({"data": bad})).await;
    assert_eq!(refused["message"], text);
    // A namespace that is not selected.
    let exempt = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "exempt", "labels": {"skip-webhook-admission": "yes"}}});
    send(api, 201, "POST /api/v1/namespaces", &exempt).await;
    send(api, 201, "POST /api/v1/namespaces/exempt/configmaps", &config_map("bad", bad)).await;
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny attaching pod [Conformance]
#[tokio::test]
async fn connections() {
    let (server, hooks) = with_hooks(|_, question| match question["operation"].as_str() {
        Some("CONNECT") => deny("attaching to pod 'to-be-attached-pod' is not allowed"),
        _ => allow(),
    })
    .await;
    let api = &server.api;
    populated_namespace(api, "pods").await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "to-be-attached-pod"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    send(api, 201, "POST /api/v1/namespaces/pods/pods", &pod).await;
    register(api, VALIDATING, "attach", &[hooks.hook("deny", &["CONNECT"], &["pods/attach"], json!({}))]).await;
    let path = "/api/v1/namespaces/pods/pods/to-be-attached-pod/attach?container=c&stdin=true&tty=false";
    let refused = send(api, 403, &format!("POST {path}"), &Value::Null).await;
    assert_eq!(refused["message"], format!("{DENIED}attaching to pod 'to-be-attached-pod' is not allowed"));
    let asked = hooks.asked_at("/deny").remove(0);
    assert_eq!(asked["object"], json!({"apiVersion": "v1", "kind": "PodAttachOptions", "container": "c", "stdin": true}));
    assert_eq!((&asked["name"], &asked["options"]), (&json!("to-be-attached-pod"), &Value::Null));
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny custom resource creation, update and deletion [Conformance]
#[tokio::test]
async fn custom_resources() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "ns").await;
    let hooks = super::Hooks::serve(&server.tasks, |_, question| {
        let object = if question["object"].is_null() { &question["oldObject"] } else { &question["object"] };
        match object["data"]["webhook-e2e-test"].as_str() {
            Some("webhook-disallow") => deny("the custom resource contains unwanted data"),
            _ => allow(),
        }
    })
    .await;
    let data = json!({"type": "object", "additionalProperties": {"type": "string"}});
    define(api, &definition("foos", "Foo", json!({"type": "object", "properties": {"data": data}}))).await;
    let path = "/apis/example.com/v1/namespaces/ns/foos";
    let foo = |name: &str, says: &str| json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "data": {"webhook-e2e-test": says}});
    send(api, 201, &format!("POST {path}"), &foo("kept", "webhook-disallow")).await;
    register(api, VALIDATING, "custom", &[hooks.hook("deny", &["CREATE", "UPDATE", "DELETE"], &["foos"], json!({}))]).await;
    let check = async |request: &str, body: Value| {
        let refused = send(api, 403, request, &body).await;
        assert_eq!(refused["message"], format!("{DENIED}the custom resource contains unwanted data"), "{request}");
    };
    check(&format!("POST {path}"), foo("new", "webhook-disallow")).await;
    send(api, 201, &format!("POST {path}"), &foo("new", "webhook-allow")).await;
    check(&format!("PATCH {path}/new"), json!({"data": {"webhook-e2e-test": "webhook-disallow"}})).await;
    check(&format!("DELETE {path}/kept"), Value::Null).await;
    check(&format!("DELETE {path}"), Value::Null).await;
    let asked = hooks.asked.lock().iter().rfind(|question| question["name"] == "kept").cloned().unwrap();
    assert_eq!(
        (&asked["operation"], &asked["object"], &asked["options"]["kind"]),
        (&json!("DELETE"), &Value::Null, &json!("DeleteOptions"))
    );
    // What is allowed now can be deleted.
    register(api, MUTATING, "mark", &[hooks.hook("mark", &["DELETE"], &["foos"], json!({}))]).await;
    send(api, 200, &format!("DELETE {path}/new"), &Value::Null).await;
    assert_eq!(hooks.asked_at("/mark")[0]["oldObject"]["metadata"]["name"], "new");
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should deny crd creation [Conformance]
#[tokio::test]
async fn definitions() {
    let (server, hooks) = with_hooks(|_, question| match question["object"]["metadata"]["labels"]["webhook-e2e-test"].as_str() {
        Some("webhook-disallow") => deny("the crd contains unwanted label"),
        _ => allow(),
    })
    .await;
    register(&server.api, VALIDATING, "crd", &[hooks.hook("deny", &["CREATE"], &["customresourcedefinitions"], json!({}))]).await;
    let mut object = definition("foos", "Foo", json!({"type": "object"}));
    object["metadata"]["labels"] = json!({"webhook-e2e-test": "webhook-disallow"});
    let refused = send(&server.api, 403, &format!("POST {DEFINITIONS}"), &object).await;
    assert_eq!(refused["message"], format!("{DENIED}the crd contains unwanted label"));
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should unconditionally reject operations on fail closed webhook [Conformance]
#[tokio::test]
async fn a_webhook_that_cannot_be_called() {
    let (server, hooks) = with_hooks(|_, _| allow()).await;
    let nobody = json!({"service": {"namespace": "ns", "name": "none"}});
    for (policy, code) in [("Fail", 500), ("Ignore", 201)] {
        let change = json!({"clientConfig": nobody, "failurePolicy": policy});
        register(
            &server.api,
            VALIDATING,
            policy.to_lowercase().as_str(),
            &[hooks.hook("deny", &["CREATE"], &["configmaps"], change)],
        )
        .await;
        let answer =
            send(&server.api, code, &format!("POST {CONFIG_MAPS}"), &config_map(&policy.to_lowercase(), json!({}))).await;
        if code == 500 {
            let text = "Internal error occurred: failed calling webhook \"deny.webhook.example\": failed to call webhook: Post \"https://none.ns.svc:443/?timeout=10s\": service \"none\" not found";
            assert_eq!((&answer["message"], &answer["reason"]), (&json!(text), &json!("InternalError")));
        }
        send(&server.api, 200, &format!("DELETE {}/{}", collection(VALIDATING), policy.to_lowercase()), &Value::Null).await;
    }
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should honor timeout [Conformance]
#[tokio::test]
async fn timeouts() {
    let (server, hooks) = with_hooks(|path, _| if path == "/hang" { Reply::Hang } else { allow() }).await;
    let check = async |name: &str, path: &str, change: Value, code: u16| {
        register(&server.api, VALIDATING, name, &[hooks.hook(path, &["CREATE"], &["configmaps"], change)]).await;
        let answer = send(&server.api, code, &format!("POST {CONFIG_MAPS}"), &config_map(name, json!({}))).await;
        assert!(code == 201 || answer["message"].as_str().unwrap().contains("context deadline exceeded"), "{answer}");
        send(&server.api, 200, &format!("DELETE {}/{name}", collection(VALIDATING)), &Value::Null).await;
    };
    check("closed", "hang", json!({"timeoutSeconds": 1}), 500).await;
    check("open", "hang", json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"}), 201).await;
    check("long", "answer", json!({"timeoutSeconds": 30}), 201).await;
    check("default", "answer", json!({}), 201).await;
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should not be able to mutate or prevent deletion of webhook configuration objects [Conformance]
#[tokio::test]
async fn configurations_are_exempt() {
    let (server, hooks) = with_hooks(|path, _| match path {
        "/deny" => deny("nothing goes"),
        _ => patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {"mutated": "yes"}}])),
    })
    .await;
    let all = ["*"];
    register(&server.api, VALIDATING, "all", &[hooks.hook("deny", &all, &["*/*"], json!({}))]).await;
    register(&server.api, MUTATING, "all", &[hooks.hook("mark", &all, &["*/*"], json!({}))]).await;
    for kind in [VALIDATING, MUTATING] {
        register(&server.api, kind, "dummy", &[]).await;
        let path = format!("{}/dummy", collection(kind));
        assert_eq!(
            send(&server.api, 200, &format!("GET {path}"), &Value::Null).await["metadata"]["labels"],
            json!({"of": "test"})
        );
        send(&server.api, 200, &format!("DELETE {path}"), &Value::Null).await;
    }
    send(&server.api, 403, &format!("POST {CONFIG_MAPS}"), &config_map("a", json!({}))).await;
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing validating webhooks should work [Conformance]
#[tokio::test]
async fn configurations_are_listed_and_deleted_together() {
    let (server, hooks) = with_hooks(disallow).await;
    for index in 0..10 {
        let hook = hooks.hook("deny", &["CREATE"], &["configmaps"], json!({}));
        register(&server.api, VALIDATING, &format!("list-{index}"), &[hook]).await;
    }
    let selected = format!("{}?labelSelector=of%3Dtest", collection(VALIDATING));
    let list = send(&server.api, 200, &format!("GET {selected}"), &Value::Null).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(10));
    let bad = config_map("bad", json!({"webhook-e2e-test": "disallow"}));
    send(&server.api, 403, &format!("POST {CONFIG_MAPS}"), &bad).await;
    send(&server.api, 200, &format!("DELETE {selected}"), &Value::Null).await;
    send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &bad).await;
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a validating webhook should work [Conformance]
#[tokio::test]
async fn configurations_change() {
    let (server, hooks) = with_hooks(disallow).await;
    let hook = hooks.hook("deny", &["CREATE"], &["configmaps"], json!({}));
    register(&server.api, VALIDATING, "change", std::slice::from_ref(&hook)).await;
    let path = format!("{}/change", collection(VALIDATING));
    let bad = |name: &str| config_map(name, json!({"webhook-e2e-test": "disallow"}));
    send(&server.api, 403, &format!("POST {CONFIG_MAPS}"), &bad("created")).await;
    let mut stored = send(&server.api, 200, &format!("GET {path}"), &Value::Null).await;
    stored["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    send(&server.api, 200, &format!("PUT {path}"), &stored).await;
    send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &bad("updated")).await;
    send(&server.api, 200, &format!("PATCH {path}"), &json!({"webhooks": [hook]})).await;
    send(&server.api, 403, &format!("POST {CONFIG_MAPS}"), &bad("patched")).await;
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should include webhook resources in discovery documents [Conformance]
#[tokio::test]
async fn discovery() {
    let (server, _) = with_hooks(|_, _| allow()).await;
    let groups = send(&server.api, 200, "GET /apis", &Value::Null).await;
    let group =
        groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "admissionregistration.k8s.io").unwrap();
    let version = json!({"groupVersion": "admissionregistration.k8s.io/v1", "version": "v1"});
    assert!(group["versions"].as_array().unwrap().contains(&version), "{group}");
    let own = send(&server.api, 200, "GET /apis/admissionregistration.k8s.io", &Value::Null).await;
    assert!(own["versions"].as_array().unwrap().contains(&version), "{own}");
    let resources = send(&server.api, 200, &format!("GET {GROUP}"), &Value::Null).await;
    for name in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        assert!(resources["resources"].as_array().unwrap().iter().any(|resource| resource["name"] == name), "{name}");
    }
}

/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject validating webhook configurations with invalid match conditions [Conformance]
/// Conformance: [sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject mutating webhook configurations with invalid match conditions [Conformance]
#[tokio::test]
async fn conditions_that_cannot_be_compiled() {
    let (server, hooks) = with_hooks(|_, _| allow()).await;
    for kind in [VALIDATING, MUTATING] {
        let conditions = json!([{"name": "invalid-expression-1", "expression": "... [] bad expression"}]);
        let hook = hooks.hook("deny", &["CREATE"], &["configmaps"], json!({"matchConditions": conditions}));
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "bad"}, "webhooks": [hook]});
        let refused = send(&server.api, 422, &format!("POST {}", collection(kind)), &object).await;
        assert!(refused["message"].as_str().unwrap().contains("compilation failed"), "{refused}");
    }
}

/// Warnings reach the client, dry runs only those that have no other effects, and several webhooks are asked at once.
#[tokio::test]
async fn warnings_and_dry_runs() {
    let (server, hooks) =
        with_hooks(|path, _| Reply::Response(json!({"allowed": true, "warnings": [format!("warned by {path}")]}))).await;
    let both = ["a", "b"].map(|path| hooks.hook(path, &["CREATE"], &["configmaps"], json!({})));
    register(&server.api, VALIDATING, "warn", &both).await;
    let answer = answer_of(&server.api, &format!("POST {CONFIG_MAPS}?dryRun=All"), &config_map("a", json!({}))).await;
    let mut warnings: Vec<_> = answer.headers.get_all("warning").iter().map(|text| text.to_str().unwrap().to_owned()).collect();
    warnings.sort();
    assert_eq!((answer.code, warnings), (201, vec!["299 - \"warned by /a\"".to_owned(), "299 - \"warned by /b\"".to_owned()]));
    assert!(
        hooks.asked.lock().iter().all(|question| question["dryRun"] == true && question["options"]["dryRun"] == json!(["All"]))
    );
    assert_eq!(admin(&server.api, &format!("GET {CONFIG_MAPS}/a")).await.code, 404);
}
