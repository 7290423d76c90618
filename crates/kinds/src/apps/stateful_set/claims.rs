//! The template of the pods, with the volumes that the templates of claims add to it.

use std::collections::BTreeSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::apps::v1::StatefulSetSpec;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume};

use crate::core::{pod, validate_claim_spec};
use crate::rules::{list, text};

/// What is wrong with the templates of claims (upstream: `ValidateVolumeClaimTemplates`).
pub(super) fn wrong(spec: &StatefulSetSpec) -> Vec<Error> {
    let (mut errors, none, path) = (Errors::new(), Default::default(), Path::new("spec.volumeClaimTemplates"));
    for (index, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
        validate_claim_spec(claim.spec.as_ref().unwrap_or(&none), &path.index(index).child("spec"), &mut errors);
    }
    errors.0
}

/// What is wrong with the pods of the template.
pub(super) fn wrong_pod(spec: &StatefulSetSpec) -> Vec<Error> {
    let mut errors = Errors::new();
    pod::validate_template_pod(&with_claims(spec), &Path::new("spec.template"), &mut errors);
    errors.0
}

/// The template with a volume for each template of a claim, as pods are made of it: a claim takes the place of a volume of its name.
/// Volumes of the template stay where they are, so that what is said of one names its place.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let claims = list(&spec.volume_claim_templates).iter();
    let mut names: BTreeSet<&str> = claims.map(|claim| text(&claim.metadata.name)).collect();
    if names.is_empty() {
        return template;
    }
    let volumes = template.spec.get_or_insert_default().volumes.get_or_insert_default();
    for volume in volumes.iter_mut() {
        if names.remove(volume.name.as_str()) {
            *volume = of_claim(&volume.name);
        }
    }
    volumes.extend(names.into_iter().map(of_claim));
    template
}

fn of_claim(name: &str) -> Volume {
    // A claim has the names of its template and of its pod.
    let source = PersistentVolumeClaimVolumeSource { claim_name: name.to_owned(), ..Default::default() };
    Volume { name: name.to_owned(), persistent_volume_claim: Some(source), ..Default::default() }
}
