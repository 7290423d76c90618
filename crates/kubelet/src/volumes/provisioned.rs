//! Volumes that the cluster's own provisioner has made on a node.
//!
//! The provisioner takes from the Node where they are, so whoever has another node's credentials has a say in it. This node takes such a volume
//! only if it is its own by name and path, and opens it without following what stands in the way.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolume;
use nix::libc;
use pods::volumes::PROVISIONED_BY;

/// Who has made the volume, and the node that it says to be on.
const PROVISIONER: &str = "knarr.io/local-path";
const NODE: &str = "knarr.io/node";

/// Whether a volume was made by the cluster's own provisioner.
fn is_provisioned(volume: &PersistentVolume) -> bool {
    annotation(volume, PROVISIONED_BY) == Some(PROVISIONER) && volume.spec.as_ref().is_some_and(|spec| spec.local.is_some())
}

fn annotation<'a>(volume: &'a PersistentVolume, key: &str) -> Option<&'a str> {
    volume.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Where a volume of the provisioner is on this node, whose volumes are in `root`; none for other volumes. Blocking.
///
/// # Errors
/// It is not one of this node.
pub(super) fn check(volume: &PersistentVolume, node: &str, root: &Path) -> Result<Option<PathBuf>, String> {
    if !is_provisioned(volume) {
        return Ok(None);
    }
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    // Older volumes do not name their node.
    if let Some(other) = annotation(volume, NODE).filter(|named| *named != node) {
        return Err(format!("error processing PV {name}: it is on node {other:?}, not on this one"));
    }
    let path = volume.spec.as_ref().and_then(|spec| spec.local.as_ref()).map(|local| local.path.as_str()).unwrap_or_default();
    let expected = root.join(name);
    // The data directory may have moved, with a link in its old place, which is not gone by.
    let is_same = || {
        Path::new(path).file_name() == Some(name.as_ref()) && {
            let of = |path: &Path| fs::canonicalize(path.parent().unwrap_or(path)).ok();
            of(Path::new(path)).is_some_and(|parent| Some(parent) == of(&expected))
        }
    };
    if name.contains('/') || Path::new(path) != expected && !is_same() {
        let expected = expected.display();
        return Err(format!("error processing PV {name}: its path is {path:?}, volumes of this node are at {expected}"));
    }
    Ok(Some(expected))
}

/// The directory of such a volume: what leads to it may have links, which are the administrator's, and the directory itself is none.
pub(super) fn open(path: &Path) -> io::Result<fs::File> {
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(io::Error::other("it is a symbolic link: a volume that was moved is bind-mounted in its old place"));
    }
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// A path to what is open, as long as it is.
pub(super) fn by_descriptor(opened: &fs::File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn volume(annotations: Value, path: &str) -> PersistentVolume {
        let metadata = json!({"name": "pvc-a", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"local": {"path": path}}})).unwrap()
    }

    /// What another node says of itself leads nowhere on this one.
    #[test]
    fn volumes_of_the_provisioner_are_this_nodes_own() {
        let check = |annotations: Value, path: &str, expected: Result<(), &str>| {
            let found = check(&volume(annotations, path), "n", Path::new("/data/volumes"));
            match (&found, expected) {
                (Ok(own), Ok(())) if own.as_deref().is_none_or(|own| own == Path::new(path)) => {}
                (Err(found), Err(expected)) if found.contains(expected) => {}
                _ => panic!("{path}: {found:?}, not {expected:?}"),
            }
        };
        let ours = |node: &str| json!({PROVISIONED_BY: PROVISIONER, NODE: node});
        check(ours("n"), "/data/volumes/pvc-a", Ok(()));
        check(json!({PROVISIONED_BY: PROVISIONER}), "/data/volumes/pvc-a", Ok(()));
        check(ours("m"), "/data/volumes/pvc-a", Err("it is on node \"m\""));
        for path in ["/pvc-a", "/data/volumes", "/data/volumes/pvc-b", "/data/volumes/../pvc-a", "/data/volumes/pvc-a/x", ""] {
            check(ours("n"), path, Err("volumes of this node are at /data/volumes/pvc-a"));
            check(json!({PROVISIONED_BY: PROVISIONER}), path, Err("volumes of this node are at"));
            // An administrator's own volumes are where he says.
            check(json!({}), path, Ok(()));
            check(json!({PROVISIONED_BY: "other"}), path, Ok(()));
        }
    }

    #[test]
    fn links_are_followed_to_the_volumes_and_not_at_them() {
        let scratch = tempfile::tempdir().unwrap();
        let (root, linked) = (scratch.path().join("volumes"), scratch.path().join("linked"));
        fs::create_dir_all(root.join("pvc-a")).unwrap();
        fs::create_dir(scratch.path().join("outside")).unwrap();
        fs::write(root.join("pvc-a/file"), "data").unwrap();
        std::os::unix::fs::symlink(&root, &linked).unwrap();
        std::os::unix::fs::symlink(scratch.path().join("outside"), root.join("pvc-b")).unwrap();
        let opened = open(&linked.join("pvc-a")).unwrap();
        assert_eq!(fs::read_to_string(by_descriptor(&opened).join("file")).unwrap(), "data");
        let moved = check(&volume(json!({PROVISIONED_BY: PROVISIONER}), linked.join("pvc-a").to_str().unwrap()), "n", &root);
        assert_eq!(moved, Ok(Some(root.join("pvc-a"))), "the way to the volumes may have links, and is not gone");
        assert!(
            open(&root.join("pvc-b")).is_err() && open(&root.join("pvc-c")).is_err() && open(&root.join("pvc-a/file")).is_err()
        );
    }
}
