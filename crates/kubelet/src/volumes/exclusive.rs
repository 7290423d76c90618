//! Volumes that one pod of the cluster may have at a time: those of which `ReadWriteOncePod` is the only access mode (KEP-2485). The
//! scheduler sees to it, and the kubelet does for pods that it has not placed.
//!
//! A note in the pod's directory says that the pod has the volume. It is there before anything is mounted, outlasts the kubelet, and goes with
//! the directory, when nothing is mounted any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, Volume};
use parking_lot::Mutex;

use super::points::is_mount_point;
use super::{block, claims};
use crate::spec::Model;

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

/// A pod's volume behind a claim.
pub struct Place {
    pod_dir: PathBuf,
    volume: Volume,
}

/// Where pods have the volume, those that have its claim. Versions before there were notes mounted it without one.
pub fn places<'a>(
    data_dir: &'a Path,
    pods: impl Iterator<Item = Model> + 'a,
    volume: &PersistentVolume,
) -> impl Iterator<Item = Place> + 'a {
    let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()).unwrap_or_default();
    let (namespace, claim) = (claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default());
    let of_namespace = pods.filter(move |model| model.namespace() == namespace);
    of_namespace.flat_map(move |model| {
        let behind = |volume: &&Volume| claims::name(&model, volume).as_ref() == Some(&claim);
        let volumes: Vec<Volume> = model.spec().volumes.iter().flatten().filter(behind).cloned().collect();
        let pod_dir = data_dir.join("pods").join(model.uid());
        volumes.into_iter().map(move |volume| Place { pod_dir: pod_dir.clone(), volume })
    })
}

impl Place {
    /// Whether it is mounted or mapped there. Blocking.
    ///
    /// # Errors
    /// The kernel does not say what is mounted.
    pub fn is_taken(&self) -> io::Result<bool> {
        let at = super::path(&self.pod_dir, &self.volume);
        Ok(is_mount_point(&at)? || block::is_mapped(&self.pod_dir, &self.volume.name))
    }
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
    fn a_pod_that_has_it_from_before_there_were_notes_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let volume = json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"namespace": "n", "name": "c"}}});
        let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
        let pod = |uid: &str, namespace: &str, claim: &str| {
            let volumes = json!([{"name": "e", "emptyDir": {}}, {"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
            let pod = json!({"metadata": {"uid": uid, "namespace": namespace}, "spec": {"containers": [], "volumes": volumes}});
            Model::new(std::sync::Arc::new(serde_json::from_value(pod).unwrap()))
        };
        let pods = [pod("a", "n", "c"), pod("b", "n", "d"), pod("c", "m", "c")].into_iter();
        let found: Vec<_> = places(directory.path(), pods, &volume).collect();
        let at = directory.path().join("pods/a/volumes").join(super::super::CLAIMED).join("data");
        let [place] = found.as_slice() else { panic!("{} pods have the claim", found.len()) };
        assert_eq!(super::super::path(&place.pod_dir, &place.volume), at);
        assert!(!place.is_taken().unwrap());
        if !nix::unistd::Uid::effective().is_root() {
            return eprintln!("SKIPPED: mounting needs root");
        }
        fs::create_dir_all(&at).unwrap();
        super::super::points::bind(directory.path(), &at).unwrap();
        let is_taken = place.is_taken();
        nix::mount::umount2(&at, nix::mount::MntFlags::MNT_DETACH).unwrap();
        assert!(is_taken.unwrap());
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
