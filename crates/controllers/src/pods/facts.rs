//! What an owner of many pods asks of each, whenever one of them has changed.

use std::time::Duration;

use client::Facts;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{available_from, is_finished, node, phase, ready_since};
use crate::meta;

/// What its user says that the loss of a pod costs (KEP-2255).
pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Where a pod is, as far as its owner cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) is_finished: bool,
    /// It has failed and no container of it ever ran: its node has refused it.
    pub(crate) is_refused: bool,
    /// Pending before Unknown before all others.
    pub(crate) phase: u8,
    /// Empty when it has none.
    pub(crate) node: Box<str>,
    pub(crate) ready_since: Option<Timestamp>,
    pub(crate) created: Option<Timestamp>,
    /// Of its container that was restarted most often.
    pub(crate) restarts: i32,
    /// What its user says that its loss costs.
    pub(crate) cost: i32,
}

impl PodFacts {
    /// See [`super::available_in`].
    pub(crate) fn available_in(&self, min_ready: i32, now: Timestamp) -> Option<Duration> {
        self.ready_since.map(|since| available_from(since, min_ready, now))
    }
}

/// The longest time until another pod takes the place of one that its node has refused.
pub(crate) const REFUSED_LONGEST: Duration = Duration::from_secs(60);

/// See [`PodFacts::is_refused`].
pub(crate) fn is_refused(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let ran = [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten();
    phase(pod) == "Failed" && ran.into_iter().all(|container| container.container_id.is_none())
}

impl Facts<Pod> for PodFacts {
    fn of(pod: &Pod) -> Self {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        Self {
            is_finished: is_finished(pod),
            is_refused: is_refused(pod),
            phase: match phase(pod) {
                "Pending" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            node: node(pod).into(),
            ready_since: ready_since(pod),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            restarts: statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0),
            cost: meta::annotation(pod, DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0),
        }
    }
}
