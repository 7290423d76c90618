//! Volumes: one source each, and the sources that nodes serve themselves.

use std::collections::{HashMap, HashSet};

use apimachinery::field::{Error, Errors, Path};
use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    CSIVolumeSource, ConfigMapVolumeSource, DownwardAPIVolumeSource, EphemeralVolumeSource, HostPathVolumeSource,
    ImageVolumeSource, SecretVolumeSource, Volume,
};

use super::files::{keys, mode};
use super::scope::Scope;
use super::{container, drivers, projected};
use crate::rules::resources::amount;
use crate::rules::{self, OneOf, list, text};

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks all volumes and returns those that are right, by name.
pub(super) fn validate<'a>(scope: &Scope<'a>, path: &Path, errors: &mut Errors) -> HashMap<&'a str, &'a Volume> {
    let volumes = list(&scope.spec.volumes);
    let mut right = HashMap::with_capacity(volumes.len());
    let made: HashSet<&str> = volumes.iter().filter(|other| other.ephemeral.is_some()).map(|other| other.name.as_str()).collect();
    for (index, volume) in volumes.iter().enumerate() {
        let (path, before) = (path.index(index), errors.len());
        validate_source(volume, scope, &path, errors);
        match volume.name.as_str() {
            "" => errors.push(Error::required(&path.child("name"), "")),
            name => rules::dns_label(&path.child("name"), name, errors),
        }
        if right.contains_key(volume.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), volume.name.as_str()));
        }
        if errors.len() == before {
            right.insert(volume.name.as_str(), volume);
        }
        validate_claim(volume, &made, scope, &path, errors);
    }
    right
}

/// A claim that is made for the pod is not there to be claimed.
fn validate_claim(volume: &Volume, made: &HashSet<&str>, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let (Some(claim), Some(pod)) = (&volume.persistent_volume_claim, scope.name.filter(|name| !name.is_empty())) else { return };
    let volume = claim.claim_name.strip_prefix(pod).and_then(|rest| rest.strip_prefix('-'));
    if volume.is_some_and(|volume| made.contains(volume)) {
        let detail = "must not reference a PVC that gets created for an ephemeral volume";
        errors.push(Error::invalid(&path.child("persistentVolumeClaim.claimName"), claim.claim_name.as_str(), detail));
    }
}

fn validate_source(volume: &Volume, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let mut one = OneOf::new(path, "may not specify more than 1 volume type");
    one.field("emptyDir", &volume.empty_dir, errors, |source, path, errors| {
        if source.size_limit.as_ref().is_some_and(|limit| amount(limit) < Quantity::ZERO) {
            errors.push(Error::forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity"));
        }
    });
    one.field("hostPath", &volume.host_path, errors, host_path);
    one.field("secret", &volume.secret, errors, secret);
    one.field("persistentVolumeClaim", &volume.persistent_volume_claim, errors, |source, path, errors| {
        rules::required(&path.child("claimName"), &source.claim_name, errors);
    });
    one.field("downwardAPI", &volume.downward_api, errors, downward);
    one.field("configMap", &volume.config_map, errors, config_map);
    one.field("projected", &volume.projected, errors, projected::validate);
    drivers::validate(volume, &mut one, errors);
    one.field("csi", &volume.csi, errors, csi);
    one.field("ephemeral", &volume.ephemeral, errors, |source, at, errors| ephemeral(source, volume, scope, at, path, errors));
    one.field("image", &volume.image, errors, |source, path, errors| image(source, scope, path, errors));
    one.finish("must specify a volume type", errors);
}

pub(crate) fn host_path(source: &HostPathVolumeSource, path: &Path, errors: &mut Errors) {
    if source.path.is_empty() {
        return errors.push(Error::required(&path.child("path"), ""));
    }
    rules::no_backsteps(&path.child("path"), &source.path, errors);
    rules::supported(&path.child("type"), source.type_.as_deref(), HOST_PATH_TYPES, errors);
}

fn secret(source: &SecretVolumeSource, path: &Path, errors: &mut Errors) {
    rules::required(&path.child("secretName"), text(&source.secret_name), errors);
    mode(&path.child("defaultMode"), source.default_mode, errors);
    keys(list(&source.items), &path.child("items"), errors);
}

fn config_map(source: &ConfigMapVolumeSource, path: &Path, errors: &mut Errors) {
    rules::required(&path.child("name"), &source.name, errors);
    mode(&path.child("defaultMode"), source.default_mode, errors);
    keys(list(&source.items), &path.child("items"), errors);
}

fn downward(source: &DownwardAPIVolumeSource, path: &Path, errors: &mut Errors) {
    mode(&path.child("defaultMode"), source.default_mode, errors);
    for file in list(&source.items) {
        projected::downward_file(file, path, errors);
    }
}

fn csi(source: &CSIVolumeSource, path: &Path, errors: &mut Errors) {
    rules::driver_name(&path.child("driver"), &source.driver, errors);
    match source.node_publish_secret_ref.as_ref().map(|secret| secret.name.as_str()) {
        None => {}
        Some("") => errors.push(Error::required(&path.child("nodePublishSecretRef.name"), "")),
        Some(name) => rules::dns_subdomain(&path.child("name"), name, errors),
    }
}

/// A claim of the pod's own, named after both; `volume_path` is that of the volume.
fn ephemeral(
    source: &EphemeralVolumeSource,
    volume: &Volume,
    scope: &Scope<'_>,
    path: &Path,
    volume_path: &Path,
    errors: &mut Errors,
) {
    let path = path.child("volumeClaimTemplate");
    match &source.volume_claim_template {
        None => errors.push(Error::required(&path, "")),
        Some(template) => drivers::validate_claim_template(template, &path, errors),
    }
    if let Some(pod) = scope.name.filter(|name| !name.is_empty() && !volume.name.is_empty()) {
        let claim = format!("{pod}-{}", volume.name);
        for message in apimachinery::names::dns1123_subdomain(&claim) {
            let detail = format!("PVC name \"{claim}\": {message}");
            errors.push(Error::invalid(&volume_path.child("name"), volume.name.as_str(), detail));
        }
    }
}

fn image(source: &ImageVolumeSource, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    if scope.is_pod() {
        rules::required(&path.child("reference"), text(&source.reference), errors);
    }
    container::pull_policy(&path.child("pullPolicy"), &source.pull_policy, errors);
}
