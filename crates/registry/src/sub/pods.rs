//! Binding of pods.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{GroupResource, Status, meta, time};
use serde_json::{Value, json};
use store::Expect;

use crate::pipeline::Unwritten;
use crate::target::Target;
use crate::verbs::CONFLICT_ATTEMPTS;
use crate::{Operation, Registry};

impl Registry {
    /// Binds a pod to a node, once.
    pub(super) async fn bind(&self, target: Target<'_>, binding: &Value) -> Result<Value, Status> {
        // A webhook may send the pod elsewhere.
        let binding = self.mutate(target, Operation::Create, Some(binding.clone()), None).await?.unwrap_or_default();
        if meta::name(&binding) != target.name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let node = validate_binding(&binding)?;
        let (binding, holds) = self.admit(target, Operation::Create, Some(binding), None).await?;
        let binding = binding.unwrap_or_default();
        for _ in 0..CONFLICT_ATTEMPTS {
            let current = target.res.storage.cache.get(&target.path()).ok_or_else(|| target.not_found())?;
            let pod = current.value();
            check_preconditions(target, &binding, &pod)?;
            let pod = bound(target, pod, &binding, &node)?;
            match self.put(target, &pod, None, Expect::At(current.revision), &holds).await {
                Err(Unwritten::Store(store::Error::Conflict(_))) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    return Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}));
                }
            }
        }
        Err(target.modified())
    }
}

/// The name of the node that a binding names.
fn validate_binding(binding: &Value) -> Result<String, Status> {
    let kind = binding.pointer("/target/kind").and_then(Value::as_str).unwrap_or_default();
    let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default();
    let (path, mut errors) = (Path::new("target"), Errors::new());
    if !["", "Node"].contains(&kind) {
        errors.push(Error::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    if errors.is_empty() { Ok(node.to_owned()) } else { Err(Status::invalid("", "Binding", meta::name(binding), &errors)) }
}

/// A binding that names a UID or a version is meant for that pod alone.
fn check_preconditions(target: Target<'_>, binding: &Value, pod: &Value) -> Result<(), Status> {
    let about = &target.res.group_resource;
    let (uid, version) = (meta::uid(binding), meta::resource_version(binding));
    if !uid.is_empty() && uid != meta::uid(pod) {
        return Err(Status::uid_precondition(about, target.name, uid, meta::uid(pod)));
    }
    if !version.is_empty() && version != meta::resource_version(pod) {
        return Err(Status::resource_version_precondition(about, target.name, version, meta::resource_version(pod)));
    }
    Ok(())
}

/// The pod with its node, the annotations of the binding, labels of it that the pod has not, and the condition that it is scheduled.
fn bound(target: Target<'_>, mut pod: Value, binding: &Value, node: &str) -> Result<Value, Status> {
    let refuse = |why: String| Err(Status::conflict(&GroupResource::new("", "pods/binding"), target.name, why));
    if meta::is_deleting(&pod) {
        return refuse(format!("pod {} is being deleted, cannot be assigned to a host", target.name));
    }
    let assigned = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if !assigned.is_empty() {
        return refuse(format!("pod {} is already assigned to node {assigned:?}", target.name));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        return refuse(format!("pod {} has non-empty .spec.schedulingGates", target.name));
    }
    place(&mut pod, node);
    for (key, value) in meta::annotations(binding).into_iter().flatten() {
        meta::set_annotation(&mut pod, key, value.as_str().unwrap_or_default());
    }
    for (key, value) in meta::labels(binding).into_iter().flatten() {
        if meta::labels(&pod).is_none_or(|own| !own.contains_key(key)) {
            meta::set_label(&mut pod, key, value.as_str().unwrap_or_default());
        }
    }
    Ok(pod)
}

/// Gives the pod its node. The node that it was promised before says nothing any more (KEP-5278).
fn place(pod: &mut Value, node: &str) {
    pod["spec"]["nodeName"] = node.into();
    let Some(status) = pod["status"].as_object_mut() else { return };
    status.remove("nominatedNodeName");
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": time::now()});
    if let Value::Array(list) = status.entry("conditions").or_insert_with(|| json!([])) {
        list.retain(|condition| condition["type"] != "PodScheduled");
        list.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_has_its_node_is_promised_none() {
        let waiting = json!({"type": "PodScheduled", "status": "False"});
        let mut pod = json!({"spec": {}, "status": {"nominatedNodeName": "a", "conditions": [waiting, {"type": "Ready"}]}});
        place(&mut pod, "b");
        assert_eq!((&pod["spec"]["nodeName"], &pod["status"]["nominatedNodeName"]), (&json!("b"), &Value::Null));
        let list = &pod["status"]["conditions"];
        assert_eq!(
            (&list[0]["type"], &list[1]["type"], &list[1]["status"]),
            (&json!("Ready"), &json!("PodScheduled"), &json!("True"))
        );
        assert_eq!(list[2], Value::Null);
    }
}
