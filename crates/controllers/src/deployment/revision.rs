//! Which replica set is the new one, and the annotations that make `kubectl rollout history` and `undo` work.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{DESIRED, HASH, HISTORY, MAX, REVISION, size};
use crate::hash::{name_with_hash, template_hash};
use crate::meta;

/// Characters that the list of former revisions may have.
const HISTORY_LIMIT: usize = 2000;

/// Bytes that the name of a replica set may have; a deployment's may be as long without the hash.
const NAME_LIMIT: usize = 253;

/// Annotations that stay where they are.
const NOT_COPIED: [&str; 6] =
    ["kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAX, "deprecated.deployment.rollback.to"];

/// Whether two templates are the same but for the hash label.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    fn labels(template: &PodTemplateSpec) -> impl Iterator<Item = (&String, &String)> {
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
        labels.into_iter().flatten().filter(|(key, _)| key.as_str() != HASH)
    }
    fn annotations(template: &PodTemplateSpec) -> impl Iterator<Item = (&String, &String)> {
        template.metadata.as_ref().and_then(|meta| meta.annotations.as_ref()).into_iter().flatten()
    }
    a.spec == b.spec && labels(a).eq(labels(b)) && annotations(a).eq(annotations(b))
}

pub(super) fn template_of(set: &ReplicaSet) -> PodTemplateSpec {
    set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
}

pub(super) fn revision(set: &ReplicaSet) -> i64 {
    meta::annotation(set, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Index of the set with the deployment's template, the oldest of several. `sets` are ordered by age.
pub(super) fn find_new(deployment: &Deployment, sets: &[ReplicaSet]) -> Option<usize> {
    let template = &deployment.spec.as_ref()?.template;
    let own = sets.iter().map(|set| set.spec.as_ref().and_then(|spec| spec.template.as_ref()));
    own.into_iter().position(|own| own.is_some_and(|own| same_template(own, template)))
}

/// The set for the deployment's template, as yet without replicas.
pub(super) fn new_set(deployment: &Deployment, revision: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = &mut template.metadata.get_or_insert_default().labels;
    labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name_with_hash(meta::name(deployment), NAME_LIMIT.saturating_sub(1 + hash.len()), &hash)),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![meta::controller_ref(deployment)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        }),
        status: None,
    };
    annotate_new(deployment, &mut set, revision);
    annotate_size(deployment, &mut set);
    set
}

/// Gives the new set the deployment's annotations and, if it is higher than what it has, the revision.
pub(super) fn annotate_new(deployment: &Deployment, set: &mut ReplicaSet, new_revision: i64) {
    let own = revision(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if own >= new_revision {
        return;
    }
    let former = annotations.insert(REVISION.to_owned(), new_revision.to_string());
    if let Some(former) = former {
        remember(annotations, former);
    }
}

/// Adds to the list of revisions that this set had, dropping the oldest of a list that grows too long.
fn remember(annotations: &mut BTreeMap<String, String>, former: String) {
    let list = annotations.entry(HISTORY.to_owned()).or_default();
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(&former);
    while list.len() > HISTORY_LIMIT {
        match list.find(',') {
            Some(comma) => list.replace_range(..=comma, ""),
            None => break,
        }
    }
}

/// Notes the deployment's size on a set that is scaled, to tell scaling from rolling out later.
pub(super) fn annotate_size(deployment: &Deployment, set: &mut ReplicaSet) {
    let total = size::wanted(deployment);
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.to_owned(), total.to_string());
    annotations.insert(MAX.to_owned(), size::nearest(size::limit(deployment)).to_string());
}
