//! The claims of a set's pods, and to whom they belong (KEP-1847): to nobody where they are retained, to the set where its deletion
//! deletes them, to a pod where scaling it away does. Pure.

use std::collections::HashSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::range;
use crate::meta;

/// The templates, in their order. Of those with one name the last is meant, since a pod can have that volume once only (upstream:
/// `getPersistentVolumeClaims`).
fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    let all = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    let mut names = HashSet::new();
    let mut meant: Vec<&PersistentVolumeClaim> = all.rev().filter(|template| names.insert(meta::name(*template))).collect();
    meant.reverse();
    meant.into_iter()
}

/// Whether a claim has a name that the set gives.
pub(super) fn is_of(set: &StatefulSet, claim: &str) -> bool {
    templates(set).any(|template| claim.starts_with(&format!("{}-{}-", meta::name(template), meta::name(set))))
}

/// The claims of the pod of that number, each with the name of its template.
pub(super) fn of_pod(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = (&str, PersistentVolumeClaim)> {
    templates(set).map(move |template| {
        let mut claim = template.clone();
        claim.metadata.name = Some(format!("{}-{}-{ordinal}", meta::name(template), meta::name(set)));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        let selected = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
        claim.metadata.labels.get_or_insert_default().extend(selected.unwrap_or_default());
        claim.status = None;
        if Retention::of(set).when_deleted {
            claim.metadata.owner_references = Some(vec![meta::controller_ref(set)]);
        }
        (meta::name(template), claim)
    })
}

/// What deletes claims.
#[derive(Clone, Copy)]
struct Retention {
    when_deleted: bool,
    when_scaled: bool,
}

impl Retention {
    fn of(set: &StatefulSet) -> Self {
        let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
        let deletes = |value: Option<&String>| value.is_some_and(|value| value == "Delete");
        Self {
            when_deleted: deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
            when_scaled: deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }
}

/// Whether the claim goes with a pod of this name that is gone already. Another pod has to wait for the next claim.
pub(super) fn is_stale(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    let of_pod = |owner: &OwnerReference| owner.kind == "Pod" && owner.name == meta::name(pod);
    Retention::of(set).when_scaled && owners.into_iter().any(|owner| of_pod(owner) && owner.uid != meta::uid(pod))
}

/// The claim with the owners that it should have; None when it has them. `pod` is there, with its number.
pub(super) fn owned(set: &StatefulSet, pod: &Pod, ordinal: i32, claim: &PersistentVolumeClaim) -> Option<PersistentVolumeClaim> {
    let retention = Retention::of(set);
    let condemned = retention.when_scaled && !range::in_range(set, ordinal);
    let mut wanted = Vec::new();
    if condemned {
        wanted.push(meta::controller_ref(pod));
    } else if retention.when_deleted {
        wanted.push(meta::controller_ref(set));
    }
    let before = claim.metadata.owner_references.as_deref().unwrap_or_default();
    let names = |owner: &OwnerReference, kind: &str, name: &str| owner.kind == kind && owner.name == name;
    let ours = |owner: &OwnerReference| names(owner, "StatefulSet", meta::name(set)) || names(owner, "Pod", meta::name(pod));
    let strange = before.iter().any(|owner| owner.controller == Some(true) && !ours(owner));
    if strange && (retention.when_deleted || retention.when_scaled) {
        return None;
    }
    let mut owners: Vec<OwnerReference> = before.iter().filter(|owner| !ours(owner) || wanted.contains(owner)).cloned().collect();
    owners.extend(wanted.into_iter().filter(|owner| !before.contains(owner)));
    if owners == before {
        return None;
    }
    let mut claim = claim.clone();
    claim.metadata.owner_references = (!owners.is_empty()).then_some(owners);
    Some(claim)
}
