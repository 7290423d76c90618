//! What rules of definitions cost (`x-kubernetes-validations`).

use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::{DEFAULT_BUCKETS, Page};
use prometheus_client::metrics::histogram::Histogram;
use structural::timing::{self, Timing};

struct Metrics {
    compilations: Histogram,
    evaluations: Histogram,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    compilations: Page::Server.register(
        "apiserver_cel_compilation_duration_seconds",
        "CEL compilation time in seconds.",
        Histogram::new(DEFAULT_BUCKETS),
    ),
    evaluations: Page::Server.register(
        "apiserver_cel_evaluation_duration_seconds",
        "CEL evaluation time in seconds.",
        Histogram::new(DEFAULT_BUCKETS),
    ),
});

/// Measures rules from now on.
pub(crate) fn observe() {
    LazyLock::force(&METRICS);
    timing::observe(Timing { compiled, evaluated });
}

fn compiled(took: Duration) {
    METRICS.compilations.observe(took.as_secs_f64());
}

fn evaluated(took: Duration) {
    METRICS.evaluations.observe(took.as_secs_f64());
}
