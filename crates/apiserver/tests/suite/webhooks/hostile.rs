//! Webhooks that hang, lie, loop, and answer without an end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    CONFIG_MAPS, MUTATING, Reply, VALIDATING, allow, answer_of, collection, config_map, patch, register, send, with_hooks,
};
use crate::server::admin;

/// Whatever a webhook answers, the request ends in time, with its policy's outcome: with `Fail` the message ends like this.
async fn check(kind: &str, reply: impl Fn() -> Reply + Send + Sync + 'static, expected: &str) {
    let reply = std::sync::Arc::new(reply);
    let replies = reply.clone();
    let (server, hooks) = with_hooks(move |_, _| replies()).await;
    for (policy, code) in [("Fail", 500), ("Ignore", 201)] {
        // Who hangs is seen soon; others have the time of a slow machine.
        let seconds = if matches!(reply(), Reply::Hang) { 2 } else { 30 };
        let change = json!({"failurePolicy": policy, "timeoutSeconds": seconds});
        register(&server.api, kind, "hostile", &[hooks.hook("hostile", &["CREATE"], &["configmaps"], change)]).await;
        let started = Instant::now();
        let answer =
            answer_of(&server.api, &format!("POST {CONFIG_MAPS}"), &config_map(&policy.to_lowercase(), json!({"a": "b"}))).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.code, code, "{message}");
        assert!(code == 201 || message.contains(expected), "{message}");
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
        send(&server.api, 200, &format!("DELETE {}/hostile", collection(kind)), &Value::Null).await;
    }
}

#[tokio::test]
async fn garbage() {
    let failing = "Internal error occurred: failed calling webhook \"hostile.webhook.example\": ";
    let check = async |body: &str, expected: &str| {
        let body = body.to_owned();
        check(VALIDATING, move || Reply::Raw(200, body.clone()), &format!("{failing}{expected}")).await;
    };
    check("", "failed to call webhook: couldn't get version/kind; json parse error: ").await;
    check("<html></html>", "failed to call webhook: couldn't get version/kind; json parse error: ").await;
    check(&"[".repeat(100_000), "failed to call webhook: couldn't get version/kind; json parse error: ").await;
    check(
        "{}",
        "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
    )
    .await;
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
    check(&review.to_string(), "received invalid webhook response: webhook response was absent").await;
    let mut other = review.clone();
    other["response"] = json!({"uid": "other", "allowed": true});
    check(&other.to_string(), "received invalid webhook response: expected response.uid=").await;
}

#[tokio::test]
async fn errors_and_redirects() {
    let check = async |code: u16, expected: &str| {
        check(MUTATING, move || Reply::Raw(code, "no".to_owned()), &format!("failed to call webhook: {expected}")).await;
    };
    check(500, "an error on the server (\"no\") has prevented the request from succeeding").await;
    check(404, "the server could not find the requested resource").await;
    check(302, "the server answers with the redirect 302, which is not followed").await;
}

#[tokio::test]
async fn without_an_end() {
    check(VALIDATING, || Reply::Endless, "the response body is larger than 8388608 bytes").await;
    check(MUTATING, || Reply::Hang, "context deadline exceeded").await;
}

#[tokio::test]
async fn patches_where_none_may_be() {
    let add = || patch(&json!([{"op": "add", "path": "/data/c", "value": "d"}]));
    check(VALIDATING, add, "received invalid webhook response: validating webhook may not return response.patch").await;
}

/// Patches that cannot be applied are refused with the reason, whatever the policy, and change nothing.
#[tokio::test]
async fn patches_that_cannot_be() {
    let check = async |operations: Value, code: u16, expected: &str| {
        let said = operations.clone();
        let (server, hooks) = with_hooks(move |_, _| patch(&said)).await;
        let hook = hooks.hook("hostile", &["CREATE"], &["configmaps"], json!({"failurePolicy": "Ignore"}));
        register(&server.api, MUTATING, "hostile", &[hook]).await;
        let answer = answer_of(&server.api, &format!("POST {CONFIG_MAPS}"), &config_map("a", json!({"a": "b"}))).await;
        assert_eq!(answer.code, code, "{operations}: {:?}", answer.body);
        let found = answer.json();
        let message = found["message"].as_str().unwrap_or_default();
        assert!(message.contains(expected), "{operations}: {message}");
        let stored = admin(&server.api, &format!("GET {CONFIG_MAPS}/a")).await;
        assert_eq!(stored.code, if code == 201 { 200 } else { 404 });
    };
    check(json!([]), 201, "").await;
    let missing =
        "Internal error occurred: error in remove for path: '/nothing': unable to remove nonexistent key: nothing: missing value";
    check(json!([{"op": "remove", "path": "/nothing"}]), 500, missing).await;
    let failed = "Internal error occurred: testing value /data/a failed: test failed";
    check(json!([{"op": "test", "path": "/data/a", "value": "c"}]), 500, failed).await;
    // What is no patch is no answer, which the failure policy says what to do with.
    check(json!({"op": "add"}), 201, "").await;
    check(json!([{"op": "replace", "path": "", "value": 5}]), 500, "Internal error occurred: replace operation value must be")
        .await;
    check(json!([{"op": "replace", "path": "/kind", "value": "Secret"}]), 500, "Internal error occurred: ").await;
    check(json!([{"op": "replace", "path": "/data", "value": "text"}]), 500, "Internal error occurred: ").await;
    check(json!([{"op": "add", "path": "/metadata/name", "value": "Not_A_Name"}]), 422, "metadata.name").await;
    // What it does not know is dropped, and who made the object and when stays the server's to say.
    check(
        json!([{"op": "add", "path": "/unknown", "value": 1}, {"op": "add", "path": "/metadata/uid", "value": "forged"}]),
        201,
        "",
    )
    .await;
    let copies: Vec<Value> = (0..40).map(|_| json!({"op": "copy", "from": "/data", "path": "/data/x"})).collect();
    check(copies.into(), 500, "Internal error occurred: ").await;
}

/// Two webhooks that each undo what the other one did are called twice at most.
#[tokio::test]
async fn loops_end() {
    let (server, hooks) = with_hooks(|path, _| patch(&json!([{"op": "replace", "path": "/data/a", "value": path}]))).await;
    let both = ["x", "y"].map(|path| hooks.hook(path, &["CREATE"], &["configmaps"], json!({"reinvocationPolicy": "IfNeeded"})));
    register(&server.api, MUTATING, "loop", &both).await;
    send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &config_map("a", json!({"a": "b"}))).await;
    assert!(hooks.asked.lock().len() <= 4, "{}", hooks.asked.lock().len());
}

/// While requests wait for a webhook that hangs, large ones too, others are answered at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_answered_meanwhile() {
    let (server, hooks) = with_hooks(|_, _| Reply::Hang).await;
    let selector = json!({"matchLabels": {"hang": "yes"}});
    let change = json!({"timeoutSeconds": 6, "objectSelector": selector});
    register(&server.api, VALIDATING, "hang", &[hooks.hook("hang", &["CREATE"], &["configmaps"], change)]).await;
    let large = |name: &str| {
        let mut object = config_map(name, json!({"a": "x".repeat(300_000)}));
        object["metadata"]["labels"] = json!({"hang": "yes"});
        object
    };
    let names = ["a", "b", "c", "d", "e", "f"];
    let bodies = names.map(large);
    let request = format!("POST {CONFIG_MAPS}");
    let ended = std::sync::atomic::AtomicUsize::new(0);
    let hang = async |body: &Value| {
        let answer = answer_of(&server.api, &request, body).await;
        ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        answer
    };
    let hanging = futures::future::join_all(bodies.iter().map(hang));
    let others = async {
        while hooks.asked.lock().len() < names.len() {
            tokio::task::yield_now().await;
        }
        let free = config_map("free", json!({"a": "x".repeat(300_000)}));
        assert_eq!(answer_of(&server.api, &request, &free).await.code, 201);
        assert_eq!(ended.load(std::sync::atomic::Ordering::SeqCst), 0, "it has not waited for them");
    };
    let (hung, ()) = tokio::join!(hanging, others);
    assert!(hung.iter().all(|answer| answer.code == 500));
}

/// A webhook changes no more of an object than the request could have: not who made it and when, not its status, and through the
/// status nothing else.
#[tokio::test]
async fn what_a_request_may_not_change() {
    let forged = json!([
        {"op": "replace", "path": "/metadata/uid", "value": "forged"},
        {"op": "replace", "path": "/metadata/creationTimestamp", "value": "2000-01-01T00:00:00Z"},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "1"},
        {"op": "replace", "path": "/spec/replicas", "value": 7},
        {"op": "add", "path": "/status", "value": {"replicas": 5, "observedGeneration": 9}},
    ]);
    let (server, hooks) = with_hooks(move |_, _| patch(&forged)).await;
    let resources = ["deployments", "deployments/status"];
    register(&server.api, MUTATING, "forge", &[hooks.hook("forge", &["UPDATE"], &resources, json!({}))]).await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let path = "/apis/apps/v1/namespaces/ns/deployments";
    let made = send(&server.api, 201, &format!("POST {path}"), &deployment).await;
    let kept = |object: &Value| ["uid", "creationTimestamp"].map(|key| object["metadata"][key].clone());
    let changed = send(&server.api, 200, &format!("PATCH {path}/d"), &json!({"spec": {"replicas": 2}})).await;
    assert_eq!((kept(&changed), &changed["spec"]["replicas"], &changed["status"]), (kept(&made), &json!(7), &json!({})));
    assert_eq!(changed["metadata"]["generation"], 2);
    let patched = send(&server.api, 200, &format!("PATCH {path}/d/status"), &json!({"status": {"replicas": 1}})).await;
    assert_eq!(
        (kept(&patched), &patched["spec"]["replicas"], &patched["status"]["replicas"]),
        (kept(&made), &json!(7), &json!(5))
    );
}

/// A namespace goes while a webhook thinks about an object in it: the object is not made, which nobody would delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_namespace_that_goes_meanwhile() {
    for kind in [MUTATING, VALIDATING] {
        let (arrive, mut arrived) = tokio::sync::mpsc::unbounded_channel();
        let (release, held) = std::sync::mpsc::channel();
        let held = parking_lot::Mutex::new(held);
        let (server, hooks) = with_hooks(move |_, _| {
            arrive.send(()).unwrap();
            tokio::task::block_in_place(|| held.lock().recv()).unwrap();
            allow()
        })
        .await;
        let api = &server.api;
        register(api, kind, "slow", &[hooks.hook("slow", &["CREATE"], &["configmaps"], json!({}))]).await;
        let (request, late) = (format!("POST {CONFIG_MAPS}"), config_map("late", json!({})));
        let (made, ()) = tokio::join!(answer_of(api, &request, &late), async {
            arrived.recv().await.unwrap();
            send(api, 200, "DELETE /api/v1/namespaces/ns", &Value::Null).await;
            release.send(()).unwrap();
        });
        let expected =
            "configmaps \"late\" is forbidden: unable to create new content in namespace ns because it is being terminated";
        assert_eq!((made.code, made.json()["message"].as_str()), (403, Some(expected)), "{kind}");
        assert_eq!(answer_of(api, &format!("GET {CONFIG_MAPS}/late"), &Value::Null).await.code, 404, "{kind}");
    }
}
