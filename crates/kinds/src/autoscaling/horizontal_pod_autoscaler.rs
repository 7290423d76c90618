//! HorizontalPodAutoscaler (autoscaling/v2, which is the stored form).

mod columns;
mod metrics;
mod v1;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::gvk::GroupVersion;
use apimachinery::names;
use apimachinery::quantity::Quantity;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
};
use serde_json::{Value, json};

pub(super) use v1::{from_v1, to_v1};

use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::resources::amount;
use crate::rules::{self, list, text};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, set_default};

/// An hour: longest time over which recommendations are looked back at.
const MAX_STABILIZATION_SECONDS: i32 = 3600;
/// Half an hour: longest time that a scaling policy is about.
const MAX_PERIOD_SECONDS: i32 = 1800;
/// Percentage of the requested processor time that is aimed at when nothing is said.
const DEFAULT_UTILIZATION: i32 = 80;

impl Kind for HorizontalPodAutoscaler {
    const DEF: KindDef =
        KindDef::new("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler")
            .short(&["hpa"])
            .in_all()
            .subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        v1::drop_annotations(object);
        let spec = child_object(object, "spec");
        set_default(spec, "minReplicas", 1);
        if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            spec["metrics"] = json!([default_metric()]);
        }
        if let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) {
            let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]});
            let down = json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
            for (field, rules) in [("scaleUp", up), ("scaleDown", down)] {
                let own = child_object(behavior, field);
                for (key, value) in rules.as_object().into_iter().flatten() {
                    set_default(own, key, value.clone());
                }
            }
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"desiredReplicas": 0, "currentMetrics": null});
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate(self, None, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        validate(self, Some(old), errors);
    }

    fn validate_sub(&self, sub: &str, _old: &Self, errors: &mut Errors) {
        let Some(status) = self.status.as_ref().filter(|_| sub == "status") else { return };
        let path = Path::new("status");
        rules::non_negative(&path.child("currentReplicas"), status.current_replicas.unwrap_or(0).into(), errors);
        rules::non_negative(&path.child("desiredReplicas"), status.desired_replicas.into(), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        columns::COLUMNS
    }
}

fn default_metric() -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": DEFAULT_UTILIZATION});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// What the `apiVersion` of a reference has to be.
#[derive(Clone, Copy)]
enum Version {
    /// Anything: it was there before there was a rule.
    Any,
    /// A group and a version, or nothing.
    Readable,
    /// One with a group.
    Grouped,
}

impl Version {
    /// Of what is scaled. Of the legacy group, only ReplicationControllers can be.
    fn of_target(new: &CrossVersionObjectReference, old: Option<&CrossVersionObjectReference>) -> Self {
        match old {
            Some(old) if text(&old.api_version) == text(&new.api_version) && old.kind == new.kind => Self::Any,
            _ if new.kind == "ReplicationController" => Self::Readable,
            _ => Self::Grouped,
        }
    }

    fn problem(self, version: &str) -> Option<String> {
        match (self, GroupVersion::parse(version)) {
            (Self::Any, _) => None,
            (_, Err(error)) => Some(error.to_string()),
            (Self::Grouped, Ok(version)) if version.group.is_empty() => Some("apiVersion must specify API group".to_owned()),
            (_, Ok(_)) => None,
        }
    }
}

/// An object that was stored before a rule existed may keep breaking it: a `minReplicas` of zero, and any `apiVersion` of its target.
fn validate(scaler: &HorizontalPodAutoscaler, old: Option<&HorizontalPodAutoscaler>, errors: &mut Errors) {
    let (spec, path) = (&scaler.spec, Path::new("spec"));
    let least = i32::from(old.is_none_or(|old| old.spec.min_replicas != Some(0)));
    if let Some(min) = spec.min_replicas.filter(|min| *min < least) {
        let detail = format!("must be greater than or equal to {least}");
        errors.push(Error::invalid(&path.child("minReplicas"), min, detail));
    }
    let (at, max) = (path.child("maxReplicas"), spec.max_replicas);
    if max < 1 {
        errors.push(Error::invalid(&at, max, "must be greater than 0"));
    }
    if spec.min_replicas.is_some_and(|min| max < min) {
        errors.push(Error::invalid(&at, max, "must be greater than or equal to `minReplicas`"));
    }
    let target = &spec.scale_target_ref;
    let version = Version::of_target(target, old.map(|old| &old.spec.scale_target_ref));
    validate_reference(target, version, &path.child("scaleTargetRef"), errors);
    metrics::validate(spec, old.map(|old| &old.spec), &path.child("metrics"), errors);
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                validate_rules(rules, &path.child(field), errors);
            }
        }
    }
}

fn validate_reference(reference: &CrossVersionObjectReference, version: Version, path: &Path, errors: &mut Errors) {
    for (field, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        let path = path.child(field);
        rules::required(&path, value, errors);
        errors.invalid_each(&path, value, names::path_segment_name(value));
    }
    let given = text(&reference.api_version);
    errors.invalid_each(&path.child("apiVersion"), given, version.problem(given).into_iter().collect());
}

fn validate_rules(rules: &HPAScalingRules, path: &Path, errors: &mut Errors) {
    if let Some(seconds) = rules.stabilization_window_seconds {
        let path = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.push(Error::invalid(&path, seconds, "must be greater than or equal to zero"));
        }
        if seconds > MAX_STABILIZATION_SECONDS {
            let detail = format!("must be less than or equal to {MAX_STABILIZATION_SECONDS}");
            errors.push(Error::invalid(&path, seconds, detail));
        }
    }
    rules::supported(&path.child("selectPolicy"), rules.select_policy.as_deref(), &["Disabled", "Max", "Min"], errors);
    let (at, policies) = (path.child("policies"), list(&rules.policies));
    if policies.is_empty() {
        errors.push(Error::required(&at, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        validate_policy(policy, &at.index(index), errors);
    }
    if let Some(tolerance) = rules.tolerance.as_ref().filter(|tolerance| amount(tolerance) < Quantity::ZERO) {
        errors.push(Error::invalid(&path.child("tolerance"), tolerance.0.as_str(), rules::NEGATIVE));
    }
}

fn validate_policy(policy: &HPAScalingPolicy, path: &Path, errors: &mut Errors) {
    rules::supported(&path.child("type"), Some(&policy.type_), &["Percent", "Pods"], errors);
    for (field, value) in [("value", policy.value), ("periodSeconds", policy.period_seconds)] {
        if value <= 0 {
            errors.push(Error::invalid(&path.child(field), value, rules::NOT_POSITIVE));
        }
    }
    if policy.period_seconds > MAX_PERIOD_SECONDS {
        let detail = format!("must be less than or equal to {MAX_PERIOD_SECONDS}");
        errors.push(Error::invalid(&path.child("periodSeconds"), policy.period_seconds, detail));
    }
}

#[cfg(test)]
mod tests;
