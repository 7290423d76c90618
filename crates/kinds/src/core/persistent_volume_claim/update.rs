//! What of a claim may change: size and class of attributes of one that is bound, and a class that was missing.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde_json::json;

use crate::core::persistent_volume::BETA_CLASS;
use crate::core::pod::diff;
use crate::rules::resources::amount;
use crate::rules::{self, text};

const CHANGES: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// Upstream: `ValidatePersistentVolumeClaimUpdate`.
pub(super) fn validate(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut Errors) {
    let (Some(after), Some(before)) = (&new.spec, &old.spec) else { return };
    let (mut changed, mut was) = (after.clone(), before.clone());
    if text(&before.volume_name).is_empty() {
        was.volume_name.clone_from(&after.volume_name);
    }
    if moves_annotation_to_field(new, old, after, before) {
        changed.storage_class_name = None;
    } else {
        let path = Path::new("metadata.annotations").child(BETA_CLASS);
        rules::immutable(&path, &note(new).unwrap_or_default(), &note(old).unwrap_or_default(), errors);
        let class = after.storage_class_name.as_deref();
        if before.storage_class_name.is_none() && class.is_some() && note(old).is_none_or(|note| Some(note) == class) {
            changed.storage_class_name = None;
        }
    }
    if new.status.as_ref().is_some_and(|status| text(&status.phase) == "Bound") {
        keep_size(&mut changed, before);
        changed.volume_attributes_class_name.clone_from(&was.volume_attributes_class_name);
    }
    if changed != was {
        let difference = diff::show(&json!(was), &json!(changed));
        errors.push(Error::forbidden(&Path::new("spec"), format!("{CHANGES}\n{difference}")));
    }
    let has = old.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    let size = |size: Option<&ApiQuantity>| size.map(amount).unwrap_or(Quantity::ZERO);
    if size(requested(after)) < size(requested(before)) && size(requested(after)) <= size(has) {
        let path = Path::new("spec.resources.requests.storage");
        errors.push(Error::forbidden(&path, "field can not be less than status.capacity"));
    }
    rules::immutable(&Path::new("volumeMode"), &after.volume_mode, &before.volume_mode, errors);
    keep_class(new, old, errors);
}

/// A class of attributes is taken away only before one was applied: the change is then called off (KEP-3751).
fn keep_class(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut Errors) {
    let class = |claim: &PersistentVolumeClaim| claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    let applied = old.status.as_ref().is_some_and(|status| status.current_volume_attributes_class_name.is_some());
    let (after, before) = (class(new), class(old));
    if !applied || after == before {
        return;
    }
    let to = match after.as_deref() {
        None => "nil",
        Some("") => "empty string",
        Some(_) => return,
    };
    let detail = format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil");
    errors.push(Error::forbidden(&Path::new("spec.volumeAttributesClassName"), detail));
}

fn note(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref().and_then(|notes| notes.get(BETA_CLASS)).map(String::as_str)
}

/// The class that the old annotation names is now named by the field.
fn moves_annotation_to_field(
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    after: &PersistentVolumeClaimSpec,
    before: &PersistentVolumeClaimSpec,
) -> bool {
    note(old).is_some_and(|class| {
        before.storage_class_name.is_none()
            && after.storage_class_name.as_deref() == Some(class)
            && note(new).is_none_or(|note| note == class)
    })
}

fn requested(spec: &PersistentVolumeClaimSpec) -> Option<&ApiQuantity> {
    spec.resources.as_ref()?.requests.as_ref()?.get("storage")
}

/// A bound claim may ask for more, or take that back.
fn keep_size(changed: &mut PersistentVolumeClaimSpec, before: &PersistentVolumeClaimSpec) {
    let requests = changed.resources.as_mut().and_then(|resources| resources.requests.as_mut());
    if let (Some(requests), Some(size)) = (requests, requested(before)) {
        requests.insert("storage".to_owned(), size.clone());
    }
}
