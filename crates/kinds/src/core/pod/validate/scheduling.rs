//! Gates and tolerations.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{PodReadinessGate, PodSchedulingGate, Toleration};

use crate::rules::{self, text};

pub(crate) const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn readiness_gates(gates: &[PodReadinessGate], path: &Path, errors: &mut Errors) {
    for (index, gate) in gates.iter().enumerate() {
        rules::qualified_name(&path.index(index).child("conditionType"), &gate.condition_type, errors);
    }
}

pub(super) fn gates(gates: &[PodSchedulingGate], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, gate) in gates.iter().enumerate() {
        rules::qualified_name(&path.index(index), &gate.name, errors);
        if !seen.insert(gate.name.as_str()) {
            errors.push(Error::duplicate(&path.index(index), gate.name.as_str()));
        }
    }
}

/// Which taints a pod bears.
pub fn tolerations(tolerations: &[Toleration], path: &Path, errors: &mut Errors) {
    for (index, toleration) in tolerations.iter().enumerate() {
        validate_toleration(toleration, &path.index(index), errors);
    }
}

fn validate_toleration(toleration: &Toleration, path: &Path, errors: &mut Errors) {
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    if !key.is_empty() {
        rules::qualified_name(&path.child("key"), key, errors);
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(Error::invalid(&path.child("operator"), operator, detail));
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(Error::invalid(&path.child("effect"), effect, detail));
    }
    match operator {
        "" | "Equal" => {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                errors.push(Error::invalid(&path.child("operator"), value, wrong.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(Error::invalid(&path.child("operator"), value, detail));
        }
        _ => rules::supported(&path.child("operator"), Some(operator), &["Equal", "Exists"], errors),
    }
    if !effect.is_empty() {
        rules::supported(&path.child("effect"), Some(effect), TAINT_EFFECTS, errors);
    }
}
