//! Affinity to nodes and to other pods.

use std::collections::{HashMap, HashSet};

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use apimachinery::names;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::rules::{self, list};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_OPERATOR: &str = "not a valid selector operator";

pub(super) fn validate(affinity: &Affinity, path: &Path, errors: &mut Errors) {
    if let Some(node) = &affinity.node_affinity {
        validate_node(node, &path.child("nodeAffinity"), errors);
    }
    if let Some(pods) = &affinity.pod_affinity {
        let (required, preferred) = (
            &pods.required_during_scheduling_ignored_during_execution,
            &pods.preferred_during_scheduling_ignored_during_execution,
        );
        validate_pods(list(required), list(preferred), &path.child("podAffinity"), errors);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let (required, preferred) = (
            &pods.required_during_scheduling_ignored_during_execution,
            &pods.preferred_during_scheduling_ignored_during_execution,
        );
        validate_pods(list(required), list(preferred), &path.child("podAntiAffinity"), errors);
    }
}

fn validate_node(affinity: &NodeAffinity, path: &Path, errors: &mut Errors) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        node_selector(selector, true, &path.child(REQUIRED), errors);
    }
    for (index, term) in list(&affinity.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        validate_weight(term.weight, &path, errors);
        validate_node_term(&term.preference, false, &path.child("preference"), errors);
    }
}

/// Nodes that one of several terms selects. With `strict`, values are such that labels can have.
pub(crate) fn node_selector(selector: &NodeSelector, strict: bool, path: &Path, errors: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(Error::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        validate_node_term(term, strict, &path.index(index), errors);
    }
}

fn validate_weight(weight: i32, path: &Path, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.push(Error::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// Preferences may name values that no label can have: they never match, and never did harm.
fn validate_node_term(term: &NodeSelectorTerm, strict: bool, path: &Path, errors: &mut Errors) {
    for (index, requirement) in list(&term.match_expressions).iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        validate_node_requirement(requirement, &path, errors);
        for (value, text) in list(&requirement.values).iter().enumerate().filter(|_| strict) {
            errors.invalid_each(&path.child("values").index(value), text, names::label_value(text));
        }
    }
    for (index, requirement) in list(&term.match_fields).iter().enumerate() {
        validate_node_field(requirement, &path.child("matchFields").index(index), errors);
    }
}

fn validate_node_requirement(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = list(&requirement.values).len();
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values == 0 => {
            errors.push(Error::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if values > 0 => {
            errors.push(Error::forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "Gt" | "Lt" if values != 1 => {
            errors.push(Error::required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, NO_OPERATOR)),
    }
    rules::qualified_name(&path.child("key"), &requirement.key, errors);
}

fn validate_node_field(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = list(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(Error::required(&path.child("values"), detail));
        }
        "In" | "NotIn" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, NO_OPERATOR)),
    }
    if requirement.key != "metadata.name" {
        return errors.push(Error::invalid(&path.child("key"), requirement.key.as_str(), "not a valid field selector key"));
    }
    for (index, value) in values.iter().enumerate() {
        rules::dns_subdomain(&path.child("values").index(index), value, errors);
    }
}

fn validate_pods(required: &[PodAffinityTerm], preferred: &[WeightedPodAffinityTerm], path: &Path, errors: &mut Errors) {
    for (index, term) in required.iter().enumerate() {
        validate_pod_term(term, &path.child(REQUIRED).index(index), errors);
    }
    for (index, term) in preferred.iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        validate_weight(term.weight, &path, errors);
        validate_pod_term(&term.pod_affinity_term, &path.child("podAffinityTerm"), errors);
    }
}

fn validate_pod_term(term: &PodAffinityTerm, path: &Path, errors: &mut Errors) {
    for (field, selector) in [("labelSelector", &term.label_selector), ("namespaceSelector", &term.namespace_selector)] {
        if let Some(selector) = selector {
            validate_label_selector(selector, &path.child(field), errors);
        }
    }
    for namespace in list(&term.namespaces) {
        rules::dns_label(&path.child("namespace"), namespace, errors);
    }
    validate_keys(term, path, errors);
    if term.topology_key.is_empty() {
        errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
    }
    rules::qualified_name(&path.child("topologyKey"), &term.topology_key, errors);
}

/// Keys whose values are taken from the pod itself (KEP-3633).
fn validate_keys(term: &PodAffinityTerm, path: &Path, errors: &mut Errors) {
    let (same, different) = (list(&term.match_label_keys), list(&term.mismatch_label_keys));
    for (field, keys) in [("matchLabelKeys", same), ("mismatchLabelKeys", different)] {
        let path = path.child(field);
        if !keys.is_empty() && term.label_selector.is_none() {
            errors.push(Error::forbidden(&path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            rules::qualified_name(&path.index(index), key, errors);
        }
    }
    if let Some(selector) = &term.label_selector {
        selected_twice(selector, same, path, errors);
    }
    let different: HashSet<&String> = different.iter().collect();
    for (index, key) in same.iter().enumerate().filter(|(_, key)| different.contains(key)) {
        let path = path.child("matchLabelKeys").index(index);
        errors.push(Error::invalid(&path, key.as_str(), "exists in both matchLabelKeys and mismatchLabelKeys"));
    }
}

/// The selector has got one expression for each key already; a second mention is the author's.
pub(super) fn selected_twice(selector: &LabelSelector, keys: &[String], path: &Path, errors: &mut Errors) {
    let mut mentioned: HashSet<&str> = selector.match_labels.iter().flatten().map(|(key, _)| key.as_str()).collect();
    // From the end, so that the first mention of a key counts.
    let positions: HashMap<_, _> = keys.iter().enumerate().rev().map(|(index, key)| (key.as_str(), index)).collect();
    for key in list(&selector.match_expressions).iter().map(|expression| expression.key.as_str()) {
        let twice = !mentioned.insert(key);
        if let Some(index) = positions.get(key).copied().filter(|_| twice) {
            errors.push(Error::invalid(&path.index(index), key, "exists in both matchLabelKeys and labelSelector"));
        }
    }
}
