//! What is counted of the requests of one flow schema, and of the use of a priority level, cheaply enough to be counted for each.

use super::Seconds;
use super::queues::{Entered, Reason};
use super::work::Kind;

pub(crate) const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
pub(crate) const DURATIONS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
pub(crate) const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
pub(crate) const WATCHERS: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];

/// A histogram whose owner locks it.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: the last is for what is above all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub(crate) fn observe(&mut self, value: f64) {
        self.add(value, 1);
    }

    fn add(&mut self, value: f64, count: u64) {
        let at = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        if let Some(bucket) = self.counts.get_mut(at) {
            *bucket += count;
        }
        self.sum += value * count as f64;
    }

    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bounds and what is in each bucket alone.
    pub(crate) fn buckets(&self) -> Vec<(f64, u64)> {
        self.bounds.iter().copied().chain([f64::MAX]).zip(self.counts.iter().copied()).collect()
    }
}

/// What is counted of the requests of a flow schema.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    pub(crate) dispatched: u64,
    pub(crate) queue_full: u64,
    pub(crate) concurrency_limit: u64,
    pub(crate) timed_out: u64,
    pub(crate) unaccommodated: u64,
    pub(crate) lengths: Histogram,
    /// How long those waited that were executed, and those that were not.
    pub(crate) waited: Histogram,
    pub(crate) waited_in_vain: Histogram,
    /// How long they were executed, and how long watches began.
    pub(crate) executed: Histogram,
    pub(crate) watches: Histogram,
    pub(crate) seats: Histogram,
    pub(crate) watchers: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            dispatched: 0,
            queue_full: 0,
            concurrency_limit: 0,
            timed_out: 0,
            unaccommodated: 0,
            lengths: Histogram::new(&LENGTHS),
            waited: Histogram::new(&DURATIONS),
            waited_in_vain: Histogram::new(&DURATIONS),
            executed: Histogram::new(&DURATIONS),
            watches: Histogram::new(&DURATIONS),
            seats: Histogram::new(&SEATS),
            watchers: Histogram::new(&WATCHERS),
        }
    }
}

impl Stats {
    /// Another request has come, for so many seats.
    pub(super) fn entered(&mut self, entered: &Entered, kind: Kind, seats: u32) {
        self.seats.observe(f64::from(seats));
        if let Kind::Write { watchers } = kind {
            self.watchers.observe(watchers as f64);
        }
        match entered {
            Entered::Seated { length: 0, .. } => {}
            Entered::Seated { length, .. } | Entered::Waits { length, .. } => self.lengths.observe(*length as f64),
            Entered::Refused(reason) => {
                self.waited_in_vain.observe(0.0);
                match reason {
                    Reason::QueueFull => self.queue_full += 1,
                    Reason::ConcurrencyLimit => self.concurrency_limit += 1,
                }
            }
        }
    }
}

/// The figure that a level has at each nanosecond, as a part of what it could be: upstream's histograms of utilization.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    nanoseconds: Histogram,
    value: f64,
    since: Seconds,
}

impl Timing {
    pub(crate) fn new(bounds: &'static [f64], now: Seconds) -> Self {
        Self { nanoseconds: Histogram::new(bounds), value: 0.0, since: now }
    }

    /// From `now` on it is `part` of `whole`.
    pub(crate) fn set(&mut self, now: Seconds, part: f64, whole: f64) {
        if now > self.since {
            self.nanoseconds.add(self.value, ((now - self.since) * 1e9) as u64);
            self.since = now;
        }
        self.value = part / whole.max(1.0);
    }

    /// What was found until `now`.
    pub(crate) fn read(&self, now: Seconds) -> Histogram {
        let mut all = self.clone();
        all.set(now, 0.0, 1.0);
        all.nanoseconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms() {
        let mut histogram = Histogram::new(&SEATS);
        [1.0, 2.0, 3.0, 500.0].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!((histogram.count(), histogram.sum()), (4, 506.0));
        let counts: Vec<u64> = histogram.buckets().into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1, 1, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn timings_count_nanoseconds() {
        let mut timing = Timing::new(&SEATS, 1.0);
        timing.set(1.0, 6.0, 2.0);
        timing.set(1.5, 1.0, 0.0);
        let read = timing.read(2.5);
        let counts: Vec<u64> = read.buckets().into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts[..4], [1_000_000_000, 0, 500_000_000, 0]);
        assert_eq!(timing.read(1.5).count(), 500_000_000);
    }
}
