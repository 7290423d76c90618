//! What the volumes of pods hold. File systems are asked how full they are; what has none of its own is added up, which takes as long as there are
//! files, so that whoever asks gets what was found last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};
use runtime::{DiskUsage, disk_usage};

use super::paced::Each;
use crate::context::Context;
use crate::node::machine;
use crate::node::supply::Supply;
use crate::spec::Model;
use crate::volumes::points::Table;
use crate::volumes::{claims, path, remote};

/// What a volume holds, and the room of its file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeUsage {
    pub(crate) name: String,
    /// The claim behind it.
    pub(crate) claim: Option<String>,
    /// It is a part of what its pod has on the node's disk.
    pub(crate) is_ephemeral: bool,
    pub(crate) bytes: Used,
    pub(crate) inodes: Used,
}

impl VolumeUsage {
    /// With the sum of its files.
    fn with(mut self, sum: DiskUsage) -> Self {
        self.bytes.used = i64::try_from(sum.bytes).unwrap_or(i64::MAX);
        self.inodes.used = i64::try_from(sum.inodes).unwrap_or(i64::MAX);
        self
    }
}

/// An amount that is used, and of what, where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) used: i64,
    pub(crate) supply: Option<Supply>,
}

impl Used {
    /// What is kept for root counts as used.
    fn all_of(supply: Supply) -> Self {
        Self { used: supply.total - supply.available, supply: Some(supply) }
    }
}

/// A volume of which the kernel has told what it can.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    usage: VolumeUsage,
    /// The directory whose files are to be added up.
    directory: Option<PathBuf>,
}

/// What was added up last, by the pod's UID and the volume's name. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sums(Each<Option<DiskUsage>>);

impl Sums {
    /// Completes what was found. A volume that has not been added up yet is left out.
    pub(crate) async fn complete(&self, cx: &Context, found: BTreeMap<String, Vec<Found>>) -> BTreeMap<String, Vec<VolumeUsage>> {
        let key = |uid: &str, volume: &Found| format!("{uid}/{}", volume.usage.name);
        let of_pod = |(uid, volumes): (&String, &Vec<Found>)| {
            let one = |volume: &Found| volume.directory.clone().map(|directory| (key(uid, volume), add_up(directory)));
            volumes.iter().filter_map(one).collect::<Vec<_>>()
        };
        let all = found.iter().flat_map(of_pod).collect();
        let sums = self.0.scraped(&cx.tasks, "size of a volume", all).await;
        let whole = |uid: &str, volume: Found| match volume.directory {
            None => Some(volume.usage),
            Some(_) => (**sums.get(&key(uid, &volume))?).map(|sum| volume.usage.with(sum)),
        };
        let of_pod = |(uid, volumes): (String, Vec<Found>)| {
            let volumes = volumes.into_iter().filter_map(|volume| whole(&uid, volume)).collect();
            (uid, volumes)
        };
        found.into_iter().map(of_pod).collect()
    }
}

async fn add_up(directory: PathBuf) -> Option<DiskUsage> {
    tokio::task::spawn_blocking(move || disk_usage(&directory)).await.ok()
}

/// Volumes by the pods' UIDs. Blocks no longer than the disks of this node do.
pub(crate) fn read(pods: &[Arc<Pod>], pod_dir: impl Fn(&str) -> PathBuf) -> BTreeMap<String, Vec<Found>> {
    let mounts = Table::read().unwrap_or_default();
    let of_pod = |pod: &Arc<Pod>| {
        let model = Model::new(pod.clone());
        let dir = pod_dir(model.uid());
        let volumes =
            model.spec().volumes.iter().flatten().filter_map(|volume| measure(&model, volume, &path(&dir, volume), &mounts));
        (model.uid().to_owned(), volumes.collect())
    };
    pods.iter().map(of_pod).collect()
}

/// As upstream, directories of the node and images are not measured. What has a file system of its own is asked how full that is, and other
/// volumes are added up. A server that does not answer at once is not waited for.
fn measure(model: &Model, volume: &Volume, at: &Path, mounts: &Table) -> Option<Found> {
    if volume.host_path.is_some() || volume.image.is_some() {
        return None;
    }
    let claim = claims::name(model, volume);
    let mount = mounts.at(at);
    if let Some(mount) = mount.filter(|mount| mount.may_hang()) {
        let (bytes, inodes) = remote::room(mount)?;
        let (bytes, inodes) = (Used::all_of(bytes), Used::all_of(inodes));
        let usage = VolumeUsage { name: volume.name.clone(), claim, is_ephemeral: false, bytes, inodes };
        return Some(Found { usage, directory: None });
    }
    let is_mounted = mount.is_some();
    // Nothing looks at places where a server's file system may be by now.
    if volume.nfs.is_some() || claim.is_some() && !is_mounted || !at.is_dir() {
        return None;
    }
    let supplies = machine::disk(at);
    let (directory, (bytes, inodes)) = match supplies.filter(|_| is_mounted) {
        Some((bytes, inodes)) => (None, (Used::all_of(bytes), Used::all_of(inodes))),
        None => {
            let (bytes, inodes) = supplies.unzip();
            (Some(at.to_owned()), (Used { used: 0, supply: bytes }, Used { used: 0, supply: inodes }))
        }
    };
    let is_ephemeral = !is_mounted && (volume.empty_dir.is_some() || volume.config_map.is_some());
    let usage = VolumeUsage { name: volume.name.clone(), claim, is_ephemeral, bytes, inodes };
    Some(Found { usage, directory })
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};
    use serde_json::json;

    use super::*;
    use crate::volumes::points::unmount_below;

    /// Added up in place.
    fn summed(found: BTreeMap<String, Vec<Found>>) -> BTreeMap<String, Vec<VolumeUsage>> {
        let sum = |found: Found| match found.directory {
            Some(directory) => found.usage.with(disk_usage(&directory)),
            None => found.usage,
        };
        found.into_iter().map(|(uid, volumes)| (uid, volumes.into_iter().map(sum).collect())).collect()
    }

    /// What the kubectl plugins for volumes read (`volume` of a pod in the summary API).
    #[test]
    fn volumes_hold_what_is_in_them() {
        let root = tempfile::tempdir().unwrap();
        let spec = json!({"containers": [{"name": "c"}], "volumes": [
            {"name": "scratch", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/etc"}},
            {"name": "claimed", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "later", "configMap": {"name": "m"}}]});
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec});
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        let model = Model::new(pod.clone());
        for volume in &model.spec().volumes.as_ref().unwrap()[..3] {
            std::fs::create_dir_all(path(root.path(), volume)).unwrap();
        }
        let scratch = path(root.path(), &model.spec().volumes.as_ref().unwrap()[0]);
        std::fs::write(scratch.join("file"), [1; 10_000]).unwrap();
        let read = summed(read(&[pod], |_| root.path().to_owned()));
        // The directory of the claim has nothing mounted: what it shows is the node's disk.
        let [one] = read["u"].as_slice() else { panic!("{read:?}") };
        assert_eq!((one.name.as_str(), one.is_ephemeral, one.inodes.used), ("scratch", true, 1));
        assert!(one.bytes.used >= 10_000 && one.bytes.used < 100_000, "{one:?}");
        assert!(one.bytes.supply.is_some_and(|disk| disk.total > one.bytes.used));
    }

    /// What a claim has mounted is asked how full it is.
    #[test]
    fn claims_are_as_full_as_their_file_systems() {
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let volumes = json!([{"name": "claimed", "persistentVolumeClaim": {"claimName": "data"}}]);
        let spec = json!({"containers": [{"name": "c"}], "volumes": volumes});
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec});
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        let at = path(root.path(), &Model::new(pod.clone()).spec().volumes.as_ref().unwrap()[0]);
        std::fs::create_dir_all(&at).unwrap();
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        std::fs::write(at.join("file"), [1; 8192]).unwrap();
        let read = summed(read(&[pod], |_| root.path().to_owned()));
        unmount_below(root.path()).unwrap();
        let [one] = read["u"].as_slice() else { panic!("{read:?}") };
        assert_eq!((one.claim.as_deref(), one.is_ephemeral, one.bytes.used), (Some("data"), false, 8192));
        assert_eq!(one.bytes.supply.map(|supply| supply.total), Some(1 << 20));
    }
}
