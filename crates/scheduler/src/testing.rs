//! Objects for tests.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

pub(crate) fn pod(name: &str, spec: Value) -> Pod {
    labelled_pod(name, json!({}), spec)
}

pub(crate) fn labelled_pod(name: &str, labels: Value, spec: Value) -> Pod {
    let meta = json!({"namespace": "a", "name": name, "uid": name, "labels": labels});
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    spec["schedulerName"] = json!("default-scheduler");
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).expect("test pod")
}

/// A node with 4 CPUs, 8 GiB and room for 110 pods; `more` is merged over its top level.
pub(crate) fn node(name: &str, more: Value) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    if let Some(labels) = more["labels"].as_object() {
        for (key, value) in labels {
            node["metadata"]["labels"][key] = value.clone();
        }
    }
    for field in ["spec", "status"] {
        if !more[field].is_null() {
            node[field] = more[field].clone();
        }
    }
    serde_json::from_value(node).expect("test node")
}
