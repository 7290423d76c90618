//! Which devices claims get on a node: the first that fit, tried in order, with a way back from choices that leave nothing for what comes after.
//!
//! Devices of one request are tried in rising order only, for in which order it gets them makes no difference. The work is bounded all the
//! same ([`Effort`]): where devices are alike, a constraint that no choice meets would be found out after all choices only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::resource::v1::{AllocationResult, Device};

use super::constraints::Constraint;
use super::effort::Effort;
use super::ledger::Ledger;
use super::pools::{Counters, Offer};
use super::result::{self, Given};
use super::wanted::{Request, Wanted};
use crate::volumes::Place as On;

/// Most devices of one claim (`AllocationResultsMaxSize`).
const RESULTS: usize = 32;

/// A device: places in the lists of pools, slices and devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Place {
    pool: usize,
    slice: usize,
    device: usize,
}

/// A device that was chosen, for the request and the alternative of these numbers.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    request: usize,
    alternative: usize,
    place: Place,
}

/// Why a search ends before its time.
enum Stop {
    GaveUp,
    Failed(String),
}

pub(super) struct Search<'a> {
    wanted: &'a [Wanted],
    offers: &'a [Arc<Offer>],
    ledger: &'a Ledger,
    node: On<'a>,
    effort: &'a Effort,
    tries: usize,
    /// Devices that a request can have, by the numbers of claim, request and alternative.
    candidates: HashMap<(usize, usize, usize), Arc<Vec<Place>>>,
    constraints: Vec<Vec<Constraint<'a>>>,
    /// Devices that have been chosen for anybody but administrators.
    taken: HashSet<Place>,
    /// What is left of counters, of pools that were asked for it.
    left: HashMap<usize, Counters>,
    chosen: Vec<Vec<Chosen>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        wanted: &'a [Wanted],
        offers: &'a [Arc<Offer>],
        ledger: &'a Ledger,
        node: On<'a>,
        effort: &'a Effort,
    ) -> Self {
        let constraints = |wanted: &'a Wanted| {
            let all = wanted.claim.spec.devices.iter().flat_map(|devices| devices.constraints.iter().flatten());
            all.filter_map(Constraint::new).collect()
        };
        Self {
            wanted,
            offers,
            ledger,
            node,
            effort,
            tries: 0,
            candidates: HashMap::new(),
            constraints: wanted.iter().map(constraints).collect(),
            taken: HashSet::new(),
            left: HashMap::new(),
            chosen: wanted.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// What is written into each claim, or why the node will not do.
    pub(super) fn run(mut self) -> Result<Vec<AllocationResult>, String> {
        match self.request(0, 0) {
            Ok(true) => Ok(self.results()),
            Ok(false) if self.offers.iter().any(|offer| offer.invalid) => {
                Err("cannot allocate all claims: invalid resource pools were encountered".to_owned())
            }
            Ok(false) => Err("cannot allocate all claims".to_owned()),
            Err(Stop::GaveUp) => Err(format!("cannot allocate all claims: given up after trying {} devices", self.tries)),
            Err(Stop::Failed(why)) => Err(why),
        }
    }

    /// Finds devices for a request of a claim and for all that come after it.
    fn request(&mut self, claim: usize, request: usize) -> Result<bool, Stop> {
        let wanted = self.wanted;
        let Some(here) = wanted.get(claim) else { return Ok(true) };
        let Some(alternatives) = here.requests.get(request) else { return self.request(claim + 1, 0) };
        for (alternative, form) in alternatives.iter().enumerate() {
            let candidates = self.candidates((claim, request, alternative), form)?;
            let count = form.count.unwrap_or(candidates.len());
            // All of none is none that could be used.
            let enough = count <= candidates.len() && (form.count.is_some() || count > 0);
            if enough
                && self.chosen[claim].len() + count <= RESULTS
                && self.device((claim, request, alternative), &candidates, count)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds `count` devices of `candidates` and all that comes after them.
    fn device(&mut self, at: (usize, usize, usize), candidates: &[Place], count: usize) -> Result<bool, Stop> {
        let (claim, request, alternative) = at;
        if count == 0 {
            return self.request(claim, request + 1);
        }
        let form = &self.wanted[claim].requests[request][alternative];
        for (index, place) in candidates.iter().enumerate() {
            if candidates.len() - index < count {
                break;
            }
            self.try_one()?;
            if self.take(claim, form, *place) {
                self.chosen[claim].push(Chosen { request, alternative, place: *place });
                if self.device(at, &candidates[index + 1..], count - 1)? {
                    return Ok(true);
                }
                self.chosen[claim].pop();
                self.give_back(claim, form, *place);
            }
            if form.count.is_none() {
                // All are needed: without this one there is no way.
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn try_one(&mut self) -> Result<(), Stop> {
        self.tries += 1;
        if self.effort.spend_try(self.tries) { Ok(()) } else { Err(Stop::GaveUp) }
    }

    /// The devices on this node that a request selects and that nobody has yet.
    fn candidates(&mut self, at: (usize, usize, usize), form: &Request) -> Result<Arc<Vec<Place>>, Stop> {
        if let Some(known) = self.candidates.get(&at) {
            return Ok(known.clone());
        }
        let mut found = Vec::new();
        for (pool, offer) in self.offers.iter().enumerate() {
            if offer.incomplete || offer.invalid {
                if form.count.is_none() {
                    let why = if offer.incomplete { "being updated" } else { "invalid" };
                    let (id, claim) = (&offer.id, client::Key::of(self.wanted[at.0].claim.as_ref()));
                    let text = format!("asks for all devices, but resource pool {id} is currently {why}");
                    return Err(Stop::Failed(format!("claim {claim}, request {}: {text}", form.name)));
                }
                continue;
            }
            self.of_pool(pool, offer, form, &mut found)?;
        }
        let found = Arc::new(found);
        self.candidates.insert(at, found.clone());
        Ok(found)
    }

    fn of_pool(&self, pool: usize, offer: &Offer, form: &Request, found: &mut Vec<Place>) -> Result<(), Stop> {
        for (slice, offered) in offer.slices.iter().enumerate() {
            for (device, one) in offered.devices().iter().enumerate() {
                // Of all devices those are part that somebody has: they keep the request from being met.
                let free = form.admin || form.count.is_none() || !self.ledger.has(&offer.id, &one.name);
                if free
                    && is_known(one)
                    && offered.offers(device, self.node)
                    && form.selects(&offer.id.driver, one, self.effort).map_err(Stop::Failed)?
                {
                    found.push(Place { pool, slice, device });
                }
            }
        }
        Ok(())
    }

    /// What is written into each claim.
    fn results(&self) -> Vec<AllocationResult> {
        let all = self.wanted.iter().zip(&self.chosen);
        all.map(|(wanted, chosen)| {
            let given = chosen.iter().map(|one| {
                let offer = &self.offers[one.place.pool];
                let slice = &offer.slices[one.place.slice];
                let form = &wanted.requests[one.request][one.alternative];
                Given { form, pool: &offer.id, slice: &slice.slice, device: &slice.devices()[one.place.device] }
            });
            result::of(wanted, &given.collect::<Vec<_>>())
        })
        .collect()
    }

    /// Takes a device for a request, unless somebody has it, it lacks what is shared, or a constraint forbids it.
    fn take(&mut self, claim: usize, form: &Request, place: Place) -> bool {
        let offers = self.offers;
        let offer = &offers[place.pool];
        let device = &offer.slices[place.slice].devices()[place.device];
        let here = self.chosen[claim].iter().any(|chosen| chosen.place == place);
        let used = self.taken.contains(&place) || self.ledger.has(&offer.id, &device.name);
        if here || used && !form.admin || !form.tolerates(device) {
            return false;
        }
        if !form.admin && !self.has_counters(place.pool, device) {
            return false;
        }
        let constraints = &mut self.constraints[claim];
        for index in 0..constraints.len() {
            if !constraints[index].add(&form.name, &offer.id.driver, device) {
                constraints[..index].iter_mut().for_each(|constraint| constraint.remove(&form.name));
                return false;
            }
        }
        if !form.admin {
            self.taken.insert(place);
            self.count(place.pool, device, true);
        }
        true
    }

    fn give_back(&mut self, claim: usize, form: &Request, place: Place) {
        let offers = self.offers;
        let device = &offers[place.pool].slices[place.slice].devices()[place.device];
        self.constraints[claim].iter_mut().for_each(|constraint| constraint.remove(&form.name));
        if !form.admin {
            self.taken.remove(&place);
            self.count(place.pool, device, false);
        }
    }

    /// Whether there is enough left of what the device shares with others of its pool (KEP-4815).
    fn has_counters(&mut self, pool: usize, device: &Device) -> bool {
        if device.consumes_counters.is_none() {
            return true;
        }
        let (offer, ledger) = (&self.offers[pool], self.ledger);
        let left = self.left.entry(pool).or_insert_with(|| {
            let mut left = offer.counters.clone();
            for used in ledger.of(&offer.id).filter_map(|name| offer.device(name)).flat_map(consumed) {
                if let Some(amount) = left.get_mut(&used.0) {
                    *amount -= used.1;
                }
            }
            left
        });
        consumed(device).all(|(counter, amount)| left.get(&counter).is_some_and(|left| *left >= amount))
    }

    fn count(&mut self, pool: usize, device: &Device, takes: bool) {
        let Some(left) = self.left.get_mut(&pool) else { return };
        for (counter, amount) in consumed(device) {
            if let Some(left) = left.get_mut(&counter) {
                *left = if takes { *left - amount } else { *left + amount };
            }
        }
    }
}

/// Devices that wait for conditions before their pod is bound, and devices that are given to several claims, are not allocated.
fn is_known(device: &Device) -> bool {
    device.binding_conditions.iter().flatten().next().is_none() && device.allow_multiple_allocations != Some(true)
}

/// What a device takes of the counters of its pool.
fn consumed(device: &Device) -> impl Iterator<Item = ((String, String), Quantity)> {
    device.consumes_counters.iter().flatten().flat_map(|set| {
        let of = |name: &String| (set.counter_set.clone(), name.clone());
        set.counters.iter().map(move |(name, counter)| (of(name), Quantity::parse(&counter.value.0).unwrap_or_default()))
    })
}
