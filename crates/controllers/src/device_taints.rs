//! Pods go from devices with a taint of the effect NoExecute that their claims do not tolerate (KEP-5055).
//!
//! Taints come from the drivers' ResourceSlices. DeviceTaintRules are of an API that is off by default and not served.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ::pods::claims;
use ::pods::slices::{self, Place, Slice};
use client::events::Type;
use client::{Change, Index, Informer, Informers, Key, Values};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use parking_lot::Mutex;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::eviction::Eviction;
use crate::queue::Queue;
use crate::{meta, pods};

const EVENT: &str = "DeviceTaintManagerEviction";
const EVICTION: Eviction = Eviction {
    event: EVENT,
    reason: "DeletionByDeviceTaintManager",
    message: "Device Taint manager: deleting due to NoExecute taint",
};

/// Keys are those of pods.
pub(crate) struct DeviceTaints {
    pods: Informer<Pod>,
    /// Pods by their node.
    by_node: Index<Pod>,
    nodes: Informer<Node>,
    claims: Informer<ResourceClaim>,
    slices: Informer<ResourceSlice>,
    /// Claims by the pools of their devices.
    claims_of: Index<ResourceClaim>,
    /// Slices by their pools.
    slices_of: Index<ResourceSlice>,
    tainted: Tainted,
    /// Pods that are going to be evicted, with their uids.
    waiting: Mutex<HashMap<Key, String>>,
}

/// How many slices of each pool have taints that evict: nobody looks at the others.
#[derive(Clone, Default)]
struct Tainted(Arc<Mutex<HashMap<String, usize>>>);

impl Tainted {
    /// Takes a change of a slice; the pools of which claims may be concerned.
    fn change(&self, change: &Change<ResourceSlice>) -> HashSet<String> {
        let mut counts = self.0.lock();
        let mut concerned = HashSet::new();
        let sides = [(&change.old, false), (&change.new, true)];
        for (slice, comes) in sides.into_iter().filter_map(|(slice, comes)| Some((slice.as_deref()?, comes))) {
            let pool = plan::pool(&slice.spec.driver, &slice.spec.pool.name);
            // Another slice may have made this one's generation an old one, and its taints void.
            if plan::evicts(slice) {
                let count = counts.entry(pool.clone()).or_default();
                *count = if comes { *count + 1 } else { count.saturating_sub(1) };
                concerned.insert(pool);
            } else if counts.contains_key(&pool) {
                concerned.insert(pool);
            }
        }
        counts.retain(|pool, count| *count > 0 || !concerned.contains(pool));
        concerned
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    fn contains(&self, pool: &str) -> bool {
        self.0.lock().contains_key(pool)
    }
}

fn pools(claim: &ResourceClaim) -> impl Iterator<Item = String> {
    plan::results(claim).map(|one| plan::pool(&one.driver, &one.pool))
}

impl DeviceTaints {
    pub(crate) fn new(informers: &Informers) -> Self {
        fn of_claim(claim: &ResourceClaim, values: &mut Values) {
            pools(claim).for_each(|pool| values.add(pool));
        }
        fn of_slice(slice: &ResourceSlice, values: &mut Values) {
            values.add(plan::pool(&slice.spec.driver, &slice.spec.pool.name));
        }
        let (claims, slices) = (informers.of::<ResourceClaim>(), informers.of::<ResourceSlice>());
        let pods = informers.of();
        Self {
            by_node: pods::by_node(&pods),
            pods,
            nodes: informers.of(),
            claims_of: claims.index("device-pool", of_claim),
            slices_of: slices.index("pool", of_slice),
            claims,
            slices,
            tainted: Tainted::default(),
            waiting: Mutex::default(),
        }
    }

    /// When the pod has to go; never without a claim that is reserved for it and has a tainted device.
    fn eviction(&self, pod: &Pod) -> Option<Timestamp> {
        if pods::node(pod).is_empty() || meta::ends(pod) || pods::is_finished(pod) {
            return None;
        }
        let node = self.nodes.get(None, pods::node(pod));
        let labels = node.as_ref().and_then(|node| node.metadata.labels.clone());
        let place = Place { name: pods::node(pod), labels: &labels };
        let of = |claim: Arc<ResourceClaim>| {
            let mut slices: HashMap<String, Vec<Slice>> = HashMap::new();
            for pool in pools(&claim).filter(|pool| self.tainted.contains(pool)) {
                slices.entry(pool).or_insert_with_key(|pool| slices::on_node(&self.slices_of.get(pool), place));
            }
            plan::eviction(&claim, &slices)
        };
        let reserved = claims::all(pod).filter_map(|named| {
            let claim = self.claims.get(Some(meta::namespace(pod)), named.name()?)?;
            let own = !matches!(named, claims::Named::Own(_)) || claims::is_for(&claim, meta::uid(pod));
            (own && claims::is_reserved_for(&claim, meta::uid(pod))).then_some(claim)
        });
        reserved.filter_map(of).min()
    }
}

fn add_consumers(claim: &ResourceClaim, queue: &Queue) {
    for consumer in claims::consumers(claim).iter().filter(|consumer| consumer.resource == "pods") {
        queue.add(Key::namespaced(meta::namespace(claim), &consumer.name));
    }
}

impl Controller for DeviceTaints {
    const NAME: &'static str = "device-taint-eviction";
    const ACCOUNT: &'static str = "device-taint-eviction-controller";
    const CONCURRENCY: usize = 8;

    fn sources(&self) -> Vec<Source> {
        let of_pods = Source::stepped(&self.pods, |step, queue| {
            let Some(change) = pods::with_device_claims(step) else { return };
            let Some(pod) = change.object().filter(|pod| claims::has_any(pod)) else { return };
            let facts = |pod: &Arc<Pod>| (pods::node(pod).to_owned(), claims::names(pod).map(str::to_owned).collect::<Vec<_>>());
            if change.new.is_none() || change.old.as_ref().map(facts) != Some(facts(pod)) {
                queue.add(change.key.clone());
            }
        });
        let of_claims = Source::mapped(&self.claims, |change, queue| {
            for claim in [&change.old, &change.new].into_iter().flatten() {
                add_consumers(claim, queue);
            }
        });
        let (tainted, claims) = (self.tainted.clone(), self.claims_of.clone());
        let of_slices = Source::mapped(&self.slices, move |change, queue| {
            for pool in tainted.change(change) {
                claims.get(&pool).iter().for_each(|claim| add_consumers(claim, queue));
            }
        });
        // Which slices are for a node may follow from its labels.
        let (tainted, by_node) = (self.tainted.clone(), self.by_node.clone());
        let of_nodes = Source::mapped(&self.nodes, move |change, queue| {
            let labels = |node: &Option<Arc<Node>>| node.as_ref().map(|node| node.metadata.labels.clone());
            if !tainted.is_empty() && labels(&change.old) != labels(&change.new) {
                let pods = by_node.get(&change.key.name);
                pods.iter().filter(|pod| claims::has_any(pod)).for_each(|pod| queue.add(Key::of(pod.as_ref())));
            }
        });
        vec![of_slices, of_claims, of_nodes, of_pods]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.by_key(key) else {
            self.waiting.lock().remove(key);
            return Ok(Action::Done);
        };
        let Some(at) = self.eviction(&pod) else {
            let waited = self.waiting.lock().remove(key);
            if waited.is_some_and(|uid| uid == meta::uid(pod.as_ref())) && !meta::ends(pod.as_ref()) && !pods::is_finished(&pod) {
                cx.events.about(pod.as_ref(), Type::Normal, EVENT, "Cancelling deletion");
            }
            return Ok(Action::Done);
        };
        self.waiting.lock().insert(key.clone(), meta::uid(pod.as_ref()).to_owned());
        let left = at.duration_since(cx.clock.now());
        if left.is_positive() {
            return Ok(Action::after(left.try_into().ok()));
        }
        EVICTION.carry_out(cx, &pod, "Marking for deletion".to_owned()).await?;
        self.waiting.lock().remove(key);
        Ok(Action::Done)
    }
}
