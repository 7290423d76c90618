//! API priority and fairness: all of it is kept by [`Fairness`] and read at the scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use base::metrics::Page;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::fairness::Fairness;
use crate::fairness::seat::{Level, State};
use crate::fairness::stats::{Histogram, Stats};

/// Tells of these levels and schemas, at each scrape.
pub(crate) fn observe(fairness: Weak<Fairness>) {
    Page::Server.collect(Box::new(Levels(fairness)));
}

#[derive(Debug)]
struct Levels(Weak<Fairness>);

/// Gauges of levels.
type OfLevel = (&'static str, &'static str, fn(&Level, &State) -> Option<f64>);

fn limited(level: &Level, value: impl Into<f64>) -> Option<f64> {
    level.exempt.is_none().then(|| value.into())
}

const LEVELS: &[OfLevel] = &[
    ("nominal_limit_seats", "Nominal number of execution seats configured for each priority level", |_, state| {
        Some(state.bounds.nominal.into())
    }),
    ("lower_limit_seats", "Configured lower bound on number of execution seats available to each priority level", |_, state| {
        Some(state.bounds.lower.into())
    }),
    ("upper_limit_seats", "Configured upper bound on number of execution seats available to each priority level", |_, state| {
        Some(state.bounds.upper.into())
    }),
    ("current_limit_seats", "current derived number of execution seats available to each priority level", |_, state| {
        Some(state.queues.limit().into())
    }),
    ("demand_seats_high_watermark", "High watermark, over last adjustment period, of demand_seats", |_, state| {
        Some(state.demand.most.into())
    }),
    ("demand_seats_average", "Time-weighted average, over last adjustment period, of demand_seats", |level, state| {
        limited(level, state.demand.average)
    }),
    ("demand_seats_stdev", "Time-weighted standard deviation, over last adjustment period, of demand_seats", |level, state| {
        limited(level, state.demand.deviation)
    }),
    ("demand_seats_smoothed", "Smoothed seat demands", |level, state| limited(level, state.demand.smoothed)),
    ("target_seats", "Seat allocation targets", |level, state| limited(level, state.target)),
    ("current_r", "R(time of last change)", |level, state| limited(level, state.queues.virtual_time())),
];

/// Histograms of how much of a level is in use, with the phase that their samples have as a label.
type OfUse = (&'static str, &'static str, &'static [(Option<&'static str>, fn(&State) -> &crate::fairness::stats::Timing)]);

const USE: &[OfUse] = &[
    (
        "priority_level_seat_utilization",
        "Observations, at the end of every nanosecond, of utilization of seats for any stage of execution (but only initial stage for WATCHes)",
        &[(Some("executing"), |state| &state.use_of.seats)],
    ),
    (
        "priority_level_request_utilization",
        "Observations, at the end of every nanosecond, of number of requests (as a fraction of the relevant limit) waiting or in any stage of execution (but only initial stage for WATCHes)",
        &[(Some("executing"), |state| &state.use_of.executing), (Some("waiting"), |state| &state.use_of.waiting)],
    ),
    (
        "demand_seats",
        "Observations, at the end of every nanosecond, of (the number of seats each priority level could use) / (nominal number of seats for that level)",
        &[(None, |state| &state.use_of.demand)],
    ),
];

/// Counters of flows: what their samples have as another label, and their value.
type Counted = (&'static str, &'static str, fn(&Stats) -> Vec<(Option<(&'static str, &'static str)>, u64)>);

const COUNTED: &[Counted] = &[
    ("dispatched_requests", "Number of requests executed by API Priority and Fairness subsystem", |stats| {
        vec![(None, stats.dispatched)]
    }),
    ("rejected_requests", "Number of requests rejected by API Priority and Fairness subsystem", |stats| {
        let reason = |name, count| (Some(("reason", name)), count);
        let all = [
            reason("queue-full", stats.queue_full),
            reason("concurrency-limit", stats.concurrency_limit),
            reason("time-out", stats.timed_out),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }),
    (
        "request_dispatch_no_accommodation",
        "Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats",
        |stats| if stats.unaccommodated > 0 { vec![(None, stats.unaccommodated)] } else { Vec::new() },
    ),
];

/// Histograms of flows: what their samples have as another label, and the histogram.
type Observed = (&'static str, &'static str, fn(&Stats) -> Vec<(Option<(&'static str, &'static str)>, &Histogram)>);

const OBSERVED: &[Observed] = &[
    (
        "request_queue_length_after_enqueue",
        "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
        |stats| vec![(None, &stats.lengths)],
    ),
    ("request_wait_duration_seconds", "Length of time a request spent waiting in its queue", |stats| {
        vec![(Some(("execute", "true")), &stats.waited), (Some(("execute", "false")), &stats.waited_in_vain)]
    }),
    (
        "request_execution_seconds",
        "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
        |stats| vec![(Some(("type", "regular")), &stats.executed), (Some(("type", "watch")), &stats.watches)],
    ),
    (
        "work_estimated_seats",
        "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
        |stats| vec![(None, &stats.seats)],
    ),
    ("watch_count_samples", "count of watchers for mutating requests in API Priority and Fairness", |stats| {
        vec![(None, &stats.watchers)]
    }),
];

/// Requests of one flow at this moment.
#[derive(Clone, Copy, Debug, Default)]
struct Present {
    waiting: u32,
    seats_waiting: u32,
    executing: u32,
    seats: u32,
}

/// Gauges of flows.
type OfPresent = (&'static str, &'static str, fn(&Present) -> u32);

const PRESENT: &[OfPresent] = &[
    (
        "current_inqueue_requests",
        "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        |present| present.waiting,
    ),
    (
        "current_inqueue_seats",
        "Number of seats currently pending in queues of the API Priority and Fairness subsystem",
        |present| present.seats_waiting,
    ),
    (
        "current_executing_requests",
        "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
        |present| present.executing,
    ),
    (
        "current_executing_seats",
        "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
        |present| present.seats,
    ),
];

fn full(name: &str) -> String {
    format!("apiserver_flowcontrol_{name}")
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(fairness) = self.0.upgrade() else { return Ok(()) };
        let snapshot = fairness.snapshot();
        for (name, help, value) in LEVELS {
            let name = full(name);
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for level in snapshot.levels.values() {
                if let Some(value) = value(level, &level.state.lock()) {
                    tell(&mut metric, &[("priority_level", &level.name)], &ConstGauge::new(value))?;
                }
            }
        }
        let fair = "Fair fraction of server's concurrency to allocate to each priority level that can use it";
        let name = full("seat_fair_frac");
        let mut metric = encoder.encode_descriptor(&name, fair, None, MetricType::Gauge)?;
        tell(&mut metric, &[], &ConstGauge::new(fairness.fair_part()))?;
        encode_bounds(&mut encoder, &snapshot.levels)?;
        for (name, help, timings) in USE {
            let name = full(name);
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
            for level in snapshot.levels.values().filter(|level| level.exempt.is_none()) {
                for (phase, timing) in *timings {
                    let histogram = timing(&level.state.lock()).read(crate::fairness::now());
                    let phase = phase.map(|phase| ("phase", phase));
                    let labels: Vec<_> = phase.into_iter().chain([("priority_level", level.name.as_str())]).collect();
                    tell(&mut metric, &labels, &histogram)?;
                }
            }
        }
        self.encode_flows(&mut encoder, &fairness)
    }
}

impl Levels {
    fn encode_flows(&self, encoder: &mut DescriptorEncoder<'_>, fairness: &Fairness) -> fmt::Result {
        let snapshot = fairness.snapshot();
        let all: Vec<(&str, &str, Stats)> =
            snapshot.flows.iter().map(|flow| (flow.level.name.as_str(), flow.name.as_str(), flow.stats.lock().clone())).collect();
        for (name, help, counts) in COUNTED {
            let name = full(name);
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (level, flow, stats) in &all {
                for (label, count) in counts(stats) {
                    let labels: Vec<_> = [("priority_level", *level), ("flow_schema", *flow)].into_iter().chain(label).collect();
                    tell(&mut metric, &labels, &ConstCounter::new(count))?;
                }
            }
        }
        for (name, help, histograms) in OBSERVED {
            let name = full(name);
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
            for (level, flow, stats) in &all {
                for (label, histogram) in histograms(stats).into_iter().filter(|(_, histogram)| histogram.count() > 0) {
                    let labels: Vec<_> = [("priority_level", *level), ("flow_schema", *flow)].into_iter().chain(label).collect();
                    tell(&mut metric, &labels, histogram)?;
                }
            }
        }
        let present = present(fairness);
        for (name, help, value) in PRESENT {
            let name = full(name);
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for ((level, flow), present) in &present {
                let labels = [("priority_level", level.as_str()), ("flow_schema", flow.as_str())];
                tell(&mut metric, &labels, &ConstGauge::new(f64::from(value(present))))?;
            }
        }
        Ok(())
    }
}

/// The least and the most of what the queues of a level that have somebody waiting are at in virtual time.
fn encode_bounds(encoder: &mut DescriptorEncoder<'_>, levels: &BTreeMap<String, Arc<Level>>) -> fmt::Result {
    let help = "min and max, over queues, of S(oldest waiting request in queue)";
    let name = full("next_s_bounds");
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
    for level in levels.values() {
        let state = level.state.lock();
        let waiting = || state.queues.queues().iter().filter(|queue| !queue.waiting.is_empty()).map(|queue| queue.next_dispatch);
        let bounds = [("min", waiting().reduce(f64::min)), ("max", waiting().reduce(f64::max))];
        for (bound, value) in bounds.into_iter().filter_map(|(bound, value)| Some((bound, value?))) {
            tell(&mut metric, &[("bound", bound), ("priority_level", &level.name)], &ConstGauge::new(value))?;
        }
    }
    Ok(())
}

/// What each flow has waiting and executed now.
fn present(fairness: &Fairness) -> BTreeMap<(String, String), Present> {
    let mut all: BTreeMap<(String, String), Present> = BTreeMap::new();
    for level in fairness.snapshot().levels.values() {
        let state = level.state.lock();
        for (_, request) in state.queues.requests().filter(|(_, request)| !request.released) {
            let one = all.entry((level.name.clone(), request.guest.flow.name.clone())).or_default();
            let (count, seats) = match request.started {
                Some(_) => (&mut one.executing, &mut one.seats),
                None => (&mut one.waiting, &mut one.seats_waiting),
            };
            *count += 1;
            *seats += request.work.seats;
        }
    }
    // Who has nothing now is told as well: a gauge that is missing is not 0.
    for flow in fairness.snapshot().flows.iter().filter(|flow| flow.level.exempt.is_none()) {
        all.entry((flow.level.name.clone(), flow.name.clone())).or_default();
    }
    all
}

fn tell(metric: &mut MetricEncoder<'_>, labels: &[(&str, &str)], value: &impl EncodeMetric) -> fmt::Result {
    value.encode(metric.encode_family(&labels)?)
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_histogram::<NoLabelSet>(self.sum(), self.count(), &self.buckets(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
