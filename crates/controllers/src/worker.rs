//! The one loop that runs every controller.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::LazyLock;

use base::tasks::{OnFailure, Tasks};
use client::Key;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::time::Instant;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::queue::Queue;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    controller: &'static str,
}

struct Metrics {
    reconciliations: Family<ResultLabels, Counter>,
    seconds: Family<Labels, Histogram>,
    depth: Family<Labels, Gauge>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let seconds = Family::new_with_constructor((|| Histogram::new(exponential_buckets(0.0001, 4.0, 9))) as fn() -> Histogram);
    Metrics {
        reconciliations: base::metrics::register("controller_reconciliations", "Reconciliations by result", Family::default()),
        seconds: base::metrics::register("controller_reconcile_seconds", "Time of one reconciliation", seconds),
        depth: base::metrics::register("controller_queue_depth", "Keys that wait for a worker", Family::default()),
    }
});

/// Runs `controller` under `tasks`.
pub(crate) fn start<C: Controller>(controller: C, cx: Cx, tasks: &Tasks) {
    let run = run(controller, cx);
    tasks.spawn_until_cancelled(format!("controller {}", C::NAME), OnFailure::Shutdown, run);
}

async fn run<C: Controller>(controller: C, cx: Cx) -> Result<(), Infallible> {
    let queue = Queue::default();
    let (synced, feeds): (Vec<_>, Vec<_>) =
        controller.sources().into_iter().map(|Source { synced, feed }| (synced, feed)).unzip();
    join_all(synced).await;
    tracing::debug!(controller = C::NAME, "caches are complete");
    let feeds = join_all(feeds.into_iter().map(|feed| feed(queue.clone())));
    tokio::select! {
        _ = feeds => {}
        () = work(Arc::new(controller), cx, queue) => {}
    }
    Ok(())
}

async fn work<C: Controller>(controller: Arc<C>, cx: Cx, queue: Queue) {
    let labels = Labels { controller: C::NAME };
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            key = queue.next(), if running.len() < C::CONCURRENCY => {
                METRICS.depth.get_or_create(&labels).set(i64::try_from(queue.depth()).unwrap_or(i64::MAX));
                running.push(one(controller.clone(), &cx, &queue, key));
            }
            Some(()) = running.next() => {}
        }
    }
}

async fn one<C: Controller>(controller: Arc<C>, cx: &Cx, queue: &Queue, key: Key) {
    let start = Instant::now();
    let result = controller.reconcile(cx, &key).await;
    METRICS.seconds.get_or_create(&Labels { controller: C::NAME }).observe(start.elapsed().as_secs_f64());
    let label = if result.is_ok() { "success" } else { "error" };
    METRICS.reconciliations.get_or_create(&ResultLabels { controller: C::NAME, result: label }).inc();
    match result {
        Ok(action) => {
            queue.succeeded(&key);
            if let Action::After(delay) = action {
                queue.add_after(key.clone(), delay);
            }
        }
        Err(error) => {
            log(C::NAME, &key, &error);
            queue.retry(key.clone());
        }
    }
    queue.done(&key);
}

/// Conflicts and vanished objects are how optimistic writers live; the rest deserves attention.
fn log(controller: &str, key: &Key, error: &Error) {
    match error.code() {
        Some(404 | 409) => tracing::debug!(controller, %key, %error, "again"),
        _ => tracing::warn!(controller, %key, %error, "reconciliation failed, again later"),
    }
}
