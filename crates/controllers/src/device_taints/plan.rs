//! When the devices of a claim drive its pods away. Pure.

use std::collections::HashMap;

use ::pods::slices::Slice;
use ::pods::tolerations::tolerates_device;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::resource::v1::{
    Device, DeviceRequestAllocationResult, DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice,
};

const EFFECT: &str = "NoExecute";

/// A pool of a driver. The name of a driver has no slash.
pub(super) fn pool(driver: &str, pool: &str) -> String {
    format!("{driver}/{pool}")
}

/// The devices that are allocated for a claim.
pub(super) fn results(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let allocation = claim.status.iter().flat_map(|status| status.allocation.iter());
    allocation.flat_map(|allocation| allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten()))
}

fn evicting(device: &Device) -> impl Iterator<Item = &DeviceTaint> {
    device.taints.iter().flatten().filter(|taint| taint.effect == EFFECT)
}

/// Whether a slice has a device with a taint that evicts.
pub(super) fn evicts(slice: &ResourceSlice) -> bool {
    slice.spec.devices.iter().flatten().any(|device| evicting(device).next().is_some())
}

/// When pods that use a claim have to go, if ever. `slices` are those for their node ([`::pods::slices::on_node`]) of each pool that has taints.
pub(super) fn eviction(claim: &ResourceClaim, slices: &HashMap<String, Vec<Slice>>) -> Option<Timestamp> {
    let due = |result: &DeviceRequestAllocationResult| {
        let slices = slices.get(&pool(&result.driver, &result.pool))?;
        let mut devices = slices.iter().flat_map(Slice::devices);
        let device = devices.find(|device| device.name == result.device)?;
        let tolerations = result.tolerations.as_deref().unwrap_or_default();
        evicting(device).filter_map(|taint| due(taint, tolerations)).min()
    };
    results(claim).filter_map(due).min()
}

/// When a taint evicts: at once, or after the shortest time for which it is tolerated; never when that has no end.
///
/// A toleration without an effect is one of all effects, as the API says and as the scheduler takes it. Upstream's controller counts only those
/// that name NoExecute, which evicts a pod that the scheduler brings back to the same device.
fn due(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> Option<Timestamp> {
    let since = taint.time_added.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let fitting: Vec<_> = tolerations.iter().filter(|one| tolerates_device(one, taint)).collect();
    if fitting.iter().any(|one| one.toleration_seconds.is_none()) {
        return None;
    }
    let seconds = fitting.iter().filter_map(|one| one.toleration_seconds).min().unwrap_or_default().max(0);
    Some(since.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
}
