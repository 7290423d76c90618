//! What a CronJob does next, and what it knows of its jobs. Pure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use client::events::Type;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::starts::{Error, Timetable};
use crate::{job, meta};

/// The annotation with the time for which a job was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// One event: type, reason, message.
pub(super) type Said = (Type, &'static str, String);

/// How a job has ended, if it has.
fn ended(job: &Job) -> Option<&str> {
    job::end(job).map(|condition| condition.type_.as_str())
}

fn is_active(status: &CronJobStatus, uid: &str) -> bool {
    status.active.iter().flatten().any(|reference| reference.uid.as_deref() == Some(uid))
}

/// Takes a job off the list of those that run.
pub(super) fn forget(status: &mut CronJobStatus, uid: &str) {
    if let Some(active) = &mut status.active {
        active.retain(|reference| reference.uid.as_deref() != Some(uid));
    }
    status.active.take_if(|active| active.is_empty());
}

/// The status by what became of the jobs. `gone` are the uids of running jobs that are there no more.
pub(super) fn review(cron: &CronJob, jobs: &[Arc<Job>], gone: &HashSet<String>) -> (CronJobStatus, Vec<Said>) {
    let (mut status, mut said) = (cron.status.clone().unwrap_or_default(), Vec::new());
    for job in jobs {
        let (name, uid) = (meta::name(job.as_ref()), meta::uid(job.as_ref()));
        match (is_active(&status, uid), ended(job)) {
            (false, None) => {
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                said.push((Type::Warning, "UnexpectedJob", message));
            }
            (true, Some(condition)) => {
                forget(&mut status, uid);
                let message = format!("Saw completed job: {name}, condition: {condition}");
                said.push((Type::Normal, "SawCompletedJob", message));
            }
            _ => {}
        }
        if ended(job) == Some("Complete") {
            let time = job.status.as_ref().and_then(|status| status.completion_time.clone());
            status.last_successful_time = status.last_successful_time.max(time);
        }
    }
    for reference in status.active.clone().unwrap_or_default() {
        let uid = reference.uid.unwrap_or_default();
        if gone.contains(&uid) {
            forget(&mut status, &uid);
            let name = reference.name.unwrap_or_default();
            said.push((Type::Normal, "MissingJob", format!("Active job went missing: {name}")));
        }
    }
    (status, said)
}

/// The finished jobs beyond the limits of the history, oldest first.
pub(super) fn surplus(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits = [("Complete", cron.spec.successful_jobs_history_limit), ("Failed", cron.spec.failed_jobs_history_limit)];
    let mut surplus = Vec::new();
    for (condition, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let mut finished: Vec<_> = jobs.iter().filter(|job| ended(job) == Some(condition)).cloned().collect();
        finished.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            (start.is_none(), start, meta::name(job.as_ref()).to_owned())
        });
        finished.truncate(finished.len().saturating_sub(limit));
        surplus.extend(finished);
    }
    surplus
}

/// What follows.
#[derive(Default)]
pub(super) struct Next {
    /// The time for which a job is started now.
    pub(super) start: Option<Timestamp>,
    pub(super) said: Vec<Said>,
    pub(super) again: Option<Duration>,
}

/// Whether a job is started now. `cron` has its reviewed status.
pub(super) fn next(cron: &CronJob, now: Timestamp) -> Next {
    let mut next = Next::default();
    let mut say = |kind: Type, reason: &'static str, message: String| next.said.push((kind, reason, message));
    if meta::ends(cron) || (cron.spec.suspend == Some(true) && !matches!(Timetable::of(cron), Err(Error::Zone(_)))) {
        return next;
    }
    let text = &cron.spec.schedule;
    if text.contains("TZ") {
        let message = format!(
            "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        );
        say(Type::Warning, "UnsupportedSchedule", message);
    }
    let table = match Timetable::of(cron) {
        Ok(table) => table,
        Err(error) => {
            let reason = if matches!(error, Error::Zone(_)) { "UnknownTimeZone" } else { "UnparseableSchedule" };
            say(Type::Warning, reason, error.to_string());
            return next;
        }
    };
    let recent = match table.recent(cron, now, true) {
        Ok(recent) => recent,
        Err(error) => {
            say(Type::Warning, "InvalidSchedule", format!("invalid schedule: {text} : {error}"));
            return next;
        }
    };
    if recent.last.is_some() && recent.missed_many() {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        say(Type::Warning, "TooManyMissedTimes", message.to_owned());
    }
    match recent.last.map(|at| (at, obstacle(cron, at, now))) {
        None => {}
        Some((at, None)) => next.start = Some(at),
        Some((_, Some(said))) => next.said.extend(said),
    }
    next.again = table.wait(cron, now);
    next
}

/// Why no job is started for `at`, and what is said about it.
fn obstacle(cron: &CronJob, at: Timestamp, now: Timestamp) -> Option<Option<Said>> {
    let status = cron.status.clone().unwrap_or_default();
    let active = status.active.unwrap_or_default();
    let late =
        cron.spec.starting_deadline_seconds.is_some_and(|seconds| now.as_second() > at.as_second().saturating_add(seconds));
    if late {
        let time = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
        return Some(Some((Type::Warning, "MissSchedule", format!("Missed scheduled time to start a job: {time}"))));
    }
    let name = job_name(cron, at);
    let runs = active.iter().any(|reference| reference.name.as_deref() == Some(&name));
    if runs || status.last_schedule_time.is_some_and(|last| last.0 == at) {
        return Some(None);
    }
    if cron.spec.concurrency_policy.as_deref() == Some("Forbid") && !active.is_empty() {
        let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
        return Some(Some((Type::Normal, "JobAlreadyActive", message.to_owned())));
    }
    None
}

/// One name for each minute: a job is never made twice.
fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", meta::name(cron), at.as_second() / 60)
}

/// The job for `at`.
pub(super) fn job(cron: &CronJob, at: Timestamp) -> Job {
    let template = &cron.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), Timetable::noted(cron, at));
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, at)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![meta::controller_ref(cron)]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// How a status lists a job that runs.
pub(super) fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        ..Default::default()
    }
}
