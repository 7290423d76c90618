//! How a job counts its pods and ends, so that no pod is lost or counted twice (KEP-2307). Pure.
//!
//! A pod that has ended first stands in `status.uncountedTerminatedPods`, then loses its finalizer, and then is a number.
//! Whenever the controller stops between two of these steps, the next one still knows which pods are counted.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use client::events::Type;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::conditions::{self, COMPLETE, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED};
use super::member;
use super::plan::{Act, Decision, Observed, Progress};
use super::policy::Verdict;
use crate::{meta, pods};

/// The most pods that a status names, so that it stays small.
const MAX_UNCOUNTED: usize = 500;

/// What became of the pods that a decision makes or deletes.
#[derive(Default)]
pub(super) struct Done {
    pub(super) created: usize,
    pub(super) deleted: Vec<Arc<Pod>>,
}

/// What is to be written.
pub(super) struct Settled {
    pub(super) status: JobStatus,
    /// The pods whose finalizer goes once the status is written.
    pub(super) untrack: Vec<Arc<Pod>>,
    /// The uids of pods with the finalizer.
    pub(super) tracked: HashSet<String>,
    /// The condition by which the job ends once all its pods are counted and gone.
    pub(super) end: Option<JobCondition>,
    pub(super) events: Vec<(Type, &'static str, &'static str)>,
}

/// The status after `done`, as it is before any finalizer goes.
pub(super) fn settle(observed: &Observed<'_>, decision: Decision, done: &Done) -> Settled {
    let mut status = observed.status();
    status.start_time = status.start_time.or_else(|| decision.start_time.clone());
    let active = count_pods(observed, done, &mut status);
    let mut events = Vec::new();
    let target = match &decision.act {
        // Pods that could not be deleted are still there.
        Act::End(_) => decision.target.clone().filter(|_| active == 0),
        _ if is_complete(observed, decision.succeeded, active) => {
            let message = "Reached expected number of succeeded pods";
            Some(conditions::new(SUCCESS_CRITERIA_MET, "CompletionsReached", message, observed.now))
        }
        _ if meta::ends(observed.job) => None,
        _ => {
            events.extend(suspend_or_resume(observed, &decision, &mut status));
            None
        }
    };
    // The API wants a start of every job that has ended. One that ends while it is suspended has none any more.
    if target.is_some() && observed.terms.spec.completions != Some(0) {
        status.start_time.get_or_insert_with(|| meta::whole_seconds(observed.now));
    }
    let tracked = observed.pods.iter().filter(|pod| member::is_tracked(pod));
    let tracked: HashSet<String> = tracked.map(|pod| meta::uid(pod.as_ref()).to_owned()).collect();
    clear_counted(&mut status, &tracked);
    let ending = Ending { target: target.as_ref(), decision: &decision };
    let (untrack, indexes, whole) = ending.count(observed, &mut status);
    if let Some(progress) = &decision.progress {
        show_indexes(&mut status, progress, &indexes);
    }
    let end = target.map(|target| announce(&mut status, target, observed.now)).filter(|_| whole);
    Settled { status, untrack, tracked, end, events }
}

/// Active, ready and terminating pods; returns the first number.
fn count_pods(observed: &Observed<'_>, done: &Done, status: &mut JobStatus) -> usize {
    let active = observed.active();
    let deleted: HashSet<&str> = done.deleted.iter().map(|pod| meta::uid(pod.as_ref())).collect();
    let left = active.iter().filter(|pod| !deleted.contains(meta::uid(pod.as_ref())));
    let ready = left.clone().filter(|pod| pods::is_ready(pod)).count();
    let number = left.count() + done.created;
    status.active = shown(number);
    status.ready = Some(shown(ready).unwrap_or(0));
    status.terminating = Some(shown(observed.terminating() + deleted.len()).unwrap_or(0));
    number
}

/// A number, unless it is zero, which is left out.
fn shown(number: usize) -> Option<i32> {
    i32::try_from(number).ok().filter(|number| *number != 0)
}

fn is_complete(observed: &Observed<'_>, succeeded: i32, active: usize) -> bool {
    let enough = observed.terms.spec.completions.map_or(succeeded > 0, |completions| succeeded >= completions);
    enough && active == 0
}

fn suspend_or_resume(
    observed: &Observed<'_>,
    decision: &Decision,
    status: &mut JobStatus,
) -> Option<(Type, &'static str, &'static str)> {
    let now = observed.now;
    let condition = |state: &str, reason: &str, message: &str| JobCondition {
        status: state.to_owned(),
        ..conditions::new(SUSPENDED, reason, message, now)
    };
    if observed.terms.suspended {
        // KEP-5440: "we also clear the `status.startTime` field when the Job is suspended", so that the job starts again when it is resumed.
        status.start_time = None;
        let changed = conditions::put(status, condition("True", "JobSuspended", "Job suspended"));
        return changed.then_some((Type::Normal, "Suspended", "Job suspended"));
    }
    if conditions::put(status, condition("False", "JobResumed", "Job resumed")) {
        status.start_time.clone_from(&decision.start_time);
        return Some((Type::Normal, "Resumed", "Job resumed"));
    }
    None
}

/// Turns pods that have no finalizer any more into numbers.
pub(super) fn clear_counted(status: &mut JobStatus, tracked: &HashSet<String>) {
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let clear = |uids: &mut Option<Vec<String>>, count: &mut Option<i32>| {
        let Some(list) = uids else { return };
        let before = list.len();
        list.retain(|uid| tracked.contains(uid));
        let more = i32::try_from(before - list.len()).unwrap_or(0);
        *count = Some(count.unwrap_or(0).saturating_add(more)).filter(|count| *count != 0);
        if list.is_empty() {
            *uids = None;
        }
    };
    clear(&mut uncounted.succeeded, &mut status.succeeded);
    clear(&mut uncounted.failed, &mut status.failed);
}

/// What the job comes to, and why.
struct Ending<'a> {
    target: Option<&'a JobCondition>,
    decision: &'a Decision,
}

impl Ending<'_> {
    /// Notes pods that have ended in the status. Returns the pods that lose their finalizer, newly succeeded indexes, and
    /// whether all pods were looked at.
    fn count(&self, observed: &Observed<'_>, status: &mut JobStatus) -> (Vec<Arc<Pod>>, BTreeSet<i32>, bool) {
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let known = uncounted.clone();
        let (mut untrack, mut indexes) = (Vec::new(), BTreeSet::new());
        for pod in in_order(observed.pods) {
            if !member::is_tracked(&pod) || !self.may_go(observed, &pod) {
                continue;
            }
            self.note(observed, &pod, &known, uncounted, &mut indexes);
            untrack.push(pod);
            if indexes.len() + length(&uncounted.succeeded) + length(&uncounted.failed) >= MAX_UNCOUNTED {
                return (untrack, indexes, false);
            }
        }
        (untrack, indexes, true)
    }

    /// Whether the pod is counted now. A failed pod of an index is needed until the next pod of that index is there.
    fn may_go(&self, observed: &Observed<'_>, pod: &Pod) -> bool {
        if meta::ends(observed.job) || self.target.is_some() || member::has_succeeded(pod) {
            return true;
        }
        let awaited = || {
            let delayed = member::index(pod).and_then(|index| self.decision.delayed.get(&index));
            delayed.is_some_and(|delayed| delayed.metadata.uid == pod.metadata.uid)
        };
        observed.terms.is_failed(pod) && !awaited()
    }

    fn note(
        &self,
        observed: &Observed<'_>,
        pod: &Pod,
        known: &UncountedTerminatedPods,
        uncounted: &mut UncountedTerminatedPods,
        indexes: &mut BTreeSet<i32>,
    ) {
        let uid = meta::uid(pod);
        let is_in = |list: &Option<Vec<String>>| list.iter().flatten().any(|other| other == uid);
        if is_in(&known.succeeded) || is_in(&known.failed) {
            // What a pod counts as is decided once: one in both lists would be refused with each write of the status
            // (kubernetes/kubernetes#125410).
            return;
        }
        let fails = self.target.is_some_and(|target| target.type_ != SUCCESS_CRITERIA_MET);
        if member::has_succeeded(pod) {
            if let Some(progress) = &self.decision.progress {
                // The index is remembered, so the pod need not be.
                indexes.extend(observed.terms.index(pod).filter(|index| !progress.before.has(*index)));
            } else {
                uncounted.succeeded.get_or_insert_default().push(uid.to_owned());
            }
        } else if (observed.terms.is_failed(pod) || fails) && observed.terms.counts(pod) {
            // When a job fails, all its pods have.
            if observed.verdict(pod) != Verdict::Ignore {
                uncounted.failed.get_or_insert_default().push(uid.to_owned());
            }
        }
    }
}

fn length(list: &Option<Vec<String>>) -> usize {
    list.as_ref().map_or(0, Vec::len)
}

/// By index, so that the list of completed indexes grows from its beginning.
fn in_order(pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut pods = pods.to_vec();
    pods.sort_by_key(|pod| member::index(pod));
    pods
}

fn show_indexes(status: &mut JobStatus, progress: &Progress, new: &BTreeSet<i32>) {
    let succeeded = progress.succeeded.with(new);
    status.succeeded = Some(succeeded.count()).filter(|count| *count != 0);
    status.completed_indexes = Some(succeeded.to_string()).filter(|text| !text.is_empty());
    status.failed_indexes = progress.failed.as_ref().map(ToString::to_string);
}

/// Shows what the job comes to; returns the condition by which it ends.
fn announce(status: &mut JobStatus, target: JobCondition, now: Timestamp) -> JobCondition {
    match target.type_.as_str() {
        FAILURE_TARGET => {
            let end = conditions::renamed(&target, conditions::FAILED, now);
            conditions::put(status, target);
            end
        }
        SUCCESS_CRITERIA_MET => {
            let end = conditions::renamed(&target, COMPLETE, now);
            conditions::put(status, target);
            end
        }
        _ => target,
    }
}

/// Ends the job if all pods are counted and gone; whether it did.
pub(super) fn finish(status: &mut JobStatus, end: Option<&JobCondition>) -> bool {
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let waits = length(&uncounted.succeeded) + length(&uncounted.failed) > 0 || status.terminating.unwrap_or(0) > 0;
    let Some(end) = end.filter(|_| !waits) else { return false };
    if end.type_ == COMPLETE {
        status.completion_time.clone_from(&end.last_transition_time);
    }
    conditions::put(status, end.clone());
    true
}
