//! The one loop that runs every controller.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::LazyLock;

use base::readiness::Part;
use base::tasks::{OnFailure, Tasks};
use client::Key;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::queue::Queue;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    controller: &'static str,
    result: &'static str,
}

static RECONCILIATIONS: LazyLock<Family<ResultLabels, Counter>> = LazyLock::new(|| {
    let help = "Reconciliations by controller and result";
    base::metrics::Page::Server.register("knarr_controller_reconciliations", help, Family::default())
});

/// Runs `controller` under `tasks`; `ready` hears when its caches are complete.
pub(crate) fn start<C: Controller>(controller: C, cx: Cx, tasks: &Tasks, ready: Part) {
    let run = run(controller, cx, ready);
    tasks.spawn_until_cancelled(format!("controller {}", C::NAME), OnFailure::Shutdown, run);
}

async fn run<C: Controller>(controller: C, cx: Cx, ready: Part) -> Result<(), Infallible> {
    let queue = Queue::new(C::NAME, C::RETRY_MAX);
    let (synced, feeds): (Vec<_>, Vec<_>) =
        controller.sources().into_iter().map(|Source { synced, feed }| (synced, feed)).unzip();
    join_all(synced).await;
    tracing::debug!(controller = C::NAME, "caches are complete");
    ready.ready();
    let feeds = join_all(feeds.into_iter().map(|feed| feed(queue.clone())));
    tokio::select! {
        _ = feeds => {}
        () = work(Arc::new(controller), cx, queue) => {}
    }
    Ok(())
}

async fn work<C: Controller>(controller: Arc<C>, cx: Cx, queue: Queue) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            key = queue.next(), if running.len() < C::CONCURRENCY => {
                running.push(one(controller.clone(), &cx, &queue, key));
            }
            Some(()) = running.next() => {}
        }
    }
}

async fn one<C: Controller>(controller: Arc<C>, cx: &Cx, queue: &Queue, key: Key) {
    let result = controller.reconcile(cx, &key).await;
    let label = if result.is_ok() { "success" } else { "error" };
    RECONCILIATIONS.get_or_create(&ResultLabels { controller: C::NAME, result: label }).inc();
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
