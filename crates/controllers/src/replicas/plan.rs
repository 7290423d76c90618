//! How many pods to make or which to delete, and the status that results. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::kind::Replicated;
use super::rank::{self, Ranked};
use crate::pod_control::{BURST, Failure};
use crate::{meta, pods};

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Keep,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// What to do so that `active` pods become as many as wanted. `neighbours` counts the pods of the family on a node.
pub(super) fn step<K: Replicated>(owner: &K, active: &[Arc<Pod>], neighbours: impl Fn(&str) -> usize, now: Timestamp) -> Step {
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
    let rank = |pod: &Arc<Pod>| Ranked { neighbours: neighbours(pods::node(pod)), pod: pod.clone() };
    let mut ranked: Vec<Ranked> = active.iter().map(rank).collect();
    if surplus < ranked.len() {
        rank::sort(&mut ranked, now);
    }
    ranked.truncate(surplus);
    Step::Delete(ranked.into_iter().map(|one| one.pod).collect())
}

/// The status for `pods`, all that the owner has claimed.
pub(super) fn status<K: Replicated>(owner: &K, pods: &[Arc<Pod>], failure: Option<Failure>, now: Timestamp) -> ReplicaSetStatus {
    let old = owner.status();
    let labels = owner.template().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let labelled = |pod: &&Arc<Pod>| {
        let own = pod.metadata.labels.as_ref();
        labels.is_none_or(|labels| labels.iter().all(|(key, value)| own.is_some_and(|own| own.get(key) == Some(value))))
    };
    let min_ready = owner.min_ready_seconds();
    let available = |pod: &&Arc<Pod>| pods::available_in(pod, min_ready, now) == Some(Duration::ZERO);
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pods::is_active(pod)).collect();
    let count = |test: &dyn Fn(&&Arc<Pod>) -> bool| {
        let number = active.iter().filter(|pod| test(pod)).count();
        if number == 0 { None } else { i32::try_from(number).ok() }
    };
    let ending = pods.iter().filter(|pod| meta::ends(pod.as_ref()) && !pods::is_finished(pod)).count();
    ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: count(&labelled),
        ready_replicas: count(&|pod| pods::is_ready(pod)),
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
pub(super) fn next_available<K: Replicated>(owner: &K, pods: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let active = pods.iter().filter(|pod| pods::is_active(pod));
    let waits = active.filter_map(|pod| pods::available_in(pod, owner.min_ready_seconds(), now));
    waits.filter(|wait| !wait.is_zero()).min()
}
