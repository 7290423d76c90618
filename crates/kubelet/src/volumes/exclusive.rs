//! Volumes that one pod of the cluster may have at a time: those of which `ReadWriteOncePod` is the only access mode (KEP-2485). The
//! scheduler sees to it, and the kubelet does for pods that it has not placed.
//!
//! A note in the pod's directory says that the pod has the volume. It is there before anything is mounted, outlasts the kubelet, and goes with
//! the directory, when nothing is mounted any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolume;
use parking_lot::Mutex;

/// The directory of notes, among those of volumes: no plugin is called so.
const DIRECTORY: &str = "knarr~exclusive";

/// One pod at a time looks whether others have a volume and takes it.
static TURN: Mutex<()> = Mutex::new(());

/// Whether a volume is for one pod only. With more modes it is not known which of them a pod means.
pub fn is_exclusive(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    modes == ["ReadWriteOncePod"]
}

fn note(pod_dir: &Path, volume: &str) -> PathBuf {
    pod_dir.join("volumes").join(DIRECTORY).join(volume)
}

/// Notes that a pod has the volume; false when another pod of the node has it. Blocking, idempotent.
///
/// # Errors
/// It cannot be known who has it, or not be noted.
pub fn take(data_dir: &Path, uid: &str, volume: &str) -> io::Result<bool> {
    let _turn = TURN.lock();
    let pods = data_dir.join("pods");
    let own = note(&pods.join(uid), volume);
    fs::create_dir_all(own.parent().unwrap_or(&pods))?;
    for entry in fs::read_dir(&pods)? {
        let entry = entry?;
        if entry.file_name() != uid && note(&entry.path(), volume).try_exists()? {
            return Ok(false);
        }
    }
    fs::File::create(own)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As upstream: with several modes it is not known which of them a pod means.
    #[test]
    fn only_the_mode_alone_is_exclusive() {
        let check = |modes: &[&str], expected: bool| {
            let volume = json!({"spec": {"accessModes": modes}});
            assert_eq!(is_exclusive(&serde_json::from_value(volume).unwrap()), expected, "{modes:?}");
        };
        check(&["ReadWriteOncePod"], true);
        check(&["ReadWriteOnce"], false);
        check(&["ReadWriteOnce", "ReadWriteOncePod"], false);
        check(&[], false);
    }

    #[test]
    fn one_pod_has_it_until_its_directory_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let take = |uid: &str, volume: &str| take(directory.path(), uid, volume).unwrap();
        assert!(take("a", "v") && take("a", "v"));
        assert!(!take("b", "v"));
        assert!(take("b", "w"));
        base::trees::remove(&directory.path().join("pods/a")).unwrap();
        assert!(take("b", "v"));
        assert!(!take("a", "v"));
    }
}
