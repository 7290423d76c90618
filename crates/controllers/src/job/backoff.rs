//! How long a job waits before it replaces failed pods. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::member::{self, until};

const FIRST: SignedDuration = SignedDuration::from_secs(10);
const LAST: SignedDuration = SignedDuration::from_secs(600);

/// The failures of a job since a pod of it succeeded last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) failures: i32,
    pub(super) last: Option<Timestamp>,
}

impl Record {
    /// The record after these pods have ended.
    pub(super) fn with(&self, succeeded: &[&Pod], failed: &[&Pod]) -> Self {
        let success = succeeded.iter().map(|pod| member::finished_at(pod)).max();
        let failures = failed.iter().map(|pod| member::finished_at(pod));
        let later: Vec<Timestamp> = failures.filter(|at| success.is_none_or(|success| *at > success)).collect();
        let before = if success.is_some() { Record::default() } else { self.clone() };
        let failures = before.failures.saturating_add(i32::try_from(later.len()).unwrap_or(i32::MAX));
        Record { failures, last: later.into_iter().max().or(before.last) }
    }

    /// How long the next pod has to wait.
    pub(super) fn remaining(&self, now: Timestamp) -> Duration {
        self.last.map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// How long the pod of an index has to wait whose last one is `failed`.
pub(super) fn of_index(failed: Option<&Pod>, now: Timestamp) -> Duration {
    failed.map_or(Duration::ZERO, |pod| remaining(member::all_failures(pod).saturating_add(1), member::finished_at(pod), now))
}

/// Ten seconds after the first failure, doubled by each further one up to ten minutes.
fn remaining(failures: i32, last: Timestamp, now: Timestamp) -> Duration {
    let Ok(doublings) = u32::try_from(failures - 1) else { return Duration::ZERO };
    let factor = 2_i32.saturating_pow(doublings.min(30));
    let delay = FIRST.saturating_mul(factor).min(LAST);
    last.checked_add(delay).map_or(Duration::ZERO, |due| until(due, now))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::object;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(second: i64) -> Pod {
        let state = json!({"terminated": {"exitCode": 1, "finishedAt": at(second)}});
        object(json!({"status": {"containerStatuses": [
            {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}}))
    }

    #[test]
    fn doubles_from_ten_seconds_to_ten_minutes() {
        let check = |failures: i32, now: i64, expected: u64| {
            assert_eq!(remaining(failures, at(1000), at(now)), Duration::from_secs(expected), "{failures} {now}");
        };
        check(0, 1000, 0);
        check(1, 1000, 10);
        check(1, 1004, 6);
        check(1, 1010, 0);
        check(2, 1000, 20);
        check(4, 1000, 80);
        check(7, 1000, 600);
        check(100, 1000, 600);
        check(3, 2000, 0);
    }

    #[test]
    fn a_success_begins_anew() {
        let check = |succeeded: &[i64], failed: &[i64], expected: (i32, Option<i64>)| {
            let pods = |seconds: &[i64]| seconds.iter().map(|second| ended(*second)).collect::<Vec<_>>();
            let (succeeded, failed) = (pods(succeeded), pods(failed));
            let before = Record { failures: 2, last: Some(at(100)) };
            let after = before.with(&succeeded.iter().collect::<Vec<_>>(), &failed.iter().collect::<Vec<_>>());
            assert_eq!((after.failures, after.last.map(|last| last.as_second())), expected);
        };
        check(&[], &[], (2, Some(100)));
        check(&[], &[120, 110], (4, Some(120)));
        check(&[150], &[], (0, None));
        check(&[110], &[105, 120, 130], (2, Some(130)));
        check(&[200], &[105], (0, None));
    }
}
