//! The conditions of a job. Pure.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};

use crate::meta;

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub(super) const SUSPENDED: &str = "Suspended";

/// A condition that holds since now.
pub(super) fn new(kind: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    JobCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: text(reason),
        message: text(message),
        last_probe_time: Some(meta::whole_seconds(now)),
        last_transition_time: Some(meta::whole_seconds(now)),
    }
}

/// The same condition under another type: what was announced is now so.
pub(super) fn renamed(condition: &JobCondition, kind: &str, now: Timestamp) -> JobCondition {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    new(kind, &text(&condition.reason), &text(&condition.message), now)
}

/// The condition of that type, if it holds.
pub(super) fn holds<'a>(status: Option<&'a JobStatus>, kind: &str) -> Option<&'a JobCondition> {
    let conditions = status?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition by which the job has ended.
pub(crate) fn end(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref();
    holds(status, COMPLETE).or_else(|| holds(status, FAILED))
}

/// Puts a condition in the place of the one of its type; whether that changed anything. One that does not hold is not
/// added where there was none.
pub(super) fn put(status: &mut JobStatus, condition: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) => {
            let same = old.status == condition.status && old.reason == condition.reason && old.message == condition.message;
            if !same {
                *old = condition;
            }
            !same
        }
        None if condition.status == "False" => false,
        None => {
            conditions.push(condition);
            true
        }
    }
}
