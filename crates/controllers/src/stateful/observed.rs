//! What a set is, and what there is of it. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};

use crate::{meta, pods};

/// A revision: what it is called and what it makes.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) name: String,
    pub(super) template: PodTemplateSpec,
}

/// What the caches say.
pub(super) struct Observed<'a> {
    pub(super) set: &'a StatefulSet,
    /// The pods that the set controls.
    pub(super) pods: &'a [Arc<Pod>],
    /// What the set comes from, and what it goes to.
    pub(super) current: &'a Version,
    pub(super) update: &'a Version,
    /// Claims of the set's namespace by name.
    pub(super) claims: &'a (dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>> + Sync),
    pub(super) collisions: i32,
    pub(super) now: Timestamp,
}

/// Runs and is ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

impl Observed<'_> {
    pub(super) fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    /// How long until the pod is available; None when it is not ready.
    pub(super) fn availability(&self, pod: &Pod) -> Option<Duration> {
        is_ready(pod).then(|| pods::available_in(pod, self.min_ready(), self.now)).flatten()
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        self.availability(pod) == Some(Duration::ZERO)
    }

    /// Whether a place has a pod that serves and stays.
    pub(super) fn serves(&self, pod: Option<&Arc<Pod>>) -> bool {
        pod.is_some_and(|pod| self.is_available(pod) && !meta::ends(pod.as_ref()))
    }

    pub(super) fn in_order(&self) -> bool {
        self.set.spec.as_ref().and_then(|spec| spec.pod_management_policy.as_deref()) != Some("Parallel")
    }

    /// Pods below this index keep the current revision.
    pub(super) fn partition(&self) -> Option<i32> {
        self.set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref().map(|rolling| rolling.partition.unwrap_or(0))
    }

    pub(super) fn rolls(&self) -> bool {
        let strategy = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref());
        strategy != Some("OnDelete")
    }

    /// The revision that a new pod of that index gets.
    pub(super) fn version(&self, index: i32) -> &Version {
        let current = self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0);
        let old = match self.partition() {
            Some(partition) => index < partition,
            None => self.rolls() && index < current,
        };
        if old { self.current } else { self.update }
    }
}
