//! What stands in the status of a set. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity;
use super::observed::{Observed, is_ready};
use crate::{meta, pods};

/// The status of what is observed, `members` being the pods that have a number.
pub(super) fn status<'a>(observed: &Observed<'_>, members: impl Iterator<Item = &'a Arc<Pod>>) -> StatefulSetStatus {
    let (mut replicas, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
    for pod in members {
        replicas += 1;
        ready += i32::from(is_ready(pod));
        available += i32::from(observed.availability(pod) == Some(Duration::ZERO));
        if !meta::ends(pod.as_ref()) {
            let revision = identity::revision(pod);
            current += i32::from(revision == observed.current.name);
            updated += i32::from(revision == observed.update.name);
        }
    }
    let count = |count: i32| Some(count).filter(|count| *count != 0);
    let before = observed.set.status.clone().unwrap_or_default();
    StatefulSetStatus {
        observed_generation: observed.set.metadata.generation,
        replicas,
        ready_replicas: count(ready),
        available_replicas: Some(available),
        current_replicas: count(current),
        updated_replicas: count(updated),
        current_revision: Some(observed.current.name.clone()),
        update_revision: Some(observed.update.name.clone()),
        collision_count: Some(observed.collisions),
        conditions: before.conditions,
    }
}

/// Makes the new revision the current one when all pods have it and serve.
pub(super) fn complete(set: &StatefulSet, status: &mut StatefulSetStatus) {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref());
    let wanted = identity::replicas(set);
    let all = |count: Option<i32>| count.unwrap_or(0) == wanted;
    if strategy == Some("RollingUpdate")
        && status.replicas == wanted
        && all(status.updated_replicas)
        && all(status.ready_replicas)
    {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
}

/// Whether the pod's phase says that no container of it runs any longer.
pub(super) fn has_ended(pod: &Pod) -> bool {
    pods::is_finished(pod)
}
