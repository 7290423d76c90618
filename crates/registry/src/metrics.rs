//! What writes to the store cost, under upstream's names: the store stands where upstream has etcd.

pub(crate) mod admission;
pub(crate) mod rules;

use std::future::Future;
use std::sync::LazyLock;
use std::time::Instant;

use base::metrics::{Histograms, Page};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::Layer;
use crate::target::Target;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    group: &'static str,
    resource: &'static str,
}

struct Metrics {
    seconds: Histograms<Labels>,
    requests: Family<Labels, Counter>,
    errors: Family<Labels, Counter>,
}

const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    seconds: Page::Server.register(
        "etcd_request_duration_seconds",
        "Etcd request latency in seconds for each operation and object type",
        Family::new_with_constructor(|| Histogram::new(SECONDS)),
    ),
    requests: Page::Server.register("etcd_requests", "Etcd request counts for each operation and object type", Family::default()),
    errors: Page::Server.register(
        "etcd_request_errors",
        "Etcd failed request counts for each operation and object type",
        Family::default(),
    ),
});

/// Measures one request to the store. A conflict is an answer, not a failure.
pub(crate) async fn timed<T>(
    operation: &'static str,
    target: Target<'_>,
    request: impl Future<Output = Result<T, store::Error>>,
) -> Result<T, store::Error> {
    let started = Instant::now();
    let result = request.await;
    let (took, (group, _, resource)) = (started.elapsed(), target.res.def.label());
    target.cx.annotations.took(Layer::Storage, took);
    let labels = Labels { operation, group, resource };
    METRICS.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    METRICS.requests.get_or_create(&labels).inc();
    if result.as_ref().is_err_and(|error| !matches!(error, store::Error::Conflict(_))) {
        METRICS.errors.get_or_create(&labels).inc();
    }
    result
}
