//! Nodes that are hollow: larger clusters than one machine can run.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

const WORK: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  completions: 6
  parallelism: 3
  template:
    metadata: {annotations: {knarr.io/hollow-runs: 2s}}
    spec:
      restartPolicy: Never
      containers: [{name: main, image: none}]
";

/// Fields of all objects of a kind.
fn fields(c: &Cluster, what: &str, path: &str) -> Vec<String> {
    c.k(&format!("get {what} -o jsonpath={{.items[*]{path}}}")).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn hollow_nodes_take_pods_through_their_lives() {
    let mut c = Cluster::prepare(KNARR);
    let options = ["--no-agent", "--hollow-nodes", "20"];
    c.start_server_with(&options);
    eventually("all nodes are registered", || (fields(&c, "nodes", ".metadata.name").len() == 20).then_some(()));
    c.k("wait --for=condition=Ready node --all --timeout=30s");
    c.k("create deployment web --image=none --replicas=40");
    c.k("rollout status deployment/web --timeout=60s");
    c.k_with("apply -f -", WORK);
    c.k("wait --for=condition=Complete job/once --timeout=60s");
    let mut addresses = fields(&c, "pods", ".status.podIP");
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 46, "{addresses:?}");

    // Another server goes on with them: nothing starts anew, and new pods get addresses of their own.
    let before = fields(&c, "pods -l app=web", ".metadata.uid");
    c.stop_server();
    c.start_server_with(&options);
    c.k("scale deployment web --replicas=45");
    c.k("rollout status deployment/web --timeout=60s");
    let after = fields(&c, "pods -l app=web", ".metadata.uid");
    assert!(before.iter().all(|uid| after.contains(uid)), "{before:?} {after:?}");
    let mut addresses = fields(&c, "pods", ".status.podIP");
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 51, "{addresses:?}");

    c.k("delete deployment web");
    eventually("its pods are gone", || {
        let pods: Value = serde_json::from_str(&c.k("get pods -l app=web -o json")).unwrap();
        pods["items"].as_array().unwrap().is_empty().then_some(())
    });
}
