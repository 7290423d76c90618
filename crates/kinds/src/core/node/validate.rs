//! Rules for nodes.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use serde_json::json;

use crate::core::pod::TAINT_EFFECTS;
use crate::rules::resources::resource_amount;
use crate::rules::{self, list, text};

const NO_CHANGE: &str = "except from \"\" to valid";

/// Taints and resources. Upstream reports taints below `metadata`.
pub(crate) fn validate(node: &Node, errors: &mut Errors) {
    let taints = node.spec.as_ref().map(|spec| list(&spec.taints)).unwrap_or_default();
    validate_taints(taints, &Path::new("metadata.taints"), errors);
    let Some(status) = &node.status else { return };
    for (field, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, amount) in amounts.iter().flatten() {
            resource_amount(&Path::new("status").child(field).child(name), name, amount, errors);
        }
    }
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
