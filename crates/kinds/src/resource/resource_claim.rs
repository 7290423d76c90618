//! ResourceClaim: devices that somebody asks for, and gets.

use apimachinery::field::{Errors, Path};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;

use super::claim::Requests;
use super::{allocation, claim};
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, list};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, each, remove, set_zero, text};

impl Kind for ResourceClaim {
    const DEF: KindDef =
        KindDef::of::<Self>("resourceclaim").returns_deleted().status_keeps_metadata().subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        claim::apply_defaults(child_object(object, "spec"));
    }

    /// What drivers reported of devices that are no longer allocated goes with them.
    fn prepare_status(object: &mut Value, old: &Value) {
        let gone: Vec<_> = allocated(old).into_iter().filter(|id| !allocated(object).contains(id)).collect();
        let status = child_object(object, "status");
        if let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) {
            devices.retain(|device| !gone.contains(&id(device)));
            if devices.is_empty() {
                remove(status, "devices");
            }
        }
        if let Some(devices) = status.pointer_mut("/allocation/devices") {
            for result in each(devices, "results") {
                each(result, "tolerations").for_each(|toleration| set_zero(toleration, "operator", "Equal"));
            }
        }
    }

    fn validate_create(&self, errors: &mut Errors) {
        if let Some(devices) = &self.spec.devices {
            claim::validate(devices, &Path::new("spec.devices"), errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        rules::immutable(&Path::new("spec"), &self.spec, &old.spec, errors);
    }

    fn validate_sub(&self, _sub: &str, old: &Self, errors: &mut Errors) {
        let devices = self.spec.devices.clone().unwrap_or_default();
        let (new, old) = (self.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        let deleted = self.metadata.deletion_timestamp.is_some();
        allocation::validate(&new, &old, deleted, &Requests::of(&devices), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            let description = "A summary of the current state (allocated, pending, reserved, etc.).";
            &[Column::new("State", description, |claim, _| state(claim).into())]
        }
    }
}

/// Driver, pool and device.
fn id(device: &Value) -> [String; 3] {
    ["/driver", "/pool", "/device"].map(|field| text(device, field).to_owned())
}

fn allocated(claim: &Value) -> Vec<[String; 3]> {
    let results = claim.pointer("/status/allocation/devices/results").and_then(Value::as_array);
    results.into_iter().flatten().map(id).collect()
}

fn state(claim: &ResourceClaim) -> String {
    let deleted = claim.metadata.deletion_timestamp.is_some();
    let status = claim.status.as_ref();
    let allocated = status.is_some_and(|status| status.allocation.is_some());
    let reserved = status.is_some_and(|status| !list(&status.reserved_for).is_empty());
    let states = [
        (deleted, "deleted"),
        (!deleted && !allocated, "pending"),
        (allocated, "allocated"),
        (allocated && reserved, "reserved"),
    ];
    states.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state).collect::<Vec<_>>().join(",")
}
