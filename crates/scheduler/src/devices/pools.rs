//! What drivers offer: ResourceSlices, put together to pools.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use pods::nodes::NodeTerms;

use super::PoolId;
use crate::volumes::Place;

/// All pools, and where to look for those of a node.
#[derive(Default)]
pub(crate) struct Pools {
    pools: BTreeMap<PoolId, Pool>,
    /// Pools with slices that name a node.
    by_node: HashMap<String, BTreeSet<PoolId>>,
    /// Pools with slices that are for several nodes.
    shared: BTreeSet<PoolId>,
}

#[derive(Default)]
struct Pool {
    slices: BTreeMap<String, Arc<ResourceSlice>>,
    /// Made when it is asked for first after a change.
    offer: OnceCell<Arc<Offer>>,
}

/// Counters that devices share, by set and name.
pub(super) type Counters = BTreeMap<(String, String), Quantity>;

/// A pool as its driver has published it last.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) id: PoolId,
    /// Not all of its slices are there yet.
    pub(super) incomplete: bool,
    /// Two of its devices have one name.
    pub(super) invalid: bool,
    pub(super) slices: Vec<Slice>,
    /// What there is of what its devices share.
    pub(super) counters: Counters,
    by_name: HashMap<String, (usize, usize)>,
}

#[derive(Debug)]
pub(super) struct Slice {
    pub(super) slice: Arc<ResourceSlice>,
    nodes: Nodes,
    /// Where each device is, of a slice that leaves that to them.
    each: Vec<Nodes>,
}

#[derive(Debug)]
enum Nodes {
    One(String),
    Some(NodeTerms),
    All,
    Each,
    None,
}

impl Nodes {
    fn new(name: Option<&String>, all: Option<bool>, selector: Option<&NodeSelector>) -> Self {
        match (name.filter(|name| !name.is_empty()), selector) {
            (Some(name), _) => Self::One(name.clone()),
            (None, _) if all == Some(true) => Self::All,
            (None, Some(selector)) => Self::Some(NodeTerms::new(selector)),
            (None, None) => Self::None,
        }
    }

    fn has(&self, node: Place<'_>) -> bool {
        match self {
            Self::One(name) => name == node.name,
            Self::Some(terms) => terms.matches(node.name, node.labels),
            Self::All | Self::Each => true,
            Self::None => false,
        }
    }
}

impl Slice {
    fn new(slice: &Arc<ResourceSlice>) -> Self {
        let spec = &slice.spec;
        let devices = || spec.devices.iter().flatten();
        let (nodes, each) = if spec.per_device_node_selection == Some(true) {
            let of = |one: &Device| Nodes::new(one.node_name.as_ref(), one.all_nodes, one.node_selector.as_ref());
            (Nodes::Each, devices().map(of).collect())
        } else {
            (Nodes::new(spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref()), Vec::new())
        };
        Self { slice: slice.clone(), nodes, each }
    }

    pub(super) fn devices(&self) -> &[Device] {
        self.slice.spec.devices.as_deref().unwrap_or_default()
    }

    /// Whether a device can be used on a node.
    pub(super) fn offers(&self, device: usize, node: Place<'_>) -> bool {
        self.nodes.has(node) && self.each.get(device).is_none_or(|nodes| nodes.has(node))
    }
}

impl Offer {
    fn new(id: PoolId, all: &BTreeMap<String, Arc<ResourceSlice>>) -> Self {
        let generation = all.values().map(|slice| slice.spec.pool.generation).max().unwrap_or_default();
        let latest = all.values().filter(|slice| slice.spec.pool.generation == generation);
        let slices: Vec<Slice> = latest.map(Slice::new).collect();
        let count = slices.first().map_or(0, |slice| slice.slice.spec.pool.resource_slice_count);
        let (mut by_name, mut counters, mut names, mut invalid) = (HashMap::new(), Counters::new(), HashSet::new(), false);
        for (at, slice) in slices.iter().enumerate() {
            for (index, device) in slice.devices().iter().enumerate() {
                invalid |= !names.insert(device.name.clone());
                by_name.insert(device.name.clone(), (at, index));
            }
            for set in slice.slice.spec.shared_counters.iter().flatten() {
                for (name, counter) in &set.counters {
                    let amount = Quantity::parse(&counter.value.0).unwrap_or_default();
                    invalid |= counters.insert((set.name.clone(), name.clone()), amount).is_some();
                }
            }
        }
        let incomplete = i64::try_from(slices.len()).ok() != Some(count);
        Self { id, incomplete, invalid, slices, counters, by_name }
    }

    /// A device by its name.
    pub(super) fn device(&self, name: &str) -> Option<&Device> {
        let (slice, device) = *self.by_name.get(name)?;
        self.slices[slice].devices().get(device)
    }
}

fn id_of(slice: &ResourceSlice) -> PoolId {
    PoolId { driver: slice.spec.driver.clone(), pool: slice.spec.pool.name.clone() }
}

impl Pools {
    /// A slice came, changed or went.
    pub(crate) fn changed(&mut self, name: &str, old: Option<&ResourceSlice>, new: Option<Arc<ResourceSlice>>) {
        for id in [old.map(id_of), new.as_deref().map(id_of)].into_iter().flatten() {
            let pool = self.pools.entry(id.clone()).or_default();
            pool.offer = OnceCell::new();
            self.forget(&id, name);
        }
        let Some(slice) = new else { return };
        let id = id_of(&slice);
        self.place(&id, &slice);
        self.pools.entry(id).or_default().slices.insert(name.to_owned(), slice);
    }

    fn place(&mut self, id: &PoolId, slice: &ResourceSlice) {
        match slice.spec.node_name.as_ref().filter(|name| !name.is_empty()) {
            Some(node) => self.by_node.entry(node.clone()).or_default().insert(id.clone()),
            None => self.shared.insert(id.clone()),
        };
    }

    fn forget(&mut self, id: &PoolId, slice: &str) {
        let Some(pool) = self.pools.get_mut(id) else { return };
        let removed = pool.slices.remove(slice);
        let node = removed.as_ref().and_then(|slice| slice.spec.node_name.clone()).unwrap_or_default();
        let same = |other: &Arc<ResourceSlice>| other.spec.node_name.as_deref().unwrap_or_default() == node;
        if !pool.slices.values().any(same) {
            let places = if node.is_empty() { Some(&mut self.shared) } else { self.by_node.get_mut(&node) };
            if let Some(places) = places {
                places.remove(id);
            }
            if self.by_node.get(&node).is_some_and(BTreeSet::is_empty) {
                self.by_node.remove(&node);
            }
        }
        if pool.slices.is_empty() {
            self.pools.remove(id);
        }
    }

    /// The pools that may have devices for a node.
    pub(super) fn on(&self, node: Place<'_>) -> Vec<Arc<Offer>> {
        let own = self.by_node.get(node.name).into_iter().flatten();
        let ids: BTreeSet<&PoolId> = own.chain(&self.shared).collect();
        let offer = |id: &PoolId| {
            let pool = self.pools.get(id)?;
            Some(pool.offer.get_or_init(|| Arc::new(Offer::new(id.clone(), &pool.slices))).clone())
        };
        ids.into_iter().filter_map(offer).collect()
    }
}
