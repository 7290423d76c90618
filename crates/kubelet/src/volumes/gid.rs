//! Groups that volumes ask for: who uses a volume with the annotation `pv.beta.kubernetes.io/gid` belongs to that group.
//!
//! A note in the pod's directory says which. It is there before anything is mounted and outlasts the kubelet, since containers start again when
//! nobody looks at the volume any more; it goes with the pod's volumes.

use std::fs;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::PersistentVolume;

const ANNOTATION: &str = "pv.beta.kubernetes.io/gid";

/// The directory of notes, among those of volumes: no plugin is called so.
const DIRECTORY: &str = "knarr~gid";

/// What a volume asks for. What is no group is passed over, as upstream.
pub fn of(volume: &PersistentVolume) -> Option<u32> {
    group(volume.metadata.annotations.as_ref()?.get(ANNOTATION)?)
}

/// The highest number means "no group" to the kernel.
fn group(text: &str) -> Option<u32> {
    text.parse().ok().filter(|group| *group != u32::MAX)
}

/// Notes that a pod's volume, by its name in the pod, asks for a group. Blocking, idempotent.
///
/// # Errors
/// It cannot be noted.
pub fn note(pod_dir: &Path, volume: &str, group: u32) -> io::Result<()> {
    let directory = pod_dir.join("volumes").join(DIRECTORY);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(volume), group.to_string())
}

/// The groups that the volumes of a pod ask for. Blocking.
///
/// # Errors
/// The notes cannot be read.
pub fn all(pod_dir: &Path) -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(pod_dir.join("volumes").join(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut groups = Vec::new();
    for entry in entries {
        groups.extend(group(&fs::read_to_string(entry?.path())?));
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn groups_are_numbers() {
        let check = |text: &str, expected: Option<u32>| {
            let volume = json!({"metadata": {"annotations": {ANNOTATION: text}}});
            assert_eq!(of(&serde_json::from_value(volume).unwrap()), expected, "{text}");
        };
        check("1234", Some(1234));
        check("4294967295", None);
        check("-1", None);
        check("staff", None);
        assert_eq!(of(&PersistentVolume::default()), None);
    }

    #[test]
    fn notes_are_found_again() {
        let pod = tempfile::tempdir().unwrap();
        assert!(all(pod.path()).unwrap().is_empty());
        for (volume, group) in [("a", 7), ("b", 5), ("c", 7), ("a", 7)] {
            note(pod.path(), volume, group).unwrap();
        }
        assert_eq!(all(pod.path()).unwrap(), [5, 7]);
    }
}
