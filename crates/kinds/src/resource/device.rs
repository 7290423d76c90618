//! Rules for one device of a slice.

use std::collections::BTreeMap;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::resource::v1::{Counter, Device, DeviceAttribute, DeviceCounterConsumption, DeviceTaint};
use serde_json::{Value, json};

use super::{EFFECTS, binding_conditions, each, each_once, policy, qualified_name, shown_key};
use crate::core::pod::node_selector;
use crate::rules::{self, list, text};

const MAX_ENTRIES: usize = 32;
const MAX_VALUES: usize = 48;
const MAX_VALUE: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_COUNTERS: usize = 32;
const NODES: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
const NO_NODES: &str = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

/// Whether there may be fewer of these in a slice.
pub(super) fn is_large(device: &Device) -> bool {
    let lists =
        |one: &DeviceAttribute| one.bools.is_some() || one.ints.is_some() || one.strings.is_some() || one.versions.is_some();
    !list(&device.taints).is_empty()
        || !list(&device.consumes_counters).is_empty()
        || device.attributes.iter().flatten().any(|(_, attribute)| lists(attribute))
}

/// `each_has_nodes`: the slice leaves it to its devices where they are.
pub(super) fn validate(device: &Device, each_has_nodes: bool, path: &Path, errors: &mut Errors) {
    rules::dns_label(&path.child("name"), &device.name, errors);
    validate_sizes(device, path, errors);
    let at = path.child("attributes");
    for (name, attribute) in device.attributes.iter().flatten() {
        qualified_name(&at, name, errors);
        validate_attribute(attribute, &at.key(&shown_key(name)), errors);
    }
    let (at, shared) = (path.child("capacity"), device.allow_multiple_allocations == Some(true));
    for (name, capacity) in device.capacity.iter().flatten() {
        qualified_name(&at, name, errors);
        let path = at.key(&shown_key(name)).child("requestPolicy");
        match &capacity.request_policy {
            Some(policy) if shared => policy::validate(&capacity.value, policy, &path, errors),
            Some(_) => errors.push(Error::forbidden(&path, "allowMultipleAllocations must be true")),
            None => {}
        }
    }
    each(list(&device.taints), MAX_TAINTS, &path.child("taints"), errors, validate_taint);
    let check = |one: &DeviceCounterConsumption, path: &Path, errors: &mut Errors| {
        counters(&path.child("counterSet"), &one.counter_set, &path.child("counters"), &one.counters, errors);
    };
    let (used, at) = (list(&device.consumes_counters), path.child("consumesCounters"));
    each_once(used, MAX_CONSUMPTIONS, &at, errors, check, |one| one.counter_set.clone());
    validate_nodes(device, each_has_nodes, path, errors);
    binding_conditions(list(&device.binding_conditions), list(&device.binding_failure_conditions), path, errors);
}

fn validate_sizes(device: &Device, path: &Path, errors: &mut Errors) {
    let entries = device.attributes.as_ref().map_or(0, BTreeMap::len) + device.capacity.as_ref().map_or(0, BTreeMap::len);
    if entries > MAX_ENTRIES {
        let detail = format!("the total number of attributes and capacities must not exceed {MAX_ENTRIES}");
        errors.push(Error::invalid(path, entries, detail));
    }
    let values: usize = device.attributes.iter().flatten().map(|(_, attribute)| list_length(attribute).max(1)).sum();
    if values > MAX_VALUES {
        let detail = format!("the total number of attribute values must not exceed {MAX_VALUES}");
        errors.push(Error::invalid(path, values, detail));
    }
}

fn list_length(one: &DeviceAttribute) -> usize {
    list(&one.bools).len() + list(&one.ints).len() + list(&one.strings).len() + list(&one.versions).len()
}

/// A name of counters, and the counters.
pub(super) fn counters(name_path: &Path, name: &str, path: &Path, counters: &BTreeMap<String, Counter>, errors: &mut Errors) {
    match name {
        "" => errors.push(Error::required(name_path, "")),
        name => rules::dns_label(name_path, name, errors),
    }
    match counters.len() {
        0 => errors.push(Error::required(path, "")),
        count if count > MAX_COUNTERS => errors.push(Error::too_many(path, count, MAX_COUNTERS)),
        _ => counters.keys().for_each(|name| rules::dns_label(path, name, errors)),
    }
}

/// One value of one type.
fn validate_attribute(attribute: &DeviceAttribute, path: &Path, errors: &mut Errors) {
    if let Some(value) = &attribute.string {
        string(&path.child("string"), value, errors);
    }
    if let Some(value) = &attribute.version {
        version(&path.child("version"), value, errors);
    }
    let lists = [
        ("bools", attribute.bools.as_ref().map(Vec::len)),
        ("ints", attribute.ints.as_ref().map(Vec::len)),
        ("strings", attribute.strings.as_ref().map(Vec::len)),
        ("versions", attribute.versions.as_ref().map(Vec::len)),
    ];
    for (field, _) in lists.iter().filter(|(_, length)| *length == Some(0)) {
        errors.push(Error::invalid(&path.child(field), json!([]), "must not be empty if specified"));
    }
    for (index, value) in list(&attribute.strings).iter().enumerate() {
        string(&path.child("strings").index(index), value, errors);
    }
    for (index, value) in list(&attribute.versions).iter().enumerate() {
        version(&path.child("versions").index(index), value, errors);
    }
    let single = [attribute.bool.is_some(), attribute.int.is_some(), attribute.string.is_some(), attribute.version.is_some()];
    let set = single.iter().filter(|set| **set).count() + lists.iter().filter(|(_, length)| length.is_some()).count();
    if set != 1 {
        let value = if set == 0 { json!("") } else { json!(attribute) };
        errors.push(Error::invalid(path, value, "exactly one value must be specified"));
    }
}

fn string(path: &Path, value: &str, errors: &mut Errors) {
    if value.len() > MAX_VALUE {
        errors.push(Error::too_long(path, MAX_VALUE));
    }
}

fn version(path: &Path, value: &str, errors: &mut Errors) {
    if !is_semantic_version(value) {
        errors.push(Error::invalid(path, value, "must be a string compatible with semver.org spec 2.0.0"));
    }
    string(path, value, errors);
}

/// `1.2.3-rc.1+build.5` (<https://semver.org>).
fn is_semantic_version(value: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let number =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    let (value, build) = value.split_once('+').map_or((value, None), |(value, build)| (value, Some(build)));
    let (core, pre) = value.split_once('-').map_or((value, None), |(core, pre)| (core, Some(pre)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| {
            pre.split('.').all(|part| word(part) && (number(part) || !part.bytes().all(|b| b.is_ascii_digit())))
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

fn validate_taint(taint: &DeviceTaint, path: &Path, errors: &mut Errors) {
    rules::qualified_name(&path.child("key"), &taint.key, errors);
    let value = text(&taint.value);
    errors.invalid_each(&path.child("value"), value, names::label_value(value));
    rules::one_of(&path.child("effect"), &taint.effect, EFFECTS, errors);
}

fn validate_nodes(device: &Device, each_has_nodes: bool, path: &Path, errors: &mut Errors) {
    if !each_has_nodes {
        if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
            errors.push(Error::invalid(path, Value::Null, NO_NODES));
        }
        return;
    }
    let mut set = Vec::new();
    match device.node_name.as_deref() {
        Some("") => errors.push(Error::invalid(&path.child("nodeName"), "", "must not be empty")),
        Some(name) => {
            set.push("`nodeName`");
            rules::dns_subdomain(&path.child("nodeName"), name, errors);
        }
        None => {}
    }
    if let Some(selector) = &device.node_selector {
        set.push("`nodeSelector`");
        node_selector(selector, true, &path.child("nodeSelector"), errors);
    }
    match device.all_nodes {
        Some(true) => set.push("`allNodes`"),
        Some(false) => {
            errors.push(Error::invalid(&path.child("allNodes"), false, "must be either unset or set to true"));
        }
        None => {}
    }
    match set.len() {
        0 => errors.push(Error::required(path, NODES)),
        1 => {}
        _ => errors.push(Error::invalid(path, format!("{{{}}}", set.join(", ")), NODES)),
    }
}
