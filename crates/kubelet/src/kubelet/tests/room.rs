//! Pods for which there is no room: critical ones get it, others are rejected.

use client::fake::Fake;
use client::{Api, Informers};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

use crate::allocatable::Reserved;
use crate::options::Options;
use crate::testing::{Cell, condition};

const CRITICAL: i32 = 2_000_000_000;

/// Writes a static pod with one container, of its own name.
fn write(directory: &Path, name: &str, spec: &Value) {
    std::fs::create_dir_all(directory).unwrap();
    let mut spec = spec.clone();
    spec["containers"] = json!([{"name": name, "image": "img", "resources": spec["resources"]}]);
    spec.as_object_mut().unwrap().remove("resources");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"}, "spec": spec});
    std::fs::write(directory.join(name), pod.to_string()).unwrap();
}

/// Guaranteed Scheduling For Critical Add-On Pods: the kubelet ends others so that a critical pod is admitted.
#[tokio::test]
async fn a_critical_pod_is_admitted_to_a_full_node() {
    let cell = Cell::new();
    cell.start_as(|options| options.max_pods = 2).await;
    let asking = |name: &str| json!([{"name": name, "resources": {"requests": {"cpu": "1m"}}}]);
    cell.put("asking", json!({"containers": asking("a")}));
    cell.put("best", json!({"containers": [{"name": "b"}]}));
    cell.ready("asking").await;
    cell.ready("best").await;
    cell.put("late", json!({"containers": [{"name": "l"}]}));
    assert_eq!(cell.until("late", |status| status["phase"] == "Failed").await["reason"], "OutOfpods");

    cell.put("critical", json!({"priority": CRITICAL, "containers": [{"name": "c"}]}));
    cell.ready("critical").await;
    let ended = cell.until("best", |status| status["phase"] == "Failed").await;
    assert_eq!((&ended["reason"], &ended["message"]), (&json!("Preempting"), &json!("Preempted in order to admit critical pod")));
    assert_eq!(condition(&ended, "DisruptionTarget"), "True");
    assert_eq!(cell.until("asking", |_| true).await["phase"], "Running");
    let calls = cell.runtime.world.lock().calls.clone();
    let at = |call: &str| calls.iter().position(|known| known == call).unwrap_or_else(|| panic!("no {call}: {calls:?}"));
    assert!(at("stop b 30s") < at("create c"), "it starts when there is room: {calls:?}");
    let told = |events: &[Event]| {
        let reason = |event: &Event| {
            event.reason.as_deref() == Some("Preempting") && event.involved_object.name.as_deref() == Some("best")
        };
        events.iter().any(reason)
    };
    tokio::time::timeout(Duration::from_secs(60), cell.fake.until::<Event>(told)).await.unwrap();
    let page = base::metrics::Page::Node.encode(base::metrics::Format::Text);
    assert!(page.contains("kubelet_preemptions{preemption_signal=\"pods\"}"), "{page}");

    // What cannot be had without all others either ends nobody.
    let greedy = json!([{"name": "g", "resources": {"requests": {"cpu": "10000"}}}]);
    cell.put("greedy", json!({"priority": CRITICAL, "containers": greedy}));
    let refused = cell.until("greedy", |status| status["phase"] == "Failed").await;
    assert_eq!(refused["reason"], "UnexpectedAdmissionError");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("no set of running pods found to reclaim resources: [(res: cpu, q: "), "{message}");
    // Nor does what is refused for another reason as well.
    cell.put("elsewhere", json!({"priority": CRITICAL, "nodeSelector": {"no": "where"}, "containers": [{"name": "e"}]}));
    assert_eq!(cell.until("elsewhere", |status| status["phase"] == "Failed").await["reason"], "NodeAffinity");
    assert_eq!(cell.until("asking", |_| true).await["phase"], "Running");
}

/// kubernetes#134445: the scheduler may have seen labels of the Node that its kubelet has not seen yet, and a refusal is for good. A node that
/// is ready again loses its taints in the same way.
#[tokio::test]
async fn a_pod_is_refused_by_what_the_node_is_now() {
    let cell = Cell::new();
    // The informers never hear of changes of the Node.
    let late = Fake::default();
    cell.start_as(|options| options.informers = Informers::new(late.client(), cell.tasks.clone())).await;
    let mut before = cell.fake.all::<Node>().remove(0);
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"});
    before.spec.get_or_insert_default().taints = Some(vec![serde_json::from_value(taint.clone()).unwrap()]);
    late.put(&before);
    let nodes = Api::<Node>::all(cell.fake.client());
    let change = async |patch: Value| nodes.patch("n1", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let put = |name: &str, zone: &str| {
        cell.put(name, json!({"nodeSelector": {"zone": zone}, "containers": [{"name": name}]}));
        late.put(cell.fake.all::<Pod>().iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap());
    };
    change(json!({"metadata": {"labels": {"zone": "a"}}})).await;
    put("first", "a");
    cell.ready("first").await;
    // Nor is one admitted by labels that were asked for before.
    change(json!({"metadata": {"labels": {"zone": "b"}}})).await;
    put("second", "b");
    cell.ready("second").await;
    change(json!({"spec": {"taints": [taint]}})).await;
    put("third", "a");
    assert_eq!(cell.until("third", |status| status["phase"] == "Failed").await["reason"], "NodeAffinity");
    put("fourth", "b");
    let refused = cell.until("fourth", |status| status["phase"] == "Failed").await;
    let message = "Pod was rejected: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
    assert_eq!((&refused["reason"], &refused["message"]), (&json!("TaintToleration"), &json!(message)));
}

/// A static pod that the node has refused is refused again by the next kubelet, or runs when there is no reason any more; its mirror says so.
#[tokio::test]
async fn a_rejected_static_pod_is_admitted_anew_at_each_start() {
    let mut cell = Cell::new();
    let directory = cell.directory.path().join("manifests");
    write(&directory, "greedy", &json!({"resources": {"requests": {"cpu": "10000"}}}));
    write(&directory, "picky", &json!({"nodeSelector": {"zone": "a"}}));
    write(&directory, "once", &json!({"restartPolicy": "Never"}));
    let statics = Some(directory.clone());
    cell.start_as(|options| options.static_pods = statics.clone()).await;
    let greedy = cell.until("greedy-n1", |status| status["phase"] == "Failed").await;
    assert_eq!(greedy["reason"], "UnexpectedAdmissionError");
    assert_eq!(cell.until("picky-n1", |status| status["phase"] == "Failed").await["reason"], "NodeAffinity");
    cell.ready("once-n1").await;
    cell.runtime.end("once", 3);
    let once = cell.until("once-n1", |status| status["phase"] == "Failed").await;
    cell.stop().await;

    cell.start_as(|options| {
        options.static_pods = statics.clone();
        options.labels.insert("zone".to_owned(), "a".to_owned());
    })
    .await;
    let picky = cell.ready("picky-n1").await;
    assert_eq!((&picky["phase"], &picky["reason"]), (&json!("Running"), &Value::Null));
    assert_eq!(cell.until("greedy-n1", |_| true).await, greedy);
    assert_eq!(cell.until("once-n1", |_| true).await, once, "it has ended by itself");

    // Another mirror says the same.
    let uid = |pods: &[Pod]| {
        pods.iter().find(|pod| pod.metadata.name.as_deref() == Some("greedy-n1")).and_then(|pod| pod.metadata.uid.clone())
    };
    let before = uid(&cell.fake.all::<Pod>());
    cell.pods()
        .delete("greedy-n1", &kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() })
        .await
        .unwrap();
    cell.fake.until::<Pod>(|pods| uid(pods).is_some_and(|uid| Some(uid) != before)).await;
    let again = cell.until("greedy-n1", |status| status["phase"] == "Failed").await;
    assert_eq!((&again["reason"], &again["containerStatuses"]), (&greedy["reason"], &Value::Null));
}

/// Upstream removes stale state before it allocates (`removeStaleState`).
#[tokio::test]
async fn what_a_pod_had_that_was_deleted_meanwhile_is_waited_for() {
    let mut cell = Cell::new();
    let cpus = crate::node::machine::Machine::read(cell.directory.path()).cpus;
    let exclusive = |options: &mut Options| {
        options.cpu_manager = crate::cpus::Policy::Static;
        options.system_reserved = Reserved { milli_cpu: 1000, ..Reserved::default() };
    };
    // All that is not reserved.
    let amounts = json!({"cpu": (cpus - 1).to_string(), "memory": "1Mi"});
    let resources = json!({"requests": amounts, "limits": amounts});
    let spec = |name: &str| json!({"containers": [{"name": name, "resources": resources}]});
    cell.start_as(exclusive).await;
    cell.put("old", spec("a"));
    cell.ready("old").await;
    cell.stop().await;
    cell.pods().delete("old", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    cell.put("new", spec("b"));
    cell.start_as(exclusive).await;
    let status = cell.until("new", |status| condition(status, "Ready") == "True" || status["phase"] == "Failed").await;
    assert_eq!(status["phase"], "Running", "{status}");
}

/// A pod that does not fit the Node object waits until the API has said what the Node is, however often that takes; nothing else of the node
/// waits for it, and many such pods have one answer.
#[tokio::test]
async fn nobody_waits_for_a_pod_that_the_api_is_asked_about() {
    let cell = Cell::new();
    // The informers never hear of changes of the Node.
    let late = Fake::default();
    let (held, asked) = (watch::Sender::new(false), watch::Sender::new(0));
    let (inner, hold, count) = (cell.fake.client(), held.subscribe(), asked.clone());
    let between = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (inner, mut hold, count) = (inner.clone(), hold.clone(), count.clone());
        async move {
            let is_question = request.method() == "GET" && request.uri().path() == "/api/v1/nodes/n1";
            if is_question && (*hold.borrow() || *count.borrow() > 0) {
                count.send_modify(|count| *count += 1);
                let is_first = *count.borrow() == 1;
                hold.wait_for(|hold| !hold).await.unwrap();
                // The first answer is none.
                if is_first {
                    let body = kube::client::Body::from(b"away".to_vec());
                    return Ok(http::Response::builder().status(503).body(body).unwrap());
                }
            }
            inner.send(request).await
        }
    });
    cell.start_as(|options| {
        options.informers = Informers::new(late.client(), cell.tasks.clone());
        options.client = kube::Client::new(between, "default");
    })
    .await;
    late.put(&cell.fake.all::<Node>().remove(0));
    let labels = json!({"metadata": {"labels": {"zone": "a"}}});
    Api::<Node>::all(cell.fake.client()).patch("n1", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    let put = |name: &str, spec: Value| {
        cell.put(name, spec);
        late.put(cell.fake.all::<Pod>().iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap());
    };
    let picky = |zone: &str| json!({"nodeSelector": {"zone": zone}, "containers": [{"name": "c"}]});
    held.send_replace(true);
    put("right", picky("a"));
    asked.subscribe().wait_for(|asked| *asked >= 1).await.unwrap();
    let many: Vec<_> = (0..20).map(|number| format!("wrong{number}")).collect();
    many.iter().for_each(|name| put(name, picky("b")));
    put("other", json!({"containers": [{"name": "o"}]}));
    cell.ready("other").await;
    assert_eq!(cell.until("right", |_| true).await["phase"], Value::Null, "nobody has said that it may not run");

    held.send_replace(false);
    cell.ready("right").await;
    for name in &many {
        assert_eq!(cell.until(name, |status| status["phase"] == "Failed").await["reason"], "NodeAffinity");
    }
    assert!(*asked.borrow() < 10, "asked {} times", *asked.borrow());
}
