//! Block volumes (`volumeMode: Block`, `volumeDevices`): a volume is a device that containers get as it is.
//!
//! The pod's directory has a link to each device, `volumeDevices/kubernetes.io~block/NAME`, as upstream's has: what leads to a device no more,
//! since the machine was started anew, is mapped again. The container's own node and the rule that lets it open the device are the runtime's.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Volume};
use runtime::api::Device;

use super::claims::{self, Mode};
use super::points::remove_points;
use super::used;
use crate::spec::Model;

const DIRECTORY: &str = "volumeDevices";
const PLUGIN: &str = "kubernetes.io~block";

fn link(pod_dir: &Path, volume: &str) -> PathBuf {
    pod_dir.join(DIRECTORY).join(PLUGIN).join(volume)
}

/// Whether the volume is a device of the pod already. Blocking, but for a moment.
pub fn is_mapped(pod_dir: &Path, volume: &str) -> bool {
    fs::metadata(link(pod_dir, volume)).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Maps a device, unless that is done. Blocking.
///
/// # Errors
/// There is no block device at the path: what an event says.
pub fn map(pod_dir: &Path, volume: &str, device: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", device.display());
    if !fs::metadata(device).map_err(failed)?.file_type().is_block_device() {
        return Err(format!("{} is not a block device", device.display()));
    }
    let link = link(pod_dir, volume);
    if fs::read_link(&link).is_ok_and(|known| known == device) {
        return Ok(());
    }
    link.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    symlink(device, &link).map_err(failed)
}

/// Removes the links to all devices of a pod. Blocking, idempotent.
///
/// # Errors
/// A link cannot be removed.
pub fn unmap_all(pod_dir: &Path) -> io::Result<()> {
    remove_points(&pod_dir.join(DIRECTORY), 2)
}

fn is_mounted(model: &Model, volume: &str) -> bool {
    model.members.iter().any(|member| member.spec.volume_mounts.iter().flatten().any(|mount| mount.name == volume))
}

/// Whether containers use a volume as what it is.
///
/// # Errors
/// They do not, in upstream's words.
pub fn fits(model: &Model, volume: &Volume, mode: Mode) -> Result<(), String> {
    let name = &volume.name;
    match mode {
        Mode::Block if is_mounted(model, name) => {
            Err(format!("volume {name} has volumeMode Block, but is specified in volumeMounts"))
        }
        Mode::Filesystem if used::is_device(model, name) => {
            Err(format!("volume {name} has volumeMode Filesystem, but is specified in volumeDevices"))
        }
        _ => Ok(()),
    }
}

/// The devices of a container. One of a claim that is only to be read can only be read, and no node of it be made. Blocking.
///
/// # Errors
/// A device has no volume, or no absolute path.
pub fn of_container(pod_dir: &Path, model: &Model, container: &Container) -> Result<Vec<Device>, String> {
    let one = |device: &k8s_openapi::api::core::v1::VolumeDevice| {
        if !device.device_path.starts_with('/') {
            return Err(format!("error DevicePath `{}` must be an absolute path", device.device_path));
        }
        let volume = model.spec().volumes.iter().flatten().find(|volume| volume.name == device.name);
        let Some(volume) = volume.filter(|_| is_mapped(pod_dir, &device.name)) else {
            return Err(format!("cannot find volume {:?} to pass into container {:?}", device.name, container.name));
        };
        let to_read = claims::is_read_only(volume);
        Ok(Device {
            host_path: link(pod_dir, &device.name),
            container_path: PathBuf::from(&device.device_path),
            permissions: if to_read { "r" } else { "rwm" }.to_owned(),
            ..Device::default()
        })
    };
    container.volume_devices.iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pod::testing::model;
    use serde_json::json;

    fn pod() -> Model {
        model(json!({
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "x"}}, {"name": "m", "persistentVolumeClaim": {"claimName": "y"}}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "m", "mountPath": "/m"}]},
                {"name": "b", "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]}]}))
    }

    #[test]
    fn volumes_are_used_as_what_they_are() {
        let model = pod();
        let volumes = model.spec().volumes.clone().unwrap();
        let check = |volume: usize, mode: Mode, expected: Result<(), &str>| {
            assert_eq!(fits(&model, &volumes[volume], mode), expected.map_err(str::to_owned));
        };
        check(0, Mode::Block, Ok(()));
        check(1, Mode::Filesystem, Ok(()));
        check(0, Mode::Filesystem, Err("volume d has volumeMode Filesystem, but is specified in volumeDevices"));
        check(1, Mode::Block, Err("volume m has volumeMode Block, but is specified in volumeMounts"));
    }

    #[test]
    fn only_devices_are_mapped() {
        let directory = tempfile::tempdir().unwrap();
        let pod_dir = directory.path();
        let refused = map(pod_dir, "d", Path::new("/dev/null")).unwrap_err();
        assert_eq!(refused, "/dev/null is not a block device");
        assert!(map(pod_dir, "d", Path::new("/nonexistent")).unwrap_err().starts_with("/nonexistent: No such file"));
        let model = pod();
        let missing = of_container(pod_dir, &model, &model.members[1].spec).unwrap_err();
        assert_eq!(missing, "cannot find volume \"d\" to pass into container \"b\"");
        // What the link led to before the machine was started anew is a device no more.
        fs::create_dir_all(link(pod_dir, "d").parent().unwrap()).unwrap();
        symlink("/dev/null", link(pod_dir, "d")).unwrap();
        assert!(!is_mapped(pod_dir, "d"));
        unmap_all(pod_dir).unwrap();
        unmap_all(pod_dir).unwrap();
        assert_eq!(fs::read_dir(pod_dir).unwrap().count(), 0);
    }
}
