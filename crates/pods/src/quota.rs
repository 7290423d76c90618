//! What objects take of a ResourceQuota (docs "Resource Quotas"): for the API server, which holds requests to it, and for the
//! controller, which counts what is there.

pub mod devices;
mod scopes;

use std::collections::BTreeMap;

use apimachinery::quantity::{Format, Quantity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodSpec, Service};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;

use crate::resources::{self, Amounts};
use crate::state;
pub use scopes::{Scoped, is_in, scopes_of, selects};

/// Amounts by the names that quotas have for them.
pub type Usage = BTreeMap<String, Quantity>;

const PREFIX_REQUESTS: &str = "requests.";
const PREFIX_LIMITS: &str = "limits.";
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Kinds that quotas count by a plain name too.
const PLAIN: &[&str] =
    &["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// Resources that have a plain name besides the one with `requests.`.
const COMPUTE: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// What a container has to say where a quota limits it.
const REQUIRED: &[&str] = &["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

fn one() -> Quantity {
    Quantity::from_units(1, Format::DecimalSi)
}

fn number(count: usize) -> Quantity {
    Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// The name by which quotas count the objects of a resource.
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// The resource whose objects a quota counts under this name, as group and plural.
pub fn counted(name: &str) -> Option<(&str, &str)> {
    match name.strip_prefix("count/") {
        Some(resource) => Some(resource.split_once('.').map_or(("", resource), |(plural, group)| (group, plural))),
        None => PLAIN.iter().find(|plain| **plain == name).map(|plain| ("", *plain)),
    }
}

/// What one object takes as one of its kind.
pub fn of_any(group: &str, plural: &str) -> Usage {
    let mut usage = Usage::from([(count_name(group, plural), one())]);
    if group.is_empty() && PLAIN.contains(&plural) {
        usage.insert(plural.to_owned(), one());
    }
    usage
}

/// An object that quotas count, decoded where it takes more than its number.
pub enum Counted {
    Pod(Box<Pod>),
    Service(Box<Service>),
    Claim(Box<PersistentVolumeClaim>),
    Devices(Box<ResourceClaim>),
    Other,
}

impl Counted {
    /// An object as it is stored.
    pub fn of(group: &str, plural: &str, object: &Value) -> Self {
        fn read<T: codec::Decode>(object: &Value, of: fn(Box<T>) -> Counted) -> Option<Counted> {
            T::from_tree(object).ok().map(|object| of(Box::new(object)))
        }
        let decoded = match (group, plural) {
            ("", "pods") => read(object, Self::Pod),
            ("", "services") => read(object, Self::Service),
            ("", "persistentvolumeclaims") => read(object, Self::Claim),
            devices::RESOURCE => read(object, Self::Devices),
            _ => None,
        };
        decoded.unwrap_or(Self::Other)
    }

    /// What scopes look at.
    pub fn scoped(&self) -> Scoped<'_> {
        match self {
            Self::Pod(pod) => Scoped::Pod(pod),
            Self::Claim(claim) => Scoped::Claim(claim),
            Self::Service(_) | Self::Devices(_) | Self::Other => Scoped::Other,
        }
    }
}

/// What a pod takes. One that has ended counts as an object and takes nothing.
pub fn of_pod(pod: &Pod, now: Timestamp) -> Usage {
    let mut usage = of_any("", "pods");
    let Some(spec) = pod.spec.as_ref().filter(|_| !state::is_finished(pod) && !is_overdue(pod, now)) else { return usage };
    usage.insert("pods".to_owned(), one());
    let (requests, mut limits) = (resources::set_aside(pod, resources::requests), resources::limits_set_aside(pod));
    for (name, overhead) in resources::amounts(spec.overhead.as_ref()) {
        if let Some(limit) = limits.get_mut(name) {
            *limit += overhead;
        }
    }
    insert(&mut usage, &requests, &limits);
    usage
}

fn insert(usage: &mut Usage, requests: &Amounts<'_>, limits: &Amounts<'_>) {
    for (name, amount) in requests {
        if COMPUTE.contains(name) || name.starts_with("hugepages-") {
            usage.insert((*name).to_owned(), *amount);
        }
        usage.insert(format!("{PREFIX_REQUESTS}{name}"), *amount);
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(name)) {
        usage.insert(format!("{PREFIX_LIMITS}{name}"), *amount);
    }
}

/// Whether the time to end is long over: the node of the pod must be gone.
fn is_overdue(pod: &Pod, now: Timestamp) -> bool {
    overdue_after(pod).is_some_and(|end| now > end)
}

/// After which time a pod that ends takes nothing, though it is there still.
pub fn overdue_after(pod: &Pod) -> Option<Timestamp> {
    let grace = pod.metadata.deletion_grace_period_seconds?;
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_add(SignedDuration::from_secs(grace)).ok()
}

/// What a service takes.
pub fn of_service(service: &Service) -> Usage {
    let mut usage = of_any("", "services");
    let Some(spec) = &service.spec else { return usage };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let allocated = match spec.type_.as_deref() {
        Some("NodePort") => ports.len(),
        Some("LoadBalancer") if spec.allocate_load_balancer_node_ports != Some(false) => ports.len(),
        Some("LoadBalancer") => ports.iter().filter(|port| port.node_port.unwrap_or(0) != 0).count(),
        _ => 0,
    };
    usage.insert("services.nodeports".to_owned(), number(allocated));
    usage.insert("services.loadbalancers".to_owned(), number(usize::from(balanced)));
    usage
}

/// What a claim takes, in all and of its storage class. An expansion that was begun counts until it is given up (KEP-1790).
pub fn of_claim(claim: &PersistentVolumeClaim) -> Usage {
    let mut usage = of_any("", "persistentvolumeclaims");
    let Some(spec) = &claim.spec else { return usage };
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let allocated = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
    let storage = [requests, allocated].map(|list| resources::amounts(list).get("storage").copied()).into_iter().max().flatten();
    let class = spec.storage_class_name.as_deref().unwrap_or_default();
    if !class.is_empty() {
        usage.insert(format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), one());
    }
    if let Some(storage) = storage {
        usage.insert("requests.storage".to_owned(), storage);
        if !class.is_empty() {
            usage.insert(format!("{class}{STORAGE_CLASS}requests.storage"), storage);
        }
    }
    usage
}

/// Whether objects of the resource can take of what a quota limits under this name.
pub fn concerns(group: &str, plural: &str, name: &str) -> bool {
    if counted(name) == Some((group, plural)) {
        return true;
    }
    let storage = name.ends_with("requests.storage") || name.contains(STORAGE_CLASS);
    match (group, plural) {
        ("", "pods") => {
            let compute = name.strip_prefix(PREFIX_REQUESTS).or(name.strip_prefix(PREFIX_LIMITS)).is_some();
            name == "pods" || COMPUTE.contains(&name) || name.starts_with("hugepages-") || (compute && !storage)
        }
        ("", "services") => name.starts_with("services."),
        ("", "persistentvolumeclaims") => storage,
        devices::RESOURCE => devices::concerned(name),
        _ => false,
    }
}

/// The requests and limits that a quota with these names needs and that containers of the pod do not say: by name, who. Of a pod that says
/// something for all of its containers none of them has to (KEP-2837).
pub fn unsaid<'a>(names: impl Iterator<Item = &'a str>, pod: &Pod) -> BTreeMap<&'a str, Vec<String>> {
    let Some(spec) = pod.spec.as_ref().filter(|spec| !says_for_all(spec)) else { return BTreeMap::new() };
    let mut unsaid: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let needed: Vec<&str> = names.filter(|name| REQUIRED.contains(name)).collect();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let said = insert_all(&resources::requests(container), &resources::limits(container));
        for name in needed.iter().filter(|name| !said.contains_key(**name)) {
            unsaid.entry(name).or_default().push(container.name.clone());
        }
    }
    unsaid
}

/// Whether the pod has resources of its own.
fn says_for_all(spec: &PodSpec) -> bool {
    let own = spec.resources.iter();
    own.flat_map(|own| [&own.requests, &own.limits]).any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
}

fn insert_all(requests: &Amounts<'_>, limits: &Amounts<'_>) -> Usage {
    let mut usage = Usage::new();
    insert(&mut usage, requests, limits);
    usage
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn shown(usage: &Usage) -> String {
        usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn what_objects_take() {
        let check = |plural: &str, object: Value, expected: &str| {
            let now = "2026-01-01T00:10:00Z".parse().unwrap();
            let usage = match Counted::of("", plural, &object) {
                Counted::Pod(pod) => of_pod(&pod, now),
                Counted::Service(service) => of_service(&service),
                Counted::Claim(claim) => of_claim(&claim),
                Counted::Devices(_) | Counted::Other => of_any("", plural),
            };
            assert_eq!(shown(&usage), expected, "{object}");
        };
        let resources = json!({"requests": {"cpu": "1", "example.com/ship": "3"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        let takes = "count/pods=1,cpu=1,limits.cpu=2,limits.memory=1Gi,pods=1,requests.cpu=1,requests.example.com/ship=3";
        check("pods", pod.clone(), takes);
        let mut done = pod.clone();
        done["status"] = json!({"phase": "Failed"});
        check("pods", done, "count/pods=1");
        let mut lost = pod;
        lost["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30});
        check("pods", lost, "count/pods=1");
        let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 1}, {"port": 2}]}});
        check("services", service("ClusterIP"), "count/services=1,services=1,services.loadbalancers=0,services.nodeports=0");
        check("services", service("NodePort"), "count/services=1,services=1,services.loadbalancers=0,services.nodeports=2");
        check("services", service("LoadBalancer"), "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2");
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "5Gi"}}}});
        let takes = "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/requests.storage=5Gi,persistentvolumeclaims=1,requests.storage=5Gi";
        check("persistentvolumeclaims", claim, takes);
        let grows = |allocated: &str| json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}, "status": {"allocatedResources": {"storage": allocated}}});
        let takes = |storage: &str| format!("count/persistentvolumeclaims=1,persistentvolumeclaims=1,requests.storage={storage}");
        check("persistentvolumeclaims", grows("8Gi"), &takes("8Gi"));
        check("persistentvolumeclaims", grows("1Gi"), &takes("5Gi"));
        check("secrets", json!({}), "count/secrets=1,secrets=1");
        assert_eq!(shown(&of_any("apps", "deployments")), "count/deployments.apps=1");
    }

    #[test]
    fn who_takes_what() {
        let check = |group: &str, plural: &str, name: &str, expected: bool| {
            assert_eq!(concerns(group, plural, name), expected, "{plural} {name}")
        };
        check("", "pods", "requests.cpu", true);
        check("", "pods", "requests.storage", false);
        check("", "pods", "limits.memory", true);
        check("", "pods", "requests.example.com/ship", true);
        check("", "pods", "count/pods", true);
        check("", "pods", "services", false);
        check("", "services", "services.nodeports", true);
        check("", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage", true);
        check("apps", "deployments", "count/deployments.apps", true);
        check("apps", "deployments", "count/deployments", false);
        check("resource.k8s.io", "resourceclaims", "gpu.deviceclass.resource.k8s.io/devices", true);
        check("resource.k8s.io", "resourceclaims", "pods", false);
    }

    #[test]
    fn what_has_to_be_said() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "1"}}}, {"name": "b", "resources": {"limits": {"memory": "1"}}}]}}))
        .unwrap();
        let found = unsaid(["requests.cpu", "limits.memory", "pods", "cpu"].into_iter(), &pod);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found,
            BTreeMap::from([("cpu", names(&["b"])), ("limits.memory", names(&["a"])), ("requests.cpu", names(&["b"]))])
        );
        let mut whole = pod;
        whole.spec.as_mut().unwrap().resources = Some(serde_json::from_value(json!({"requests": {"memory": "1"}})).unwrap());
        assert_eq!(unsaid(["requests.cpu"].into_iter(), &whole), BTreeMap::new());
    }
}
