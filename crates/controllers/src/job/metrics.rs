//! The job controller's figures, under upstream's names.

use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::{Histograms, Page};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::conditions::COMPLETE;
use super::plan::Act;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Synced {
    completion_mode: &'static str,
    result: &'static str,
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finished {
    completion_mode: &'static str,
    result: &'static str,
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    completion_mode: &'static str,
    result: &'static str,
}

struct Metrics {
    seconds: Histograms<Synced>,
    syncs: Family<Synced, Counter>,
    finished: Family<Finished, Counter>,
    pods: Family<Counted, Counter>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    seconds: Page::Server.register(
        "job_controller_job_sync_duration_seconds",
        "The time it took to sync a job",
        Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.004, 2.0, 15))),
    ),
    syncs: Page::Server.register("job_controller_job_syncs", "The number of job syncs", Family::default()),
    finished: Page::Server.register("job_controller_jobs_finished", "The number of finished jobs", Family::default()),
    pods: Page::Server.register(
        "job_controller_job_pods_finished",
        "The number of finished Pods that are fully tracked",
        Family::default(),
    ),
});

fn mode(job: &Job) -> &'static str {
    match job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()) {
        Some("Indexed") => "Indexed",
        _ => "NonIndexed",
    }
}

/// Nothing but the status changes.
pub(super) const RECONCILING: &str = "reconciling";
/// Pods that have ended are counted.
pub(super) const TRACKING: &str = "tracking";

/// What a look at a job does, as upstream calls it.
pub(super) fn action(act: &Act) -> &'static str {
    match act {
        Act::Create(_) => "pods_created",
        Act::End(_) | Act::Delete(_) => "pods_deleted",
        Act::Nothing => RECONCILING,
    }
}

/// A look at a job is over.
pub(super) fn synced(job: &Job, action: &'static str, good: bool, took: Duration) {
    let labels = Synced { completion_mode: mode(job), result: if good { "success" } else { "error" }, action };
    METRICS.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    METRICS.syncs.get_or_create(&labels).inc();
}

/// A job has ended.
pub(super) fn finished(job: &Job, end: &JobCondition) {
    let result = if end.type_ == COMPLETE { "succeeded" } else { "failed" };
    let reason = end.reason.clone().unwrap_or_default();
    METRICS.finished.get_or_create(&Finished { completion_mode: mode(job), result, reason }).inc();
}

/// A number of pods in a status.
type Number = fn(&JobStatus) -> Option<i32>;

/// A job's status counts more pods than before.
pub(super) fn counted(job: &Job, before: Option<&JobStatus>, after: Option<&JobStatus>) {
    let count = |status: Option<&JobStatus>, of: Number| status.and_then(of).unwrap_or(0);
    let results: [(&'static str, Number); 2] = [("succeeded", |status| status.succeeded), ("failed", |status| status.failed)];
    for (result, of) in results {
        let more = count(after, of) - count(before, of);
        if let Some(more) = u64::try_from(more).ok().filter(|more| *more > 0) {
            METRICS.pods.get_or_create(&Counted { completion_mode: mode(job), result }).inc_by(more);
        }
    }
}
