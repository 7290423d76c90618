//! The devices of the host, for privileged containers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};

/// Directories and files of /dev that every container has of its own.
const OWN: &[&str] = &["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/ptmx"];

/// The device nodes below /dev as OCI device entries.
pub(crate) fn host_devices() -> Vec<Value> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), &mut devices);
    devices
}

fn collect(dir: &Path, devices: &mut Vec<Value>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // A device that goes away meanwhile is not one.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if OWN.iter().any(|own| path == Path::new(own)) {
            continue;
        }
        let kind = metadata.file_type();
        if kind.is_dir() {
            collect(&path, devices);
        } else if kind.is_char_device() || kind.is_block_device() {
            let device = metadata.rdev();
            devices.push(json!({
                "path": path,
                "type": if kind.is_block_device() { "b" } else { "c" },
                "major": nix::sys::stat::major(device),
                "minor": nix::sys::stat::minor(device),
                "fileMode": metadata.mode() & 0o777,
                "uid": metadata.uid(),
                "gid": metadata.gid(),
            }));
        }
    }
}
