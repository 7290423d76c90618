//! What a volume is filled with when it is made (KEP-1495): `dataSource`, which names claims and snapshots only, and
//! `dataSourceRef`, which names anything. The two say the same.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use serde_json::Value;

use crate::rules::{self, text as given};
use crate::util::{remove, text};

const OLD: &str = "dataSource";
const NEW: &str = "dataSourceRef";

/// Drops what is not supported, and completes the one field from the other.
pub(super) fn prepare(spec: &mut Value, old: &Value) {
    let in_use = |key: &str| old.get(key).is_some();
    // CrossNamespaceVolumeDataSource is off by default.
    if !in_use(NEW) && !text(spec, "/dataSourceRef/namespace").is_empty() {
        remove(spec, NEW);
    }
    // Clients that know the old field only put anything there, and it was dropped then.
    if !in_use(OLD) && !in_use(NEW) && !is_claim_or_snapshot(spec) {
        remove(spec, OLD);
    }
    if !text(spec, "/dataSourceRef/namespace").is_empty() {
        return;
    }
    match (spec.get(OLD).cloned(), spec.get(NEW).cloned()) {
        (Some(source), None) => spec[NEW] = source,
        (None, Some(mut source)) => {
            remove(&mut source, "namespace");
            spec[OLD] = source;
        }
        _ => {}
    }
}

fn is_claim_or_snapshot(spec: &Value) -> bool {
    let (group, kind) = (text(spec, "/dataSource/apiGroup"), text(spec, "/dataSource/kind"));
    matches!((group, kind), ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
}

pub(super) fn validate(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let (old, new) = (spec.data_source.as_ref(), spec.data_source_ref.as_ref());
    if let Some(source) = old {
        reference(&source.name, &source.kind, source.api_group.as_deref(), &path.child(OLD), errors);
    }
    let Some(source) = new else { return };
    let at = path.child(NEW);
    reference(&source.name, &source.kind, source.api_group.as_deref(), &at, errors);
    let namespace = given(&source.namespace);
    if !namespace.is_empty() {
        rules::dns_label(&at.child("namespace"), namespace, errors);
    }
    let Some(old) = old else { return };
    if !namespace.is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(Error::invalid(path, path.child(OLD).as_str(), detail));
    } else if (&old.api_group, &old.kind, &old.name) != (&source.api_group, &source.kind, &source.name) {
        errors.push(Error::invalid(path, path.child(OLD).as_str(), "must match dataSourceRef"));
    }
}

fn reference(name: &str, kind: &str, group: Option<&str>, path: &Path, errors: &mut Errors) {
    rules::required(&path.child("name"), name, errors);
    rules::required(&path.child("kind"), kind, errors);
    match group.unwrap_or_default() {
        "" if kind != "PersistentVolumeClaim" => {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(Error::invalid(path, kind, detail));
        }
        "" => {}
        group => rules::dns_subdomain(&path.child("apiGroup"), group, errors),
    }
}
