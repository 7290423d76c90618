//! Rules for what is claimed, in claims and in templates of claims.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;

use super::data_source;
use crate::rules::resources::{amount, resource_amount};
use crate::rules::{self, NOT_POSITIVE, list};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(crate) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// Upstream: `ValidatePersistentVolumeClaimSpec`.
pub(crate) fn validate_claim_spec(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let (modes, at) = (list(&spec.access_modes), path.child("accessModes"));
    if modes.is_empty() {
        errors.push(Error::required(&at, "at least 1 access mode is required"));
    }
    if let Some(selector) = &spec.selector {
        validate_label_selector(selector, &path.child("selector"), errors);
    }
    access_modes(modes, &at, errors);
    let at = path.child("resources").key("storage");
    match spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()).and_then(|requests| requests.get("storage")) {
        None => errors.push(Error::required(&at, "")),
        Some(size) if amount(size).signum() <= 0 => errors.push(Error::invalid(&at, size.0.as_str(), NOT_POSITIVE)),
        Some(size) => resource_amount(&at, "storage", size, errors),
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        rules::dns_subdomain(&path.child("storageClassName"), class, errors);
    }
    rules::supported(&path.child("volumeMode"), spec.volume_mode.as_deref(), VOLUME_MODES, errors);
    data_source::validate(spec, path, errors);
    if let Some(class) = spec.volume_attributes_class_name.as_deref().filter(|class| !class.is_empty()) {
        rules::dns_subdomain(&path.child("volumeAttributesClassName"), class, errors);
    }
}

/// Known modes; the one of a single pod goes with no other one.
pub(crate) fn access_modes(modes: &[String], path: &Path, errors: &mut Errors) {
    for mode in modes {
        rules::supported(path, Some(mode), ACCESS_MODES, errors);
    }
    let single = |mode: &String| mode == "ReadWriteOncePod";
    let other = |mode: &String| !single(mode) && ACCESS_MODES.contains(&mode.as_str());
    if modes.iter().any(single) && modes.iter().any(other) {
        errors.push(Error::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}
