//! Rules that many kinds share: small functions that add what is wrong with one value to a list of errors.

mod address;
mod bundle;
mod condition;
pub(crate) mod int_or_percent;
mod path;
pub(crate) mod resources;
mod signer;
mod webhook;

use codec::Encode;
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{meta, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(crate) use address::{
    canonical_cidr, cidr, family, interface_address, ip, is_strict_subset, non_special_ip, warn_of_cidr, warn_of_ip,
};
pub(crate) use bundle::check_bundle;
pub(crate) use condition::conditions;
pub(crate) use path::{descending_path, local_path, no_backsteps};
pub(crate) use signer::signer_name;
pub(crate) use webhook::{review_versions, webhook_client};

pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const NOT_POSITIVE: &str = "must be greater than zero";

/// The text, empty when absent.
pub(crate) fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// The elements, none when absent.
pub(crate) fn list<T>(value: &Option<Vec<T>>) -> &[T] {
    value.as_deref().unwrap_or_default()
}

/// The positions of elements whose keys came before.
pub(crate) fn repeated<K: Eq + Hash>(keys: impl IntoIterator<Item = K>) -> impl Iterator<Item = usize> {
    let mut seen = HashSet::new();
    keys.into_iter().enumerate().filter_map(move |(index, key)| (!seen.insert(key)).then_some(index))
}

/// Something must be there.
pub(crate) fn required(path: &Path, value: &str, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(Error::required(path, ""));
    }
}

/// One of these, and nothing else; empty is missing.
pub(crate) fn one_of(path: &Path, value: &str, supported: &[&str], errors: &mut Errors) {
    match value {
        "" => errors.push(Error::required(path, "")),
        value => supported_value(path, value, supported, errors),
    }
}

/// One of these where it is given.
pub(crate) fn supported(path: &Path, value: Option<&str>, supported: &[&str], errors: &mut Errors) {
    if let Some(value) = value {
        supported_value(path, value, supported, errors);
    }
}

fn supported_value(path: &Path, value: &str, supported: &[&str], errors: &mut Errors) {
    if !supported.contains(&value) {
        errors.push(Error::not_supported(path, value, supported));
    }
}

/// What may not change once it is there.
pub(crate) fn immutable<T: PartialEq + serde::Serialize>(path: &Path, new: &T, old: &T, errors: &mut Errors) {
    if new != old {
        errors.push(Error::invalid(path, serde_json::json!(new), meta::IMMUTABLE));
    }
}

/// The name of a driver of the Container Storage Interface, or of dynamic resources.
pub(crate) fn driver_name(path: &Path, name: &str, errors: &mut Errors) {
    required(path, name, errors);
    if name.len() > 63 {
        errors.push(Error::too_long(path, 63));
    }
    errors.invalid_each(path, name, names::dns1123_subdomain(&name.to_lowercase()));
}

/// Metadata of a template: labels and annotations, and nothing else.
pub(crate) fn template_metadata(path: &Path, metadata: Option<&ObjectMeta>, errors: &mut Errors) {
    let Some(metadata) = metadata else { return };
    annotations(&path.child("annotations"), metadata.annotations.as_ref(), errors);
    labels(&path.child("labels"), metadata.labels.as_ref(), errors);
    let rest = ObjectMeta { annotations: None, labels: None, ..metadata.clone() };
    for field in rest.to_tree().iter().filter_map(serde_json::Value::as_object).flat_map(|map| map.keys()) {
        errors.push(Error::forbidden(&path.child(field), "cannot be set"));
    }
}

pub(crate) fn non_negative(path: &Path, value: i64, errors: &mut Errors) {
    if value < 0 {
        errors.push(Error::invalid(path, value, NEGATIVE));
    }
}

/// Between `low` and `high`, where it is given.
pub(crate) fn in_range(path: &Path, value: Option<i64>, low: i64, high: i64, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !(low..=high).contains(value)) {
        errors.push(Error::invalid(path, value, names::range_error(low, high)));
    }
}

pub(crate) fn dns_label(path: &Path, value: &str, errors: &mut Errors) {
    errors.invalid_each(path, value, names::dns1123_label(value));
}

pub(crate) fn dns_subdomain(path: &Path, value: &str, errors: &mut Errors) {
    errors.invalid_each(path, value, names::dns1123_subdomain(value));
}

/// `acme.io/foo`: a domain and what its owner calls it.
pub(crate) fn domain_prefixed_path(path: &Path, value: &str, errors: &mut Errors) {
    match value.split_once('/') {
        _ if value.is_empty() => errors.push(Error::required(path, "")),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            dns_subdomain(path, domain, errors);
            errors.invalid_each(path, rest, names::url_path(rest));
        }
        _ => errors.push(Error::invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")")),
    }
}

pub(crate) fn qualified_name(path: &Path, value: &str, errors: &mut Errors) {
    errors.invalid_each(path, value, names::qualified_name(value));
}

pub(crate) fn labels(path: &Path, labels: Option<&BTreeMap<String, String>>, errors: &mut Errors) {
    meta::validate_label_pairs(pairs(labels), path, errors);
}

pub(crate) fn annotations(path: &Path, annotations: Option<&BTreeMap<String, String>>, errors: &mut Errors) {
    meta::validate_annotation_pairs(pairs(annotations), path, errors);
}

fn pairs(map: Option<&BTreeMap<String, String>>) -> impl Iterator<Item = (&str, &str)> {
    map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
}

pub(crate) fn port_number(path: &Path, port: i32, errors: &mut Errors) {
    in_range(path, Some(port.into()), 1, 65535, errors);
}

/// The number of a port, or the name of one.
pub(crate) fn port(path: &Path, port: &IntOrString, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => port_number(path, *number, errors),
        IntOrString::String(name) => errors.invalid_each(path, name, names::port_name(name)),
    }
}

/// Of several fields, exactly one may be set.
pub(crate) struct OneOf<'a> {
    path: &'a Path,
    too_many: &'a str,
    seen: bool,
}

impl<'a> OneOf<'a> {
    /// `too_many` is said of each field after the first.
    pub(crate) fn new(path: &'a Path, too_many: &'a str) -> Self {
        Self { path, too_many, seen: false }
    }

    /// Looks at one of the fields: the first that is set is checked, any further one is refused.
    pub(crate) fn field<T>(
        &mut self,
        name: &str,
        value: &Option<T>,
        errors: &mut Errors,
        check: impl FnOnce(&T, &Path, &mut Errors),
    ) {
        let Some(value) = value else { return };
        let path = self.path.child(name);
        if std::mem::replace(&mut self.seen, true) {
            errors.push(Error::forbidden(&path, self.too_many));
        } else {
            check(value, &path, errors);
        }
    }

    /// Says `missing` when none was set.
    pub(crate) fn finish(self, missing: &str, errors: &mut Errors) {
        if !self.seen {
            errors.push(Error::required(self.path, missing));
        }
    }
}
