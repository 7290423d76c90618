//! The status and conditions of a deployment.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};

use super::size;
use crate::meta;

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The seconds a rollout may stand still. `i32::MAX` means for ever.
pub(super) fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds.unwrap_or(600);
    (seconds != i32::MAX).then_some(seconds)
}

pub(super) fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

pub(super) fn new_condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(meta::whole_seconds(now)),
        last_transition_time: Some(meta::whole_seconds(now)),
    }
}

/// Sets a condition, unless it is there with the same status and reason.
pub(super) fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = condition(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove_condition(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

pub(super) fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// Marks that progress is not expected while the deployment is paused, and is again afterwards.
pub(super) fn mark_paused(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    let current = condition(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if deadline(deployment).is_none() || current == Some(TIMED_OUT) {
        return;
    }
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
    let (reason, message) = match (paused, current == Some("DeploymentPaused")) {
        (true, false) => ("DeploymentPaused", "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    set_condition(status, new_condition(PROGRESSING, "Unknown", reason, message.to_owned(), now));
}

fn nonzero(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

/// The numbers, and whether enough replicas are available. `conditions` are those decided so far.
pub(super) fn count(
    deployment: &Deployment,
    sets: &[ReplicaSet],
    new: Option<&ReplicaSet>,
    mut decided: DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |get: fn(&ReplicaSet) -> i32| size::nearest(sets.iter().map(|set| i64::from(get(set))).sum());
    let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let ending = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0);
    let available = sum(size::available);
    let enough = available >= size::wanted(deployment) - size::max_unavailable(deployment);
    let condition = if enough {
        let message = "Deployment has minimum availability.".to_owned();
        new_condition(AVAILABLE, "True", "MinimumReplicasAvailable", message, now)
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        new_condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now)
    };
    set_condition(&mut decided, condition);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(sum(actual)),
        updated_replicas: nonzero(new.map_or(0, actual)),
        ready_replicas: nonzero(sum(ready)),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((sum(size::replicas) - available).max(0)),
        terminating_replicas: Some(sum(ending)),
        collision_count: decided.collision_count,
        conditions: decided.conditions,
    }
}

/// Adds to `status` how the rollout goes.
pub(super) fn judge_progress(
    deployment: &Deployment,
    sets: &[ReplicaSet],
    new: Option<&ReplicaSet>,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    if deadline(deployment).is_none() {
        remove_condition(status, PROGRESSING);
    } else if !was_complete(status) {
        let subject = match new {
            Some(set) => format!("ReplicaSet {:?}", meta::name(set)),
            None => format!("Deployment {:?}", meta::name(deployment)),
        };
        progress_condition(deployment, status, &subject, now);
    }
    match replica_failure(sets, new) {
        Some(failure) => set_condition(status, failure),
        None => remove_condition(status, REPLICA_FAILURE),
    }
}

fn was_complete(status: &DeploymentStatus) -> bool {
    let reason = condition(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    status.replicas == status.updated_replicas && reason == Some(COMPLETE)
}

fn progress_condition(deployment: &Deployment, status: &mut DeploymentStatus, subject: &str, now: Timestamp) {
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(status, new_condition(PROGRESSING, "True", COMPLETE, message, now));
    } else if has_progressed(deployment, status) {
        let message = format!("{subject} is progressing.");
        let mut new = new_condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        // Progress counts from now on, even when the reason stays.
        if let Some(old) = condition(status, PROGRESSING).filter(|old| old.status == "True") {
            new.last_transition_time = old.last_transition_time.clone();
        }
        remove_condition(status, PROGRESSING);
        set_condition(status, new);
    } else if has_timed_out(deployment, status, now) {
        let message = format!("{subject} has timed out progressing.");
        set_condition(status, new_condition(PROGRESSING, "False", TIMED_OUT, message, now));
    }
}

/// Everything that is wanted is new and available, and nothing old is left.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = size::wanted(deployment);
    let is_wanted = |number: Option<i32>| number.unwrap_or(0) == wanted;
    is_wanted(status.updated_replicas)
        && is_wanted(status.replicas)
        && is_wanted(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let none = DeploymentStatus::default();
    let old = deployment.status.as_ref().unwrap_or(&none);
    let old_ones = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    new.updated_replicas > old.updated_replicas
        || old_ones(new) < old_ones(old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(condition) = condition(status, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => stuck_in(deployment, condition, now).is_some_and(|left| left.is_zero()),
    }
}

/// How long until `condition` is older than the deadline.
fn stuck_in(deployment: &Deployment, condition: &DeploymentCondition, now: Timestamp) -> Option<Duration> {
    let updated = condition.last_update_time.as_ref()?.0;
    let until = updated.as_millisecond() + i64::from(deadline(deployment)?) * 1000;
    Some(Duration::from_millis(u64::try_from(until - now.as_millisecond()).unwrap_or(0)))
}

/// When to look whether the rollout is stuck.
pub(super) fn check_after(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let condition = condition(status, PROGRESSING)?;
    if is_complete(deployment, status) || matches!(condition.reason.as_deref(), Some(TIMED_OUT | COMPLETE)) {
        return None;
    }
    // A second more, for times are kept in whole seconds.
    stuck_in(deployment, condition, now).map(|left| left + Duration::from_secs(1))
}

fn replica_failure(sets: &[ReplicaSet], new: Option<&ReplicaSet>) -> Option<DeploymentCondition> {
    let failures = new.into_iter().chain(sets).filter_map(|set| set.status.as_ref()?.conditions.as_ref()).flatten();
    let failure = failures.into_iter().find(|condition| condition.type_ == REPLICA_FAILURE)?;
    Some(DeploymentCondition {
        type_: failure.type_.clone(),
        status: failure.status.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        last_transition_time: failure.last_transition_time.clone(),
        last_update_time: failure.last_transition_time.clone(),
    })
}
