//! Amounts of resources, in the units that scheduling computes with.

use apimachinery::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{Container, Pod};
use pods::resources::{Amounts, ResourceList, amounts, requests, set_aside};

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

impl Resources {
    /// From a resource list of the API. `pods` is not an amount that pods ask for; see [`pods_in`].
    pub(crate) fn from_list(list: &ResourceList) -> Self {
        Self::from_amounts(&amounts(Some(list)))
    }

    fn from_amounts(amounts: &Amounts<'_>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in amounts {
            match *name {
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

    /// Adds what somebody else asks for. A sum is at most the largest number, and cannot be undone there.
    pub(crate) fn add(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.saturating_add(other.milli_cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(other.ephemeral_storage);
        for (name, amount) in &other.others {
            match self.others.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => *own = own.saturating_add(*amount),
                None => self.others.push((name.clone(), *amount)),
            }
        }
    }

    pub(crate) fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        all.for_each(|one| sum.add(one));
        sum
    }
}

/// How many pods a list of allocatable resources allows.
pub(crate) fn pods_in(list: &ResourceList) -> usize {
    list.get("pods").map_or(0, |quantity| usize::try_from(pods::resources::parse(quantity).as_i64()).unwrap_or(0))
}

/// What a pod asks for. With `defaults` silent containers count as small ones.
pub(crate) fn pod_request(pod: &Pod, defaults: bool) -> Resources {
    let of = if defaults { assumed_requests } else { requests };
    Resources::from_amounts(&set_aside(pod, of))
}

fn assumed_requests(container: &Container) -> Amounts<'_> {
    let mut amounts = requests(container);
    amounts.entry("cpu").or_insert_with(|| Quantity::from_milli(DEFAULT_MILLI_CPU, Format::DecimalSi));
    amounts.entry("memory").or_insert_with(|| Quantity::from_units(DEFAULT_MEMORY, Format::BinarySi));
    amounts
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
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        assert_eq!(pod_request(&pod, false).milli_cpu, milli_cpu);
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
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
        assert_eq!(pod_request(&pod, true).milli_cpu, 100);
        assert_eq!(pod_request(&pod, false), Resources::default());
    }
}
