//! Which pods go first when there are too many.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::{meta, pods};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod and how many pods of its family its node has.
pub(crate) struct Ranked {
    pub(crate) pod: Arc<Pod>,
    pub(crate) neighbours: usize,
}

/// Orders pods so that those whose loss hurts least come first.
///
/// The order is that of a key, so that it is one: comparisons pair by pair, as upstream's, go in circles when some pods are of the same
/// second, and sorting many pods by them is an error here.
pub(crate) fn sort(pods: &mut [Ranked], now: Timestamp) {
    pods.sort_by_cached_key(|one| {
        let pod = one.pod.as_ref();
        let state = (!pods::node(pod).is_empty(), phase(pod), pods::is_ready(pod), cost(pod), Reverse(one.neighbours));
        let ages = (magnitude(pods::ready_since(pod), now), Reverse(restarts(pod)), magnitude(created(pod), now));
        (state, ages, meta::uid(pod).to_owned())
    });
}

fn phase(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn cost(pod: &Pod) -> i32 {
    meta::annotation(pod, DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Age on a logarithmic scale, so that pods of about the same age go by chance (their uid), not all from the last rollout (KEP-2185).
fn magnitude(time: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    let age = now.as_millisecond() - time?.as_millisecond();
    Some(if age > 0 { i64::from(age.ilog2()) } else { -1 })
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// `pods`: name, node, phase, ready second, cost, neighbours.
    #[allow(clippy::type_complexity)]
    fn check(pods: &[(&str, &str, &str, Option<i64>, &str, usize)], expected: &str) {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut ranked: Vec<Ranked> = pods
            .iter()
            .map(|(name, node, phase, ready, cost, neighbours)| {
                let conditions = ready.map(|second| {
                    json!([{"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::from_second(second).unwrap()}])
                });
                let pod = json!({
                    "metadata": {"name": name, "uid": name, "annotations": {DELETION_COST: cost}},
                    "spec": {"nodeName": node, "containers": []},
                    "status": {"phase": phase, "conditions": conditions},
                });
                Ranked { pod: Arc::new(serde_json::from_value(pod).unwrap()), neighbours: *neighbours }
            })
            .collect();
        sort(&mut ranked, now);
        let names: Vec<&str> = ranked.iter().map(|one| meta::name(one.pod.as_ref())).collect();
        assert_eq!(names.join(" "), expected);
    }

    /// Pods of the same second, of about the same age, and older ones: no three of them may go in a circle.
    #[test]
    fn the_order_is_one() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let pod = |index: i64| {
            let at = Timestamp::from_second(1_000_000 - index * 7 % 60).unwrap();
            let uid = (index * 7919 % 1000).to_string();
            let pod = json!({
                "metadata": {"name": uid, "uid": uid, "creationTimestamp": Timestamp::from_second(999_000 - index % 3).unwrap()},
                "spec": {"nodeName": "n", "containers": []},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}]},
            });
            Ranked { pod: Arc::new(serde_json::from_value(pod).unwrap()), neighbours: 1 }
        };
        let order = |from: i64| {
            let mut ranked: Vec<Ranked> = (0..500).map(|index| pod((index + from) % 500)).collect();
            sort(&mut ranked, now);
            ranked.iter().map(|one| meta::uid(one.pod.as_ref()).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(order(0), order(250));
    }

    #[test]
    fn the_least_useful_go_first() {
        check(
            &[
                ("ready", "n", "Running", Some(10), "0", 1),
                ("running", "n", "Running", None, "0", 1),
                ("pending", "n", "Pending", None, "0", 1),
                ("unassigned", "", "Pending", None, "0", 1),
            ],
            "unassigned pending running ready",
        );
        check(&[("dear", "n", "Running", Some(10), "5", 9), ("cheap", "n", "Running", Some(10), "-5", 0)], "cheap dear");
        check(&[("alone", "n", "Running", Some(10), "0", 1), ("crowded", "m", "Running", Some(10), "0", 3)], "crowded alone");
        check(&[("old", "n", "Running", Some(10), "0", 1), ("young", "n", "Running", Some(999_990), "0", 1)], "young old");
    }
}
