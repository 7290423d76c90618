//! Seccomp and AppArmor profiles.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{AppArmorProfile, SeccompProfile};
use serde_json::json;

use crate::rules::{self, text};

const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
/// The longest path.
const MAX_PATH: usize = 4095;

pub(super) fn validate_seccomp(profile: &SeccompProfile, path: &Path, errors: &mut Errors) {
    match profile.type_.as_str() {
        "" => errors.push(Error::required(&path.child("type"), "type is required when seccompProfile is set")),
        kind => rules::supported(&path.child("type"), Some(kind), TYPES, errors),
    }
    let at = path.child("localhostProfile");
    match (profile.type_ == "Localhost", &profile.localhost_profile) {
        (true, None) => errors.push(Error::required(&at, "must be set when seccomp type is Localhost")),
        (true, Some(file)) => rules::descending_path(&at, file, errors),
        (false, Some(_)) => errors.push(Error::invalid(&at, json!(profile), "can only be set when seccomp type is Localhost")),
        (false, None) => {}
    }
}

pub(super) fn validate_app_armor(profile: &AppArmorProfile, path: &Path, errors: &mut Errors) {
    let (at, name) = (path.child("localhostProfile"), &profile.localhost_profile);
    match profile.type_.as_str() {
        "Localhost" => validate_local(text(name), &at, errors),
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = name {
                errors.push(Error::invalid(&at, name.as_str(), "can only be set when AppArmor type is Localhost"));
            }
        }
        "" => errors.push(Error::required(&path.child("type"), "type is required when appArmorProfile is set")),
        other => errors.push(Error::not_supported(&path.child("type"), other, TYPES)),
    }
}

/// Whether it is a valid profile.
pub(in crate::core::pod) fn is_app_armor(profile: &AppArmorProfile) -> bool {
    let mut errors = Errors::default();
    validate_app_armor(profile, &Path::new("appArmorProfile"), &mut errors);
    errors.is_empty()
}

fn validate_local(name: &str, path: &Path, errors: &mut Errors) {
    if name.trim() != name {
        errors.push(Error::invalid(path, name, "must not be padded with whitespace"));
    } else if name.is_empty() {
        errors.push(Error::required(path, "must be set when AppArmor type is Localhost"));
    }
    if name.len() > MAX_PATH {
        errors.push(Error::too_long(path, MAX_PATH));
    }
}
