//! Whole pods on real containers. Needs root and the package busybox-static; everything lives in temporary directories
//! and in cgroups of its own name, and is removed also when a test fails.
#![allow(clippy::unwrap_used)]

mod support;

use client::Api;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::Node;

fn script(name: &str, text: &str) -> Value {
    json!({"name": name, "command": ["sh", "-c", text]})
}

fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_environment_reach_the_containers() {
    let Some(node) = Node::start().await else { return };
    let object = |data: Value| json!({"metadata": {"name": "m", "namespace": "ns"}, "data": data});
    node.fake.put::<ConfigMap>(&serde_json::from_value(object(json!({"key": "from map"}))).unwrap());
    node.fake.put::<Secret>(&serde_json::from_value(object(json!({"pass": "c2VjcmV0"}))).unwrap());
    let mut main = script(
        "main",
        "cat /map/key; echo; echo $PASS $POD; cat /scratch/made; cat /sub; cat /info/labels; echo; id -u; grep web /etc/hosts >/dev/null && echo hosts; \
         stat -c %a /scratch; echo bye > /dev/termination-log; exit 0",
    );
    main["env"] = json!([
        {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "m", "key": "pass"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    main["securityContext"] = json!({"runAsUser": 1000});
    main["volumeMounts"] = json!([
        {"name": "map", "mountPath": "/map"}, {"name": "scratch", "mountPath": "/scratch"},
        {"name": "scratch", "mountPath": "/sub", "subPath": "made"}, {"name": "info", "mountPath": "/info"}]);
    let mut init = script("init", "echo made by init > /scratch/made");
    init["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
    node.put(
        "web",
        json!({
            "restartPolicy": "Never", "securityContext": {"fsGroup": 2000},
            "initContainers": [init], "containers": [main],
            "volumes": [{"name": "map", "configMap": {"name": "m"}}, {"name": "scratch", "emptyDir": {"medium": "Memory"}},
                {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}),
    );
    let status = node.until("web", |status| matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"))).await;
    let log = node.logs("web", "main").await;
    let expected = "from map\nsecret web\nmade by init\nmade by init\napp=\"web\"\n1000\n";
    assert!(log.starts_with(expected), "{log} {}", serde_json::to_string_pretty(&status).unwrap());
    // Of the group, and sticky as the root of a tmpfs is.
    assert!(log.ends_with("3777\n"), "{log}");
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["message"], "bye\n");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_becomes_ready_and_goes_without_a_trace() {
    let Some(node) = Node::start().await else { return };
    let mut main = script("main", "trap 'echo terminated; exit 0' TERM; touch /tmp/up; while true; do sleep 0.05; done");
    main["readinessProbe"] = json!({"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1});
    main["lifecycle"] = json!({"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}});
    main["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch", "subPath": "a/b"}]);
    let begun = std::time::Instant::now();
    node.put("p", json!({"containers": [main], "volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory"}}]}));
    node.until("p", is_ready).await;
    eprintln!("ready after {:?}", begun.elapsed());
    let deletion = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:09Z", "deletionGracePeriodSeconds": 10}});
    let pods = Api::<Pod>::namespaced(node.fake.client(), "ns");
    pods.patch("p", &PatchParams::default(), &Patch::Merge(deletion)).await.unwrap();
    node.until("p", Value::is_null).await;
    let wait = async {
        use futures::StreamExt;
        use runtime::api::Runtime;
        let mut events = node.engine.events();
        while !node.engine.sandboxes().await.unwrap().is_empty() {
            let _ = tokio::time::timeout(std::time::Duration::from_millis(50), events.next()).await;
        }
        while node.dir.path().join("kubelet/pods/uid-p").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.expect("something of the pod stays");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(node.dir.path().to_str().unwrap()), "nothing stays mounted: {mounts}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_there_is_told() {
    let Some(node) = Node::start().await else { return };
    node.put("p", json!({"restartPolicy": "Never", "containers": [{"name": "main", "command": ["/missing"]}]}));
    let status = node.until("p", |status| status["phase"] == "Failed").await;
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((ended["exitCode"].as_i64(), ended["reason"].as_str()), (Some(128), Some("StartError")), "{status}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_and_followed_logs_reach_a_running_container() {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Some(node) = Node::start().await else { return };
    let text = "echo first; until test -e /tmp/go; do sleep 0.02; done; echo second";
    node.put("p", json!({"restartPolicy": "Never", "containers": [script("main", text)]}));
    node.until("p", is_ready).await;
    let follow = kubelet::logs::LogOptions { follow: true, ..Default::default() };
    let log = node.api.logs("ns", "p", "main", follow).await.unwrap();
    let command = ["sh", "-c", "cat > /tmp/in; cat /tmp/in; echo trouble >&2; exit 7"].map(str::to_owned).to_vec();
    let request = runtime::api::ExecRequest { command, tty: false, stdin: true, stdout: true, stderr: true };
    let mut streams = node.api.exec("ns", "p", "main", request).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"typed").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    streams.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    streams.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str(), streams.exit.await.unwrap().unwrap()), ("typed", "trouble\n", 7));
    // The container ends with this, and may take the command with it: only now, and whatever becomes of it.
    let command = ["sh", "-c", ": > /tmp/go"].map(str::to_owned).to_vec();
    let request = runtime::api::ExecRequest { command, ..Default::default() };
    let _go = node.api.exec("ns", "p", "main", request).await.unwrap();
    let parts: Vec<_> = log.map(Result::unwrap).collect().await;
    assert_eq!(String::from_utf8(parts.concat()).unwrap(), "first\nsecond\n");
    node.stop().await;
}
