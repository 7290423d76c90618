//! Cluster addresses and families of services: the singular and the plural fields agree, and none changes once it is set (KEP-563).

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::{Value, json};

use crate::rules::{self, list, text};
use crate::util::{integer, remove, set_default};

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const CHANGED: &str = "may not change once set";

pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(list(&spec.cluster_ips), [only] if only == "None")
}

fn is_external_name(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "ExternalName"
}

/// Addresses, families and their policy; `path` is that of the spec.
pub(super) fn validate(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    if is_external_name(spec) {
        return;
    }
    let (first, all, at) = (text(&spec.cluster_ip), list(&spec.cluster_ips), path.child("clusterIPs"));
    match (first, all.first()) {
        ("", Some(_)) => errors.push(Error::invalid(&at, all.to_vec(), "must be empty when `clusterIP` is not specified")),
        ("", None) => {}
        (_, None) => errors.push(Error::required(&at, "")),
        (first, Some(other)) if first != other => {
            errors.push(Error::invalid(&at, all.to_vec(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    validate_families(list(&spec.ip_families), &path.child("ipFamilies"), errors);
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    rules::supported(&path.child("ipFamilyPolicy"), spec.ip_family_policy.as_deref(), &policies, errors);
    validate_addresses(spec, &at, errors);
}

fn validate_families(families: &[String], path: &Path, errors: &mut Errors) {
    let mut seen = std::collections::HashSet::new();
    for (index, family) in families.iter().enumerate() {
        rules::supported(&path.index(index), Some(family), FAMILIES, errors);
        if !seen.insert(family) {
            errors.push(Error::duplicate(&path.index(index), family.as_str()));
        }
    }
}

fn validate_addresses(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let (all, before) = (list(&spec.cluster_ips), errors.len());
    for (index, address) in all.iter().enumerate() {
        if index > 0 || address != "None" {
            rules::ip(&path.index(index), address, errors);
        } else if all.len() > 1 {
            errors.push(Error::invalid(path, all.to_vec(), "'None' must be the first and only value"));
        }
    }
    let wrong = errors.len() > before;
    if all.len() > 2 {
        errors.push(Error::invalid(path, all.to_vec(), "may only hold up to 2 values"));
    }
    if wrong {
        return;
    }
    let families: Vec<_> = all.iter().map(|address| rules::family(address)).collect();
    if all.len() > 1 && !(families.contains(&Some("IPv4")) && families.contains(&Some("IPv6"))) {
        errors.push(Error::invalid(path, all.to_vec(), "may specify no more than one IP for each IP family"));
    }
    if is_headless(spec) {
        return;
    }
    for (index, (family, expected)) in families.iter().zip(list(&spec.ip_families)).enumerate() {
        if *family != Some(expected.as_str()) && FAMILIES.contains(&expected.as_str()) {
            let detail = format!("expected an {expected} value as indicated by `ipFamilies[{index}]`");
            errors.push(Error::invalid(&path.index(index), all[index].as_str(), detail));
        }
    }
}

/// A second address or family may come and go; the first stays.
pub(super) fn validate_update(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    if is_external_name(new) || is_external_name(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    let list_of = |spec: &ServiceSpec, field: &str| {
        if field == "clusterIPs" { list(&spec.cluster_ips).to_vec() } else { list(&spec.ip_families).to_vec() }
    };
    let single = new.ip_family_policy.as_deref() == Some("SingleStack");
    for (field, one) in [("clusterIPs", "clusterIP"), ("ipFamilies", "ipFamily")] {
        if field == "ipFamilies" && (is_headless(new) || is_headless(old)) {
            return;
        }
        let (is, was) = (list_of(new, field), list_of(old, field));
        let path = Path::new("spec").child(field);
        if is.len() == was.len() {
            for index in (0..is.len()).filter(|index| is[*index] != was[*index]) {
                errors.push(Error::invalid(&path.index(index), is.clone(), CHANGED));
            }
            continue;
        }
        if is.is_empty() {
            errors.push(Error::invalid(&path.index(0), json!(null), format!("primary {one} can not be unset")));
        } else if was.first().is_some_and(|first| *first != is[0]) {
            errors.push(Error::invalid(&path.index(0), is.clone(), CHANGED));
        }
        if was.len() > is.len() && is.len() == 1 && !single {
            let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
            errors.push(Error::invalid(&Path::new("spec.ipFamilyPolicy"), json!(new.ip_family_policy), detail));
        }
    }
}

fn has_address(spec: &Value) -> bool {
    spec.get("type").and_then(Value::as_str) != Some("ExternalName")
}

/// The plural follows the singular for clients that know only that.
pub(super) fn complete_new(spec: &mut Value) {
    let first = crate::util::text(spec, "/clusterIP").to_owned();
    if !first.is_empty() {
        set_default(spec, "clusterIPs", json!([first]));
    }
}

/// What a client left out is as it was, and the plural follows a singular that it changed alone.
pub(super) fn complete_changed(spec: &mut Value, old: &Value) {
    if has_address(spec) && has_address(old) {
        keep(spec, old);
    }
    let text = |spec: &Value| crate::util::text(spec, "/clusterIP").to_owned();
    let (is, was) = (text(spec), text(old));
    let same = spec.get("clusterIPs") == old.get("clusterIPs");
    if is == was {
        if let Some(all) = old.get("clusterIPs") {
            set_default(spec, "clusterIPs", all.clone());
        }
    } else if same && is.is_empty() {
        remove(spec, "clusterIPs");
    } else if same {
        spec["clusterIPs"] = json!([is]);
    }
    release_second(spec, old);
}

/// With the policy `SingleStack` and lists that the client left alone, the second address and family go.
fn release_second(spec: &mut Value, old: &Value) {
    if crate::util::text(spec, "/ipFamilyPolicy") != "SingleStack" {
        return;
    }
    for field in ["clusterIPs", "ipFamilies"] {
        let same = spec.get(field) == old.get(field);
        if let Some(all) = spec.get_mut(field).and_then(Value::as_array_mut).filter(|_| same) {
            all.truncate(1);
        }
    }
}

/// Whether a field says no address.
fn is_empty(value: &Value) -> bool {
    value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty)
}

/// Each field by itself: somebody who has taken one of them out of a manifest that is applied wants no other address.
fn keep(spec: &mut Value, old: &Value) {
    for field in ["clusterIP", "clusterIPs"] {
        if let Some(value) = old.get(field).filter(|_| spec.get(field).is_none_or(is_empty)) {
            spec[field] = value.clone();
        }
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if let Some(value) = old.get(field) {
            set_default(spec, field, value.clone());
        }
    }
    let checked = |spec: &Value| {
        crate::util::text(spec, "/type") == "LoadBalancer" && crate::util::text(spec, "/externalTrafficPolicy") == "Local"
    };
    if checked(spec) && checked(old) && integer(spec, "/healthCheckNodePort").unwrap_or(0) == 0 {
        crate::util::carry_over(spec, old, "healthCheckNodePort");
    }
}
