//! Features of nodes that a pod, or a change of one, may need: a node says in `status.declaredFeatures` which it has (KEP-5328).
//!
//! A node of an older version says nothing of what it cannot do. The names are upstream's, whose nodes and schedulers read them, too.

use k8s_openapi::api::core::v1::{Node, PodSpec};

use crate::{containers, is_sidecar};

/// One feature, and what needs it.
pub struct Feature {
    /// Its name in the status of nodes.
    pub name: &'static str,
    /// Whether a pod needs it of its node.
    pub to_run: fn(&PodSpec) -> bool,
    /// Whether a change of a pod's specification, from old to new, needs it of the node that runs the pod.
    pub to_change: fn(&PodSpec, &PodSpec) -> bool,
}

impl Feature {
    const fn new(name: &'static str) -> Self {
        Self { name, to_run: |_| false, to_change: |_, _| false }
    }
}

/// All of them, by name.
pub static FEATURES: [Feature; 4] = [
    // Whether the kubelet answers WebSockets itself (KEP-4006); no pod asks for it.
    Feature::new("ExtendWebSocketsToKubelet"),
    Feature {
        to_change: |old, new| old.resources.clone().unwrap_or_default() != new.resources.clone().unwrap_or_default(),
        ..Feature::new("InPlacePodLevelResourcesVerticalScaling")
    },
    Feature { to_change: resizes_init_containers, ..Feature::new("InPlacePodVerticalScalingInitContainers") },
    Feature {
        to_run: |spec| {
            let rules = containers(spec).flat_map(|container| container.restart_policy_rules.iter().flatten());
            rules.into_iter().any(|rule| rule.action == "RestartAllContainers")
        },
        ..Feature::new("RestartAllContainersOnContainerExits")
    },
];

fn resizes_init_containers(old: &PodSpec, new: &PodSpec) -> bool {
    let pairs = old.init_containers.iter().flatten().zip(new.init_containers.iter().flatten());
    pairs.into_iter().any(|(old, new)| !is_sidecar(old) && old.resources != new.resources)
}

/// The features of a node.
pub fn declared(node: &Node) -> &[String] {
    node.status.as_ref().and_then(|status| status.declared_features.as_deref()).unwrap_or_default()
}

/// What a pod needs of its node.
pub fn to_run(spec: &PodSpec) -> Vec<&'static str> {
    FEATURES.iter().filter(|feature| (feature.to_run)(spec)).map(|feature| feature.name).collect()
}

/// What a change of a pod needs of the node that runs it.
pub fn to_change(old: &PodSpec, new: &PodSpec) -> Vec<&'static str> {
    FEATURES.iter().filter(|feature| (feature.to_change)(old, new)).map(|feature| feature.name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(of: Value) -> PodSpec {
        crate::spec_of_value(&json!({"spec": of})).unwrap_or_default()
    }

    /// `status.declaredFeatures` is sorted, as the API has it.
    #[test]
    fn in_the_order_of_names() {
        assert!(FEATURES.is_sorted_by_key(|feature| feature.name));
    }

    /// KEP-5328: what a pod needs follows from its specification, and users write it nowhere.
    #[test]
    fn needs_of_pods() {
        let check = |of: Value, expected: &[&str]| assert_eq!(to_run(&spec(of)), expected);
        let rules = |action: &str| json!([{"name": "c", "restartPolicyRules": [{"action": action}]}]);
        check(json!({"containers": [{"name": "c"}]}), &[]);
        check(json!({"containers": rules("Restart")}), &[]);
        check(json!({"containers": rules("RestartAllContainers")}), &["RestartAllContainersOnContainerExits"]);
        check(
            json!({"containers": [], "initContainers": rules("RestartAllContainers")}),
            &["RestartAllContainersOnContainerExits"],
        );
    }

    #[test]
    fn needs_of_changes() {
        let check = |old: Value, new: Value, expected: &[&str]| assert_eq!(to_change(&spec(old), &spec(new)), expected);
        let list = |cpu: &str| json!({"cpu": cpu, "memory": "1Gi"});
        // kubernetes/kubernetes#136759: older nodes that can do it say nothing of it.
        let guaranteed =
            |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": list(cpu), "limits": list(cpu)}}]});
        check(guaranteed("1"), guaranteed("2"), &[]);
        let whole = |cpu: &str| json!({"containers": [], "resources": {"requests": list(cpu)}});
        check(whole("1"), whole("2"), &["InPlacePodLevelResourcesVerticalScaling"]);
        check(json!({"containers": []}), json!({"containers": [], "resources": {}}), &[]);
        let init = |cpu: &str, policy: Value| json!({"containers": [], "initContainers": [{"name": "i", "restartPolicy": policy, "resources": {"requests": list(cpu)}}]});
        check(init("1", Value::Null), init("2", Value::Null), &["InPlacePodVerticalScalingInitContainers"]);
        check(init("1", json!("Always")), init("2", json!("Always")), &[]);
    }
}
