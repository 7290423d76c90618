//! Rules for what a job is asked to do, wherever it stands: in a Job or in the template of a CronJob.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::{Selector, validate_label_selector};
use k8s_openapi::api::batch::v1::{JobSpec, JobTemplateSpec};
use serde_json::json;

use super::policies;
use crate::core::pod;
use crate::rules::{self, text};

/// An indexed job keeps the list of its indexes in its status, which must not grow without bound.
const MAX_INDEXED_PARALLELISM: i32 = 100_000;
const MAX_FAILED_INDEXES: i32 = 100_000;
const MANY_COMPLETIONS: i32 = 100_000;
const MAX_WITH_MANY: i32 = 10_000;
const MAX_MANAGER_BYTES: usize = 63;
const INDEXED_ONLY: &str = "requires indexed completion mode";

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn validate(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let counts = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    for (field, count) in counts {
        rules::non_negative(&path.child(field), count.unwrap_or(0), errors);
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.push(Error::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = &spec.managed_by {
        rules::domain_prefixed_path(&path.child("managedBy"), manager, errors);
        if manager.len() > MAX_MANAGER_BYTES {
            errors.push(Error::too_long(&path.child("managedBy"), MAX_MANAGER_BYTES));
        }
    }
    validate_mode(spec, path, errors);
    policies::validate(spec, path, errors);
    pod::validate_template(&spec.template, &path.child("template"), errors);
    validate_restart(spec, &path.child("template.spec.restartPolicy"), errors);
}

fn validate_mode(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    match spec.completion_mode.as_deref() {
        Some("Indexed") => validate_indexed(spec, path, errors),
        None | Some("NonIndexed") => {
            let limits = [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", spec.max_failed_indexes)];
            for (field, limit) in limits.into_iter().filter_map(|(field, limit)| Some((field, limit?))) {
                errors.push(Error::invalid(&path.child(field), limit, INDEXED_ONLY));
            }
        }
        Some(other) => errors.push(Error::not_supported(&path.child("completionMode"), other, &["NonIndexed", "Indexed"])),
    }
}

fn validate_indexed(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let (at_parallelism, at_failed) = (path.child("parallelism"), path.child("maxFailedIndexes"));
    let (parallelism, failed) = (spec.parallelism.unwrap_or(0), spec.max_failed_indexes.unwrap_or(0));
    let completions = spec.completions.unwrap_or(0);
    if spec.completions.is_none() {
        errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    if parallelism > MAX_INDEXED_PARALLELISM {
        let detail = format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
        errors.push(Error::invalid(&at_parallelism, parallelism, detail));
    }
    if spec.completions.is_some() && failed > completions {
        errors.push(Error::invalid(&at_failed, failed, "must be less than or equal to completions"));
    }
    if failed > MAX_FAILED_INDEXES {
        errors.push(Error::invalid(&at_failed, failed, format!("must be less than or equal to {MAX_FAILED_INDEXES}")));
    }
    if completions <= MANY_COMPLETIONS || spec.backoff_limit_per_index.is_none() {
        return;
    }
    if spec.max_failed_indexes.is_none() {
        errors.push(Error::required(&at_failed, format!("must be specified when completions is above {MANY_COMPLETIONS}")));
    }
    let detail = format!(
        "must be less than or equal to {MAX_WITH_MANY} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
    );
    for (path, count) in [(at_parallelism, parallelism), (at_failed, failed)] {
        if count > MAX_WITH_MANY {
            errors.push(Error::invalid(&path, count, detail.as_str()));
        }
    }
}

/// Pods of a job end, so they may not be restarted always, which is what a pod that says nothing gets.
fn validate_restart(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let policy = spec.template.spec.as_ref().map(|spec| text(&spec.restart_policy)).unwrap_or_default();
    match policy {
        "" | "Always" => errors.push(Error::required(path, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(Error::invalid(path, policy, detail));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(Error::not_supported(path, other, &["OnFailure", "Never"])),
    }
}

/// Whether written or generated, the selector matches the pods of the template.
pub(super) fn validate_selector(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    match &spec.selector {
        None => errors.push(Error::required(&path.child("selector"), "")),
        Some(selector) => validate_label_selector(selector, &path.child("selector"), errors),
    }
    let labels = super::labels(&spec.template);
    if Selector::from_label_selector(spec.selector.as_ref()).is_ok_and(|selector| !selector.matches(&labels)) {
        let path = path.child("template.metadata.labels");
        errors.push(Error::invalid(&path, json!(labels), "`selector` does not match template `labels`"));
    }
}

/// A job that is to be made: its selector is generated then.
pub(in crate::batch) fn validate_template_spec(template: &JobTemplateSpec, path: &Path, errors: &mut Errors) {
    let none = JobSpec::default();
    let (spec, path) = (template.spec.as_ref().unwrap_or(&none), path.child("spec"));
    validate(spec, &path, errors);
    if let Some(selector) = &spec.selector {
        errors.push(Error::invalid(&path.child("selector"), json!(selector), "`selector` will be auto-generated"));
    }
    if spec.manual_selector == Some(true) {
        errors.push(Error::not_supported(&path.child("manualSelector"), true, &["nil", "false"]));
    }
}
