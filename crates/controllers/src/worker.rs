//! The one loop that runs every controller.

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use base::readiness::Part;
use base::tasks::{OnFailure, Tasks, panic_message};
use client::Key;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
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
    let told = Told::default();
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            key = queue.next(), if running.len() < C::CONCURRENCY => {
                running.push(one(controller.clone(), &cx, &queue, &told, key));
            }
            Some(()) = running.next() => {}
        }
    }
}

async fn one<C: Controller>(controller: Arc<C>, cx: &Cx, queue: &Queue, told: &Told, key: Key) {
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
            log(C::NAME, &key, &error, told);
            queue.retry(key.clone());
        }
    }
    queue.done(&key, controller.rest(&key));
}

/// Conflicts and vanished objects are how optimistic writers live; the rest deserves attention.
fn log(controller: &str, key: &Key, error: &Error, told: &Told) {
    match error.code() {
        Some(404 | 409) => tracing::debug!(controller, %key, %error, "again"),
        _ if told.is_due(key, Instant::now()) => tracing::warn!(controller, %key, %error, "reconciliation failed, again later"),
        _ => tracing::debug!(controller, %key, %error, "reconciliation failed, again later"),
    }
}

/// Of which keys failures were told lately. Some failures are an object's own, which its author can mend and nobody else, and each change of
/// what it is about leads to the next one: whoever writes objects must not fill the log.
#[derive(Default)]
struct Told(Mutex<HashMap<Key, Instant>>);

impl Told {
    /// Time between two lines about a key.
    const PAUSE: Duration = Duration::from_secs(60);
    /// Keys that are remembered. Where more fail within the time between two lines, nothing is told of the others.
    const MOST: usize = 1024;

    /// Whether a failure is to be told.
    fn is_due(&self, key: &Key, now: Instant) -> bool {
        let mut told = self.0.lock();
        if told.get(key).is_some_and(|last| now.duration_since(*last) < Self::PAUSE) {
            return false;
        }
        if told.len() >= Self::MOST {
            told.retain(|_, last| now.duration_since(*last) < Self::PAUSE);
        }
        if told.len() >= Self::MOST {
            return false;
        }
        told.insert(key.clone(), now);
        true
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

    #[test]
    fn failures_of_a_key_are_told_once_a_minute() {
        let (told, now, key) = (Told::default(), Instant::now(), Key::cluster);
        let after = |seconds: u64| now + Duration::from_secs(seconds);
        assert_eq!([0, 1, 59, 60, 61].map(|second| told.is_due(&key("a"), after(second))), [true, false, false, true, false]);
        assert!(told.is_due(&key("b"), after(61)));
        let others = (0..2 * Told::MOST).filter(|number| told.is_due(&Key::cluster(number.to_string()), after(62))).count();
        assert_eq!(
            (others, told.0.lock().len()),
            (Told::MOST - 2, Told::MOST),
            "what is young stays, and nothing is told of others"
        );
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
