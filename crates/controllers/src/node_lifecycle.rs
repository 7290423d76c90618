//! Nodes that fall silent: their conditions become unknown, taints keep pods away and drive them away after the time that
//! they tolerate. Nodes that fail together get the taints that drive pods away one after the other, or not at all (`zones`). Timers wait for exactly
//! the next thing that can happen.

mod metrics;
mod plan;
mod registered;
#[cfg(test)]
mod tests;
mod zones;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::{Patch, PatchParams};
use client::{Change, Entry, Facts, Index, Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::eviction::Eviction;
use crate::queue::Queue;
use crate::{meta, pods};

use registered::Registered;
use zones::{Census, Lines, NodeFacts, Paces, Turn};

pub(crate) use plan::{is_out_of_service, is_ready, is_shut_down};

const LEASES: &str = "kube-node-lease";

pub(crate) struct NodeLifecycle {
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    by_node: Index<Pod>,
    heard: Heard,
    /// What was seen first when, by node.
    seen: Mutex<HashMap<String, Seen>>,
    registered: Registered,
    /// Nodes that wait until pods may be driven from them.
    lines: Mutex<Lines>,
    /// To look at the next one when one has left its line.
    queue: Arc<OnceLock<Queue>>,
}

/// Since when this process has known the taints that drive pods from a node, and the pods that are there beside them, by the clock that goes on evenly. As
/// upstream, it is no matter what the taint says of its time: after a restart, or when somebody has set the clock, pods get the time that they tolerate.
#[derive(Default)]
struct Seen {
    taints: Vec<(Taint, Duration)>,
    /// By uid.
    pods: HashMap<String, Duration>,
}

impl Seen {
    /// What there is now.
    fn look(&mut self, node: &Node, pods: &[Arc<Pod>], now: Duration) {
        let same = |one: &Taint, other: &Taint| (&one.key, &one.value, &one.effect) == (&other.key, &other.value, &other.effect);
        let since = |taint: &Taint| self.taints.iter().find(|(one, _)| same(one, taint)).map_or(now, |(_, since)| *since);
        self.taints = plan::evicting(node).map(|taint| (taint.clone(), since(taint))).collect();
        let since = |pod: &Arc<Pod>| self.pods.get(meta::uid(pod.as_ref())).copied().unwrap_or(now);
        self.pods = pods.iter().map(|pod| (meta::uid(pod.as_ref()).to_owned(), since(pod))).collect();
    }

    /// Since when a pod has been there beside a taint.
    fn since(&self, pod: &Pod, taint: &Taint) -> Option<Duration> {
        let taint = self.taints.iter().find(|(one, _)| one == taint).map(|(_, since)| *since);
        taint.max(self.pods.get(meta::uid(pod)).copied())
    }
}

/// When each node was heard of last, as this process saw it come: what a node's own clock shows may be another time. What was there
/// before counts from when it was seen first, so that all nodes get the chance to report.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<HashMap<String, Instant>>>);

impl Heard {
    /// Takes a change of the lease of a node, which is there or not.
    fn lease(&self, change: &Change<Lease>, exists: bool, now: Instant) {
        match &change.new {
            Some(lease) if change.old.as_ref().map(renewed) != Some(renewed(lease)) => self.note(&change.key, now),
            None if !exists => drop(self.0.lock().remove(&change.key.name)),
            _ => {}
        }
    }

    /// Takes a change of a node.
    fn node(&self, change: &Change<Node>, now: Instant) {
        match &change.new {
            None => drop(self.0.lock().remove(&change.key.name)),
            Some(node) if change.old.as_deref().map(plan::heartbeat) != Some(plan::heartbeat(node)) => {
                self.note(&change.key, now)
            }
            _ => {}
        }
    }

    fn note(&self, node: &Key, now: Instant) {
        self.0.lock().insert(node.name.clone(), now);
    }

    /// For how long the node has been silent.
    fn silence(&self, node: &str, now: Instant) -> Duration {
        self.0.lock().get(node).map_or(Duration::ZERO, |heard| now.duration_since(*heard))
    }
}

/// When the holder of a lease says that it renewed it.
fn renewed(lease: &Arc<Lease>) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

impl NodeLifecycle {
    pub(crate) fn new(informers: &Informers) -> Self {
        let pods = informers.of();
        Self {
            nodes: informers.of(),
            leases: informers.of(),
            by_node: pods::by_node(&pods),
            pods,
            heard: Heard::default(),
            seen: Mutex::default(),
            registered: Registered::default(),
            lines: Mutex::default(),
            queue: Arc::default(),
        }
    }
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-lifecycle";
    const ACCOUNT: &'static str = "node-controller";
    const CONCURRENCY: usize = 8;
    /// Upstream looks at all nodes this often. A pod that cannot be evicted delays no other pod of its node by more.
    const RETRY_MAX: Duration = Duration::from_secs(5);

    fn sources(&self) -> Vec<Source> {
        let (nodes, heard) = (self.nodes.clone(), self.heard.clone());
        // A node that renews its lease needs no look: the timer of the last look finds the renewal. Only one that came
        // back from silence does.
        let of_leases = Source::mapped(&self.leases, move |change, queue| {
            if change.key.ns() != LEASES {
                return;
            }
            heard.lease(change, nodes.get(None, &change.key.name).is_some(), Instant::now());
            let silent = |node: Arc<Node>| plan::condition(&node, "Ready").is_some_and(|ready| ready.status == "Unknown");
            if nodes.get(None, &change.key.name).is_some_and(silent) {
                queue.add(Key::cluster(&change.key.name));
            }
        });
        let nodes = self.nodes.clone();
        let of_pods = Source::stepped(&self.pods, move |step, queue| {
            let Some(pod) = &step.new else { return };
            let (before, now) = (step.old.as_ref().map(pods::node_of), pods::node_of(pod));
            let tolerations = |pod: &Entry<Pod>| pod.get().and_then(|pod| pod.spec.as_ref()?.tolerations.clone());
            let tolerates_else = || step.old.as_ref().is_some_and(|old| tolerations(old) != tolerations(pod));
            let tainted = |node: Arc<Node>| {
                let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
                taints.into_iter().flatten().any(|taint| taint.effect == "NoExecute")
            };
            if nodes.get(None, &now).is_some_and(tainted) && (before.as_ref() != Some(&now) || tolerates_else()) {
                queue.add(Key::cluster(now));
            }
        });
        let (nodes, heard, before) = (self.nodes.clone(), self.heard.clone(), Mutex::<Paces>::default());
        let of_nodes = Source::mapped(&self.nodes, move |change, queue| {
            heard.node(change, Instant::now());
            queue.add(change.key.clone());
            // How many nodes of each zone are ready decides what becomes of the others.
            let facts = |node: &Option<Arc<Node>>| node.as_deref().map(NodeFacts::of);
            if facts(&change.old) == facts(&change.new) {
                return;
            }
            let now = paces(&nodes);
            if *before.lock() != now {
                *before.lock() = now;
                let is_lost = |node: &Entry<Node>| node.facts::<NodeFacts>().is_some_and(|facts| !facts.is_ready);
                nodes.entries().iter().filter(|node| is_lost(node)).for_each(|node| queue.add(node.key().clone()));
            }
        });
        vec![of_nodes, of_leases, of_pods, Source::handle(&self.queue)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let node = self.nodes.by_key(key);
        self.registered.look(&key.name, node.as_deref(), &cx.events);
        let Some(node) = node else {
            self.seen.lock().remove(&key.name);
            self.leave_line(&key.name);
            return Ok(Action::Done);
        };
        let now = cx.clock.now();
        let silence =
            plan::grace(&node).checked_sub(self.heard.silence(&key.name, Instant::now())).filter(|left| !left.is_zero());
        if silence.is_none()
            && let Some(conditions) = plan::unknown_conditions(&node, now)
        {
            return self.mark_silent(cx, &node, conditions).await;
        }
        let (evict, wait) = match self.turn(cx, &node) {
            Some(Turn::Now) => (true, None),
            Some(Turn::In(left)) => (false, Some(left)),
            Some(Turn::NotYet) | None => (false, None),
        };
        let next = silence.into_iter().chain(wait).min();
        if let Some(taints) = plan::taints(&node, evict, now) {
            self.taint(cx, &node, taints).await?;
            // The change that this makes leads to the next look.
            return Ok(Action::after(next));
        }
        let mut marked = Ok(());
        if !plan::is_ready(&node) {
            marked = self.mark_pods_not_ready(cx, &node).await;
        }
        let eviction = self.evict(cx, &node).await;
        marked?;
        Ok(Action::after([next, eviction?].into_iter().flatten().min()))
    }
}

/// How fast pods may be driven from the nodes of each zone.
fn paces(nodes: &Informer<Node>) -> Paces {
    Census::of(nodes.entries().iter().filter_map(Entry::facts)).paces()
}

impl NodeLifecycle {
    /// Whether it is the node's turn to have pods driven from it. None where no node has one: there is no better place, and the fault is likely not
    /// the nodes'.
    fn turn(&self, cx: &Cx, node: &Node) -> Option<Turn> {
        let name = meta::name(node);
        if !plan::is_lost(node) {
            self.leave_line(name);
            return Some(Turn::Now);
        }
        let (zone, paces, now) = (zones::zone(node), paces(&self.nodes), cx.clock.passed());
        let moved = {
            let mut lines = self.lines.lock();
            lines.set(&zone, paces.interval(&zone), now);
            lines.waits_in(name).is_some_and(|other| other != zone)
        };
        // A taint that is there may become the other one at once.
        if paces.is_all_disrupted || plan::is_left(node) || moved {
            self.leave_line(name);
        }
        if paces.is_all_disrupted {
            return None;
        }
        let is_left = plan::is_left(node);
        Some(if is_left { Turn::Now } else { self.lines.lock().turn(name, &zone, now) })
    }

    /// Takes a node out of its line, and looks at who is first then.
    fn leave_line(&self, node: &str) {
        let next = self.lines.lock().leave(node);
        if let (Some(next), Some(queue)) = (next, self.queue.get()) {
            queue.add(Key::cluster(next));
        }
    }

    async fn taint(&self, cx: &Cx, node: &Node, taints: Vec<Taint>) -> Result<(), Error> {
        let begins = !plan::is_left(node) && taints.iter().any(plan::is_of_silence);
        let api: Api<Node> = Api::all(cx.client.clone());
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let patched =
            api.patch(meta::name(node), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop).map_err(Error::from);
        match &patched {
            // The node was another one meanwhile, and its turn is not over.
            Err(error) if begins && error.code() == Some(409) => {
                self.lines.lock().give_back(&zones::zone(node), cx.clock.passed());
            }
            // A node that cannot be written to has had its turn, too, or nobody would have one after it.
            Err(_) if begins => self.leave_line(meta::name(node)),
            Ok(()) if begins => {
                self.leave_line(meta::name(node));
                metrics::evicted(node);
            }
            _ => {}
        }
        patched
    }

    async fn mark_silent(
        &self,
        cx: &Cx,
        node: &Node,
        conditions: Vec<k8s_openapi::api::core::v1::NodeCondition>,
    ) -> Result<Action, Error> {
        let api: Api<Node> = Api::all(cx.client.clone());
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        api.patch_status(meta::name(node), &PatchParams::default(), &Patch::Merge(patch)).await?;
        let message = format!("Node {} status is now: NodeNotReady", meta::name(node));
        cx.events.about(node, Type::Normal, "NodeNotReady", message);
        Ok(Action::Done)
    }

    fn pods_of(&self, node: &Node) -> Vec<Arc<Pod>> {
        self.by_node.get(meta::name(node))
    }

    /// Nobody on a silent node says that its pods do not serve any more.
    async fn mark_pods_not_ready(&self, cx: &Cx, node: &Node) -> Result<(), Error> {
        let mut failed = Ok(());
        for pod in self.pods_of(node).into_iter().filter(|pod| pods::is_ready(pod)) {
            failed = failed.and(mark_not_ready(cx, &pod).await);
        }
        failed
    }

    /// Deletes the pods whose time has come; how long until the next one's.
    async fn evict(&self, cx: &Cx, node: &Node) -> Result<Option<Duration>, Error> {
        let name = meta::name(node);
        if plan::evicting(node).next().is_none() {
            self.seen.lock().remove(name);
            return Ok(None);
        }
        let (now, mut pods) = (cx.clock.passed(), self.pods_of(node));
        pods.retain(|pod| !meta::ends(pod.as_ref()));
        let due: Vec<Option<Duration>> = {
            let mut all = self.seen.lock();
            let seen = all.entry(name.to_owned()).or_default();
            seen.look(node, &pods, now);
            let due = |pod: &Arc<Pod>| plan::eviction_in(pod, node, |taint| seen.since(pod, taint).unwrap_or(now), now);
            pods.iter().map(due).collect()
        };
        // One pod that cannot be evicted keeps no other: the failure is told when all have been looked at.
        let (mut next, mut failed): (Option<Duration>, _) = (None, Ok(()));
        for (pod, due) in pods.iter().zip(due) {
            match due {
                None => {}
                Some(left) if left.is_zero() => failed = failed.and(evict(cx, pod).await),
                Some(left) => next = Some(next.map_or(left, |other| other.min(left))),
            }
        }
        failed.map(|()| next)
    }
}

async fn mark_not_ready(cx: &Cx, pod: &Pod) -> Result<(), Error> {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    for condition in conditions.iter_mut().filter(|condition| condition.type_ == "Ready") {
        condition.status = "False".to_owned();
        condition.last_transition_time = Some(meta::whole_seconds(cx.clock.now()));
    }
    let patch = json!({
        "metadata": {"resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": conditions},
    });
    let api: Api<Pod> = Api::namespaced(cx.client.clone(), meta::namespace(pod));
    match api.patch_status(meta::name(pod), &PatchParams::default(), &Patch::Merge(patch)).await {
        // One that has changed is looked at again: its change alone does not lead here.
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        result => drop(result?),
    }
    cx.events.about(pod, Type::Warning, "NodeNotReady", "Node is not ready");
    Ok(())
}

const EVICTION: Eviction = Eviction {
    event: "TaintManagerEviction",
    reason: "DeletionByTaintManager",
    message: "Taint manager: deleting due to NoExecute taint",
};

async fn evict(cx: &Cx, pod: &Pod) -> Result<(), Error> {
    EVICTION.carry_out(cx, pod, format!("Marking for deletion Pod {}", Key::of(pod))).await
}
