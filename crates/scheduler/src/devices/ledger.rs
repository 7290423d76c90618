//! Which devices are taken: those of claims as they are written, and of claims for which devices have been chosen that are not written yet.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::shares::{Amounts, amount};
use super::{DeviceId, PoolId};

#[derive(Default)]
pub(crate) struct Ledger {
    /// Devices by the claim's uid.
    by_claim: HashMap<String, Vec<Taken>>,
    /// Who has each device of a pool.
    taken: HashMap<PoolId, BTreeMap<String, Use>>,
    /// Claims for which devices have been chosen, until the write has ended.
    chosen: HashSet<String>,
    /// Of these, claims that are gone already: the uid, which one that was to be made has got meanwhile.
    gone: HashMap<String, String>,
    /// The version of a claim that was written here, until the cache has seen it.
    written: HashMap<String, u64>,
}

/// A device that a claim has, or a share of it.
struct Taken {
    id: DeviceId,
    share: Option<Amounts>,
}

/// Who has a device.
#[derive(Default)]
struct Use {
    /// How many claims have it alone.
    whole: usize,
    /// How many shares of it are given.
    shares: usize,
    /// What these take of its capacity.
    consumed: Amounts,
}

/// The devices that an allocation takes from others. Administrators take none.
fn devices(allocation: &AllocationResult) -> impl Iterator<Item = Taken> {
    let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    results.filter(|one| one.admin_access != Some(true)).map(|one| {
        let pool = PoolId { driver: one.driver.clone(), pool: one.pool.clone() };
        let consumed = one.consumed_capacity.iter().flatten().map(|(name, text)| (name.clone(), amount(text)));
        let share = one.share_id.is_some().then(|| consumed.collect());
        Taken { id: DeviceId { pool, device: one.device.clone() }, share }
    })
}

impl Ledger {
    /// A claim as the cache has it; none that is gone. What has been chosen for it stays until the write has ended, and what has been
    /// written until the cache has seen it.
    pub(crate) fn observe(&mut self, uid: &str, claim: Option<&ResourceClaim>) {
        let known = self.written.get(uid).copied().unwrap_or_default();
        let is_old = claim.is_some_and(|claim| client::resource_version::of(claim) < known);
        if claim.is_none() {
            self.went(uid, uid);
        }
        if !self.chosen.contains(uid) && !is_old {
            self.written.remove(uid);
            self.set(uid, claim);
        }
    }

    /// The claim of this uid is gone, for which devices may have been chosen under `id`.
    pub(crate) fn went(&mut self, id: &str, uid: &str) {
        if self.chosen.contains(id) {
            self.gone.insert(id.to_owned(), uid.to_owned());
        }
    }

    /// Devices have been chosen for a claim.
    pub(crate) fn choose(&mut self, uid: &str, allocation: &AllocationResult) {
        self.put(uid, allocation);
        self.chosen.insert(uid.to_owned());
    }

    /// What has been chosen under `id` is written, or is not going to be: the claim as the API has it now.
    pub(crate) fn settle(&mut self, id: &str, claim: Option<&ResourceClaim>) {
        self.chosen.remove(id);
        self.take_out(id);
        let gone = self.gone.remove(id);
        let written = claim.and_then(|claim| Some((claim, claim.metadata.uid.as_deref()?)));
        if let Some((claim, uid)) = written.filter(|(_, uid)| gone.as_deref() != Some(*uid)) {
            self.set(uid, Some(claim));
            self.written.insert(uid.to_owned(), client::resource_version::of(claim));
        }
    }

    /// Whether devices have been chosen for a claim that are not written yet.
    pub(super) fn is_chosen(&self, uid: &str) -> bool {
        self.chosen.contains(uid)
    }

    fn user(&self, pool: &PoolId, device: &str) -> Option<&Use> {
        self.taken.get(pool)?.get(device)
    }

    /// Whether anybody has a device or a share of it.
    pub(super) fn has(&self, pool: &PoolId, device: &str) -> bool {
        self.user(pool, device).is_some()
    }

    /// Whether somebody has a device alone.
    pub(super) fn has_whole(&self, pool: &PoolId, device: &str) -> bool {
        self.user(pool, device).is_some_and(|user| user.whole > 0)
    }

    /// What shares of a device take of its capacity.
    pub(super) fn consumed(&self, pool: &PoolId, device: &str) -> Option<&Amounts> {
        self.user(pool, device).map(|user| &user.consumed)
    }

    /// The devices of a pool that are taken.
    pub(super) fn of(&self, pool: &PoolId) -> impl Iterator<Item = &str> {
        self.taken.get(pool).into_iter().flat_map(|taken| taken.keys().map(String::as_str))
    }

    fn set(&mut self, uid: &str, claim: Option<&ResourceClaim>) {
        match claim.and_then(|claim| claim.status.as_ref()?.allocation.as_ref()) {
            Some(allocation) => self.put(uid, allocation),
            None => self.take_out(uid),
        }
    }

    fn put(&mut self, uid: &str, allocation: &AllocationResult) {
        self.take_out(uid);
        let devices: Vec<Taken> = devices(allocation).collect();
        for Taken { id, share } in &devices {
            let user = self.taken.entry(id.pool.clone()).or_default().entry(id.device.clone()).or_default();
            match share {
                None => user.whole += 1,
                Some(amounts) => {
                    user.shares += 1;
                    amounts.iter().for_each(|(name, amount)| *user.consumed.entry(name.clone()).or_default() += *amount);
                }
            }
        }
        self.by_claim.insert(uid.to_owned(), devices);
    }

    fn take_out(&mut self, uid: &str) {
        for Taken { id: DeviceId { pool, device }, share } in self.by_claim.remove(uid).unwrap_or_default() {
            let Some(taken) = self.taken.get_mut(&pool) else { continue };
            let Some(user) = taken.get_mut(&device) else { continue };
            match share {
                None => user.whole -= 1,
                Some(amounts) => {
                    user.shares -= 1;
                    amounts.iter().for_each(|(name, amount)| *user.consumed.entry(name.clone()).or_default() -= *amount);
                }
            }
            if user.whole + user.shares == 0 {
                taken.remove(&device);
            }
            if taken.is_empty() {
                self.taken.remove(&pool);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn claim(uid: &str, version: &str) -> ResourceClaim {
        let results = json!([{"request": "r", "driver": "d", "pool": "p", "device": "x"}]);
        serde_json::from_value(json!({
            "metadata": {"name": uid, "uid": uid, "resourceVersion": version}, "spec": {},
            "status": {"allocation": {"devices": {"results": results}}}}))
        .unwrap()
    }

    fn allocation() -> AllocationResult {
        claim("c", "1").status.unwrap().allocation.unwrap()
    }

    /// A claim that is made is known by another uid from then on, and its device is taken all the time, whatever is heard first.
    #[test]
    fn what_is_chosen_becomes_what_is_written() {
        let pool = PoolId { driver: "d".into(), pool: "p".into() };
        for seen_first in [false, true] {
            let mut ledger = Ledger::default();
            ledger.choose("new", &allocation());
            if seen_first {
                ledger.observe("c", Some(&claim("c", "2")));
            }
            assert!(ledger.has_whole(&pool, "x"));
            ledger.settle("new", Some(&claim("c", "2")));
            assert!(ledger.has_whole(&pool, "x"));
            ledger.observe("c", None);
            assert!(!ledger.has(&pool, "x"));
        }
    }

    /// A claim that goes before it is known here that it was written leaves nothing behind.
    #[test]
    fn what_is_gone_stays_gone() {
        let pool = PoolId { driver: "d".into(), pool: "p".into() };
        for id in ["c", "new"] {
            let mut ledger = Ledger::default();
            ledger.choose(id, &allocation());
            ledger.observe("c", None);
            ledger.went("new", "c");
            ledger.settle(id, Some(&claim("c", "2")));
            assert!(!ledger.has(&pool, "x"), "{id}");
        }
    }
}
