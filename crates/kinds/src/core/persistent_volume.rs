//! PersistentVolume: storage of the cluster.

mod sources;
#[cfg(test)]
mod tests;
mod validate;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{meta, time};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use serde_json::{Value, json};

use super::volume_source;
use crate::columns::Column;
use crate::core::pod::renamed_label;
use crate::def::KindDef;
use crate::rules::resources::amount;
use crate::rules::{list, text};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, set_default, set_zero};

pub(crate) use validate::inline_volume;

/// The old way to name the class.
pub(super) const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

impl Kind for PersistentVolume {
    const DEF: KindDef =
        KindDef::of::<Self>("persistentvolume").returns_deleted().short(&["pv"]).cluster().subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        set_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
        set_default(spec, "volumeMode", "Filesystem");
        volume_source::apply_defaults(spec);
    }

    fn prepare_create(object: &mut Value) {
        let created = meta::get(object, "creationTimestamp").to_owned();
        object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": created});
    }

    /// The time of a new phase is noted, unless its writer says it.
    fn prepare_status(object: &mut Value, old: &Value) {
        let status = child_object(object, "status");
        set_zero(status, "phase", "Pending");
        let same = |key: &str| status.get(key) == old["status"].get(key);
        if !same("phase") && (status.get("lastPhaseTransitionTime").is_none() || same("lastPhaseTransitionTime")) {
            status["lastPhaseTransitionTime"] = time::now().into();
        }
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self.spec.as_ref().unwrap_or(&PersistentVolumeSpec::default()), text(&self.metadata.name), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            validate::validate_update(new, old, errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        warnings(self)
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        warnings(self)
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Capacity", "How much the volume holds.", |volume, _| {
                    let capacity = spec(volume).and_then(|spec| spec.capacity.as_ref()?.get("storage"));
                    capacity.map_or("0", |amount| amount.0.as_str()).into()
                }),
                Column::new("Access Modes", "Ways in which it can be mounted.", |volume, _| {
                    access_modes(spec(volume).map(|spec| list(&spec.access_modes)).unwrap_or_default()).into()
                }),
                Column::new("Reclaim Policy", "What becomes of it when its claim is deleted.", |volume, _| {
                    spec(volume).map(|spec| text(&spec.persistent_volume_reclaim_policy)).unwrap_or_default().into()
                }),
                Column::new("Status", "Whether it is bound to a claim.", |volume, _| {
                    let phase = volume.status.as_ref().map(|status| text(&status.phase)).unwrap_or_default();
                    if volume.metadata.deletion_timestamp.is_some() { "Terminating" } else { phase }.into()
                }),
                Column::new("Claim", "The claim that it is bound to.", |volume, _| {
                    let claim = spec(volume).and_then(|spec| spec.claim_ref.as_ref());
                    claim.map(|claim| format!("{}/{}", text(&claim.namespace), text(&claim.name))).unwrap_or_default().into()
                }),
                Column::new("StorageClass", "StorageClass of the pv", |volume, _| {
                    class(&volume.metadata.annotations, spec(volume).and_then(|spec| spec.storage_class_name.as_deref())).into()
                }),
                Column::new("VolumeAttributesClass", "VolumeAttributesClass of the pv", |volume, _| {
                    spec(volume).and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or("<unset>").into()
                }),
                Column::new("Reason", "Why it has failed.", |volume, _| {
                    volume.status.as_ref().map(|status| text(&status.reason)).unwrap_or_default().into()
                }),
                Column::wide("VolumeMode", "Whether it has a file system.", |volume, _| {
                    spec(volume).and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("<unset>").into()
                }),
            ]
        }
    }
}

fn spec(volume: &PersistentVolume) -> Option<&PersistentVolumeSpec> {
    volume.spec.as_ref()
}

/// `RWO,ROX`.
pub(super) fn access_modes(modes: &[String]) -> String {
    const SHORT: &[(&str, &str)] =
        &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let used = SHORT.iter().filter(|(mode, _)| modes.iter().any(|other| other == mode));
    used.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The class, as the old annotation or as a field.
pub(super) fn class<'a>(annotations: &'a Option<std::collections::BTreeMap<String, String>>, field: Option<&'a str>) -> &'a str {
    let old = annotations.as_ref().and_then(|notes| notes.get(BETA_CLASS)).map(String::as_str);
    old.or(field).unwrap_or_default()
}

/// Upstream: `pkg/api/persistentvolume/util.go`.
fn warnings(volume: &PersistentVolume) -> Vec<String> {
    let mut warnings = Vec::new();
    let old = [
        (BETA_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        (MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ];
    let notes = volume.metadata.annotations.as_ref();
    for (key, message) in old.into_iter().filter(|(key, _)| notes.is_some_and(|notes| notes.contains_key(*key))) {
        warnings.push(format!("{}: {message}", Path::new("metadata.annotations").key(key)));
    }
    let (Some(spec), path) = (&volume.spec, Path::new("spec")) else { return warnings };
    if text(&spec.persistent_volume_reclaim_policy) == "Recycle" {
        let advice = "Instead, the recommended approach is to use dynamic provisioning.";
        warnings.push(format!("{path}.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. {advice}"));
    }
    if let Some(selector) = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref()) {
        for (term, expressions) in selector.node_selector_terms.iter().map(|term| list(&term.match_expressions)).enumerate() {
            let path = path.child("nodeAffinity.required.nodeSelectorTerms").index(term).child("matchExpressions");
            for (index, key) in expressions.iter().map(|expression| &expression.key).enumerate() {
                let path = path.index(index).child("key");
                warnings.extend(renamed_label(key).map(|message| format!("{path}: {key} is {message}")));
            }
        }
    }
    let plugins = [
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some(), "deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", spec.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("storageOS", spec.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", spec.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", spec.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ("cephfs", spec.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (plugin, _, message) in plugins.into_iter().filter(|(_, used, _)| *used) {
        warnings.push(format!("{}: {message}", path.child(plugin)));
    }
    if let Some(size) = spec.capacity.as_ref().and_then(|capacity| capacity.get("storage")) {
        fraction(&path.child("capacity").key("storage"), size, &mut warnings);
    }
    warnings
}

/// Bytes are whole.
pub(super) fn fraction(path: &Path, size: &k8s_openapi::apimachinery::pkg::api::resource::Quantity, warnings: &mut Vec<String>) {
    if amount(size).as_milli() % 1000 != 0 {
        warnings.push(format!("{path}: fractional byte value {:?} is invalid, must be an integer", size.0));
    }
}

/// Sizes that are reported, and cannot be negative.
pub(super) fn basic_resource(path: &Path, size: &k8s_openapi::apimachinery::pkg::api::resource::Quantity, errors: &mut Errors) {
    if amount(size).signum() < 0 {
        errors.push(Error::invalid(path, amount(size).as_i64(), "must be a valid resource quantity"));
    }
}
