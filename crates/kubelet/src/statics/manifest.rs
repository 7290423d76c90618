//! A file as a static pod. Pure.

use codec::Decode;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kinds::{KINDS, Strategy};
use pods::references;
use serde_json::{Value, json};

use super::MIRROR;

/// Priority of static pods that name no class: they are not evicted for others (`system-node-critical`).
pub const PRIORITY: i32 = 2_000_001_000;

/// Why a file is no static pod.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Yaml(#[from] apimachinery::yaml::YamlError),
    #[error("it is no v1 Pod")]
    Kind,
    #[error("static pods may not reference {0}")]
    Reference(&'static str),
    #[error("static pods may not have ephemeral containers")]
    Ephemeral,
    #[error("invalid pod: {0}")]
    Invalid(String),
    #[error("it is no Pod: {0}")]
    Type(#[from] serde_json::Error),
}

/// The pod that a file describes, as it runs on a node: with the node's name in its own, and a UID that another text would change.
pub fn pod(text: &str, path: &Path, node: &str, seen: Timestamp) -> Result<Pod, Error> {
    let (mut pod, _) = apimachinery::yaml::parse(text)?;
    if pod["apiVersion"] != "v1" || pod["kind"] != "Pod" || !pod["spec"].is_object() || !pod["metadata"].is_object() {
        return Err(Error::Kind);
    }
    let uid = pods::csi::digest(&format!("{node}\0{}\0{text}", path.display()))[..32].to_owned();
    complete(&mut pod, &uid, node, seen);
    let strategy = strategy();
    strategy.apply_defaults(&mut pod);
    if let Some(what) = references::of_api(&pod["spec"]) {
        return Err(Error::Reference(what));
    }
    if pod["spec"]["ephemeralContainers"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(Error::Ephemeral);
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let mut problems = strategy.def().name.check(name, false);
    problems.extend(apimachinery::names::dns1123_label(namespace));
    if let Some(problem) = problems.first() {
        return Err(Error::Invalid(format!("metadata.name {name:?}, metadata.namespace {namespace:?}: {problem}")));
    }
    let typed = Pod::from_tree(&pod)?;
    let errors = strategy.validate(&pod, &mut Vec::new());
    if !errors.is_empty() {
        return Err(Error::Invalid(errors.to_string()));
    }
    Ok(typed)
}

fn strategy() -> &'static dyn Strategy {
    let is_pod = |strategy: &&&dyn Strategy| strategy.def().kind == "Pod" && strategy.def().api_version() == "v1";
    KINDS.iter().find(is_pod).copied().unwrap_or(KINDS[0])
}

/// What the node adds. What only the API server writes is left out.
fn complete(pod: &mut Value, uid: &str, node: &str, seen: Timestamp) {
    let own = pod["metadata"].take();
    let mut annotations = own["annotations"].as_object().cloned().unwrap_or_default();
    annotations.remove(MIRROR);
    annotations.insert("kubernetes.io/config.source".to_owned(), json!("file"));
    annotations.insert("kubernetes.io/config.hash".to_owned(), json!(uid));
    annotations.insert("kubernetes.io/config.seen".to_owned(), json!(seen));
    let namespace = own["namespace"].as_str().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
    let name = own["name"].as_str().unwrap_or_default();
    pod["metadata"] = json!({
        "name": format!("{name}-{}", node.to_lowercase()),
        "namespace": namespace,
        "uid": uid,
        "creationTimestamp": apimachinery::time::format(seen),
        "annotations": annotations,
    });
    if own["labels"].is_object() {
        pod["metadata"]["labels"] = own["labels"].clone();
    }
    if let Some(object) = pod.as_object_mut() {
        object.remove("status");
    }
    let spec = &mut pod["spec"];
    spec["nodeName"] = json!(node);
    // It stays whatever the node is tainted with.
    let everything = json!({"operator": "Exists", "effect": "NoExecute"});
    match spec["tolerations"].as_array_mut() {
        Some(list) if list.contains(&everything) => {}
        Some(list) => list.push(everything),
        None => spec["tolerations"] = json!([everything]),
    }
    if spec["priority"].is_null() && spec["priorityClassName"].as_str().unwrap_or_default().is_empty() {
        spec["priority"] = json!(PRIORITY);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Pod, Error> {
        pod(text, Path::new("/etc/pods/a.yaml"), "n1", Timestamp::UNIX_EPOCH)
    }

    fn text(spec: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web, labels: {{a: b}}, annotations: {{x: z}}}}\nspec: {spec}\n")
    }

    const PLAIN: &str = "{containers: [{name: a, image: 'i:1'}]}";

    /// Static pods, "Create static Pods": the node's name is appended to the pod's, with a hyphen.
    #[test]
    fn a_file_becomes_a_pod_of_the_node() {
        let pod = read(&text(PLAIN)).unwrap();
        assert_eq!((pod.metadata.name.as_deref(), pod.metadata.namespace.as_deref()), (Some("web-n1"), Some("default")));
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.node_name.as_deref(), spec.priority), (Some("n1"), Some(PRIORITY)));
        assert_eq!((spec.restart_policy.as_deref(), spec.termination_grace_period_seconds), (Some("Always"), Some(30)));
        assert_eq!(spec.tolerations.as_ref().map(Vec::len), Some(1));
        let notes = pod.metadata.annotations.as_ref().unwrap();
        assert_eq!((notes["x"].as_str(), notes["kubernetes.io/config.source"].as_str()), ("z", "file"));
        assert_eq!(Some(&notes["kubernetes.io/config.hash"]), pod.metadata.uid.as_ref());
        assert!(super::super::is_static(pod.metadata.uid.as_deref().unwrap()));
        assert!(!super::super::is_static(&uuid::Uuid::new_v4().to_string()));
        assert_eq!(read(&text(PLAIN)).unwrap(), pod);
        assert_ne!(read(&text("{containers: [{name: a, image: 'i:2'}]}")).unwrap().metadata.uid, pod.metadata.uid);
        let json = serde_json::to_string(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j", "namespace": "kube-system"},
            "spec": {"containers": [{"name": "a", "image": "i"}]}}),
        );
        assert_eq!(read(&json.unwrap()).unwrap().metadata.namespace.as_deref(), Some("kube-system"));
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    /// Static pods: "The spec of a static Pod cannot refer to other API objects (e.g., ServiceAccount, ConfigMap, Secret, etc)."
    #[test]
    fn files_that_are_no_static_pods() {
        check("{", "");
        check("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nspec: {}", "it is no v1 Pod");
        check(
            &text("{serviceAccountName: x, containers: [{name: a, image: i}]}"),
            "static pods may not reference a service account",
        );
        check(
            &text("{containers: [{name: a, image: i, envFrom: [{secretRef: {name: s}}]}]}"),
            "static pods may not reference secrets",
        );
        check(&text("{containers: [{name: a, image: i}], volumes: [{name: v, configMap: {name: c}}]}"), "configmaps");
        check(&text("{containers: []}"), "invalid pod: spec.containers");
        check(&text("{hostNetwork: 'x', containers: [{name: a, image: i}]}"), "it is no Pod: invalid type");
        check(&text("{containers: [{name: a, image: i, ports: [{containerPort: 99999999}]}]}"), "invalid pod:");
        check(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: 'a b'}\nspec: {containers: [{name: a, image: i}]}",
            "invalid pod: metadata.name",
        );
        check(&text("{ephemeralContainers: [{name: e, image: i}], containers: [{name: a, image: i}]}"), "ephemeral containers");
    }
}
