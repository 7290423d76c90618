//! Which pods go first when there are too many.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;

use crate::pods::PodFacts;

/// A pod, what is known of it, and how many pods of its family its node has.
pub(crate) struct Ranked<P> {
    pub(crate) pod: P,
    pub(crate) uid: String,
    pub(crate) facts: Arc<PodFacts>,
    pub(crate) neighbours: usize,
}

/// Orders pods so that those whose loss hurts least come first.
///
/// The order is that of a key, so that it is one: comparisons pair by pair, as upstream's, go in circles when some pods are of the same
/// second, and sorting many pods by them is an error here.
pub(crate) fn sort<P>(pods: &mut [Ranked<P>], now: Timestamp) {
    pods.sort_by_cached_key(|one| {
        let facts = &one.facts;
        let state = (!facts.node.is_empty(), facts.phase, facts.ready_since.is_some(), facts.cost, Reverse(one.neighbours));
        let ages = (magnitude(facts.ready_since, now), Reverse(facts.restarts), magnitude(facts.created, now));
        (state, ages, one.uid.clone())
    });
}

/// Age on a logarithmic scale, so that pods of about the same age go by chance (their uid), not all from the last rollout (KEP-2185).
fn magnitude(time: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    let age = now.as_millisecond() - time?.as_millisecond();
    Some(if age > 0 { i64::from(age.ilog2()) } else { -1 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use client::Facts;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::facts::DELETION_COST;

    fn ranked(name: &str, pod: Value, neighbours: usize) -> Ranked<String> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        Ranked { pod: name.to_owned(), uid: name.to_owned(), facts: Arc::new(PodFacts::of(&pod)), neighbours }
    }

    /// `pods`: name, node, phase, ready second, cost, neighbours.
    #[allow(clippy::type_complexity)]
    fn check(pods: &[(&str, &str, &str, Option<i64>, &str, usize)], expected: &str) {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut ranked: Vec<Ranked<String>> = pods
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
                ranked(name, pod, *neighbours)
            })
            .collect();
        sort(&mut ranked, now);
        let names: Vec<&str> = ranked.iter().map(|one| one.pod.as_str()).collect();
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
            ranked(&uid, pod, 1)
        };
        let order = |from: i64| {
            let mut ranked: Vec<Ranked<String>> = (0..500).map(|index| pod((index + from) % 500)).collect();
            sort(&mut ranked, now);
            ranked.into_iter().map(|one| one.uid).collect::<Vec<_>>()
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
