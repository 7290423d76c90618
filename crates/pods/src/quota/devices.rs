//! What claims of devices take of a quota (docs "Quota for DRA resource claims").
//!
//! Devices of a class have up to three names: the class's own, the extended resource that stands for each class, and the one that the
//! class names (KEP-5004). A device counts under all of them, once: what a pod asks for as an extended resource counts with the pod under
//! the name that the pod uses, and with the claim that the scheduler makes for it under the others.

use std::collections::{BTreeMap, HashMap};

use apimachinery::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceClass, DeviceRequest, ResourceClaim};

use super::{PREFIX_REQUESTS, Usage, of_any};
use crate::{claims, resources};

/// Group and plural of the claims.
pub const RESOURCE: (&str, &str) = ("resource.k8s.io", "resourceclaims");
const OF_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
const EVERY_CLASS: &str = "requests.deviceclass.resource.kubernetes.io/";
/// Most devices of one claim (`AllocationResultsMaxSize`): as many as "all" may become.
const MOST: i64 = 32;

/// The extended resource that each class names, for classes that do.
pub type Extended = HashMap<String, String>;

/// The extended resources of these classes.
pub fn extended<'a>(classes: impl Iterator<Item = &'a DeviceClass>) -> Extended {
    let named = |class: &DeviceClass| Some((class.metadata.name.clone()?, class.spec.extended_resource_name.clone()?));
    classes.filter_map(named).collect()
}

/// The name of the pod whose extended resources a claim says it stands for.
pub fn owner(claim: &ResourceClaim) -> Option<&str> {
    claims::owner(claim).filter(|_| claims::is_extended(claim)).map(|(name, _)| name)
}

/// What a claim takes. `owner` is the pod of [`owner`], while there is one.
pub fn of_claim(claim: &ResourceClaim, extended: &Extended, owner: Option<&Pod>) -> Usage {
    let mut usage = of_any(RESOURCE.0, RESOURCE.1);
    let mut counted = owner.filter(|pod| stands_for(claim, pod)).map(asked).unwrap_or_default();
    for request in claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten()) {
        for (class, number) in most_of(request) {
            let number = Quantity::from_units(number, Format::DecimalSi);
            let mut by_pod = |name: &str| counted.get(name) == Some(&number) && counted.remove(name).is_some();
            let every = format!("{EVERY_CLASS}{class}");
            let named = extended.get(class).map(|name| format!("{PREFIX_REQUESTS}{name}"));
            // The pod uses one of the names.
            let is_every = by_pod(&every);
            let is_named = !is_every && named.as_deref().is_some_and(by_pod);
            let names = [Some(format!("{class}{OF_CLASS}")), Some(every).filter(|_| !is_every), named.filter(|_| !is_named)];
            for name in names.into_iter().flatten() {
                *usage.entry(name).or_default() += number;
            }
        }
    }
    usage
}

fn stands_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    let name = claim.metadata.name.as_deref();
    owner(claim).is_some() && claims::extended(pod).is_none_or(|status| Some(status.resource_claim_name.as_str()) == name)
}

/// What containers of a pod ask for, by the names of quotas.
fn asked(pod: &Pod) -> BTreeMap<String, Quantity> {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let requests = containers.flat_map(resources::requests);
    requests.map(|(name, amount)| (format!("{PREFIX_REQUESTS}{name}"), amount)).collect()
}

/// The most devices of each class that a request can get.
fn most_of(request: &DeviceRequest) -> BTreeMap<&str, i64> {
    let number = |mode: Option<&str>, count: Option<i64>| match mode {
        None | Some("ExactCount") => count.unwrap_or(1),
        Some("All") => MOST,
        // Of another version: not counted.
        Some(_) => 0,
    };
    let mut most = BTreeMap::new();
    for one in request.first_available.iter().flatten() {
        let most: &mut i64 = most.entry(one.device_class_name.as_str()).or_default();
        *most = (*most).max(number(one.allocation_mode.as_deref(), one.count));
    }
    if let Some(one) = request.exactly.as_ref().filter(|_| most.is_empty()) {
        most.insert(&one.device_class_name, number(one.allocation_mode.as_deref(), one.count));
    }
    most
}

/// Whether claims can take of what a quota limits under this name.
pub fn concerned(name: &str) -> bool {
    let foreign = |name: &str| name.contains('/') && !name.contains("kubernetes.io/");
    name.ends_with(OF_CLASS) || name.starts_with(EVERY_CLASS) || name.strip_prefix(PREFIX_REQUESTS).is_some_and(foreign)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// What a claim with these requests takes beside being one.
    #[track_caller]
    fn check(requests: Value, pod: Option<Value>, expected: &[(&str, i64)]) {
        let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
        let mut claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests}}});
        if pod.is_some() {
            claim["metadata"]["annotations"] = json!({claims::EXTENDED: "true"});
            claim["metadata"]["ownerReferences"] = owners;
        }
        let claim: ResourceClaim = serde_json::from_value(claim).unwrap();
        let pod: Option<Pod> = pod.map(|pod| serde_json::from_value(pod).unwrap());
        let extended = Extended::from([("gpu".to_owned(), "example.com/gpu".to_owned())]);
        let mut usage = of_claim(&claim, &extended, pod.as_ref());
        assert_eq!(usage.remove("count/resourceclaims.resource.k8s.io").map(|one| one.to_string()).as_deref(), Some("1"));
        let found: Vec<_> = usage.iter().map(|(name, amount)| (name.as_str(), amount.to_string())).collect();
        let expected: Vec<_> = expected.iter().map(|(name, number)| (*name, number.to_string())).collect();
        assert_eq!(found, expected);
    }

    fn exactly(class: &str, mode: &str, count: i64) -> Value {
        json!({"name": "r", "exactly": {"deviceClassName": class, "allocationMode": mode, "count": count}})
    }

    const GPU: &str = "gpu.deviceclass.resource.k8s.io/devices";
    const TPU: &str = "tpu.deviceclass.resource.k8s.io/devices";
    const EVERY_GPU: &str = "requests.deviceclass.resource.kubernetes.io/gpu";
    const EVERY_TPU: &str = "requests.deviceclass.resource.kubernetes.io/tpu";
    const NAMED: &str = "requests.example.com/gpu";

    #[test]
    fn devices_count_under_all_names_of_their_class() {
        let of_gpus = |number: i64| [(GPU, number), (EVERY_GPU, number), (NAMED, number)];
        check(json!([]), None, &[]);
        check(json!([exactly("gpu", "ExactCount", 1)]), None, &of_gpus(1));
        check(json!([exactly("gpu", "ExactCount", 5), exactly("gpu", "ExactCount", 2)]), None, &of_gpus(7));
        check(json!([exactly("gpu", "All", 0)]), None, &of_gpus(32));
        check(json!([exactly("gpu", "Unknown", 9)]), None, &of_gpus(0));
        check(json!([exactly("tpu", "ExactCount", 3)]), None, &[(EVERY_TPU, 3), (TPU, 3)]);
    }

    #[test]
    fn of_alternatives_the_largest_counts_for_each_class() {
        let one = |class: &str, count: i64| json!({"name": "s", "deviceClassName": class, "allocationMode": "ExactCount", "count": count});
        let request = json!({"name": "r", "firstAvailable": [one("gpu", 2), one("gpu", 3), one("gpu", 1), one("tpu", 4)]});
        check(json!([request]), None, &[(GPU, 3), (EVERY_GPU, 3), (EVERY_TPU, 4), (NAMED, 3), (TPU, 4)]);
    }

    #[test]
    fn what_a_pod_has_counted_counts_once() {
        let pod = |resource: &str, count: &str, status: Value| {
            let container = json!({"name": "c", "resources": {"requests": {resource: count}}});
            Some(json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}, "status": status}))
        };
        let two = || json!([exactly("gpu", "ExactCount", 2)]);
        check(two(), pod("example.com/gpu", "2", json!({})), &[(GPU, 2), (EVERY_GPU, 2)]);
        check(two(), pod("deviceclass.resource.kubernetes.io/gpu", "2", json!({})), &[(GPU, 2), (NAMED, 2)]);
        // Another number is not what the pod asks for, and a pod with another such claim has nothing to do with this one.
        check(two(), pod("example.com/gpu", "1", json!({})), &[(GPU, 2), (EVERY_GPU, 2), (NAMED, 2)]);
        let other = json!({"extendedResourceClaimStatus": {"resourceClaimName": "other", "requestMappings": []}});
        check(two(), pod("example.com/gpu", "2", other), &[(GPU, 2), (EVERY_GPU, 2), (NAMED, 2)]);
    }

    #[test]
    fn what_claims_can_take() {
        let check = |name: &str, expected: bool| assert_eq!(concerned(name), expected, "{name}");
        check(GPU, true);
        check(EVERY_GPU, true);
        check(NAMED, true);
        check("requests.cpu", false);
        check("requests.kubernetes.io/x", false);
        check("example.com/gpu", false);
    }
}
