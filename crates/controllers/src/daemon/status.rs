//! What stands in the status of a set. Pure.

use k8s_openapi::api::apps::v1::DaemonSetStatus;

use super::plan::{Observed, Spread};
use crate::pods;

/// The status of what is observed, without the count of collisions. Only the oldest pod of a node counts.
pub(super) fn status(observed: &Observed<'_>) -> DaemonSetStatus {
    let spread = Spread::of(observed);
    let mut status = DaemonSetStatus {
        observed_generation: observed.set.metadata.generation,
        conditions: observed.set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for (node, suits) in &spread.suits {
        let oldest = spread.pods.get(node).and_then(|pods| pods.first());
        if !suits.run {
            status.number_misscheduled += i32::from(oldest.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = oldest else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(pod));
        available += i32::from(spread.is_available(pod));
        updated += i32::from(spread.is_updated(pod));
    }
    let count = |count: i32| Some(count).filter(|count| *count != 0);
    status.number_available = count(available);
    status.number_unavailable = count(status.desired_number_scheduled - available);
    status.updated_number_scheduled = count(updated);
    status
}
