//! What upstream's conformance tests check of nodes, volumes, networks and workloads, on real clusters; a file for each theme.
//!
//! One cluster serves many of them: pods that print what they see and end are made side by side.
#![allow(clippy::unwrap_used)]

mod containers;
mod endpoints;
mod environment;
mod network;
mod probes;
mod proxies;
mod resize;
mod scheduling;
mod volumes;
mod workloads;

use http::Method;
use serde_json::{Value, json};
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";
const NGINX: &str = "127.0.0.1:5000/nginx:1.27";

/// Collection of a core kind in the default namespace.
fn core(plural: &str) -> String {
    format!("/api/v1/namespaces/default/{plural}")
}

/// Sends JSON, expects this code, and returns the answer.
fn send(c: &Cluster, code: u16, method: Method, path: &str, body: &Value) -> Value {
    let content = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let answer = c.api().send(method.clone(), path, content, if body.is_null() { String::new() } else { body.to_string() });
    assert_eq!(answer.status, code, "{method} {path} {body}: {:?}", answer.body);
    answer.json()
}

fn create(c: &Cluster, collection: &str, object: &Value) -> Value {
    send(c, 201, Method::POST, collection, object)
}

fn patch(c: &Cluster, path: &str, change: &Value) -> Value {
    send(c, 200, Method::PATCH, path, change)
}

fn delete(c: &Cluster, path: &str) {
    send(c, 200, Method::DELETE, path, &Value::Null);
}

/// Adds the fields of `more`.
fn extend(object: &mut Value, more: &Value) {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
}

/// A pod whose container `main` runs a shell script once; `container` and `spec` have further fields.
fn pod(name: &str, script: &str, container: &Value, spec: &Value) -> Value {
    let mut main = json!({"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]});
    extend(&mut main, container);
    let mut whole = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [main]});
    extend(&mut whole, spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": whole})
}

/// What a pod has printed when it is done, and how it ended.
fn output(c: &Cluster, name: &str) -> (String, String) {
    let path = format!("{}/{name}", core("pods"));
    let phase = eventually(&format!("{name} ends"), || {
        let phase = c.api().object(&path)["status"]["phase"].as_str().unwrap().to_owned();
        ["Succeeded", "Failed"].contains(&phase.as_str()).then_some(phase)
    });
    let log = c.api().get(&format!("{path}/log?container=main"));
    (phase, String::from_utf8_lossy(&log.body).trim_end().to_owned())
}

/// A pod, and what it has to print.
type Row = (Value, String);

/// Makes the pods side by side and compares what each prints.
fn check(c: &Cluster, rows: &[Row]) {
    for (pod, _) in rows {
        create(c, &core("pods"), pod);
    }
    for (pod, expected) in rows {
        let (phase, printed) = output(c, pod["metadata"]["name"].as_str().unwrap());
        assert_eq!((phase.as_str(), printed.as_str()), ("Succeeded", expected.as_str()), "{pod}");
    }
}

/// Makes a pod and waits until it is Ready.
fn run(c: &Cluster, pod: &Value) {
    create(c, &core("pods"), pod);
    c.k(&format!("wait --for=condition=Ready pod/{} --timeout=60s", pod["metadata"]["name"].as_str().unwrap()));
}

/// What a script prints in the container `main` of a pod.
fn exec(c: &Cluster, pod: &str, script: &str) -> String {
    c.kubectl(&["exec", pod, "-c", "main", "--", "sh", "-c", script]).trim_end().to_owned()
}

/// A number that grows until it is at least this.
fn reaches(what: &str, least: u64, mut look: impl FnMut() -> Option<u64>) {
    eventually(&format!("{what} reaches {least}"), || look().filter(|number| *number >= least));
}
