//! What a pod takes: its containers as they run beside and after each other, its own requests, its overhead.

use std::collections::BTreeMap;

use apimachinery::names;
use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// What a pod can have more or less of while it runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Amounts as the API has them, in `resources.requests`, `status.capacity`...
pub type ResourceList = BTreeMap<String, ApiQuantity>;

/// Amounts by resource.
pub type Amounts<'a> = BTreeMap<&'a str, Quantity>;

/// Resources of Kubernetes itself, and not of somebody's device plugin.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// The name of a resource of somebody's device plugin, or of dynamic resources.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether a pod as a whole can ask for it, beside what its containers ask for (KEP-2837). Devices and local storage are their
/// containers' alone.
pub fn is_pod_level(name: &str) -> bool {
    ["cpu", "memory"].contains(&name) || name.starts_with("hugepages-")
}

/// The amount; nothing when it is none (the API has validated it).
pub fn parse(quantity: &ApiQuantity) -> Quantity {
    Quantity::parse(&quantity.0).unwrap_or(Quantity::ZERO)
}

/// The amounts of a list.
pub fn amounts(list: Option<&ResourceList>) -> Amounts<'_> {
    list.into_iter().flatten().map(|(name, quantity)| (name.as_str(), parse(quantity))).collect()
}

/// What a container asks for.
pub fn requests(container: &Container) -> Amounts<'_> {
    amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

/// What a container is limited to.
pub fn limits(container: &Container) -> Amounts<'_> {
    amounts(container.resources.as_ref().and_then(|resources| resources.limits.as_ref()))
}

/// The most that containers take together, when each takes what `of` says: containers and sidecars beside each other, or a step of
/// initialization beside the sidecars that run by then, whichever is more (KEP-753).
pub fn together<'a>(spec: &'a PodSpec, of: impl Fn(&'a Container) -> Amounts<'a>) -> Amounts<'a> {
    let (mut total, mut sidecars, mut peak) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if crate::is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut step = sidecars.clone();
            add(&mut step, &own);
            raise(&mut peak, &step);
        }
    }
    raise(&mut total, &peak);
    total
}

/// What the scheduler and the kubelet set aside for a pod, when each container asks for what `of` says. The pod's own requests stand for
/// those of its containers (KEP-2837), its overhead comes on top (KEP-688).
pub fn pod_requests_as<'a>(spec: &'a PodSpec, of: impl Fn(&'a Container) -> Amounts<'a>) -> Amounts<'a> {
    let mut total = together(spec, of);
    total.extend(amounts(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref())));
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// What the scheduler and the kubelet set aside for a pod.
pub fn pod_requests(spec: &PodSpec) -> Amounts<'_> {
    pod_requests_as(spec, requests)
}

/// Whether the status tells of other requests than the specification asks for: what is set aside depends on it then.
pub fn is_resizing(pod: &Pod) -> bool {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return false };
    let told = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    crate::containers(spec).any(|container| {
        let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let Some(told) = told.clone().find(|told| told.name == container.name) else { return false };
        let actual = told.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        [told.allocated_resources.as_ref(), actual].into_iter().flatten().any(|told| Some(told) != asked)
    })
}

/// What is set aside for a pod, when each container asks for what `of` says. A pod that is being resized needs the more of what it asks for
/// and of what it has; of a resize that its node can never do, only what it has (KEP-1287).
pub fn set_aside<'a>(pod: &'a Pod, of: impl Fn(&'a Container) -> Amounts<'a>) -> Amounts<'a> {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let Some(status) = &pod.status else { return pod_requests_as(spec, of) };
    let pending =
        |condition: &PodCondition| condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible");
    let infeasible = status.conditions.iter().flatten().any(pending);
    let told = |name: &str| {
        let lists = [&status.container_statuses, &status.init_container_statuses];
        lists.into_iter().flatten().flatten().find(|told| told.name == name)
    };
    pod_requests_as(spec, |container| {
        let mut own = of(container);
        let Some(told) = told(&container.name) else { return own };
        let mut has = amounts(told.allocated_resources.as_ref());
        raise(&mut has, &amounts(told.resources.as_ref().and_then(|resources| resources.requests.as_ref())));
        for (name, amount) in &mut own {
            if let Some(has) = has.get(name).filter(|_| RESIZABLE.contains(name)) {
                *amount = if infeasible { *has } else { (*amount).max(*has) };
            }
        }
        own
    })
}

/// What a pod is limited to. A resource that one of its containers may take without limit has none, unless the pod itself has.
pub fn pod_limits(spec: &PodSpec) -> Amounts<'_> {
    let mut total = together(spec, limits);
    total.retain(|name, _| crate::containers(spec).all(|container| limits(container).get(name).is_some_and(|l| l.signum() > 0)));
    let (own, overhead) = (amounts(spec.resources.as_ref().and_then(|r| r.limits.as_ref())), amounts(spec.overhead.as_ref()));
    total.extend(own);
    for (name, limit) in &mut total {
        *limit += overhead.get(name).copied().unwrap_or_default();
    }
    total
}

fn add<'a>(sum: &mut Amounts<'a>, more: &Amounts<'a>) {
    for (name, amount) in more {
        *sum.entry(name).or_default() += *amount;
    }
}

fn raise<'a>(to: &mut Amounts<'a>, least: &Amounts<'a>) {
    for (name, amount) in least {
        let own = to.entry(name).or_default();
        *own = (*own).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn container(resources: Value) -> Value {
        json!({"name": "c", "resources": resources})
    }

    fn asks(cpu: &str) -> Value {
        container(json!({"requests": {"cpu": cpu}}))
    }

    fn sidecar(mut container: Value) -> Value {
        container["restartPolicy"] = json!("Always");
        container
    }

    fn shown(amounts: &Amounts<'_>) -> Value {
        amounts
            .iter()
            .map(|(name, amount)| ((*name).to_owned(), json!(amount.as_milli())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    #[track_caller]
    fn check(spec: Value, expected: Value) {
        let typed: PodSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(shown(&pod_requests(&typed)), expected, "{spec}");
    }

    #[test]
    fn a_resized_pod_keeps_what_it_has_until_it_is_done() {
        let check = |reason: &str, has: &str, expected: i64| {
            let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [asks("500m")]}, "status": {
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "i", "imageID": "",
                    "allocatedResources": {"cpu": has}, "resources": {"requests": {"cpu": has}}}]}}))
            .unwrap();
            assert_eq!(shown(&set_aside(&pod, requests)), json!({"cpu": expected}), "{reason} {has}");
        };
        check("Deferred", "200m", 500);
        check("Deferred", "1", 1000);
        check("Infeasible", "200m", 200);
    }

    #[test]
    fn containers_add_up_and_init_containers_take_turns() {
        let cpu = |milli: i64| json!({"cpu": milli});
        check(json!({"containers": [asks("100m"), asks("1")]}), cpu(1100));
        check(json!({"containers": [asks("1")], "initContainers": [asks("3"), asks("2")]}), cpu(3000));
        check(json!({"containers": [asks("1")], "initContainers": [sidecar(asks("500m")), asks("2")]}), cpu(2500));
        check(json!({"containers": [asks("1")], "initContainers": [asks("2"), sidecar(asks("500m"))]}), cpu(2000));
        check(json!({"containers": [asks("2")], "initContainers": [sidecar(asks("1")), asks("3")]}), cpu(4000));
        check(json!({"containers": [{"name": "c"}]}), json!({}));
    }

    #[test]
    fn the_pods_own_requests_win_and_overhead_comes_on_top() {
        let overhead = json!({"cpu": "250m", "memory": "1k"});
        check(json!({"containers": [asks("1")], "overhead": overhead}), json!({"cpu": 1250, "memory": 1_000_000}));
        let own = json!({"requests": {"cpu": "500m"}});
        let both = container(json!({"requests": {"cpu": "4", "example.com/x": "2"}}));
        check(
            json!({"containers": [both], "resources": own, "overhead": {"cpu": "1"}}),
            json!({"cpu": 1500, "example.com/x": 2000}),
        );
    }

    #[test]
    fn one_container_without_a_limit_leaves_the_pod_without() {
        let check = |spec: Value, expected: Value| {
            let typed: PodSpec = serde_json::from_value(spec.clone()).unwrap();
            assert_eq!(shown(&pod_limits(&typed)), expected, "{spec}");
        };
        let both = container(json!({"limits": {"cpu": "1", "memory": "1k"}}));
        let cpu = container(json!({"limits": {"cpu": "2"}}));
        check(json!({"containers": [both, cpu]}), json!({"cpu": 3000}));
        check(json!({"containers": [both, {"name": "c"}]}), json!({}));
        check(json!({"containers": [both], "initContainers": [cpu]}), json!({"cpu": 2000}));
        check(json!({"containers": [both], "overhead": {"cpu": "1"}}), json!({"cpu": 2000, "memory": 1_000_000}));
        check(json!({"containers": [{"name": "c"}], "resources": {"limits": {"memory": "2k"}}}), json!({"memory": 2_000_000}));
    }

    #[test]
    fn names_of_others() {
        for (name, extended) in [
            ("cpu", false),
            ("hugepages-2Mi", false),
            ("example.com/foo", true),
            ("scheduling.k8s.io/foo", true),
            ("kubernetes.io/batch-cpu", false),
            ("requests.example.com/foo", false),
            ("example.com/-", false),
        ] {
            assert_eq!(is_extended(name), extended, "{name}");
        }
    }
}
