//! What drivers offer: ResourceSlices, put together to pools, as one node sees them ([`pods::slices`]).

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use apimachinery::quantity::Quantity;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use pods::slices::{Place, Slice, keep_latest};

use super::PoolId;

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
    sorted: OnceCell<Arc<Sorted>>,
    /// What it offers to nodes for which the same slices are, by the places of these in the list of all.
    offers: RefCell<HashMap<Vec<usize>, Arc<Offer>>>,
}

/// The slices of a pool, by where they are.
#[derive(Debug)]
struct Sorted {
    all: Vec<Arc<Slice>>,
    /// Places in the list of all, of those that name a node.
    by_node: HashMap<String, Vec<usize>>,
    /// Of the others.
    shared: Vec<usize>,
    generations: BTreeMap<i64, Generation>,
}

/// What there is of one generation of a pool.
#[derive(Debug, Default)]
struct Generation {
    all: usize,
    /// Of all, those that name no node.
    shared: usize,
    /// Devices of those, and of all, made when they are asked for first. Nodes share them: each would have all devices of the pool.
    names_of_shared: OnceLock<Names>,
    names_of_all: OnceLock<Names>,
}

/// Places of devices by name: of the slice in a list of slices, and in the slice.
type Names = HashMap<String, (usize, usize)>;

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
    by_name: Names,
    /// Slices for other nodes, whose devices take of the same counters.
    elsewhere: Elsewhere,
    generation: i64,
    sorted: Arc<Sorted>,
}

/// What follows from the slices for a node and from all others of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elsewhere {
    /// They are all that there are.
    Nothing,
    /// The pool is whole with those of the generation that name no node.
    Shared,
    /// It is whole with all of the generation.
    All,
    Incomplete,
    /// There is a newer generation, without anything for the node.
    Obsolete,
}

impl Sorted {
    fn new(slices: &BTreeMap<String, Arc<ResourceSlice>>) -> Self {
        let all: Vec<_> = slices.values().map(|slice| Arc::new(Slice::new(slice))).collect();
        let (mut by_node, mut shared) = (HashMap::<String, Vec<usize>>::new(), Vec::new());
        let mut generations = BTreeMap::<i64, Generation>::new();
        for (at, slice) in all.iter().enumerate() {
            let generation = generations.entry(slice.generation()).or_default();
            generation.all += 1;
            match slice.node() {
                Some(name) => by_node.entry(name.to_owned()).or_default().push(at),
                None => {
                    generation.shared += 1;
                    shared.push(at);
                }
            }
        }
        Self { all, by_node, shared, generations }
    }

    /// The slices for a node, of their latest generation, by their places.
    fn on(&self, node: Place<'_>) -> Vec<usize> {
        let own = self.by_node.get(node.name).into_iter().flatten().copied();
        let mut places: Vec<usize> = own.chain(self.shared.iter().copied().filter(|at| self.all[*at].is_for(node))).collect();
        keep_latest(&mut places, |at| self.all[*at].generation());
        places.sort_unstable();
        places
    }

    /// Whether the slices for a node are all that count. Who has another node's credentials may have written the slices that name it: they
    /// make those of this node neither older nor incomplete where these are enough without them.
    fn elsewhere(&self, chosen: &[usize]) -> Elsewhere {
        let Some(first) = chosen.first().map(|at| &self.all[*at]) else { return Elsewhere::Incomplete };
        let Some(generation) = self.generations.get(&first.generation()) else { return Elsewhere::Incomplete };
        let is_all = |number: usize| i64::try_from(number).ok() == Some(first.slice.spec.pool.resource_slice_count);
        let is_old = self.generations.range(first.generation()..).skip(1).any(|(_, newer)| newer.shared > 0);
        let own = chosen.iter().filter(|at| self.all[**at].node().is_some()).count();
        match () {
            () if is_all(chosen.len()) => Elsewhere::Nothing,
            () if is_old => Elsewhere::Obsolete,
            () if is_all(own + generation.shared) => Elsewhere::Shared,
            () if is_all(generation.all) => Elsewhere::All,
            () => Elsewhere::Incomplete,
        }
    }

    /// The devices of a generation by name; of two with one name the first.
    fn names(&self, number: i64, elsewhere: Elsewhere) -> Option<&Names> {
        let generation = self.generations.get(&number)?;
        let of = |places: &mut dyn Iterator<Item = usize>| {
            let mut names = Names::new();
            for at in places.filter(|at| self.all[*at].generation() == number) {
                for (index, device) in self.all[at].devices().iter().enumerate() {
                    names.entry(device.name.clone()).or_insert((at, index));
                }
            }
            names
        };
        match elsewhere {
            Elsewhere::Shared => Some(generation.names_of_shared.get_or_init(|| of(&mut self.shared.iter().copied()))),
            Elsewhere::All => Some(generation.names_of_all.get_or_init(|| of(&mut (0..self.all.len())))),
            Elsewhere::Nothing | Elsewhere::Incomplete | Elsewhere::Obsolete => None,
        }
    }
}

impl Offer {
    /// None where there is nothing for the node, or nothing that counts any more.
    fn new(id: PoolId, sorted: &Arc<Sorted>, chosen: &[usize]) -> Option<Self> {
        let slices: Vec<Arc<Slice>> = chosen.iter().map(|at| sorted.all[*at].clone()).collect();
        let generation = slices.first()?.generation();
        let elsewhere = sorted.elsewhere(chosen);
        if elsewhere == Elsewhere::Obsolete {
            return None;
        }
        let incomplete = elsewhere == Elsewhere::Incomplete;
        let (mut by_name, mut counters, mut invalid) = (Names::new(), Counters::new(), false);
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
        let sorted = sorted.clone();
        Some(Self { id, incomplete, invalid, slices, counters, by_name, elsewhere, generation, sorted })
    }

    /// Whether what is known of devices elsewhere is kept for both.
    #[cfg(test)]
    pub(super) fn shares_names_with(&self, other: &Self) -> bool {
        let names = |offer: &Self| offer.sorted.names(offer.generation, offer.elsewhere).map(std::ptr::from_ref);
        self.by_name.len() == self.slices.iter().map(|slice| slice.devices().len()).sum::<usize>() && names(self) == names(other)
    }

    /// A device by its name.
    pub(super) fn device(&self, name: &str) -> Option<&Device> {
        if let Some((slice, device)) = self.by_name.get(name) {
            return self.slices.get(*slice)?.devices().get(*device);
        }
        let (slice, device) = *self.sorted.names(self.generation, self.elsewhere)?.get(name)?;
        self.sorted.all.get(slice)?.devices().get(device)
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
            let sorted = pool.sorted.get_or_init(|| Arc::new(Sorted::new(&pool.slices)));
            let chosen = sorted.on(node);
            let mut offers = pool.offers.borrow_mut();
            if let Some(offer) = offers.get(&chosen) {
                return Some(offer.clone());
            }
            let offer = Arc::new(Offer::new(id.clone(), sorted, &chosen)?);
            offers.insert(chosen, offer.clone());
            Some(offer)
        };
        ids.into_iter().filter_map(offer).collect()
    }
}
