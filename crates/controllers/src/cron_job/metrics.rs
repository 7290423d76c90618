//! The figures of the CronJob controller, under upstream's names.

use std::sync::LazyLock;

use base::metrics::Page;
use jiff::Timestamp;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

static SKEW: LazyLock<Histogram> = LazyLock::new(|| {
    Page::Server.register(
        "cronjob_controller_job_creation_skew_duration_seconds",
        "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
        Histogram::new(exponential_buckets(1.0, 2.0, 10)),
    )
});

/// The job for `at` was made now.
pub(super) fn started(at: Timestamp, now: Timestamp) {
    SKEW.observe(now.duration_since(at).as_secs_f64());
}
