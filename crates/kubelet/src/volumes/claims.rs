//! Volumes behind claims: what a claim stands for is looked up once and bound into the pod's directory, where it is like any other
//! volume.

use std::io;
use std::path::{Path, PathBuf};

use client::Api;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use pods::volumes as rules;

use super::failure::{Failure, Step};
use super::groups::{Ownership, Shared};
use super::local::Local;
use super::nfs::Export;
use super::points::{bind, is_mount_point};
use super::{host_path, kinds, provisioned};
use crate::spec::Model;

/// Why a claim cannot be used. The texts are what events say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The claim.
    #[error("error processing PVC {0}: {1}")]
    Claim(String, Refusal),
    /// The volume that it has.
    #[error("error processing PV {0}: {1}")]
    Volume(String, Refusal),
}

/// What is wrong with a claim or a volume, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The claim cannot be read.
    #[error("failed to fetch PVC from API server: {}", client::why(.0))]
    UnknownClaim(kube::Error),
    /// The claim does not exist.
    #[error("failed to fetch PVC from API server: persistentvolumeclaims {0:?} not found")]
    NoClaim(String),
    /// The claim was made for another pod, or by hand.
    #[error("PVC {0} was not created for pod {1} (pod is not owner)")]
    Strange(String, String),
    /// The claim will go as soon as nobody uses it.
    #[error("PVC is being deleted")]
    Ending,
    /// The claim has no volume yet.
    #[error("PVC is not bound")]
    Unbound,
    /// The volume cannot be read.
    #[error("failed to fetch PV {0} from API server: {why}", why = client::why(.1))]
    UnknownVolume(String, kube::Error),
    /// The volume does not exist.
    #[error("failed to fetch PV {0} from API server: persistentvolumes {0:?} not found")]
    NoVolume(String),
    /// The volume has no claim, or another one.
    #[error("found PV object {volume} but its pv.Spec.ClaimRef.UID {has} does not point to claim.UID {claim}")]
    Taken {
        /// The volume.
        volume: String,
        /// UID of the claim that it has.
        has: String,
        /// UID of the claim that has it.
        claim: String,
    },
    /// This kubelet does not offer it.
    #[error("volumes of {0} are not supported by this kubelet")]
    Unsupported(String),
}

/// The name of the claim behind a volume.
pub fn name(model: &Model, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", model.name(), volume.name)),
        (None, None) => None,
    }
}

/// A claim of the pod with its volume. `is_mounted` says that the pod has it already.
pub async fn find(
    client: &kube::Client,
    model: &Model,
    volume: &Volume,
    name: &str,
    is_mounted: bool,
) -> Result<(PersistentVolumeClaim, PersistentVolume), Error> {
    let key = format!("{}/{name}", model.namespace());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), model.namespace());
    let refused = |why: Refusal| Error::Claim(key.clone(), why);
    let found = claims.get_opt(name).await.map_err(|error| refused(Refusal::UnknownClaim(error)))?;
    let claim = found.ok_or_else(|| refused(Refusal::NoClaim(name.to_owned())))?;
    usable(model, volume, &claim, is_mounted).map_err(refused)?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let name = rules::volume_of(&claim);
    let found = volumes.get_opt(name).await.map_err(|error| refused(Refusal::UnknownVolume(name.to_owned(), error)))?;
    let found = found.ok_or_else(|| refused(Refusal::NoVolume(name.to_owned())))?;
    if rules::is_for(&found, &claim) { Ok((claim, found)) } else { Err(refused(taken(&found, &claim))) }
}

fn taken(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Refusal {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    Refusal::Taken {
        volume: volume.metadata.name.clone().unwrap_or_default(),
        has: reference.and_then(|reference| reference.uid.clone()).unwrap_or_default(),
        claim: claim.metadata.uid.clone().unwrap_or_default(),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Claim(error.to_string())
    }
}

/// A claim that is being deleted serves the pods that have its volume, and none that do not.
fn usable(model: &Model, volume: &Volume, claim: &PersistentVolumeClaim, is_mounted: bool) -> Result<(), Refusal> {
    let owners = claim.metadata.owner_references.iter().flatten();
    let own = owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == model.uid());
    if volume.persistent_volume_claim.is_none() && !own {
        let key = |name: &str| format!("{}/{name}", model.namespace());
        return Err(Refusal::Strange(key(claim.metadata.name.as_deref().unwrap_or_default()), key(model.name())));
    }
    if claim.metadata.deletion_timestamp.is_some() && !is_mounted {
        return Err(Refusal::Ending);
    }
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    if bound && !rules::volume_of(claim).is_empty() { Ok(()) } else { Err(Refusal::Unbound) }
}

/// What of a volume containers get (`volumeMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A directory, by `volumeMounts`.
    Filesystem,
    /// A block device, by `volumeDevices`.
    Block,
}

impl Mode {
    /// That of a volume.
    pub fn of(volume: &PersistentVolume) -> Self {
        match volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()) {
            Some("Block") => Self::Block,
            _ => Self::Filesystem,
        }
    }
}

/// Whether a pod has a claim only to read it.
pub fn is_read_only(volume: &Volume) -> bool {
    volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true))
}

/// What this node mounts for a volume.
#[derive(Debug, PartialEq, Eq)]
pub enum Mountable {
    /// A path of this node, which is bound.
    Path(Backing),
    /// A server exports it, and it is mounted. What events call it comes first.
    Export(String, Export),
}

/// Where a volume is on this node.
#[derive(Debug, PartialEq, Eq)]
pub struct Backing {
    /// The name of the specification that it comes from: that of a PersistentVolume.
    name: String,
    path: PathBuf,
    mode: Mode,
    kind: Kind,
}

/// How what is at its path is looked at and shown.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// As a hostPath volume of this type.
    Path(String),
    /// As a local volume with a file system: a pod's group may be given what is in it.
    Local(Local),
    /// The same, of the cluster's own provisioner: it is a directory and no link.
    Provisioned(Local),
}

impl Mountable {
    /// Of a volume, if it is of a kind that this kubelet offers. `own` is where this node has it, if it is one of the cluster's own provisioner
    /// ([`provisioned::check`]). `only_read` says that the pod has it only to read it.
    pub fn of(volume: &PersistentVolume, own: Option<PathBuf>, only_read: bool) -> Result<Self, Error> {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let refused = |what| Err(Error::Volume(name.clone(), Refusal::Unsupported(format!("type {what}"))));
        let Some(spec) = &volume.spec else { return refused("unknown".to_owned()) };
        let mode = Mode::of(volume);
        if let Some(local) = &spec.local {
            let options = spec.mount_options.clone().unwrap_or_default();
            let how = Local { fs_type: local.fs_type.clone(), options };
            let kind = match mode {
                Mode::Block => Kind::Path("BlockDevice".to_owned()),
                Mode::Filesystem if own.is_some() => Kind::Provisioned(how),
                Mode::Filesystem => Kind::Local(how),
            };
            return Ok(Self::Path(Backing { name, path: own.unwrap_or_else(|| PathBuf::from(&local.path)), mode, kind }));
        }
        if let Some(source) = &spec.host_path {
            // As upstream, whose plugin for paths of the host maps no devices.
            if mode == Mode::Block {
                return refused("hostPath and mode Block".to_owned());
            }
            let kind = Kind::Path(source.type_.clone().unwrap_or_default());
            return Ok(Self::Path(Backing { name, path: PathBuf::from(&source.path), mode, kind }));
        }
        if let Some(source) = &spec.nfs {
            // As upstream, likewise.
            if mode == Mode::Block {
                return refused("nfs and mode Block".to_owned());
            }
            let export = Export::of(source, spec.mount_options.as_deref().unwrap_or_default());
            return Ok(Self::Export(name, export.to_read(only_read)));
        }
        refused(kinds::of_persistent(volume))
    }
}

impl Backing {
    /// What a driver shows at a path, and has given to the pod's group.
    pub fn of_driver(name: String, path: PathBuf, mode: Mode) -> Self {
        Self { name, path, mode, kind: Kind::Path(String::new()) }
    }

    /// What events call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What containers get of it.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Binds it to `at`, unless that is done. What is shared with another pod may stay another group's. Blocking.
    pub fn bind(&self, at: &Path, owner: Option<Ownership<'_>>) -> Result<Option<Shared>, Failure> {
        let failed = |error: io::Error| format!("{}: {error}", self.path.display());
        if is_mount_point(at).map_err(failed)? {
            return Ok(None);
        }
        match &self.kind {
            Kind::Path(kind) => {
                host_path::check(&self.path.to_string_lossy(), kind)?;
                bind(&self.path, at).map_err(failed)?;
                Ok(None)
            }
            Kind::Local(local) => local.mount(&self.path, at, owner),
            Kind::Provisioned(local) => {
                let opened = provisioned::open(&self.path).map_err(|error| Failure::at(Step::Look, failed(error)))?;
                Ok(local.show(&provisioned::by_descriptor(&opened), at, owner).map_err(failed)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use k8s_openapi::api::core::v1::NFSVolumeSource;
    use serde_json::{Value, json};

    #[test]
    fn claims_that_can_be_used() {
        let model = model(
            json!({"volumes": [{"name": "c", "persistentVolumeClaim": {"claimName": "x"}}, {"name": "e", "ephemeral": {}}]}),
        );
        let volumes = model.spec().volumes.clone().unwrap();
        assert_eq!(
            volumes.iter().map(|volume| name(&model, volume)).collect::<Vec<_>>(),
            [Some("x".to_owned()), Some("p-e".to_owned())]
        );
        let check = |volume: usize, metadata: Value, volume_name: &str, phase: &str, expected: Option<&str>| {
            let claim = json!({"metadata": metadata, "spec": {"volumeName": volume_name}, "status": {"phase": phase}});
            let claim = serde_json::from_value(claim).unwrap();
            let refusal = usable(&model, &volumes[volume], &claim, false).err().map(|refusal| refusal.to_string());
            assert_eq!(refusal.as_deref(), expected);
        };
        check(0, json!({}), "v", "Bound", None);
        check(0, json!({}), "v", "Pending", Some("PVC is not bound"));
        check(0, json!({}), "", "Bound", Some("PVC is not bound"));
        check(0, json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), "v", "Bound", Some("PVC is being deleted"));
        let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
        assert!(usable(&model, &volumes[0], &serde_json::from_value(ending).unwrap(), true).is_ok(), "the pod has it already");
        check(1, json!({"name": "c"}), "v", "Bound", Some("PVC n/c was not created for pod n/p (pod is not owner)"));
        let own = json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]});
        check(1, own, "v", "Bound", None);
    }

    /// Upstream's words of `getPVCExtractPV` and `getPVSpec`, in the event of `WaitForAttachAndMount`.
    #[tokio::test]
    async fn what_a_pod_waits_for_is_told_as_upstream_tells_it() {
        let model = model(json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "x"}}]}));
        let volume = &model.spec().volumes.as_ref().unwrap()[0];
        let fake = client::fake::Fake::default();
        let client = fake.client();
        let check = async |expected: &str| {
            let error = find(&client, &model, volume, "x", false).await.unwrap_err();
            let begin = "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], \
                         failed to process volumes=[data]: error processing PVC n/x: ";
            assert_eq!(Failure::from(error).told(&model, "data").message, format!("{begin}{expected}"));
        };
        check("failed to fetch PVC from API server: persistentvolumeclaims \"x\" not found").await;
        let claim = json!({"metadata": {"name": "x", "namespace": "n", "uid": "u1"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), "n");
        claims.create(&Default::default(), &claim).await.unwrap();
        check("failed to fetch PV v from API server: persistentvolumes \"v\" not found").await;
        let other = json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"name": "x", "namespace": "n", "uid": "u0"}}});
        let other: PersistentVolume = serde_json::from_value(other).unwrap();
        Api::all(client.clone()).create(&Default::default(), &other).await.unwrap();
        let found: PersistentVolumeClaim = claims.get("x").await.unwrap();
        let uid = found.metadata.uid.unwrap_or_default();
        check(&format!("found PV object v but its pv.Spec.ClaimRef.UID u0 does not point to claim.UID {uid}")).await;
    }

    #[test]
    fn volumes_of_this_node() {
        let found = |spec: &Value, own: Option<&str>, only_read: bool| {
            let volume = serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap();
            Mountable::of(&volume, own.map(PathBuf::from), only_read).map_err(|error| error.to_string())
        };
        let check = |spec: Value, own: Option<&str>, expected: Result<(&str, Kind), &str>| {
            let mode = if spec["volumeMode"] == "Block" { Mode::Block } else { Mode::Filesystem };
            let expected = expected
                .map(|(path, kind)| Mountable::Path(Backing { name: "v".to_owned(), path: path.into(), mode, kind }))
                .map_err(|what| format!("error processing PV v: volumes of {what} are not supported by this kubelet"));
            assert_eq!(found(&spec, own, false), expected);
        };
        let of_type = |name: &str| Kind::Path(name.to_owned());
        check(json!({"local": {"path": "/d"}}), None, Ok(("/d", Kind::Local(Local::default()))));
        check(json!({"local": {"path": "/moved"}}), Some("/d"), Ok(("/d", Kind::Provisioned(Local::default()))));
        let options = vec!["noatime".to_owned()];
        let formatted = json!({"local": {"path": "/dev/d", "fsType": "xfs"}, "mountOptions": options});
        check(formatted, None, Ok(("/dev/d", Kind::Local(Local { fs_type: Some("xfs".to_owned()), options }))));
        let made = json!({"hostPath": {"path": "/d", "type": "DirectoryOrCreate"}});
        check(made, None, Ok(("/d", of_type("DirectoryOrCreate"))));
        check(json!({"local": {"path": "/dev/d"}, "volumeMode": "Block"}), None, Ok(("/dev/d", of_type("BlockDevice"))));
        check(json!({"hostPath": {"path": "/dev/d"}, "volumeMode": "Block"}), None, Err("type hostPath and mode Block"));
        let source = NFSVolumeSource { path: "/d".to_owned(), server: "s".to_owned(), read_only: Some(true) };
        let volume = json!({"nfs": {"path": "/d", "server": "s"}, "mountOptions": ["vers=4.1"]});
        for only_read in [false, true] {
            let source = NFSVolumeSource { read_only: Some(only_read), ..source.clone() };
            assert_eq!(
                found(&volume, None, only_read),
                Ok(Mountable::Export("v".to_owned(), Export::of(&source, &["vers=4.1".to_owned()])))
            );
        }
        check(json!({"nfs": source, "volumeMode": "Block"}), None, Err("type nfs and mode Block"));
        let flex = json!({"accessModes": [], "capacity": {}, "flexVolume": {"driver": "a/b"}, "storageClassName": "", "volumeMode": "Block"});
        check(flex, None, Err("type flexVolume"));
        check(json!({"fc": {"lun": 1}}), None, Err("type fc"));
        check(json!({"capacity": {}}), None, Err("type unknown"));
    }

    /// Errors of a volume name it by its path, also where it was opened first.
    #[test]
    fn errors_name_the_path() {
        if !nix::unistd::Uid::effective().is_root() {
            return eprintln!("SKIPPED: mounting needs root");
        }
        let scratch = tempfile::tempdir().unwrap();
        let (path, at) = (scratch.path().join("pvc-a"), scratch.path().join("at"));
        std::fs::create_dir(&path).unwrap();
        // What is to be a directory is a file.
        std::fs::write(&at, "").unwrap();
        for own in [None, Some(path.clone())] {
            let volume = json!({"metadata": {"name": "v"}, "spec": {"local": {"path": path}}});
            let mountable = Mountable::of(&serde_json::from_value(volume).unwrap(), own, false).unwrap();
            let Mountable::Path(backing) = mountable else { panic!("{mountable:?}") };
            let error = backing.bind(&at, None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
        }
    }
}
