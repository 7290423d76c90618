//! Network policies: follows NetworkPolicies, policies of the cluster, Pods and Namespaces and keeps the table as they want it.
//!
//! Pods and namespaces are watched from the first policy on: a cluster without policies pays for nothing. A pod that starts is
//! isolated before its first container is: whoever attaches it asks [`Policies::admit`] and waits.

mod cluster;
mod compile;
mod installed;
mod left;
mod places;
mod spec;

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use base::readiness::Gate;
use client::events::{Recorder, Type};
use client::{Change, Changes, Informer, Informers, Key};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::netlink;
use crate::nft::Config;
use crate::nft::contents;
use crate::nft::table::{Holder, Table};
use crate::pod::nodes::Backend;
use crate::retry::Retry;
use compile::{Facts, State};
use installed::Installed;
use left::{Left, over};
use places::Places;
use spec::Spec;

/// Policies cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process stops.
    #[error("the process is shutting down")]
    Stopped,
    /// A pod must not start before it is isolated.
    #[error("the network policies of the pod's namespace are not in force yet: the pod was not seen in the API within {0:?}")]
    Unknown(Duration),
}

const RETRY_MIN: Duration = Duration::from_millis(50);
/// Half of [`PATIENCE`], so that a pod that starts sees a try.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long a pod that starts waits for its policies.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pods that wait at the same time.
const WAITING: usize = 1024;

/// What policies must know of their node.
#[derive(Clone)]
pub struct Options {
    /// The node's name.
    pub node_name: String,
    /// Service addresses at which the node serves cluster DNS itself. For policies they are the addresses of a pod of
    /// `kube-system` with the label `k8s-app: kube-dns`, as people select cluster DNS.
    pub dns: Vec<IpAddr>,
    /// As the table's.
    pub config: Config,
    /// The node's own address; none is a node without others.
    pub node_ip: Option<IpAddr>,
    /// Who gives pods their addresses.
    pub backend: Backend,
    /// Tells of policies of the cluster what is not known here.
    pub events: Recorder,
}

/// A pod that starts on this node.
#[derive(Clone, Debug)]
pub struct Starting {
    /// Namespace and name.
    pub key: Key,
    /// The uid by which the kubelet knows it.
    pub uid: String,
    /// Its addresses, which the API does not have yet.
    pub addresses: Vec<IpAddr>,
}

struct Admission {
    pod: Starting,
    done: oneshot::Sender<()>,
}

/// Where pods that start wait for their policies. Cheap to clone.
#[derive(Clone)]
pub struct Policies {
    waiting: mpsc::Sender<Admission>,
    known: watch::Receiver<bool>,
}

/// The other end of [`Policies`].
pub struct Admissions {
    waiting: mpsc::Receiver<Admission>,
    known: watch::Sender<bool>,
}

impl Policies {
    /// Both ends.
    pub fn channel() -> (Self, Admissions) {
        let (sender, waiting) = mpsc::channel(WAITING);
        let (tell, known) = watch::channel(false);
        (Self { waiting: sender, known }, Admissions { waiting, known: tell })
    }

    /// Whether the API has told of the policies since the start.
    pub fn are_known(&self) -> bool {
        *self.known.borrow()
    }

    /// Returns when the policies of the pod are in force at these addresses.
    pub async fn admit(&self, pod: Starting) -> Result<(), Error> {
        let (done, admitted) = oneshot::channel();
        self.waiting.send(Admission { pod, done }).await.map_err(|_| Error::Stopped)?;
        match tokio::time::timeout(PATIENCE, admitted).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::Unknown(PATIENCE)),
        }
    }
}

/// Enforces policies until dropped. Ready when all that were there at the start are in force, not ready while the kernel refuses
/// a change.
pub async fn run(
    options: Options,
    informers: Informers,
    table: Table,
    mut admissions: Admissions,
    gate: Gate,
) -> Result<Infallible, Error> {
    let policies = informers.of::<NetworkPolicy>();
    let mut changes = policies.changes();
    policies.synced().await;
    let mut installed = Installed::start(informers.client(), options.events.clone());
    admissions.known.send_replace(true);
    let mut enforcer = Enforcer::new(options, table, policies);
    installed.synced(&mut enforcer.state).await;
    let mut watched: Option<Watched> = None;
    loop {
        while let Some(change) = changes.try_next() {
            enforcer.set_policy(&change);
        }
        if watched.is_none() && !enforcer.state.is_empty() {
            watched = Some(Watched::start(&informers, &mut enforcer).await);
        }
        if let Some(watched) = &mut watched {
            watched.take(&mut enforcer);
        }
        while let Ok(admission) = admissions.waiting.try_recv() {
            enforcer.take(admission);
        }
        enforcer.apply(&gate).await?;
        tokio::select! {
            () = enforcer.retry.due() => (),
            () = enforcer.left.due() => (),
            () = enforcer.again.due() => (),
            change = changes.next() => enforcer.set_policy(&change),
            (kind, change) = installed.next() => installed.take(kind, change, &mut enforcer.state),
            admission = admissions.waiting.recv() => match admission {
                Some(admission) => enforcer.take(admission),
                None => return Err(Error::Stopped),
            },
            seen = Watched::next(&mut watched) => match seen {
                Seen::Pod(change) => enforcer.set_pod(&change.key, change.new.as_deref()),
                Seen::Namespace(change) => enforcer.set_namespace(&change.key.name, change.new.as_deref()),
                Seen::Node(change) => enforcer.set_node(&change),
            },
        }
    }
}

/// Pods and namespaces, once there is a policy.
struct Watched {
    pods: Changes<Pod>,
    namespaces: Changes<Namespace>,
    nodes: Changes<Node>,
}

impl Watched {
    async fn start(informers: &Informers, enforcer: &mut Enforcer) -> Self {
        let (pods, namespaces, nodes) = (informers.of::<Pod>(), informers.of::<Namespace>(), informers.of::<Node>());
        let watched = Self { pods: pods.changes(), namespaces: namespaces.changes(), nodes: nodes.changes() };
        pods.synced().await;
        namespaces.synced().await;
        nodes.synced().await;
        (enforcer.pods, enforcer.nodes) = (Some(pods), Some(nodes));
        watched
    }

    /// Takes what is there.
    fn take(&mut self, enforcer: &mut Enforcer) {
        while let Some(change) = self.nodes.try_next() {
            enforcer.set_node(&change);
        }
        while let Some(change) = self.namespaces.try_next() {
            enforcer.set_namespace(&change.key.name, change.new.as_deref());
        }
        while let Some(change) = self.pods.try_next() {
            enforcer.set_pod(&change.key, change.new.as_deref());
        }
    }

    /// Waits for one change.
    async fn next(watched: &mut Option<Self>) -> Seen {
        let Some(watched) = watched else { return std::future::pending().await };
        tokio::select! {
            change = watched.pods.next() => Seen::Pod(change),
            change = watched.namespaces.next() => Seen::Namespace(change),
            change = watched.nodes.next() => Seen::Node(change),
        }
    }
}

enum Seen {
    Pod(Change<Pod>),
    Namespace(Change<Namespace>),
    Node(Change<Node>),
}

struct Enforcer {
    node_name: String,
    table: Table,
    state: State,
    /// The pods that were started here, with the addresses that the API may not have yet.
    started: HashMap<Key, Starting>,
    /// Pods that wait for the API to show them, and those that wait for the next batch.
    waiting: Vec<Admission>,
    next: Vec<Admission>,
    /// The table of an earlier process, if there is one, still serves policies.
    is_held: bool,
    /// Changes that are not in force, for an error that may pass.
    unsettled: Vec<contents::Change>,
    retry: Retry,
    /// What the kernel refuses, of which policies were told.
    left: Left,
    /// Policies that allow nothing for an error that may pass, and when they are tried again.
    closed: BTreeSet<Key>,
    again: Retry,
    pods: Option<Informer<Pod>>,
    nodes: Option<Informer<Node>>,
    places: Places,
    policies: Informer<NetworkPolicy>,
    events: Recorder,
}

impl Enforcer {
    fn new(options: Options, table: Table, policies: Informer<NetworkPolicy>) -> Self {
        let places = Places::new(&options);
        let Options { node_name, dns, config, events, .. } = options;
        let mut state = State::new(config, table.families());
        let port = |name: &str, protocol| (name.to_owned(), protocol, 53);
        let facts = Facts {
            labels: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
            addresses: dns,
            ports: vec![port("dns", crate::Protocol::Udp), port("dns-tcp", crate::Protocol::Tcp)],
            local: false,
        };
        // No pod can have this name.
        state.set_pod(&Key::namespaced("kube-system", "(cluster DNS)"), Some(facts));
        let (waiting, next) = (Vec::new(), Vec::new());
        let (left, closed, again) = (Left::new(), BTreeSet::new(), Retry::new(left::RETRY_MIN, left::RETRY_MAX));
        let (started, pods, nodes) = (HashMap::new(), None, None);
        let (is_held, unsettled, retry) = (true, Vec::new(), Retry::new(RETRY_MIN, RETRY_MAX));
        Self {
            node_name,
            table,
            state,
            started,
            waiting,
            next,
            is_held,
            unsettled,
            retry,
            left,
            closed,
            again,
            pods,
            nodes,
            places,
            policies,
            events,
        }
    }

    fn set_policy(&mut self, change: &Change<NetworkPolicy>) {
        self.state.set_policy(&change.key, change.new.as_deref().map(Spec::of));
    }

    fn set_namespace(&mut self, name: &str, namespace: Option<&Namespace>) {
        let labels = namespace.map(|namespace| namespace.metadata.labels.clone().unwrap_or_default());
        self.state.set_namespace(name, labels);
    }

    fn set_node(&mut self, change: &Change<Node>) {
        let (Some(nodes), Some(pods)) = (&self.nodes, &self.pods) else { return };
        if !places::differ(change.old.as_deref(), change.new.as_deref()) {
            return;
        }
        let moved = self.places.update(nodes.list().iter().map(AsRef::as_ref));
        let pods = if moved.is_empty() { Vec::new() } else { pods.list() };
        for pod in pods.into_iter().filter(|pod| node_of(pod).is_some_and(|node| moved.contains(node))) {
            self.set_pod(&Key::of(pod.as_ref()), Some(&pod));
        }
    }

    fn set_pod(&mut self, key: &Key, pod: Option<&Pod>) {
        let mut facts = pod.and_then(|pod| Facts::of(pod, &self.node_name));
        if let (Some(facts), Some(pod)) = (&mut facts, pod) {
            facts.addresses.retain(|address| self.places.can_have(node_of(pod), *address));
        }
        if let Some(started) = self.started.get(key) {
            match (&mut facts, pod) {
                (Some(facts), Some(pod)) if is_same(pod, &started.uid) => facts.addresses.clone_from(&started.addresses),
                (_, None) => drop(self.started.remove(key)),
                _ => (),
            }
        }
        self.state.set_pod(key, facts);
        let Some(pod) = pod else { return };
        let shown = |admission: &mut Admission| admission.pod.key == *key && is_same(pod, &admission.pod.uid);
        self.next.extend(self.waiting.extract_if(.., shown));
    }

    /// A pod starts.
    fn take(&mut self, admission: Admission) {
        // Before the first policy nothing is kept of pods.
        let Some(pods) = &self.pods else { return self.next.push(admission) };
        let key = admission.pod.key.clone();
        self.started.insert(key.clone(), admission.pod.clone());
        let needed = self.state.has_policies(key.ns());
        let pod = pods.by_key(&key).filter(|pod| is_same(pod, &admission.pod.uid));
        match pod {
            None if needed => {
                self.waiting.retain(|other| !other.done.is_closed());
                self.waiting.push(admission);
            }
            pod => {
                self.next.push(admission);
                self.set_pod(&key, pod.as_deref());
            }
        }
    }

    /// Programs what changed. What fails in passing is kept for the next time. A policy that the kernel refuses fails closed; where nothing can stand in for what is
    /// refused, its policies are told, and pods that start wait.
    async fn apply(&mut self, gate: &Gate) -> Result<(), Error> {
        let now = Instant::now();
        let is_again = self.left.is_due(now) || self.again.is_due(now);
        if self.again.is_due(now) {
            std::mem::take(&mut self.closed).iter().for_each(|key| self.state.open(key));
        }
        let news = self.state.changes();
        self.tell_problems();
        // Each try that fails costs the whole table: what changes no rule is no reason for one before its time.
        if news.is_empty() && self.retry.is_waiting(now) && !is_again {
            return Ok(());
        }
        let mut changes = over(std::mem::take(&mut self.unsettled), news);
        if changes.is_empty() && self.next.is_empty() && !self.is_held && !is_again {
            return Ok(());
        }
        changes = self.left.with(changes, now);
        // What did not pass before is not waited for another time.
        let patience = self.retry.patience(is_again);
        let mut failure = loop {
            self.left.forget(&changes);
            match self.table.settle(std::mem::take(&mut changes), patience).await.ok_or(Error::Stopped)? {
                Ok(refused) => changes = self.stand_in(refused),
                Err(refusal) => {
                    self.unsettled = refusal.changes;
                    break Some(refusal.source.to_string());
                }
            }
            if changes.is_empty() {
                break None;
            }
        };
        if failure.is_none() && self.is_held {
            failure = self.table.let_go(Holder::Policies).await.ok_or(Error::Stopped)?.err().map(|error| error.to_string());
            self.is_held = failure.is_some();
        }
        self.left.settle(Instant::now(), failure.is_some());
        match self.closed.is_empty() {
            true => self.again.settled(),
            false => self.again.failed(Instant::now()),
        }
        if let Some(error) = failure {
            tracing::error!(error, "network policies cannot be enforced, trying again");
            gate.not_ready(error);
            self.retry.failed(Instant::now());
            return Ok(());
        }
        self.retry.settled();
        gate.ready();
        self.let_in();
        Ok(())
    }

    /// What takes the place of changes that the kernel refuses, with these changes: the policies that are to blame, closed, and those of them that it may take another time
    /// are tried again. Nothing, where there are none of them: then the
    /// changes are kept, to be tried again from time to time.
    fn stand_in(&mut self, refused: Vec<(contents::Change, netlink::Error)>) -> Vec<contents::Change> {
        let closed = self.state.close_behind(refused.iter().map(|((owner, _), _)| owner.as_str()));
        let (changes, errors): (Vec<contents::Change>, Vec<(String, netlink::Error)>) =
            refused.into_iter().map(|((owner, fragment), error)| ((owner.clone(), fragment), (owner, error))).unzip();
        for key in &closed {
            let error = errors.iter().find(|(owner, _)| self.state.behind(owner).contains(key)).map(|(_, error)| error);
            let text = error.map(netlink::Error::to_string).unwrap_or_default();
            tracing::error!(policy = %key, error = text, "the kernel refuses the rules of a network policy, which allows nothing now");
            self.tell(key, &format!("the kernel refuses the rules of the policy, which allows nothing now: {text}"));
            if error.is_some_and(netlink::Error::is_passing) {
                self.closed.insert(key.clone());
            }
        }
        if !closed.is_empty() {
            let changes = over(changes, self.state.changes());
            self.tell_problems();
            return changes;
        }
        for (owner, error) in errors.iter().filter(|(owner, _)| !self.left.has(owner)) {
            tracing::error!(owner, %error, "the kernel refuses what network policies need, what was there of it stays");
            for key in self.state.behind(owner) {
                self.tell(&key, &format!("the kernel refuses what the policy needs: {error}"));
            }
        }
        self.left.keep(changes);
        Vec::new()
    }

    /// Lets pods start that are isolated. Those of whose isolation the kernel refuses something wait.
    fn let_in(&mut self) {
        let (state, left) = (&self.state, &self.left);
        // Who gave up waiting asks again.
        self.next.retain(|admission| !admission.done.is_closed());
        let isolated = |admission: &mut Admission| !state.isolators(&admission.pod.key).iter().any(|owner| left.has(owner));
        for admission in self.next.extract_if(.., isolated) {
            let _ = admission.done.send(());
        }
    }

    fn tell_problems(&mut self) {
        for (key, problem) in self.state.problems() {
            tracing::warn!(policy = %key, problem, "a network policy is enforced in part");
            self.tell(&key, &problem);
        }
    }

    /// Tells a policy what of it is not enforced here.
    fn tell(&self, key: &Key, what: &str) {
        let text = format!("node {}: {what}", self.node_name);
        match self.policies.by_key(key) {
            Some(policy) => self.events.about(policy.as_ref(), Type::Warning, "NotEnforced", text),
            None if key.namespace.is_none() => {
                self.events.event(&installed::reference(key), Type::Warning, "NotEnforced", text);
            }
            None => (),
        }
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Whether the kubelet means this pod. Static pods have a uid of their own there, which their mirrors name.
fn is_same(pod: &Pod, uid: &str) -> bool {
    let noted = |name: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(name)).is_some_and(|one| one == uid);
    pod.metadata.uid.as_deref() == Some(uid) || noted("kubernetes.io/config.hash") || noted("kubernetes.io/config.mirror")
}

#[cfg(test)]
mod tests;
