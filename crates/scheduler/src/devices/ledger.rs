//! Which devices are taken: those of claims as they are written, and of claims for which devices have been chosen that are not written yet.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::{DeviceId, PoolId};

#[derive(Default)]
pub(crate) struct Ledger {
    /// Devices by the claim's uid.
    by_claim: HashMap<String, Vec<DeviceId>>,
    /// How many claims have each device of a pool.
    taken: HashMap<PoolId, BTreeMap<String, usize>>,
    /// Claims for which devices have been chosen, until the write has ended.
    chosen: HashSet<String>,
    /// The version of a claim that was written here, until the cache has seen it.
    written: HashMap<String, u64>,
}

/// The devices that an allocation takes from others. Administrators take none.
fn devices(allocation: &AllocationResult) -> impl Iterator<Item = DeviceId> {
    let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    results
        .filter(|one| one.admin_access != Some(true))
        .map(|one| DeviceId { pool: PoolId { driver: one.driver.clone(), pool: one.pool.clone() }, device: one.device.clone() })
}

impl Ledger {
    /// A claim as the cache has it; none that is gone. What has been chosen for it stays until the write has ended, and what has been
    /// written until the cache has seen it.
    pub(crate) fn observe(&mut self, uid: &str, claim: Option<&ResourceClaim>) {
        let known = self.written.get(uid).copied().unwrap_or_default();
        let is_old = claim.is_some_and(|claim| client::resource_version::of(claim) < known);
        if !self.chosen.contains(uid) && !is_old {
            self.written.remove(uid);
            self.set(uid, claim);
        }
    }

    /// Devices have been chosen for a claim.
    pub(crate) fn choose(&mut self, uid: &str, allocation: &AllocationResult) {
        self.put(uid, allocation);
        self.chosen.insert(uid.to_owned());
    }

    /// What has been chosen for a claim is written, or is not going to be: the claim as the API has it now.
    pub(crate) fn settle(&mut self, uid: &str, claim: Option<&ResourceClaim>) {
        self.chosen.remove(uid);
        self.set(uid, claim);
        if let Some(claim) = claim {
            self.written.insert(uid.to_owned(), client::resource_version::of(claim));
        }
    }

    /// Whether devices have been chosen for a claim that are not written yet.
    pub(super) fn is_chosen(&self, uid: &str) -> bool {
        self.chosen.contains(uid)
    }

    /// Whether a device is taken.
    pub(super) fn has(&self, pool: &PoolId, device: &str) -> bool {
        self.taken.get(pool).is_some_and(|taken| taken.contains_key(device))
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
        let devices: Vec<DeviceId> = devices(allocation).collect();
        for DeviceId { pool, device } in &devices {
            *self.taken.entry(pool.clone()).or_default().entry(device.clone()).or_default() += 1;
        }
        self.by_claim.insert(uid.to_owned(), devices);
    }

    fn take_out(&mut self, uid: &str) {
        for DeviceId { pool, device } in self.by_claim.remove(uid).unwrap_or_default() {
            let Some(taken) = self.taken.get_mut(&pool) else { continue };
            let left = taken.get(&device).map_or(0, |count| count - 1);
            match left {
                0 => taken.remove(&device),
                left => taken.insert(device, left),
            };
            if taken.is_empty() {
                self.taken.remove(&pool);
            }
        }
    }
}
