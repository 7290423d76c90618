//! Rules for the status of a job. They are strict since other controllers than the built-in one may keep it (KEP-4368). A rule about
//! a part of the status holds where that part changes, so that a status that was wrong before can still be put right.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::meta::IMMUTABLE;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use serde_json::{Value, json};

use super::{indexes, spec};
use crate::rules::{self, list, text};

/// Whether the job has that condition.
pub(super) fn is_true(job: &Job, condition: &str) -> bool {
    let conditions = job.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
    conditions.iter().any(|other| other.type_ == condition && other.status == "True")
}

/// A job, its status and its conditions before and after the change.
struct Change<'a> {
    new: &'a Job,
    old: &'a Job,
    spec: &'a JobSpec,
    status: &'a JobStatus,
    before: &'a JobStatus,
    path: Path,
}

impl Change<'_> {
    fn is(&self, condition: &str) -> bool {
        is_true(self.new, condition)
    }

    fn was(&self, condition: &str) -> bool {
        is_true(self.old, condition)
    }

    fn turned(&self, condition: &str) -> bool {
        self.is(condition) != self.was(condition)
    }

    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn ended(&self) -> bool {
        self.is_finished() != (self.was("Complete") || self.was("Failed"))
    }

    fn changed<T: PartialEq>(&self, part: fn(&JobStatus) -> &T) -> bool {
        part(self.status) != part(self.before)
    }

    fn conditions(&self, wrong: bool, detail: impl Into<String>, errors: &mut Errors) {
        if wrong {
            let path = self.path.child("conditions");
            errors.push(Error { value: None, ..Error::invalid(&path, Value::Null, detail) });
        }
    }

    fn invalid(&self, wrong: bool, field: &str, value: impl Into<Value>, detail: &str, errors: &mut Errors) {
        if wrong {
            errors.push(Error::invalid(&self.path.child(field), value, detail));
        }
    }

    fn required(&self, missing: bool, field: &str, detail: &str, errors: &mut Errors) {
        if missing {
            errors.push(Error::required(&self.path.child(field), detail));
        }
    }
}

pub(super) fn validate(new: &Job, old: &Job, errors: &mut Errors) {
    let (none, no_spec) = (JobStatus::default(), JobSpec::default());
    let (status, before) = (new.status.as_ref().unwrap_or(&none), old.status.as_ref().unwrap_or(&none));
    let spec = new.spec.as_ref().unwrap_or(&no_spec);
    let change = Change { new, old, spec, status, before, path: Path::new("status") };
    counts(&change, errors);
    completion(&change, errors);
    finished(&change, errors);
    index_lists(&change, errors);
    success(&change, errors);
    history(&change, errors);
}

fn counts(change: &Change<'_>, errors: &mut Errors) {
    let status = change.status;
    let counts = [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ];
    for (field, count) in counts {
        rules::non_negative(&change.path.child(field), count.unwrap_or(0).into(), errors);
    }
    let Some(uncounted) = &status.uncounted_terminated_pods else { return };
    let path = change.path.child("uncountedTerminatedPods");
    let mut seen = std::collections::HashSet::new();
    for (field, uids) in [("succeeded", list(&uncounted.succeeded)), ("failed", list(&uncounted.failed))] {
        for (index, uid) in uids.iter().enumerate() {
            let path = path.child(field).index(index);
            if uid.is_empty() {
                errors.push(Error::invalid(&path, "", "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(Error::duplicate(&path, uid.as_str()));
            }
        }
    }
}

fn completion(change: &Change<'_>, errors: &mut Errors) {
    let (status, complete) = (change.status, change.is("Complete"));
    let turned = change.turned("Complete");
    let both = complete && change.is("Failed") && (turned || change.turned("Failed"));
    change.conditions(both, "cannot set Complete=True and Failed=true conditions", errors);
    let both = complete && change.is("FailureTarget") && (turned || change.turned("FailureTarget"));
    change.conditions(both, "cannot set Complete=True and FailureTarget=true conditions", errors);
    let (time, start) = (&status.completion_time, &status.start_time);
    let moved = change.changed(|status| &status.completion_time);
    if turned || moved {
        let early = time.is_some() && !complete;
        let detail = "cannot set completionTime when there is no Complete=True condition";
        change.invalid(early, "completionTime", json!(time), detail, errors);
        let missing = time.is_none() && complete;
        change.required(missing, "completionTime", "completionTime is required for Complete jobs", errors);
    }
    let backwards = matches!((start, time), (Some(start), Some(end)) if end.0 < start.0);
    let checked = moved || change.changed(|status| &status.start_time);
    change.invalid(checked && backwards, "completionTime", json!(time), "must be equal to or after `startTime`", errors);
    let abrupt = change.is("Failed") && !change.is("FailureTarget");
    let checked = change.turned("Failed") || change.changed(|status| &status.failed_indexes);
    let detail = "cannot set Failed=True condition without the FailureTarget=true condition";
    change.conditions(checked && abrupt, detail, errors);
    let abrupt = complete && !change.is("SuccessCriteriaMet");
    let checked = turned || change.turned("SuccessCriteriaMet");
    let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
    change.conditions(checked && abrupt, detail, errors);
}

/// A job that has ended has started, and has no pods.
fn finished(change: &Change<'_>, errors: &mut Errors) {
    let (status, finished, ended) = (change.status, change.is_finished(), change.ended());
    let active = status.active.unwrap_or(0);
    let checked = finished && (ended || change.changed(|status| &status.active));
    change.invalid(checked && active > 0, "active", active, "active>0 is invalid for finished job", errors);
    let nothing_to_do = change.spec.suspend == Some(true) && change.spec.completions == Some(0);
    let checked = finished && (ended || change.changed(|status| &status.start_time)) && !nothing_to_do;
    change.required(checked && status.start_time.is_none(), "startTime", "startTime is required for finished job", errors);
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let some = uncounted.is_some_and(|pods| !list(&pods.succeeded).is_empty() || !list(&pods.failed).is_empty());
    let checked = finished && (ended || change.changed(|status| &status.uncounted_terminated_pods));
    change.invalid(checked && some, "uncountedTerminatedPods", json!(uncounted), "must be empty for finished job", errors);
    let terminating = status.terminating.unwrap_or(0);
    let checked = finished && (ended || change.changed(|status| &status.terminating));
    let detail = "terminating>0 is invalid for finished job";
    change.invalid(checked && terminating > 0, "terminating", terminating, detail, errors);
    let checked = change.changed(|status| &status.ready) || change.changed(|status| &status.active);
    let ready = status.ready.unwrap_or(0);
    change.invalid(checked && ready > active, "ready", ready, "cannot set more ready pods than active", errors);
}

fn index_lists(change: &Change<'_>, errors: &mut Errors) {
    let (status, spec) = (change.status, change.spec);
    let (completed, failed) = (text(&status.completed_indexes), status.failed_indexes.as_deref());
    let completed_changed = completed != text(&change.before.completed_indexes);
    let failed_changed = change.changed(|status| &status.failed_indexes);
    if let Some(completions) = spec.completions {
        if let Err(error) = indexes::count(completed, completions) {
            let detail = format!("error parsing completedIndexes: {error}");
            change.invalid(completed_changed, "completedIndexes", completed, &detail, errors);
        }
        if let Some(failed) = failed {
            let checked = failed_changed && spec.backoff_limit_per_index.is_some();
            if let Err(error) = indexes::count(failed, completions) {
                change.invalid(checked, "failedIndexes", failed, &format!("error parsing failedIndexes: {error}"), errors);
            }
            if let Err(error) = indexes::disjoint(completed, failed, completions) {
                change.invalid(completed_changed || failed_changed, "failedIndexes", failed, &error.to_string(), errors);
            }
        }
    }
    let wrong = completed_changed && !completed.is_empty() && !spec::is_indexed(spec);
    let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
    change.invalid(wrong, "completedIndexes", completed, detail, errors);
    let wrong = failed_changed && failed.is_some() && spec.backoff_limit_per_index.is_none();
    let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
    change.invalid(wrong, "failedIndexes", json!(failed), detail, errors);
}

fn success(change: &Change<'_>, errors: &mut Errors) {
    let met = change.is("SuccessCriteriaMet");
    let wrong = met && change.is("Failed");
    change.conditions(wrong, "cannot set SuccessCriteriaMet=True and Failed=true conditions", errors);
    let wrong = met && change.is("FailureTarget");
    change.conditions(wrong, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions", errors);
    let wrong = change.spec.success_policy.is_some() && !met && change.is("Complete");
    change.conditions(wrong, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True", errors);
}

/// What was reached is not taken back.
fn history(change: &Change<'_>, errors: &mut Errors) {
    let (status, before, spec) = (change.status, change.before, change.spec);
    for condition in ["Failed", "Complete", "FailureTarget"] {
        let lost = change.was(condition) && !change.is(condition);
        change.conditions(lost, format!("cannot disable the terminal {condition}=True condition"), errors);
    }
    let (failed, succeeded) = (status.failed.unwrap_or(0), status.succeeded.unwrap_or(0));
    let less = failed < before.failed.unwrap_or(0);
    change.invalid(less, "failed", failed, "cannot decrease the failed counter", errors);
    // An elastic job that is made smaller has fewer indexes that can have succeeded.
    let elastic = spec::is_indexed(spec) && spec.completions == spec.parallelism;
    let less = !elastic && succeeded < before.succeeded.unwrap_or(0);
    change.invalid(less, "succeeded", succeeded, "cannot decrease the succeeded counter", errors);
    let (time, was) = (&status.completion_time, &before.completion_time);
    let moved = time.is_some() && was.is_some() && time != was;
    change.invalid(moved, "completionTime", json!(time), IMMUTABLE, errors);
    let moved = before.start_time.is_some() && before.start_time != status.start_time;
    // A job that is resumed starts again.
    let resumes = change.was("Suspended") && !change.is("Suspended");
    let moved = moved && spec.suspend != Some(true) && !resumes;
    let time = &status.start_time;
    change.required(moved && time.is_none(), "startTime", "startTime cannot be removed for unsuspended job", errors);
    let detail = "field is immutable for unsuspended job once set";
    change.invalid(moved && time.is_some(), "startTime", json!(time), detail, errors);
    let lost = change.was("SuccessCriteriaMet") && !change.is("SuccessCriteriaMet");
    change.conditions(lost, "cannot disable the SuccessCriteriaMet=True condition", errors);
    let late = change.was("Complete") && !change.was("SuccessCriteriaMet") && change.is("SuccessCriteriaMet");
    let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
    change.conditions(late, detail, errors);
}
