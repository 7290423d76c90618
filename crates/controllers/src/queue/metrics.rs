//! The figures of work queues, under client-go's names.

use std::sync::{Arc, LazyLock, Weak};

use base::metrics::{Histograms, Page};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::time::Instant;

use super::State;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    name: &'static str,
}

struct Metrics {
    adds: Family<Labels, Counter>,
    retries: Family<Labels, Counter>,
    depth: Family<Labels, Gauge>,
    waited: Histograms<Labels>,
    worked: Histograms<Labels>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let histograms =
        || -> Histograms<Labels> { Family::new_with_constructor(|| Histogram::new(exponential_buckets(1e-8, 10.0, 10))) };
    Page::Server.observe(
        "workqueue_unfinished_work_seconds",
        "How many seconds of work has been done that is in progress and hasn't been observed by work_duration.",
        |tell| running(|name, seconds| tell(&[("name", name)], seconds.iter().sum())),
    );
    Page::Server.observe(
        "workqueue_longest_running_processor_seconds",
        "How many seconds has the longest running processor for workqueue been running.",
        |tell| running(|name, seconds| tell(&[("name", name)], seconds.iter().copied().fold(0.0, f64::max))),
    );
    Metrics {
        adds: Page::Server.register("workqueue_adds", "Total number of adds handled by workqueue", Family::default()),
        retries: Page::Server.register("workqueue_retries", "Total number of retries handled by workqueue", Family::default()),
        depth: Page::Server.register("workqueue_depth", "Current depth of workqueue", Family::default()),
        waited: Page::Server.register(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested",
            histograms(),
        ),
        worked: Page::Server.register(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes",
            histograms(),
        ),
    }
});

/// A queue and its controller's name.
type Known = (&'static str, Weak<Mutex<State>>);

/// The queues that have a name.
static QUEUES: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// How long each queue's keys have been worked on.
fn running(mut tell: impl FnMut(&str, &[f64])) {
    let queues: Vec<_> = QUEUES.lock().iter().filter_map(|(name, state)| Some((*name, state.upgrade()?))).collect();
    let now = Instant::now();
    for (name, state) in queues {
        let seconds: Vec<f64> =
            state.lock().running.values().map(|started| now.saturating_duration_since(*started).as_secs_f64()).collect();
        tell(name, &seconds);
    }
}

/// The figures of one queue.
pub(super) struct Meter {
    pub(super) adds: Counter,
    pub(super) retries: Counter,
    pub(super) depth: Gauge,
    pub(super) waited: Histogram,
    pub(super) worked: Histogram,
}

impl Meter {
    pub(super) fn new(name: &'static str, state: &Arc<Mutex<State>>) -> Self {
        let mut queues = QUEUES.lock();
        queues.retain(|(_, state)| state.strong_count() > 0);
        queues.push((name, Arc::downgrade(state)));
        let labels = Labels { name };
        Self {
            adds: METRICS.adds.get_or_create(&labels).clone(),
            retries: METRICS.retries.get_or_create(&labels).clone(),
            depth: METRICS.depth.get_or_create(&labels).clone(),
            waited: METRICS.waited.get_or_create(&labels).clone(),
            worked: METRICS.worked.get_or_create(&labels).clone(),
        }
    }
}
