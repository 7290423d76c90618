//! Devices for claims (dynamic resource allocation, KEP-4381): what drivers offer in ResourceSlices, what is taken, and which devices a
//! pod's claims can have on a node.
//!
//! | module | what |
//! |---|---|
//! | [`pools`] | what drivers offer, by pool |
//! | [`ledger`] | what is taken, also what has been chosen and not written yet |
//! | [`wanted`] | what the claims of a pod ask for, compiled |
//! | [`extended`] | claims that are made in place of extended resources |
//! | [`search`] | which devices they get on a node |
//! | [`effort`] | how much work that may be |
//! | [`constraints`] | what devices of a claim must have in common |
//! | [`shares`] | what a share of a device takes of its capacity |
//! | [`binding`] | what devices wait for before their pod is bound |
//! | [`result`] | what is written into a claim |
//! | [`mod@write`] | writes it before the pod is bound |
//!
//! All but the last of it is pure, but for the caches of claims and classes, which are read as they are.

pub(crate) mod binding;
mod constraints;
mod effort;
pub(crate) mod extended;
mod ledger;
mod pools;
mod result;
mod search;
mod shares;
#[cfg(test)]
mod tests;
mod wanted;
pub(crate) mod write;

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::ContainerExtendedResourceRequest;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim};
use pods::claims::{self, Named};
use pods::nodes::NodeTerms;
use pods::slices::Place;

use crate::pod::PodInfo;
use crate::resources::Resources;
use effort::Effort;
use extended::{Extended, Variant};
pub(crate) use ledger::Ledger;
pub(crate) use pools::Pools;
pub(crate) use search::Found;
use search::Search;
use wanted::Wanted;

/// A device of a pool of a driver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeviceId {
    pub(crate) pool: PoolId,
    pub(crate) device: String,
}

/// A pool of a driver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PoolId {
    pub(crate) driver: String,
    pub(crate) pool: String,
}

impl std::fmt::Display for PoolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.driver, self.pool)
    }
}

/// What the scheduler knows of devices.
#[derive(Default)]
pub(crate) struct Devices {
    pub(crate) claims: Informer<ResourceClaim>,
    pub(crate) classes: Informer<DeviceClass>,
    pub(crate) extended: extended::Classes,
    pub(crate) pools: Pools,
    pub(crate) ledger: Ledger,
    /// Uids of pods whose claims of an attempt that failed are being deleted.
    pub(crate) discarding: HashSet<String>,
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} claims", self.claims.len())
    }
}

/// The claims of a pod.
#[derive(Default)]
pub(crate) struct ClaimsOf {
    /// Those that have devices, and on which nodes these can be used.
    allocated: Vec<(Arc<ResourceClaim>, Option<NodeTerms>)>,
    /// Those that get some.
    wanted: Vec<Wanted>,
    /// What may come by a claim that is made for it.
    extended: Extended,
    /// The work that may be done for the pod.
    effort: Effort,
}

impl ClaimsOf {
    /// Whether there are any that the pod names.
    pub(crate) fn any_named(&self) -> bool {
        !self.allocated.is_empty() || !self.wanted.is_empty()
    }

    /// One of those whose devices cannot be used on all of these nodes, that is reserved for nobody but the pod of this uid.
    pub(crate) fn idle(&self, pod: &str, nodes: &[Place<'_>]) -> Option<Arc<ResourceClaim>> {
        let is_idle = |claim: &ResourceClaim| claims::consumers(claim).iter().all(|consumer| consumer.uid == pod);
        let lacks = |terms: &Option<NodeTerms>| nodes.iter().any(|node| !is_usable(terms, *node));
        let idle = self.allocated.iter().find(|(claim, terms)| is_idle(claim) && lacks(terms));
        idle.map(|(claim, _)| claim.clone())
    }

    /// Those that get devices, with the one that is made for the pod.
    fn wanted_with<'a>(&'a self, made: Option<&'a Variant>) -> Vec<&'a Wanted> {
        self.wanted.iter().chain(made.map(|made| &made.wanted)).collect()
    }

    /// Whether any has a list of alternatives.
    pub(crate) fn any_alternatives(&self) -> bool {
        self.wanted.iter().any(|wanted| (0..wanted.requests.len()).any(|request| wanted.has_alternatives(request)))
    }

    /// How much they prefer what was found for them. A claim that is made for the pod has no alternatives.
    pub(crate) fn preference(&self, found: &Found) -> i64 {
        found.preference(&self.wanted)
    }

    /// As much work may be done as at the beginning.
    pub(crate) fn renew(&self) {
        self.effort.renew();
    }
}

/// Whether devices with these terms can be used on a node.
fn is_usable(terms: &Option<NodeTerms>, node: Place<'_>) -> bool {
    terms.as_ref().is_none_or(|terms| terms.matches(node.name, node.labels))
}

/// What has to be written of a claim before its pod is bound.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) claim: Arc<ResourceClaim>,
    /// The devices that it gets; none of a claim that has its devices already.
    pub(crate) allocation: Option<AllocationResult>,
    /// Which of its requests each container has, of a claim that is made for the pod's extended resources; empty of one that exists.
    pub(crate) mappings: Vec<ContainerExtendedResourceRequest>,
}

impl Reservation {
    /// Whether the claim has to be made.
    pub(crate) fn is_new(&self) -> bool {
        !self.mappings.is_empty()
    }

    /// What was chosen is known by this.
    pub(crate) fn id(&self) -> &str {
        self.claim.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether it led to this claim, which was written for the pod of this uid.
    pub(crate) fn led_to(&self, written: &ResourceClaim, pod: &str) -> bool {
        match self.is_new() {
            true => claims::is_extended(written) && claims::is_for(written, pod),
            false => written.metadata.uid == self.claim.metadata.uid,
        }
    }
}

/// Why a pod cannot be on any node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("pod \"{0}\": ResourceClaim not created yet")]
    NotMade(Key),
    #[error("resourceclaim.resource.k8s.io {0:?} not found")]
    Missing(String),
    #[error("resourceclaim {0:?} is being deleted")]
    Ending(String),
    #[error("ResourceClaim {claim} was not created for pod {pod} (pod is not owner)")]
    Strange { claim: Key, pod: Key },
    #[error("resourceclaim in use")]
    InUse,
    #[error("cannot schedule extended resource claim of pod {0}: that of an attempt that failed is not deleted yet")]
    Left(Key),
    #[error("resource claim {0} is in the process of being allocated")]
    Allocating(Key),
    #[error(transparent)]
    Wanted(#[from] wanted::Error),
}

impl Devices {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { claims: informers.of(), classes: informers.of(), ..Self::default() }
    }

    /// Whether a pod asks for devices.
    pub(crate) fn concern(&self, pod: &PodInfo) -> bool {
        pod.object().is_some_and(|pod| !claims::entries(pod).is_empty()) || self.extended.asked(pod).next().is_some()
    }

    /// Claims that were made for a pod's extended resources before, when it was not bound in the end.
    pub(crate) fn leftovers(&self, pod: &PodInfo) -> Vec<Arc<ResourceClaim>> {
        if self.extended.asked(pod).next().is_none() {
            return Vec::new();
        }
        let mut owned = self.claims.owned_by(pod.uid());
        owned.retain(|claim| claims::is_extended(claim) && claims::is_for(claim, pod.uid()));
        owned
    }

    /// The claims of a pod, or why it cannot be scheduled anywhere.
    pub(crate) fn claims_of(&self, info: &PodInfo) -> Result<ClaimsOf, Refusal> {
        let mut found = ClaimsOf { extended: Extended::new(self.extended.asked(info)), ..ClaimsOf::default() };
        let Some(pod) = info.object() else { return Ok(found) };
        if self.discarding.contains(info.uid()) || !self.leftovers(info).is_empty() {
            return Err(Refusal::Left(info.key()));
        }
        for entry in claims::entries(pod) {
            let (name, own) = match claims::named(pod, entry) {
                Named::NotMade => return Err(Refusal::NotMade(info.key())),
                Named::Nothing => continue,
                Named::Shared(name) => (name, false),
                Named::Own(name) => (name, true),
            };
            let claim = self.claims.get(Some(info.namespace()), name).ok_or_else(|| Refusal::Missing(name.to_owned()))?;
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(Refusal::Ending(name.to_owned()));
            }
            if own && !claims::is_for(&claim, info.uid()) {
                return Err(Refusal::Strange { claim: Key::of(claim.as_ref()), pod: info.key() });
            }
            self.sort(info, claim, &mut found)?;
        }
        Ok(found)
    }

    fn sort(&self, pod: &PodInfo, claim: Arc<ResourceClaim>, found: &mut ClaimsOf) -> Result<(), Refusal> {
        let uid = claim.metadata.uid.as_deref().unwrap_or_default();
        let known = found.allocated.iter().map(|(claim, _)| claim).chain(found.wanted.iter().map(|wanted| &wanted.claim));
        if known.into_iter().any(|known| known.metadata.uid.as_deref() == Some(uid)) {
            return Ok(());
        }
        if self.ledger.is_chosen(uid) {
            return Err(Refusal::Allocating(Key::of(claim.as_ref())));
        }
        match claim.status.as_ref().and_then(|status| status.allocation.as_ref()) {
            Some(allocation) => {
                if !claims::is_reserved_for(&claim, pod.uid()) && claims::consumers(&claim).len() >= claims::MAX_CONSUMERS {
                    return Err(Refusal::InUse);
                }
                let nodes = allocation.node_selector.as_ref().map(NodeTerms::new);
                found.allocated.push((claim, nodes));
            }
            None => found.wanted.push(Wanted::new(claim, |class| self.classes.get(None, class))?),
        }
        Ok(())
    }

    /// The devices that a pod's claims get on a node with this much of everything, or why they cannot be used there.
    pub(crate) fn search(
        &self,
        pod: &PodInfo,
        claims: &ClaimsOf,
        node: Place<'_>,
        allocatable: &Resources,
    ) -> Result<Found, String> {
        if !claims.allocated.iter().all(|(_, terms)| is_usable(terms, node)) {
            return Err("resourceclaim not available on the node".to_owned());
        }
        let made = self.made(pod, claims, allocatable)?;
        let wanted = claims.wanted_with(made.as_deref());
        if wanted.is_empty() {
            return Ok(Found::default());
        }
        Search::new(&wanted, &self.pools.on(node), &self.ledger, node, &claims.effort).run()
    }

    /// What is written of a pod's claims when it comes to a node where this was found, with the same claims and devices as now.
    pub(crate) fn reservations(
        &self,
        pod: &PodInfo,
        claims: &ClaimsOf,
        node: Place<'_>,
        allocatable: &Resources,
        found: &Found,
    ) -> Result<Vec<Reservation>, String> {
        let reservation =
            |claim: &Arc<ResourceClaim>, allocation| Reservation { claim: claim.clone(), allocation, mappings: Vec::new() };
        let mut all: Vec<Reservation> = claims.allocated.iter().map(|(claim, _)| reservation(claim, None)).collect();
        let made = self.made(pod, claims, allocatable)?;
        let wanted = claims.wanted_with(made.as_deref());
        if !wanted.is_empty() {
            let results = found.results(&wanted, &self.pools.on(node), node.name);
            all.extend(wanted.iter().zip(results).map(|(wanted, allocation)| reservation(&wanted.claim, Some(allocation))));
        }
        if let (Some(made), Some(last)) = (made, all.last_mut()) {
            last.mappings.clone_from(&made.mappings);
        }
        Ok(all)
    }

    /// What comes by a claim that is made for the pod, on a node with this much of everything.
    fn made(&self, pod: &PodInfo, claims: &ClaimsOf, allocatable: &Resources) -> Result<Option<Rc<Variant>>, String> {
        claims.extended.on(pod, allocatable, |class| self.classes.get(None, class))
    }

    /// A claim came, changed or went. Whether that may help a pod that waits.
    pub(crate) fn claim_changed(&mut self, old: Option<&ResourceClaim>, new: Option<&ResourceClaim>) -> bool {
        let Some(uid) = new.or(old).and_then(|claim| claim.metadata.uid.as_deref()) else { return false };
        if let Some(replaced) = old.and_then(|old| old.metadata.uid.as_deref()).filter(|old| *old != uid) {
            self.ledger.observe(replaced, None);
        }
        self.ledger.observe(uid, new);
        // One that is gone before it is known that it was made must not come back.
        if let Some((_, pod)) = old.filter(|old| new.is_none() && claims::is_extended(old)).and_then(claims::owner) {
            self.ledger.went(&extended::id(pod), uid);
        }
        let state = |claim: Option<&ResourceClaim>| {
            claim.map(|claim| {
                (claims::is_allocated(claim), claims::consumers(claim).len(), claim.metadata.deletion_timestamp.clone())
            })
        };
        state(old) != state(new)
    }
}
