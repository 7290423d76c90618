//! Conditions that allocated devices have to meet before their pod is bound (KEP-5007). Pure.

use k8s_openapi::api::resource::v1::{AllocatedDeviceStatus, DeviceRequestAllocationResult, ResourceClaim};

fn waiting(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let allocation = claim.status.iter().flat_map(|status| status.allocation.iter());
    let results =
        allocation.flat_map(|allocation| allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten()));
    results.filter(|one| one.binding_conditions.as_ref().is_some_and(|conditions| !conditions.is_empty()))
}

/// Whether the claim has a device with such conditions.
pub(crate) fn has_conditions(claim: &ResourceClaim) -> bool {
    waiting(claim).next().is_some()
}

/// Whether all devices meet their conditions, or what has failed, in upstream's words.
pub(crate) fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    let mut ready = true;
    for one in waiting(claim) {
        let same = |device: &&AllocatedDeviceStatus| {
            (&device.driver, &device.pool, &device.device, &device.share_id)
                == (&one.driver, &one.pool, &one.device, &one.share_id)
        };
        let status = claim.status.iter().flat_map(|status| status.devices.iter().flatten()).find(same);
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let held = |name: &String| conditions.iter().find(|known| known.type_ == *name && known.status == "True");
        if let Some(failed) = one.binding_failure_conditions.iter().flatten().find_map(held) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            return Err(format!("claim {name} binding failed: reason={}, message={:?}", failed.reason, failed.message));
        }
        ready &= one.binding_conditions.iter().flatten().all(|name| held(name).is_some());
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// KEP-5007: "All of these conditions must be set in the per-device status conditions with a value of True to proceed with binding the pod";
    /// of the failure conditions, "If any is set to \"True\", a binding failure occurred".
    #[test]
    fn all_conditions_are_met_or_one_has_failed() {
        let check = |conditions: Value, expected: Result<bool, &str>| {
            let id = json!({"driver": "d", "pool": "p", "device": "x"});
            let (mut result, mut device) = (id.clone(), id);
            result["request"] = json!("r");
            result["bindingConditions"] = json!(["attached", "tested"]);
            result["bindingFailureConditions"] = json!(["broken"]);
            device["conditions"] = conditions.clone();
            let status = json!({"allocation": {"devices": {"results": [result]}}, "devices": [device]});
            let claim = json!({"metadata": {"namespace": "a", "name": "c"}, "spec": {}, "status": status});
            let claim: ResourceClaim = serde_json::from_value(claim).unwrap();
            assert!(has_conditions(&claim));
            assert_eq!(is_ready(&claim), expected.map_err(str::to_owned), "{conditions}");
        };
        let is = |name: &str, status: &str| json!({"type": name, "status": status, "reason": "Why", "message": "no \"power\"", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        check(json!([]), Ok(false));
        check(json!([is("attached", "True")]), Ok(false));
        check(json!([is("attached", "True"), is("tested", "False")]), Ok(false));
        check(json!([is("attached", "True"), is("tested", "True"), is("broken", "False")]), Ok(true));
        let broken = "claim c binding failed: reason=Why, message=\"no \\\"power\\\"\"";
        check(json!([is("attached", "True"), is("tested", "True"), is("broken", "True")]), Err(broken));
    }
}
