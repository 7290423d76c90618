//! Topology spread constraints (KEP-895, KEP-3022, KEP-3094, KEP-3243).

use std::collections::HashMap;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::affinity::selected_twice;
use crate::rules::{self, NOT_POSITIVE, list};

pub(super) fn validate(constraints: &[TopologySpreadConstraint], path: &Path, errors: &mut Errors) {
    let key = |one: &TopologySpreadConstraint| (one.topology_key.clone(), one.when_unsatisfiable.clone());
    let last: HashMap<_, _> = constraints.iter().enumerate().map(|(index, constraint)| (key(constraint), index)).collect();
    for (index, constraint) in constraints.iter().enumerate() {
        let (path, action) = (path.index(index), constraint.when_unsatisfiable.as_str());
        if constraint.max_skew <= 0 {
            errors.push(Error::invalid(&path.child("maxSkew"), constraint.max_skew, NOT_POSITIVE));
        }
        if constraint.topology_key.is_empty() {
            errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
        }
        rules::supported(&path.child("whenUnsatisfiable"), Some(action), &["DoNotSchedule", "ScheduleAnyway"], errors);
        if last.get(&key(constraint)).is_some_and(|last| *last > index) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(Error::duplicate(&path, format!("{{{}, {action}}}", constraint.topology_key)));
        }
        validate_min_domains(constraint, &path.child("minDomains"), errors);
        for (field, policy) in
            [("nodeAffinityPolicy", &constraint.node_affinity_policy), ("nodeTaintsPolicy", &constraint.node_taints_policy)]
        {
            rules::supported(&path.child(field), policy.as_deref(), &["Honor", "Ignore"], errors);
        }
        validate_keys(constraint, &path.child("matchLabelKeys"), errors);
        if let Some(selector) = &constraint.label_selector {
            validate_label_selector(selector, &path.child("labelSelector"), errors);
        }
    }
}

fn validate_min_domains(constraint: &TopologySpreadConstraint, path: &Path, errors: &mut Errors) {
    let Some(domains) = constraint.min_domains else { return };
    if domains <= 0 {
        errors.push(Error::invalid(path, domains, NOT_POSITIVE));
    }
    let action = constraint.when_unsatisfiable.as_str();
    if action != "DoNotSchedule" {
        let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.push(Error::invalid(path, domains, detail));
    }
}

fn validate_keys(constraint: &TopologySpreadConstraint, path: &Path, errors: &mut Errors) {
    let keys = list(&constraint.match_label_keys);
    if !keys.is_empty() && constraint.label_selector.is_none() {
        errors.push(Error::forbidden(path, "must not be specified when labelSelector is not set"));
    }
    for (index, key) in keys.iter().enumerate() {
        rules::qualified_name(&path.index(index), key, errors);
    }
    if let Some(selector) = &constraint.label_selector {
        selected_twice(selector, keys, path, errors);
    }
}
