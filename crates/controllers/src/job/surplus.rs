//! Which pods a job deletes when it has too many. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Facts;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::member::Terms;
use crate::meta;
use crate::pods::PodFacts;
use crate::replicas::rank::{self, Ranked};

/// At least `number` of the active pods; in an indexed job all that have no index of the job, or one that another pod
/// has too.
pub(super) fn pods(terms: &Terms<'_>, active: Vec<Arc<Pod>>, number: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let (mut surplus, mut left) = (Vec::new(), Vec::new());
    if terms.indexes.is_some() {
        let mut by_index: BTreeMap<i32, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in active {
            match terms.index(&pod) {
                Some(index) => by_index.entry(index).or_default().push(pod),
                None => surplus.push(pod),
            }
        }
        for same in by_index.into_values() {
            let mut same = ranked(same, now);
            left.extend(same.pop());
            surplus.append(&mut same);
        }
    } else {
        left = active;
    }
    if surplus.len() < number {
        let more = number - surplus.len();
        surplus.extend(ranked(left, now).into_iter().take(more));
    }
    surplus
}

/// Those whose loss hurts least first.
fn ranked(pods: Vec<Arc<Pod>>, now: Timestamp) -> Vec<Arc<Pod>> {
    let rank = |pod: Arc<Pod>| {
        let (uid, facts) = (meta::uid(pod.as_ref()).to_owned(), Arc::new(PodFacts::of(&pod)));
        Ranked { pod, uid, facts, neighbours: 0 }
    };
    let mut ranked: Vec<Ranked<Arc<Pod>>> = pods.into_iter().map(rank).collect();
    rank::sort(&mut ranked, now);
    ranked.into_iter().map(|one| one.pod).collect()
}
