//! Rules for volumes, of their own and inside of a VolumeAttachment.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::meta;
use k8s_openapi::api::core::v1::{PersistentVolumeSpec, VolumeNodeAffinity};
use serde_json::{Value, json};

use super::{basic_resource, sources};
use crate::core::persistent_volume_claim::{VOLUME_MODES, access_modes};
use crate::core::pod::{diff, new_label, node_selector};
use crate::rules::resources::amount;
use crate::rules::{self, NOT_POSITIVE, list, text};

const INLINE: &str = "in the context of inline volumes";

/// A volume, new or changed.
pub(super) fn validate(spec: &PersistentVolumeSpec, name: &str, errors: &mut Errors) {
    let path = Path::new("spec");
    validate_modes(spec, &path, errors);
    validate_capacity(spec, &path.child("capacity"), errors);
    let (policy, at) = (text(&spec.persistent_volume_reclaim_policy), path.child("persistentVolumeReclaimPolicy"));
    if !policy.is_empty() {
        rules::supported(&at, Some(policy), &["Delete", "Recycle", "Retain"], errors);
    }
    if let Some(affinity) = &spec.node_affinity {
        validate_affinity(affinity, &path.child("nodeAffinity"), errors);
    }
    sources::validate(spec, name, &path, errors);
    if policy == "Recycle" && spec.host_path.as_ref().is_some_and(|source| is_root(&source.path)) {
        errors.push(Error::forbidden(&at, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    if !text(&spec.storage_class_name).is_empty() {
        rules::dns_subdomain(&path.child("storageClassName"), text(&spec.storage_class_name), errors);
    }
    rules::supported(&path.child("volumeMode"), spec.volume_mode.as_deref(), VOLUME_MODES, errors);
    let at = path.child("volumeAttributesClassName");
    match spec.volume_attributes_class_name.as_deref() {
        None => return,
        Some("") => errors.push(Error::required(&at, "an empty string is disallowed")),
        Some(class) => rules::dns_subdomain(&at, class, errors),
    }
    if spec.csi.is_none() {
        errors.push(Error::required(&path.child("csi"), "has to be specified when using volumeAttributesClassName"));
    }
}

/// A volume that is attached without being an object: what a driver replaces of a pod's own volume.
pub(crate) fn inline_volume(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let refused = |field: &str, errors: &mut Errors| {
        errors.push(Error::forbidden(&path.child(field), format!("may not be specified {INLINE}")));
    };
    if spec.claim_ref.is_some() {
        refused("claimRef", errors);
    }
    if spec.capacity.as_ref().is_some_and(|capacity| !capacity.is_empty()) {
        refused("capacity", errors);
    }
    if spec.csi.is_none() {
        errors.push(Error::required(&path.child("csi"), format!("has to be specified {INLINE}")));
    }
    validate_modes(spec, path, errors);
    if !matches!(text(&spec.persistent_volume_reclaim_policy), "" | "Retain") {
        let detail = format!("may only be Retain {INLINE}");
        errors.push(Error::forbidden(&path.child("persistentVolumeReclaimPolicy"), detail));
    }
    if spec.node_affinity.is_some() {
        refused("nodeAffinity", errors);
    }
    sources::validate(spec, "", path, errors);
    if !text(&spec.storage_class_name).is_empty() {
        refused("storageClassName", errors);
    }
    if spec.volume_mode.as_deref().is_some_and(|mode| mode != "Filesystem") {
        let detail = format!("may not specify volumeMode other than Filesystem {INLINE}");
        errors.push(Error::forbidden(&path.child("volumeMode"), detail));
    }
}

fn validate_modes(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let (modes, path) = (list(&spec.access_modes), path.child("accessModes"));
    if modes.is_empty() {
        errors.push(Error::required(&path, ""));
    }
    access_modes(modes, &path, errors);
}

/// How much the volume holds, and nothing else.
fn validate_capacity(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.push(Error::not_supported(path, json!(spec.capacity), &["storage"]));
    }
    for (name, size) in &capacity {
        let path = path.key(name);
        basic_resource(&path, size, errors);
        if amount(size).signum() <= 0 {
            errors.push(Error::invalid(&path, size.0.as_str(), NOT_POSITIVE));
        }
    }
}

fn validate_affinity(affinity: &VolumeNodeAffinity, path: &Path, errors: &mut Errors) {
    match &affinity.required {
        Some(selector) => node_selector(selector, false, &path.child("required"), errors),
        None => errors.push(Error::required(&path.child("required"), "must specify required node constraints")),
    }
}

/// Whether it is the root of the host, however it is written.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "." | ".."))
}

/// What may not change.
pub(super) fn validate_update(new: &PersistentVolumeSpec, old: &PersistentVolumeSpec, errors: &mut Errors) {
    let (after, before) = (source(new, old), source(old, old));
    if after != before {
        let difference = diff::show(&before, &after);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{difference}");
        errors.push(Error::forbidden(&Path::new("spec.persistentvolumesource"), detail));
    }
    rules::immutable(&Path::new("volumeMode"), &new.volume_mode, &old.volume_mode, errors);
    if let Some(old) = &old.node_affinity
        && new.node_affinity.as_ref().is_none_or(|new| with_old_labels(new, old) != *old)
    {
        let detail = format!("{}, except for updating from beta label to GA", meta::IMMUTABLE);
        errors.push(Error::invalid(&Path::new("nodeAffinity"), json!(new.node_affinity), detail));
    }
    if old.volume_attributes_class_name.is_some() && new.volume_attributes_class_name.is_none() {
        let detail = "update from non-nil value to nil is forbidden";
        errors.push(Error::forbidden(&Path::new("spec.volumeAttributesClassName"), detail));
    }
}

/// The affinity with those labels named as before that have got their new names: nodes lose the old ones some day.
fn with_old_labels(new: &VolumeNodeAffinity, old: &VolumeNodeAffinity) -> VolumeNodeAffinity {
    let mut same = new.clone();
    let terms = same.required.iter_mut().flat_map(|selector| &mut selector.node_selector_terms);
    for (new, old) in terms.zip(old.required.iter().flat_map(|selector| &selector.node_selector_terms)) {
        let expressions = new.match_expressions.iter_mut().flatten().zip(list(&old.match_expressions));
        for (new, old) in expressions.filter(|(new, old)| new_label(&old.key) == Some(new.key.as_str())) {
            new.key.clone_from(&old.key);
        }
    }
    same
}

/// The source in JSON. The secret with which a volume grows may be added to one that has none.
fn source(spec: &PersistentVolumeSpec, old: &PersistentVolumeSpec) -> Value {
    let mut csi = spec.csi.clone();
    if let (Some(csi), Some(old)) = (&mut csi, &old.csi)
        && old.controller_expand_secret_ref.is_none()
    {
        csi.controller_expand_secret_ref = None;
    }
    let source = PersistentVolumeSpec {
        csi,
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    };
    json!(source)
}
