//! Volumes of a pod: made before its containers, kept current while they run, removed after them.

pub mod atomic;
pub mod block;
pub mod claims;
pub mod empty_dir;
pub mod exclusive;
pub mod failure;
pub mod gid;
pub mod groups;
pub mod host_path;
pub mod huge_pages;
mod kinds;
pub mod local;
pub mod mounts;
pub mod nested;
pub mod nfs;
mod on_disk;
pub mod options;
pub mod payload;
pub mod points;
pub mod propagation;
mod provisioned;
pub mod remote;
pub mod sub_path;
pub mod tokens;
pub mod used;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use client::events::Type;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use nix::mount::MsFlags;
use pods::volumes as rules;
use tokio::sync::Mutex;

use crate::certificates::pod::PodCertificates;
use crate::context::Context;
use crate::drivers::mount::{self as csi_mount, Mounted};
use crate::drivers::operations::operated;
use crate::drivers::source::Source;
use crate::drivers::{expand, records};
use crate::refs::PodReferences;
use crate::spec::Model;
use claims::{Backing, Mode, Mountable};
use failure::{Failure, Step, Told};
use groups::{Ownership, Progress};
use nfs::Export;
use on_disk::OnDisk;
use payload::Sources;
use points::{remove_points, unmount_below, unmount_own_below};
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
    /// The names of hostPath volumes that were as they are to be: their containers have them, whatever becomes of the path.
    found: parking_lot::Mutex<BTreeSet<String>>,
}

/// What the pod is told of the volumes that cannot be had, by their names.
type Failures = BTreeMap<String, Told>;

/// What was found of a volume.
struct Found {
    /// What is to be mounted for it, unless that is mounted already.
    mountable: Option<Mountable>,
    /// What its driver does, where it has one.
    driver: Option<Mounted>,
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
    } else if volume.nfs.is_some() {
        nfs::DIRECTORY
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
fn unsupported(volume: &Volume) -> Option<String> {
    let known = volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.csi.is_some()
        || volume.nfs.is_some()
        || volume.projected.is_some();
    (!known).then(|| kinds::of_pod(volume))
}

impl Volumes {
    /// For one pod.
    pub fn new(cx: Arc<Context>) -> Self {
        Self {
            cx,
            tokens: Mutex::default(),
            certificates: Mutex::default(),
            mounted: parking_lot::Mutex::default(),
            found: parking_lot::Mutex::default(),
        }
    }

    /// Makes what is missing of the volumes that containers [use](used) and updates what has changed; says when a token or certificate must
    /// be renewed. Idempotent. Each volume is made for itself, as upstream: one that cannot be had keeps no other from being current.
    ///
    /// # Errors
    /// What the pod is told of the volumes that cannot be had. All others have been made.
    pub async fn sync(&self, model: &Model, refs: &Arc<PodReferences>) -> Result<Option<Timestamp>, Vec<Told>> {
        let (mut tokens, mut certificates) = (self.tokens.lock().await, self.certificates.lock().await);
        let fetch = tokens.refresh(&self.cx.options.client, model);
        let (unread, untold, uncertified) = tokio::join!(refs.unread(), fetch, certificates.refresh(&self.cx, model));
        let mut failures = Failures::new();
        for volume in used::volumes(model) {
            let name = &volume.name;
            let why = unsupported(volume).map(|kind| format!("volumes of type {kind} are not supported by this kubelet"));
            let why = why.or_else(|| unread.iter().find(|unread| payload::shows(volume, &unread.what)).map(ToString::to_string));
            let why = why.or_else(|| untold.get(name).or_else(|| uncertified.get(name)).cloned());
            failures.extend(why.map(|why| (name.clone(), Failure::from(why).told(model, name))));
        }
        let (texts, pairs) = (tokens.texts(), certificates.pairs());
        let due = [tokens.due(), certificates.due()].into_iter().flatten().min();
        // What the kubelet makes itself waits for no driver.
        let (cx, own, refs) = (self.cx.clone(), model.clone(), refs.clone());
        let passed: BTreeSet<String> = failures.keys().cloned().chain(self.found.lock().iter().cloned()).collect();
        let work = move || {
            let facts = cx.facts(Vec::new());
            let sources = Sources { model: &own, objects: refs.as_ref(), facts: &facts, tokens: &texts, certificates: &pairs };
            make_own(&cx.pod_dir(own.uid()), &sources, &passed)
        };
        failures.extend(tokio::task::spawn_blocking(work).await.map_err(ended)?);
        let paths = used::volumes(model).filter(|volume| volume.host_path.is_some());
        self.found.lock().extend(paths.filter(|volume| !failures.contains_key(&volume.name)).map(|volume| volume.name.clone()));
        let again = self.bind_all(model, &mut failures).await?;
        let due = [due, again.then(|| soon(Timestamp::now()))].into_iter().flatten().min();
        if failures.is_empty() { Ok(due) } else { Err(failures.into_values().collect()) }
    }

    /// Mounts the volumes of drivers and of servers, and binds those behind claims; whether a driver wants to be asked again.
    async fn bind_all(&self, model: &Model, failures: &mut Failures) -> Result<bool, Vec<Told>> {
        let others = used::volumes(model).filter(|volume| !failures.contains_key(&volume.name));
        let one = async |volume: &Volume| (volume.name.clone(), self.mountable(model, volume).await);
        let (mut backings, mut exported) = (HashMap::new(), Vec::new());
        let mut again = false;
        for (volume, found) in futures::future::join_all(others.map(one)).await {
            match found {
                Ok(Found { mountable, driver }) => {
                    again |= driver.is_some_and(|driver| driver.republish || driver.grows);
                    match mountable {
                        Some(Mountable::Path(backing)) => drop(backings.insert(volume, backing)),
                        Some(Mountable::Export(name, export)) => exported.push((volume, name, export)),
                        None => {}
                    }
                }
                Err(failure) => drop(failures.insert(volume.clone(), failure.told(model, &volume))),
            }
        }
        failures.extend(self.mount_exports(model, exported).await);
        let progress = Arc::new(Progress::default());
        let (cx, own, seen) = (self.cx.clone(), model.clone(), progress.clone());
        let work = move || bind_found(&cx.pod_dir(own.uid()), &own, &backings, &seen);
        let bound = progress.tell(&self.cx, model, tokio::task::spawn_blocking(work)).await;
        let (failed, shared) = bound.map_err(ended)?;
        for message in shared {
            self.cx.pod_event(model, Type::Warning, "AlreadyMountedVolume", message);
        }
        failures.extend(failed);
        Ok(again)
    }

    /// Mounts what servers export, all at once: each for as long as its server takes, and not longer than a time.
    async fn mount_exports(&self, model: &Model, exported: Vec<(String, String, Export)>) -> Failures {
        let pod_dir = self.cx.pod_dir(model.uid());
        let place = |name: &str| model.spec().volumes.iter().flatten().find(|volume| volume.name == name);
        let one = async |(volume, name, export): (String, String, Export)| {
            let at = path(&pod_dir, place(&volume)?);
            let why = nfs::set_up(&export, &at).await.err()?;
            let told = Failure::from(why.to_string()).of(&name).told(model, &volume);
            Some((volume, told))
        };
        futures::future::join_all(exported.into_iter().map(one)).await.into_iter().flatten().collect()
    }

    /// What is to be mounted for a volume that is not mounted yet, and what its driver does, where it has one.
    async fn mountable(&self, model: &Model, volume: &Volume) -> Result<Found, Failure> {
        let (source, claim) = (Source::of_pod(model, volume), claims::name(model, volume));
        if source.is_none() && claim.is_none() && volume.nfs.is_none() {
            return Ok(Found { mountable: None, driver: None });
        }
        let known = self.mounted.lock().get(&volume.name).cloned();
        let OnDisk { is_mounted, may_be_drivers } = self.on_disk(model, volume, known.is_some()).await?;
        let rests = known.as_ref().is_none_or(|driver| !driver.republish && !driver.grows);
        if let Some(source) = source {
            if is_mounted && known.is_some() && rests {
                return Ok(Found { mountable: None, driver: known });
            }
            let driver = self.of_driver(model, volume, &source, known.as_ref()).await?;
            return Ok(Found { mountable: None, driver: Some(driver) });
        }
        let Some(claim) = claim else {
            block::fits(model, volume, Mode::Filesystem).map_err(Failure::Claim)?;
            let export = volume.nfs.as_ref().filter(|_| !is_mounted).map(|source| Export::of(source, &[]));
            let mountable = export.map(|export| Mountable::Export(volume.name.clone(), export));
            return Ok(Found { mountable, driver: None });
        };
        let by_driver = known.is_some() || !is_mounted || may_be_drivers;
        if is_mounted && (!by_driver || known.is_some() && rests) {
            return Ok(Found { mountable: None, driver: known });
        }
        let bound = claims::find(&self.cx.options.client, model, volume, &claim, is_mounted).await?;
        let name = rules::volume_of(&bound.0).to_owned();
        self.behind_claim(model, volume, bound, known, is_mounted).await.map_err(|failure| failure.of(&name))
    }

    /// The same of a claim with its volume.
    async fn behind_claim(
        &self,
        model: &Model,
        volume: &Volume,
        (claim, found): (PersistentVolumeClaim, PersistentVolume),
        known: Option<Mounted>,
        is_mounted: bool,
    ) -> Result<Found, Failure> {
        let mode = Mode::of(&found);
        block::fits(model, volume, mode).map_err(Failure::Claim)?;
        if !is_mounted {
            self.admit(model, &found).await?;
            self.note_group(model, volume, &found).await?;
        }
        let Some(source) = Source::of_volume(&found, claims::is_read_only(volume)) else {
            let behind = self.on_node(found, claims::is_read_only(volume)).await?;
            return Ok(Found { mountable: Some(behind), driver: None });
        };
        let mut driver = match known {
            Some(driver) if is_mounted && !driver.republish => driver,
            known => self.of_driver(model, volume, &source, known.as_ref()).await?,
        };
        if driver.grows && !expand::expand(&self.cx, model, &source, &claim, &found).await? {
            driver.grows = false;
            self.mounted.lock().insert(volume.name.clone(), driver.clone());
        }
        let backing = Backing::of_driver(source.name, driver.target.clone(), mode);
        Ok(Found { mountable: Some(Mountable::Path(backing)), driver: Some(driver) })
    }

    /// Whether a volume that the pod does not have yet may be used on this node, and by this pod. The scheduler has looked at both; a pod
    /// with a `nodeName` of its own has passed none.
    async fn admit(&self, model: &Model, volume: &PersistentVolume) -> Result<(), Failure> {
        if !pods::volumes::is_reachable(volume, &self.cx.options.node_name, &Some(self.cx.node_labels())) {
            return Err(Failure::at(Step::Affinity, "no matching NodeSelectorTerms"));
        }
        // As upstream, whose plugin for paths of the host knows none.
        let spec = volume.spec.as_ref().filter(|spec| spec.host_path.is_some());
        if spec.is_some_and(|spec| spec.mount_options.as_ref().is_some_and(|options| !options.is_empty())) {
            return Err(Failure::at(Step::Options, "mount options are not supported"));
        }
        if !exclusive::is_exclusive(volume) {
            return Ok(());
        }
        let (cx, uid) = (self.cx.clone(), model.uid().to_owned());
        let name = volume.metadata.name.clone().unwrap_or_default();
        let others = cx.pods_of_node().list().into_iter().map(Model::new).filter(|other| other.uid() != model.uid());
        let places: Vec<_> = exclusive::places(&cx.options.data_dir, others, volume).collect();
        let take = move || {
            for place in places {
                if place.is_taken()? {
                    return Ok(false);
                }
            }
            exclusive::take(&cx.options.data_dir, &uid, &name)
        };
        let taken = tokio::task::spawn_blocking(take).await.map_err(|error| error.to_string())?;
        match taken.map_err(|error: io::Error| error.to_string())? {
            true => Ok(()),
            false => {
                let why = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";
                Err(Failure::from(why.to_owned()))
            }
        }
    }

    async fn note_group(&self, model: &Model, volume: &Volume, found: &PersistentVolume) -> Result<(), Failure> {
        let Some(group) = gid::of(found) else { return Ok(()) };
        let (pod_dir, name) = (self.cx.pod_dir(model.uid()), volume.name.clone());
        let noted = tokio::task::spawn_blocking(move || gid::note(&pod_dir, &name, group)).await;
        noted.map_err(|error| error.to_string())?.map_err(|error| Failure::from(error.to_string()))
    }

    /// Has a driver show a volume, once more where it is `known`.
    async fn of_driver(
        &self,
        model: &Model,
        volume: &Volume,
        source: &Source,
        known: Option<&Mounted>,
    ) -> Result<Mounted, Failure> {
        let started = Instant::now();
        let result = csi_mount::set_up(&self.cx, model, source).await;
        operated(&source.driver, "volume_mount", started.elapsed(), &result);
        let mounted = result?.after(known);
        self.mounted.lock().insert(volume.name.clone(), mounted.clone());
        Ok(mounted)
    }

    /// What a process before may have left of a volume. A file system that is mounted there may hang: no thread of the async runtime looks.
    async fn on_disk(&self, model: &Model, volume: &Volume, is_known: bool) -> Result<OnDisk, String> {
        let (pod_dir, volume) = (self.cx.pod_dir(model.uid()), volume.clone());
        let look = move || on_disk::look(&pod_dir, &volume, is_known);
        tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Where a volume is that no driver shows. What leads to it may be on a file system that hangs, too.
    async fn on_node(&self, volume: PersistentVolume, only_read: bool) -> Result<Mountable, String> {
        let cx = self.cx.clone();
        let look = move || {
            let own = provisioned::check(&volume, &cx.options.node_name, &cx.options.volumes_dir)?;
            Mountable::of(&volume, own, only_read).map_err(|error| error.to_string())
        };
        tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?
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
    // What a server exports is taken away before anything could look into it. One that stays keeps back no volume of a driver.
    let exports =
        remote::tear_down(&pod_dir, &records::of_pod(&pod_dir)).await.map_err(|why| format!("cannot remove volumes: {why}"));
    let unbind = move || {
        let unmapped = block::unmap_all(&mapped);
        bound.iter().try_for_each(|directory| unmount_own_below(directory))?;
        Ok(unmapped)
    };
    let failed = |error: io::Error| format!("cannot remove volumes: {error}");
    let unmapped = tokio::task::spawn_blocking(unbind).await.map_err(|error| error.to_string())?.map_err(failed)?;
    // A driver undoes what it has done before anybody else does.
    let by_drivers = csi_mount::tear_down(cx, &pod_dir).await;
    exports.and(unmapped.map_err(failed)).and(by_drivers)?;
    let work = move || -> io::Result<()> {
        unmount_below(&pod_dir)?;
        [CLAIMED, nfs::DIRECTORY].iter().try_for_each(|plugin| remove_points(&pod_dir.join("volumes").join(plugin), 1))?;
        // By volume, container and mount.
        remove_points(&pod_dir.join("volume-subpaths"), 3)?;
        base::trees::remove(&pod_dir.join("volumes"))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?.map_err(failed)
}

/// What is told when the work itself has ended.
fn ended(error: tokio::task::JoinError) -> Vec<Told> {
    vec![Told { reason: failure::MOUNT, message: error.to_string() }]
}

/// When volumes are looked after again whose drivers want that: nobody tells a node that a claim has changed.
fn soon(now: Timestamp) -> Timestamp {
    now.saturating_add(SignedDuration::from_secs(60)).unwrap_or(now)
}

/// Makes what the kubelet makes itself, but for the volumes that are `passed` over.
fn make_own(pod_dir: &Path, sources: &Sources<'_>, passed: &BTreeSet<String>) -> Failures {
    let group = group(sources.model);
    let mut failures = Failures::new();
    for volume in used::volumes(sources.model).filter(|volume| !passed.contains(&volume.name)) {
        if let Err(why) = make(pod_dir, sources, volume, group) {
            failures.insert(volume.name.clone(), Failure::from(why).told(sources.model, &volume.name));
        }
    }
    failures
}

/// The group that volumes are given to.
pub fn group(model: &Model) -> Option<u32> {
    model.spec().security_context.as_ref()?.fs_group.and_then(|group| u32::try_from(group).ok())
}

fn make(pod_dir: &Path, sources: &Sources<'_>, volume: &Volume, group: Option<u32>) -> Result<(), String> {
    let at = path(pod_dir, volume);
    let failed = |error: io::Error| error.to_string();
    if let Some(files) = sources.files(volume) {
        let files = files?;
        if volume.config_map.is_none() {
            // Secrets and tokens stay off the disk.
            empty_dir::memory(&at, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "").map_err(failed)?;
        }
        atomic::write(&at, &files, group).map_err(failed)?;
        let below = nested::below(sources.model.spec(), &volume.name);
        nested::make(&at, &below, group).map_err(failed)
    } else if let Some(source) = &volume.host_path {
        host_path::check(&source.path, source.type_.as_deref().unwrap_or_default())
    } else if let Some(source) = &volume.empty_dir {
        empty_dir::make(&at, source, sources, group).map_err(failed)
    } else {
        Ok(())
    }
}

/// Shows the pod what is behind its claims; and what the pod is told of volumes that are another pod's, too.
fn bind_found(
    pod_dir: &Path,
    model: &Model,
    backings: &HashMap<String, Backing>,
    progress: &Progress,
) -> (Failures, Vec<String>) {
    let owner = Ownership::of(model, pod_dir, progress);
    let (mut failures, mut told) = (Failures::new(), Vec::new());
    for volume in model.spec().volumes.iter().flatten() {
        let Some(backing) = backings.get(&volume.name) else { continue };
        let bound = match backing.mode() {
            Mode::Block => block::map(pod_dir, &volume.name, backing.path()).map(|()| None).map_err(Failure::from),
            Mode::Filesystem => backing.bind(&path(pod_dir, volume), owner.filter(|_| !claims::is_read_only(volume))),
        };
        match bound {
            Ok(shared) => told.extend(shared.map(|shared| shared.message(backing.name()))),
            Err(failure) => drop(failures.insert(volume.name.clone(), failure.of(backing.name()).told(model, &volume.name))),
        }
    }
    (failures, told)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_that_are_not_there_are_named() {
        let check = |source: serde_json::Value, expected: Option<&str>| {
            let mut volume = json!({"name": "v"});
            volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            assert_eq!(unsupported(&serde_json::from_value(volume).unwrap()).as_deref(), expected, "{source}");
        };
        check(json!({"emptyDir": {}}), None);
        check(json!({"csi": {"driver": "d"}}), None);
        check(json!({"nfs": {"server": "s", "path": "/"}}), None);
        check(json!({"flexVolume": {"driver": "a/b"}}), Some("flexVolume"));
        check(json!({"fc": {"lun": 1}}), Some("fc"));
        check(json!({"gitRepo": {"repository": "r"}}), Some("gitRepo"));
        check(json!({"azureDisk": {"diskName": "d", "diskURI": "u"}}), Some("azureDisk"));
        check(json!({}), Some("unknown"));
    }
}
