//! Claims, volumes and classes as scheduling sees them: which claims of a pod have a volume, and what can be done about the others
//! on a node. The caches are read as they are; who binds is told by a conflict when they were behind.

pub(crate) mod binding;
pub(crate) mod capacity;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use client::{Index, Informer, Informers, Key};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use pods::slices::Place;
use pods::volumes::{self as rules, Wish};

use self::capacity::{Capacities, Room};
use crate::pod::{Claim, PodInfo};

pub(crate) const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
pub(crate) const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
pub(crate) const NO_ROOM: &str = "node(s) did not have enough free storage";
pub(crate) const VOLUME_MISSING: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// Why a pod cannot be on any node. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("pod has unbound immediate PersistentVolumeClaims")]
    Unbound,
    #[error("persistentvolumeclaim {0:?} not found")]
    Missing(String),
    #[error("waiting for ephemeral volume controller to create the persistentvolumeclaim {0:?}")]
    NotMade(String),
    #[error("PVC {claim} was not created for pod {pod} (pod is not owner)")]
    Strange { claim: Key, pod: Key },
    #[error("persistentvolumeclaim {0:?} is being deleted")]
    Ending(String),
    #[error("persistentvolumeclaim {claim:?} bound to non-existent persistentvolume {volume:?}")]
    Lost { claim: String, volume: String },
}

/// The caches.
#[derive(Clone)]
pub(crate) struct Volumes {
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    by_class: Index<PersistentVolume>,
    pub(crate) classes: Informer<StorageClass>,
    /// What the drivers of nodes can take.
    pub(crate) nodes: Informer<CSINode>,
    attachments: Index<VolumeAttachment>,
    capacities: Capacities,
}

impl fmt::Debug for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} volumes", self.volumes.len())
    }
}

impl Default for Volumes {
    fn default() -> Self {
        let capacities = Capacities::of(Informer::default(), &Informer::default());
        let nodes = (Informer::default(), &Informer::default());
        Self::of(Informer::default(), Informer::default(), Informer::default(), nodes, capacities)
    }
}

/// A claim of a pod that waits for the pod's node.
pub(crate) struct Open {
    claim: Arc<PersistentVolumeClaim>,
    class: Option<Arc<StorageClass>>,
    /// Where there is room for its volume: found out once, if any node needs it.
    room: OnceCell<Room>,
}

/// The claims of a pod.
#[derive(Default)]
pub(crate) struct ClaimsOf {
    /// The volumes of those that have one, as far as they exist.
    bound: Vec<Option<Arc<PersistentVolume>>>,
    open: Vec<Open>,
}

impl ClaimsOf {
    /// The volumes of those that have one.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        self.bound.iter().flatten()
    }

    /// Whether any waits for the pod's node.
    pub(crate) fn any_open(&self) -> bool {
        !self.open.is_empty()
    }
}

/// What has to be done for a claim before its pod is bound.
pub(crate) enum Step {
    /// The volume is there and is meant for the claim from now on.
    Take(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>),
    /// A provisioner is told the node.
    Provision(Arc<PersistentVolumeClaim>),
}

impl Volumes {
    pub(crate) fn new(informers: &Informers) -> Self {
        let capacities = Capacities::of(informers.of::<CSIDriver>(), &informers.of::<CSIStorageCapacity>());
        Self::of(informers.of(), informers.of(), informers.of(), (informers.of(), &informers.of()), capacities)
    }

    pub(crate) fn of(
        claims: Informer<PersistentVolumeClaim>,
        volumes: Informer<PersistentVolume>,
        classes: Informer<StorageClass>,
        (nodes, attachments): (Informer<CSINode>, &Informer<VolumeAttachment>),
        capacities: Capacities,
    ) -> Self {
        let by_class = volumes.index("class", |volume, values| values.add(rules::class_of_volume(volume)));
        let attachments = attachments.index("node", |attachment, values| values.add(&attachment.spec.node_name));
        Self { claims, volumes, by_class, classes, nodes, attachments, capacities }
    }

    /// The claims of a pod, or why it cannot be scheduled anywhere.
    pub(crate) fn claims_of(&self, pod: &PodInfo) -> Result<ClaimsOf, Refusal> {
        let mut found = ClaimsOf::default();
        let mut immediate = false;
        for wanted in &pod.claims {
            let claim = self.claim(pod, wanted)?;
            if rules::is_bound(&claim) {
                found.bound.push(self.volumes.get(None, rules::volume_of(&claim)));
                continue;
            }
            let class = self.classes.get(None, rules::class_of_claim(&claim).unwrap_or_default());
            let mode = class.as_ref().and_then(|class| class.volume_binding_mode.as_deref());
            if mode == Some("WaitForFirstConsumer") && rules::volume_of(&claim).is_empty() {
                found.open.push(Open { claim, class, room: OnceCell::new() });
            } else {
                immediate = true;
            }
        }
        if immediate { Err(Refusal::Unbound) } else { Ok(found) }
    }

    fn claim(&self, pod: &PodInfo, wanted: &Claim) -> Result<Arc<PersistentVolumeClaim>, Refusal> {
        let name = wanted.name.clone();
        let Some(claim) = self.claims.get(Some(pod.namespace()), &name) else {
            return Err(if wanted.own { Refusal::NotMade(name) } else { Refusal::Missing(name) });
        };
        let owners = claim.metadata.owner_references.iter().flatten();
        if wanted.own && !owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == pod.uid()) {
            return Err(Refusal::Strange { claim: Key::of(claim.as_ref()), pod: pod.key() });
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(Refusal::Ending(name));
        }
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
            return Err(Refusal::Lost { claim: name, volume: rules::volume_of(&claim).to_owned() });
        }
        Ok(claim)
    }

    /// The driver that serves the volume of a claim, or will make it, and what tells the volume from others; None when the driver does not count.
    pub(crate) fn of_driver(&self, namespace: &str, claim: &str, counts: impl Fn(&str) -> bool) -> Option<(String, String)> {
        let claim = self.claims.get(Some(namespace), claim)?;
        let name = rules::volume_of(&claim);
        if !name.is_empty() {
            let volume = self.volumes.get(None, name)?;
            let (driver, handle) = ::pods::csi::of_volume(&volume).filter(|(driver, _)| counts(driver))?;
            return Some((driver.to_owned(), handle.to_owned()));
        }
        let class = self.classes.get(None, rules::class_of_claim(&claim).unwrap_or_default())?;
        if !counts(&class.provisioner) {
            return None;
        }
        Some((class.provisioner.clone(), Key::of(claim.as_ref()).to_string()))
    }

    /// The volumes that drivers that count have attached to a node, whether a pod uses them or not, as [`Volumes::of_driver`] gives them.
    pub(crate) fn attached_to(&self, node: &str, counts: impl Fn(&str) -> bool) -> impl Iterator<Item = (String, String)> {
        // The attacher is asked before the volume is looked for: most attachments of a node may be other drivers'.
        self.attachments.get(node).into_iter().filter(move |one| counts(&one.spec.attacher)).filter_map(|one| {
            let volume = self.volumes.get(None, one.spec.source.persistent_volume_name.as_deref()?)?;
            let (_, handle) = ::pods::csi::of_volume(&volume)?;
            Some((one.spec.attacher.clone(), handle.to_owned()))
        })
    }

    /// How many volumes of each driver a node can have; drivers without a limit are left out.
    pub(crate) fn limits_of(&self, node: &str) -> BTreeMap<String, usize> {
        let Some(node) = self.nodes.get(None, node) else { return BTreeMap::new() };
        let limit = |driver: &k8s_openapi::api::storage::v1::CSINodeDriver| driver.allocatable.as_ref()?.count;
        let limits =
            node.spec.drivers.iter().filter_map(|driver| Some((driver.name.clone(), usize::try_from(limit(driver)?).ok()?)));
        limits.collect()
    }

    /// The claims of a pod that only one pod may use at a time.
    pub(crate) fn for_one_pod<'p>(&self, pod: &'p PodInfo) -> Vec<&'p str> {
        let exclusive = |wanted: &&'p Claim| {
            let claim = self.claims.get(Some(pod.namespace()), &wanted.name);
            let modes = claim.as_ref().and_then(|claim| claim.spec.as_ref()?.access_modes.as_deref());
            modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
        };
        pod.claims.iter().filter(exclusive).map(|claim| claim.name.as_str()).collect()
    }

    /// What has to be done so that the claims can be used on a node, or why they cannot.
    pub(crate) fn steps(&self, claims: &ClaimsOf, node: Place<'_>) -> Result<Vec<Step>, &'static str> {
        for volume in &claims.bound {
            let volume = volume.as_ref().ok_or(VOLUME_MISSING)?;
            if !rules::is_reachable(volume, node.name, node.labels) {
                return Err(NODE_CONFLICT);
            }
        }
        let (mut steps, mut taken) = (Vec::new(), HashSet::new());
        for open in &claims.open {
            let step = self.step(open, node, &taken)?;
            if let Step::Take(volume, _) = &step {
                taken.insert(volume.metadata.name.clone());
            }
            steps.push(step);
        }
        Ok(steps)
    }

    fn step(&self, open: &Open, node: Place<'_>, taken: &HashSet<Option<String>>) -> Result<Step, &'static str> {
        let claim = &open.claim;
        let annotations = claim.metadata.annotations.as_ref();
        if let Some(chosen) = annotations.and_then(|all| all.get(rules::SELECTED_NODE)) {
            return if chosen == node.name { self.provision(open, node) } else { Err(BIND_CONFLICT) };
        }
        let free = self.by_class.get(rules::class_of_claim(claim).unwrap_or_default());
        let free: Vec<Arc<PersistentVolume>> = free.into_iter().filter(|volume| !taken.contains(&volume.metadata.name)).collect();
        let wish = Wish::new(claim, true);
        let best = wish.best(free.iter().map(Arc::as_ref), Some((node.name, node.labels)));
        match best.and_then(|best| free.iter().find(|volume| std::ptr::eq(volume.as_ref(), best))) {
            Some(volume) => Ok(Step::Take(volume.clone(), claim.clone())),
            None => self.provision(open, node),
        }
    }

    /// A new volume for the node, if its class makes such and there is room for it.
    fn provision(&self, open: &Open, node: Place<'_>) -> Result<Step, &'static str> {
        let class = open.class.as_ref().filter(|class| class.provisioner != rules::NO_PROVISIONER && allows(class, node));
        let class = class.ok_or(BIND_CONFLICT)?;
        let room = open.room.get_or_init(|| self.capacities.room(&open.claim, class));
        if room.is_for(node.labels) { Ok(Step::Provision(open.claim.clone())) } else { Err(NO_ROOM) }
    }
}

/// Whether a class makes volumes for a node.
fn allows(class: &StorageClass, node: Place<'_>) -> bool {
    let label = |key: &str| node.labels.as_ref().and_then(|labels| labels.get(key));
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    terms.is_empty()
        || terms.iter().any(|term| {
            let mut expressions = term.match_label_expressions.iter().flatten();
            expressions.all(|one| label(&one.key).is_some_and(|value| one.values.contains(value)))
        })
}

#[cfg(test)]
mod tests;
