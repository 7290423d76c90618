//! PodDisruptionBudget: how many pods of a set may be disturbed at once.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, UnqualifiedFinalizers};
use crate::rules::{self, int_or_percent, list};
use crate::sub::Sub;
use crate::typed::Kind;

impl Kind for PodDisruptionBudget {
    const DEF: KindDef = KindDef::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget")
        .short(&["pdb"])
        .generation()
        .versioned()
        .unqualified_finalizers(UnqualifiedFinalizers::Kept)
        .subresources(&[Sub::STATUS]);

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    }

    fn validate(&self, errors: &mut Errors) {
        if let Some(spec) = &self.spec {
            validate(spec, &Path::new("spec"), errors);
        }
    }

    fn validate_sub(&self, sub: &str, _old: &Self, errors: &mut Errors) {
        if let Some(status) = self.status.as_ref().filter(|_| sub == "status") {
            validate_status(status, &Path::new("status"), errors);
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Min Available", "The minimum number of pods that must be available.", |budget, _| {
                    bound(budget.spec.as_ref().and_then(|spec| spec.min_available.as_ref()))
                }),
                Column::new("Max Unavailable", "The maximum number of pods that may be unavailable.", |budget, _| {
                    bound(budget.spec.as_ref().and_then(|spec| spec.max_unavailable.as_ref()))
                }),
                Column::integer(
                    "Allowed Disruptions",
                    "Calculated number of pods that may be disrupted at this time.",
                    |budget, _| budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0).into(),
                ),
            ]
        }
    }
}

fn bound(value: Option<&IntOrString>) -> Value {
    match value {
        None => "N/A".into(),
        Some(IntOrString::Int(count)) => count.to_string().into(),
        Some(IntOrString::String(text)) => text.as_str().into(),
    }
}

fn validate(spec: &PodDisruptionBudgetSpec, path: &Path, errors: &mut Errors) {
    let bounds = [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)];
    if bounds.iter().all(|(_, bound)| bound.is_some()) {
        errors.push(Error::invalid(path, json!(spec), "minAvailable and maxUnavailable cannot be both set"));
    }
    for (field, bound) in bounds.into_iter().filter_map(|(field, bound)| Some((field, bound.as_ref()?))) {
        int_or_percent::positive(&path.child(field), bound, errors);
        int_or_percent::at_most_all(&path.child(field), bound, errors);
    }
    if let Some(selector) = &spec.selector {
        validate_label_selector(selector, &path.child("selector"), errors);
    }
    let policy = spec.unhealthy_pod_eviction_policy.as_deref();
    rules::supported(&path.child("unhealthyPodEvictionPolicy"), policy, &["AlwaysAllow", "IfHealthyBudget"], errors);
}

fn validate_status(status: &PodDisruptionBudgetStatus, path: &Path, errors: &mut Errors) {
    rules::conditions(&path.child("conditions"), list(&status.conditions), errors);
    let counts = [
        ("disruptionsAllowed", status.disruptions_allowed),
        ("currentHealthy", status.current_healthy),
        ("desiredHealthy", status.desired_healthy),
        ("expectedPods", status.expected_pods),
    ];
    for (field, count) in counts {
        rules::non_negative(&path.child(field), count.unwrap_or(0).into(), errors);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        serde_json::from_value::<PodDisruptionBudget>(json!({"spec": spec})).unwrap().validate(&mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{spec}");
    }

    #[test]
    fn bounds() {
        for good in ["0%", "1%", "100%"] {
            check(json!({"minAvailable": good}), &[]);
        }
        check(json!({"maxUnavailable": 0, "selector": {}, "unhealthyPodEvictionPolicy": "AlwaysAllow"}), &[]);
        check(json!({"minAvailable": -1}), &["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]);
        check(
            json!({"maxUnavailable": "101%"}),
            &["spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
        );
        let percent = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
        check(json!({"minAvailable": "1.1"}), &[&format!("spec.minAvailable: Invalid value: \"1.1\": {percent}")]);
        check(
            json!({"minAvailable": 1, "maxUnavailable": 1}),
            &[
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            ],
        );
    }

    #[test]
    fn selectors_and_policies() {
        let selector = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        check(
            json!({"selector": selector, "unhealthyPodEvictionPolicy": "Invalid"}),
            &[
                "spec.selector.matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Invalid\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ],
        );
    }

    #[test]
    fn statuses() {
        let of = |status: Value| serde_json::from_value::<PodDisruptionBudget>(json!({"status": status})).unwrap();
        let mut errors = Errors::new();
        of(json!({"disruptionsAllowed": -1, "expectedPods": 1})).validate_sub("status", &of(json!({})), &mut errors);
        assert_eq!(errors.to_string(), "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0");
    }
}
