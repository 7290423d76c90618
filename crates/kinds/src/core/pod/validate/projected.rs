//! Volumes made of several sources, and files of the downward API.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, ServiceAccountTokenProjection,
    VolumeProjection,
};
use serde_json::json;

use super::files::{Paths, keys, mode};
use super::{certificates, field_ref};
use crate::certificates::reference_problems;
use crate::rules::{self, list};

const CONFLICT: &str = "conflicting duplicate paths";
/// Shortest and longest life of a token, in seconds.
const MIN_TOKEN: i64 = 600;
const MAX_TOKEN: i64 = 1 << 32;

pub(super) fn validate(source: &ProjectedVolumeSource, path: &Path, errors: &mut Errors) {
    mode(&path.child("defaultMode"), source.default_mode, errors);
    let mut paths = Paths::default();
    for (index, source) in list(&source.sources).iter().enumerate() {
        let at = path.child("sources").index(index);
        validate_source(source, &at, path, &mut paths, errors);
        let given = [
            source.secret.is_some(),
            source.config_map.is_some(),
            source.downward_api.is_some(),
            source.service_account_token.is_some(),
            source.cluster_trust_bundle.is_some(),
            source.pod_certificate.is_some(),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            errors.push(Error::forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
}

/// `volume` is the path of the whole volume, on which conflicts between sources are reported.
fn validate_source<'a>(source: &'a VolumeProjection, at: &Path, volume: &Path, paths: &mut Paths<'a>, errors: &mut Errors) {
    if let Some(secret) = &source.secret {
        validate_keys(&secret.name, list(&secret.items), &at.child("secret"), volume, paths, errors);
    }
    if let Some(map) = &source.config_map {
        validate_keys(&map.name, list(&map.items), &at.child("configMap"), volume, paths, errors);
    }
    for file in source.downward_api.iter().flat_map(|downward| list(&downward.items)) {
        downward_file(file, &at.child("downwardAPI"), errors);
        if paths.taken(&file.path) {
            errors.push(Error::invalid(volume, file.path.as_str(), CONFLICT));
        }
    }
    if let Some(token) = &source.service_account_token {
        validate_token(token, &at.child("serviceAccountToken"), volume, errors);
    }
    if let Some(certificate) = &source.pod_certificate {
        certificates::validate(certificate, &at.child("podCertificate"), errors);
        for file in certificates::files(certificate) {
            if paths.taken(file) {
                errors.push(Error::invalid(volume, file, CONFLICT));
            }
        }
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        validate_bundle(bundle, &at.child("clusterTrustBundle"), errors);
        if paths.taken(&bundle.path) {
            errors.push(Error::invalid(volume, bundle.path.as_str(), CONFLICT));
        }
    }
}

fn validate_keys<'a>(name: &str, items: &'a [KeyToPath], at: &Path, volume: &Path, paths: &mut Paths<'a>, errors: &mut Errors) {
    rules::required(&at.child("name"), name, errors);
    keys(items, &at.child("items"), errors);
    for _ in items.iter().filter(|item| paths.taken(&item.path)) {
        errors.push(Error::invalid(volume, name, CONFLICT));
    }
}

fn validate_token(token: &ServiceAccountTokenProjection, at: &Path, volume: &Path, errors: &mut Errors) {
    let seconds = token.expiration_seconds.unwrap_or(0);
    if seconds < MIN_TOKEN {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(Error::invalid(&at.child("expirationSeconds"), seconds, detail));
    }
    if seconds > MAX_TOKEN {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(Error::invalid(&at.child("expirationSeconds"), seconds, detail));
    }
    match token.path.as_str() {
        "" => errors.push(Error::required(&volume.child("path"), "")),
        file => rules::local_path(&volume.child("path"), file, errors),
    }
}

fn validate_bundle(bundle: &ClusterTrustBundleProjection, at: &Path, errors: &mut Errors) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => errors.push(Error::invalid(at, json!(bundle), "only one of name and signerName may be used")),
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(Error::required(&at.child("name"), "must be a valid object name"));
            }
            for problem in reference_problems(name) {
                let detail = format!("not a valid clustertrustbundlename: {problem}");
                errors.push(Error::invalid(&at.child("name"), name.as_str(), detail));
            }
            if let Some(selector) = &bundle.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(Error::invalid(&at.child("labelSelector"), json!(selector), detail));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(Error::required(&at.child("signerName"), "must be a valid signer name"));
            }
            rules::signer_name(&at.child("signerName"), signer, errors);
            if let Some(selector) = &bundle.label_selector {
                validate_label_selector(selector, &at.child("labelSelector"), errors);
            }
        }
        (None, None) => errors.push(Error::required(at, "either name or signerName must be specified")),
    }
    rules::required(&at.child("path"), &bundle.path, errors);
    rules::local_path(&at.child("path"), &bundle.path, errors);
}

/// A field or an amount as a file. Upstream reports on the source, not on the file.
pub(super) fn downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut Errors) {
    rules::required(&path.child("path"), &file.path, errors);
    rules::local_path(&path.child("path"), &file.path, errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            field_ref::validate_field(field, field_ref::VOLUME, &path.child("fieldRef"), errors);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(path, "resource", detail));
            }
        }
        (None, Some(resource)) => field_ref::validate_resource(resource, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.push(Error::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    mode(&path.child("mode"), file.mode, errors);
}
