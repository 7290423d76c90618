//! Amounts of resources, in the units that scheduling computes with.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity as Parsed;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Assumed for a container that asks for nothing, so that such pods spread too: 100m and 200 MB.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// CPU in thousandths, the rest in whole units (bytes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral_storage: i64,
    /// Extended resources and huge pages, few.
    pub(crate) others: Vec<(Box<str>, i64)>,
}

type List = BTreeMap<String, Quantity>;

fn parse(quantity: &Quantity) -> Parsed {
    // The API has validated it.
    Parsed::parse(&quantity.0).unwrap_or(Parsed::ZERO)
}

impl Resources {
    /// From a resource list of the API. `pods` is not an amount that pods ask for; see [`pods_in`].
    pub(crate) fn from_list(list: &List) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            let quantity = parse(quantity);
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.as_milli(),
                "memory" => resources.memory = quantity.as_i64(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.as_i64(),
                "pods" => {}
                other => resources.others.push((other.into(), quantity.as_i64())),
            }
        }
        resources
    }

    pub(crate) fn other(&self, name: &str) -> i64 {
        self.others.iter().find(|(own, _)| &**own == name).map_or(0, |(_, amount)| *amount)
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.others {
            match self.others.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => *own = with(*own, *amount),
                None => self.others.push((name.clone(), with(0, *amount))),
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn at_least(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    /// Takes from `other` what it names.
    fn override_with(&mut self, list: &List) {
        let other = Self::from_list(list);
        let named = |name: &str| list.contains_key(name);
        if named("cpu") {
            self.milli_cpu = other.milli_cpu;
        }
        if named("memory") {
            self.memory = other.memory;
        }
        for (name, amount) in other.others {
            self.others.retain(|(own, _)| *own != name);
            self.others.push((name, amount));
        }
    }
}

/// How many pods a list of allocatable resources allows.
pub(crate) fn pods_in(list: &List) -> usize {
    list.get("pods").map_or(0, |quantity| usize::try_from(parse(quantity).as_i64()).unwrap_or(0))
}

fn requests(resources: Option<&ResourceRequirements>) -> Option<&List> {
    resources?.requests.as_ref()
}

fn of_container(container: &Container, defaults: bool) -> Resources {
    let list = requests(container.resources.as_ref());
    let mut resources = list.map(Resources::from_list).unwrap_or_default();
    if defaults {
        let named = |name: &str| list.is_some_and(|list| list.contains_key(name));
        if !named("cpu") {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !named("memory") {
            resources.memory = DEFAULT_MEMORY;
        }
    }
    resources
}

/// What a pod asks for: containers and sidecars together, or the largest init container with the sidecars that run
/// before it; pod-level requests win; overhead comes on top. With `defaults` silent containers count as small ones.
pub(crate) fn pod_request(spec: &PodSpec, defaults: bool) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of_container(container, defaults));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut own = of_container(container, defaults);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&own);
            sidecars.add(&own);
            peak.at_least(&sidecars);
        } else {
            own.add(&sidecars);
            peak.at_least(&own);
        }
    }
    total.at_least(&peak);
    if let Some(list) = requests(spec.resources.as_ref()) {
        total.override_with(list);
    }
    if let Some(overhead) = &spec.overhead {
        total.add(&Resources::from_list(overhead));
    }
    total
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    fn check(spec: Value, milli_cpu: i64) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(pod_request(&spec, false).milli_cpu, milli_cpu);
    }

    #[test]
    fn sums_containers_and_takes_the_peak_of_init() {
        check(json!({"containers": [container("100m"), container("1")]}), 1100);
        check(json!({"containers": [container("1")], "initContainers": [container("3"), container("2")]}), 3000);
        let mut sidecar = container("500m");
        sidecar["restartPolicy"] = json!("Always");
        check(json!({"containers": [container("1")], "initContainers": [sidecar, container("2")]}), 2500);
        check(json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}), 1250);
        check(json!({"containers": [container("1")], "resources": {"requests": {"cpu": "4"}}}), 4000);
    }

    #[test]
    fn silent_containers_count_as_small() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "c"}]})).unwrap();
        assert_eq!(pod_request(&spec, true).milli_cpu, 100);
        assert_eq!(pod_request(&spec, false), Resources::default());
    }
}
