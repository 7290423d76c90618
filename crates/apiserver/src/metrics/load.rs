//! Requests under way.

use std::any::Any;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use base::metrics::Page;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::{About, Asked, Histograms, answered};

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
}

/// What a watch shows first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listed {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    scope: &'static str,
}

struct Metrics {
    long_running: Family<About, Gauge>,
    watch_events: Family<Kind, Counter>,
    watch_sizes: Histograms<Kind>,
    watch_lists: Histograms<Listed>,
    handshakes: Counter,
}

const LISTED: [f64; 17] = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    Page::Server.observe(
        "apiserver_current_inflight_requests",
        "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
        |tell| {
            let now = second();
            tell(&[("request_kind", "mutating")], MUTATING.most(now) as f64);
            tell(&[("request_kind", "readOnly")], READ_ONLY.most(now) as f64);
        },
    );
    Metrics {
        long_running: Page::Server.register(
            "apiserver_longrunning_requests",
            "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component",
            Family::default(),
        ),
        watch_events: Page::Server.register(
            "apiserver_watch_events",
            "Number of events sent in watch clients",
            Family::default(),
        ),
        watch_sizes: Page::Server.register(
            "apiserver_watch_events_sizes",
            "Watch event size distribution in bytes",
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(1024.0, 2.0, 8))),
        ),
        watch_lists: Page::Server.register(
            "apiserver_watch_list_duration_seconds",
            "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
            Family::new_with_constructor(|| Histogram::new(LISTED)),
        ),
        handshakes: Page::Server.register(
            "apiserver_tls_handshake_errors",
            "Number of requests dropped with 'TLS handshake error from' error",
            Counter::default(),
        ),
    }
});

/// Counts a connection whose handshake failed.
pub(crate) fn handshake_failed() {
    METRICS.handshakes.inc();
}

/// How many requests are under way, and how many were at most in the last second.
#[derive(Default)]
struct Load {
    now: AtomicI64,
    most: AtomicI64,
    /// The second that `most` is of.
    second: AtomicU64,
}

static READ_ONLY: Load = Load::new();
static MUTATING: Load = Load::new();
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn second() -> u64 {
    START.elapsed().as_secs()
}

impl Load {
    const fn new() -> Self {
        Self { now: AtomicI64::new(0), most: AtomicI64::new(0), second: AtomicU64::new(0) }
    }

    // A race between two requests can lose a figure of one second, which is no matter for a gauge.
    fn begin(&self, second: u64) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        if self.second.swap(second, Ordering::Relaxed) == second {
            self.most.fetch_max(now, Ordering::Relaxed);
        } else {
            self.most.store(now, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    fn most(&self, second: u64) -> i64 {
        let now = self.now.load(Ordering::Relaxed);
        let recent = self.second.load(Ordering::Relaxed) + 1 >= second;
        if recent { now.max(self.most.load(Ordering::Relaxed)) } else { now }
    }
}

/// A short request that is under way, until dropped.
pub(crate) struct InFlight(&'static Load);

impl InFlight {
    /// None for requests that last.
    pub(crate) fn begin(asked: &Asked) -> Option<Self> {
        LazyLock::force(&METRICS);
        let load = if asked.is_read_only() { &READ_ONLY } else { &MUTATING };
        (!asked.is_long_running()).then(|| {
            load.begin(second());
            Self(load)
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A watch or a connection. It ends, and is counted, when the last who holds it lets go.
pub(crate) struct Ongoing {
    asked: Asked,
    started: Instant,
    code: AtomicU16,
    gauge: Gauge,
    events: Counter,
    sizes: Histogram,
    /// What lasts as long.
    kept: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Ongoing {
    /// None for short requests.
    pub(crate) fn begin(asked: &Asked, started: Instant) -> Option<Arc<Self>> {
        if !asked.is_long_running() {
            return None;
        }
        let About { group, version, resource, .. } = asked.about;
        let kind = Kind { group, version, resource };
        let gauge = METRICS.long_running.get_or_create(&asked.about).clone();
        gauge.inc();
        Some(Arc::new(Self {
            asked: *asked,
            started,
            code: AtomicU16::new(0),
            gauge,
            events: METRICS.watch_events.get_or_create(&kind).clone(),
            sizes: METRICS.watch_sizes.get_or_create(&kind).clone(),
            kept: Mutex::default(),
        }))
    }

    /// Keeps something until the end: a place, a record.
    pub(crate) fn keep(&self, guard: impl Any + Send) {
        self.kept.lock().push(Box::new(guard));
    }

    /// How it was answered.
    pub(crate) fn answered(&self, code: u16) {
        self.code.store(code, Ordering::Relaxed);
    }

    /// One event of a watch was sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.events.inc();
        self.sizes.observe(bytes as f64);
    }

    /// A watch that shows what there is before what changes (KEP-3157) has shown it.
    pub(crate) fn listed(&self) {
        let About { group, version, resource, scope, .. } = self.asked.about;
        let labels = Listed { group, version, resource, scope };
        METRICS.watch_lists.get_or_create(&labels).observe(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.gauge.dec();
        answered(&self.asked, self.code.load(Ordering::Relaxed), None, self.started.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_the_last_second_is_told() {
        let load = Load::default();
        load.begin(1);
        load.begin(1);
        load.end();
        assert_eq!((load.most(1), load.most(2), load.most(3)), (2, 2, 1));
        load.begin(5);
        load.end();
        load.end();
        assert_eq!((load.most(5), load.most(7)), (2, 0));
    }
}
