//! Environment of containers.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, EnvVarSource, FileKeySelector};

use super::field_ref;
use super::scope::Scope;
use crate::rules::{self, list, text};

/// Variables, and sources of many of them; `path` is the container's.
pub(super) fn validate(container: &Container, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    for (index, variable) in list(&container.env).iter().enumerate() {
        let path = path.child("env").index(index);
        match variable.name.as_str() {
            "" => errors.push(Error::required(&path.child("name"), "")),
            name => errors.invalid_each(&path.child("name"), name, names::env_var_name(name)),
        }
        if let Some(source) = &variable.value_from {
            let path = path.child("valueFrom");
            validate_source(variable, source, &path, errors);
            if let Some(key) = &source.file_key_ref {
                validate_file_volume(key, scope, &path.child("fileKeyRef").child("volumeName"), errors);
            }
        }
    }
    for (index, source) in list(&container.env_from).iter().enumerate() {
        validate_from(source, index, &path.child("envFrom"), errors);
    }
}

fn validate_source(variable: &EnvVar, source: &EnvVarSource, path: &Path, errors: &mut Errors) {
    if let Some(field) = &source.field_ref {
        field_ref::validate_field(field, field_ref::ENVIRONMENT, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        field_ref::validate_resource(resource, false, &path.child("resourceFieldRef"), errors);
    }
    if let Some(key) = &source.config_map_key_ref {
        validate_key(&key.name, &key.key, &path.child("configMapKeyRef"), errors);
    }
    if let Some(key) = &source.secret_key_ref {
        validate_key(&key.name, &key.key, &path.child("secretKeyRef"), errors);
    }
    if let Some(key) = &source.file_key_ref {
        validate_file_key(key, &path.child("fileKeyRef"), errors);
    }
    let given = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
        source.file_key_ref.is_some(),
    ];
    match given.iter().filter(|given| **given).count() {
        0 => {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.push(Error::invalid(path, "", detail));
        }
        _ if !text(&variable.value).is_empty() => {
            errors.push(Error::invalid(path, "", "may not be specified when `value` is not empty"));
        }
        1 => {}
        _ => errors.push(Error::invalid(path, "", "may not have more than one field specified at a time")),
    }
}

/// A key of a ConfigMap or Secret.
fn validate_key(name: &str, key: &str, path: &Path, errors: &mut Errors) {
    rules::dns_subdomain(&path.child("name"), name, errors);
    match key {
        "" => errors.push(Error::required(&path.child("key"), "")),
        key => errors.invalid_each(&path.child("key"), key, names::config_map_key(key)),
    }
}

/// A variable of a file in a volume (KEP-3721).
fn validate_file_key(source: &FileKeySelector, path: &Path, errors: &mut Errors) {
    match source.key.as_str() {
        "" => errors.push(Error::required(&path.child("key"), "")),
        key => errors.invalid_each(&path.child("key"), key, names::env_var_name(key)),
    }
    rules::required(&path.child("volumeName"), &source.volume_name, errors);
    match source.path.as_str() {
        "" => errors.push(Error::required(&path.child("path"), "")),
        file => rules::local_path(&path.child("path"), file, errors),
    }
}

/// The file is in a volume of the pod that its containers share (KEP-3721).
fn validate_file_volume(source: &FileKeySelector, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let name = source.volume_name.as_str();
    match scope.volumes.get(name) {
        _ if name.is_empty() => {}
        None => errors.push(Error::not_found(path, name)),
        Some(volume) if volume.empty_dir.is_none() => errors.push(Error::invalid(path, name, "must be an emptyDir volume")),
        Some(_) => {}
    }
}

/// `path` is that of the list: upstream reports how many sources there are on it.
fn validate_from(source: &EnvFromSource, index: usize, path: &Path, errors: &mut Errors) {
    let at = path.index(index);
    let prefix = text(&source.prefix);
    if !prefix.is_empty() {
        errors.invalid_each(&at.child("prefix"), prefix, names::env_var_name(prefix));
    }
    let (config, secret) = (&source.config_map_ref, &source.secret_ref);
    for (field, name) in
        [("configMapRef", config.as_ref().map(|source| &source.name)), ("secretRef", secret.as_ref().map(|source| &source.name))]
    {
        match name.map(String::as_str) {
            None => {}
            Some("") => errors.push(Error::required(&at.child(field).child("name"), "")),
            Some(name) => errors.invalid_each(&at.child(field).child("name"), name, names::name_is_subdomain(name, true)),
        }
    }
    match (config.is_some(), secret.is_some()) {
        (false, false) => errors.push(Error::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
        (true, true) => errors.push(Error::invalid(path, "", "may not have more than one field specified at a time")),
        _ => {}
    }
}
