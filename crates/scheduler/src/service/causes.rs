//! What events of the cluster are called by upstream, by what has become of the object: it came, changed or went.

use client::Change;

pub(super) type Causes = [&'static str; 3];

pub(super) const CLAIM: Causes = ["PersistentVolumeClaimAdd", "PersistentVolumeClaimUpdate", "PersistentVolumeClaimDelete"];
pub(super) const VOLUME: Causes = ["PersistentVolumeAdd", "PersistentVolumeUpdate", "PersistentVolumeDelete"];
pub(super) const CLASS: Causes = ["StorageClassAdd", "StorageClassUpdate", "StorageClassDelete"];
pub(super) const DRIVERS: Causes = ["CSINodeAdd", "CSINodeUpdate", "CSINodeDelete"];
pub(super) const ATTACHMENT: Causes = ["VolumeAttachmentAdd", "VolumeAttachmentUpdate", "VolumeAttachmentDelete"];
pub(super) const DRIVER: Causes = ["CSIDriverAdd", "CSIDriverUpdate", "CSIDriverDelete"];
pub(super) const CAPACITY: Causes = ["CSIStorageCapacityAdd", "CSIStorageCapacityUpdate", "CSIStorageCapacityDelete"];
pub(super) const DEVICE_CLAIM: Causes = ["ResourceClaimAdd", "ResourceClaimUpdate", "ResourceClaimDelete"];
pub(super) const DEVICE_CLASS: Causes = ["DeviceClassAdd", "DeviceClassUpdate", "DeviceClassDelete"];
pub(super) const SLICE: Causes = ["ResourceSliceAdd", "ResourceSliceUpdate", "ResourceSliceDelete"];
pub(super) const NODE: Causes = ["NodeAdd", "NodeUpdate", "NodeDelete"];
pub(super) const NAMESPACE: Causes = ["NamespaceAdd", "NamespaceUpdate", "NamespaceDelete"];
pub(super) const POD: Causes = ["AssignedPodAdd", "AssignedPodUpdate", "AssignedPodDelete"];

/// The cause of a change.
pub(super) fn cause<K: client::Object>(change: &Change<K>, causes: Causes) -> &'static str {
    match (&change.old, &change.new) {
        (None, _) => causes[0],
        (_, Some(_)) => causes[1],
        (_, None) => causes[2],
    }
}
