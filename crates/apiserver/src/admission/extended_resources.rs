//! ExtendedResourceToleration, where it is enabled: a pod that asks for devices tolerates the taint that keeps other pods off the nodes that have
//! them. The taint's key is the name of the resource.

use std::collections::BTreeSet;

use apimachinery::Status;
use async_trait::async_trait;
use pods::resources::is_extended;
use registry::{Admission, Operation, Request};
use serde_json::{Value, json};

use super::{is, list_mut, text};

pub(super) struct ExtendedResourceToleration;

#[async_trait]
impl Admission for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, "", "pods") && a.subresource.is_empty() && matches!(a.operation, Operation::Create | Operation::Update)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let wanted = a.object().map(asked).unwrap_or_default();
        if let Some(pod) = a.object_mut().filter(|_| !wanted.is_empty()) {
            tolerate(pod, &wanted);
        }
        Ok(())
    }
}

/// The extended resources that containers ask for.
fn asked(pod: &Value) -> BTreeSet<String> {
    let containers =
        ["containers", "initContainers"].into_iter().flat_map(|key| pod["spec"][key].as_array().into_iter().flatten());
    let requests = containers.filter_map(|container| container.pointer("/resources/requests")?.as_object());
    requests.flat_map(|requests| requests.keys()).filter(|name| is_extended(name)).cloned().collect()
}

fn tolerate(pod: &mut Value, resources: &BTreeSet<String>) {
    let Some(tolerations) = pod.get_mut("spec").and_then(|spec| list_mut(spec, "tolerations")) else { return };
    let of_node = |own: &&Value| ["/operator", "/value", "/effect"].map(|field| text(own, field)) == ["Exists", "", "NoSchedule"];
    let known: BTreeSet<String> = tolerations.iter().filter(of_node).map(|own| text(own, "/key").to_owned()).collect();
    let missing = resources.difference(&known);
    tolerations.extend(missing.map(|name| json!({"key": name, "operator": "Exists", "effect": "NoSchedule"})));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Docs "Admission Control in Kubernetes", ExtendedResourceToleration.
    #[test]
    fn taints_of_devices() {
        let check = |containers: Value, init: Value, own: Value, expected: Value| {
            let mut pod = json!({"spec": {"containers": containers, "initContainers": init, "tolerations": own}});
            let wanted = asked(&pod);
            tolerate(&mut pod, &wanted);
            assert_eq!(pod["spec"]["tolerations"], expected, "{pod}");
        };
        let container = |names: &[&str]| {
            let requests: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), json!("1"))).collect();
            json!({"name": "c", "resources": {"requests": requests}})
        };
        let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        check(json!([container(&["cpu", "hugepages-2Mi"])]), json!([]), json!([]), json!([]));
        let (a, b) = ("example.com/a", "example.com/b");
        check(json!([container(&[b, "cpu"])]), json!([container(&[a])]), json!([]), json!([toleration(a), toleration(b)]));
        check(json!([container(&[a])]), json!([]), json!([toleration(a)]), json!([toleration(a)]));
        let other = json!({"key": a, "operator": "Equal", "value": "v", "effect": "NoSchedule"});
        check(json!([container(&[a])]), json!([]), json!([other]), json!([other, toleration(a)]));
    }
}
