//! How long pods have to end when the machine shuts down, by their priority. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::spec::Model;

/// Priorities from here on are those of critical pods (`system-cluster-critical`).
const CRITICAL: i32 = 2_000_000_000;

/// Grace periods by the lowest priority that each is for; none is no graceful shutdown. Groups end one after the other, the lowest priority first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Periods(BTreeMap<i32, Duration>);

/// Why the options of a graceful shutdown cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodsError {
    /// Two ways to say one thing.
    #[error(
        "--shutdown-grace-period-by-pod-priority stands in the place of --shutdown-grace-period and --shutdown-grace-period-critical-pods: give one or the other"
    )]
    Both,
    /// A part is more than the whole.
    #[error("--shutdown-grace-period-critical-pods is a part of --shutdown-grace-period, and cannot be longer")]
    Critical,
    /// Kubelets count seconds.
    #[error("a grace period of less than a second cannot be kept: give 0, or 1s and more")]
    Short,
}

impl Periods {
    /// By the options: `critical` is the part of `total` that critical pods have, at its end; or periods by priority.
    ///
    /// # Errors
    /// They do not go together.
    pub fn new(total: Duration, critical: Duration, by_priority: &[(i32, Duration)]) -> Result<Self, PeriodsError> {
        let given = [total, critical];
        let all = given.iter().chain(by_priority.iter().map(|(_, period)| period));
        if all.copied().any(|period| !period.is_zero() && period < Duration::from_secs(1)) {
            return Err(PeriodsError::Short);
        }
        if !by_priority.is_empty() {
            let is_only = given.iter().all(Duration::is_zero);
            return if is_only { Ok(Self(by_priority.iter().copied().collect())) } else { Err(PeriodsError::Both) };
        }
        let others = total.checked_sub(critical).ok_or(PeriodsError::Critical)?;
        let is_none = total.is_zero();
        Ok(if is_none { Self::default() } else { Self([(0, others), (CRITICAL, critical)].into()) })
    }

    /// So long for all pods together.
    pub fn of_all(total: Duration) -> Self {
        Self([(0, total)].into())
    }

    /// Whether the machine shuts down without regard to pods.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// How long the machine's shutdown has to wait at most.
    pub fn total(&self) -> Duration {
        self.0.values().sum()
    }

    /// How many groups of pods there may be.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The pods that end together, in the order in which they do, and how long they have. A pod is of the group with the highest priority that is not
    /// above its own; one that is below all is of the lowest group.
    pub fn groups<'a>(&self, pods: &'a [Model]) -> Vec<(Duration, Vec<&'a Model>)> {
        let mut groups: BTreeMap<i32, (Duration, Vec<&Model>)> =
            self.0.iter().map(|(priority, period)| (*priority, (*period, Vec::new()))).collect();
        let lowest = self.0.keys().next().copied();
        for pod in pods {
            let priority = pod.spec().priority.unwrap_or(0);
            let group = self.0.range(..=priority).next_back().map(|(priority, _)| *priority).or(lowest);
            if let Some((_, members)) = group.and_then(|group| groups.get_mut(&group)) {
                members.push(pod);
            }
        }
        groups.into_values().filter(|(_, members)| !members.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use serde_json::json;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn by_priority(list: &[(i32, u64)]) -> Vec<(i32, Duration)> {
        list.iter().map(|(priority, period)| (*priority, seconds(*period))).collect()
    }

    /// Periods, and priorities of pods; then `PERIOD: PRIORITY...` of each group.
    #[track_caller]
    fn check(periods: &Periods, pods: &[i32], expected: &[&str]) {
        let pods: Vec<_> = pods.iter().map(|priority| model(json!({"priority": priority, "containers": []}))).collect();
        let shown = periods.groups(&pods).into_iter().map(|(period, members)| {
            let members: Vec<_> = members.iter().map(|pod| pod.spec().priority.unwrap().to_string()).collect();
            format!("{}: {}", period.as_secs(), members.join(" "))
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }

    /// KEP-2000: "ShutdownGracePeriod ... total duration", of which "ShutdownGracePeriodCriticalPods" is at the end.
    #[test]
    fn critical_pods_end_last() {
        let periods = Periods::new(seconds(30), seconds(10), &[]).unwrap();
        assert_eq!(periods.total(), seconds(30));
        check(&periods, &[CRITICAL, 0, 5, CRITICAL + 1000, -7], &["20: 0 5 -7", "10: 2000000000 2000001000"]);
        check(&periods, &[CRITICAL], &["10: 2000000000"]);
        check(&periods, &[], &[]);
        assert!(Periods::new(seconds(0), seconds(0), &[]).unwrap().is_none());
    }

    /// KEP-2712, with the priorities of its example.
    #[test]
    fn periods_by_priority() {
        let list = by_priority(&[(100_000, 10), (10_000, 180), (1000, 120), (0, 60)]);
        let periods = Periods::new(seconds(0), seconds(0), &list).unwrap();
        assert_eq!(periods.total(), seconds(370));
        let pods = [100_000, 99_999, 10_000, 9999, 1000, 999, 0, -1, 200_000];
        check(&periods, &pods, &["60: 999 0 -1", "120: 9999 1000", "180: 99999 10000", "10: 100000 200000"]);
        let above = Periods::new(seconds(0), seconds(0), &by_priority(&[(1000, 5)])).unwrap();
        check(&above, &[0, 2000], &["5: 0 2000"]);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let check = |total: Duration, critical: Duration, list: &[(i32, u64)], expected: PeriodsError| {
            assert_eq!(Periods::new(total, critical, &by_priority(list)), Err(expected));
        };
        check(seconds(10), seconds(20), &[], PeriodsError::Critical);
        check(seconds(10), seconds(0), &[(0, 5)], PeriodsError::Both);
        check(Duration::from_millis(500), seconds(0), &[], PeriodsError::Short);
    }
}
