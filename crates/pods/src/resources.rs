//! What a pod takes: its containers as they run beside and after each other, its own requests, its overhead.

use std::collections::BTreeMap;

use apimachinery::names;
use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodSpec, PodStatus, ResourceRequirements};
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

/// What the scheduler and the kubelet set aside for a pod, when each container asks for what `of` says.
pub fn pod_requests_as<'a>(spec: &'a PodSpec, of: impl Fn(&'a Container) -> Amounts<'a>) -> Amounts<'a> {
    summed(spec, of, amounts(asks(spec.resources.as_ref())))
}

/// The pod's `own` requests stand for those of its containers (KEP-2837), its overhead comes on top (KEP-688).
fn summed<'a>(spec: &'a PodSpec, of: impl Fn(&'a Container) -> Amounts<'a>, own: Amounts<'a>) -> Amounts<'a> {
    let mut total = together(spec, of);
    total.extend(own);
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// What the scheduler and the kubelet set aside for a pod.
pub fn pod_requests(spec: &PodSpec) -> Amounts<'_> {
    pod_requests_as(spec, requests)
}

fn asks(resources: Option<&ResourceRequirements>) -> Option<&ResourceList> {
    resources.and_then(|resources| resources.requests.as_ref())
}

/// Whether the status tells of other requests than the specification asks for: what is set aside depends on it then.
pub fn is_resizing(pod: &Pod) -> bool {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return false };
    let own = asks(spec.resources.as_ref());
    if own.is_some()
        && [status.allocated_resources.as_ref(), asks(status.resources.as_ref())]
            .into_iter()
            .flatten()
            .any(|told| Some(told) != own)
    {
        return true;
    }
    let told = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    crate::containers(spec).any(|container| {
        let Some(told) = told.clone().find(|told| told.name == container.name) else { return false };
        let told = [told.allocated_resources.as_ref(), asks(told.resources.as_ref())];
        told.into_iter().flatten().any(|told| Some(told) != asks(container.resources.as_ref()))
    })
}

/// What is set aside for a pod, when each container asks for what `of` says. A pod that is being resized, by its containers or as a whole, needs
/// the more of what it asks for and of what it has; of a resize that its node can never do, only what it has (KEP-1287, KEP-5419).
pub fn set_aside<'a>(pod: &'a Pod, of: impl Fn(&'a Container) -> Amounts<'a>) -> Amounts<'a> {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let told = Told::of(pod);
    let of = |container: &'a Container| {
        told.of_container(container, of(container), |status| {
            [status.allocated_resources.as_ref(), asks(status.resources.as_ref())]
        })
    };
    let own = asks(spec.resources.as_ref());
    let allocated = told.status.and_then(|status| status.allocated_resources.as_ref());
    summed(spec, of, told.of_pod(own, |resources| [allocated, resources.requests.as_ref()]))
}

/// What a pod is limited to where its containers or the pod have limits, by the same rule, without its overhead.
pub fn limits_set_aside(pod: &Pod) -> Amounts<'_> {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let told = Told::of(pod);
    let mut total = together(spec, |container| {
        told.of_container(container, limits(container), |status| {
            [status.resources.as_ref().and_then(|resources| resources.limits.as_ref()), None]
        })
    });
    let own = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    total.extend(told.of_pod(own, |resources| [resources.limits.as_ref(), None]));
    total
}

/// What the status of a pod says of its resources.
struct Told<'a> {
    status: Option<&'a PodStatus>,
    /// Its node can never do what the pod asks for.
    infeasible: bool,
}

/// What somebody has: what has been given, and what is in force.
type Has<'a> = [Option<&'a ResourceList>; 2];

impl<'a> Told<'a> {
    fn of(pod: &'a Pod) -> Self {
        let pending =
            |condition: &PodCondition| condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible");
        let status = pod.status.as_ref();
        Self { status, infeasible: status.is_some_and(|status| status.conditions.iter().flatten().any(pending)) }
    }

    /// What a container takes that asks for so much.
    fn of_container(
        &self,
        container: &Container,
        mut asks: Amounts<'a>,
        has: impl Fn(&'a ContainerStatus) -> Has<'a>,
    ) -> Amounts<'a> {
        let lists = self.status.into_iter().flat_map(|status| [&status.container_statuses, &status.init_container_statuses]);
        let Some(told) = lists.flatten().flatten().find(|told| told.name == container.name) else { return asks };
        let has = most(has(told));
        for (name, amount) in &mut asks {
            if let Some(has) = has.get(name).filter(|_| RESIZABLE.contains(name)) {
                *amount = if self.infeasible { *has } else { (*amount).max(*has) };
            }
        }
        asks
    }

    /// The same of the pod as a whole; nothing where it asks for nothing.
    fn of_pod(&self, asks: Option<&'a ResourceList>, has: impl Fn(&'a ResourceRequirements) -> Has<'a>) -> Amounts<'a> {
        let told = self.status.and_then(|status| status.resources.as_ref()).filter(|_| asks.is_some());
        let (mut all, has) = (amounts(asks), told.map(|told| most(has(told))));
        match has {
            Some(has) if self.infeasible => has,
            Some(has) => {
                raise(&mut all, &has);
                all
            }
            None => all,
        }
    }
}

/// The more of both.
fn most(lists: Has<'_>) -> Amounts<'_> {
    let mut most = Amounts::new();
    lists.into_iter().for_each(|list| raise(&mut most, &amounts(list)));
    most
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

    /// Of its containers or as a whole (KEP-5419), requests and limits.
    #[test]
    fn a_resized_pod_keeps_what_it_has_until_it_is_done() {
        let both = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let status = |reason: &str, has: &str| {
            json!({"name": "c", "ready": true, "restartCount": 0, "image": "i", "imageID": "", "resources": both(has),
                "allocatedResources": {"cpu": has},
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}]})
        };
        let check = |reason: &str, has: &str, expected: i64| {
            let told = status(reason, has);
            let containers = json!({"spec": {"containers": [container(both("500m"))]},
                "status": {"conditions": told["conditions"], "containerStatuses": [told]}});
            let whole = json!({"spec": {"containers": [container(both("100m"))], "resources": both("500m")}, "status": told});
            for pod in [containers, whole] {
                let pod: Pod = serde_json::from_value(pod).unwrap();
                assert_eq!(shown(&set_aside(&pod, requests)), json!({"cpu": expected}), "{reason} {has}");
                assert_eq!(shown(&limits_set_aside(&pod)), json!({"cpu": expected}), "{reason} {has}");
                assert_eq!(is_resizing(&pod), has != "500m", "{reason} {has}");
            }
        };
        check("Deferred", "200m", 500);
        check("Deferred", "1", 1000);
        check("Infeasible", "200m", 200);
        check("", "500m", 500);
    }

    /// Of a pod that has no requests of its own nothing is told, and what it has not been given yet it has only asked for.
    #[test]
    fn what_is_not_told_is_what_is_asked_for() {
        let check = |spec: Value, status: Value, expected: i64| {
            let pod: Pod = serde_json::from_value(json!({"spec": spec, "status": status})).unwrap();
            assert_eq!(shown(&set_aside(&pod, requests)), json!({"cpu": expected}), "{spec} {status}");
        };
        let own = json!({"containers": [asks("100m")], "resources": {"requests": {"cpu": "500m"}}});
        check(own.clone(), json!({}), 500);
        check(own, json!({"allocatedResources": {"cpu": "1"}}), 500);
        check(json!({"containers": [asks("100m")]}), json!({"resources": {"requests": {"cpu": "1"}}}), 100);
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
