//! PersistentVolumeClaim: storage that somebody asks for.

mod data_source;
mod spec;
#[cfg(test)]
mod tests;
mod update;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus};
use serde_json::{Value, json};

use super::persistent_volume::{access_modes as short_modes, basic_resource, class, fraction};
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::resources::resource_amount;
use crate::rules::{list, text};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, set_default, set_zero};

pub(crate) use spec::validate_claim_spec;
pub(super) use spec::{VOLUME_MODES, access_modes};

/// How far growing is (KEP-1790).
const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

impl Kind for PersistentVolumeClaim {
    const DEF: KindDef =
        KindDef::of::<Self>("persistentvolumeclaim").returns_deleted().short(&["pvc"]).subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        set_default(child_object(object, "spec"), "volumeMode", "Filesystem");
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
        data_source::prepare(child_object(object, "spec"), &Value::Null);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        data_source::prepare(child_object(object, "spec"), &old["spec"]);
    }

    fn prepare_status(object: &mut Value, _old: &Value) {
        set_zero(child_object(object, "status"), "phase", "Pending");
    }

    fn validate(&self, errors: &mut Errors) {
        validate_claim_spec(self.spec.as_ref().unwrap_or(&PersistentVolumeClaimSpec::default()), &Path::new("spec"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        update::validate(self, old, errors);
    }

    fn validate_sub(&self, _sub: &str, old: &Self, errors: &mut Errors) {
        if self.spec.as_ref().is_none_or(|spec| list(&spec.access_modes).is_empty()) {
            errors.push(Error::required(&Path::new("Spec.accessModes"), ""));
        }
        if let Some(status) = &self.status {
            validate_status(status, old.status.as_ref(), errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.spec.as_ref().map(|spec| claim_spec_warnings(spec, &Path::new("spec"))).unwrap_or_default()
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        self.warnings()
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Status", "Whether it is bound to a volume.", |claim, _| {
                    let phase = status(claim).map(|status| text(&status.phase)).unwrap_or_default();
                    if claim.metadata.deletion_timestamp.is_some() { "Terminating" } else { phase }.into()
                }),
                Column::new("Volume", "The volume that it is bound to.", |claim, _| {
                    claim.spec.as_ref().map(|spec| text(&spec.volume_name)).unwrap_or_default().into()
                }),
                Column::new("Capacity", "How much that volume holds.", |claim, _| capacity(claim).into()),
                Column::new("Access Modes", "Ways in which that volume can be mounted.", |claim, _| {
                    let modes = status(claim).filter(|_| is_bound(claim)).map(|status| list(&status.access_modes));
                    short_modes(modes.unwrap_or_default()).into()
                }),
                Column::new("StorageClass", "StorageClass of the pvc", |claim, _| {
                    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
                    class(&claim.metadata.annotations, field).into()
                }),
                Column::new("VolumeAttributesClass", "VolumeAttributesClass of the pvc", |claim, _| {
                    let class = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
                    class.unwrap_or("<unset>").into()
                }),
                Column::wide("VolumeMode", "Whether the volume has a file system.", |claim, _| {
                    claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("<unset>").into()
                }),
            ]
        }
    }
}

/// Of a claim or a template of one (upstream: `pkg/api/persistentvolumeclaim/util.go`).
pub(crate) fn claim_spec_warnings(spec: &PersistentVolumeClaimSpec, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let resources = spec.resources.clone().unwrap_or_default();
    for (field, amounts) in [("requests", resources.requests), ("limits", resources.limits)] {
        if let Some(size) = amounts.as_ref().and_then(|amounts| amounts.get("storage")) {
            fraction(&path.child("resources").child(field).key("storage"), size, &mut warnings);
        }
    }
    warnings
}

fn status(claim: &PersistentVolumeClaim) -> Option<&PersistentVolumeClaimStatus> {
    claim.status.as_ref()
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.spec.as_ref().is_some_and(|spec| !text(&spec.volume_name).is_empty())
}

fn capacity(claim: &PersistentVolumeClaim) -> &str {
    if !is_bound(claim) {
        return "";
    }
    let capacity = status(claim).and_then(|status| status.capacity.as_ref()?.get("storage"));
    capacity.map_or("0", |amount| amount.0.as_str())
}

/// What controllers and nodes report.
fn validate_status(status: &PersistentVolumeClaimStatus, old: Option<&PersistentVolumeClaimStatus>, errors: &mut Errors) {
    let path = Path::new("status");
    for (name, size) in status.capacity.iter().flatten() {
        basic_resource(&path.child("capacity").key(name), size, errors);
    }
    let at = path.child("allocatedResourceStatus");
    for (name, state) in status.allocated_resource_statuses.iter().flatten() {
        resource_key(name, &at, errors);
        // Claims that are stored may have names from before v1.31, which nobody writes any more.
        let known = old.and_then(|old| old.allocated_resource_statuses.as_ref()?.get(name)) == Some(state);
        if !known && !RESIZE_STATES.contains(&state.as_str()) {
            // Upstream shows the resource here, not the state.
            errors.push(Error::not_supported(&at, name.as_str(), &RESIZE_STATES));
        }
    }
    let at = path.child("allocatedResources");
    for (name, size) in status.allocated_resources.iter().flatten() {
        if !resource_key(name, &at, errors) {
            continue;
        }
        let before = errors.len();
        basic_resource(&at.key(name), size, errors);
        if errors.len() == before {
            resource_amount(&at.key(name), "storage", size, errors);
        }
    }
}

/// `storage`, or something that is not Kubernetes' own.
fn resource_key(name: &str, path: &Path, errors: &mut Errors) -> bool {
    let before = errors.len();
    errors.invalid_each(path, name, names::qualified_name(name));
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if errors.len() == before && native && name != "storage" {
        errors.push(Error::not_supported(path, name, &["storage"]));
    }
    errors.len() == before
}
