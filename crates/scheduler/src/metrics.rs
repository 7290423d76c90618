//! The scheduler's figures, under upstream's names.

use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::{Histograms, Page};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::queue::place::{Place, Trial};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    profile: String,
    result: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempts {
    attempts: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    queue: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Coming {
    event: &'static str,
    queue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ran {
    extension_point: &'static str,
    profile: String,
    status: &'static str,
}

struct Metrics {
    attempts: Family<Attempt, Counter>,
    attempt_seconds: Histograms<Attempt>,
    algorithm_seconds: Histogram,
    point_seconds: Histograms<Ran>,
    sli_seconds: Histograms<Attempts>,
    pod_attempts: Histogram,
    pending: Family<Waiting, Gauge>,
    incoming: Family<Coming, Counter>,
    preemptions: Counter,
    victims: Histogram,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    Metrics {
    attempts: Page::Server.register(
        "scheduler_schedule_attempts",
        "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem",
        Family::default(),
    ),
    attempt_seconds: Page::Server.register(
        "scheduler_scheduling_attempt_duration_seconds",
        "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
        Family::new_with_constructor(seconds),
    ),
    algorithm_seconds: Page::Server.register(
        "scheduler_scheduling_algorithm_duration_seconds",
        "Scheduling algorithm latency in seconds",
        seconds(),
    ),
    point_seconds: Page::Server.register(
        "scheduler_framework_extension_point_duration_seconds",
        "Latency for running all plugins of a specific extension point.",
        Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0001, 2.0, 12))),
    ),
    sli_seconds: Page::Server.register(
        "scheduler_pod_scheduling_sli_duration_seconds",
        "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts",
        Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 20))),
    ),
    pod_attempts: Page::Server.register(
        "scheduler_pod_scheduling_attempts",
        "Number of attempts to successfully schedule a pod",
        Histogram::new(exponential_buckets(1.0, 2.0, 5)),
    ),
    pending: Page::Server.register(
        "scheduler_pending_pods",
        "Number of pending pods, by the queue type",
        Family::default(),
    ),
    incoming: Page::Server.register(
        "scheduler_queue_incoming_pods",
        "Number of pods added to scheduling queues by event and queue type",
        Family::default(),
    ),
    preemptions: Page::Server.register(
        "scheduler_preemption_attempts",
        "Total preemption attempts in the cluster till now",
        Counter::default(),
    ),
    victims: Page::Server.register(
        "scheduler_preemption_victims",
        "Number of selected preemption victims",
        Histogram::new(exponential_buckets(1.0, 2.0, 7)),
    ),
}
});

/// How an attempt to give a pod a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Scheduled,
    Unschedulable,
    Error,
}

/// One decision was made.
pub(crate) fn decided(took: Duration) {
    METRICS.algorithm_seconds.observe(took.as_secs_f64());
}

/// All plugins were asked at a point of the framework that is named as upstream's, with the code that came of it.
pub(crate) fn ran(extension_point: &'static str, profile: &str, status: &'static str, took: Duration) {
    let labels = Ran { extension_point, profile: profile.to_owned(), status };
    METRICS.point_seconds.get_or_create(&labels).observe(took.as_secs_f64());
}

/// One attempt is over.
pub(crate) fn attempted(profile: &str, outcome: Outcome, trial: Trial) {
    let result = match outcome {
        Outcome::Scheduled => "scheduled",
        Outcome::Unschedulable => "unschedulable",
        Outcome::Error => "error",
    };
    let labels = Attempt { profile: profile.to_owned(), result };
    METRICS.attempts.get_or_create(&labels).inc();
    METRICS.attempt_seconds.get_or_create(&labels).observe(trial.started.elapsed().as_secs_f64());
    if outcome == Outcome::Scheduled {
        let labels = Attempts { attempts: number(trial.attempts) };
        METRICS.sli_seconds.get_or_create(&labels).observe(trial.entered.elapsed().as_secs_f64());
        METRICS.pod_attempts.observe(f64::from(trial.attempts));
    }
}

/// The number of attempts as a label: told up to 15, as upstream.
fn number(attempts: u32) -> &'static str {
    const NUMBERS: [&str; 15] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
    NUMBERS.get(attempts.saturating_sub(1) as usize).copied().unwrap_or("16+")
}

/// A pod made others go.
pub(crate) fn preempted(victims: usize) {
    METRICS.preemptions.inc();
    METRICS.victims.observe(victims as f64);
}

/// The gauges of a queue.
#[derive(Debug)]
pub(crate) struct Pending {
    active: Gauge,
    backoff: Gauge,
    unschedulable: Gauge,
}

impl Default for Pending {
    fn default() -> Self {
        let gauge = |queue| METRICS.pending.get_or_create(&Waiting { queue }).clone();
        Self { active: gauge("active"), backoff: gauge("backoff"), unschedulable: gauge("unschedulable") }
    }
}

impl Pending {
    /// A pod has gone from one place to another; none is outside of the queue.
    pub(crate) fn moved(&self, from: Option<Place>, to: Option<Place>) {
        if let Some(gauge) = from.and_then(|place| self.gauge(place)) {
            gauge.dec();
        }
        if let Some(gauge) = to.and_then(|place| self.gauge(place)) {
            gauge.inc();
        }
    }

    /// A pod has come to one of the queues for this reason.
    pub(crate) fn came(place: Place, event: &'static str) {
        let queue = match place {
            Place::Active => "active",
            Place::Backoff(..) => "backoff",
            Place::Unschedulable => "unschedulable",
            Place::Trying => return,
        };
        METRICS.incoming.get_or_create(&Coming { event, queue }).inc();
    }

    /// How many have come to a queue for a reason.
    #[cfg(test)]
    pub(crate) fn incoming(queue: &'static str, event: &'static str) -> u64 {
        METRICS.incoming.get_or_create(&Coming { event, queue }).get()
    }

    fn gauge(&self, place: Place) -> Option<&Gauge> {
        match place {
            Place::Active => Some(&self.active),
            Place::Backoff(..) => Some(&self.backoff),
            Place::Unschedulable => Some(&self.unschedulable),
            Place::Trying => None,
        }
    }

    /// How many pods are in each place, in the order of the fields.
    #[cfg(test)]
    pub(crate) fn numbers(&self) -> [i64; 3] {
        [self.active.get(), self.backoff.get(), self.unschedulable.get()]
    }
}
