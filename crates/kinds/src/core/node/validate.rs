//! Rules for nodes.

use std::cmp::Ordering;
use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use serde_json::json;

use crate::core::pod::TAINT_EFFECTS;
use crate::rules::resources::resource_amount;
use crate::rules::{self, list, text};

/// Longest name of a feature in bytes.
const MAX_FEATURE: usize = 253;
const FEATURE: &str = "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes";

const NO_CHANGE: &str = "except from \"\" to valid";

/// Taints, features and resources. Upstream reports taints below `metadata`.
pub(crate) fn validate(node: &Node, errors: &mut Errors) {
    let taints = node.spec.as_ref().map(|spec| list(&spec.taints)).unwrap_or_default();
    validate_taints(taints, &Path::new("metadata.taints"), errors);
    let Some(status) = &node.status else { return };
    validate_features(list(&status.declared_features), &Path::new("status.declaredFeatures"), errors);
    for (field, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, amount) in amounts.iter().flatten() {
            resource_amount(&Path::new("status").child(field).child(name), name, amount, errors);
        }
    }
}

/// Names of features, in order and once each (KEP-5328): who looks for one may search.
fn validate_features(features: &[String], path: &Path, errors: &mut Errors) {
    for (index, feature) in features.iter().enumerate() {
        if feature.len() > MAX_FEATURE {
            let detail = format!("invalid feature name {feature:?}: must be no more than {MAX_FEATURE} characters");
            errors.push(Error::invalid(&path.index(index), feature.as_str(), detail));
        } else if !is_feature(feature) {
            errors.push(Error::invalid(
                &path.index(index),
                feature.as_str(),
                format!("invalid feature name {feature:?}: {FEATURE}"),
            ));
        }
        let Some(next) = features.get(index + 1) else { return };
        let path = path.index(index + 1);
        match feature.cmp(next) {
            Ordering::Less => {}
            Ordering::Equal => errors.push(Error::duplicate(&path, next.as_str())),
            Ordering::Greater => errors.push(Error::invalid(&path, next.as_str(), "list must be sorted alphabetically")),
        }
    }
}

/// `MyFeature` or `MyFeature/mySubFeature`.
fn is_feature(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    name.starts_with(|first: char| first.is_ascii_uppercase()) && name.split('/').all(is_word)
}

fn validate_taints(taints: &[Taint], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let (path, value) = (path.index(index), text(&taint.value));
        rules::qualified_name(&path.child("key"), &taint.key, errors);
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            errors.push(Error::invalid(&path.child("value"), value, wrong.join(";")));
        }
        rules::one_of(&path.child("effect"), &taint.effect, TAINT_EFFECTS, errors);
        if !seen.insert((&taint.key, &taint.effect)) {
            let detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(Error { detail, ..Error::duplicate(&path, json!(taint)) });
        }
    }
}

/// Ranges of a new node: at most one of each family.
pub(crate) fn validate_ranges(node: &Node, errors: &mut Errors) {
    let ranges = node.spec.as_ref().map(|spec| list(&spec.pod_cidrs)).unwrap_or_default();
    let path = Path::new("spec.podCIDRs");
    for (index, range) in ranges.iter().enumerate() {
        rules::cidr(&path.index(index), range, errors);
    }
    if ranges.len() < 2 {
        return;
    }
    let families: HashSet<_> = ranges.iter().map(|range| rules::family(range.split('/').next().unwrap_or_default())).collect();
    if families.len() != 2 || ranges.len() > 2 {
        errors.push(Error::invalid(&path, ranges.to_vec(), "may specify no more than one CIDR for each IP family"));
    }
    for index in rules::repeated(ranges) {
        errors.push(Error::duplicate(&path.index(index), ranges[index].as_str()));
    }
}

/// Ranges and the provider's name are given once.
pub(crate) fn validate_update(node: &Node, old: &Node, errors: &mut Errors) {
    let none = NodeSpec::default();
    let (new, was) = (node.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let addresses = node.status.as_ref().map(|status| list(&status.addresses)).unwrap_or_default();
    for index in rules::repeated(addresses.iter().map(|address| (&address.type_, &address.address))) {
        errors.push(Error::duplicate(&Path::new("status.addresses").index(index), json!(addresses[index])));
    }
    if !list(&was.pod_cidrs).is_empty() && new.pod_cidrs != was.pod_cidrs {
        let detail = format!("node updates may not change podCIDR {NO_CHANGE}");
        errors.push(Error::forbidden(&Path::new("spec.podCIDRs"), detail));
    }
    if !text(&was.provider_id).is_empty() && new.provider_id != was.provider_id {
        let detail = format!("node updates may not change providerID {NO_CHANGE}");
        errors.push(Error::forbidden(&Path::new("spec.providerID"), detail));
    }
    if new.external_id != was.external_id {
        errors.push(Error::forbidden(&Path::new("spec.externalID"), "may not be updated"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::Value;

    fn node(object: Value) -> Node {
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn new_nodes() {
        let check = |object: Value, expected: &[&str]| {
            let (node, mut errors) = (node(object), Errors::new());
            validate(&node, &mut errors);
            validate_ranges(&node, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(json!({"spec": {"podCIDRs": ["10.0.0.0/24", "fd00::/64"], "taints": [{"key": "a", "effect": "NoSchedule"}]}}), &[]);
        check(
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b"}, {"key": "c", "effect": "X"}]}}),
            &[
                "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair",
                "metadata.taints[2].effect: Required value",
                "metadata.taints[3].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            ],
        );
        check(
            json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.1/24"]}, "status": {"capacity": {"pods": "1500m"}}}),
            &[
                "status.capacity.pods: Invalid value: \"1500m\": must be an integer",
                "spec.podCIDRs[1]: Invalid value: \"10.0.1.1/24\": must not have bits set beyond the prefix length",
                "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.1/24\"]: may specify no more than one CIDR for each IP family",
            ],
        );
    }

    /// Upstream's `validateNodeDeclaredFeatures`.
    #[test]
    fn declared_features() {
        let check = |features: Value, expected: &[&str]| {
            let (node, mut errors) = (node(json!({"status": {"declaredFeatures": features}})), Errors::new());
            validate(&node, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        let own: Vec<_> = pods::features::FEATURES.iter().map(|feature| feature.name).collect();
        check(json!(own), &[]);
        check(json!(["A", "Aa/b/C1"]), &[]);
        check(json!(["A", "A"]), &["status.declaredFeatures[1]: Duplicate value: \"A\""]);
        check(json!(["B", "A"]), &["status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically"]);
        for wrong in ["a", "", "A/", "A//b", "A/1", "A-b", "1A"] {
            let told = format!("status.declaredFeatures[0]: Invalid value: {wrong:?}: invalid feature name {wrong:?}: {FEATURE}");
            check(json!([wrong]), &[&told]);
        }
        let long = "A".repeat(254);
        let told = format!("invalid feature name {long:?}: must be no more than 253 characters");
        check(json!([long]), &[&format!("status.declaredFeatures[0]: Invalid value: {long:?}: {told}")]);
    }

    #[test]
    fn changed_nodes() {
        let check = |old: Value, new: Value, expected: &str| {
            let mut errors = Errors::new();
            validate_update(&node(json!({"spec": new})), &node(json!({"spec": old})), &mut errors);
            assert_eq!(errors.to_string(), expected);
        };
        check(json!({}), json!({"podCIDRs": ["10.0.0.0/24"], "providerID": "a"}), "");
        check(
            json!({"podCIDRs": ["10.0.0.0/24"]}),
            json!({"podCIDRs": ["10.0.1.0/24"]}),
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
        );
        check(
            json!({"providerID": "a"}),
            json!({}),
            "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
        );
    }
}
