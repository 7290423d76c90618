//! Which pods a set lacks and which are too many. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use apimachinery::intstr;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::place::Suits;
use super::spread::min_ready;
pub(super) use super::spread::{Delete, Observed, Plan, Spread, Why, hash_of};
use super::{earlier, rolling};
use crate::history::HASH;
use crate::{meta, pods};

/// The most pods that one look makes, and as many that it deletes.
const BURST: usize = 250;

/// What a set rolls by; None when it waits for people to delete its pods.
fn rolling_update(set: &DaemonSet) -> Option<RollingUpdateDaemonSet> {
    let strategy = set.spec.as_ref()?.update_strategy.as_ref()?;
    (strategy.type_.as_deref() == Some("RollingUpdate")).then(|| strategy.rolling_update.clone().unwrap_or_default())
}

fn part(value: Option<&IntOrString>, of: usize) -> usize {
    let of = i64::try_from(of).unwrap_or(i64::MAX);
    let part = value.and_then(|value| intstr::scaled(value, of, true).ok()).unwrap_or(0);
    usize::try_from(part).unwrap_or(0)
}

/// How many pods may be missing and how many too many while `desired` are updated; None for OnDelete.
pub(super) fn bounds(set: &DaemonSet, desired: usize) -> Option<rolling::Bounds> {
    let rolling = rolling_update(set)?;
    let (unavailable, surge) = (part(rolling.max_unavailable.as_ref(), desired), part(rolling.max_surge.as_ref(), desired));
    // Neither would mean that nothing ever happens.
    let unavailable = if unavailable == 0 && surge == 0 { 1 } else { unavailable };
    Some(rolling::Bounds { unavailable, surge })
}

pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let spread = Spread::of(observed);
    let surges = rolling_update(observed.set).is_some_and(|rolling| part(rolling.max_surge.as_ref(), 1) > 0);
    let mut plan = Plan::default();
    for (node, suits) in &spread.suits {
        manage(&spread, node, *suits, surges, &mut plan);
    }
    // A pod that waits for a node that is gone would wait for ever.
    for (node, pods) in spread.pods.iter().filter(|(node, _)| !spread.suits.contains_key(**node)) {
        let waiting = pods.iter().filter(|pod| pods::node(pod).is_empty() && !meta::ends(pod.as_ref()));
        waiting.for_each(|pod| plan.delete(pod, node, Why::Surplus));
    }
    if plan.create.is_empty()
        && plan.delete.is_empty()
        && let Some(bounds) = bounds(observed.set, spread.desired())
    {
        rolling::plan(&spread, bounds, &mut plan);
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    let waits = observed.pods.iter().filter_map(|pod| pods::available_in(pod, min_ready(observed.set), observed.now));
    plan.after = earlier(plan.after, waits.filter(|wait| !wait.is_zero()).min());
    plan
}

/// Brings one node to the number of pods that it should have.
fn manage(spread: &Spread<'_>, node: &str, suits: Suits, surges: bool, plan: &mut Plan) {
    let pods = spread.pods.get(node).map(Vec::as_slice).unwrap_or_default();
    if suits.run && pods.is_empty() {
        plan.create.push(node.to_owned());
        return;
    }
    let present = pods.iter().filter(|pod| !meta::ends(pod.as_ref()));
    if !suits.stay {
        present.for_each(|pod| plan.delete(pod, node, Why::Surplus));
        return;
    }
    let (mut running, mut backs_off) = (Vec::new(), false);
    for pod in present {
        match pods::phase(pod) {
            "Failed" => match (spread.observed.wait)(node) {
                Some(left) => {
                    backs_off = true;
                    plan.after = earlier(plan.after, Some(left));
                }
                None => plan.delete(pod, node, Why::Failed),
            },
            "Succeeded" => plan.delete(pod, node, Why::Succeeded),
            _ => running.push(*pod),
        }
    }
    if surges && running.is_empty() {
        // As long as one that has failed is in back-off the next would fail, too (kubernetes#124388).
        if suits.run && !backs_off {
            plan.create.push(node.to_owned());
        }
    } else if surges {
        surplus_of_surge(spread, node, &running, plan);
    } else {
        running.iter().skip(1).for_each(|pod| plan.delete(pod, node, Why::Surplus));
    }
}

/// While a set surges a node has two pods only as long as the old one is ready and the new one not available.
fn surplus_of_surge(spread: &Spread<'_>, node: &str, running: &[&Arc<Pod>], plan: &mut Plan) {
    if running.len() <= 1 {
        return;
    }
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = running.iter().partition(|pod| hash_of(pod) == Some(spread.observed.hash));
    new.iter().skip(1).chain(old.iter().skip(1)).for_each(|pod| plan.delete(pod, node, Why::Surplus));
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!pods::is_ready(old) || spread.is_available(new))
    {
        plan.delete(old, node, Why::Surplus);
    }
}

/// The oldest of the `old` revisions beyond `limit`, but none that a pod has.
pub(super) fn surplus<'a>(
    old: impl Iterator<Item = &'a Arc<ControllerRevision>>,
    limit: usize,
    pods: &[Arc<Pod>],
) -> Vec<&'a Arc<ControllerRevision>> {
    let old: Vec<&Arc<ControllerRevision>> = old.collect();
    let live: HashSet<&str> = pods.iter().filter_map(|pod| hash_of(pod)).collect();
    let number = old.len().saturating_sub(limit);
    let hash = |revision: &ControllerRevision| revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH)).cloned();
    let dead = old.into_iter().filter(|revision| hash(revision).is_none_or(|hash| !live.contains(hash.as_str())));
    dead.take(number).collect()
}
