//! What is short, as it is seen over time: a function of measurements, settings and the clock. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::signal::{Condition, Signal};
use super::threshold::{Settings, Threshold};
use crate::backoff::signed;
use crate::node::supply::Supply;

/// Measurements of one moment. What cannot be measured is not there.
pub type Observations = BTreeMap<Signal, Supply>;

/// What was seen before.
#[derive(Clone, Debug, Default)]
pub struct Pressures {
    /// Since when each threshold, by its place in the settings, is crossed.
    since: BTreeMap<usize, Timestamp>,
    /// Thresholds that have been crossed for their grace period and are not resolved yet.
    met: BTreeSet<usize>,
    /// When each condition was met last.
    seen: BTreeMap<Condition, Timestamp>,
}

/// What follows from measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict<'a> {
    /// Conditions that the node has.
    pub conditions: BTreeSet<Condition>,
    /// Thresholds for which something must go now, memory first: memory that is short ends badly within moments.
    pub starved: Vec<&'a Threshold>,
}

/// Thresholds that are crossed, by their places; with `resolved` only those that are past their goal are not.
fn crossed(settings: &Settings, observations: &Observations, resolved: bool) -> BTreeSet<usize> {
    let is_crossed = |threshold: &Threshold| {
        observations.get(&threshold.signal).is_some_and(|supply| {
            let bound = if resolved { threshold.goal(supply.total) } else { threshold.quantity(supply.total) };
            supply.available < bound
        })
    };
    settings.thresholds.iter().enumerate().filter(|(_, threshold)| is_crossed(threshold)).map(|(place, _)| place).collect()
}

impl Pressures {
    /// Takes in measurements.
    pub fn observe<'a>(&mut self, settings: &'a Settings, observations: &Observations, now: Timestamp) -> Verdict<'a> {
        let mut short = crossed(settings, observations, false);
        short.extend(crossed(settings, observations, true).intersection(&self.met));
        self.since = short.iter().map(|place| (*place, self.since.get(place).copied().unwrap_or(now))).collect();
        let of = |place: &usize| &settings.thresholds[*place];
        self.seen.extend(short.iter().map(|place| (of(place).signal.condition(), now)));
        self.seen.retain(|_, seen| now.duration_since(*seen) < signed(settings.transition) || *seen == now);
        let ripe =
            |(place, since): (&usize, &Timestamp)| (now.duration_since(*since) >= signed(of(place).grace)).then_some(*place);
        self.met = self.since.iter().filter_map(ripe).collect();
        let mut starved: Vec<_> = self.met.iter().map(of).collect();
        starved.sort_by_key(|threshold| threshold.signal.condition() != Condition::Memory);
        Verdict { conditions: self.seen.keys().copied().collect(), starved }
    }

    /// Whether the thresholds for which something had to go are past their goals. Soft ones in their grace period, and goals of thresholds
    /// that nothing has crossed, make nothing go (upstream's `thresholdsMet` of `m.thresholdsMet`).
    pub fn is_resolved(&self, settings: &Settings, observations: &Observations) -> bool {
        crossed(settings, observations, true).is_disjoint(&self.met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::Texts;
    use crate::pod::testing::at;
    use std::time::Duration;

    fn settings() -> Settings {
        let texts = Texts {
            hard: Some("memory.available<100,nodefs.available<10%"),
            soft: Some("memory.available<200,pid.available<50"),
            soft_grace: Some("memory.available=30s,pid.available=60s"),
            minimum_reclaim: Some("nodefs.available=50"),
        };
        let mut settings = Settings::parse(&texts, Some(Duration::from_secs(300)), Duration::ZERO).unwrap();
        settings.thresholds.retain(|threshold| threshold.signal != Signal::AllocatableMemoryAvailable);
        settings
    }

    /// Steps of time, memory, disk and processes that are left of 1000 each; then the conditions and what must go, in order.
    #[track_caller]
    fn check(steps: &[(i64, i64, i64, i64)], conditions: &[&str], starved: &[&str]) {
        let (settings, mut pressures) = (settings(), Pressures::default());
        let mut shown = (Vec::new(), Vec::new());
        for (second, memory, disk, pids) in steps {
            let signals = [Signal::MemoryAvailable, Signal::NodeFsAvailable, Signal::PidAvailable];
            let supplies = [memory, disk, pids].map(|available| Supply { total: 1000, available: *available });
            let verdict = pressures.observe(&settings, &signals.into_iter().zip(supplies).collect(), at(*second));
            let text = |threshold: &&Threshold| format!("{}<{}", threshold.signal.name(), threshold.quantity(1000));
            shown = (
                verdict.conditions.iter().map(|condition| condition.name()).collect(),
                verdict.starved.iter().map(text).collect(),
            );
        }
        assert_eq!(shown, (conditions.to_vec(), starved.iter().map(|text| (*text).to_owned()).collect()), "{steps:?}");
    }

    #[test]
    fn hard_thresholds_act_at_once_and_soft_ones_after_their_grace() {
        check(&[(0, 500, 500, 500)], &[], &[]);
        check(&[(0, 99, 500, 500)], &["MemoryPressure"], &["memory.available<100"]);
        check(&[(0, 150, 500, 500)], &["MemoryPressure"], &[]);
        check(&[(0, 150, 500, 500), (29, 150, 500, 500)], &["MemoryPressure"], &[]);
        check(&[(0, 150, 500, 500), (30, 150, 500, 500)], &["MemoryPressure"], &["memory.available<200"]);
        // Enough for a moment: the grace period begins anew.
        check(&[(0, 150, 500, 500), (10, 250, 500, 500), (30, 150, 500, 500)], &["MemoryPressure"], &[]);
    }

    #[test]
    fn memory_comes_first() {
        let all = ["MemoryPressure", "DiskPressure", "PIDPressure"];
        check(&[(0, 99, 50, 40)], &all, &["memory.available<100", "nodefs.available<100"]);
        check(&[(0, 500, 50, 40), (60, 500, 50, 40)], &all[1..], &["nodefs.available<100", "pid.available<50"]);
    }

    #[test]
    fn what_was_short_is_over_when_so_much_more_is_there() {
        check(&[(0, 500, 99, 500), (10, 500, 149, 500)], &["DiskPressure"], &["nodefs.available<100"]);
        check(&[(0, 500, 99, 500), (10, 500, 150, 500)], &["DiskPressure"], &[]);
        check(&[(0, 500, 120, 500)], &[], &[]);
    }

    #[test]
    fn conditions_stay_for_the_transition_period() {
        check(&[(0, 99, 500, 500), (299, 500, 500, 500)], &["MemoryPressure"], &[]);
        check(&[(0, 99, 500, 500), (300, 500, 500, 500)], &[], &[]);
        check(&[(0, 99, 500, 500), (100, 99, 500, 500), (399, 500, 500, 500)], &["MemoryPressure"], &[]);
    }

    #[test]
    fn what_cannot_be_measured_is_not_short() {
        let (settings, mut pressures) = (settings(), Pressures::default());
        let verdict = pressures.observe(&settings, &Observations::new(), at(0)).conditions;
        assert!(verdict.is_empty() && pressures.is_resolved(&settings, &Observations::new()));
    }

    /// Upstream's `reclaimNodeLevelResources`: "evaluate all current thresholds to see if with adjusted observations, we think we have met
    /// min reclaim goals".
    #[test]
    fn only_what_was_met_must_be_resolved() {
        let settings = settings();
        let observations = |memory: i64, disk: i64| -> Observations {
            let supplies = [(Signal::MemoryAvailable, memory), (Signal::NodeFsAvailable, disk)];
            supplies.map(|(signal, available)| (signal, Supply { total: 1000, available })).into()
        };
        let check = |before: (i64, i64), after: (i64, i64), expected: bool| {
            let mut pressures = Pressures::default();
            pressures.observe(&settings, &observations(before.0, before.1), at(0));
            assert_eq!(pressures.is_resolved(&settings, &observations(after.0, after.1)), expected, "{before:?} {after:?}");
        };
        // The disk is short: it must have 50 more than the threshold.
        check((500, 99), (500, 149), false);
        check((500, 99), (500, 150), true);
        // A soft threshold of memory is in its grace period; nobody has gone for it.
        check((150, 99), (150, 150), true);
        // The disk is between its threshold, which was not crossed, and its goal.
        check((99, 120), (99, 120), false);
        check((99, 120), (100, 120), true);
    }
}
