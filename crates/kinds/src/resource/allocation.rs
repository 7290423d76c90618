//! Rules for the status of a claim: what is allocated, for whom, and what drivers report.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceAllocationConfiguration, DeviceRequestAllocationResult, NetworkDeviceData,
    ResourceClaimConsumerReference, ResourceClaimStatus,
};
use serde_json::Value;

use super::claim::{MAX_CONFIG, Requests};
use super::{DeviceId, binding_conditions, configuration, each, each_once, pool_name, raw_object, toleration, uid};
use crate::core::pod::node_selector;
use crate::rules::{self, list, text};

const MAX_CONSUMERS: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_DATA: usize = 10 << 10;
const MAX_ADDRESSES: usize = 16;
const MAX_INTERFACE: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;

/// Upstream: `validateResourceClaimStatusUpdate`.
pub(super) fn validate(
    status: &ResourceClaimStatus,
    old: &ResourceClaimStatus,
    deleted: bool,
    requests: &Requests<'_>,
    errors: &mut Errors,
) {
    let path = Path::new("status");
    let (consumers, at) = (list(&status.reserved_for), path.child("reservedFor"));
    each_once(consumers, MAX_CONSUMERS, &at, errors, validate_consumer, |consumer| consumer.uid.clone());
    let devices = list(&status.devices);
    let allocated = allocated(status);
    let check = |device: &AllocatedDeviceStatus, path: &Path, errors: &mut Errors| {
        validate_device(device, &allocated, path, errors);
    };
    each_once(devices, usize::MAX, &path.child("devices"), errors, check, shown_id);
    if !consumers.is_empty() {
        if status.allocation.is_none() {
            errors.push(Error::forbidden(&at, "may not be specified when `allocated` is not set"));
        } else if deleted && consumers.iter().any(|consumer| !list(&old.reserved_for).contains(consumer)) {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(Error::forbidden(&at, detail));
        }
    }
    let at = path.child("allocation");
    match (&status.allocation, &old.allocation) {
        (Some(_), Some(_)) => rules::immutable(&at, &status.allocation, &old.allocation, errors),
        (Some(allocation), None) => validate_allocation(allocation, requests, &at, errors),
        (None, _) => {}
    }
}

fn validate_consumer(consumer: &ResourceClaimConsumerReference, path: &Path, errors: &mut Errors) {
    rules::required(&path.child("resource"), &consumer.resource, errors);
    rules::required(&path.child("name"), &consumer.name, errors);
    rules::required(&path.child("uid"), &consumer.uid, errors);
}

fn results(allocation: &AllocationResult) -> &[DeviceRequestAllocationResult] {
    allocation.devices.as_ref().map(|devices| list(&devices.results)).unwrap_or_default()
}

fn allocated(status: &ResourceClaimStatus) -> HashSet<DeviceId<'_>> {
    status.allocation.as_ref().map(results).unwrap_or_default().iter().map(id_of_result).collect()
}

fn id_of_result(result: &DeviceRequestAllocationResult) -> DeviceId<'_> {
    DeviceId { driver: &result.driver, pool: &result.pool, device: &result.device, share: text(&result.share_id) }
}

fn id_of(device: &AllocatedDeviceStatus) -> DeviceId<'_> {
    DeviceId { driver: &device.driver, pool: &device.pool, device: &device.device, share: text(&device.share_id) }
}

fn shown_id(device: &AllocatedDeviceStatus) -> Value {
    id_of(device).into()
}

fn validate_allocation(allocation: &AllocationResult, requests: &Requests<'_>, path: &Path, errors: &mut Errors) {
    let devices = path.child("devices");
    each(results(allocation), MAX_RESULTS, &devices.child("results"), errors, |result, path, errors| {
        validate_result(result, requests, path, errors);
    });
    let config = allocation.devices.as_ref().map(|devices| list(&devices.config)).unwrap_or_default();
    each(config, 2 * MAX_CONFIG, &devices.child("config"), errors, |config, path, errors| {
        let DeviceAllocationConfiguration { opaque, requests: names, source } = config;
        rules::one_of(&path.child("source"), source, &["FromClaim", "FromClass"], errors);
        requests.references(list(names), &path.child("requests"), errors);
        configuration(opaque.as_ref(), path, errors);
    });
    if let Some(selector) = &allocation.node_selector {
        node_selector(selector, true, &path.child("nodeSelector"), errors);
    }
}

fn validate_result(result: &DeviceRequestAllocationResult, requests: &Requests<'_>, path: &Path, errors: &mut Errors) {
    requests.reference(&result.request, &path.child("request"), errors);
    rules::driver_name(&path.child("driver"), &result.driver, errors);
    pool_name(&path.child("pool"), &result.pool, errors);
    rules::dns_label(&path.child("device"), &result.device, errors);
    binding_conditions(list(&result.binding_conditions), list(&result.binding_failure_conditions), path, errors);
    for (index, one) in list(&result.tolerations).iter().enumerate() {
        toleration(one, &path.child("tolerations").index(index), errors);
    }
    if let Some(share) = &result.share_id {
        uid(&path.child("shareID"), share, errors);
    }
}

/// What a driver reports of a device (KEP-4817).
fn validate_device(device: &AllocatedDeviceStatus, allocated: &HashSet<DeviceId<'_>>, path: &Path, errors: &mut Errors) {
    rules::driver_name(&path.child("driver"), &device.driver, errors);
    pool_name(&path.child("pool"), &device.pool, errors);
    rules::dns_label(&path.child("device"), &device.device, errors);
    if let Some(share) = &device.share_id {
        uid(&path.child("shareID"), share, errors);
    }
    if !allocated.contains(&id_of(device)) {
        errors.push(Error::invalid(path, id_of(device), "must be an allocated device in the claim"));
    }
    let (conditions, at) = (list(&device.conditions), path.child("conditions"));
    if conditions.len() > MAX_CONDITIONS {
        errors.push(Error::too_many(&at, conditions.len(), MAX_CONDITIONS));
    }
    rules::conditions(&at, conditions, errors);
    if let Some(data) = device.data.as_ref().filter(|data| !data.0.is_null()) {
        raw_object(&path.child("data"), data, MAX_DATA, errors);
    }
    if let Some(network) = &device.network_data {
        validate_network(network, &path.child("networkData"), errors);
    }
}

fn validate_network(network: &NetworkDeviceData, path: &Path, errors: &mut Errors) {
    let limits = [
        ("interfaceName", &network.interface_name, MAX_INTERFACE),
        ("hardwareAddress", &network.hardware_address, MAX_HARDWARE_ADDRESS),
    ];
    for (field, _, max) in limits.into_iter().filter(|(_, value, max)| text(value).len() > *max) {
        errors.push(Error::too_long(&path.child(field), max));
    }
    let check = |address: &String, path: &Path, errors: &mut Errors| rules::interface_address(path, address, errors);
    each_once(list(&network.ips), MAX_ADDRESSES, &path.child("ips"), errors, check, Clone::clone);
}
