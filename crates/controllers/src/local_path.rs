//! Volumes that are directories on the node: made when the first consumer of a claim has been placed there, removed when their claim
//! is gone. What is in them outlives pods and the server.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::events::Type;
use client::kube::api::PostParams;
use client::kube::{self, Api};
use client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::{
    LocalVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use pods::volumes::{self, PROVISIONED_BY, PROVISIONERS, SELECTED_NODE};

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::{meta, write};

/// Who claims name as their provisioner.
pub const PROVISIONER: &str = "knarr.io/local-path";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Where the volumes of a node are.
#[derive(Clone, Debug)]
pub struct LocalVolumes {
    /// The node, whose host name is its own.
    pub node: String,
    /// The directory of which each volume is a part.
    pub root: PathBuf,
}

/// Keys with a namespace are claims, those without are volumes.
pub(crate) struct LocalPath {
    place: LocalVolumes,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    /// Volumes that were deleted before what is in them was.
    left: Arc<Mutex<HashSet<String>>>,
}

impl LocalPath {
    pub(crate) fn new(informers: &Informers, place: LocalVolumes) -> Self {
        Self { place, claims: informers.of(), volumes: informers.of(), classes: informers.of(), left: Arc::default() }
    }
}

impl Controller for LocalPath {
    const NAME: &'static str = "local-path-provisioner";
    const ACCOUNT: &'static str = "local-path-provisioner";

    fn sources(&self) -> Vec<Source> {
        let (left, place) = (self.left.clone(), self.place.clone());
        let of_volumes = Source::mapped(&self.volumes, move |change, queue| {
            let Some(volume) = change.object().filter(|volume| directory(&place, volume).is_some()) else { return };
            if change.new.is_none() && deletes(volume) {
                left.lock().insert(change.key.name.clone());
            }
            queue.add(change.key.clone());
        });
        let claims = self.claims.clone();
        let of_classes = Source::mapped(&self.classes, move |change, queue| {
            let waiting = claims.list().into_iter().filter(|claim| wants(claim));
            waiting.filter(|claim| volumes::class_of_claim(claim) == Some(&change.key.name)).for_each(|claim| {
                queue.add(Key::of(claim.as_ref()));
            });
        });
        vec![Source::own(&self.claims), of_volumes, of_classes]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        match (&key.namespace, self.volumes.get(None, &key.name)) {
            (Some(_), _) => self.provision(cx, key).await?,
            (None, Some(volume)) => self.reclaim(cx, &volume).await?,
            (None, None) if self.left.lock().contains(&key.name) => {
                empty(self.place.root.join(&key.name)).await?;
                self.left.lock().remove(&key.name);
            }
            (None, None) => {}
        }
        Ok(Action::Done)
    }
}

/// Whether a claim waits for a volume of ours.
fn wants(claim: &PersistentVolumeClaim) -> bool {
    volumes::volume_of(claim).is_empty()
        && !meta::ends(claim)
        && PROVISIONERS.iter().any(|key| meta::annotation(claim, key) == Some(PROVISIONER))
}

/// Whether a volume takes what is in it along.
fn deletes(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|spec| spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete"))
}

/// The directory of a volume that was made here. Nothing else is ever removed.
fn directory(place: &LocalVolumes, volume: &PersistentVolume) -> Option<PathBuf> {
    let local = volume.spec.as_ref()?.local.as_ref()?;
    let own = place.root.join(meta::name(volume));
    (meta::annotation(volume, PROVISIONED_BY) == Some(PROVISIONER) && Path::new(&local.path) == own).then_some(own)
}

/// Why a claim gets no volume.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("only the access modes ReadWriteOnce and ReadWriteOncePod are supported")]
    Modes,
    #[error("only the volume mode Filesystem is supported")]
    Block,
    #[error("a volume cannot be made from another one")]
    Source,
}

fn check(claim: &PersistentVolumeClaim) -> Result<(), Refusal> {
    let Some(spec) = &claim.spec else { return Ok(()) };
    let mut modes = spec.access_modes.iter().flatten();
    if !modes.all(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod") {
        return Err(Refusal::Modes);
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(Refusal::Block);
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() { Err(Refusal::Source) } else { Ok(()) }
}

impl LocalPath {
    async fn provision(&self, cx: &Cx, key: &Key) -> Result<(), Error> {
        let Some(claim) = self.claims.by_key(key).filter(|claim| wants(claim)) else { return Ok(()) };
        let class = self.classes.get(None, volumes::class_of_claim(&claim).unwrap_or_default());
        let Some(class) = class.filter(|class| class.provisioner == PROVISIONER) else { return Ok(()) };
        let elsewhere = meta::annotation(claim.as_ref(), SELECTED_NODE).is_some_and(|node| node != self.place.node);
        let name = format!("pvc-{}", meta::uid(claim.as_ref()));
        if elsewhere || self.volumes.get(None, &name).is_some() {
            return Ok(());
        }
        let about = |kind, reason, message: String| cx.events.about(claim.as_ref(), kind, reason, message);
        if let Err(refusal) = check(&claim) {
            let class = meta::name(class.as_ref());
            let message = format!("failed to provision volume with StorageClass {class:?}: {refusal}");
            about(Type::Warning, "ProvisioningFailed", message);
            return Err(Error::Other(refusal.to_string()));
        }
        about(Type::Normal, "Provisioning", format!("External provisioner is provisioning volume for claim \"{key}\""));
        make(self.place.root.join(&name)).await?;
        let api: Api<PersistentVolume> = Api::all(cx.client.clone());
        match api.create(&PostParams::default(), &volume(&self.place, &claim, &class, name.clone())).await {
            Ok(_) => {
                let message = format!("Successfully provisioned volume {name}; its capacity is not enforced");
                about(Type::Normal, "ProvisioningSucceeded", message);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a volume whose claim is gone, and before it what is in it.
    async fn reclaim(&self, cx: &Cx, volume: &PersistentVolume) -> Result<(), Error> {
        let released = volume.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Released"));
        let Some(directory) = directory(&self.place, volume).filter(|_| released && deletes(volume)) else { return Ok(()) };
        if let Err(error) = empty(directory).await {
            cx.events.about(volume, Type::Warning, "VolumeFailedDelete", error.to_string());
            return Err(error);
        }
        write::delete(&Api::<PersistentVolume>::all(cx.client.clone()), volume).await?;
        Ok(())
    }
}

fn volume(place: &LocalVolumes, claim: &PersistentVolumeClaim, class: &StorageClass, name: String) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let requested = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let capacity: BTreeMap<_, _> = requested.into_iter().filter(|(resource, _)| resource == "storage").collect();
    let on_node =
        NodeSelectorRequirement { key: HOSTNAME.to_owned(), operator: "In".to_owned(), values: Some(vec![place.node.clone()]) };
    let term = NodeSelectorTerm { match_expressions: Some(vec![on_node]), match_fields: None };
    PersistentVolume {
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(capacity),
            claim_ref: Some(crate::volumes::reference_to(claim)),
            local: Some(LocalVolumeSource { path: place.root.join(&name).to_string_lossy().into_owned(), fs_type: None }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: spec.volume_mode,
            ..Default::default()
        }),
        metadata: ObjectMeta {
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            name: Some(name),
            ..Default::default()
        },
        status: None,
    }
}

fn failed(directory: &Path, error: impl std::fmt::Display) -> Error {
    Error::Other(format!("{}: {error}", directory.display()))
}

/// Makes a directory that users in containers may write to.
async fn make(directory: PathBuf) -> Result<(), Error> {
    let at = directory.clone();
    let work = move || -> io::Result<()> {
        fs::create_dir_all(&at)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o777))
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| failed(&directory, error))?;
    done.map_err(|error| failed(&directory, error))
}

/// Removes a directory with all that is in it, unless something is mounted there: that is not ours.
async fn empty(directory: PathBuf) -> Result<(), Error> {
    let at = directory.clone();
    let work = move || -> io::Result<()> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let mut points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| point.replace("\\040", " "));
        if let Some(point) = points.find(|point| Path::new(point).starts_with(&at)) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("{point} is mounted")));
        }
        match fs::remove_dir_all(&at) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| failed(&directory, error))?;
    done.map_err(|error| failed(&directory, error))
}
