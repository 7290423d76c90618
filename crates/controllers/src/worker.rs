//! The one loop that runs every controller.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::LazyLock;

use base::readiness::Part;
use base::tasks::{OnFailure, Tasks, panic_message};
use client::Key;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Running {
    name: &'static str,
    manager: &'static str,
}

static RUNNING: LazyLock<Family<Running, Gauge>> = LazyLock::new(|| {
    let help = "Indicates where instances of a controller are currently running";
    base::metrics::Page::Server.register("running_managed_controllers", help, Family::default())
});

/// A controller runs here until this is dropped.
struct Runs(Gauge);

impl Runs {
    fn new(name: &'static str) -> Self {
        let gauge = RUNNING.get_or_create(&Running { name, manager: "kube-controller-manager" }).clone();
        gauge.set(1);
        Self(gauge)
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

/// Runs `controller` under `tasks`; `ready` hears when its caches are complete.
pub fn start<C: Controller>(controller: C, cx: Cx, tasks: &Tasks, ready: Part) {
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
    let _runs = Runs::new(C::NAME);
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
    // A panic costs a retry of this key, and neither the other keys nor the process: the next look begins anew, from the caches.
    let looked = AssertUnwindSafe(controller.reconcile(cx, &key)).catch_unwind().await;
    let result = looked.unwrap_or_else(|panic| Err(Error::Other(format!("panic: {}", panic_message(&*panic)))));
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
    queue.done(&key, controller.rest(&key));
}

/// Conflicts and vanished objects are how optimistic writers live; the rest deserves attention.
fn log(controller: &str, key: &Key, error: &Error) {
    match error.code() {
        Some(404 | 409) => tracing::debug!(controller, %key, %error, "again"),
        _ => tracing::warn!(controller, %key, %error, "reconciliation failed, again later"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use base::readiness::Readiness;
    use client::events::Recorder;
    use client::fake::Fake;
    use tokio::sync::Notify;

    use super::*;
    use crate::Clock;

    /// Panics at its first look at "bad".
    struct Panics {
        looks: AtomicU32,
        good: Arc<Notify>,
    }

    impl Controller for Panics {
        const NAME: &'static str = "panics";
        const ACCOUNT: &'static str = "panics";

        fn sources(&self) -> Vec<Source> {
            vec![Source::once(vec![Key::cluster("bad")])]
        }

        async fn reconcile(&self, _: &Cx, _: &Key) -> Result<Action, Error> {
            assert!(self.looks.fetch_add(1, Ordering::Relaxed) > 0, "the first look");
            self.good.notify_one();
            Ok(Action::Done)
        }
    }

    #[tokio::test]
    async fn a_panic_costs_one_retry() {
        let (tasks, mut failures) = Tasks::root();
        let client = Fake::default().client();
        let cx = Cx { events: Recorder::new(client.clone(), "panics", "", &tasks), client, clock: Clock::system() };
        let good = Arc::new(Notify::new());
        let part = Readiness::default().gate("controllers").parts(["panics"]).remove(0);
        start(Panics { looks: AtomicU32::new(0), good: good.clone() }, cx, &tasks, part);
        tokio::select! {
            () = good.notified() => {}
            failure = failures.recv() => panic!("{failure:?}"),
        }
    }
}
