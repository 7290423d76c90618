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

/// What a scheduler counts. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
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
    panics: Counter,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// They are on no page: nobody else counts with them.
impl Default for Metrics {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(seconds),
            algorithm_seconds: seconds(),
            point_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0001, 2.0, 12))),
            sli_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 20))),
            pod_attempts: Histogram::new(exponential_buckets(1.0, 2.0, 5)),
            pending: Family::default(),
            incoming: Family::default(),
            preemptions: Counter::default(),
            victims: Histogram::new(exponential_buckets(1.0, 2.0, 7)),
            panics: Counter::default(),
        }
    }
}

/// Those of the server's page.
static OF_THE_PAGE: LazyLock<Metrics> = LazyLock::new(|| {
    let metrics = Metrics::default();
    metrics.register(Page::Server);
    metrics
});

impl Metrics {
    /// Those of the server's page: all schedulers of the process that have them count together.
    pub(crate) fn of_the_page() -> Self {
        OF_THE_PAGE.clone()
    }

    fn register(&self, page: Page) {
        let help = "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem";
        page.register("scheduler_schedule_attempts", help, self.attempts.clone());
        let help = "Scheduling attempt latency in seconds (scheduling algorithm + binding)";
        page.register("scheduler_scheduling_attempt_duration_seconds", help, self.attempt_seconds.clone());
        let help = "Scheduling algorithm latency in seconds";
        page.register("scheduler_scheduling_algorithm_duration_seconds", help, self.algorithm_seconds.clone());
        let help = "Latency for running all plugins of a specific extension point.";
        page.register("scheduler_framework_extension_point_duration_seconds", help, self.point_seconds.clone());
        let help = "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts";
        page.register("scheduler_pod_scheduling_sli_duration_seconds", help, self.sli_seconds.clone());
        let help = "Number of attempts to successfully schedule a pod";
        page.register("scheduler_pod_scheduling_attempts", help, self.pod_attempts.clone());
        page.register("scheduler_pending_pods", "Number of pending pods, by the queue type", self.pending.clone());
        let help = "Number of pods added to scheduling queues by event and queue type";
        page.register("scheduler_queue_incoming_pods", help, self.incoming.clone());
        let help = "Total preemption attempts in the cluster till now";
        page.register("scheduler_preemption_attempts", help, self.preemptions.clone());
        page.register("scheduler_preemption_victims", "Number of selected preemption victims", self.victims.clone());
        let help = "Number of panics after which the scheduler has begun anew";
        page.register("knarr_scheduler_panics", help, self.panics.clone());
    }

    /// One decision was made.
    pub(crate) fn decided(&self, took: Duration) {
        self.algorithm_seconds.observe(took.as_secs_f64());
    }

    /// All plugins were asked at a point of the framework that is named as upstream's, with the code that came of it.
    pub(crate) fn ran(&self, extension_point: &'static str, profile: &str, status: &'static str, took: Duration) {
        let labels = Ran { extension_point, profile: profile.to_owned(), status };
        self.point_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// One attempt is over.
    pub(crate) fn attempted(&self, profile: &str, outcome: Outcome, trial: Trial) {
        let labels = Attempt { profile: profile.to_owned(), result: outcome.name() };
        self.attempts.get_or_create(&labels).inc();
        self.attempt_seconds.get_or_create(&labels).observe(trial.started.elapsed().as_secs_f64());
        if outcome == Outcome::Scheduled {
            let labels = Attempts { attempts: number(trial.attempts) };
            self.sli_seconds.get_or_create(&labels).observe(trial.entered.elapsed().as_secs_f64());
            self.pod_attempts.observe(f64::from(trial.attempts));
        }
    }

    /// A pod made others go.
    pub(crate) fn preempted(&self, victims: usize) {
        self.preemptions.inc();
        self.victims.observe(victims as f64);
    }

    /// The scheduler begins anew.
    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    /// How many attempts of the default profile have ended so.
    #[cfg(test)]
    pub(crate) fn attempts(&self, outcome: Outcome) -> u64 {
        let profile = crate::profile::DEFAULT.to_owned();
        self.attempts.get_or_create(&Attempt { profile, result: outcome.name() }).get()
    }
}

/// How an attempt to give a pod a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Scheduled,
    Unschedulable,
    Error,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Unschedulable => "unschedulable",
            Self::Error => "error",
        }
    }
}

/// The number of attempts as a label: told up to 15, as upstream.
fn number(attempts: u32) -> &'static str {
    const NUMBERS: [&str; 15] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
    NUMBERS.get(attempts.saturating_sub(1) as usize).copied().unwrap_or("16+")
}

/// What a queue counts.
#[derive(Debug)]
pub(crate) struct Pending {
    active: Gauge,
    backoff: Gauge,
    unschedulable: Gauge,
    incoming: Family<Coming, Counter>,
}

impl Pending {
    /// What it counts is part of `metrics`.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauge = |queue| metrics.pending.get_or_create(&Waiting { queue }).clone();
        let [active, backoff, unschedulable] = ["active", "backoff", "unschedulable"].map(gauge);
        // Those of a scheduler that has panicked are gone with its queue.
        for gauge in [&active, &backoff, &unschedulable] {
            gauge.set(0);
        }
        Self { active, backoff, unschedulable, incoming: metrics.incoming.clone() }
    }

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
    pub(crate) fn came(&self, place: Place, event: &'static str) {
        let queue = match place {
            Place::Active => "active",
            Place::Backoff(..) => "backoff",
            Place::Unschedulable => "unschedulable",
            Place::Trying => return,
        };
        self.incoming.get_or_create(&Coming { event, queue }).inc();
    }

    /// How many have come to a queue for a reason.
    #[cfg(test)]
    pub(crate) fn incoming(&self, queue: &'static str, event: &'static str) -> u64 {
        self.incoming.get_or_create(&Coming { event, queue }).get()
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
