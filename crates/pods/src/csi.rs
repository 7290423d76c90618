//! Names of volumes of storage drivers, and what a driver's CSIDriver object says of them. The controller that attaches, the scheduler and the kubelet
//! go by the same rules.

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::CSIDriver;
use sha2::{Digest, Sha256};

/// The SHA-256 of a text, in hexadecimal.
pub fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of the VolumeAttachment of a volume on a node: others know it, too, so it is upstream's.
pub fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    format!("csi-{}", digest(&format!("{handle}{driver}{node}")))
}

/// A volume in the lists of a Node's status.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// Driver and handle of a volume that a driver serves.
pub fn of_volume(volume: &PersistentVolume) -> Option<(&str, &str)> {
    let source = volume.spec.as_ref()?.csi.as_ref()?;
    Some((&source.driver, &source.volume_handle))
}

/// Whether volumes of a driver are attached to a node before they are mounted: unless its object says that they need not be.
pub fn needs_attachment(driver: Option<&CSIDriver>) -> bool {
    driver.and_then(|driver| driver.spec.attach_required).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        let name = attachment_name("driver", "handle", "node");
        assert_eq!(name, format!("csi-{}", digest("handledrivernode")));
        assert_eq!(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(unique_name("d", "h"), "kubernetes.io/csi/d^h");
    }

    #[test]
    fn attachment() {
        let check = |spec: serde_json::Value, expected: bool| {
            let driver: CSIDriver = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap();
            assert_eq!(needs_attachment(Some(&driver)), expected);
        };
        check(json!({}), true);
        check(json!({"attachRequired": true}), true);
        check(json!({"attachRequired": false}), false);
        assert!(needs_attachment(None));
    }
}
