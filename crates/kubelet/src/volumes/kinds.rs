//! The kinds of volumes, by the keys that sources have in the API. Pure.

use codec::Encode;
use k8s_openapi::api::core::v1::{PersistentVolume, PodSpec, Volume};
use serde_json::Value;

/// What the specification of a persistent volume has beside its source.
const OF_ALL: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// The kind of a volume of a pod.
pub(super) fn of_pod(volume: &Volume) -> String {
    let spec = PodSpec { volumes: Some(vec![volume.clone()]), ..PodSpec::default() };
    source(&spec.to_tree().unwrap_or_default()["volumes"][0], &["name"])
}

/// The kind of a persistent volume.
pub(super) fn of_persistent(volume: &PersistentVolume) -> String {
    source(&volume.to_tree().unwrap_or_default()["spec"], &OF_ALL)
}

/// The first key that is none of the `others`.
fn source(object: &Value, others: &[&str]) -> String {
    let mut keys = object.as_object().into_iter().flatten().map(|(key, _)| key);
    keys.find(|key| !others.contains(&key.as_str())).map_or_else(|| "unknown".to_owned(), Clone::clone)
}
