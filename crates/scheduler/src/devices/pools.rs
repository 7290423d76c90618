//! What drivers offer: ResourceSlices, put together to pools.
//!
//! A pool is looked at from one node: the slices that are for it are chosen first, and their generation is the pool's there (upstream's
//! `GatherPools`). Who may publish slices for his own node must not take the devices of others away by using their pool's name.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    sorted: OnceCell<Sorted>,
    /// What it offers to nodes for which the same slices are, by the places of these in the list of all.
    offers: RefCell<HashMap<Vec<usize>, Arc<Offer>>>,
}

/// The slices of a pool, by where they are.
struct Sorted {
    all: Vec<Arc<Slice>>,
    /// Places in the list of all, of those that name a node.
    by_node: HashMap<String, Vec<usize>>,
    /// Of the others.
    shared: Vec<usize>,
}

/// Counters that devices share, by set and name.
pub(super) type Counters = BTreeMap<(String, String), Quantity>;

/// A pool as its driver has published it last, for some nodes.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) id: PoolId,
    /// Not all of its slices are there yet.
    pub(super) incomplete: bool,
    /// Two of its devices have one name.
    pub(super) invalid: bool,
    /// The slices for these nodes.
    pub(super) slices: Vec<Arc<Slice>>,
    /// What there is of what its devices share.
    pub(super) counters: Counters,
    /// Slices for other nodes, whose devices take of the same counters.
    elsewhere: Vec<Arc<Slice>>,
    /// Places in both lists, one behind the other.
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

    fn generation(&self) -> i64 {
        self.slice.spec.pool.generation
    }

    /// Whether anything of it is for a node. Counters are for all nodes for which there may be devices that take of them.
    fn is_for(&self, node: Place<'_>) -> bool {
        let counts = self.slice.spec.shared_counters.as_ref().is_some_and(|sets| !sets.is_empty());
        match self.nodes {
            Nodes::None => false,
            _ if counts => true,
            Nodes::Each => self.each.iter().any(|nodes| nodes.has(node)),
            _ => self.nodes.has(node),
        }
    }

    /// Whether a device can be used on a node.
    pub(super) fn offers(&self, device: usize, node: Place<'_>) -> bool {
        self.nodes.has(node) && self.each.get(device).is_none_or(|nodes| nodes.has(node))
    }
}

/// What follows from the slices for a node and from all others of the pool.
enum Whole {
    /// Devices of these take of the same counters.
    With(Vec<Arc<Slice>>),
    Incomplete,
    /// There is a newer generation, without anything for the node.
    Obsolete,
}

impl Sorted {
    fn new(slices: &BTreeMap<String, Arc<ResourceSlice>>) -> Self {
        let all: Vec<_> = slices.values().map(|slice| Arc::new(Slice::new(slice))).collect();
        let (mut by_node, mut shared) = (HashMap::<String, Vec<usize>>::new(), Vec::new());
        for (at, slice) in all.iter().enumerate() {
            match &slice.nodes {
                Nodes::One(name) => by_node.entry(name.clone()).or_default().push(at),
                _ => shared.push(at),
            }
        }
        Self { all, by_node, shared }
    }

    /// The slices for a node, of their latest generation, by their places.
    fn on(&self, node: Place<'_>) -> Vec<usize> {
        let own = self.by_node.get(node.name).into_iter().flatten().copied();
        let mut places: Vec<usize> = own.chain(self.shared.iter().copied().filter(|at| self.all[*at].is_for(node))).collect();
        let latest = places.iter().map(|at| self.all[*at].generation()).max();
        places.retain(|at| Some(self.all[*at].generation()) == latest);
        places.sort_unstable();
        places
    }

    /// Whether the slices for a node are all that count. Who has another node's credentials may have written the slices that name it: they
    /// make those of this node neither older nor incomplete where these are enough without them.
    fn whole(&self, chosen: &[usize]) -> Whole {
        let Some(first) = chosen.first().map(|at| &self.all[*at]) else { return Whole::Incomplete };
        let (generation, count) = (first.generation(), first.slice.spec.pool.resource_slice_count);
        let is_all = |number: usize| i64::try_from(number).ok() == Some(count);
        if is_all(chosen.len()) {
            return Whole::With(Vec::new());
        }
        if self.shared.iter().any(|at| self.all[*at].generation() > generation) {
            return Whole::Obsolete;
        }
        let is_same = |at: &usize| self.all[*at].generation() == generation;
        let others = |places: Vec<usize>| -> Vec<Arc<Slice>> {
            places.into_iter().filter(|at| is_same(at) && !chosen.contains(at)).map(|at| self.all[at].clone()).collect()
        };
        for others in [others(self.shared.clone()), others((0..self.all.len()).collect())] {
            if is_all(chosen.len() + others.len()) {
                return Whole::With(others);
            }
        }
        Whole::Incomplete
    }
}

impl Offer {
    fn new(id: PoolId, sorted: &Sorted, chosen: &[usize]) -> Option<Self> {
        let slices: Vec<Arc<Slice>> = chosen.iter().map(|at| sorted.all[*at].clone()).collect();
        let (incomplete, elsewhere) = match sorted.whole(chosen) {
            Whole::With(elsewhere) => (false, elsewhere),
            Whole::Incomplete => (true, Vec::new()),
            Whole::Obsolete => return None,
        };
        let (mut by_name, mut counters, mut invalid) = (HashMap::new(), Counters::new(), false);
        for (at, slice) in slices.iter().enumerate() {
            for (index, device) in slice.devices().iter().enumerate() {
                invalid |= by_name.insert(device.name.clone(), (at, index)).is_some();
            }
            for set in slice.slice.spec.shared_counters.iter().flatten() {
                for (name, counter) in &set.counters {
                    let amount = Quantity::parse(&counter.value.0).unwrap_or_default();
                    invalid |= counters.insert((set.name.clone(), name.clone()), amount).is_some();
                }
            }
        }
        for (at, slice) in elsewhere.iter().enumerate() {
            for (index, device) in slice.devices().iter().enumerate() {
                by_name.entry(device.name.clone()).or_insert((slices.len() + at, index));
            }
        }
        Some(Self { id, incomplete, invalid, slices, counters, elsewhere, by_name })
    }

    /// A device by its name.
    pub(super) fn device(&self, name: &str) -> Option<&Device> {
        let (slice, device) = *self.by_name.get(name)?;
        self.slices.iter().chain(&self.elsewhere).nth(slice)?.devices().get(device)
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
            (pool.sorted, pool.offers) = (OnceCell::new(), RefCell::default());
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

    /// The pools that have something for a node, as they are there.
    pub(super) fn on(&self, node: Place<'_>) -> Vec<Arc<Offer>> {
        let own = self.by_node.get(node.name).into_iter().flatten();
        let ids: BTreeSet<&PoolId> = own.chain(&self.shared).collect();
        let offer = |id: &PoolId| {
            let pool = self.pools.get(id)?;
            let sorted = pool.sorted.get_or_init(|| Sorted::new(&pool.slices));
            let chosen = sorted.on(node);
            let mut offers = pool.offers.borrow_mut();
            if let Some(offer) = offers.get(&chosen) {
                return Some(offer.clone());
            }
            let offer = Arc::new(Offer::new(id.clone(), sorted, &chosen).filter(|_| !chosen.is_empty())?);
            offers.insert(chosen, offer.clone());
            Some(offer)
        };
        ids.into_iter().filter_map(offer).collect()
    }
}
