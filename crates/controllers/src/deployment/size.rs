//! Numbers of a deployment and its replica sets.

use apimachinery::intstr;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{DESIRED, MAX};
use crate::meta;

/// What the deployment wants.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// What the replica set is asked for.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// Pods above and below the wanted number that a rolling update may have: resolved together, so that at least one of
/// them lets it move.
fn fence_posts(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let total = wanted(deployment);
    let resolve = |value: Option<&IntOrString>, round_up| {
        // Validation has refused what does not scale.
        let value = intstr::scaled(value.unwrap_or(&quarter), i64::from(total), round_up).unwrap_or(0);
        i32::try_from(value).unwrap_or(i32::MAX)
    };
    let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
    let unavailable = resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fence_posts(deployment).0 } else { 0 }
}

pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || wanted(deployment) == 0 {
        return 0;
    }
    fence_posts(deployment).1.min(wanted(deployment))
}

/// The most replicas that all sets may have together while the deployment rolls.
pub(super) fn limit(deployment: &Deployment) -> i64 {
    i64::from(wanted(deployment)) + i64::from(max_surge(deployment))
}

/// A number of replicas, the nearest that there can be.
pub(super) fn nearest(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX })
}

/// How many replicas the new set should have next, given all sets.
pub(super) fn next_new_size(deployment: &Deployment, total: i64, new: i32) -> i32 {
    if !is_rolling(deployment) {
        return wanted(deployment);
    }
    let limit = limit(deployment);
    if total >= limit {
        return new;
    }
    new + nearest(limit - total).min(wanted(deployment) - new)
}

fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    meta::annotation(set, annotation)?.parse().ok()
}

/// The size of the deployment when this set was last scaled.
pub(super) fn desired_annotation(set: &ReplicaSet) -> Option<i32> {
    number(set, DESIRED)
}

/// Whether the new set has everything that is wanted, and knows so.
pub(super) fn is_saturated(deployment: &Deployment, new: &ReplicaSet) -> bool {
    let total = wanted(deployment);
    replicas(new) == total && desired_annotation(new) == Some(total) && available(new) == total
}

/// This set's share of `to_add` replicas (negative: to remove), of which `added` are already given away.
pub(super) fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if replicas(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (fraction, allowed) = (fraction(deployment, set), to_add - added);
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    if wanted(deployment) == 0 {
        return -replicas(set);
    }
    let limit = limit(deployment);
    let now = deployment.status.as_ref().and_then(|status| status.replicas);
    let before = number(set, MAX).filter(|max| *max != 0).or(now).unwrap_or(0);
    if before == 0 {
        return 0;
    }
    let size = f64::from(replicas(set)) * limit as f64 / f64::from(before);
    size.round() as i32 - replicas(set)
}
