//! Requests and limits, of containers and of the pod.

use std::collections::{BTreeMap, HashSet};

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{PodResourceClaim, PodSpec, ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use pods::resources::is_pod_level;
use serde_json::json;

use crate::rules::resources::{
    amount, container_resource_name, divides_into_pages, is_huge_pages, may_overcommit, resource_amount, resource_name,
};
use crate::rules::{self, list, text};

type Amounts = BTreeMap<String, ApiQuantity>;

/// What a container asks for.
pub(super) fn validate_container(requirements: &ResourceRequirements, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    validate_requirements(requirements, container_resource_name, path, errors);
    validate_claim_names(list(&requirements.claims), spec, &path.child("claims"), errors);
}

/// What running the pod costs beyond its containers.
pub(crate) fn validate_overhead(overhead: &Amounts, path: &Path, errors: &mut Errors) {
    for (name, quantity) in overhead {
        validate_amount(name, quantity, container_resource_name, &path.child("limits").key(name), errors);
    }
}

fn validate_amount(
    name: &str,
    quantity: &ApiQuantity,
    check_name: impl Fn(&Path, &str, &mut Errors),
    path: &Path,
    errors: &mut Errors,
) {
    check_name(path, name, errors);
    resource_amount(path, name, quantity, errors);
    if is_huge_pages(name) && !divides_into_pages(name, quantity) {
        let detail = format!("{} is not positive integer multiple of {name}", quantity.0);
        errors.push(Error::invalid(path, quantity.0.as_str(), detail));
    }
}

fn validate_requirements(
    requirements: &ResourceRequirements,
    check_name: impl Fn(&Path, &str, &mut Errors),
    path: &Path,
    errors: &mut Errors,
) {
    let (limits, requests) = (&requirements.limits, &requirements.requests);
    for (name, limit) in limits.iter().flatten() {
        validate_amount(name, limit, &check_name, &path.child("limits").key(name), errors);
    }
    for (name, request) in requests.iter().flatten() {
        validate_amount(name, request, &check_name, &path.child("requests").key(name), errors);
        match limits.as_ref().and_then(|limits| limits.get(name)) {
            Some(limit) => validate_request(name, request, limit, &path.child("requests"), errors),
            None if may_overcommit(name) => {}
            None => errors.push(Error::required(&path.child("limits"), "Limit must be set for non overcommitable resources")),
        }
    }
    let any = |wanted: fn(&str) -> bool| [limits, requests].into_iter().flatten().flatten().any(|(name, _)| wanted(name));
    if any(is_huge_pages) && !any(|name| ["cpu", "memory"].contains(&name)) {
        errors.push(Error::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn validate_request(name: &str, request: &ApiQuantity, limit: &ApiQuantity, path: &Path, errors: &mut Errors) {
    let (wanted, most) = (amount(request), amount(limit));
    let relation = if wanted != most && !may_overcommit(name) {
        "equal to"
    } else if wanted > most {
        "less than or equal to"
    } else {
        return;
    };
    let detail = format!("must be {relation} {name} limit of {}", limit.0);
    errors.push(Error::invalid(path, request.0.as_str(), detail));
}

/// Each claim that a container uses is one of the pod's, and used once.
fn validate_claim_names(claims: &[ResourceClaim], spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let known: Vec<_> = list(&spec.resource_claims).iter().map(|claim| claim.name.as_str()).collect();
    let by_name: HashSet<_> = known.iter().copied().collect();
    // Names that were used, those that were used as a whole, and requests of them.
    let (mut used, mut whole, mut parts) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (index, claim) in claims.iter().enumerate() {
        let (path, name, request) = (path.index(index), claim.name.as_str(), text(&claim.request));
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        let overlaps =
            if request.is_empty() { used.contains(name) } else { whole.contains(name) || !parts.insert((name, request)) };
        used.insert(name);
        if request.is_empty() {
            whole.insert(name);
        }
        if !request.is_empty() {
            rules::dns_label(&path.child("request"), request, errors);
        }
        if overlaps {
            errors.push(Error::duplicate(&path, name));
        }
        if !by_name.contains(name) && !errors.is_full() {
            let names = if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{names}");
            errors.push(Error { detail, ..Error::not_found(&path, name) });
        }
    }
}

/// The pod's claims.
pub(super) fn validate_claims(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, claim) in list(&spec.resource_claims).iter().enumerate() {
        let path = path.index(index);
        match claim.name.as_str() {
            "" => errors.push(Error::required(&path.child("name"), "")),
            name if !seen.insert(name) => errors.push(Error::duplicate(&path.child("name"), name)),
            name => rules::dns_label(&path.child("name"), name, errors),
        }
        validate_claim_source(claim, &path, errors);
    }
}

fn validate_claim_source(claim: &PodResourceClaim, path: &Path, errors: &mut Errors) {
    let (name, template) = (&claim.resource_claim_name, &claim.resource_claim_template_name);
    let detail = match (name, template) {
        (Some(_), Some(_)) => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        (None, None) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        _ => "",
    };
    if !detail.is_empty() {
        errors.push(Error::invalid(path, json!(claim), detail));
    }
    for (field, value) in [("resourceClaimName", name), ("resourceClaimTemplateName", template)] {
        if let Some(value) = value {
            rules::dns_subdomain(&path.child(field), value, errors);
        }
    }
}

/// What the pod as a whole asks for (KEP-2837).
pub(super) fn validate_pod(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(requirements) = &spec.resources else { return };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        // Nothing else is worth saying of resources that cannot be there at all.
        return errors.push(Error::forbidden(path, "may not be set for a windows pod").ratcheted());
    }
    if requirements.claims.is_some() {
        errors.push(Error::forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level"));
    }
    validate_requirements(requirements, pod_resource_name, path, errors);
    let none = Amounts::new();
    let (requests, limits) = (requirements.requests.as_ref().unwrap_or(&none), requirements.limits.as_ref().unwrap_or(&none));
    let asked = pods::resources::together(spec, pods::resources::requests);
    for (name, sum) in asked.into_iter().filter(|(name, _)| is_pod_level(name)) {
        let given = requests.get(name);
        if given.map(amount).unwrap_or_default() < sum {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            let value = given.map_or("0", |quantity| &quantity.0);
            errors.push(Error::invalid(&path.child("requests").key(name), value, detail));
        }
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let own = container.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
        for (name, limit) in own {
            if let Some(most) = limits.get(name).filter(|most| amount(limit) > amount(most)) {
                let path = path.child("containers").index(index).key(name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {}", most.0);
                errors.push(Error::invalid(&path, limit.0.as_str(), detail));
            }
        }
    }
}

fn pod_resource_name(path: &Path, name: &str, errors: &mut Errors) {
    if resource_name(path, name, errors) && !is_pod_level(name) {
        errors.push(Error::not_supported(path, name, &["cpu", "hugepages-", "memory"]));
    }
}
