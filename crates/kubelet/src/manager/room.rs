//! Whether there is room for a pod, and how a critical one gets it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base::metrics::Page;
use client::{Api, resource_version};
use k8s_openapi::api::core::v1::{Node, Pod};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio_util::sync::CancellationToken;

use super::{Handle, Manager, uid};
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
/// How long the API has to say what the Node is. All pods of the node wait meanwhile.
const ANSWER: Duration = Duration::from_secs(5);

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
        if desired.evicted.is_none() || desired.settled.is_cancelled() {
            return None;
        }
        let grace = ending::grace(&Model::new(desired.pod.clone()));
        Some(Leaving { settled: desired.settled.clone(), patience: (grace + grace / 2).max(PATIENCE) })
    }
}

impl Manager {
    /// Whether a pod may run here, and who has to be gone before it does. What the node took on before is not asked again.
    pub(super) async fn admission(&mut self, pod: &Arc<Pod>, found: &Found) -> Result<Vec<Leaving>, Rejection> {
        let is_known = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if is_known || pod.metadata.deletion_timestamp.is_some() || !found.sandboxes.is_empty() {
            return Ok(Vec::new());
        }
        if *self.cx.shutdown.borrow() {
            return Err(shutdown::manager::rejection());
        }
        let model = Model::new(pod.clone());
        eviction::admission::admit(&model, &self.cx.conditions.borrow())?;
        let others = self.others(uid(pod));
        let mut reasons = self.with_room(|room| misfits(&model, &others, room));
        // The scheduler may have seen labels and taints that have not reached this node yet.
        if reasons.iter().any(|misfit| matches!(misfit, Misfit::Node(_))) && self.ask_for_node().await {
            reasons = self.with_room(|room| misfits(&model, &others, room));
        }
        match reasons.into_iter().next() {
            None => Ok(Vec::new()),
            Some(_) if pods::state::is_critical(pod) => self.make_room(&model),
            Some(misfit) => Err(misfit.into()),
        }
    }

    /// Begins the end of pods that have to go for a critical one; those that go anyway give their room first.
    fn make_room(&self, critical: &Model) -> Result<Vec<Leaving>, Rejection> {
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

    /// Asks the API for the Node object (upstream: `getNodeSync`). Whether it has answered.
    async fn ask_for_node(&mut self) -> bool {
        let api: Api<Node> = Api::all(self.cx.options.client.clone());
        match tokio::time::timeout(ANSWER, api.get(&self.cx.options.node_name)).await {
            Ok(Ok(node)) => self.asked_for = Some(Arc::new(node)),
            Ok(Err(error)) => {
                tracing::warn!(error = client::why(&error), "the API does not say what the Node is");
                return false;
            }
            Err(_) => {
                tracing::warn!("the API has not said in time what the Node is");
                return false;
            }
        }
        true
    }

    /// The Node object: that of the informer, or one that was asked for and is newer.
    fn node(&self) -> Option<Arc<Node>> {
        let watched = self.nodes.get(None, &self.cx.options.node_name);
        self.asked_for.iter().cloned().chain(watched).max_by_key(|node| resource_version::of(node.as_ref()))
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
