//! What the tables hold: what owners (features, services, pods, policies) contribute, and the changes between two states. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Family;
use super::batch::{Chain, Op, Pair, Value};
use super::claims::{Claimed, Claims, Programs, Refused, Taken, World};
use super::element::{Claim, Element, Endpoint, Key};
use super::expr::{Expr, Verdict};
use super::set::SetId;

/// What one owner contributes to the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Sets that are there as long as some owner has them.
    pub(crate) sets: Vec<(Family, SetId)>,
    /// Chains, likewise. Owners that contribute a chain of the same name mean the same chain.
    pub(crate) chains: Vec<(Family, Chain)>,
    /// Elements. Several owners may claim one place of a set.
    pub(crate) elements: Vec<Element>,
    /// Elements that all who contribute them mean alike, and of which there may be many owners.
    pub(crate) common: Vec<Element>,
    /// What the owner gets only where nobody else has the place.
    pub(crate) claimed: Vec<Claimed>,
    /// Endpoints of the owner's places that no new UDP flow is led to, and that serve those which they have.
    pub(crate) lingering: Vec<(Key, Endpoint)>,
}

impl Fragment {
    /// Adds all that another has.
    pub fn extend(&mut self, other: Self) {
        self.sets.extend(other.sets);
        self.chains.extend(other.chains);
        self.elements.extend(other.elements);
        self.common.extend(other.common);
        self.claimed.extend(other.claimed);
        self.lingering.extend(other.lingering);
    }
}

impl Fragment {
    /// The same with all that it claims, and with stand-ins for the sets and chains of others that it refers to: what the kernel refuses of it, it
    /// refuses because of the owner.
    pub(crate) fn alone(mut self) -> Self {
        self.elements.extend(std::mem::take(&mut self.claimed).into_iter().flat_map(|claimed| claimed.elements));
        let mut sets: HashSet<(Family, SetId)> = HashSet::new();
        let mut chains: HashSet<ChainId> = HashSet::new();
        let mut lead = |family, verdict: &Verdict| {
            if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict {
                chains.insert((family, chain.clone()));
            }
        };
        for Element { family, set, value, .. } in self.elements.iter().chain(&self.common) {
            sets.insert((*family, *set));
            if let Value::Verdict(verdict) = value {
                lead(*family, verdict);
            }
        }
        for (family, expr) in self.chains.iter().flat_map(|(family, chain)| chain.exprs().map(move |expr| (*family, expr))) {
            sets.extend(expr.set().map(|set| (family, set)));
            if let Expr::Verdict(verdict) = expr {
                lead(family, verdict);
            }
        }
        for id in self.chains.iter().map(|(family, chain)| (*family, chain.name.clone())) {
            chains.remove(&id);
        }
        // Sets that are its own are there once all the same.
        self.sets.extend(sets);
        self.chains.extend(chains.into_iter().map(|(family, name)| (family, Chain::regular(name, Vec::new()))));
        self
    }
}

impl From<Vec<Claimed>> for Fragment {
    fn from(claimed: Vec<Claimed>) -> Self {
        Self { claimed, ..Self::default() }
    }
}

impl From<Vec<Element>> for Fragment {
    fn from(elements: Vec<Element>) -> Self {
        Self { elements, ..Self::default() }
    }
}

/// An owner with what it contributes from now on. Nothing removes the owner.
pub type Change = (String, Fragment);

type Place = (Family, SetId, Box<[u8]>);
type ChainId = (Family, String);

/// A claim of a place. The best right has the place; of equal rights the one that came first.
#[derive(Debug)]
struct Held {
    claim: Claim,
    owner: Arc<str>,
    value: Value,
}

#[derive(Debug, Default)]
struct Owned {
    places: Vec<Place>,
    chains: Vec<ChainId>,
    sets: Vec<(Family, SetId)>,
    common: Vec<Place>,
}

impl Owned {
    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.chains.is_empty() && self.sets.is_empty() && self.common.is_empty()
    }
}

/// Something with the number of its owners.
#[derive(Debug)]
struct Shared<T> {
    owners: usize,
    what: T,
}

impl<T> Shared<T> {
    fn new(what: T) -> Self {
        Self { owners: 0, what }
    }
}

/// The wanted contents of all tables.
#[derive(Debug, Default)]
pub struct Contents {
    places: HashMap<Place, Vec<Held>>,
    common: HashMap<Place, Shared<Value>>,
    chains: HashMap<ChainId, Shared<Chain>>,
    sets: HashMap<(Family, SetId), Shared<()>>,
    owners: HashMap<Arc<str>, Owned>,
    claims: Claims,
    /// By owner.
    lingering: HashMap<Arc<str>, Vec<(Key, Endpoint)>>,
    /// Places of which such endpoints are gone.
    left: HashSet<Key>,
}

/// What was there before a change, of everything that it touched.
#[derive(Default)]
struct Before {
    places: HashMap<Place, Option<Value>>,
    chains: HashMap<ChainId, Option<Chain>>,
    sets: HashMap<(Family, SetId), bool>,
}

impl Before {
    /// What owners had, with the chains as they were.
    fn with_chains(mut self, displaced: Vec<(Arc<str>, Fragment, Vec<ChainId>)>) -> Vec<Change> {
        let mut uses: HashMap<ChainId, usize> = HashMap::new();
        for id in displaced.iter().flat_map(|(.., chains)| chains) {
            *uses.entry(id.clone()).or_default() += 1;
        }
        let mut chain = |id: ChainId| {
            let uses = uses.get_mut(&id)?;
            *uses -= 1;
            let chain = if *uses == 0 { self.chains.remove(&id)? } else { self.chains.get(&id)?.clone() };
            Some((id.0, chain?))
        };
        let mut whole = |(owner, fragment, chains): (Arc<str>, Fragment, Vec<ChainId>)| {
            let chains = chains.into_iter().filter_map(&mut chain).collect();
            (owner.to_string(), Fragment { chains, ..fragment })
        };
        displaced.into_iter().map(&mut whole).collect()
    }
}

/// The difference between two states of the table of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub(crate) new_sets: Vec<SetId>,
    pub(crate) gone_sets: Vec<SetId>,
    pub(crate) new_chains: Vec<Chain>,
    pub(crate) changed_chains: Vec<Chain>,
    pub(crate) gone_chains: Vec<String>,
    pub(crate) remove: BTreeMap<SetId, Vec<Box<[u8]>>>,
    pub(crate) add: BTreeMap<SetId, Vec<Pair>>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Number of element changes.
    pub fn len(&self) -> usize {
        self.remove.values().map(Vec::len).sum::<usize>() + self.add.values().map(Vec::len).sum::<usize>()
    }

    /// Takes what has to be in the kernel before a rule looks into it: of a batch, it has the ranges of a set a moment after the rules, and packets of that
    /// moment would find none.
    pub(crate) fn take_ranges(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        let mut add = |set: SetId, all: &mut BTreeMap<SetId, Vec<Pair>>| {
            ops.push(Op::NewSet(set));
            ops.extend(all.remove(&set).map(|elements| Op::Add { set, elements }));
        };
        let (ranges, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.new_sets).into_iter().partition(|set| set.kind.ranges);
        self.new_sets = others;
        ranges.into_iter().for_each(|set| add(set, &mut self.add));
        ops
    }

    /// The operations in an order in which everything that is referred to exists.
    pub(crate) fn ops(self) -> Vec<Op> {
        let mut ops = Vec::new();
        ops.extend(self.new_sets.into_iter().map(Op::NewSet));
        ops.extend(self.new_chains.iter().map(|chain| Op::NewChain { name: chain.name.clone(), hook: chain.hook }));
        ops.extend(self.remove.into_iter().map(|(set, keys)| Op::Remove { set, keys }));
        let flushed = self.changed_chains.iter().map(|chain| &chain.name).chain(&self.gone_chains);
        ops.extend(flushed.map(|name| Op::FlushChain { name: name.clone() }));
        for Chain { name, rules, .. } in self.new_chains.into_iter().chain(self.changed_chains) {
            ops.extend(rules.into_iter().map(|rule| Op::NewRule { chain: name.clone(), rule }));
        }
        ops.extend(self.add.into_iter().map(|(set, elements)| Op::Add { set, elements }));
        // Sets first: elements that lead to chains go with their sets, and keep the chains until then.
        ops.extend(self.gone_sets.into_iter().map(Op::DelSet));
        ops.extend(self.gone_chains.into_iter().map(|name| Op::DelChain { name }));
        ops
    }

    fn sort(&mut self) {
        self.new_sets.sort_unstable();
        self.gone_sets.sort_unstable();
        self.new_chains.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.changed_chains.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.gone_chains.sort_unstable();
    }
}

impl Contents {
    /// Replaces all that each owner contributes, and says what changes.
    pub fn replace(&mut self, changes: impl IntoIterator<Item = Change>, world: &World) -> BTreeMap<Family, Delta> {
        self.displace(changes, world).0
    }

    /// The same. Hands back what each owner had contributed.
    pub(crate) fn displace(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        world: &World,
    ) -> (BTreeMap<Family, Delta>, Vec<Change>) {
        let mut before = Before::default();
        let mut displaced = Vec::new();
        let mut ports = HashSet::new();
        let mut claimants = BTreeSet::new();
        for (owner, mut fragment) in changes {
            let owner: Arc<str> = owner.into();
            let (touched, claimed) = self.claims.set(&owner, std::mem::take(&mut fragment.claimed));
            ports.extend(touched);
            let lingering = self.linger(&owner, std::mem::take(&mut fragment.lingering));
            let (others, chains) = self.contribute(&owner, fragment, &mut before);
            // Of an owner that is there twice, what it had at first.
            if claimants.insert(owner.clone()) {
                displaced.push((owner, Fragment { claimed, lingering, ..others }, chains));
            }
        }
        claimants.extend(self.claims.decide(&ports, world));
        self.grant(&claimants, &mut before);
        let deltas = self.differences(&mut before);
        (deltas, before.with_chains(displaced))
    }

    /// Decides anew who has the ports of programs of the host. Returns what changes, and the owners whose claims are there.
    pub(crate) fn look_again(&mut self, world: &World) -> (BTreeMap<Family, Delta>, BTreeSet<Arc<str>>) {
        let mut before = Before::default();
        let ports = self.claims.programs().clone();
        let claimants = self.claims.decide(&ports, world);
        self.grant(&claimants, &mut before);
        (self.differences(&mut before), claimants)
    }

    /// Whether somebody waits for a program of the host to end.
    pub(crate) fn waits_for_programs(&self) -> bool {
        !self.claims.programs().is_empty()
    }

    fn grant(&mut self, claimants: &BTreeSet<Arc<str>>, before: &mut Before) {
        for owner in claimants {
            let granted = self.claims.granted(owner);
            self.contribute(&format!("{owner} (claims)").into(), granted.into(), before);
        }
    }

    /// The places that an owner claims and has not got.
    pub fn refused(&self, owner: &str) -> Vec<Refused> {
        self.claims.refused(owner)
    }

    /// Who keeps a load balancer from a place.
    pub(crate) fn lost(&self, owner: &str, key: Key, programs: &Programs, world: &World) -> Option<Taken> {
        self.claims.lost(owner, key, programs, world)
    }

    /// The places of which lingering endpoints are gone since the last call.
    pub(super) fn take_left(&mut self) -> HashSet<Key> {
        std::mem::take(&mut self.left)
    }

    /// The keys of all sets, but for what owners have in common.
    pub(super) fn keys(&self) -> impl Iterator<Item = (Family, SetId, &[u8])> {
        self.places.keys().map(|(family, set, key)| (*family, *set, &**key))
    }

    /// Endpoints that no new UDP flow is led to, and that serve those which they have.
    pub(super) fn lingering(&self) -> impl Iterator<Item = (Key, Endpoint)> {
        self.lingering.values().flatten().copied()
    }

    /// What a set of the table that addresses like this one are in has at a key.
    pub(super) fn value(&self, set: SetId, address: IpAddr, key: &[u8]) -> Option<&Value> {
        self.places.get(&(Family::of(address), set, key.into()))?.first().map(|held| &held.value)
    }

    fn linger(&mut self, owner: &Arc<str>, endpoints: Vec<(Key, Endpoint)>) -> Vec<(Key, Endpoint)> {
        let old = self.lingering.remove(owner).unwrap_or_default();
        let kept: HashSet<_> = endpoints.iter().collect();
        self.left.extend(old.iter().filter(|one| !kept.contains(one)).map(|(key, _)| *key));
        if !endpoints.is_empty() {
            self.lingering.insert(owner.clone(), endpoints);
        }
        old
    }

    /// What an owner contributes.
    pub(crate) fn fragment_of(&self, owner: &str) -> Fragment {
        let none = Owned::default();
        let owned = self.owners.get(owner).unwrap_or(&none);
        let element = |place: &Place, value: &Value, claim| {
            let (family, set, key) = place.clone();
            Element { family, set, key, value: value.clone(), claim }
        };
        let own = |place| {
            let held = self.places.get(place)?.iter().find(|held| &*held.owner == owner)?;
            Some(element(place, &held.value, held.claim))
        };
        let common = |place| Some(element(place, &self.common.get(place)?.what, Claim::default()));
        let chain = |id: &ChainId| Some((id.0, self.chains.get(id)?.what.clone()));
        Fragment {
            sets: owned.sets.clone(),
            chains: owned.chains.iter().filter_map(chain).collect(),
            elements: owned.places.iter().filter_map(own).collect(),
            common: owned.common.iter().filter_map(common).collect(),
            claimed: self.claims.claimed(owner),
            lingering: self.lingering.get(owner).cloned().unwrap_or_default(),
        }
    }

    /// Whether changes are about claims.
    pub fn has_claims(&self, changes: &[Change]) -> bool {
        changes.iter().any(|(owner, fragment)| !fragment.claimed.is_empty() || self.claims.has(owner))
    }

    /// Replaces what an owner contributes without claims. Hands back what it had, of chains which.
    fn contribute(&mut self, owner: &Arc<str>, fragment: Fragment, before: &mut Before) -> (Fragment, Vec<ChainId>) {
        let old = self.owners.remove(owner).unwrap_or_default();
        let (places, elements) = self.claim(owner, fragment.elements, before);
        let mut displaced = Fragment { elements, ..Fragment::default() };
        let new = Owned {
            places,
            chains: self.share(fragment.chains, before),
            sets: self.need(fragment.sets, before),
            common: self.hold_in_common(fragment.common, before),
        };
        let chains = self.leave(owner, old, &new, before, &mut displaced);
        if !new.is_empty() {
            self.owners.insert(owner.clone(), new);
        }
        (displaced, chains)
    }

    /// The change from empty tables to this state.
    pub fn everything(&self) -> BTreeMap<Family, Delta> {
        let mut deltas: BTreeMap<Family, Delta> = BTreeMap::new();
        for (family, set) in self.sets.keys() {
            deltas.entry(*family).or_default().new_sets.push(*set);
        }
        for ((family, _), shared) in &self.chains {
            deltas.entry(*family).or_default().new_chains.push(shared.what.clone());
        }
        for (family, set, key) in self.places.keys().chain(self.common.keys()) {
            if let Some(value) = self.winner(&(*family, *set, key.clone())) {
                deltas.entry(*family).or_default().add.entry(*set).or_default().push((key.clone(), value));
            }
        }
        deltas.values_mut().for_each(Delta::sort);
        deltas
    }

    /// Number of elements in the sets.
    pub fn len(&self) -> usize {
        self.places.len() + self.common.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn winner(&self, place: &Place) -> Option<Value> {
        let held = self.places.get(place).and_then(|all| all.first()).map(|held| &held.value);
        held.or_else(|| self.common.get(place).map(|shared| &shared.what)).cloned()
    }

    /// Claims the places of elements; an owner keeps its turn where it had the place by the same right. Hands back what the owner had there.
    fn claim(&mut self, owner: &Arc<str>, elements: Vec<Element>, before: &mut Before) -> (Vec<Place>, Vec<Element>) {
        let mut places = HashSet::with_capacity(elements.len());
        let mut displaced = Vec::new();
        for Element { family, set, key, value, claim } in elements {
            let place = (family, set, key);
            self.touch(&place, before);
            let all = self.places.entry(place.clone()).or_default();
            let at = all.iter().position(|held| held.owner == *owner);
            let old = match at.and_then(|at| all.get_mut(at)).filter(|held| held.claim == claim) {
                Some(held) => Some((std::mem::replace(&mut held.value, value), claim)),
                None => {
                    let old = at.map(|at| all.remove(at));
                    let at = all.partition_point(|held| held.claim <= claim);
                    all.insert(at, Held { claim, owner: owner.clone(), value });
                    old.map(|held| (held.value, held.claim))
                }
            };
            // A second element of a place displaces the first, which was not there before.
            if let Some((value, claim)) = old.filter(|_| !places.contains(&place)) {
                displaced.push(Element { family, set, key: place.2.clone(), value, claim });
            }
            places.insert(place);
        }
        (places.into_iter().collect(), displaced)
    }

    fn share(&mut self, chains: Vec<(Family, Chain)>, before: &mut Before) -> Vec<ChainId> {
        let mut ids = HashSet::with_capacity(chains.len());
        for (family, chain) in chains {
            let id = (family, chain.name.clone());
            let old = self.chains.get(&id).map(|shared| &shared.what);
            before.chains.entry(id.clone()).or_insert_with(|| old.cloned());
            let first = ids.insert(id.clone());
            let shared = self.chains.entry(id).or_insert_with(|| Shared::new(chain.clone()));
            shared.owners += usize::from(first);
            shared.what = chain;
        }
        ids.into_iter().collect()
    }

    fn need(&mut self, sets: Vec<(Family, SetId)>, before: &mut Before) -> Vec<(Family, SetId)> {
        let sets: HashSet<_> = sets.into_iter().collect();
        for set in &sets {
            let shared = self.sets.entry(*set).or_insert_with(|| Shared::new(()));
            before.sets.entry(*set).or_insert(shared.owners > 0);
            shared.owners += 1;
        }
        sets.into_iter().collect()
    }

    fn hold_in_common(&mut self, elements: Vec<Element>, before: &mut Before) -> Vec<Place> {
        let mut places = HashSet::with_capacity(elements.len());
        for Element { family, set, key, value, .. } in elements {
            let place = (family, set, key);
            self.touch(&place, before);
            let first = places.insert(place.clone());
            let shared = self.common.entry(place).or_insert_with(|| Shared::new(value));
            shared.owners += usize::from(first);
        }
        places.into_iter().collect()
    }

    /// Notes what a place holds before it changes.
    fn touch(&self, place: &Place, before: &mut Before) {
        if !before.places.contains_key(place) {
            before.places.insert(place.clone(), self.winner(place));
        }
    }

    /// Gives up what the owner had and has no more. Hands back what it had but for what it has replaced already, of chains which.
    fn leave(
        &mut self,
        owner: &Arc<str>,
        old: Owned,
        new: &Owned,
        before: &mut Before,
        displaced: &mut Fragment,
    ) -> Vec<ChainId> {
        let kept: HashSet<&Place> = new.places.iter().collect();
        for place in old.places.into_iter().filter(|place| !kept.contains(place)) {
            self.touch(&place, before);
            let Some(all) = self.places.get_mut(&place) else { continue };
            let held = all.iter().position(|held| held.owner == *owner).map(|at| all.remove(at));
            if all.is_empty() {
                self.places.remove(&place);
            }
            let (family, set, key) = place;
            displaced.elements.extend(held.map(|Held { value, claim, .. }| Element { family, set, key, value, claim }));
        }
        for id in &old.chains {
            let Some(shared) = self.chains.get_mut(id) else { continue };
            before.chains.entry(id.clone()).or_insert_with(|| Some(shared.what.clone()));
            shared.owners -= 1;
            if shared.owners == 0 {
                self.chains.remove(id);
            }
        }
        for set in &old.sets {
            let Some(shared) = self.sets.get_mut(set) else { continue };
            before.sets.entry(*set).or_insert(true);
            shared.owners -= 1;
            if shared.owners == 0 {
                self.sets.remove(set);
            }
        }
        displaced.sets = old.sets;
        for place in old.common {
            self.touch(&place, before);
            let Some(shared) = self.common.get_mut(&place) else { continue };
            shared.owners -= 1;
            let value = match shared.owners {
                0 => self.common.remove(&place).map(|shared| shared.what),
                _ => Some(shared.what.clone()),
            };
            let (family, set, key) = place;
            displaced.common.extend(value.map(|value| Element { family, set, key, value, claim: Claim::default() }));
        }
        old.chains
    }

    fn differences(&self, before: &mut Before) -> BTreeMap<Family, Delta> {
        let mut deltas: BTreeMap<Family, Delta> = BTreeMap::new();
        for ((family, set), was) in std::mem::take(&mut before.sets) {
            let is = self.sets.contains_key(&(family, set));
            match (was, is) {
                (false, true) => deltas.entry(family).or_default().new_sets.push(set),
                (true, false) => deltas.entry(family).or_default().gone_sets.push(set),
                _ => (),
            }
        }
        for (id, old) in &before.chains {
            let new = self.chains.get(id).map(|shared| &shared.what);
            match (old, new) {
                (None, Some(new)) => deltas.entry(id.0).or_default().new_chains.push(new.clone()),
                (Some(old), Some(new)) if old != new => deltas.entry(id.0).or_default().changed_chains.push(new.clone()),
                (Some(_), None) => deltas.entry(id.0).or_default().gone_chains.push(id.1.clone()),
                _ => (),
            }
        }
        for (place, old) in std::mem::take(&mut before.places) {
            let new = self.winner(&place);
            let (family, set, key) = place;
            // The elements of a set go with it.
            let stays = self.sets.contains_key(&(family, set));
            if old == new || !stays {
                continue;
            }
            let delta = deltas.entry(family).or_default();
            if old.is_some() {
                delta.remove.entry(set).or_default().push(key.clone());
            }
            if let Some(value) = new {
                delta.add.entry(set).or_default().push((key, value));
            }
        }
        deltas.values_mut().for_each(Delta::sort);
        deltas
    }
}

#[cfg(test)]
mod tests;
