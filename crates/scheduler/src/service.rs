//! The loop: takes in what the caches tell, decides for one pod at a time, binds in the background.

mod apart;
mod causes;
mod consulting;
mod ended;
mod panics;
mod placing;
mod room;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use apimachinery::labels::Selector;
use base::budgets::shares::Shares;
use base::readiness::Gate;
use base::tasks::Tasks;
use client::events::{Recorder, Type};
use client::{Change, Changes, Informers, Key};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use pods::claims::{self, Named};
use pods::resources::is_resizing;
use tokio::time::Instant;

use crate::Options;
use crate::api::{Api, UNSCHEDULABLE, Written};
use crate::attempt::Attempt;
use crate::binding::{CalledOff, PendingBinding};
use crate::cluster::Cluster;
use crate::cycle::Chooser;
use crate::devices::{Devices, Reservation};
use crate::extenders::consult::Consulted;
use crate::extenders::state::Extenders;
use crate::filtering::FitError;
use crate::framework::Event;
use crate::metrics::{Metrics, Outcome};
use crate::pod::{PodInfo, node_of, scheduler_of, started};
use crate::preemption::{self, Preemption, Refusal};
use crate::profile::Profiles;
use crate::queue::{Queue, Trial};
use crate::resources::pod_request;
use crate::volumes::Volumes;
use crate::volumes::capacity::has_grown;
use crate::waiting::Waiting;
use apart::Apart;
use causes::cause;
use panics::{Hold, Stage};
pub(crate) use panics::{PAUSE, Panics};

/// Writes under way. While as many are, no decision is made.
const WRITES: usize = 256;

struct Sources {
    pods: Changes<Pod>,
    nodes: Changes<Node>,
    namespaces: Changes<Namespace>,
    services: Changes<Service>,
    sets: Changes<ReplicaSet>,
    controllers: Changes<ReplicationController>,
    stateful: Changes<StatefulSet>,
    claims: Changes<PersistentVolumeClaim>,
    volumes: Changes<PersistentVolume>,
    classes: Changes<StorageClass>,
    budgets: Changes<PodDisruptionBudget>,
    drivers: Changes<CSINode>,
    attachments: Changes<VolumeAttachment>,
    telling: Changes<CSIDriver>,
    capacities: Changes<CSIStorageCapacity>,
    device_claims: Changes<ResourceClaim>,
    device_classes: Changes<DeviceClass>,
    slices: Changes<ResourceSlice>,
}

impl Sources {
    async fn new(informers: &Informers) -> Self {
        let sources = Self {
            pods: informers.of().changes(),
            nodes: informers.of().changes(),
            namespaces: informers.of().changes(),
            services: informers.of().changes(),
            sets: informers.of().changes(),
            controllers: informers.of().changes(),
            stateful: informers.of().changes(),
            claims: informers.of().changes(),
            volumes: informers.of().changes(),
            classes: informers.of().changes(),
            budgets: informers.of().changes(),
            drivers: informers.of().changes(),
            attachments: informers.of().changes(),
            telling: informers.of().changes(),
            capacities: informers.of().changes(),
            device_claims: informers.of().changes(),
            device_classes: informers.of().changes(),
            slices: informers.of().changes(),
        };
        informers.of::<Pod>().synced().await;
        informers.of::<Node>().synced().await;
        informers.of::<Namespace>().synced().await;
        informers.of::<PersistentVolumeClaim>().synced().await;
        informers.of::<PersistentVolume>().synced().await;
        informers.of::<StorageClass>().synced().await;
        informers.of::<PodDisruptionBudget>().synced().await;
        informers.of::<CSINode>().synced().await;
        informers.of::<VolumeAttachment>().synced().await;
        informers.of::<CSIDriver>().synced().await;
        informers.of::<CSIStorageCapacity>().synced().await;
        informers.of::<ResourceClaim>().synced().await;
        informers.of::<DeviceClass>().synced().await;
        informers.of::<ResourceSlice>().synced().await;
        sources
    }
}

pub(crate) struct Scheduler {
    api: Api,
    /// By the name of the profile.
    events: HashMap<String, Recorder>,
    cluster: Cluster,
    queue: Queue,
    chooser: Chooser,
    metrics: Metrics,
    writes: Apart<Written>,
    /// Bindings that wait for claims; volumes take as long as a provisioner does. They hold up no decision.
    with_needs: Apart<Written>,
    extenders: Extenders,
    /// What extenders are asked. It holds up no decision about pods that concern none of them.
    consulting: Apart<Consulted>,
    /// What is being written for the claims of pods, by the pod's uid.
    reserving: HashMap<String, Vec<Reservation>>,
    waiting: Waits,
    panics: Arc<Panics>,
    /// Pods that are not read for now, since the scheduler has failed on that, and until when.
    unread: HashMap<Key, (Instant, Arc<Pod>)>,
}

/// Who waits for claims.
struct Waits {
    volumes: Waiting,
    devices: Waiting,
    /// Their bindings, by the pod's uid.
    bindings: HashMap<String, PendingBinding>,
    /// By namespace.
    shares: Shares,
}

impl Default for Waits {
    fn default() -> Self {
        let shares = Shares::metered("waiting_bindings", placing::SHARE);
        Self { volumes: Waiting::default(), devices: Waiting::default(), bindings: HashMap::new(), shares }
    }
}

impl Scheduler {
    /// What it does is counted in `metrics`.
    pub(crate) fn new(options: &Options, tasks: &Tasks, panics: Arc<Panics>, metrics: Metrics) -> Self {
        let profiles = Profiles::new(options.configuration.profiles.clone());
        let recorder = |name: &str| (name.to_owned(), Recorder::new(options.client.clone(), name, "", tasks));
        Self {
            api: Api::new(options.client.clone()),
            events: profiles.names().map(recorder).collect(),
            cluster: Cluster::new(profiles),
            queue: Queue::new(options.configuration.backoff, &metrics),
            chooser: Chooser::new(metrics.clone()),
            metrics,
            writes: Apart::new("write of the scheduler", tasks, panics.clone()),
            with_needs: Apart::new("binding that waits for claims", tasks, panics.clone()),
            extenders: Extenders::new(options.configuration.extenders.clone(), &options.informers),
            consulting: Apart::new("question to an extender", tasks, panics.clone()),
            reserving: HashMap::new(),
            waiting: Waits::default(),
            panics,
            unread: HashMap::new(),
        }
    }

    pub(crate) async fn run(mut self, informers: Informers, gate: &Gate) -> Result<(), Infallible> {
        let mut sources = Sources::new(&informers).await;
        self.cluster.volumes = Volumes::new(&informers);
        self.cluster.devices = Devices::new(&informers);
        gate.ready();
        loop {
            let due = self.due(Instant::now());
            let busy = self.extenders.busy();
            tokio::select! {
                biased;
                change = sources.nodes.next() => self.node_changed(&change),
                change = sources.namespaces.next() => self.namespace_changed(&change),
                change = sources.services.next() => {
                    let selector = change.new.as_ref().and_then(|service| service.spec.as_ref()?.selector.clone());
                    self.cluster.groups.set_service(&change.key, selector);
                }
                change = sources.sets.next() => self.owner_changed(&change, |set| {
                    Selector::from_label_selector(Some(&set.spec.as_ref()?.selector)).ok()
                }),
                change = sources.stateful.next() => self.owner_changed(&change, |set| {
                    Selector::from_label_selector(Some(&set.spec.as_ref()?.selector)).ok()
                }),
                change = sources.controllers.next() => self.owner_changed(&change, |owner| {
                    let labels = owner.spec.as_ref()?.selector.as_ref()?;
                    Some(Selector::from_set(labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
                }),
                change = sources.budgets.next() => self.cluster.budgets.changed(&change),
                change = sources.claims.next() => {
                    self.waiting.volumes.changed(&change.key);
                    self.queue.happened(Event::Volume, cause(&change, causes::CLAIM));
                }
                change = sources.volumes.next() => {
                    [&change.old, &change.new].into_iter().flatten().for_each(|volume| self.waiting.volumes.volume_changed(volume));
                    self.queue.happened(Event::Volume, cause(&change, causes::VOLUME));
                }
                change = sources.classes.next() => self.queue.happened(Event::Volume, cause(&change, causes::CLASS)),
                change = sources.drivers.next() => self.queue.happened(Event::Volume, cause(&change, causes::DRIVERS)),
                change = sources.attachments.next() => if change.new.is_none() {
                    self.queue.happened(Event::Volume, cause(&change, causes::ATTACHMENT));
                },
                change = sources.telling.next() => self.queue.happened(Event::Volume, cause(&change, causes::DRIVER)),
                change = sources.capacities.next() => if has_grown(&change) {
                    self.queue.happened(Event::Volume, cause(&change, causes::CAPACITY));
                },
                change = sources.device_claims.next() => {
                    self.waiting.devices.changed(&change.key);
                    if self.cluster.devices.claim_changed(change.old.as_deref(), change.new.as_deref()) {
                        self.queue.happened(Event::Device, cause(&change, causes::DEVICE_CLAIM));
                    }
                }
                change = sources.slices.next() => {
                    let cause = cause(&change, causes::SLICE);
                    self.cluster.devices.pools.changed(&change.key.name, change.old.as_deref(), change.new);
                    self.queue.happened(Event::Device, cause);
                }
                change = sources.device_classes.next() => {
                    self.cluster.devices.extended.changed(change.old.as_deref(), change.new.as_deref());
                    self.queue.happened(Event::DeviceClass, cause(&change, causes::DEVICE_CLASS));
                }
                change = sources.pods.next() => self.read(change, Instant::now()),
                Some(written) = self.with_needs.next(), if !self.with_needs.is_empty() => self.ended(written),
                Some(consulted) = self.consulting.next(), if !self.consulting.is_empty() => {
                    let (panics, uid) = (self.panics.clone(), consulted.pod().uid().to_owned());
                    panics.about(&uid, Stage::Tried, || self.consulted(consulted));
                }
                Some(written) = self.writes.next(), if !self.writes.is_empty() => self.ended(written),
                () = std::future::ready(()), if self.queue.has_active(busy) && self.writes.len() < WRITES => self.schedule_one(),
                () = until(due) => {}
            }
        }
    }

    /// Does what is due; when the next thing is.
    fn due(&mut self, now: Instant) -> Option<Instant> {
        if self.extenders.due().is_some_and(|due| due <= now) {
            let overdue = self.extenders.overdue(now);
            self.not_bound(overdue);
        }
        let ripe: Vec<Key> = self.unread.iter().filter(|(_, (until, _))| *until <= now).map(|(key, _)| key.clone()).collect();
        for key in ripe {
            let new = self.unread.remove(&key).map(|(_, pod)| pod);
            self.read(Change { key, old: None, new }, now);
        }
        let unread = self.unread.values().map(|(until, _)| *until);
        self.queue.ripen(now).into_iter().chain(self.extenders.due()).chain(unread).min()
    }

    /// Takes in a change of a pod, unless the scheduler has failed on that: what the pod says is then not looked at for a while.
    fn read(&mut self, mut change: Change<Pod>, now: Instant) {
        self.unread.remove(&change.key);
        let uid = change.object().and_then(|pod| pod.metadata.uid.clone()).unwrap_or_default();
        let panics = self.panics.clone();
        if let (Some(pod), Some(hold)) = (change.new.clone(), panics.held(&uid, Stage::Read, now)) {
            if let Some(events) = self.events.get(scheduler_of(&pod)).filter(|_| hold.is_news) {
                events.about(pod.as_ref(), Type::Warning, "FailedScheduling", hold.reason());
            }
            self.unread.insert(change.key.clone(), (hold.until, pod));
            // What it said before holds no longer.
            change.new = None;
        }
        panics.about(&uid, Stage::Read, || self.pod_changed(change));
    }

    /// A write has ended.
    fn ended(&mut self, written: Written) {
        let (panics, uid) = (self.panics.clone(), written.pod().map(|pod| pod.uid().to_owned()));
        match uid {
            Some(uid) => panics.about(&uid, Stage::Tried, || self.written(written)),
            None => self.written(written),
        }
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        match (&change.old, &change.new) {
            (_, None) => {
                self.abandon(&change.key.name);
                self.cluster.remove_node(&change.key.name);
                self.queue.happened(Event::NodeRemoved, cause(change, causes::NODE));
            }
            (Some(old), Some(new)) if same_node(old, new) => {}
            (_, Some(node)) => {
                self.cluster.set_node(node);
                self.queue.happened(Event::Node, cause(change, causes::NODE));
            }
        }
    }

    fn namespace_changed(&mut self, change: &Change<Namespace>) {
        let labels = change.new.as_ref().map(|namespace| namespace.metadata.labels.clone());
        if self.cluster.set_namespace(&change.key.name, labels) && change.new.is_some() {
            self.queue.happened(Event::Namespace, cause(change, causes::NAMESPACE));
        }
    }

    fn owner_changed<K: client::Object>(&mut self, change: &Change<K>, selector: impl Fn(&K) -> Option<Selector>) {
        let uid = |object: &Arc<K>| object.meta().uid.clone().unwrap_or_default();
        if let Some(old) = &change.old {
            self.cluster.groups.set_owner(&uid(old), None);
        }
        if let Some(new) = &change.new {
            self.cluster.groups.set_owner(&uid(new), selector(new));
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        let Change { key, old, new } = change;
        let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone().unwrap_or_default();
        let replaced = match (&old, &new) {
            (Some(old), Some(new)) => uid(old) != uid(new),
            (Some(_), None) => true,
            _ => false,
        };
        if let Some(old) = old.as_ref().filter(|_| replaced) {
            self.forget(&key, &uid(old));
        }
        let Some(pod) = new else { return };
        if pods::state::is_finished(&pod) {
            self.forget(&key, &uid(&pod));
        } else if node_of(&pod).is_empty() {
            self.pending(&key, pod, old.filter(|_| !replaced));
        } else {
            self.queue.remove(&key);
            let given_up = self.cluster.nominations.withdraw(pod.metadata.uid.as_deref().unwrap_or_default());
            if let Some(unseen) = self.extenders.shown(pod.metadata.uid.as_deref().unwrap_or_default()) {
                self.bound(&unseen.pod, node_of(&pod), unseen.trial);
            }
            self.placed(old.as_deref(), pod);
            self.given_up(given_up);
        }
    }

    /// A pod has a node, perhaps the one that we chose.
    fn placed(&mut self, old: Option<&Pod>, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let known = self.cluster.node_of(&uid) == Some(node_of(&pod));
        let same = old.is_some_and(|old| same_placed(old, &pod));
        let bound = old.filter(|old| known && !node_of(old).is_empty());
        // Of those that may have to go, the one that began last goes first.
        let began = old.is_none_or(|old| started(old) != started(&pod));
        let resized = bound.is_some_and(|old| pod_request(old, false) != pod_request(&pod, false));
        let relabelled = bound.is_some_and(|old| old.metadata.labels != pod.metadata.labels);
        let is_news = !(same && bound.is_some());
        if !known || !same {
            let node = node_of(&pod).to_owned();
            self.cluster.place(Arc::new(PodInfo::new(pod).placed()), &node);
        } else if began {
            self.cluster.began(&uid, started(&pod));
        }
        if is_news {
            let (namespaces, now) = (self.cluster.namespaces(), self.cluster.placed(&uid));
            // With its labels it may have left what counts it, and it may take less than before.
            if let Some(old) = bound.filter(|_| relabelled || resized) {
                self.queue.moved(Event::PodRemoved, &PodInfo::new(Arc::new(old.clone())), namespaces, causes::POD[1]);
            }
            let cause = causes::POD[usize::from(bound.is_some())];
            now.into_iter().for_each(|now| self.queue.moved(Event::PodPlaced, now, namespaces, cause));
        }
    }

    fn pending(&mut self, key: &Key, pod: Arc<Pod>, old: Option<Arc<Pod>>) {
        if pod.metadata.deletion_timestamp.is_some() {
            // The API gives it no node any more, though finalizers may keep it for long.
            return self.forget(key, pod.metadata.uid.as_deref().unwrap_or_default());
        }
        let spec = pod.spec.as_ref();
        let ours = self.cluster.profiles.get(scheduler_of(&pod)).is_some();
        let gated = spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
        // It is not attempted before its claims are made, as upstream: its status tells when they are.
        let waits_for_claims = claims::entries(&pod).iter().any(|entry| claims::named(&pod, entry) == Named::NotMade);
        if !ours || gated || waits_for_claims {
            self.queue.remove(key);
            let given_up = self.cluster.nominations.withdraw(pod.metadata.uid.as_deref().unwrap_or_default());
            return self.given_up(given_up);
        }
        let assumed = self.cluster.node_of(pod.metadata.uid.as_deref().unwrap_or_default()).is_some();
        // Our own report of failure is no reason to try again.
        let made = |pod: &Pod| pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone());
        let same =
            old.is_some_and(|old| old.spec == pod.spec && old.metadata.labels == pod.metadata.labels && made(&old) == made(&pod));
        let waits = same && self.queue.get(key).is_some();
        if !assumed && !waits {
            let lane = self.extenders.lane(&pod);
            let pod = Arc::new(PodInfo::new(pod));
            let status = pod.object().and_then(|pod| pod.status.as_ref());
            let promised = status.and_then(|status| status.nominated_node_name.as_deref());
            // Later on we know better than what we have written.
            if let Some(node) = promised.filter(|_| self.queue.get(key).is_none()) {
                let given_up = self.cluster.nominations.set(pod.clone(), node);
                self.given_up(given_up);
            }
            self.queue.add(pod, lane);
        }
    }

    fn forget(&mut self, key: &Key, uid: &str) {
        if self.queue.get(key).is_some_and(|pod| pod.uid() == uid) {
            self.queue.remove(key);
        }
        let given_up = self.cluster.nominations.withdraw(uid);
        self.extenders.shown(uid);
        self.given_up(given_up);
        // It waits for nothing more: others may have what it holds.
        if let Some(binding) = self.waiting.bindings.get(uid) {
            binding.call_off(CalledOff::Gone);
        }
        if let Some(removed) = self.cluster.remove_pod(uid) {
            self.queue.moved(Event::PodRemoved, &removed, self.cluster.namespaces(), causes::POD[2]);
        }
    }

    fn schedule_one(&mut self) {
        let Some((pod, trial)) = self.queue.pop(self.extenders.busy()) else { return };
        let panics = self.panics.clone();
        match panics.held(pod.uid(), Stage::Tried, Instant::now()) {
            Some(hold) => self.leave_alone(&pod, trial, &hold),
            None => panics.about(pod.uid(), Stage::Tried, || self.attempt(pod.clone(), trial)),
        }
    }

    /// A pod on which the scheduler has failed gets no node for a while, which is told once, and keeps no room from others.
    fn leave_alone(&mut self, pod: &Arc<PodInfo>, trial: Trial, hold: &Hold) {
        if hold.is_news {
            let message = FitError::held(self.cluster.len(), hold.reason().into()).to_string();
            self.tell(pod, pod, (Type::Warning, "FailedScheduling"), message.as_str());
            self.metrics.attempted(pod.scheduler(), Outcome::Error, trial);
            self.writes.extend(self.api.report(pod, UNSCHEDULABLE, message, None));
        }
        self.queue.failed(&pod.key(), 0, Instant::now());
        let given_up = self.cluster.nominations.withdraw(pod.uid());
        self.given_up(given_up);
    }

    fn attempt(&mut self, pod: Arc<PodInfo>, trial: Trial) {
        let attempt = Attempt::default();
        if let Some(refusal) = self.lacks_share(&pod, &attempt) {
            self.refused(&pod, trial, refusal, None);
        } else if trial.lane != 0 && self.is_asked_about_nodes(trial.lane) {
            self.ask_about_nodes(pod, trial, &attempt);
        } else {
            let start = Instant::now();
            let choice = self.chooser.choose(&pod, &mut self.cluster, &attempt);
            self.metrics.decided(start.elapsed());
            self.chosen(pod, trial, &attempt, choice);
        }
        self.cluster.terms.attempted();
    }

    fn chosen(&mut self, pod: Arc<PodInfo>, trial: Trial, attempt: &Attempt, choice: Result<String, FitError>) {
        match choice {
            Ok(node) => self.place(pod, node, trial, attempt),
            Err(error) => self.no_node(&pod, trial, attempt, error),
        }
    }

    /// Tries to make room, and tells why there is none.
    fn no_node(&mut self, pod: &Arc<PodInfo>, trial: Trial, attempt: &Attempt, mut error: FitError) {
        // Before others have to go for the pod, as upstream.
        if let Some(claim) = attempt.idle_claim(pod, &self.cluster) {
            error.frees_devices = true;
            self.writes.push(self.api.deallocate(pod.clone(), claim));
        }
        let offset = self.chooser.draw(error.occupied.len().max(1));
        let preempts = self.cluster.profile(pod).is_some_and(|profile| profile.preempts);
        let found = match preempts.then(|| preemption::candidates(pod, &mut self.cluster, attempt, &error, offset)) {
            None => None,
            Some(Err(refusal)) => Some(Err(refusal)),
            Some(Ok(candidates)) if trial.lane != 0 && self.is_asked_about_victims(trial.lane) => {
                return self.ask_about_victims(pod.clone(), trial, error, candidates);
            }
            Some(Ok(candidates)) => preemption::least_harmful(candidates).map(Ok),
        };
        self.refused(pod, trial, error, found);
    }

    /// Makes the room that was found, if any, and tells why the pod has no node.
    fn refused(&mut self, pod: &Arc<PodInfo>, trial: Trial, mut error: FitError, room: Option<Result<Preemption, Refusal>>) {
        let mut given_up = Vec::new();
        match room {
            None => {}
            Some(Ok(preemption)) => given_up = self.make_room(pod, preemption),
            Some(Err(refusal)) => {
                // Without nodes there is nothing to say about them.
                error.post_filter =
                    (error.nodes() > 0).then(|| format!("{}, preemption: {}", devices(pod, &error), refusal.message));
                if refusal.hopeless {
                    given_up.extend(self.cluster.nominations.withdraw(pod.uid()));
                }
            }
        }
        let message = error.to_string();
        tracing::debug!(pod = %pod.key(), refused_by = ?error.plugin_names(), message, "no node");
        self.tell(pod, pod, (Type::Warning, "FailedScheduling"), message.as_str());
        self.metrics.attempted(pod.scheduler(), Outcome::Unschedulable, trial);
        self.queue.failed(&pod.key(), error.plugins, Instant::now());
        // Behind that: the room that it had is no reason to try it again.
        self.given_up(given_up);
        let left = self.cluster.devices.leftovers(pod);
        // One at a time: it takes the claim out of the pod's status, where the next attempt writes another one.
        if !left.is_empty() && self.cluster.devices.discarding.insert(pod.uid().to_owned()) {
            self.writes.push(self.api.discard(pod.clone(), left));
        }
        self.writes.extend(self.api.report(pod, UNSCHEDULABLE, message, self.cluster.nominations.node_of(pod.uid())));
    }

    /// Tells of a pod what was done for the sake of another, or of itself.
    fn tell(&self, for_whom: &PodInfo, of: &PodInfo, (kind, reason): (Type, &'static str), message: impl Into<String>) {
        if let Some(events) = self.events.get(for_whom.scheduler()) {
            events.event(&of.reference(), kind, reason, message.into());
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// What upstream's plugin for devices says of a pod that no node will do for.
fn devices(pod: &PodInfo, error: &FitError) -> &'static str {
    let has_claims = pod.object().is_some_and(|pod| claims::all(pod).next().is_some());
    match has_claims {
        _ if error.frees_devices => "deallocation of ResourceClaim completed",
        true => "still not schedulable",
        false => "no new claims to deallocate",
    }
}

/// Whether nothing changed that scheduling looks at. Heartbeats change a node all the time.
fn same_node(old: &Node, new: &Node) -> bool {
    let status = |node: &Node| {
        let status = node.status.as_ref();
        status.map(|status| (status.allocatable.clone(), status.images.clone(), status.declared_features.clone()))
    };
    old.metadata.labels == new.metadata.labels && old.spec == new.spec && status(old) == status(new)
}

/// Whether nothing changed that other pods look at, or that takes resources. Its node is not compared.
fn same_placed(old: &Pod, new: &Pod) -> bool {
    let same_spec = match (&old.spec, &new.spec) {
        (Some(old), Some(new)) if old.node_name != new.node_name => {
            PodSpec { node_name: new.node_name.clone(), ..old.clone() } == *new
        }
        (old, new) => old == new,
    };
    same_spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp.is_some() == new.metadata.deletion_timestamp.is_some()
        && (!(is_resizing(old) || is_resizing(new)) || pod_request(old, false) == pod_request(new, false))
}
