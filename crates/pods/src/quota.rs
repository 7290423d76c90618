//! What objects take of a ResourceQuota (docs "Resource Quotas"): for the API server, which holds requests to it, and for the
//! controller, which counts what is there.

use std::collections::BTreeMap;

use apimachinery::quantity::{Format, Quantity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuotaSpec, ScopedResourceSelectorRequirement, Service,
};
use serde_json::Value;

use crate::qos::Qos;
use crate::resources::{self, Amounts};
use crate::state;

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

/// What an object as it is stored takes.
pub fn of_value(group: &str, plural: &str, object: &Value, now: Timestamp) -> Usage {
    let decoded = match (group, plural) {
        ("", "pods") => serde_json::from_value(object.clone()).ok().map(|pod| of_pod(&pod, now)),
        ("", "services") => serde_json::from_value(object.clone()).ok().map(|service| of_service(&service)),
        ("", "persistentvolumeclaims") => serde_json::from_value(object.clone()).ok().map(|claim| of_claim(&claim)),
        _ => None,
    };
    decoded.unwrap_or_else(|| of_any(group, plural))
}

/// What a pod takes. One that has ended counts as an object and takes nothing.
pub fn of_pod(pod: &Pod, now: Timestamp) -> Usage {
    let mut usage = of_any("", "pods");
    let Some(spec) = pod.spec.as_ref().filter(|_| !state::is_finished(pod) && !is_overdue(pod, now)) else { return usage };
    usage.insert("pods".to_owned(), one());
    let own = spec.resources.as_ref();
    let requests = resources::set_aside(pod, resources::requests);
    let mut limits = resources::together(spec, resources::limits);
    limits.extend(resources::amounts(own.and_then(|own| own.limits.as_ref())));
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
    let grace = pod.metadata.deletion_grace_period_seconds;
    let (Some(deletion), Some(grace)) = (&pod.metadata.deletion_timestamp, grace) else { return false };
    deletion.0.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now > end)
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

/// What a claim takes, in all and of its storage class.
pub fn of_claim(claim: &PersistentVolumeClaim) -> Usage {
    let mut usage = of_any("", "persistentvolumeclaims");
    let Some(spec) = &claim.spec else { return usage };
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let storage = resources::amounts(requests).get("storage").copied();
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
        _ => false,
    }
}

/// Whether a quota is about the object. Only pods have scopes.
pub fn selects(quota: &ResourceQuotaSpec, pod: Option<&Pod>) -> bool {
    let plain = quota.scopes.iter().flatten().map(|scope| (scope.as_str(), None));
    let expressions = quota.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    let valued = expressions.map(|expression| (expression.scope_name.as_str(), Some(expression)));
    plain.chain(valued).all(|(scope, expression)| pod.is_some_and(|pod| is_in(pod, scope, expression)))
}

fn is_in(pod: &Pod, scope: &str, expression: Option<&ScopedResourceSelectorRequirement>) -> bool {
    let Some(spec) = &pod.spec else { return false };
    match scope {
        "Terminating" => spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0),
        "NotTerminating" => spec.active_deadline_seconds.is_none_or(|seconds| seconds < 0),
        "BestEffort" => Qos::of(spec) == Qos::BestEffort,
        "NotBestEffort" => Qos::of(spec) != Qos::BestEffort,
        "PriorityClass" => has_class(spec.priority_class_name.as_deref().unwrap_or_default(), expression),
        "CrossNamespacePodAffinity" => reaches_out(pod),
        _ => false,
    }
}

fn has_class(class: &str, expression: Option<&ScopedResourceSelectorRequirement>) -> bool {
    let Some(expression) = expression else { return !class.is_empty() };
    let listed = expression.values.iter().flatten().any(|value| value == class);
    match expression.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

/// Whether the pod wants to be near to or far from pods of other namespaces.
fn reaches_out(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let reaches = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|namespaces| !namespaces.is_empty()) || term.namespace_selector.is_some()
    };
    let near = affinity.pod_affinity.iter().any(|affinity| {
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        affinity.required_during_scheduling_ignored_during_execution.iter().flatten().any(reaches)
            || preferred.map(|weighted| &weighted.pod_affinity_term).any(reaches)
    });
    near || affinity.pod_anti_affinity.iter().any(|affinity| {
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        affinity.required_during_scheduling_ignored_during_execution.iter().flatten().any(reaches)
            || preferred.map(|weighted| &weighted.pod_affinity_term).any(reaches)
    })
}

/// The requests and limits that a quota with these names needs and that containers of the pod do not say: by name, who.
pub fn unsaid<'a>(names: impl Iterator<Item = &'a str>, pod: &Pod) -> BTreeMap<&'a str, Vec<String>> {
    let Some(spec) = &pod.spec else { return BTreeMap::new() };
    let own = spec.resources.as_ref();
    let of_pod = insert_all(
        &resources::amounts(own.and_then(|own| own.requests.as_ref())),
        &resources::amounts(own.and_then(|own| own.limits.as_ref())),
    );
    let mut unsaid: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let needed: Vec<&str> = names.filter(|name| REQUIRED.contains(name) && !of_pod.contains_key(*name)).collect();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let said = insert_all(&resources::requests(container), &resources::limits(container));
        for name in needed.iter().filter(|name| !said.contains_key(**name)) {
            unsaid.entry(name).or_default().push(container.name.clone());
        }
    }
    unsaid
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
            assert_eq!(shown(&of_value("", plural, &object, now)), expected, "{object}");
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
    }

    #[test]
    fn scopes() {
        let check = |scopes: Value, spec: Value, expected: bool| {
            let quota: ResourceQuotaSpec = serde_json::from_value(scopes.clone()).unwrap();
            let mut pod = json!({"spec": spec});
            if pod["spec"].get("containers").is_none() {
                pod["spec"]["containers"] = json!([{"name": "c"}]);
            }
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(selects(&quota, Some(&pod)), expected, "{scopes} {spec}");
        };
        let asks = json!([{"name": "c", "resources": {"requests": {"cpu": "1"}}}]);
        check(json!({}), json!({}), true);
        check(json!({"scopes": ["Terminating"]}), json!({"activeDeadlineSeconds": 5}), true);
        check(json!({"scopes": ["Terminating"]}), json!({}), false);
        check(json!({"scopes": ["NotTerminating", "BestEffort"]}), json!({}), true);
        check(json!({"scopes": ["NotTerminating", "BestEffort"]}), json!({"containers": asks}), false);
        check(json!({"scopes": ["NotBestEffort"]}), json!({"containers": asks}), true);
        let class = |operator: &str, values: &[&str]| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
        check(class("In", &["high"]), json!({"priorityClassName": "high"}), true);
        check(class("NotIn", &["high"]), json!({"priorityClassName": "high"}), false);
        check(class("Exists", &[]), json!({}), false);
        let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k", "namespaces": ["b"]}]}});
        check(json!({"scopes": ["CrossNamespacePodAffinity"]}), json!({"affinity": near}), true);
        check(json!({"scopes": ["CrossNamespacePodAffinity"]}), json!({}), false);
        let scoped: ResourceQuotaSpec = serde_json::from_value(json!({"scopes": ["BestEffort"]})).unwrap();
        assert!(!selects(&scoped, None));
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
    }
}
