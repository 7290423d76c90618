//! The sub-resource `resize`: what a running pod may use (KEP-1287), its containers and the pod as a whole (KEP-5419).

use std::collections::BTreeMap;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pods::qos::Qos;
use serde_json::Value;

use super::validate;
use crate::rules::{list, text};
use crate::util::keep_all_but;

type Amounts = BTreeMap<String, Quantity>;

const RESIZABLE: [&str; 2] = ["cpu", "memory"];
const MIRROR: &str = "kubernetes.io/config.mirror";
const ONLY: &str = "only cpu and memory resources are mutable";

/// Of a pod only resources and how they are resized change here. A list with other containers stays as it was sent, to be refused.
pub(super) fn confine(pod: &mut Value, old: &Value) {
    keep_all_but(pod, old, &["spec", "metadata"]);
    if let (Some(metadata), Some(old)) = (pod.get_mut("metadata"), old.get("metadata")) {
        keep_all_but(metadata, old, &["managedFields"]);
    }
    let Some(sent) = pod.get_mut("spec").map(Value::take) else { return };
    let mut spec = old.get("spec").cloned().unwrap_or_default();
    for field in ["containers", "initContainers"] {
        let (new, old) = (elements(&sent, field), elements(&spec, field));
        let same = new.len() == old.len() && new.iter().zip(old).all(|(new, old)| new["name"] == old["name"]);
        let merged = if same { new.iter().zip(old).map(|(new, old)| resized(new, old)).collect() } else { new.to_vec() };
        set(&mut spec, field, Some(merged.into()).filter(|_| !new.is_empty()));
    }
    set(&mut spec, "resources", sent.get("resources").cloned());
    pod["spec"] = spec;
}

fn elements<'a>(spec: &'a Value, field: &str) -> &'a [Value] {
    spec.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn resized(new: &Value, old: &Value) -> Value {
    let mut container = old.clone();
    for field in ["resources", "resizePolicy"] {
        set(&mut container, field, new.get(field).cloned());
    }
    container
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    match (object.as_object_mut(), value) {
        (Some(map), Some(value)) => drop(map.insert(field.to_owned(), value)),
        (Some(map), None) => drop(map.remove(field)),
        (None, _) => {}
    }
}

/// Rules for a pod that is resized.
pub(super) fn validate(pod: &Pod, old: &Pod, errors: &mut Errors) {
    let none = PodSpec::default();
    let (new_spec, old_spec) = (pod.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let mirror = old.metadata.annotations.as_ref().is_some_and(|notes| notes.contains_key(MIRROR));
    let windows = old_spec.os.as_ref().is_some_and(|os| os.name == "windows");
    if mirror || windows {
        let detail = if mirror { "static pods cannot be resized" } else { "windows pods cannot be resized" };
        return errors.push(Error::forbidden(&Path::new(""), detail));
    }
    validate::validate_pod(pod, errors);
    let path = Path::new("spec");
    let class = old.status.as_ref().map(|status| text(&status.qos_class)).unwrap_or_default();
    let (was, is) = (Qos::of(old_spec).name(), Qos::of(new_spec).name());
    if is != if class.is_empty() { was } else { class } {
        errors.push(Error::invalid(&path, class, "Pod QOS Class may not change as a result of resizing"));
    }
    if !is_supported(old) {
        errors.push(Error::forbidden(&path, "Pod running on node without support for resize"));
    }
    let before = errors.len();
    validate_order(new_spec, old_spec, &path, errors);
    if errors.len() == before {
        validate_resources(new_spec, old_spec, &path, errors);
    }
}

/// A node that can resize shows the resources of what it runs.
fn is_supported(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().map(|status| list(&status.container_statuses)).unwrap_or_default();
    let running =
        |state: &&k8s_openapi::api::core::v1::ContainerStatus| state.state.as_ref().is_some_and(|state| state.running.is_some());
    statuses.iter().find(running).is_none_or(|status| status.resources.is_some())
}

fn validate_order(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let lists = [
        ("containers", &new.containers[..], &old.containers[..]),
        ("initContainers", list(&new.init_containers), list(&old.init_containers)),
    ];
    for (field, new, old) in lists {
        let path = path.child(field);
        if new.len() != old.len() {
            errors.push(Error::forbidden(&path, format!("{field} may not be added or removed on resize")));
            continue;
        }
        for (index, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
            let detail = format!("{field} may not be renamed or reordered on resize");
            errors.push(Error::forbidden(&path.index(index).child("name"), detail));
        }
    }
}

fn validate_resources(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let before = errors.len();
    validate_kept(new.resources.as_ref(), old.resources.as_ref(), &path.child("resources"), errors);
    let init: Vec<_> = list(&new.init_containers).iter().zip(list(&old.init_containers)).collect();
    let main: Vec<_> = new.containers.iter().zip(&old.containers).collect();
    for (index, (new, old)) in init.iter().enumerate() {
        let path = path.child("initContainers").index(index).child("resources");
        validate_kept(new.resources.as_ref(), old.resources.as_ref(), &path, errors);
    }
    for (index, (new, old)) in main.iter().enumerate() {
        let path = path.child("containers").index(index).child("resources");
        validate_kept(new.resources.as_ref(), old.resources.as_ref(), &path, errors);
    }
    let mut same = new.clone();
    same.resources = without_resizable(new.resources.as_ref(), old.resources.as_ref());
    for (container, (_, old)) in same.containers.iter_mut().zip(&main) {
        container.resources = without_resizable(container.resources.as_ref(), old.resources.as_ref());
        if container != *old {
            errors.push(Error::forbidden(path, ONLY));
        }
    }
    for (container, (_, old)) in same.init_containers.iter_mut().flatten().zip(&init) {
        container.resources = without_resizable(container.resources.as_ref(), old.resources.as_ref());
        if container != *old {
            let detail =
                if pods::is_sidecar(old) { "only cpu and memory resources for sidecar containers are mutable" } else { ONLY };
            errors.push(Error::forbidden(path, detail));
        }
    }
    if errors.len() == before && same != *old {
        errors.push(Error::forbidden(path, ONLY));
    }
}

/// What was asked for may get more or less, and may not go away.
fn validate_kept(new: Option<&ResourceRequirements>, old: Option<&ResourceRequirements>, path: &Path, errors: &mut Errors) {
    let none = ResourceRequirements::default();
    let (new, old) = (new.unwrap_or(&none), old.unwrap_or(&none));
    let lost = |new: &Option<Amounts>, old: &Option<Amounts>| {
        old.iter().flatten().any(|(name, _)| !new.as_ref().is_some_and(|new| new.contains_key(name)))
    };
    if lost(&new.requests, &old.requests) {
        errors.push(Error::forbidden(&path.child("requests"), "resource requests cannot be removed"));
    }
    if lost(&new.limits, &old.limits) {
        errors.push(Error::forbidden(&path.child("limits"), "resource limits cannot be removed"));
    }
}

/// The new requirements with the old amounts of what may be resized.
fn without_resizable(new: Option<&ResourceRequirements>, old: Option<&ResourceRequirements>) -> Option<ResourceRequirements> {
    let none = ResourceRequirements::default();
    let (was, is) = (old.unwrap_or(&none), new.unwrap_or(&none));
    let amounts = |new: &Option<Amounts>, old: &Option<Amounts>| {
        let mut amounts = new.clone().unwrap_or_default();
        for name in RESIZABLE {
            amounts.remove(name);
            if let Some(amount) = old.as_ref().and_then(|old| old.get(name)) {
                amounts.insert(name.to_owned(), amount.clone());
            }
        }
        Some(amounts).filter(|amounts| !amounts.is_empty() || old.is_some())
    };
    let (limits, requests) = (amounts(&is.limits, &was.limits), amounts(&is.requests, &was.requests));
    let munged = ResourceRequirements { limits, requests, claims: was.claims.clone() };
    Some(munged).filter(|munged| old.is_some() || *munged != ResourceRequirements::default())
}

#[cfg(test)]
mod tests;
