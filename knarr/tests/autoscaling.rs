//! What pods use, and sizes that follow it, on real containers. That sizes follow requests is in `examples`, with the README of the example.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use testing::{Background, Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// A file of the example.
fn example(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../examples/autoscaling/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn get(c: &Cluster, what: &str) -> Value {
    serde_json::from_str(&c.k(&format!("get {what} -o json"))).unwrap()
}

/// The lines of a table without its heading, as words.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

/// Thousandths of a core, as `kubectl top` shows them.
fn milli(cell: &str) -> u64 {
    cell.trim_end_matches('m').parse().unwrap()
}

/// Waits until a Deployment has that many replicas, and says how long it took.
fn replicas(c: &Cluster, deployment: &str, expected: u64) -> Duration {
    let start = Instant::now();
    eventually(&format!("{expected} replicas of {deployment}"), || {
        let found = get(c, &format!("deployment {deployment}"))["spec"]["replicas"].as_u64();
        (found == Some(expected)).then_some(())
    });
    start.elapsed()
}

/// The status of a condition of an autoscaler, with its reason.
fn condition(c: &Cluster, scaler: &str, kind: &str) -> (String, String) {
    let scaler = get(c, &format!("hpa {scaler}"));
    let all = scaler["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

#[test]
fn top_tells_what_pods_use() {
    let c = Cluster::start(KNARR);
    c.k_with("apply -f -", &example("cpu.yaml"));
    c.k("delete hpa worker");
    c.k("rollout status deployment/worker --timeout=60s");
    let idle = eventually("kubectl top knows the pod", || {
        let outcome = c.try_kubectl(&["top", "pods"]);
        (outcome.code == Some(0)).then_some(outcome.stdout)
    });
    let rows_of = rows(&idle);
    assert_eq!(rows_of.len(), 1, "{idle}");
    assert!(rows_of[0][0].starts_with("worker-") && rows_of[0][2].ends_with("Mi"), "{idle}");

    c.k("exec deploy/worker -- touch /tmp/busy");
    eventually("the pod uses what it may", || {
        let top = c.k("top pods --containers --no-headers");
        let words: Vec<&str> = top.split_whitespace().collect();
        (words[1] == "worker" && (100..=250).contains(&milli(words[2]))).then_some(())
    });
    // The node is measured at another moment than its pods.
    eventually("the node uses what the pod does", || {
        let nodes = c.k("top nodes");
        let rows_of = rows(&nodes);
        (rows_of[0][0] == "n1" && milli(rows_of[0][1]) >= 100 && rows_of[0][4].ends_with('%')).then_some(())
    });
    for line in ["top pods -A --sum", "top pods --sort-by=cpu", "top pods --sort-by=memory -l app=worker", "top node n1"] {
        assert!(rows(&c.k(line)).len() >= usize::from(!line.contains("--sum")), "{line}");
    }
    assert!(c.k("top pods -A --sum").lines().last().unwrap().split_whitespace().all(|word| word.ends_with(['m', 'i'])));

    // What dashboards read of a kubelet, through the API server.
    let page = |path: &str| c.k(&format!("get --raw /api/v1/nodes/n1/proxy/{path}"));
    assert!(page("metrics/resource").contains("container_cpu_usage_seconds_total{container=\"worker\",namespace=\"default\""));
    let cadvisor = page("metrics/cadvisor");
    assert!(cadvisor.contains("container_network_receive_bytes_total{container=\"\",id=\"/"));
    // Families of which a running container has some, each with where that is read.
    let most = |family: &str| {
        let samples =
            cadvisor.lines().filter(|line| line.starts_with(&format!("{family}{{")) && line.contains("container=\"worker\""));
        samples.filter_map(|line| line.split("} ").nth(1)?.split(' ').next()?.parse::<f64>().ok()).fold(0.0, f64::max)
    };
    for family in [
        "processes",
        "file_descriptors",
        "threads",
        "ulimits_soft",
        "spec_cpu_shares",
        "spec_cpu_period",
        "memory_failures_total",
    ] {
        assert!(most(&format!("container_{family}")) > 0.0, "container_{family}: {cadvisor}");
    }
    let summary = eventually("what the pod has used adds up", || {
        let summary: Value = serde_json::from_str(&page("stats/summary")).unwrap();
        let used = summary["pods"][0]["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64();
        (used > Some(1_000_000_000)).then_some(summary)
    });
    let pod = &summary["pods"][0];
    assert!(pod["memory"]["workingSetBytes"].as_u64() > Some(10_000), "{pod}");
    assert!(pod["containers"][0]["rootfs"]["usedBytes"].is_u64(), "{pod}");
    assert!(pod["network"]["rxBytes"].is_u64() && summary["node"]["fs"]["capacityBytes"].as_u64() > Some(0), "{summary}");
}

#[test]
fn sizes_follow_the_cpu() {
    let c = Cluster::start(KNARR);
    c.k_with("apply -f -", &example("cpu.yaml"));
    c.k("rollout status deployment/worker --timeout=60s");
    let pod = c.k("get pods -l app=worker -o jsonpath={.items[0].metadata.name}");
    eventually("the autoscaler knows the CPU", || {
        (condition(&c, "worker", "ScalingActive") == ("True".into(), "ValidMetricFound".into())).then_some(())
    });
    assert_eq!(condition(&c, "worker", "AbleToScale").0, "True");
    c.k(&format!("exec {pod} -- touch /tmp/busy"));
    let out = replicas(&c, "worker", 3);
    // An autoscaler looks every ten seconds. Twice that and more is what a slow machine takes, and less than a look in a minute would.
    assert!(out <= Duration::from_secs(40), "scaled out only after {out:?}");
    eventually("the limit is told", || (condition(&c, "worker", "ScalingLimited").1 == "TooManyReplicas").then_some(()));
    let rescaled = "New size: 3; reason: cpu resource utilization (percentage of request) above target";
    c.told("--field-selector reason=SuccessfulRescale", &[rescaled]);
    c.k("rollout status deployment/worker --timeout=60s");
    let shown = c.k("get hpa worker --no-headers");
    assert!(shown.contains("Deployment/worker") && shown.contains("%/50%"), "{shown}");
    c.k(&format!("exec {pod} -- rm /tmp/busy"));
    replicas(&c, "worker", 1);
    let status = get(&c, "hpa worker")["status"].clone();
    assert_eq!(status["currentMetrics"][0]["resource"]["name"], "cpu", "{status}");
    assert!(status["lastScaleTime"].is_string(), "{status}");
}

/// What cannot be scaled is told as upstream tells it, and custom resources can be.
#[test]
fn autoscalers_of_any_kind() {
    let c = Cluster::start(KNARR);
    let deployment = |name: &str, resources: &str| {
        format!(
            r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "{name}"}}, "spec": {{"replicas": 2,
            "selector": {{"matchLabels": {{"app": "{name}"}}}}, "template": {{"metadata": {{"labels": {{"app": "{name}"}}}}, "spec": {{
            "terminationGracePeriodSeconds": 0, "containers": [{{"name": "c", "image": "127.0.0.1:5000/busybox:1.36",
            "command": ["sleep", "3600"], "resources": {resources}}}]}}}}}}}}"#
        )
    };
    c.k_with("apply -f -", &deployment("idle", r#"{"requests": {"cpu": "100m"}}"#));
    c.k_with("apply -f -", &deployment("free", "{}"));
    let created = c.k("autoscale deployment idle --min=1 --max=5 --cpu=50%");
    assert!(created.contains("autoscaled"), "{created}");
    c.k("autoscale deployment free --min=1 --max=5 --cpu=50%");
    c.k_with("apply -f -", ENGINE);
    c.k("wait --for=condition=Established crd/engines.sea.example --timeout=30s");
    c.k_with(
        "apply -f -",
        r#"{"apiVersion": "sea.example/v1", "kind": "Engine", "metadata": {"name": "e"}, "spec": {"replicas": 9}}"#,
    );
    let scaler = |name: &str, target: &str| {
        format!(
            r#"{{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {{"name": "{name}"}},
            "spec": {{"scaleTargetRef": {target}, "maxReplicas": 3}}}}"#
        )
    };
    let engine = r#"{"apiVersion": "sea.example/v1", "kind": "Engine", "name": "e"}"#;
    c.k_with("apply -f -", &scaler("engine", engine));
    c.k_with("apply -f -", &scaler("nothing", r#"{"apiVersion": "apps/v1", "kind": "Deployment", "name": "missing"}"#));
    c.k_with("apply -f -", &scaler("nowhere", r#"{"apiVersion": "x.example/v1", "kind": "Thing", "name": "x"}"#));

    eventually("a custom resource is brought below its maximum", || (get(&c, "engine e")["spec"]["replicas"] == 3).then_some(()));
    // A disruption budget knows the size of the custom resource too.
    let owner = format!(
        r#"{{"apiVersion": "sea.example/v1", "kind": "Engine", "name": "e", "controller": true, "uid": {}}}"#,
        get(&c, "engine e")["metadata"]["uid"]
    );
    let piston = format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "piston", "labels": {{"app": "piston"}}, "ownerReferences": [{owner}]}},
        "spec": {{"terminationGracePeriodSeconds": 0, "containers": [
        {{"name": "c", "image": "127.0.0.1:5000/busybox:1.36", "command": ["sleep", "3600"]}}]}}}}"#
    );
    c.k_with("apply -f -", &piston);
    c.k("create poddisruptionbudget pistons --selector=app=piston --max-unavailable=1");
    c.k("wait --for=jsonpath={.status.expectedPods}=3 pdb/pistons --timeout=60s");
    let reason = |name: &str, kind: &str, expected: &str| {
        eventually(&format!("{expected} of {name}"), || {
            (condition(&c, name, kind) == ("False".into(), expected.into())).then_some(())
        });
    };
    reason("nothing", "AbleToScale", "FailedGetScale");
    reason("nowhere", "AbleToScale", "FailedGetScale");
    reason("free", "ScalingActive", "FailedGetResourceMetric");
    // Two for one target: neither knows better than the other.
    c.k_with("apply -f -", &scaler("rival", r#"{"apiVersion": "apps/v1", "kind": "Deployment", "name": "idle"}"#));
    reason("rival", "ScalingActive", "AmbiguousSelector");
}

const ENGINE: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: engines.sea.example}
spec:
  group: sea.example
  scope: Namespaced
  names: {plural: engines, singular: engine, kind: Engine}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
      subresources:
        status: {}
        scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
"#;

/// The commands with which people look after a cluster.
#[test]
fn commands_of_maintenance() {
    let c = Cluster::start(KNARR);
    let image = "127.0.0.1:5000/busybox:1.36";
    c.k(&format!("create deployment web --image={image} --replicas=2 -- sleep 3600"));
    c.k("wait --for=condition=Available deployment/web --timeout=60s");
    c.k("wait --for=jsonpath={.status.readyReplicas}=2 deployment/web --timeout=60s");

    c.k("set env deployment/web LEVEL=high");
    c.k("rollout status deployment/web --timeout=60s");
    c.k("set resources deployment/web --requests=cpu=10m,memory=8Mi");
    c.k("rollout status deployment/web --timeout=60s");
    let container = &get(&c, "deployment web")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["env"][0]["value"], &container["resources"]["requests"]["cpu"]), (&"high".into(), &"10m".into()));
    c.k("set image deployment/web busybox=127.0.0.1:5000/busybox:missing");
    c.k("rollout undo deployment/web");
    c.k("rollout status deployment/web --timeout=60s");
    c.k("rollout pause deployment/web");
    c.k("set env deployment/web LEVEL=low");
    assert!(c.try_kubectl(&["rollout", "restart", "deployment/web"]).stderr.contains("paused"));
    c.k("rollout resume deployment/web");
    c.k("rollout status deployment/web --timeout=60s");
    c.k("rollout restart deployment/web");
    c.k("rollout status deployment/web --timeout=60s");
    assert!(rows(&c.k("rollout history deployment/web")).len() >= 4);
    c.k("set serviceaccount deployment/web default");
    // A rollout that goes on takes pods away that the budget below leaves.
    c.k("rollout status deployment/web --timeout=60s");
    c.k("expose deployment web --port=80");
    c.k("set selector service/web app=other");
    assert_eq!(get(&c, "service web")["spec"]["selector"]["app"], "other");

    c.k("create poddisruptionbudget web --selector=app=web --min-available=1");
    c.k("wait --for=jsonpath={.status.disruptionsAllowed}=1 pdb/web --timeout=60s");
    c.k("cordon n1");
    assert!(c.k("get node n1").contains("SchedulingDisabled"));
    // The budget keeps the last pod: nothing can run elsewhere.
    let kubectl = testing::kubectl::program();
    let line = format!("exec {} drain n1 --ignore-daemonsets --grace-period=1 2>&1", kubectl.display());
    let draining = Background::spawn(c.client_command(Path::new("sh")).args(["-c", &line]));
    draining.line("disruption budget");
    drop(draining);
    c.k("delete pdb web");
    let drained = c.k("drain n1 --ignore-daemonsets --grace-period=1 --timeout=50s");
    assert!(drained.contains("node/n1 drained"), "{drained}");
    c.k("uncordon n1");
    c.k("rollout status deployment/web --timeout=60s");
}
