//! What a status says of devices: claims that were made for the pod, and the health of what its containers have.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, PodExtendedResourceClaimStatus, PodSpec, PodStatus, ResourceStatus,
};
use serde_json::Value;

use crate::rules::{self, list, text};

/// The reference of a container to a claim, where a status names it and not a resource.
const CLAIM: &str = "claim:";

/// Rules for claims of a pod and for devices of its containers (KEP-4381, KEP-4680, KEP-5004).
pub(super) fn validate(status: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    validate_claims(status, spec, &path.child("resourceClaimStatuses"), errors);
    if let Some(claim) = &status.extended_resource_claim_status {
        validate_extended(claim, spec, &path.child("extendedResourceClaimStatus"), errors);
    }
    let of_containers = (&status.container_statuses, spec.containers.as_slice(), "containerStatuses");
    let of_steps = (&status.init_container_statuses, list(&spec.init_containers), "initContainerStatuses");
    for (statuses, containers, field) in [of_containers, of_steps] {
        for (index, status) in list(statuses).iter().enumerate() {
            validate_allocated(status, containers, &path.child(field).index(index), errors);
        }
    }
}

fn validate_claims(status: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let claims = list(&status.resource_claim_statuses);
    let entries: HashSet<&str> = list(&spec.resource_claims).iter().map(|entry| entry.name.as_str()).collect();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index).child("name");
        if !entries.contains(claim.name.as_str()) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(Error::invalid(&path, claim.name.as_str(), detail));
        }
        if let Some(name) = &claim.resource_claim_name {
            rules::dns_subdomain(&path, name, errors);
        }
    }
    for index in rules::repeated(claims.iter().map(|claim| claim.name.as_str())) {
        errors.push(Error::duplicate(&path.index(index).child("name"), claims[index].name.as_str()));
    }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    list(&spec.init_containers).iter().chain(&spec.containers)
}

fn asks_for(container: &Container, resource: &str) -> bool {
    container.resources.as_ref().and_then(|own| own.requests.as_ref()).is_some_and(|requests| requests.contains_key(resource))
}

fn validate_extended(claim: &PodExtendedResourceClaimStatus, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let (mappings, at) = (&claim.request_mappings, path.child("requestMappings"));
    if mappings.is_empty() {
        errors.push(Error::required(&at, "at least one request mapping is required"));
    }
    for (index, one) in mappings.iter().enumerate() {
        let (name, resource, at) = (one.container_name.as_str(), one.resource_name.as_str(), at.index(index));
        match containers(spec).find(|container| container.name == name) {
            None => {
                let detail = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                errors.push(Error::invalid(&at.child("containerName"), name, detail));
            }
            Some(container) if !asks_for(container, resource) => {
                let detail = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                errors.push(Error::invalid(&at.child("resourceName"), resource, detail));
            }
            Some(_) => {}
        }
        rules::dns_label(&path.child("requestName"), &one.request_name, errors);
    }
    let keys = mappings.iter().map(|one| (&one.container_name, &one.resource_name, &one.request_name));
    for index in rules::repeated(keys) {
        let (one, at) = (&mappings[index], at.index(index));
        errors.push(Error::duplicate(&at.child("containerName"), one.container_name.as_str()));
        errors.push(Error::duplicate(&at.child("resourceName"), one.resource_name.as_str()));
        errors.push(Error::duplicate(&at.child("requestName"), one.request_name.as_str()));
    }
    let (name, at) = (claim.resource_claim_name.as_str(), path.child("resourceClaimName"));
    if name.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        rules::dns_subdomain(&at, name, errors);
    }
}

/// The health of devices of one container (KEP-4680).
fn validate_allocated(status: &ContainerStatus, containers: &[Container], path: &Path, errors: &mut Errors) {
    for (index, resource) in list(&status.allocated_resources_status).iter().enumerate() {
        let path = path.child("allocatedResourcesStatus").index(index);
        // A container that is not there is the matter of other rules.
        if let Some(container) = containers.iter().find(|container| container.name == status.name)
            && let Err(detail) = has(container, &resource.name)
        {
            errors.push(Error::invalid(&path.child("name"), resource.name.as_str(), detail));
        }
        validate_health(resource, &path.child("resources"), errors);
    }
}

fn has(container: &Container, resource: &str) -> Result<(), &'static str> {
    let Some(claim) = resource.strip_prefix(CLAIM) else {
        let asks = asks_for(container, resource);
        return asks.then_some(()).ok_or("must match one of the container's resource requests");
    };
    let claims = container.resources.iter().flat_map(|own| list(&own.claims));
    let named = claims.map(|own| match text(&own.request) {
        "" => own.name.clone(),
        request => format!("{}/{request}", own.name),
    });
    let detail = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
    named.into_iter().any(|name| name == claim).then_some(()).ok_or(detail)
}

fn validate_health(resource: &ResourceStatus, path: &Path, errors: &mut Errors) {
    let devices = list(&resource.resources);
    for (index, device) in devices.iter().enumerate() {
        let health = device.health.as_deref().unwrap_or_default();
        rules::one_of(&path.index(index).child("health"), health, &["Healthy", "Unhealthy", "Unknown"], errors);
    }
    for index in rules::repeated(devices.iter().map(|device| device.resource_id.as_str())) {
        let id = Value::from(devices[index].resource_id.as_str());
        errors.push(Error::duplicate(&path.index(index).child("resourceID"), id));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(status: Value, expected: &[&str]) {
        let resources =
            json!({"requests": {"example.com/gpu": "1"}, "claims": [{"name": "own"}, {"name": "two", "request": "r"}]});
        let spec: PodSpec = serde_json::from_value(json!({
            "resourceClaims": [{"name": "own", "resourceClaimTemplateName": "t"}],
            "containers": [{"name": "c", "resources": resources}],
        }))
        .unwrap();
        let mut errors = Errors::new();
        validate(&serde_json::from_value(status).unwrap(), &spec, &Path::new("status"), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn claims_are_those_of_entries() {
        let claims = |names: &[(&str, &str)]| {
            let of = |(name, claim): &(&str, &str)| json!({"name": name, "resourceClaimName": claim});
            json!({"resourceClaimStatuses": names.iter().map(of).collect::<Vec<_>>()})
        };
        check(claims(&[("own", "p-own-x")]), &[]);
        let unknown = r#"status.resourceClaimStatuses[0].name: Invalid value: "other": must match the name of an entry in `spec.resourceClaims`"#;
        check(claims(&[("other", "x")]), &[unknown]);
        check(claims(&[("own", "x"), ("own", "y")]), &[r#"status.resourceClaimStatuses[1].name: Duplicate value: "own""#]);
    }

    #[test]
    fn extended_resources_are_those_of_containers() {
        let status = |claim: &str, mappings: &[[&str; 3]]| {
            let of = |[container, resource, request]: &[&str; 3]| json!({"containerName": container, "resourceName": resource, "requestName": request});
            let mappings: Vec<_> = mappings.iter().map(of).collect();
            json!({"extendedResourceClaimStatus": {"resourceClaimName": claim, "requestMappings": mappings}})
        };
        let mapping = ["c", "example.com/gpu", "container-0-request-0"];
        check(status("claim", &[mapping]), &[]);
        let required = [
            "status.extendedResourceClaimStatus.requestMappings: Required value: at least one request mapping is required",
            "status.extendedResourceClaimStatus.resourceClaimName: Required value",
        ];
        check(status("", &[]), &required);
        let at = "status.extendedResourceClaimStatus.requestMappings";
        let container = format!(
            r#"{at}[0].containerName: Invalid value: "d": must match the name of an entry in spec.initContainers.name or spec.containers.name"#
        );
        check(status("claim", &[["d", "example.com/gpu", "r"]]), &[&container]);
        let resource = format!(
            r#"{at}[0].resourceName: Invalid value: "cpu": must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"#
        );
        check(status("claim", &[["c", "cpu", "r"]]), &[&resource]);
        let twice = [("containerName", "c"), ("resourceName", "example.com/gpu"), ("requestName", "container-0-request-0")]
            .map(|(field, value)| format!(r#"{at}[1].{field}: Duplicate value: "{value}""#));
        check(status("claim", &[mapping, mapping]), &twice.each_ref().map(String::as_str));
    }

    #[test]
    fn health_is_that_of_devices_of_the_container() {
        let status = |name: &str, devices: &[(&str, &str)]| {
            let of = |(id, health): &(&str, &str)| json!({"resourceID": id, "health": health});
            let resources: Vec<_> = devices.iter().map(of).collect();
            let allocated = json!([{"name": name, "resources": resources}]);
            json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "allocatedResourcesStatus": allocated}]})
        };
        for name in ["example.com/gpu", "claim:own", "claim:two/r"] {
            check(status(name, &[("a", "Healthy"), ("b", "Unknown")]), &[]);
        }
        let at = "status.containerStatuses[0].allocatedResourcesStatus[0]";
        let other = format!(r#"{at}.name: Invalid value: "cpu": must match one of the container's resource requests"#);
        check(status("cpu", &[]), &[&other]);
        let claim = format!(
            r#"{at}.name: Invalid value: "claim:two": must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"#
        );
        check(status("claim:two", &[]), &[&claim]);
        let health =
            format!(r#"{at}.resources[0].health: Unsupported value: "Ill": supported values: "Healthy", "Unhealthy", "Unknown""#);
        let twice = format!(r#"{at}.resources[1].resourceID: Duplicate value: "a""#);
        check(status("example.com/gpu", &[("a", "Ill"), ("a", "Healthy")]), &[&health, &twice]);
    }
}
