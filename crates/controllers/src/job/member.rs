//! What a job asks about its pods, and what its specification says when the optional parts are filled in.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;

use crate::{meta, pods};

/// The finalizer that keeps a pod until its job has counted it.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label with the completion index.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often pods of the same index have failed before this one.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How many failures of the index were not counted, by the pod failure policy.
pub(super) const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// A job's specification.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) spec: &'a JobSpec,
    pub(super) parallelism: i32,
    pub(super) suspended: bool,
    pub(super) backoff_limit: i32,
    /// The number of indexes of an indexed job.
    pub(super) indexes: Option<i32>,
    /// Failures that each index may have, where indexes have limits of their own.
    pub(super) per_index: Option<i32>,
    /// Whether a pod that is being deleted still runs for the job: only failed ones are replaced.
    pub(super) only_failed: bool,
}

impl<'a> Terms<'a> {
    /// None for a job without a specification, which the API does not let be.
    pub(super) fn of(job: &'a Job) -> Option<Self> {
        let spec = job.spec.as_ref()?;
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        Some(Self {
            spec,
            parallelism: spec.parallelism.unwrap_or(1),
            suspended: spec.suspend == Some(true),
            backoff_limit: spec.backoff_limit.unwrap_or(6),
            indexes: spec.completions.filter(|_| indexed),
            per_index: spec.backoff_limit_per_index.filter(|_| indexed),
            only_failed: spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some(),
        })
    }

    /// The pod's index, if the job still has that.
    pub(super) fn index(&self, pod: &Pod) -> Option<i32> {
        index(pod).filter(|index| self.indexes.is_some_and(|indexes| *index < indexes))
    }

    /// Whether the pod can count: in an indexed job only those with an index do.
    pub(super) fn counts(&self, pod: &Pod) -> bool {
        self.indexes.is_none() || self.index(pod).is_some()
    }

    /// Whether the pod has failed. One that is being deleted has, unless it is waited for.
    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => !self.only_failed && meta::ends(pod),
        }
    }
}

/// Whether the pod was not counted yet.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.as_ref().is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == TRACKING))
}

pub(super) fn has_succeeded(pod: &Pod) -> bool {
    pods::phase(pod) == "Succeeded"
}

/// Whether the pod is being deleted and may still run.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    meta::ends(pod) && !pods::is_finished(pod)
}

/// The completion index, of whatever job.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    number(pod, INDEX)
}

fn number(pod: &Pod, annotation: &str) -> Option<i32> {
    meta::annotation(pod, annotation)?.parse().ok().filter(|number| *number >= 0)
}

/// Failures of the pod's index before it: those that count, and those that do not.
pub(super) fn failures(pod: &Pod) -> (i32, i32) {
    (number(pod, FAILURES).unwrap_or(0), number(pod, IGNORED_FAILURES).unwrap_or(0))
}

/// How often a pod of the index had failed before this one.
pub(super) fn all_failures(pod: &Pod) -> i32 {
    let (counted, ignored) = failures(pod);
    counted.saturating_add(ignored)
}

/// When the pod ended: its last container, or when it stopped being ready, or when its deletion was asked for.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    let created = || pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    containers_ended(pod).or_else(|| stopped_being_ready(pod)).or_else(|| deletion(pod)).unwrap_or_else(created)
}

fn containers_ended(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = |status: &k8s_openapi::api::core::v1::ContainerStatus| {
        Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
    };
    statuses.iter().map(ended).collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn stopped_being_ready(pod: &Pod) -> Option<Timestamp> {
    let ready = pods::condition(pod, "Ready").filter(|condition| condition.status == "False")?;
    Some(ready.last_transition_time.as_ref()?.0)
}

/// The deletion timestamp is when the grace period ends.
fn deletion(pod: &Pod) -> Option<Timestamp> {
    let end = pod.metadata.deletion_timestamp.as_ref()?.0;
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    end.checked_sub(grace).ok()
}

/// How long from `now` until `at`; zero when that has passed.
pub(super) fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}
