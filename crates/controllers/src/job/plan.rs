//! What a job does next: end, make pods, delete pods, or wait. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{self, Record};
use super::conditions::{self, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED};
use super::indexes::Indexes;
use super::member::{self, Terms, until};
use super::policy::{self, Verdict};
use super::surplus;
use super::template::New;
use crate::pod_control::BURST;
use crate::{meta, pods};

/// A job and its pods.
pub(super) struct Observed<'a> {
    pub(super) job: &'a Job,
    pub(super) terms: Terms<'a>,
    /// All pods that the job has claimed.
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) record: Record,
    pub(super) now: Timestamp,
}

/// The indexes of an indexed job.
pub(super) struct Progress {
    /// Those that the status lists as succeeded.
    pub(super) before: Indexes,
    pub(super) succeeded: Indexes,
    /// Where indexes have limits of their own.
    pub(super) failed: Option<Indexes>,
}

pub(super) struct Decision {
    pub(super) start_time: Option<Time>,
    /// What the job comes to: it succeeds, fails, or is about to.
    pub(super) target: Option<JobCondition>,
    pub(super) act: Act,
    /// When to look again.
    pub(super) again: Option<Duration>,
    pub(super) succeeded: i32,
    pub(super) progress: Option<Progress>,
    /// The last failed pod of each index whose next pod is still to be made: the next one inherits its failures.
    pub(super) delayed: BTreeMap<i32, Arc<Pod>>,
    pub(super) record: Record,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Nothing,
    /// The job has come to its end: its pods go, and are counted.
    End(Vec<Arc<Pod>>),
    /// These pods are too many: they go, and do not count.
    Delete(Vec<Arc<Pod>>),
    Create(Vec<New>),
}

impl Observed<'_> {
    pub(super) fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    pub(super) fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect()
    }

    pub(super) fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| member::is_terminating(pod)).count()
    }

    pub(super) fn verdict(&self, pod: &Pod) -> Verdict {
        policy::verdict(self.terms.spec.pod_failure_policy.as_ref(), pod)
    }

    /// The pods that the status does not know yet and that satisfy `which`. One that it knows counts as what it was then, whatever has become
    /// of its phase since.
    fn fresh(&self, known: &HashSet<&str>, which: impl Fn(&Pod) -> bool) -> Vec<&Pod> {
        let is_new =
            |pod: &&Pod| member::is_tracked(pod) && !known.contains(meta::uid(*pod)) && self.terms.counts(pod) && which(pod);
        self.pods.iter().map(AsRef::as_ref).filter(is_new).collect()
    }
}

/// What to do with what is observed.
pub(super) fn decide(observed: &Observed<'_>) -> Decision {
    let (terms, status) = (&observed.terms, observed.status());
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let (known_succeeded, known_failed) = (uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default());
    let known: HashSet<&str> = known_succeeded.iter().chain(&known_failed).map(String::as_str).collect();
    let succeeded = observed.fresh(&known, member::has_succeeded);
    let failed = observed.fresh(&known, |pod| terms.is_failed(pod));
    let record = observed.record.with(&succeeded, &failed);
    let counted = failed.iter().filter(|pod| observed.verdict(pod).counts()).count();
    let failures = total(status.failed, &[counted, known_failed.len()]);
    let progress = terms.indexes.map(|indexes| progress(observed, &status, indexes));
    let successes = match &progress {
        Some(progress) => progress.succeeded.count(),
        None => total(status.succeeded, &[succeeded.len(), known_succeeded.len()]),
    };
    // The deadline counts the time since the job was resumed.
    let resumes = conditions::holds(observed.job.status.as_ref(), SUSPENDED).is_some();
    let starts = (status.start_time.is_none() || resumes) && !terms.suspended;
    let start_time = if starts { Some(meta::whole_seconds(observed.now)) } else { status.start_time.clone() };
    let target = target(observed, start_time.as_ref(), failures, progress.as_ref());
    let mut decision = Decision {
        delayed: delayed(observed, progress.as_ref()),
        start_time,
        target,
        act: Act::Nothing,
        again: None,
        succeeded: successes,
        progress,
        record,
    };
    if decision.target.is_some() {
        decision.act = Act::End(observed.active());
    } else {
        decision.again = deadline(terms, decision.start_time.as_ref()).map(|at| until(at, observed.now));
        if !meta::ends(observed.job) {
            manage(observed, &mut decision);
        }
    }
    decision
}

fn total(count: Option<i32>, more: &[usize]) -> i32 {
    more.iter().fold(count.unwrap_or(0), |sum, more| sum.saturating_add(i32::try_from(*more).unwrap_or(i32::MAX)))
}

fn progress(observed: &Observed<'_>, status: &JobStatus, indexes: i32) -> Progress {
    let terms = &observed.terms;
    let of_pods = |which: &dyn Fn(&Pod) -> bool| -> BTreeSet<i32> {
        let pods = observed.pods.iter().filter(|pod| member::is_tracked(pod) && which(pod));
        pods.filter_map(|pod| terms.index(pod)).collect()
    };
    let before = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), indexes);
    let failed = terms.per_index.map(|limit| {
        let known = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), indexes);
        known.with(&of_pods(&|pod| fails_index(observed, pod, limit)))
    });
    Progress { succeeded: before.with(&of_pods(&member::has_succeeded)), before, failed }
}

/// Whether the failure of the pod is the last that its index may have.
fn fails_index(observed: &Observed<'_>, pod: &Pod, limit: i32) -> bool {
    if !observed.terms.is_failed(pod) {
        return false;
    }
    match observed.verdict(pod) {
        Verdict::FailIndex => true,
        Verdict::Ignore => false,
        Verdict::Count | Verdict::FailJob(_) => member::failures(pod).0 >= limit,
    }
}

/// What the job comes to, if it does. What was announced once stays.
fn target(observed: &Observed<'_>, start: Option<&Time>, failures: i32, progress: Option<&Progress>) -> Option<JobCondition> {
    let (terms, status, now) = (&observed.terms, observed.job.status.as_ref(), observed.now);
    if let Some(met) = conditions::holds(status, SUCCESS_CRITERIA_MET) {
        return Some(met.clone());
    }
    if let Some(failure) = conditions::holds(status, FAILURE_TARGET) {
        return Some(conditions::renamed(failure, FAILED, now));
    }
    let fails = |reason: &str, message: &str| Some(conditions::new(FAILURE_TARGET, reason, message, now));
    if let Some(message) = failed_by_policy(observed) {
        return fails("PodFailurePolicy", &message);
    }
    if failures > terms.backoff_limit || restarted_too_often(observed) {
        return fails("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if deadline(terms, start).is_some_and(|deadline| deadline <= now) {
        return fails("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    let (progress, indexes) = (progress?, terms.indexes?);
    if let Some(failed) = &progress.failed {
        let number = failed.count();
        if terms.spec.max_failed_indexes.is_some_and(|most| number > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return fails("MaxFailedIndexesExceeded", message);
        }
        if number > 0 && number.saturating_add(progress.succeeded.count()) >= indexes {
            return fails("FailedIndexes", "Job has failed indexes");
        }
    }
    let rule = policy::success(terms.spec.success_policy.as_ref()?, indexes, &progress.succeeded)?;
    Some(conditions::new(SUCCESS_CRITERIA_MET, "SuccessPolicy", &format!("Matched rules at index {rule}"), now))
}

fn failed_by_policy(observed: &Observed<'_>) -> Option<String> {
    let failed = observed.pods.iter().filter(|pod| observed.terms.is_failed(pod));
    failed.map(|pod| observed.verdict(pod)).find_map(|verdict| match verdict {
        Verdict::FailJob(message) => Some(message),
        _ => None,
    })
}

/// Containers that the kubelet starts again count, as failed pods do.
fn restarted_too_often(observed: &Observed<'_>) -> bool {
    let limit = observed.terms.backoff_limit;
    let policy = observed.terms.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let running = observed.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let statuses = running
        .filter_map(|pod| pod.status.as_ref())
        .flat_map(|status| status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten()));
    let restarts = statuses.fold(0_i32, |sum, status| sum.saturating_add(status.restart_count));
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// When the job has been active for as long as it may be.
fn deadline(terms: &Terms<'_>, start: Option<&Time>) -> Option<Timestamp> {
    let seconds = terms.spec.active_deadline_seconds.filter(|_| !terms.suspended)?;
    start?.0.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// See [`Decision::delayed`].
fn delayed(observed: &Observed<'_>, progress: Option<&Progress>) -> BTreeMap<i32, Arc<Pod>> {
    let mut last: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
    let Some((progress, failed)) = progress.and_then(|progress| Some((progress, progress.failed.as_ref()?))) else {
        return last;
    };
    let active = indexes_of(&observed.active());
    let rank = |pod: &Pod| (member::all_failures(pod), member::finished_at(pod));
    for pod in observed.pods.iter().filter(|pod| member::is_tracked(pod) && observed.terms.is_failed(pod)) {
        let Some(index) = observed.terms.index(pod) else { continue };
        if progress.succeeded.has(index) || failed.has(index) || active.contains(&index) {
            continue;
        }
        if last.get(&index).is_none_or(|other| rank(other) <= rank(pod)) {
            last.insert(index, pod.clone());
        }
    }
    last
}

fn indexes_of<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> BTreeSet<i32> {
    pods.into_iter().filter_map(|pod| member::index(pod)).collect()
}

/// Keeps up the number of pods.
fn manage(observed: &Observed<'_>, decision: &mut Decision) {
    let (terms, active) = (&observed.terms, observed.active());
    let wanted = wanted(terms, decision.succeeded, active.len());
    let too_many = surplus::pods(terms, active.clone(), active.len().saturating_sub(wanted), observed.now);
    if !too_many.is_empty() {
        let most = if terms.suspended { too_many.len() } else { BURST };
        decision.act = Act::Delete(too_many.into_iter().take(most).collect());
        return;
    }
    let waits_for = if terms.only_failed { observed.terminating() } else { 0 };
    let number = wanted.saturating_sub(waits_for + active.len()).min(BURST);
    if number == 0 {
        return;
    }
    let (new, wait) = match terms.indexes {
        None => waiting(vec![New { index: None, failures: None }; number], decision.record.remaining(observed.now)),
        Some(indexes) => next_indexes(observed, decision, &active, number, indexes),
    };
    decision.act = if new.is_empty() { Act::Nothing } else { Act::Create(new) };
    decision.again = [decision.again, wait].into_iter().flatten().min();
}

/// How many pods should be active.
fn wanted(terms: &Terms<'_>, succeeded: i32, active: usize) -> usize {
    let number = match terms.spec.completions {
        _ if terms.suspended => 0,
        Some(completions) => completions.saturating_sub(succeeded).min(terms.parallelism),
        // One success says that the work is done: no more pods, and those that run may end.
        None if succeeded > 0 => return active,
        None => terms.parallelism,
    };
    usize::try_from(number).unwrap_or(0)
}

fn waiting(new: Vec<New>, wait: Duration) -> (Vec<New>, Option<Duration>) {
    if wait.is_zero() { (new, None) } else { (Vec::new(), Some(wait)) }
}

fn next_indexes(
    observed: &Observed<'_>,
    decision: &Decision,
    active: &[Arc<Pod>],
    number: usize,
    indexes: i32,
) -> (Vec<New>, Option<Duration>) {
    let Some(progress) = &decision.progress else { return (Vec::new(), None) };
    let mut taken = progress.succeeded.with(&indexes_of(active));
    if observed.terms.only_failed {
        taken = taken.with(&indexes_of(observed.pods.iter().filter(|pod| member::is_terminating(pod))));
    }
    let Some(failed) = &progress.failed else {
        let new = taken.missing(number, indexes).into_iter().map(|index| New { index: Some(index), failures: None });
        return waiting(new.collect(), decision.record.remaining(observed.now));
    };
    let (mut new, mut wait) = (Vec::new(), None);
    for index in taken.merge(failed).missing(number, indexes) {
        let before = decision.delayed.get(&index);
        let remaining = backoff::of_index(before.map(AsRef::as_ref), observed.now);
        if remaining.is_zero() {
            let failures = before.map_or((0, 0), |pod| failures_with(observed, pod));
            new.push(New { index: Some(index), failures: Some(failures) });
        } else {
            wait = Some(wait.map_or(remaining, |wait: Duration| wait.min(remaining)));
        }
    }
    (new, wait)
}

/// The failures of the index, that of `pod` among them.
fn failures_with(observed: &Observed<'_>, pod: &Pod) -> (i32, i32) {
    let (counted, ignored) = member::failures(pod);
    if observed.verdict(pod).counts() { (counted.saturating_add(1), ignored) } else { (counted, ignored.saturating_add(1)) }
}
