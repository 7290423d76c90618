//! Kinds of resource.k8s.io, dynamic resource allocation (upstream: `pkg/apis/resource/validation`).
//!
//! What expressions in CEL can cost is not estimated here: it is bounded when the scheduler asks them.

mod allocation;
mod claim;
mod device;
mod device_class;
mod policy;
mod resource_claim;
mod resource_claim_template;
mod resource_slice;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use cel::{Declaration, Type};
use k8s_openapi::api::resource::v1::{DeviceSelector, DeviceToleration, OpaqueDeviceConfiguration};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::Value;

use crate::admissionregistration::expressions;
use crate::rules::{self, text};

const MAX_SELECTORS: usize = 32;
const MAX_EXPRESSION: usize = 10 << 10;
const MAX_PARAMETERS: usize = 10 << 10;
const MAX_DOMAIN_AND_ID: usize = 63 + 1 + 32;
const MAX_ID: usize = 32;
const MAX_CONDITIONS: usize = 4;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Each of a bounded list; a list that is too long is not looked at.
fn each<T>(items: &[T], max: usize, path: &Path, errors: &mut Errors, check: impl Fn(&T, &Path, &mut Errors)) -> bool {
    if items.len() > max {
        errors.push(Error::too_many(path, items.len(), max));
        return false;
    }
    for (index, item) in items.iter().enumerate() {
        check(item, &path.index(index), errors);
    }
    true
}

/// [`each`] of a list in which no two have the same key.
fn each_once<T, K: Eq + Hash + Into<Value> + Clone>(
    items: &[T],
    max: usize,
    path: &Path,
    errors: &mut Errors,
    check: impl Fn(&T, &Path, &mut Errors),
    key: impl Fn(&T) -> K,
) {
    if !each(items, max, path, errors, check) {
        return;
    }
    let mut seen = HashSet::new();
    for (index, key) in items.iter().map(key).enumerate() {
        if !seen.insert(key.clone()) {
            errors.push(Error::duplicate(&path.index(index), key));
        }
    }
}

/// A pool: names of domains, joined by slashes.
fn pool_name(path: &Path, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    if name.len() > 253 {
        errors.push(Error::too_long(path, 253));
    }
    name.split('/').for_each(|part| rules::dns_subdomain(path, part, errors));
}

/// `model` or `driver.example/model`.
fn qualified_name(path: &Path, name: &str, errors: &mut Errors) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => c_identifier(path, id, errors),
        [domain, id] => {
            match domain {
                "" => errors.push(Error::invalid(path, "", "the domain must not be empty")),
                domain => rules::driver_name(path, domain, errors),
            }
            match id {
                "" => errors.push(Error::invalid(path, "", "the name must not be empty")),
                id => c_identifier(path, id, errors),
            }
        }
        _ => errors.push(Error::invalid(path, name, "must not contain more than one slash")),
    }
}

/// `driver.example/model`.
fn fully_qualified_name(path: &Path, name: &str, errors: &mut Errors) {
    qualified_name(path, name, errors);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(Error::invalid(path, name, detail));
    }
}

fn c_identifier(path: &Path, id: &str, errors: &mut Errors) {
    if id.len() > MAX_ID {
        errors.push(Error::too_long(path, MAX_ID));
    }
    errors.invalid_each(path, id, names::c_identifier(id));
}

/// A key in a path; one that is too long is cut in its middle.
fn shown_key(key: &str) -> String {
    if key.len() <= MAX_DOMAIN_AND_ID || !key.is_ascii() {
        return key.to_owned();
    }
    let rest = MAX_DOMAIN_AND_ID - 3;
    format!("{}...{}", &key[..rest.div_ceil(2)], &key[key.len() - rest / 2..])
}

fn selectors(selectors: &[DeviceSelector], path: &Path, errors: &mut Errors) {
    each(selectors, MAX_SELECTORS, path, errors, |selector, path, errors| match &selector.cel {
        None => errors.push(Error::required(&path.child("cel"), "")),
        Some(cel) if cel.expression.len() > MAX_EXPRESSION => {
            errors.push(Error::too_long(&path.child("cel.expression"), MAX_EXPRESSION));
        }
        Some(cel) => selector_expression(&cel.expression, &path.child("cel.expression"), errors),
    });
}

/// A device as selectors see it (`k8s.io/dynamic-resource-allocation/cel`): attributes and capacities by domain and name.
static DEVICE: LazyLock<Arc<Declaration>> = LazyLock::new(|| {
    let plain = Declaration::plain;
    let by_domain = |of: Type| Declaration::map(Declaration::map(plain(of)));
    let fields = [
        ("driver", expressions::text()),
        ("attributes", by_domain(Type::Dyn)),
        ("capacity", by_domain(Type::Opaque("kubernetes.Quantity"))),
        ("allowMultipleAllocations", plain(Type::Bool)),
    ];
    expressions::object("kubernetes.DRADevice", &fields)
});

fn selector_expression(expression: &str, path: &Path, errors: &mut Errors) {
    let found = expressions::check(expression, &[("device", DEVICE.ty())], &[], path, errors);
    // An attribute alone is a condition, too, if it turns out to be one.
    if let Some(other) = found.filter(|found| ![Type::Bool, Type::Dyn].contains(found)) {
        errors.push(Error::invalid(path, expression, format!("must evaluate to bool or the unknown type, not {other}")));
    }
}

fn toleration(toleration: &DeviceToleration, path: &Path, errors: &mut Errors) {
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    if !key.is_empty() {
        rules::qualified_name(&path.child("key"), key, errors);
    }
    match text(&toleration.operator) {
        "Exists" if value.is_empty() => {}
        "Exists" => errors.push(Error::invalid(&path.child("value"), value, "must be empty for operator `Exists`")),
        "Equal" => errors.invalid_each(&path.child("value"), value, names::label_value(value)),
        other => rules::one_of(&path.child("operator"), other, &["Equal", "Exists"], errors),
    }
    let effect = Some(text(&toleration.effect)).filter(|effect| !effect.is_empty());
    rules::supported(&path.child("effect"), effect, EFFECTS, errors);
}

/// Parameters that mean something to the driver only.
fn configuration(opaque: Option<&OpaqueDeviceConfiguration>, path: &Path, errors: &mut Errors) {
    let path = path.child("opaque");
    let Some(opaque) = opaque else { return errors.push(Error::required(&path, "")) };
    rules::driver_name(&path.child("driver"), &opaque.driver, errors);
    raw_object(&path.child("parameters"), &opaque.parameters, MAX_PARAMETERS, errors);
}

fn raw_object(path: &Path, raw: &RawExtension, max: usize, errors: &mut Errors) {
    match &raw.0 {
        Value::Null => errors.push(Error::required(path, "")),
        value if value.to_string().len() > max => errors.push(Error::too_long(path, max)),
        Value::Object(_) => {}
        _ => errors.push(Error::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}

/// Conditions that a device has to meet before its pod starts, and those that say that it never will (KEP-5007).
fn binding_conditions(good: &[String], bad: &[String], path: &Path, errors: &mut Errors) {
    let (good_path, bad_path) = (path.child("bindingConditions"), path.child("bindingFailureConditions"));
    for (conditions, path) in [(good, &good_path), (bad, &bad_path)] {
        each(conditions, MAX_CONDITIONS, path, errors, |name, path, errors| rules::qualified_name(path, name, errors));
    }
    for (conditions, path) in [(good, &good_path), (bad, &bad_path)] {
        let mut seen = HashSet::new();
        for (index, name) in conditions.iter().enumerate().filter(|(_, name)| !seen.insert(name.as_str())) {
            errors.push(Error::duplicate(&path.index(index), name.as_str()));
        }
    }
    let known: HashSet<_> = good.iter().collect();
    for (index, name) in bad.iter().enumerate().filter(|(_, name)| known.contains(name)) {
        let detail = "bindingFailureConditions must not overlap with bindingConditions";
        errors.push(Error::invalid(&bad_path.index(index), name.as_str(), detail));
    }
    match (good.is_empty(), bad.is_empty()) {
        (true, false) => {
            let detail = "bindingConditions are required to use bindingFailureConditions";
            errors.push(Error::invalid(&good_path, Value::Null, detail));
        }
        (false, true) => {
            let detail = "bindingFailureConditions are required to use bindingConditions";
            errors.push(Error::invalid(&bad_path, Value::Null, detail));
        }
        _ => {}
    }
}

/// Of a text that is a UUID: in lower case, with its dashes.
fn uid(path: &Path, uid: &str, errors: &mut Errors) {
    let form = |lengths: &[usize]| {
        let parts: Vec<_> = uid.split('-').collect();
        parts.len() == lengths.len()
            && parts
                .iter()
                .zip(lengths)
                .all(|(part, length)| part.len() == *length && part.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let normal = form(&[8, 4, 4, 4, 12]);
    if !normal && !form(&[32]) {
        let detail = if [32, 36].contains(&uid.len()) {
            "error validating uid: invalid UUID format".to_owned()
        } else {
            format!("error validating uid: invalid UUID length: {}", uid.len())
        };
        errors.push(Error::invalid(path, uid, detail));
    } else if !normal || uid.bytes().any(|b| b.is_ascii_uppercase()) {
        let form = "`xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.push(Error::invalid(path, uid, format!("uid must be in RFC 4122 normalized form, {form}")));
    }
}

/// A device of a pool of a driver, or a share of it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct DeviceId<'a> {
    driver: &'a str,
    pool: &'a str,
    device: &'a str,
    share: &'a str,
}

impl From<DeviceId<'_>> for Value {
    fn from(id: DeviceId<'_>) -> Self {
        let device = format!("{}/{}/{}", id.driver, id.pool, id.device);
        if id.share.is_empty() { device.into() } else { format!("{device}/{}", id.share).into() }
    }
}
