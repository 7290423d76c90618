//! How the pods of an old template are replaced: by deleting them, or by putting new ones beside them (KEP-1591). Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::spread::{Plan, Spread, Why};
use crate::meta;

/// How many nodes may lack an available pod, and how many may have one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) unavailable: usize,
    pub(super) surge: usize,
}

/// The pods of one node that are not being deleted.
#[derive(Default)]
struct Pair<'a> {
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
}

/// None when there is more than one of either.
fn pair<'a>(spread: &Spread<'a>, pods: &[&'a Arc<Pod>]) -> Option<Pair<'a>> {
    let mut pair = Pair::default();
    for pod in pods.iter().filter(|pod| !meta::ends(pod.as_ref())) {
        let place = if spread.is_updated(pod) { &mut pair.new } else { &mut pair.old };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some(pair)
}

/// Goes one step on where every node has what it should have.
pub(super) fn plan(spread: &Spread<'_>, bounds: Bounds, plan: &mut Plan) {
    if bounds.surge == 0 { replace(spread, bounds.unavailable, plan) } else { surge(spread, bounds.surge, plan) }
}

/// Deletes as many old pods as may be missing. The next look makes new ones in their place.
fn replace(spread: &Spread<'_>, most: usize, plan: &mut Plan) {
    let mut unavailable = 0;
    let (mut broken, mut candidates) = (Vec::new(), Vec::new());
    for (node, pods) in &spread.pods {
        match pair(spread, pods) {
            // Its replacement is under way.
            None | Some(Pair { new: None, old: None } | Pair { new: Some(_), old: Some(_) }) => unavailable += 1,
            Some(Pair { new: Some(new), old: None }) => unavailable += usize::from(!spread.is_available(new)),
            Some(Pair { new: None, old: Some(old) }) if spread.is_available(old) => candidates.push((*node, old)),
            // Nobody misses a pod that does not serve.
            Some(Pair { new: None, old: Some(old) }) => broken.push((*node, old)),
        }
    }
    let left = most.saturating_sub(unavailable);
    for (node, old) in broken.into_iter().chain(candidates.into_iter().take(left)) {
        plan.delete(old, node, Why::Surplus);
    }
}

/// Puts new pods beside old ones and deletes the old ones whose new one is available.
fn surge(spread: &Spread<'_>, most: usize, plan: &mut Plan) {
    let (mut surging, mut available) = (0, 0);
    let (mut allowed, mut candidates, mut leaving) = (Vec::new(), Vec::new(), Vec::new());
    for (node, pods) in &spread.pods {
        let Some(Pair { new, old }) = pair(spread, pods) else {
            surging += 1;
            continue;
        };
        available += usize::from(old.or(new).is_some_and(|pod| spread.is_available(pod)));
        match (new, old) {
            (_, None) => {}
            (None, Some(old)) => match (spread.is_available(old), spread.should_run(node)) {
                (false, false) => plan.delete(old, node, Why::Surplus),
                (false, true) => allowed.push((*node).to_owned()),
                (true, false) => leaving.push((*node, old)),
                (true, true) => candidates.push((*node).to_owned()),
            },
            (Some(new), Some(old)) if spread.is_available(new) => plan.delete(old, node, Why::Surplus),
            (Some(_), Some(_)) => surging += 1,
        }
    }
    // A node that the set has left keeps its pod until another one serves in its stead.
    let spare = available.saturating_sub(spread.desired());
    leaving.into_iter().take(spare).for_each(|(node, old)| plan.delete(old, node, Why::Surplus));
    plan.create.extend(allowed);
    plan.create.extend(candidates.into_iter().take(most.saturating_sub(surging)));
}
