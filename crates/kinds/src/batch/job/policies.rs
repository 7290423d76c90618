//! What a job makes of pods that fail (KEP-3329), and when it has succeeded (KEP-3998).

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};
use serde_json::{Value, json};

use super::indexes;
use crate::rules::{self, list, text};

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_PATTERNS: usize = 20;
const MAX_INDEXES_BYTES: usize = 64 * 1024;

pub(super) fn validate(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    if let Some(policy) = &spec.pod_failure_policy {
        validate_failure(policy, spec, &path.child("podFailurePolicy").child("rules"), errors);
    }
    if let Some(policy) = &spec.success_policy {
        let path = path.child("successPolicy");
        if super::spec::is_indexed(spec) {
            validate_success(policy, spec.completions.unwrap_or(0), &path.child("rules"), errors);
        } else {
            errors.push(Error::invalid(&path, json!(policy), "requires indexed completion mode"));
        }
    }
    let supported: &[&str] = if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    rules::supported(&path.child("podReplacementPolicy"), spec.pod_replacement_policy.as_deref(), supported, errors);
}

fn too_many(path: &Path, count: usize, most: usize, errors: &mut Errors) {
    if count > most {
        errors.push(Error::too_many(path, count, most));
    }
}

/// A list in the form of Go's `%q`.
fn quoted(values: &[&str]) -> String {
    let quoted: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

fn required_one_of(path: &Path, value: &str, supported: &[&str], errors: &mut Errors) {
    if value.is_empty() {
        errors.push(Error::required(path, quoted(supported)));
    } else {
        rules::supported(path, Some(value), supported, errors);
    }
}

fn validate_failure(policy: &PodFailurePolicy, spec: &JobSpec, path: &Path, errors: &mut Errors) {
    too_many(path, policy.rules.len(), MAX_RULES, errors);
    let pod = spec.template.spec.as_ref();
    let containers = pod.into_iter().flat_map(|pod| pod.containers.iter().chain(list(&pod.init_containers)));
    let names: Vec<&str> = containers.map(|container| container.name.as_str()).collect();
    for (index, rule) in policy.rules.iter().enumerate() {
        validate_failure_rule(rule, spec, &names, &path.index(index), errors);
    }
}

fn validate_failure_rule(rule: &PodFailurePolicyRule, spec: &JobSpec, names: &[&str], path: &Path, errors: &mut Errors) {
    let action = path.child("action");
    if rule.action == "FailIndex" {
        if spec.backoff_limit_per_index.is_none() {
            errors.push(Error::invalid(&action, "FailIndex", "requires the backoffLimitPerIndex to be set"));
        }
    } else {
        required_one_of(&action, &rule.action, ACTIONS, errors);
    }
    let patterns = list(&rule.on_pod_conditions);
    if let Some(codes) = &rule.on_exit_codes {
        validate_exit_codes(codes, names, &path.child("onExitCodes"), errors);
    }
    validate_patterns(patterns, &path.child("onPodConditions"), errors);
    let detail = match (&rule.on_exit_codes, patterns) {
        (Some(_), [_, ..]) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (None, []) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(Error { value: None, ..Error::invalid(path, Value::Null, detail) });
}

fn validate_patterns(patterns: &[PodFailurePolicyOnPodConditionsPattern], path: &Path, errors: &mut Errors) {
    too_many(path, patterns.len(), MAX_PATTERNS, errors);
    for (index, pattern) in patterns.iter().enumerate() {
        let path = path.index(index);
        rules::qualified_name(&path.child("type"), &pattern.type_, errors);
        required_one_of(&path.child("status"), text(&pattern.status), STATUSES, errors);
    }
}

fn validate_exit_codes(codes: &PodFailurePolicyOnExitCodesRequirement, names: &[&str], path: &Path, errors: &mut Errors) {
    required_one_of(&path.child("operator"), &codes.operator, OPERATORS, errors);
    if let Some(name) = codes.container_name.as_deref().filter(|name| !names.contains(name)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(Error::invalid(&path.child("containerName"), name, detail));
    }
    let (path, values) = (path.child("values"), &codes.values);
    if values.is_empty() {
        errors.push(Error::invalid(&path, json!(values), "at least one value is required"));
    }
    too_many(&path, values.len(), MAX_EXIT_CODES, errors);
    let mut seen = HashSet::new();
    for (index, code) in values.iter().enumerate() {
        let path = path.index(index);
        if codes.operator == "In" && *code == 0 {
            errors.push(Error::invalid(&path, 0, "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(Error::duplicate(&path, *code));
        }
    }
    if !values.is_sorted() {
        errors.push(Error::invalid(&path, json!(values), "must be ordered"));
    }
}

fn validate_success(policy: &SuccessPolicy, completions: i32, path: &Path, errors: &mut Errors) {
    if policy.rules.is_empty() {
        errors.push(Error::required(path, "at least one rules must be specified when the successPolicy is specified"));
    }
    too_many(path, policy.rules.len(), MAX_RULES, errors);
    for (index, rule) in policy.rules.iter().enumerate() {
        validate_success_rule(rule, completions, &path.index(index), errors);
    }
}

fn validate_success_rule(rule: &SuccessPolicyRule, completions: i32, path: &Path, errors: &mut Errors) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        errors.push(Error::required(path, "at least one of succeededCount or succeededIndexes must be specified"));
    }
    let mut listed = None;
    if let Some(text) = &rule.succeeded_indexes {
        let path = path.child("succeededIndexes");
        if text.len() > MAX_INDEXES_BYTES {
            errors.push(Error::too_long(&path, MAX_INDEXES_BYTES));
        }
        listed = Some(indexes::count(text, completions).unwrap_or_else(|error| {
            errors.push(Error::invalid(&path, text.as_str(), format!("error parsing succeededIndexes: {error}")));
            0
        }));
    }
    let Some(count) = rule.succeeded_count else { return };
    let path = path.child("succeededCount");
    rules::non_negative(&path, count.into(), errors);
    if count > completions {
        let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(Error::invalid(&path, count, detail));
    }
    if let Some(listed) = listed.filter(|listed| i64::from(count) > *listed) {
        let detail =
            format!("must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)");
        errors.push(Error::invalid(&path, count, detail));
    }
}
