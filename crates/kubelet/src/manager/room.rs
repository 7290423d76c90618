//! Whether there is room for a pod, and how a critical one gets it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base::metrics::Page;
use client::resource_version;
use k8s_openapi::api::core::v1::{Node, Pod};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio_util::sync::CancellationToken;

use super::{Handle, Manager};
use crate::admission::{Misfit, Room, misfits};
use crate::eviction;
use crate::pod::ending;
use crate::pod::found::Found;
use crate::pod::state::{Evicted, Rejection};
use crate::preemption;
use crate::shutdown;
use crate::spec::Model;

/// Least time that is waited for a pod that makes room, as upstream; one with a long grace period gets half of it in addition.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a pod may run here, and who has to be gone before it does.
pub(super) type Admission = Result<Vec<Leaving>, Rejection>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    preemption_signal: String,
}

static PREEMPTIONS: LazyLock<Family<Label, Counter>> = LazyLock::new(|| {
    Page::Node.register_bare(
        "kubelet_preemptions",
        "Cumulative number of pod preemptions by preemption resource",
        Family::default(),
    )
});

/// A pod that makes room for another.
#[derive(Debug)]
pub(super) struct Leaving {
    /// Cancelled when nothing of it is left.
    settled: CancellationToken,
    /// After this it is not waited for any longer.
    patience: Duration,
}

impl Leaving {
    /// Waits until nothing of the pod is left, or it has had its time.
    pub(super) async fn gone(self) {
        if tokio::time::timeout(self.patience, self.settled.cancelled()).await.is_err() {
            tracing::warn!("a pod that was to make room for a critical pod has not ended in time");
        }
    }
}

impl Handle {
    /// Whether the pod has to go, and has not gone yet.
    fn leaving(&self) -> Option<Leaving> {
        let desired = self.desired.borrow();
        if desired.evicted.is_none() || desired.end.settled.is_cancelled() {
            return None;
        }
        let grace = ending::grace(&Model::new(desired.pod.clone()));
        Some(Leaving { settled: desired.end.settled.clone(), patience: (grace + grace / 2).max(PATIENCE) })
    }
}

impl Manager {
    /// Whether a pod may run here; none where only the API can say. What the node took on before is not asked again.
    pub(super) fn admission(&self, pod: &Arc<Pod>, found: &Found) -> Option<Admission> {
        let is_known = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if is_known || pod.metadata.deletion_timestamp.is_some() || !found.sandboxes.is_empty() {
            return Some(Ok(Vec::new()));
        }
        // The scheduler may have seen labels and taints that have not reached this node yet.
        let (admission, by_node) = self.judge(&Model::new(pod.clone()));
        (!by_node).then_some(admission)
    }

    /// Whether a pod may run here that does not yet, and whether it is the Node object that forbids it.
    pub(super) fn judge(&self, model: &Model) -> (Admission, bool) {
        if *self.cx.shutdown.borrow() {
            return (Err(shutdown::manager::rejection()), false);
        }
        if let Err(rejection) = eviction::admission::admit(model, &self.cx.conditions.borrow()) {
            return (Err(rejection), false);
        }
        let others = self.others(model.uid());
        let reasons = self.with_room(|room| misfits(model, &others, room));
        let by_node = reasons.iter().any(|misfit| matches!(misfit, Misfit::Node(_)));
        let admission = match reasons.into_iter().next() {
            None => Ok(Vec::new()),
            // What the Node object forbids no room allows: nobody ends for it.
            Some(_) if pods::state::is_critical(&model.pod) => self.make_room(model),
            Some(misfit) => Err(misfit.into()),
        };
        (admission, by_node)
    }

    /// Begins the end of pods that have to go for a critical one; those that go anyway give their room first.
    fn make_room(&self, critical: &Model) -> Admission {
        let staying = self.models(|uid, handle| uid != critical.uid() && handle.leaving().is_none());
        let (mut shortages, mut others) = (Vec::new(), Vec::new());
        for misfit in self.with_room(|room| misfits(critical, &staying, room)) {
            match misfit {
                Misfit::Short(shortage) => shortages.push(shortage),
                Misfit::Node(rejection) | Misfit::Other(rejection) => others.push(rejection),
            }
        }
        if let Some(rejection) = others.into_iter().next() {
            return Err(rejection);
        }
        for victim in preemption::victims(critical, &staying, &shortages)? {
            tracing::warn!(pod = victim.title(), critical = critical.title(), "ending a pod to make room for a critical one");
            let preemption_signal = shortages.first().map(|shortage| shortage.resource.clone()).unwrap_or_default();
            PREEMPTIONS.get_or_create(&Label { preemption_signal }).inc();
            self.evict(victim.uid(), Evicted::for_critical_pod());
        }
        Ok(self.handles.values().filter_map(Handle::leaving).collect())
    }

    /// The Node object: that of the informer, or one that was asked for and is newer.
    fn node(&self) -> Option<Arc<Node>> {
        let watched = self.nodes.get(None, &self.cx.options.node_name);
        self.asking.node.iter().cloned().chain(watched).max_by_key(|node| resource_version::of(node.as_ref()))
    }

    pub(super) fn with_room<T>(&self, ask: impl FnOnce(&Room<'_>) -> T) -> T {
        let own = || self.cx.options.node_labels(&self.cx.machine.info.architecture);
        let node = self.node();
        let taints = node.iter().filter_map(|node| node.spec.as_ref()?.taints.clone()).next().unwrap_or_default();
        let labels = node.map_or_else(own, |node| node.metadata.labels.clone().unwrap_or_default());
        let (app_armor, features) = (self.cx.machine.app_armor, self.cx.runtime().features());
        ask(&Room {
            name: &self.cx.options.node_name,
            labels: &labels,
            taints: &taints,
            app_armor,
            features,
            sysctls: &self.cx.options.allowed_unsafe_sysctls,
            allocatable: self.cx.allocatable.list(),
            exclusive_cpus: self.cx.cpus.is_static(),
            exclusive_memory: self.cx.memory.is_static(),
        })
    }
}
