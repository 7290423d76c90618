//! Claims of a pod for devices (KEP-4381, `resource.k8s.io/v1`): which they are, whose they are, and who uses them.

use k8s_openapi::api::core::v1::{ContainerExtendedResourceRequest, Pod, PodExtendedResourceClaimStatus, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};

/// On a claim that was made from a template: the entry of the pod that it was made for.
pub const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// On a claim that the scheduler has made for the extended resources of its owner (KEP-5004): `true`.
pub const EXTENDED: &str = "resource.kubernetes.io/extended-resource-claim";
/// Keeps a claim as long as devices are allocated for it.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Most pods that use one claim.
pub const MAX_CONSUMERS: usize = 256;

/// The claim behind an entry of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// A claim of this name, which somebody else has made.
    Shared(&'a str),
    /// A claim of this name, which was made for the pod: from a template, or for its extended resources.
    Own(&'a str),
    /// The controller has not made it yet.
    NotMade,
    /// There is none, and none is needed.
    Nothing,
}

impl<'a> Named<'a> {
    /// The name, of a claim that is needed and has been made.
    pub fn name(self) -> Option<&'a str> {
        match self {
            Self::Shared(name) | Self::Own(name) => Some(name),
            Self::NotMade | Self::Nothing => None,
        }
    }
}

/// The entries of a pod that ask for claims.
pub fn entries(pod: &Pod) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default()
}

/// The claim behind an entry of a pod.
pub fn named<'a>(pod: &'a Pod, entry: &'a PodResourceClaim) -> Named<'a> {
    if let Some(name) = &entry.resource_claim_name {
        return Named::Shared(name);
    }
    let mut made = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    match made.find(|status| status.name == entry.name) {
        None => Named::NotMade,
        Some(status) => status.resource_claim_name.as_deref().map_or(Named::Nothing, Named::Own),
    }
}

/// The claim that was made for the pod's extended resources (KEP-5004), and which of its requests each container has.
pub fn extended(pod: &Pod) -> Option<&PodExtendedResourceClaimStatus> {
    let status = pod.status.as_ref()?.extended_resource_claim_status.as_ref();
    status.filter(|status| !status.resource_claim_name.is_empty())
}

/// The requests of that claim that a container has, by resource.
pub fn extended_of<'a>(pod: &'a Pod, container: &'a str) -> impl Iterator<Item = &'a ContainerExtendedResourceRequest> {
    let all = extended(pod).into_iter().flat_map(|status| &status.request_mappings);
    all.filter(move |one| one.container_name == container)
}

/// Whether a container has an extended resource by that claim, so that it takes none of the node's own.
pub fn is_claimed(pod: &Pod, container: &str, resource: &str) -> bool {
    extended_of(pod, container).any(|one| one.resource_name == resource)
}

/// All claims of a pod: those of its entries, and the one for its extended resources.
pub fn all(pod: &Pod) -> impl Iterator<Item = Named<'_>> {
    let extended = extended(pod).map(|status| Named::Own(&status.resource_claim_name));
    entries(pod).iter().map(|entry| named(pod, entry)).chain(extended)
}

/// Whether a pod has claims, made or not.
pub fn has_any(pod: &Pod) -> bool {
    all(pod).next().is_some()
}

/// The names of the claims of a pod, as far as they have been made.
pub fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    all(pod).filter_map(Named::name)
}

/// Whether a claim says that it was made for the extended resources of a pod.
pub fn is_extended(claim: &ResourceClaim) -> bool {
    claim.metadata.annotations.as_ref().and_then(|all| all.get(EXTENDED)).is_some_and(|value| value == "true")
}

/// Name and uid of the pod that a claim was made for.
pub fn owner(claim: &ResourceClaim) -> Option<(&str, &str)> {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true) && owner.api_version == "v1" && owner.kind == "Pod")?;
    Some((&owner.name, &owner.uid))
}

/// Whether a claim was made for the pod of this uid.
pub fn is_for(claim: &ResourceClaim, uid: &str) -> bool {
    owner(claim).is_some_and(|(_, owner)| owner == uid)
}

/// Who may use a claim.
pub fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

/// Whether the pod of this uid may use a claim.
pub fn is_reserved_for(claim: &ResourceClaim, uid: &str) -> bool {
    consumers(claim).iter().any(|consumer| consumer.uid == uid)
}

/// Whether devices are allocated for a claim.
pub fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

/// A pod as a consumer.
pub fn consumer(pod: &str, uid: &str) -> ResourceClaimConsumerReference {
    ResourceClaimConsumerReference { api_group: None, resource: "pods".to_owned(), name: pod.to_owned(), uid: uid.to_owned() }
}

/// Whether a device that was allocated for a request is one that a container's entry asks for, which may name a request and none of its
/// alternatives.
pub fn is_of_request(allocated: &str, asked: Option<&str>) -> bool {
    asked.is_none_or(|asked| allocated == asked || allocated.split('/').next() == Some(asked))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_have_names_when_they_are_made() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": [], "resourceClaims": [
                {"name": "a", "resourceClaimName": "shared"}, {"name": "b", "resourceClaimTemplateName": "t"},
                {"name": "c", "resourceClaimTemplateName": "t"}, {"name": "d", "resourceClaimTemplateName": "t"}]},
            "status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "p-b-x"}, {"name": "c"}]},
        }))
        .unwrap();
        let found: Vec<Named<'_>> = entries(&pod).iter().map(|entry| named(&pod, entry)).collect();
        assert_eq!(found, [Named::Shared("shared"), Named::Own("p-b-x"), Named::Nothing, Named::NotMade]);
        assert_eq!(names(&pod).collect::<Vec<_>>(), ["shared", "p-b-x"]);
    }

    /// KEP-5004: the status "stores the generated name for the corresponding special ResourceClaim created by the scheduler", and a mapping of
    /// containers and resources to its requests.
    #[test]
    fn the_claim_for_extended_resources_stands_in_the_status() {
        let mapping = |container, request| json!({"containerName": container, "resourceName": "a/b", "requestName": request});
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": []},
            "status": {"extendedResourceClaimStatus": {"resourceClaimName": "p-x",
                "requestMappings": [mapping("c", "one"), mapping("d", "two"), mapping("c", "two")]}},
        }))
        .unwrap();
        assert_eq!(all(&pod).collect::<Vec<_>>(), [Named::Own("p-x")]);
        assert!(has_any(&pod) && entries(&pod).is_empty());
        let requests: Vec<&str> = extended_of(&pod, "c").map(|one| one.request_name.as_str()).collect();
        assert_eq!(requests, ["one", "two"]);
        assert!(is_claimed(&pod, "c", "a/b") && !is_claimed(&pod, "c", "a/c") && !is_claimed(&pod, "e", "a/b"));
        assert_eq!(crate::references::References::of(&pod).resource_claims, ["p-x".to_owned()].into());
        pod.status = None;
        assert!(!has_any(&pod));
    }

    #[test]
    fn devices_of_alternatives_belong_to_their_request() {
        let check = |allocated, asked, expected| assert_eq!(is_of_request(allocated, asked), expected, "{allocated} {asked:?}");
        check("gpu", None, true);
        check("gpu", Some("gpu"), true);
        check("gpu/big", Some("gpu"), true);
        check("gpu/big", Some("gpu/big"), true);
        check("gpus", Some("gpu"), false);
    }
}
