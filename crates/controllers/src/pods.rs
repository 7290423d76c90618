//! What controllers ask about pods.

pub(crate) use ::pods::state::*;

use client::{Index, Informer};
use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::meta;

/// Pods by the name of their node; those that are bound to none under "".
pub(crate) fn by_node(pods: &Informer<Pod>) -> Index<Pod> {
    pods.index("node", |pod, values| values.add(node(pod)))
}

/// Pods by the claims that they name, as `namespace/claim`; see [`claims`].
pub(crate) fn by_claim(pods: &Informer<Pod>) -> Index<Pod> {
    pods.index("claim", |pod, values| {
        claims(pod).for_each(|claim| values.add(format!("{}/{claim}", meta::namespace(pod))));
    })
}

/// The names of the claims behind a pod's volumes.
pub(crate) fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    volumes(pod).filter_map(|volume| claim_of(pod, volume))
}

/// A pod's volumes.
pub(crate) fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The claim behind a volume; one that is made for the pod is named after both.
pub(crate) fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", meta::name(pod), volume.name)),
        (None, None) => None,
    }
}
