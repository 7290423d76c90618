//! Which pods go first when there are too many.

use std::cmp::{Ordering, Reverse};
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
pub(crate) fn sort(pods: &mut [Ranked], now: Timestamp) {
    pods.sort_by(|a, b| compare(a, b, now));
}

fn compare(a: &Ranked, b: &Ranked, now: Timestamp) -> Ordering {
    let (x, y) = (a.pod.as_ref(), b.pod.as_ref());
    let assigned = |pod| !pods::node(pod).is_empty();
    assigned(x)
        .cmp(&assigned(y))
        .then_with(|| phase(x).cmp(&phase(y)))
        .then_with(|| pods::is_ready(x).cmp(&pods::is_ready(y)))
        .then_with(|| cost(x).cmp(&cost(y)))
        .then_with(|| b.neighbours.cmp(&a.neighbours))
        .then_with(|| younger_first(pods::ready_since(x), pods::ready_since(y), x, y, now))
        .then_with(|| Reverse(restarts(x)).cmp(&Reverse(restarts(y))))
        .then_with(|| younger_first(created(x), created(y), x, y, now))
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

/// By age on a logarithmic scale, so that pods of about the same age go by chance (their uid), not all from the last
/// rollout (KEP-2185).
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, x: &Pod, y: &Pod, now: Timestamp) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else { return Ordering::Equal };
    if a == b {
        return Ordering::Equal;
    }
    let magnitude = |time: Timestamp| {
        let age = now.as_millisecond() - time.as_millisecond();
        if age > 0 { i64::from(age.ilog2()) } else { -1 }
    };
    match magnitude(a).cmp(&magnitude(b)) {
        Ordering::Equal => meta::uid(x).cmp(meta::uid(y)),
        other => other,
    }
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
