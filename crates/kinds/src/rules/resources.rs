//! Names and amounts of resources (upstream: `pkg/apis/core/helper`).

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use apimachinery::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use pods::resources::{is_extended, is_native};

use super::NEGATIVE;

/// Standard resources, and whether they are counted in whole numbers.
const STANDARD: &[(&str, bool)] = &[
    ("cpu", false),
    ("memory", false),
    ("ephemeral-storage", false),
    ("requests.cpu", false),
    ("requests.memory", false),
    ("requests.ephemeral-storage", false),
    ("limits.cpu", false),
    ("limits.memory", false),
    ("limits.ephemeral-storage", false),
    ("pods", true),
    ("resourcequotas", true),
    ("services", true),
    ("replicationcontrollers", true),
    ("secrets", true),
    ("configmaps", true),
    ("persistentvolumeclaims", true),
    ("storage", false),
    ("requests.storage", false),
    ("services.nodeports", true),
    ("services.loadbalancers", true),
];
const HUGE_PAGES: &str = "hugepages-";

/// Whether it is memory in huge pages.
pub(crate) fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether a request may be lower than the limit.
pub(crate) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// The name of any resource.
pub(crate) fn resource_name(path: &Path, name: &str, errors: &mut Errors) -> bool {
    let before = errors.len();
    errors.invalid_each(path, name, names::qualified_name(name));
    let standard = || {
        STANDARD.iter().any(|(standard, _)| *standard == name) || is_huge_pages(name) || name.starts_with("requests.hugepages-")
    };
    if errors.len() == before && !name.contains('/') && !standard() {
        errors.push(Error::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
    errors.len() == before
}

/// Whether a quota can be about that resource of Kubernetes itself.
pub(crate) fn is_quota_resource(name: &str) -> bool {
    let standard = STANDARD.iter().any(|(standard, _)| *standard == name) && name != "storage";
    standard || is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

/// The name of a resource that containers can have.
pub(crate) fn container_resource_name(path: &Path, name: &str, errors: &mut Errors) {
    resource_name(path, name, errors);
    if !name.contains('/') {
        if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !is_huge_pages(name) {
            errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// The amount. The schema accepts quantities only, so one that cannot be read is none of ours.
pub(crate) fn amount(quantity: &ApiQuantity) -> Quantity {
    Quantity::parse(&quantity.0).unwrap_or_default()
}

/// Not negative, and whole where it is counted.
pub(crate) fn resource_amount(path: &Path, name: &str, quantity: &ApiQuantity, errors: &mut Errors) {
    let amount = amount(quantity);
    if amount < Quantity::ZERO {
        errors.push(Error::invalid(path, quantity.0.as_str(), NEGATIVE));
    }
    if (STANDARD.contains(&(name, true)) || is_extended(name)) && amount.as_milli() % 1000 != 0 {
        errors.push(Error::invalid(path, quantity.0.as_str(), "must be an integer"));
    }
}

/// Huge pages come in multiples of their size.
pub(crate) fn divides_into_pages(name: &str, quantity: &ApiQuantity) -> bool {
    let size = name.strip_prefix(HUGE_PAGES).and_then(|size| Quantity::parse(size).ok()).and_then(Quantity::as_exact_i64);
    size.filter(|size| *size > 0).is_some_and(|size| amount(quantity).as_i64() % size == 0)
}
