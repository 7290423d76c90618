//! What is on disk of a volume that a driver shows, or that is behind a claim.

use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::Volume;

use super::block;
use super::path;
use super::points::is_mount_point;
use crate::drivers::records;

/// What is there of a volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OnDisk {
    /// It is mounted, or mapped as a device.
    pub(super) is_mounted: bool,
    /// A process before has mounted it, and volumes of drivers are among the pod's: what its driver wants is not known of this one.
    pub(super) may_be_drivers: bool,
}

/// Looks. What this process has mounted itself (`is_known`) and what is not mounted needs none of the pod's records. Blocking: a file
/// system that is mounted there may hang.
pub(super) fn look(pod_dir: &Path, volume: &Volume, is_known: bool) -> io::Result<OnDisk> {
    let is_mounted = is_mount_point(&path(pod_dir, volume))? || block::is_mapped(pod_dir, &volume.name);
    let may_be_drivers = is_mounted && !is_known && records::list(pod_dir).is_ok_and(|records| !records.is_empty());
    Ok(OnDisk { is_mounted, may_be_drivers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::{empty_dir, points};
    use nix::mount::MsFlags;
    use serde_json::json;

    #[test]
    fn who_has_mounted_a_volume_is_asked_where_it_matters() {
        let directory = tempfile::tempdir().unwrap();
        let pod_dir = directory.path();
        let volume: Volume = serde_json::from_value(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})).unwrap();
        let check = |is_known: bool, is_mounted: bool, may_be_drivers: bool| {
            assert_eq!(look(pod_dir, &volume, is_known).unwrap(), OnDisk { is_mounted, may_be_drivers }, "{is_known}");
        };
        check(false, false, false);
        records::write(&records::target(pod_dir, "v"), &Default::default()).unwrap();
        check(false, false, false);
        empty_dir::memory(&path(pod_dir, &volume), MsFlags::empty(), "").unwrap();
        check(false, true, true);
        check(true, true, false);
        records::remove(&records::target(pod_dir, "v")).unwrap();
        check(false, true, false);
        points::unmount_below(&pod_dir.join("volumes")).unwrap();
        check(false, false, false);
    }
}
