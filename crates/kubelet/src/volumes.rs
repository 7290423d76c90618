//! Volumes of a pod: made before its containers, kept current while they run, removed after them.

pub mod atomic;
pub mod block;
pub mod claims;
pub mod host_path;
pub mod huge_pages;
pub mod mounts;
pub mod nested;
pub mod payload;
pub mod points;
pub mod propagation;
pub mod sub_path;
pub mod tokens;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume};
use nix::mount::{MsFlags, mount};
use tokio::sync::Mutex;

use crate::certificates::pod::PodCertificates;
use crate::context::Context;
use crate::drivers::mount::{self as csi_mount, Mounted};
use crate::drivers::operations::operated;
use crate::drivers::source::Source;
use crate::drivers::{expand, records};
use crate::refs::PodReferences;
use crate::spec::Model;
use crate::units;
use claims::{Backing, Mode};
use payload::Sources;
use points::{is_mount_point, remove_points, unmount_below};
use tokens::Tokens;

/// The directory of volumes behind claims: what is in them is not the pod's.
const CLAIMED: &str = "kubernetes.io~local-volume";

/// Makes and updates the volumes of one pod.
pub struct Volumes {
    cx: Arc<Context>,
    tokens: Mutex<Tokens>,
    certificates: Mutex<PodCertificates>,
    /// What drivers have mounted, by the volumes' names.
    mounted: parking_lot::Mutex<HashMap<String, Mounted>>,
}

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// What the pod claims is not there.
    #[error(transparent)]
    Claim(#[from] claims::Error),
    /// A step on the way to it fails.
    #[error("{0}")]
    Step(String),
}

impl From<String> for Failure {
    fn from(error: String) -> Self {
        Self::Step(error)
    }
}

impl Failure {
    /// What an event says of it.
    fn message(self, model: &Model, volume: &str) -> String {
        match self {
            Self::Claim(error) => claims::failure(volume, &error),
            Self::Step(error) => block::failure(model, volume, error),
        }
    }
}

/// Where a volume is, as seen from the host.
pub fn path(pod_dir: &Path, volume: &Volume) -> PathBuf {
    let plugin = if let Some(source) = &volume.host_path {
        return PathBuf::from(&source.path);
    } else if volume.empty_dir.is_some() {
        "kubernetes.io~empty-dir"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else if volume.csi.is_some() {
        return records::target(pod_dir, &volume.name);
    } else if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        CLAIMED
    } else {
        "kubernetes.io~projected"
    };
    pod_dir.join("volumes").join(plugin).join(&volume.name)
}

/// The kind of a volume that this kubelet does not offer.
fn unsupported(volume: &Volume) -> Option<&'static str> {
    let checks = [
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
        (volume.git_repo.is_some(), "gitRepo"),
    ];
    let known = volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.csi.is_some()
        || volume.projected.is_some();
    checks.iter().find(|(there, _)| *there).map(|(_, kind)| *kind).or((!known).then_some("this kind"))
}

impl Volumes {
    /// For one pod.
    pub fn new(cx: Arc<Context>) -> Self {
        Self { cx, tokens: Mutex::default(), certificates: Mutex::default(), mounted: parking_lot::Mutex::default() }
    }

    /// Makes what is missing and updates what has changed; says when a token or certificate must be renewed. Idempotent.
    pub async fn sync(&self, model: &Model, refs: &Arc<PodReferences>) -> Result<Option<Timestamp>, String> {
        if let Some((volume, kind)) = model.spec().volumes.iter().flatten().find_map(|v| unsupported(v).map(|kind| (v, kind))) {
            return Err(format!(
                "MountVolume.SetUp failed for volume {:?} : volumes of type {kind} are not supported by this kubelet",
                volume.name
            ));
        }
        let (mut tokens, mut certificates) = (self.tokens.lock().await, self.certificates.lock().await);
        let fetch = tokens.refresh(&self.cx.options.client, model);
        let (known, fetched, certified) = tokio::join!(refs.known(), fetch, certificates.refresh(&self.cx, model));
        known.map_err(|error| match payload::volume_of(model, &error) {
            Some(volume) => block::failure(model, volume, error.to_string()),
            None => format!("MountVolume.SetUp failed: {error}"),
        })?;
        fetched.and(certified).map_err(|error| format!("MountVolume.SetUp failed {error}"))?;
        let (texts, pairs) = (tokens.texts(), certificates.pairs());
        let due = [tokens.due(), certificates.due()].into_iter().flatten().min();
        let mut backings = HashMap::new();
        let mut again = false;
        for volume in model.spec().volumes.iter().flatten() {
            let (backing, driver) = self.backing(model, volume).await.map_err(|failure| failure.message(model, &volume.name))?;
            backings.extend(backing.map(|backing| (volume.name.clone(), backing)));
            again |= driver.is_some_and(|driver| driver.republish || driver.grows);
        }
        let due = [due, again.then(|| soon(Timestamp::now()))].into_iter().flatten().min();
        let (cx, model, refs) = (self.cx.clone(), model.clone(), refs.clone());
        let work = move || {
            let facts = cx.facts(Vec::new());
            let sources = Sources { model: &model, objects: refs.as_ref(), facts: &facts, tokens: &texts, certificates: &pairs };
            make_all(&cx.pod_dir(model.uid()), &sources, &backings)
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())??;
        Ok(due)
    }

    /// What is behind the claim of a volume that is not mounted yet, and what its driver does, where it has one.
    async fn backing(&self, model: &Model, volume: &Volume) -> Result<(Option<Backing>, Option<Mounted>), Failure> {
        let at = path(&self.cx.pod_dir(model.uid()), volume);
        let known = self.mounted.lock().get(&volume.name).cloned();
        // A process before may have mounted it; whose driver wants more is not known then.
        let is_mounted = is_mount_point(&at).map_err(|error| error.to_string())?
            || block::is_mapped(&self.cx.pod_dir(model.uid()), &volume.name);
        let rests = known.as_ref().is_none_or(|driver| !driver.republish && !driver.grows);
        if let Some(source) = Source::of_pod(model, volume) {
            if is_mounted && known.is_some() && rests {
                return Ok((None, known));
            }
            return Ok((None, Some(self.of_driver(model, volume, &source).await?)));
        }
        let Some(claim) = claims::name(model, volume) else { return Ok((None, None)) };
        let by_driver = known.is_some() || !is_mounted || self.is_recorded(model);
        if is_mounted && (!by_driver || known.is_some() && rests) {
            return Ok((None, known));
        }
        let found = claims::find(&self.cx.options.client, model, volume, &claim).await;
        let (claim, found) = found?;
        let mode = Mode::of(&found);
        block::fits(model, volume, mode)?;
        let to_read = volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true));
        let Some(source) = Source::of_volume(&found, to_read) else {
            return Ok((Some(Backing::of(&found).map_err(|error| error.to_string())?), None));
        };
        let driver = match known.filter(|driver| is_mounted && !driver.republish) {
            Some(driver) => driver,
            None => self.of_driver(model, volume, &source).await?,
        };
        if driver.grows {
            expand::expand(&self.cx, model, &source, &claim, &found).await?;
        }
        Ok((Some(Backing::of_driver(driver.target.clone(), mode)), Some(driver)))
    }

    async fn of_driver(&self, model: &Model, volume: &Volume, source: &Source) -> Result<Mounted, String> {
        let started = Instant::now();
        let result = csi_mount::set_up(&self.cx, model, source).await;
        operated(&source.driver, "volume_mount", started.elapsed(), &result);
        let mounted = result?;
        self.mounted.lock().insert(volume.name.clone(), mounted.clone());
        Ok(mounted)
    }

    /// Whether the pod has volumes of drivers, by what is on disk.
    fn is_recorded(&self, model: &Model) -> bool {
        records::list(&self.cx.pod_dir(model.uid())).is_ok_and(|records| !records.is_empty())
    }

    /// Unmounts and removes everything in the pod's directory but its containers' last words. Idempotent.
    pub async fn remove(&self, uid: &str) -> Result<(), String> {
        remove(&self.cx, uid).await
    }
}

/// Unmounts and removes a pod's volumes; see [`Volumes::remove`].
pub async fn remove(cx: &Context, uid: &str) -> Result<(), String> {
    let pod_dir = cx.pod_dir(uid);
    let bound = [pod_dir.join("volume-subpaths"), pod_dir.join("volumes").join(CLAIMED)];
    let mapped = pod_dir.clone();
    let unbind = move || {
        block::unmap_all(&mapped)?;
        bound.iter().try_for_each(|directory| unmount_below(directory))
    };
    let failed = |error: io::Error| format!("cannot remove volumes: {error}");
    tokio::task::spawn_blocking(unbind).await.map_err(|error| error.to_string())?.map_err(failed)?;
    // A driver undoes what it has done before anybody else does.
    csi_mount::tear_down(cx, &pod_dir).await?;
    let work = move || -> io::Result<()> {
        unmount_below(&pod_dir)?;
        remove_points(&pod_dir.join("volumes").join(CLAIMED), 1)?;
        // By volume, container and mount.
        remove_points(&pod_dir.join("volume-subpaths"), 3)?;
        base::trees::remove(&pod_dir.join("volumes"))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?.map_err(failed)
}

/// When volumes are looked after again whose drivers want that: nobody tells a node that a claim has changed.
fn soon(now: Timestamp) -> Timestamp {
    now.saturating_add(SignedDuration::from_secs(60)).unwrap_or(now)
}

fn make_all(pod_dir: &Path, sources: &Sources<'_>, backings: &HashMap<String, Backing>) -> Result<(), String> {
    let group = sources.model.spec().security_context.as_ref().and_then(|c| c.fs_group).and_then(|g| u32::try_from(g).ok());
    for volume in sources.model.spec().volumes.iter().flatten() {
        let failed = |error: String| block::failure(sources.model, &volume.name, error);
        let at = path(pod_dir, volume);
        if let Some(files) = sources.files(volume) {
            let files = files.map_err(failed)?;
            if volume.config_map.is_none() {
                // Secrets and tokens stay off the disk.
                memory(&at, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "").map_err(|error| failed(error.to_string()))?;
            }
            let written = atomic::write(&at, &files, group);
            let below = nested::below(sources.model.spec(), &volume.name);
            written.and_then(|_| nested::make(&at, &below, group)).map_err(|error| failed(error.to_string()))?;
        } else if let Some(source) = &volume.host_path {
            host_path::check(&source.path, source.type_.as_deref().unwrap_or_default()).map_err(failed)?;
        } else if let Some(source) = &volume.empty_dir {
            empty_dir(&at, source, sources, group).map_err(|error| failed(error.to_string()))?;
        } else if let Some(backing) = backings.get(&volume.name).filter(|backing| backing.mode() == Mode::Block) {
            block::map(pod_dir, &volume.name, backing.path()).map_err(failed)?;
        } else if let Some(backing) = backings.get(&volume.name) {
            let policy = sources.model.spec().security_context.as_ref().and_then(|c| c.fs_group_change_policy.as_deref());
            backing.bind(&at, group.map(|group| (group, policy != Some("OnRootMismatch")))).map_err(failed)?;
        }
    }
    Ok(())
}

/// Whether something is mounted at `path`.
fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|metadata| metadata.dev());
    let parent = path.parent().and_then(device);
    device(path).is_some_and(|own| Some(own) != parent)
}

/// Makes `at` a file system in memory, unless it is one already.
fn memory(at: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    fs::create_dir_all(at)?;
    if is_mounted(at) {
        return Ok(());
    }
    Ok(mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))?)
}

/// An emptyDir is made once and belongs to the containers from then on. It is there with owner and mode, or not at all: one that was
/// interrupted between would stay as it is.
fn empty_dir(at: &Path, source: &EmptyDirVolumeSource, sources: &Sources<'_>, group: Option<u32>) -> io::Result<()> {
    let mode = empty_dir_mode(source, group);
    let owned = format!("mode={mode:o},gid={}", group.unwrap_or_default());
    match source.medium.as_deref().unwrap_or_default() {
        "" if at.exists() => Ok(()),
        "" => {
            // No volume is called so.
            let mut draft = at.as_os_str().to_owned();
            draft.push(".new");
            fs::create_dir_all(&draft)?;
            chown(Path::new(&draft), None, group)?;
            fs::set_permissions(&draft, fs::Permissions::from_mode(mode))?;
            fs::rename(&draft, at)
        }
        "Memory" => {
            // What containers build in it may have set-user-id bits and device files, as on a disk.
            let size = memory_size(source, sources.model, sources.facts.allocatable_memory);
            memory(at, MsFlags::empty(), &format!("size={size},{owned}"))
        }
        medium if medium.starts_with(huge_pages::MEDIUM) => {
            if !is_mounted(at) {
                let options = huge_pages::options(medium, sources.model)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                fs::create_dir_all(at)?;
                let options = format!("{options},{owned}");
                mount(Some("nodev"), at, Some("hugetlbfs"), MsFlags::empty(), Some(options.as_str()))?;
            }
            // hugetlbfs takes the option mode without the bit by which files inherit the group.
            let shared = fs::metadata(at)?.permissions().mode() | (mode & 0o2000);
            fs::set_permissions(at, fs::Permissions::from_mode(shared))
        }
        other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("medium {other:?} is not supported"))),
    }
}

/// Bytes of a file system in memory: the least of its own limit, the pod's memory and the node's, as upstream.
fn memory_size(source: &EmptyDirVolumeSource, model: &Model, allocatable: i64) -> i64 {
    let own = source.size_limit.as_ref().map(units::whole).filter(|bytes| *bytes > 0);
    let pod = crate::resources::pod(model).memory_limit;
    [own, pod].into_iter().flatten().fold(allocatable, i64::min)
}

/// Everybody may write. With a group, files inherit it; in memory, as in any new tmpfs, only their owners may remove them.
fn empty_dir_mode(source: &EmptyDirVolumeSource, group: Option<u32>) -> u32 {
    let setgid = if group.is_some() { 0o2000 } else { 0 };
    let sticky = if source.medium.as_deref() == Some("Memory") { 0o1000 } else { 0 };
    0o777 | setgid | sticky
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_volume_pod_and_node_allow() {
        let check = |own: Option<&str>, pod: serde_json::Value, expected: i64| {
            let source = EmptyDirVolumeSource { medium: None, size_limit: own.map(units::quantity) };
            let container = serde_json::json!({"name": "c", "resources": {"limits": pod}});
            let model = crate::pod::testing::model(serde_json::json!({"containers": [container]}));
            assert_eq!(memory_size(&source, &model, 4 << 30) >> 20, expected, "{own:?} {pod}");
        };
        let limited = || serde_json::json!({"memory": "64Mi"});
        check(None, serde_json::json!({}), 4096);
        check(Some("16Mi"), serde_json::json!({}), 16);
        check(Some("16Mi"), limited(), 16);
        check(Some("1Gi"), limited(), 64);
        check(Some("0"), limited(), 64);
        check(Some("8Gi"), serde_json::json!({}), 4096);
    }

    #[test]
    fn empty_dir_modes() {
        let check = |medium: &str, group: Option<u32>, mode: u32| {
            let source = EmptyDirVolumeSource { medium: Some(medium.to_owned()), size_limit: None };
            assert_eq!(empty_dir_mode(&source, group), mode, "{medium} {group:?}");
        };
        check("", None, 0o777);
        check("", Some(123), 0o2777);
        check("Memory", None, 0o1777);
        check("Memory", Some(123), 0o3777);
    }
}
