//! How many pods to make or which to delete, and the status that results. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::Entry;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::kind::Replicated;
use super::rank::{self, Ranked};
use crate::meta;
use crate::pod_control::{BURST, Failure};
use crate::pods::PodFacts;

/// A pod of the owner.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) pod: Entry<Pod>,
    pub(super) facts: Arc<PodFacts>,
}

impl Member {
    /// None when the pod cannot be read.
    pub(super) fn of(pod: Entry<Pod>) -> Option<Self> {
        Some(Self { facts: pod.facts()?, pod })
    }

    pub(super) fn is_active(&self) -> bool {
        !self.facts.is_finished && !self.pod.is_ending()
    }
}

/// How many active pods each node has.
pub(super) fn by_node(pods: impl Iterator<Item = Member>) -> HashMap<Box<str>, usize> {
    let mut nodes = HashMap::new();
    pods.filter(Member::is_active).for_each(|pod| *nodes.entry(pod.facts.node.clone()).or_default() += 1);
    nodes
}

pub(super) enum Step {
    Keep,
    Create(usize),
    Delete(Vec<Entry<Pod>>),
}

/// What to do so that `active` pods become as many as wanted. `neighbours` counts the pods of the family on a node.
pub(super) fn step<K: Replicated>(owner: &K, active: &[Member], neighbours: impl Fn(&str) -> usize, now: Timestamp) -> Step {
    if meta::ends(owner) {
        return Step::Keep;
    }
    let wanted = usize::try_from(owner.replicas()).unwrap_or(0);
    if active.len() < wanted {
        return Step::Create((wanted - active.len()).min(BURST));
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Step::Keep;
    }
    let rank = |one: &Member| Ranked {
        uid: one.pod.uid().to_owned(),
        neighbours: neighbours(&one.facts.node),
        facts: one.facts.clone(),
        pod: one.pod.clone(),
    };
    let mut ranked: Vec<Ranked<Entry<Pod>>> = active.iter().map(rank).collect();
    if surplus < ranked.len() {
        rank::sort(&mut ranked, now);
    }
    ranked.truncate(surplus);
    Step::Delete(ranked.into_iter().map(|one| one.pod).collect())
}

/// The status for `pods`, all that the owner has claimed.
pub(super) fn status<K: Replicated>(owner: &K, pods: &[Member], failure: Option<Failure>, now: Timestamp) -> ReplicaSetStatus {
    let old = owner.status();
    let labels = owner.template().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let labelled = |one: &&Member| {
        let own = one.pod.labels();
        labels.is_none_or(|labels| labels.iter().all(|(key, value)| own.get(key) == Some(value)))
    };
    let min_ready = owner.min_ready_seconds();
    let available = |one: &&Member| one.facts.available_in(min_ready, now) == Some(Duration::ZERO);
    let active: Vec<&Member> = pods.iter().filter(|one| one.is_active()).collect();
    let count = |test: &dyn Fn(&&Member) -> bool| {
        let number = active.iter().filter(|one| test(one)).count();
        if number == 0 { None } else { i32::try_from(number).ok() }
    };
    let ending = pods.iter().filter(|one| one.pod.is_ending() && !one.facts.is_finished).count();
    ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: count(&labelled),
        ready_replicas: count(&|one| one.facts.ready_since.is_some()),
        available_replicas: count(&available),
        terminating_replicas: i32::try_from(ending).ok(),
        observed_generation: owner.meta().generation,
        conditions: conditions(old.conditions, failure, now),
    }
}

fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    const KIND: &str = "ReplicaFailure";
    let mut all = old.unwrap_or_default();
    match failure {
        None => all.retain(|condition| condition.type_ != KIND),
        Some(_) if all.iter().any(|condition| condition.type_ == KIND) => {}
        Some((reason, message)) => all.push(ReplicaSetCondition {
            type_: KIND.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(meta::whole_seconds(now)),
        }),
    }
    (!all.is_empty()).then_some(all)
}

/// When the next pod becomes available by being ready long enough.
pub(super) fn next_available<K: Replicated>(owner: &K, pods: &[Member], now: Timestamp) -> Option<Duration> {
    let active = pods.iter().filter(|one| one.is_active());
    let waits = active.filter_map(|one| one.facts.available_in(owner.min_ready_seconds(), now));
    waits.filter(|wait| !wait.is_zero()).min()
}
