//! Where pods may run, and who has to leave.

use serde_json::{Value, json};
use testing::{Cluster, eventually, machine};

use super::workloads::{controller, make, pods_of, ready};
use super::{KNARR, core, create, delete, patch, pod, run};

fn condition(c: &Cluster, pod: &str, kind: &str) -> Value {
    let object = c.api().object(&format!("{}/{pod}", core("pods")));
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

fn unschedulable(c: &Cluster, pod: &str) {
    eventually(&format!("{pod} fits nowhere"), || (condition(c, pod, "PodScheduled")["reason"] == "Unschedulable").then_some(()));
    assert!(c.api().object(&format!("{}/{pod}", core("pods")))["spec"]["nodeName"].is_null(), "{pod}");
}

/// A pod that idles, with this in its specification.
fn idle(name: &str, spec: &Value) -> Value {
    pod(name, "exec sleep 100000", &json!({}), spec)
}

fn requesting(name: &str, resource: &str, quantity: &str, spec: &Value) -> Value {
    let resources = json!({"requests": {resource: quantity}, "limits": {resource: quantity}});
    pod(name, "exec sleep 100000", &json!({"resources": resources}), spec)
}

/// Conformance: [sig-scheduling] SchedulerPredicates [Serial] validates resource limits of pods that are allowed to run [Conformance]
/// Conformance: [sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching [Conformance]
/// Conformance: [sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching [Conformance]
/// Conformance: [sig-scheduling] SchedulerPredicates [Serial] validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP [Conformance]
#[test]
fn predicates() {
    let c = Cluster::start(KNARR);
    let nowhere = json!({"nodeSelector": {"label": "nonempty"}});
    create(&c, &core("pods"), &idle("nowhere", &nowhere));
    unschedulable(&c, "nowhere");
    patch(&c, "/api/v1/nodes/n1", &json!({"metadata": {"labels": {"example.com/here": "42"}}}));
    run(&c, &idle("here", &json!({"nodeSelector": {"example.com/here": "42"}})));
    patch(&c, "/api/v1/nodes/n1", &json!({"metadata": {"labels": {"label": "nonempty"}}}));
    c.k("wait --for=condition=Ready pod/nowhere --timeout=60s");

    let with_port = |name: &str, ip: &str| {
        let ports = json!({"ports": [{"containerPort": 8080, "hostPort": 54322, "hostIP": ip, "protocol": "TCP"}]});
        pod(name, "exec sleep 100000", &ports, &json!({}))
    };
    run(&c, &with_port("all-addresses", "0.0.0.0"));
    create(&c, &core("pods"), &with_port("one-address", machine::ADDRESS));
    unschedulable(&c, "one-address");

    let cpu = c.api().object("/api/v1/nodes/n1")["status"]["allocatable"]["cpu"].as_str().unwrap().parse::<u64>().unwrap() * 1000;
    run(&c, &requesting("filler", "cpu", &format!("{}m", cpu * 7 / 10), &json!({})));
    create(&c, &core("pods"), &requesting("too-much", "cpu", &format!("{}m", cpu / 2), &json!({})));
    unschedulable(&c, "too-much");
    c.told("--field-selector involvedObject.name=too-much", &["FailedScheduling"]);
    delete(&c, &format!("{}/filler", core("pods")));
    c.k("wait --for=condition=Ready pod/too-much --timeout=60s");
}

/// Conformance: [sig-scheduling] SchedulerPreemption [Serial] PreemptionExecutionPath runs ReplicaSets to verify preemption running path [Conformance]
/// Conformance: [sig-scheduling] SchedulerPreemption [Serial] validates basic preemption works [Conformance]
/// Conformance: [sig-scheduling] SchedulerPreemption [Serial] validates lower priority pod preemption by critical pod [Conformance]
/// Conformance: [sig-scheduling] SchedulerPreemption [Serial] validates pod disruption condition is added to the preempted pod [Conformance]
#[test]
fn preemption() {
    const RESOURCE: &str = "example.com/fakecpu";
    let c = Cluster::start(KNARR);
    // The kubelet says that pods may take what somebody advertises.
    patch(&c, "/api/v1/nodes/n1/status", &json!({"status": {"capacity": {RESOURCE: "1000"}}}));
    c.k(r"wait --for=jsonpath={.status.allocatable.example\.com/fakecpu} node/n1 --timeout=60s");
    for number in 1..=4 {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": format!("p{number}")},
            "value": number});
        create(&c, "/apis/scheduling.k8s.io/v1/priorityclasses", &class);
    }
    let priority = |number: u32| json!({"priorityClassName": format!("p{number}")});
    let pods = core("pods");
    // The lowest goes, and only it.
    let mut victim = requesting("low", RESOURCE, "400", &priority(1));
    victim["metadata"]["finalizers"] = json!(["example.com/seen"]);
    run(&c, &victim);
    run(&c, &requesting("middle", RESOURCE, "600", &priority(2)));
    create(&c, &pods, &requesting("high", RESOURCE, "400", &priority(3)));
    eventually("the victim is told why", || {
        let told = condition(&c, "low", "DisruptionTarget");
        (told["status"] == "True" && told["reason"] == "PreemptionByScheduler").then_some(())
    });
    eventually("the victim is deleted", || {
        c.api().object(&format!("{pods}/low"))["metadata"]["deletionTimestamp"].is_string().then_some(())
    });
    patch(&c, &format!("{pods}/low"), &json!({"metadata": {"finalizers": null}}));
    c.k("wait --for=condition=Ready pod/high pod/middle --timeout=60s");
    c.k("wait --for=delete pod/low --timeout=60s");

    let mut critical = requesting("critical", RESOURCE, "600", &json!({"priorityClassName": "system-cluster-critical"}));
    critical["metadata"]["namespace"] = json!("kube-system");
    create(&c, "/api/v1/namespaces/kube-system/pods", &critical);
    c.k("wait --for=condition=Ready pod/critical -n kube-system --timeout=60s");
    c.k("wait --for=delete pod/middle --timeout=60s");
    assert_eq!(c.api().get(&format!("{pods}/high")).status, 200);
    delete(&c, "/api/v1/namespaces/kube-system/pods/critical");
    delete(&c, &format!("{pods}/high"));
    c.k("wait --for=delete pod/high --timeout=60s");
    c.k("wait --for=delete pod/critical -n kube-system --timeout=60s");
    sets_that_preempt(&c, RESOURCE);
}

/// Three ReplicaSets fill the node; the fourth drives the two lowest away, whose pods are made again and wait.
fn sets_that_preempt(c: &Cluster, resource: &str) {
    for (number, quantity) in [(1, "200"), (2, "300"), (3, "450"), (4, "500")] {
        let name = format!("rs-pod{number}");
        let mut set = controller("ReplicaSet", &name, 1);
        let quantities = json!({"requests": {resource: quantity}, "limits": {resource: quantity}});
        set["spec"]["template"]["spec"]["priorityClassName"] = json!(format!("p{number}"));
        set["spec"]["template"]["spec"]["containers"][0]["resources"] = quantities;
        make(c, &set);
        ready(c, "ReplicaSet", &name, 1);
    }
    for (number, runs) in [(1, false), (2, false), (3, true), (4, true)] {
        eventually("pods are made again", || {
            let pods = pods_of(c, &format!("rs-pod{number}"));
            (pods.len() == 1 && pods[0]["spec"]["nodeName"].is_string() == runs).then_some(())
        });
    }
}

/// That a pod's time has passed without its eviction is known by the eviction of another one, whose time is as long and has begun later. All run
/// before the first taint, so that only requests of the test have to come within the time of a pod.
///
/// Conformance: [sig-node] NoExecuteTaintManager Multiple Pods [Serial] evicts pods with minTolerationSeconds [Disruptive] [Conformance]
/// Conformance: [sig-node] NoExecuteTaintManager Single Pod [Serial] removing taint cancels eviction [Disruptive] [Conformance]
#[test]
fn taints() {
    let c = Cluster::start(KNARR);
    let toleration = |key: &str, seconds: Value| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    let tolerating = |name: &str, tolerations: Value| run(&c, &idle(name, &json!({"tolerations": tolerations})));
    let (evict, later) = ("example.com/evict", "example.com/later");
    tolerating("short", json!([toleration(evict, json!(1))]));
    tolerating("long", json!([toleration(evict, json!(15)), toleration(later, Value::Null)]));
    tolerating("clock", json!([toleration(evict, Value::Null), toleration(later, json!(15))]));
    let taint = |keys: &[&str]| {
        let taints: Vec<Value> = keys.iter().map(|key| json!({"key": key, "value": "x", "effect": "NoExecute"})).collect();
        patch(&c, "/api/v1/nodes/n1", &json!({"spec": {"taints": taints}}));
    };
    let is_there = |name: &str| {
        let answer = c.api().get(&format!("{}/{name}", core("pods")));
        answer.status == 200 && answer.json()["metadata"]["deletionTimestamp"].is_null()
    };
    taint(&[evict]);
    eventually("the pod of the shorter time goes", || (!is_there("short")).then_some(()));
    assert!(is_there("long"), "each pod has its own time");
    taint(&[]);
    taint(&[later]);
    eventually("as much time has passed", || (!is_there("clock")).then_some(()));
    assert!(is_there("long"), "a taint that is gone evicts nobody");
}
