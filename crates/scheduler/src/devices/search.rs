//! Which devices claims get on a node: the first that fit, tried in order, with a way back from choices that leave nothing for what comes after.
//!
//! Devices of one request are tried in rising order only, for in which order it gets them makes no difference. The work is bounded all the
//! same ([`Effort`]): where devices are alike, a constraint that no choice meets would be found out after all choices only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::resource::v1::{AllocationResult, Device};
use pods::slices::Place as On;

use super::constraints::Constraint;
use super::effort::Effort;
use super::ledger::Ledger;
use super::pools::{Counters, Offer};
use super::result::{self, Given};
use super::shares::{self, Amounts, Part, is_shared};
use super::wanted::{Request, Wanted};

/// Most devices of one claim (`AllocationResultsMaxSize`).
pub(super) const RESULTS: usize = 32;

/// Most alternatives of one request (`FirstAvailableDeviceRequestMaxSize`).
const ALTERNATIVES: usize = 8;

/// A device: places in the lists of pools, slices and devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Place {
    pool: usize,
    slice: usize,
    device: usize,
}

/// A device that was chosen, for the request and the alternative of these numbers.
#[derive(Debug)]
struct Chosen {
    request: usize,
    alternative: usize,
    place: Place,
    part: Part,
}

/// What a search has found on a node: for each claim the devices that it gets.
///
/// It is no more than that, since it is kept of many nodes: what is written into claims may be large, by what they have their drivers told.
#[derive(Debug, Default)]
pub(crate) struct Found(Vec<Vec<Chosen>>);

impl Found {
    /// How many devices these are.
    pub(crate) fn devices(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// How much the claims prefer what they get: each request with alternatives adds the more, the earlier in its list the one is that it gets
    /// (KEP-4816; upstream's `computeScore`).
    pub(super) fn preference(&self, wanted: &[Wanted]) -> i64 {
        let of = |(chosen, wanted): (&Vec<Chosen>, &Wanted)| {
            let listed = chosen.iter().filter(|one| wanted.has_alternatives(one.request));
            let given: BTreeMap<usize, usize> = listed.map(|one| (one.request, one.alternative)).collect();
            given.into_values().map(|alternative| ALTERNATIVES.saturating_sub(alternative)).sum::<usize>()
        };
        self.0.iter().zip(wanted).map(of).sum::<usize>().try_into().unwrap_or(i64::MAX)
    }

    /// What is written into each claim, of the same claims and offers.
    pub(super) fn results(&self, wanted: &[&Wanted], offers: &[Arc<Offer>], node: &str) -> Vec<AllocationResult> {
        let all = wanted.iter().zip(&self.0);
        all.map(|(wanted, chosen)| {
            let given = chosen.iter().map(|one| {
                let offer = &offers[one.place.pool];
                let slice = &offer.slices[one.place.slice];
                let form = &wanted.requests[one.request][one.alternative];
                let device = &slice.devices()[one.place.device];
                Given { form, pool: &offer.id, slice: &slice.slice, device, part: &one.part }
            });
            result::of(wanted, &given.collect::<Vec<_>>(), node)
        })
        .collect()
    }
}

/// Why a search ends before its time.
enum Stop {
    GaveUp,
    Failed(String),
}

/// A choice that is to be made.
enum Step {
    /// Of an alternative, `next` on, for a request of a claim.
    Request {
        claim: usize,
        request: usize,
        next: usize,
    },
    Device(DeviceStep),
}

/// The choice of a device.
#[derive(Clone)]
struct DeviceStep {
    /// The numbers of claim, request and alternative.
    at: (usize, usize, usize),
    candidates: Arc<Vec<Place>>,
    /// The last of them that can be shared.
    last_shared: Option<usize>,
    /// The candidate that is tried next.
    index: usize,
    /// How many devices are missing, with this one.
    count: usize,
    /// Whether one is chosen, which is given back when the search comes back.
    has_one: bool,
}

/// How the search goes on.
enum Way {
    /// To the choice before: there is nothing more to try here.
    Back,
    /// To another choice.
    On(Step),
    /// All is chosen.
    Done,
}

pub(super) struct Search<'a> {
    wanted: &'a [&'a Wanted],
    offers: &'a [Arc<Offer>],
    ledger: &'a Ledger,
    node: On<'a>,
    effort: &'a Effort,
    tries: usize,
    /// Devices that a request can have, by the numbers of claim, request and alternative.
    candidates: HashMap<(usize, usize, usize), Arc<Vec<Place>>>,
    constraints: Vec<Vec<Constraint<'a>>>,
    /// Devices that have been chosen for one request alone.
    taken: HashSet<Place>,
    /// How many shares of a device have been chosen, and what they take of its capacity.
    shares: HashMap<Place, (usize, Amounts)>,
    /// What is left of counters, of pools that were asked for it.
    left: HashMap<usize, Counters>,
    chosen: Vec<Vec<Chosen>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        wanted: &'a [&'a Wanted],
        offers: &'a [Arc<Offer>],
        ledger: &'a Ledger,
        node: On<'a>,
        effort: &'a Effort,
    ) -> Self {
        let constraints = |wanted: &&'a Wanted| {
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
            shares: HashMap::new(),
            left: HashMap::new(),
            chosen: wanted.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// Devices for each claim, or why the node will not do.
    pub(super) fn run(mut self) -> Result<Found, String> {
        match self.all() {
            Ok(true) => Ok(Found(self.chosen)),
            Ok(false) if self.offers.iter().any(|offer| offer.invalid) => {
                Err("cannot allocate all claims: invalid resource pools were encountered".to_owned())
            }
            Ok(false) => Err("cannot allocate all claims".to_owned()),
            Err(Stop::GaveUp) => Err(format!("cannot allocate all claims: given up after trying {} devices", self.tries)),
            Err(Stop::Failed(why)) => Err(why),
        }
    }

    /// Finds devices for all requests, one after the other; where nothing is left for one, other choices are made for those before it.
    ///
    /// The choices are a list and no recursion: there are as many as devices, of which a pod may ask for more than a thread's stack has room for.
    fn all(&mut self) -> Result<bool, Stop> {
        (0..self.wanted.len()).try_for_each(|claim| self.bounded(claim))?;
        let Some(first) = self.request_from(0, 0) else { return Ok(true) };
        let mut stack = vec![first];
        while let Some(mut step) = stack.pop() {
            match self.advance(&mut step)? {
                Way::Back => {}
                Way::On(next) => stack.extend([step, next]),
                Way::Done => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Refuses a claim that gets more devices than claims may have, whatever is chosen: searching would only find that there is no way, and not
    /// why.
    fn bounded(&mut self, claim: usize) -> Result<(), Stop> {
        let (wanted, mut least) = (self.wanted, 0_usize);
        for (request, forms) in wanted[claim].requests.iter().enumerate() {
            let of_request = match forms.as_slice() {
                [form] if form.count.is_none() => self.candidates((claim, request, 0), form)?.len(),
                forms => forms.iter().map(|form| form.count.unwrap_or(1)).min().unwrap_or_default(),
            };
            least = of_request.saturating_add(least);
        }
        if least <= RESULTS {
            return Ok(());
        }
        let claim = client::Key::of(wanted[claim].claim.as_ref());
        Err(Stop::Failed(format!("claim {claim}: number of requested devices {least} exceeds the claim limit of {RESULTS}")))
    }

    /// The choice of an alternative for a request or, if the claim has no more of them, the next claim's; none after the last.
    fn request_from(&self, mut claim: usize, mut request: usize) -> Option<Step> {
        while self.wanted.get(claim)?.requests.len() <= request {
            (claim, request) = (claim + 1, 0);
        }
        Some(Step::Request { claim, request, next: 0 })
    }

    fn after(&self, (claim, request, _): (usize, usize, usize)) -> Way {
        self.request_from(claim, request + 1).map_or(Way::Done, Way::On)
    }

    /// Makes the next choice of a step, after what followed from the one before has failed.
    fn advance(&mut self, step: &mut Step) -> Result<Way, Stop> {
        match step {
            Step::Request { claim, request, next } => self.alternative((*claim, *request), next),
            Step::Device(step) => self.device(step),
        }
    }

    /// The next alternative of a request.
    fn alternative(&mut self, (claim, request): (usize, usize), next: &mut usize) -> Result<Way, Stop> {
        let wanted = self.wanted;
        while let Some(form) = wanted[claim].requests[request].get(*next) {
            let at = (claim, request, *next);
            *next += 1;
            let candidates = self.candidates(at, form)?;
            let count = form.count.unwrap_or(candidates.len());
            // All of none is none that could be used. Of a device that is shared a request may have several shares.
            let last_shared = candidates.iter().rposition(|place| is_shared(self.at(*place)));
            let shared = form.count.is_some() && last_shared.is_some();
            let enough = (count <= candidates.len() || shared) && (form.count.is_some() || count > 0);
            if enough && self.chosen[claim].len() + count <= RESULTS {
                let first = DeviceStep { at, candidates, last_shared, index: 0, count, has_one: false };
                return Ok(if count == 0 { self.after(at) } else { Way::On(Step::Device(first)) });
            }
        }
        Ok(Way::Back)
    }

    /// The next device for a place of a request.
    fn device(&mut self, step: &mut DeviceStep) -> Result<Way, Stop> {
        let (claim, request, alternative) = step.at;
        let form = &self.wanted[claim].requests[request][alternative];
        if std::mem::take(&mut step.has_one) {
            if let Some(chosen) = self.chosen[claim].pop() {
                self.give_back(claim, form, &chosen);
            }
            if form.count.is_none() {
                // All are needed: without this one there is no way.
                return Ok(Way::Back);
            }
        }
        while let Some(place) = step.candidates.get(step.index).copied() {
            let index = step.index;
            if step.candidates.len() - index < step.count && step.last_shared.is_none_or(|last| last < index) {
                break;
            }
            step.index += 1;
            self.try_one()?;
            if let Some(part) = self.take(claim, form, place) {
                let again = form.count.is_some() && matches!(part, Part::Share(_));
                self.chosen[claim].push(Chosen { request, alternative, place, part });
                step.has_one = true;
                let next = DeviceStep {
                    index: if again { index } else { index + 1 },
                    count: step.count - 1,
                    has_one: false,
                    ..step.clone()
                };
                return Ok(if next.count == 0 { self.after(step.at) } else { Way::On(Step::Device(next)) });
            }
            if form.count.is_none() {
                break;
            }
        }
        Ok(Way::Back)
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
        // Devices for which nobody has to wait come first.
        found.sort_by_key(|place| self.at(*place).binding_conditions.iter().flatten().next().is_some());
        let found = Arc::new(found);
        self.candidates.insert(at, found.clone());
        Ok(found)
    }

    fn of_pool(&self, pool: usize, offer: &Offer, form: &Request, found: &mut Vec<Place>) -> Result<(), Stop> {
        for (slice, offered) in offer.slices.iter().enumerate() {
            for (device, one) in offered.devices().iter().enumerate() {
                // Of all devices those are part that somebody has: they keep the request from being met.
                let taken = if is_shared(one) {
                    self.ledger.has_whole(&offer.id, &one.name)
                } else {
                    self.ledger.has(&offer.id, &one.name)
                };
                let free = form.admin || form.count.is_none() || !taken;
                if free
                    && offered.offers(device, self.node)
                    && form.selects(&offer.id.driver, one, self.effort).map_err(Stop::Failed)?
                {
                    found.push(Place { pool, slice, device });
                }
            }
        }
        Ok(())
    }

    fn at(&self, place: Place) -> &'a Device {
        &self.offers[place.pool].slices[place.slice].devices()[place.device]
    }

    /// What a request can have of a device, if anything.
    fn part(&self, claim: usize, form: &Request, place: Place) -> Option<Part> {
        let (pool, device) = (&self.offers[place.pool].id, self.at(place));
        if !form.tolerates(device) {
            return None;
        }
        let shared = is_shared(device);
        let asked = if shared || !form.capacity.is_empty() {
            shares::consumed(&form.capacity, &pool.driver, device)?
        } else {
            Amounts::new()
        };
        if shared && !form.admin {
            let free = !self.ledger.has_whole(pool, &device.name) && self.has_capacity(place, &asked);
            return free.then_some(Part::Share(asked));
        }
        if self.chosen[claim].iter().any(|chosen| chosen.place == place) {
            return None;
        }
        if form.admin {
            return Some(Part::Watched);
        }
        let used = self.taken.contains(&place) || self.ledger.has(pool, &device.name);
        (!used).then_some(Part::Whole)
    }

    /// Whether a device has so much left beside the shares that are given (KEP-5075).
    fn has_capacity(&self, place: Place, asked: &Amounts) -> bool {
        let device = self.at(place);
        let given = self.ledger.consumed(&self.offers[place.pool].id, &device.name);
        let chosen = self.shares.get(&place).map(|(_, consumed)| consumed);
        asked.iter().all(|(name, amount)| {
            let used: Quantity = [given, chosen].into_iter().flatten().filter_map(|consumed| consumed.get(name)).copied().sum();
            let capacity = device.capacity.as_ref().and_then(|all| all.get(name));
            capacity.is_some_and(|capacity| used + *amount <= shares::amount(&capacity.value))
        })
    }

    /// Whether a device takes of the counters of its pool with this part, which all shares of it do together.
    fn counts(&self, place: Place, part: &Part) -> bool {
        match part {
            Part::Watched => false,
            Part::Whole => true,
            Part::Share(_) => {
                !self.shares.contains_key(&place) && !self.ledger.has(&self.offers[place.pool].id, &self.at(place).name)
            }
        }
    }

    /// Takes a device or a share of it for a request, unless somebody has it, it lacks what is shared, or a constraint forbids it.
    fn take(&mut self, claim: usize, form: &Request, place: Place) -> Option<Part> {
        let part = self.part(claim, form, place)?;
        let (offers, device) = (self.offers, self.at(place));
        let counts = self.counts(place, &part);
        if counts && !self.has_counters(place.pool, device) {
            return None;
        }
        let constraints = &mut self.constraints[claim];
        for index in 0..constraints.len() {
            if !constraints[index].add(&form.name, &offers[place.pool].id.driver, device) {
                constraints[..index].iter_mut().for_each(|constraint| constraint.remove(&form.name));
                return None;
            }
        }
        match &part {
            Part::Watched => {}
            Part::Whole => drop(self.taken.insert(place)),
            Part::Share(amounts) => {
                let (count, consumed) = self.shares.entry(place).or_default();
                *count += 1;
                amounts.iter().for_each(|(name, amount)| *consumed.entry(name.clone()).or_default() += *amount);
            }
        }
        if counts {
            self.count(place.pool, device, true);
        }
        Some(part)
    }

    fn give_back(&mut self, claim: usize, form: &Request, chosen: &Chosen) {
        let (place, device) = (chosen.place, self.at(chosen.place));
        self.constraints[claim].iter_mut().for_each(|constraint| constraint.remove(&form.name));
        match &chosen.part {
            Part::Watched => return,
            Part::Whole => drop(self.taken.remove(&place)),
            Part::Share(amounts) => {
                let Some((count, consumed)) = self.shares.get_mut(&place) else { return };
                *count -= 1;
                amounts.iter().for_each(|(name, amount)| *consumed.entry(name.clone()).or_default() -= *amount);
                if *count == 0 {
                    self.shares.remove(&place);
                }
            }
        }
        if self.counts(place, &chosen.part) {
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

/// What a device takes of the counters of its pool.
fn consumed(device: &Device) -> impl Iterator<Item = ((String, String), Quantity)> {
    device.consumes_counters.iter().flatten().flat_map(|set| {
        let of = |name: &String| (set.counter_set.clone(), name.clone());
        set.counters.iter().map(move |(name, counter)| (of(name), Quantity::parse(&counter.value.0).unwrap_or_default()))
    })
}
