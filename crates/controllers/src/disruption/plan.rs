//! What stands in the status of a budget.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::intstr;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::scale::Unknown;
use crate::meta;

/// An eviction that has not led to a deletion after this time will not; the pod counts again.
const DELETION_SECONDS: i64 = 120;
const ALLOWED: &str = "DisruptionAllowed";

/// How many pods there should be, and how many of them must be healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) pods: i64,
    pub(super) healthy: i64,
}

/// Why a budget cannot be worked out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Scale(#[from] Unknown),
    #[error("{0}")]
    Bound(#[from] intstr::Error),
}

/// Whether the budget is about pods that nobody controls, which count for nothing in what it asks for: it is a part of the sizes of controllers.
pub(super) fn misses(budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> bool {
    let of_controllers = budget
        .spec
        .as_ref()
        .is_some_and(|spec| spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_))));
    of_controllers && pods.iter().any(|pod| meta::controller_of(pod.as_ref()).is_none())
}

/// A number of pods needs no controllers to be understood, a part of them does.
pub(super) fn expected(budget: &PodDisruptionBudget, pods: usize, scale: Result<&i64, &Unknown>) -> Result<Expected, Error> {
    let spec = budget.spec.clone().unwrap_or_default();
    let scale = || scale.copied().map_err(|error| Error::Scale(error.clone()));
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let pods = scale()?;
            Ok(Expected { pods, healthy: (pods - intstr::scaled(most, pods, true)?).max(0) })
        }
        (None, Some(IntOrString::Int(least))) => {
            Ok(Expected { pods: i64::try_from(pods).unwrap_or(i64::MAX), healthy: i64::from(*least) })
        }
        (None, Some(part)) => {
            let pods = scale()?;
            Ok(Expected { pods, healthy: intstr::scaled(part, pods, true)? })
        }
        (None, None) => Ok(Expected { pods: 0, healthy: 0 }),
    }
}

/// What a budget comes to.
pub(super) struct Outcome {
    pub(super) status: PodDisruptionBudgetStatus,
    /// When it has to be looked at again although nothing changes.
    pub(super) recheck: Option<Duration>,
    /// Pods whose eviction was allowed long ago and that nobody has deleted. They are told of once: the status forgets them.
    pub(super) undeleted: Vec<Arc<Pod>>,
}

/// The next status, and what follows from it.
pub(super) fn status(budget: &PodDisruptionBudget, all: &[Arc<Pod>], expected: Expected, now: Timestamp) -> Outcome {
    let Disrupted { kept: disrupted, recheck, undeleted } = disrupted(budget, all, now);
    let counts = |pod: &&Arc<Pod>| {
        !meta::ends(pod.as_ref()) && pods::state::is_ready(pod) && !disrupted.contains_key(meta::name(pod.as_ref()))
    };
    let healthy = i64::try_from(all.iter().filter(counts).count()).unwrap_or(i64::MAX);
    // Without pods nothing is allowed: the first ones may come before this is worked out again.
    let allowed = if expected.pods > 0 { (healthy - expected.healthy).max(0) } else { 0 };
    let number = |count: i64| Some(i32::try_from(count).unwrap_or(i32::MAX));
    let before = budget.status.clone().unwrap_or_default();
    let generation = budget.metadata.generation;
    let (state, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(with(before.conditions, condition(state, reason, "", generation, now))),
        current_healthy: number(healthy),
        desired_healthy: number(expected.healthy),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        disruptions_allowed: number(allowed),
        expected_pods: number(expected.pods),
        observed_generation: generation,
    };
    Outcome { status, recheck, undeleted }
}

/// The status of a budget that cannot be worked out: nothing is allowed.
pub(super) fn failed(budget: &PodDisruptionBudget, message: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let before = budget.status.clone().unwrap_or_default();
    let condition = condition("False", "SyncFailed", message, before.observed_generation, now);
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        current_healthy: before.current_healthy.or(Some(0)),
        desired_healthy: before.desired_healthy.or(Some(0)),
        expected_pods: before.expected_pods.or(Some(0)),
        conditions: Some(with(before.conditions.clone(), condition)),
        ..before
    }
}

/// Pods whose eviction was allowed and that are not being deleted yet.
#[derive(Default)]
struct Disrupted {
    /// They do not count.
    kept: BTreeMap<String, Time>,
    recheck: Option<Duration>,
    undeleted: Vec<Arc<Pod>>,
}

fn disrupted(budget: &PodDisruptionBudget, all: &[Arc<Pod>], now: Timestamp) -> Disrupted {
    let noted = budget.status.iter().flat_map(|status| status.disrupted_pods.iter().flatten());
    let mut found = Disrupted::default();
    for (name, time) in noted {
        let waits = |pod: &&Arc<Pod>| meta::name(pod.as_ref()) == name && !meta::ends(pod.as_ref());
        let Some(pod) = all.iter().find(waits) else { continue };
        let left = time.0.as_second() + DELETION_SECONDS - now.as_second();
        match u64::try_from(left) {
            Ok(left) if left > 0 => {
                found.kept.insert(name.clone(), time.clone());
                let left = Duration::from_secs(left);
                found.recheck = Some(found.recheck.map_or(left, |other| other.min(left)));
            }
            _ => found.undeleted.push(pod.clone()),
        }
    }
    found
}

fn condition(status: &str, reason: &str, message: &str, generation: Option<i64>, now: Timestamp) -> Condition {
    Condition {
        type_: ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation.filter(|generation| *generation != 0),
        last_transition_time: meta::whole_seconds(now),
    }
}

/// Puts a condition in the place of the one of its type. The time stays where the status does.
fn with(conditions: Option<Vec<Condition>>, mut condition: Condition) -> Vec<Condition> {
    let mut conditions = conditions.unwrap_or_default();
    match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
    conditions
}
