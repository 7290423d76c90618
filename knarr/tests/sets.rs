//! StatefulSets, DaemonSets and their revisions on real containers, as upstream's conformance tests go through them.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";
const NGINX: [&str; 2] = ["127.0.0.1:5000/nginx:1.27", "127.0.0.1:5000/nginx:1.28"];

/// A web server that is ready as long as it has a page.
fn server() -> Value {
    json!({
        "name": "web", "image": BUSYBOX,
        "command": ["sh", "-c", "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www"],
        "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 10, "successThreshold": 1,
            "failureThreshold": 1},
    })
}

/// A set of the kind with that name, whose pods have the label `app`.
fn workload(kind: &str, name: &str, container: Value, spec: Value) -> String {
    let labels = json!({"app": name});
    let mut whole = json!({"selector": {"matchLabels": labels}, "template": {
        "metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}});
    merge(&mut whole, spec);
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": whole}).to_string()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn stateful(name: &str, replicas: u32, container: Value, spec: Value) -> String {
    let mut whole = json!({"replicas": replicas, "serviceName": "peers"});
    merge(&mut whole, spec);
    workload("StatefulSet", name, container, whole)
}

/// Waits until a field of an object has a value.
fn until(c: &Cluster, object: &str, field: &str, value: &str) {
    c.k(&format!("wait --for=jsonpath={{{field}}}={value} {object} --timeout=60s"));
}

fn field(c: &Cluster, object: &str, path: &str) -> String {
    c.k(&format!("get {object} -o jsonpath={{{path}}}"))
}

/// The pods of a set with the value of a field of each, by name.
fn pods(c: &Cluster, app: &str, path: &str) -> Vec<String> {
    let (selector, format) =
        (format!("app={app}"), format!("jsonpath={{range .items[*]}}{{.metadata.name}}={{{path}}}{{'\\n'}}{{end}}"));
    let all = c.kubectl(&["get", "pods", "-l", &selector, "--sort-by=.metadata.name", "-o", &format]);
    all.lines().map(str::to_owned).collect()
}

fn sh(c: &Cluster, pod: &str, script: &str) -> String {
    c.kubectl(&["exec", pod, "--", "sh", "-c", script])
}

fn patch(c: &Cluster, object: &str, patch: &Value) {
    c.kubectl(&["patch", object, "--type=merge", "-p", &patch.to_string()]);
}

/// Waits until the controller has seen the set as it is now.
fn observed(c: &Cluster, object: &str) {
    until(c, object, ".status.observedGeneration", &field(c, object, ".metadata.generation"));
}

/// Follows the names of the set's pods in the order in which they come, then in that in which they go.
fn order(c: &Cluster, app: &str) -> testing::Background {
    c.background(&format!("get pods -l app={app} --watch --output-watch-events"))
}

/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow] [Conformance]
/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource [Conformance]
#[test]
fn a_stateful_set_scales_in_order_and_halts() {
    let c = Cluster::start(KNARR);
    let watched = order(&c, "ss");
    c.k("create service clusterip peers --clusterip=None");
    c.kubectl(&["set", "selector", "service", "peers", "app=ss"]);
    c.k_with("apply -f -", &stateful("ss", 1, server(), json!({})));
    c.k("rollout status statefulset/ss --timeout=60s");
    sh(&c, "ss-0", "mv /www/index.html /tmp");
    c.k("wait --for=condition=Ready=false pod/ss-0 --timeout=60s");
    until(&c, "statefulset/ss", ".status.availableReplicas", "0");
    c.k("scale statefulset/ss --replicas=3");
    observed(&c, "statefulset/ss");
    assert_eq!(pods(&c, "ss", ".metadata.labels.app").len(), 1);
    sh(&c, "ss-0", "mv /tmp/index.html /www");
    c.k("rollout status statefulset/ss --timeout=60s");
    ["ss-0", "ss-1", "ss-2"].iter().for_each(|pod| assert!(watched.line("ADDED").contains(pod)));

    assert_eq!(sh(&c, "ss-2", "hostname"), "ss-2\n");
    let page = || c.try_kubectl(&["exec", "ss-2", "--", "wget", "-qO-", "http://ss-0.peers:8080/index.html"]);
    eventually("pods reach each other by name", || (page().stdout == "hello\n").then_some(()));
    assert_eq!(pods(&c, "ss", ".metadata.labels.apps\\.kubernetes\\.io/pod-index"), ["ss-0=0", "ss-1=1", "ss-2=2"]);

    let all = ["ss-0", "ss-1", "ss-2"];
    all.iter().for_each(|pod| drop(sh(&c, pod, "mv /www/index.html /tmp")));
    until(&c, "statefulset/ss", ".status.availableReplicas", "0");
    c.k("scale statefulset/ss --replicas=0");
    observed(&c, "statefulset/ss");
    assert_eq!(pods(&c, "ss", ".metadata.labels.app").len(), 3);
    all.iter().for_each(|pod| drop(c.try_kubectl(&["exec", pod, "--", "mv", "/tmp/index.html", "/www"])));
    until(&c, "statefulset/ss", ".status.replicas", "0");
    ["ss-2", "ss-1", "ss-0"].iter().for_each(|pod| assert!(watched.line("DELETED").contains(pod)));
    scale_subresource(&c);
}

fn scale_subresource(c: &Cluster) {
    let path = "/apis/apps/v1/namespaces/default/statefulsets/ss/scale";
    let mut scale: Value = serde_json::from_str(&c.k(&format!("get --raw {path}"))).unwrap();
    assert_eq!((&scale["spec"], &scale["status"]["selector"]), (&json!({}), &json!("app=ss")));
    scale["spec"]["replicas"] = 2.into();
    // "indicate the scale update should be unconditional" (test/e2e/apps/statefulset.go): the controller may have written meanwhile.
    scale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let answer: Value = serde_json::from_str(&c.k_with(&format!("replace --raw {path} -f -"), &scale.to_string())).unwrap();
    assert_eq!(answer["spec"]["replicas"], 2);
    assert_eq!(field(c, "statefulset/ss", ".spec.replicas"), "2");
    c.kubectl(&["patch", "statefulset/ss", "--subresource=scale", "--type=merge", "-p", r#"{"spec":{"replicas":4}}"#]);
    assert_eq!(field(c, "statefulset/ss", ".spec.replicas"), "4");
}

/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Burst scaling should run to completion even with unhealthy pods [Slow] [Conformance]
/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Should recreate evicted statefulset [Conformance]
#[test]
fn parallel_sets_and_lost_pods() {
    let c = Cluster::start(KNARR);
    let parallel = json!({"podManagementPolicy": "Parallel"});
    c.k_with("apply -f -", &stateful("burst", 1, server(), parallel));
    c.k("rollout status statefulset/burst --timeout=60s");
    sh(&c, "burst-0", "mv /www/index.html /tmp");
    c.k("wait --for=condition=Ready=false pod/burst-0 --timeout=60s");
    c.k("scale statefulset/burst --replicas=3");
    until(&c, "statefulset/burst", ".status.readyReplicas", "2");
    assert_eq!(field(&c, "statefulset/burst", ".status.replicas"), "3");
    sh(&c, "burst-0", "mv /tmp/index.html /www");
    until(&c, "statefulset/burst", ".status.readyReplicas", "3");
    for pod in ["burst-0", "burst-1", "burst-2"] {
        sh(&c, pod, "rm /www/index.html");
        c.k(&format!("wait --for=condition=Ready=false pod/{pod} --timeout=60s"));
    }
    c.k("scale statefulset/burst --replicas=0");
    until(&c, "statefulset/burst", ".status.replicas", "0");
    evicted(&c);
}

/// A pod that the kubelet refuses, since another has its port, is made again until it runs.
fn evicted(c: &Cluster) {
    let node = c.k("get nodes -o jsonpath={.items[0].metadata.name}");
    let port = json!([{"containerPort": 8080, "hostPort": 21017}]);
    let mut container = server();
    container["ports"] = port;
    let spec = json!({"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "holder"}, "spec": spec});
    c.k_with("apply -f -", &pod.to_string());
    c.k("wait --for=condition=Ready pod/holder --timeout=60s");
    c.k_with("apply -f -", &stateful("evicted", 1, container, json!({"template": {"spec": {"nodeName": node}}})));
    let uid = || {
        let uid = c.try_kubectl(&["get", "pod", "evicted-0", "-o", "jsonpath={.metadata.uid}"]);
        (uid.code == Some(0)).then_some(uid.stdout)
    };
    let first = eventually("the first pod is there", uid);
    eventually("another pod is made", || uid().filter(|uid| *uid != first));
    c.k("delete pod holder");
    until(c, "statefulset/evicted", ".status.readyReplicas", "1");
}

/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform rolling updates and roll backs of template modifications [Conformance]
/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates and phased rolling updates of template modifications [Conformance]
#[test]
fn a_stateful_set_rolls_out_and_back() {
    let c = Cluster::start(KNARR);
    let container = |image: &str| json!({"name": "web", "image": image, "readinessProbe": {"tcpSocket": {"port": 80}}});
    c.k_with("apply -f -", &stateful("ss", 3, container(NGINX[0]), json!({})));
    c.k("rollout status statefulset/ss --timeout=60s");
    let revisions = || {
        let text = field(&c, "statefulset/ss", ".status['currentRevision','updateRevision']");
        let (current, update) = text.split_once(' ').unwrap();
        (current.to_owned(), update.to_owned())
    };
    let of_pods = || pods(&c, "ss", ".metadata.labels.controller-revision-hash");
    let all = |revision: &str| [0, 1, 2].map(|number| format!("ss-{number}={revision}"));
    let (first, update) = revisions();
    assert_eq!((&first, of_pods()), (&update, all(&first).to_vec()));

    let watched = order(&c, "ss");
    // It has begun when it has said what there is.
    watched.line("ss-2");
    c.k(&format!("set image statefulset/ss web={}", NGINX[1]));
    observed(&c, "statefulset/ss");
    let second = revisions().1;
    assert_ne!(first, second);
    c.k("rollout status statefulset/ss --timeout=60s");
    until(&c, "statefulset/ss", ".status.currentRevision", &second);
    assert_eq!(of_pods(), all(&second));
    ["ss-2", "ss-1", "ss-0"].iter().for_each(|pod| assert!(watched.line("DELETED").contains(pod)));

    // kubectl finds out by the bytes of a revision that there is nothing to undo.
    let nothing = c.k("rollout undo statefulset/ss --to-revision=2");
    assert!(nothing.contains("skipped rollback (current template already matches revision 2)"), "{nothing}");
    c.k("rollout undo statefulset/ss");
    c.k("rollout status statefulset/ss --timeout=60s");
    until(&c, "statefulset/ss", ".status.currentRevision", &first);
    assert_eq!(of_pods(), all(&first));
    let history = c.k("rollout history statefulset/ss");
    assert!(history.lines().any(|line| line.starts_with('3')) && !history.lines().any(|line| line.starts_with('1')), "{history}");
    canary(&c, &first, &second);
}

fn canary(c: &Cluster, first: &str, second: &str) {
    let of_pods = || pods(c, "ss", ".metadata.labels.controller-revision-hash");
    let partition = |number: u32| json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": number}}}});
    let split = |partition: usize| -> Vec<String> {
        (0..3).map(|number| format!("ss-{number}={}", if number < partition { first } else { second })).collect()
    };
    patch(c, "statefulset/ss", &partition(3));
    c.k(&format!("set image statefulset/ss web={}", NGINX[1]));
    observed(c, "statefulset/ss");
    assert_eq!((field(c, "statefulset/ss", ".status.updateRevision"), of_pods()), (second.to_owned(), split(3)));
    patch(c, "statefulset/ss", &partition(2));
    until(c, "statefulset/ss", ".status.updatedReplicas", "1");
    let status = c.k("rollout status statefulset/ss --timeout=60s");
    assert!(status.contains("partitioned roll out complete: 1 new pods have been updated"), "{status}");
    assert_eq!(of_pods(), split(2));
    // What is lost comes back as it was.
    c.k("delete pod ss-0 ss-2 --wait=true");
    eventually("the pods are back", || (of_pods().len() == 3).then_some(()));
    until(c, "statefulset/ss", ".status.readyReplicas", "3");
    assert_eq!(of_pods(), split(2));
    for number in [1, 0] {
        patch(c, "statefulset/ss", &partition(number));
        c.k("rollout status statefulset/ss --timeout=60s");
        assert_eq!(of_pods(), split(number as usize));
    }
    until(c, "statefulset/ss", ".status.currentRevision", second);
}

/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of StatefulSets [Conformance]
/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints [Conformance]
/// Conformance: [sig-apps] Daemon set [Serial] should verify changes to a daemon set status [Conformance]
/// Conformance: [sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets [Conformance]
#[test]
fn collections_and_status() {
    let c = Cluster::start(KNARR);
    let container = json!({"name": "web", "image": NGINX[0]});
    c.k_with("apply -f -", &stateful("both", 1, container.clone(), json!({})));
    c.k_with("apply -f -", &workload("DaemonSet", "both", container, json!({})));
    for (kind, collection) in [("statefulset", "statefulsets"), ("daemonset", "daemonsets")] {
        c.k(&format!("rollout status {kind}/both --timeout=60s"));
        assert_eq!(c.k(&format!("get {collection} -A -l app=both -o name")).lines().count(), 1);
        let path = format!("/apis/apps/v1/namespaces/default/{collection}/both/status");
        let object = format!("{kind}/both");
        let condition = |name: &str| json!({"status": {"conditions": [{"type": name, "status": "True", "reason": "E2E", "message": "Set from e2e test"}]}});
        // As upstream, again when the controller has written meanwhile.
        eventually("the status is replaced", || {
            let mut read: Value = serde_json::from_str(&c.k(&format!("get --raw {path}"))).unwrap();
            assert!(read["status"]["conditions"].is_null(), "{read}");
            merge(&mut read, condition("StatusUpdate"));
            let replaced = c.try_k_with(&format!("replace --raw {path} -f -"), &read.to_string());
            assert!(replaced.code == Some(0) || replaced.stderr.contains("the object has been modified"), "{replaced:?}");
            (replaced.code == Some(0)).then_some(())
        });
        until(&c, &object, ".status.conditions[0].type", "StatusUpdate");
        c.kubectl(&["patch", &object, "--subresource=status", "--type=merge", "-p", &condition("StatusPatched").to_string()]);
        // The controller keeps conditions that it does not know.
        patch(&c, &object, &json!({"metadata": {"labels": {"touched": "yes"}}, "spec": {"minReadySeconds": 1}}));
        observed(&c, &object);
        assert_eq!(field(&c, &object, ".status.conditions[*].type"), "StatusPatched");

        let delete = format!("/apis/apps/v1/namespaces/default/{collection}?labelSelector=touched%3Dyes");
        c.k(&format!("delete --raw {delete}"));
        eventually("the collection is empty", || c.k(&format!("get {collection} -o name")).is_empty().then_some(()));
    }
    c.k("wait --for=delete pod -l app=both --timeout=60s");
}

/// Conformance: [sig-apps] Daemon set [Serial] should run and stop simple daemon [Conformance]
/// Conformance: [sig-apps] Daemon set [Serial] should run and stop complex daemon [Conformance]
/// Conformance: [sig-apps] Daemon set [Serial] should retry creating failed daemon pods [Conformance]
/// Conformance: [sig-apps] Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate [Conformance]
#[test]
fn daemons_follow_their_nodes() {
    let c = Cluster::start(KNARR);
    let container = || json!({"name": "app", "image": NGINX[0]});
    c.k_with("apply -f -", &workload("DaemonSet", "agent", container(), json!({})));
    c.k("rollout status daemonset/agent --timeout=60s");
    let uid =
        |app: &str| eventually("a pod is there", || Some(pods(&c, app, ".metadata.uid").join(" ")).filter(|uid| !uid.is_empty()));
    let first = uid("agent");
    c.k("delete pod -l app=agent");
    c.k("rollout status daemonset/agent --timeout=60s");
    let second = uid("agent");
    assert_ne!(first, second);
    // A pod that has failed is replaced.
    let name = second.split('=').next().unwrap();
    c.kubectl(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", r#"{"status":{"phase":"Failed"}}"#]);
    c.k(&format!("wait --for=delete pod/{name} --timeout=60s"));
    c.k("rollout status daemonset/agent --timeout=60s");
    c.told("", &["FailedDaemonPod"]);

    c.k(&format!("set image daemonset/agent app={}", NGINX[1]));
    c.k("rollout status daemonset/agent --timeout=60s");
    let pods_have = pods(&c, "agent", ".spec.containers[0].image");
    assert!(pods_have.len() == 1 && pods_have[0].ends_with(NGINX[1]), "{pods_have:?}");
    let nothing = c.k("rollout undo daemonset/agent --to-revision=2");
    assert!(nothing.contains("skipped rollback (current template already matches revision 2)"), "{nothing}");
    c.k("rollout undo daemonset/agent");
    c.k("rollout status daemonset/agent --timeout=60s");
    assert!(pods(&c, "agent", ".spec.containers[0].image")[0].ends_with(NGINX[0]));
    complex(&c);
}

fn complex(c: &Cluster) {
    let node = c.k("get nodes -o jsonpath={.items[0].metadata.name}");
    let blue = json!({"template": {"spec": {"nodeSelector": {"color": "blue"}}}});
    c.k_with("apply -f -", &workload("DaemonSet", "painted", json!({"name": "app", "image": NGINX[0]}), blue));
    observed(c, "daemonset/painted");
    assert_eq!(field(c, "daemonset/painted", ".status.desiredNumberScheduled"), "0");
    c.k(&format!("label node {node} color=blue"));
    until(c, "daemonset/painted", ".status.numberAvailable", "1");
    c.k(&format!("label node {node} color=green --overwrite"));
    until(c, "daemonset/painted", ".status.desiredNumberScheduled", "0");
    c.k("wait --for=delete pod -l app=painted --timeout=60s");
    patch(c, "daemonset/painted", &json!({"spec": {"template": {"spec": {"nodeSelector": {"color": "green"}}}}}));
    until(c, "daemonset/painted", ".status.numberAvailable", "1");
    // A taint that is not tolerated drives out; one of the node's own does not.
    c.k(&format!("cordon {node}"));
    c.k("rollout restart daemonset/painted");
    c.k("rollout status daemonset/painted --timeout=60s");
    c.k(&format!("uncordon {node}"));
    c.k(&format!("taint node {node} mine=yes:NoExecute"));
    until(c, "daemonset/painted", ".status.desiredNumberScheduled", "0");
    c.k("wait --for=delete pod -l app=painted --timeout=60s");
    c.k(&format!("taint node {node} mine-"));
    until(c, "daemonset/painted", ".status.numberAvailable", "1");
}

/// Conformance: [sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision [Conformance]
#[test]
fn revisions_live_as_their_users_say() {
    let c = Cluster::start(KNARR);
    c.k_with("apply -f -", &workload("DaemonSet", "agent", json!({"name": "app", "image": NGINX[0]}), json!({})));
    c.k("rollout status daemonset/agent --timeout=60s");
    let names = || -> Vec<String> { c.k("get controllerrevisions -A -l app=agent -o name").lines().map(str::to_owned).collect() };
    let count = |number: usize| eventually("the number of revisions", || (names().len() == number).then_some(()));
    count(1);
    let first = names().remove(0);
    c.k(&format!("label {first} mine=patched"));
    assert_eq!(field(&c, &first, ".metadata.labels.mine"), "patched");

    let mut twin: Value = serde_json::from_str(&c.k(&format!("get {first} -o json"))).unwrap();
    let (hash, owner) = ("twin", twin["metadata"]["ownerReferences"].clone());
    twin["metadata"] = json!({"name": format!("agent-{hash}"), "labels": {"app": "agent", "controller-revision-hash": hash}, "ownerReferences": owner});
    twin["revision"] = 2.into();
    c.k_with("create -f -", &twin.to_string());
    count(2);
    c.k(&format!("delete {first}"));
    count(1);
    let second = names().remove(0);
    c.k(&format!("label {second} mine=updated"));
    patch(&c, "daemonset/agent", &json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}));
    count(2);
    c.k("rollout status daemonset/agent --timeout=60s");
    c.k("delete controllerrevisions -l mine=updated");
    count(1);
    assert_eq!(field(&c, &names()[0], ".revision"), "3");
}

/// Deployment page, "Failed Deployment": an update to what cannot run stops, and what ran before serves on. The pods of all three kinds have no
/// probes, so that nothing but their own life says whether they are good: that of a moment is none.
#[test]
fn a_version_that_ends_at_once_stops_its_rollout() {
    let c = Cluster::start(KNARR);
    let sleeps = || json!({"name": "web", "image": BUSYBOX, "command": ["sleep", "100000"]});
    c.k_with("apply -f -", &workload("Deployment", "dp", sleeps(), json!({"replicas": 4, "minReadySeconds": 3})));
    c.k_with("apply -f -", &stateful("ss", 3, sleeps(), json!({"minReadySeconds": 3})));
    c.k_with("apply -f -", &workload("DaemonSet", "ds", sleeps(), json!({"minReadySeconds": 3})));
    for one in ["deployment/dp", "statefulset/ss", "daemonset/ds"] {
        c.k(&format!("rollout status {one} --timeout=90s"));
        let fails =
            json!([{"op": "replace", "path": "/spec/template/spec/containers/0/command", "value": ["sh", "-c", "exit 1"]}]);
        c.kubectl(&["patch", one, "--type=json", "-p", &fails.to_string()]);
    }
    // The new pods have been tried three times; a DaemonSet has but one node here.
    eventually("the new versions fail", || {
        let restarts = |app: &str| {
            let counts =
                c.k(&format!("get pods -l app={app} -o jsonpath={{.items[*].status.containerStatuses[0].restartCount}}"));
            counts.split(' ').filter_map(|count| count.parse::<u32>().ok()).max().unwrap_or(0)
        };
        ["dp", "ss", "ds"].iter().all(|app| restarts(app) >= 2).then_some(())
    });
    let count = |what: &str, field: &str| c.k(&format!("get {what} -o jsonpath={{.status.{field}}}"));
    assert_eq!(
        (count("deployment/dp", "availableReplicas").as_str(), count("statefulset/ss", "availableReplicas").as_str()),
        ("3", "2")
    );
    assert_eq!(count("daemonset/ds", "numberUnavailable"), "1");
}

/// A node that has no room refuses a pod again and again; its owner makes others less and less often.
#[test]
fn refused_pods_are_replaced_less_and_less_often() {
    let c = Cluster::start(KNARR);
    let node = c.k("get nodes -o jsonpath={.items[0].metadata.name}");
    let container = json!({"name": "web", "image": BUSYBOX, "resources": {"requests": {"cpu": "1000"}}});
    let spec = |replicas: u32| json!({"replicas": replicas, "template": {"spec": {"nodeName": node}}});
    c.k_with("apply -f -", &workload("ReplicaSet", "rs", container.clone(), spec(3)));
    c.k_with("apply -f -", &stateful("ss", 1, container, spec(1)));
    let pods = || c.api().object("/api/v1/namespaces/default/pods?labelSelector=app%3Drs")["items"].as_array().unwrap().clone();
    // Rounds of up to three: at once, at once, after one second, after two.
    let made = eventually("four rounds", || Some(pods()).filter(|pods| pods.len() >= 12));
    let times: std::collections::BTreeSet<String> =
        made.iter().map(|pod| pod["metadata"]["creationTimestamp"].as_str().unwrap().to_owned()).collect();
    assert!(made.len() < 20 && times.len() >= 3, "{} pods at {times:?}", made.len());
    assert!(made.iter().all(|pod| pod["status"]["reason"].as_str().is_none_or(|reason| reason == "OutOfcpu")), "{made:?}");
    c.told("--field-selector involvedObject.name=ss-0", &["OutOfcpu"]);
    let recreated =
        c.k("get events --field-selector involvedObject.name=ss,reason=SuccessfulCreate -o jsonpath={.items[*].count}");
    let recreated: u32 = recreated.split(' ').filter_map(|count| count.parse::<u32>().ok()).sum();
    assert!(recreated < 12, "ss-0 was made {recreated} times");
}
