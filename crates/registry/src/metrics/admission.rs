//! What admission costs, under upstream's names: each plugin, and each of its two steps.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Instant;

use base::metrics::{Histograms, Page};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::Operation;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPlugin {
    name: &'static str,
    operation: &'static str,
    rejected: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStep {
    operation: &'static str,
    rejected: &'static str,
    r#type: &'static str,
}

struct Metrics {
    plugins: Histograms<OfPlugin>,
    steps: Histograms<OfStep>,
}

fn histogram() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5])
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    Metrics {
    plugins: Page::Server.register(
        "apiserver_admission_controller_admission_duration_seconds",
        "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit)",
        Family::new_with_constructor(histogram),
    ),
    steps: Page::Server.register(
        "apiserver_admission_step_admission_duration_seconds",
        "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit)",
        Family::new_with_constructor(histogram),
    ),
}
});

/// The steps of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Admit,
    Validate,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }
}

/// Measures what one plugin does in a step.
pub(crate) async fn plugin<T, E>(
    name: &'static str,
    operation: Operation,
    step: Step,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timed(work, |rejected| {
        let labels = OfPlugin { name, operation: operation.as_str(), rejected, r#type: step.name() };
        METRICS.plugins.get_or_create_owned(&labels)
    })
    .await
}

/// Measures a step of all plugins.
pub(crate) async fn step<T, E>(operation: Operation, step: Step, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timed(work, |rejected| {
        METRICS.steps.get_or_create_owned(&OfStep { operation: operation.as_str(), rejected, r#type: step.name() })
    })
    .await
}

/// Observes how long work took in the histogram for whether it `rejected`, as labels say that.
async fn timed<T, E>(
    work: impl Future<Output = Result<T, E>>,
    histogram: impl FnOnce(&'static str) -> Histogram,
) -> Result<T, E> {
    let started = Instant::now();
    let result = work.await;
    histogram(if result.is_err() { "true" } else { "false" }).observe(started.elapsed().as_secs_f64());
    result
}
