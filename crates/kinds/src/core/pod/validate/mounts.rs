//! Where containers see volumes, as files and as devices.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{Container, VolumeDevice, VolumeMount};

use super::scope::Scope;
use crate::rules::{self, list, text};

/// Mounts and devices of a container; `path` is the container's.
pub(super) fn validate(container: &Container, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let (mounts, at) = (list(&container.volume_mounts), path.child("volumeMounts"));
    let mut seen = HashSet::new();
    let devices = list(&container.volume_devices).iter();
    let devices = (devices.clone().map(|one| one.name.as_str()).collect(), devices.map(|one| one.device_path.as_str()).collect());
    for (index, mount) in mounts.iter().enumerate() {
        let path = at.index(index);
        validate_place(mount, &devices, scope, &path, errors);
        if !seen.insert(mount.mount_path.as_str()) {
            errors.push(Error::invalid(&path.child("mountPath"), mount.mount_path.as_str(), "must be unique"));
        }
        validate_sub_path(mount, &path, &at, errors);
        validate_propagation(mount, container, &at.child("mountPropagation"), errors);
        validate_recursive(mount, &at.child("recursiveReadOnly"), errors);
    }
    let mounts = (mounts.iter().map(|one| one.name.as_str()).collect(), seen);
    validate_devices(list(&container.volume_devices), &mounts, scope, &path.child("volumeDevices"), errors);
}

/// Names of volumes, and the places where a container sees them.
type Places<'a> = (HashSet<&'a str>, HashSet<&'a str>);

fn validate_place(mount: &VolumeMount, devices: &Places<'_>, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let (name, target) = (mount.name.as_str(), mount.mount_path.as_str());
    rules::required(&path.child("name"), name, errors);
    if !scope.volumes.contains_key(name) {
        errors.push(Error::not_found(&path.child("name"), name));
    }
    rules::required(&path.child("mountPath"), target, errors);
    if devices.0.contains(name) {
        errors.push(Error::invalid(&path.child("name"), name, "must not already exist in volumeDevices"));
    }
    if devices.1.contains(target) {
        errors.push(Error::invalid(&path.child("mountPath"), target, "must not already exist as a path in volumeDevices"));
    }
}

/// `list` is the path of all mounts, on which upstream reports what is wrong with the path itself.
fn validate_sub_path(mount: &VolumeMount, path: &Path, list: &Path, errors: &mut Errors) {
    let (sub, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !sub.is_empty() {
        rules::descending_path(&list.child("subPath"), sub, errors);
    }
    if expression.is_empty() {
        return;
    }
    if !sub.is_empty() {
        let detail = "subPathExpr and subPath are mutually exclusive";
        errors.push(Error::invalid(&path.child("subPathExpr"), expression, detail));
    }
    rules::descending_path(&list.child("subPathExpr"), expression, errors);
}

fn validate_propagation(mount: &VolumeMount, container: &Container, path: &Path, errors: &mut Errors) {
    rules::supported(path, mount.mount_propagation.as_deref(), &["Bidirectional", "HostToContainer", "None"], errors);
    let privileged = container.security_context.as_ref().and_then(|context| context.privileged) == Some(true);
    if text(&mount.mount_propagation) == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(Error::forbidden(path, detail));
    }
}

/// Read-only below, too (KEP-3857).
fn validate_recursive(mount: &VolumeMount, path: &Path, errors: &mut Errors) {
    let Some(mode) = mount.recursive_read_only.as_deref() else { return };
    if !["Enabled", "IfPossible"].contains(&mode) {
        return rules::supported(path, Some(mode), &["Disabled", "Enabled", "IfPossible"], errors);
    }
    if mount.read_only != Some(true) {
        errors.push(Error::forbidden(path, "may only be specified when readOnly is true"));
    }
    if !["", "None"].contains(&text(&mount.mount_propagation)) {
        errors.push(Error::forbidden(path, "may only be specified when mountPropagation is None or not specified"));
    }
}

fn validate_devices(devices: &[VolumeDevice], mounts: &Places<'_>, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (index, device) in devices.iter().enumerate() {
        let (name, target, path) = (device.name.as_str(), device.device_path.as_str(), path.index(index));
        rules::required(&path.child("name"), name, errors);
        let mut wrong = |field: &str, value: &str, detail: &str| errors.push(Error::invalid(&path.child(field), value, detail));
        if !name.is_empty() && !names.insert(name) {
            wrong("name", name, "must be unique");
        }
        let volume = scope.volumes.get(name);
        if volume.is_some_and(|volume| volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none()) {
            wrong("name", name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
        }
        if !paths.insert(target) {
            wrong("devicePath", target, "must be unique");
        }
        if target.split('/').any(|part| part == "..") {
            wrong("devicePath", target, "can not contain backsteps ('..')");
        }
        if mounts.0.contains(name) {
            wrong("name", name, "must not already exist in volumeMounts");
        }
        if mounts.1.contains(target) {
            wrong("devicePath", target, "must not already exist as a path in volumeMounts");
        }
        if volume.is_none() {
            errors.push(Error::not_found(&path.child("name"), name));
        }
        rules::required(&path.child("devicePath"), target, errors);
    }
}
