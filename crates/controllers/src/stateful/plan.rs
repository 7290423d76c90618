//! What to do next about a set. Pure.
//!
//! In order (OrderedReady) a step waits for all pods before it: they run, are ready and have been so for minReadySeconds. In parallel
//! nothing waits. Scaling comes before updating.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

pub(super) use super::observed::{Observed, Version};
use super::{claims, identity, status};
use crate::pod_control::BURST;
use crate::{meta, pods};

/// A pod to be made.
#[derive(Debug, PartialEq)]
pub(super) struct Create {
    pub(super) pod: Box<Pod>,
    /// To be made before it.
    pub(super) claims: Vec<PersistentVolumeClaim>,
    /// A claim of it that is being deleted, so that it cannot be made yet.
    pub(super) ending: Option<String>,
}

/// What is to be done, in the order of the fields.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Claims that pods that wait for them lack, each with the pod's name.
    pub(super) claims: Vec<(String, PersistentVolumeClaim)>,
    /// Labels that pods lack.
    pub(super) label: Vec<(Arc<Pod>, BTreeMap<String, String>)>,
    pub(super) create: Vec<Create>,
    /// Claims with other owners.
    pub(super) own: Vec<PersistentVolumeClaim>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) status: StatefulSetStatus,
    pub(super) after: Option<Duration>,
}

impl Plan {
    /// What is left after creations of which some are not made yet: pods go that have ended and stay in the set, so that others may take their
    /// place, and those that have no node, which serve nobody and of which there are too many. All else waits for the pods that are not there.
    pub(super) fn pause(&mut self, set: &StatefulSet) {
        let stays = |pod: &Pod| identity::ordinal(pod).is_some_and(|ordinal| identity::in_range(set, ordinal));
        self.own.clear();
        self.delete.retain(|pod| pods::node(pod).is_empty() || status::has_ended(pod) && stays(pod));
    }
}

/// Whether more can be done in this look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Wait,
}

struct Work<'a> {
    observed: &'a Observed<'a>,
    /// How many pods there should be: so many that none may cost anything before it is there.
    wanted: usize,
    /// Those of them that there are, by index.
    replicas: BTreeMap<usize, &'a Arc<Pod>>,
    /// The pods that there should not be, the highest number first.
    condemned: Vec<&'a Arc<Pod>>,
    in_order: bool,
    plan: Plan,
}

pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let start = identity::start(observed.set);
    let wanted = usize::try_from(identity::replicas(observed.set)).unwrap_or(0);
    let (mut replicas, mut condemned) = (BTreeMap::new(), Vec::new());
    for pod in observed.pods {
        let Some(ordinal) = identity::ordinal(pod) else { continue };
        match usize::try_from(ordinal - start).ok().filter(|index| *index < wanted) {
            Some(index) => drop(replicas.insert(index, pod)),
            None => condemned.push(pod),
        }
    }
    condemned.sort_by_key(|pod| std::cmp::Reverse(identity::ordinal(pod)));
    let members = replicas.values().copied().chain(condemned.iter().copied());
    let status = status::status(observed, members);
    let waits = observed.pods.iter().filter_map(|pod| observed.availability(pod)).filter(|wait| !wait.is_zero());
    let plan = Plan { status, after: waits.min(), ..Plan::default() };
    let mut work = Work { observed, wanted, replicas, condemned, in_order: observed.in_order(), plan };
    if !meta::ends(observed.set) {
        work.run();
    }
    work.plan
}

impl Work<'_> {
    fn run(&mut self) {
        for index in self.places() {
            if self.replica(index) == Go::Wait && self.in_order {
                return;
            }
        }
        for pod in self.condemned.clone() {
            self.settle_claims(pod);
        }
        let unavailable = self.first_unavailable();
        for pod in self.condemned.clone() {
            if self.condemn(pod, unavailable.as_deref()) == Go::Wait && self.in_order {
                return;
            }
        }
        if self.observed.rolls() {
            self.update();
        }
    }

    /// The indexes to look at, in order: of all pods that there are, and of as many as may be made in one look.
    fn places(&self) -> Vec<usize> {
        let holes = (0..self.wanted).filter(|index| !self.replicas.contains_key(index)).take(BURST);
        let mut places: Vec<usize> = self.replicas.keys().copied().chain(holes).collect();
        places.sort_unstable();
        places
    }

    /// The name of the first pod that does not serve: of those that stay, then of the lowest that goes. None where a place is empty.
    fn first_unavailable(&self) -> Option<String> {
        let mut staying = (0..self.wanted).map(|index| self.replicas.get(&index).copied());
        let staying = staying.find(|pod| !self.observed.serves(*pod));
        let going = || self.condemned.iter().rev().find(|pod| !self.observed.serves(Some(pod))).copied();
        match staying {
            Some(pod) => pod.map(|pod| meta::name(pod.as_ref()).to_owned()),
            None => going().map(|pod| meta::name(pod.as_ref()).to_owned()),
        }
    }

    /// Brings one of the pods that should be there nearer to how it should be.
    fn replica(&mut self, index: usize) -> Go {
        let Some(pod) = self.replicas.get(&index).copied() else { return self.create(index) };
        if status::has_ended(pod) {
            // Another is made when this one is gone.
            if !meta::ends(pod.as_ref()) {
                self.plan.delete.push(pod.clone());
            }
            return Go::Wait;
        }
        let Some(ordinal) = identity::ordinal(pod) else { return Go::On };
        if pods::phase(pod) == "Pending" {
            let missing = self.missing_claims(ordinal);
            self.plan.claims.extend(missing.into_iter().map(|claim| (meta::name(pod.as_ref()).to_owned(), claim)));
        }
        if self.in_order && !self.observed.serves(Some(pod)) {
            return Go::Wait;
        }
        if let Some(labels) = identity::missing_labels(pod, ordinal) {
            self.plan.label.push((pod.clone(), labels));
        }
        self.settle_claims(pod);
        Go::On
    }

    fn create(&mut self, index: usize) -> Go {
        let set = self.observed.set;
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let ordinal = identity::start(set).saturating_add(index);
        let version = self.observed.version(index);
        let pod = identity::pod(set, &version.template, &version.name, ordinal);
        let there: Vec<_> =
            claims::of_pod(set, ordinal).filter_map(|(_, claim)| (self.observed.claims)(meta::name(&claim))).collect();
        if there.iter().any(|claim| claims::is_stale(set, &pod, claim)) {
            return Go::Wait;
        }
        let ending = there.iter().find(|claim| meta::ends(claim.as_ref())).map(|claim| meta::name(claim.as_ref()).to_owned());
        let owned = there.iter().filter_map(|claim| claims::owned(set, &pod, ordinal, claim));
        self.plan.own.extend(owned);
        let claims = self.missing_claims(ordinal);
        self.plan.create.push(Create { pod: Box::new(pod), claims, ending });
        Go::Wait
    }

    fn missing_claims(&self, ordinal: i32) -> Vec<PersistentVolumeClaim> {
        let all = claims::of_pod(self.observed.set, ordinal).map(|(_, claim)| claim);
        all.filter(|claim| (self.observed.claims)(meta::name(claim)).is_none()).collect()
    }

    /// Gives the claims of a pod the owners that they should have.
    fn settle_claims(&mut self, pod: &Arc<Pod>) {
        let (set, Some(ordinal)) = (self.observed.set, identity::ordinal(pod)) else { return };
        let there = claims::of_pod(set, ordinal).filter_map(|(_, claim)| (self.observed.claims)(meta::name(&claim)));
        self.plan.own.extend(there.filter_map(|claim| claims::owned(set, pod, ordinal, &claim)));
    }

    /// Ends a pod that should not be there. In order, one that serves goes first; the first that does not serve may go before it.
    fn condemn(&mut self, pod: &Arc<Pod>, unavailable: Option<&str>) -> Go {
        if meta::ends(pod.as_ref()) {
            return Go::Wait;
        }
        if self.in_order && !self.observed.is_available(pod) && unavailable != Some(meta::name(pod.as_ref())) {
            return Go::Wait;
        }
        self.plan.delete.push(pod.clone());
        Go::Wait
    }

    /// Ends the highest pod of an old revision, unless one above it does not serve yet.
    fn update(&mut self) {
        let least = usize::try_from(self.observed.partition().unwrap_or(0)).unwrap_or(0);
        for index in (least..self.wanted).rev() {
            let pod = self.replicas.get(&index).copied();
            if let Some(old) = pod.filter(|pod| identity::revision(pod) != self.observed.update.name && !meta::ends(pod.as_ref()))
            {
                if !self.plan.delete.contains(old) {
                    self.plan.delete.push(old.clone());
                }
                let current = self.plan.status.current_replicas.unwrap_or(0) - 1;
                self.plan.status.current_replicas = Some(current).filter(|count| *count > 0);
                return;
            }
            if !self.observed.serves(pod) {
                return;
            }
        }
    }
}

/// The oldest revisions beyond the limit that neither the set nor one of its pods needs. `revisions` are ordered by age.
pub(super) fn surplus<'a>(
    set: &StatefulSet,
    revisions: &'a [Arc<ControllerRevision>],
    needed: &[&str],
    pods: &[Arc<Pod>],
) -> Vec<&'a Arc<ControllerRevision>> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    // A negative limit keeps them all.
    let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
    let live: HashSet<&str> = needed.iter().copied().chain(pods.iter().map(|pod| identity::revision(pod))).collect();
    let dead: Vec<_> = revisions.iter().filter(|revision| !live.contains(meta::name(revision.as_ref()))).collect();
    let number = dead.len().saturating_sub(limit);
    dead.into_iter().take(number).collect()
}
