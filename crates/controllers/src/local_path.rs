//! Volumes that are directories on a node: made when the first consumer of a claim has been placed there, removed when their claim
//! is gone. What is in them outlives pods and the server.
//!
//! The node's kubelet makes and removes the directories, asked through the API; where they are the node says by an annotation.

mod expand;
mod reclaim;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::PostParams;
use client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pods::volumes::{self, PROVISIONED_BY, PROVISIONERS, SELECTED_NODE};

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::meta;

/// Who claims name as their provisioner.
pub const PROVISIONER: &str = "knarr.io/local-path";
/// The annotation of a Node that says in which directory its volumes are.
pub const DIRECTORY: &str = "knarr.io/local-volumes";
/// The annotation of a volume that says on which node it is.
const NODE: &str = "knarr.io/node";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Where the volumes of a node are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    node: String,
    /// The label of the host name says the node's name.
    is_labelled: bool,
    /// The directory of which each volume is a part.
    root: PathBuf,
}

impl Place {
    /// Where a node has its volumes, if it makes any.
    fn of(node: &Node) -> Option<Self> {
        let root = meta::annotation(node, DIRECTORY).map(PathBuf::from).filter(|root| root.is_absolute())?;
        let label = node.metadata.labels.as_ref().and_then(|labels| labels.get(HOSTNAME));
        let is_labelled = label.is_some_and(|label| label == meta::name(node));
        Some(Self { node: meta::name(node).to_owned(), is_labelled, root })
    }
}

/// Keys with a namespace are claims, those without are volumes.
pub(crate) struct LocalPath {
    nodes: Informer<Node>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
}

impl LocalPath {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { nodes: informers.of(), claims: informers.of(), volumes: informers.of(), classes: informers.of() }
    }

    /// Where a claim's volume is to be: on the node that was chosen for its consumer, else on the first that makes volumes.
    fn place_for(&self, claim: &PersistentVolumeClaim) -> Result<Place, Refusal> {
        match meta::annotation(claim, SELECTED_NODE) {
            Some(name) => {
                let node = self.nodes.get(None, name).ok_or_else(|| Refusal::NoNode(name.to_owned()))?;
                Place::of(&node).ok_or_else(|| Refusal::NoDirectory(name.to_owned()))
            }
            None => self.nodes.list().iter().find_map(|node| Place::of(node)).ok_or(Refusal::Nowhere),
        }
    }

    /// Whether a node is there at all.
    fn has_node(&self, name: &str) -> bool {
        self.nodes.get(None, name).is_some()
    }
}

impl Controller for LocalPath {
    const NAME: &'static str = "local-path-provisioner";
    const ACCOUNT: &'static str = "local-path-provisioner";
    /// A kubelet that answers again does not say so here.
    const RETRY_MAX: std::time::Duration = std::time::Duration::from_secs(60);

    fn sources(&self) -> Vec<Source> {
        let of_volumes = Source::mapped(&self.volumes, |change, queue| {
            if change.new.as_deref().and_then(home).is_some() {
                queue.add(change.key.clone());
            }
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
        if key.namespace.is_some() {
            self.provision(cx, key).await?;
            if let Some(claim) = self.claims.by_key(key) {
                self.expand(cx, &claim).await?;
            }
            return Ok(Action::Done);
        }
        if let Some(volume) = self.volumes.get(None, &key.name) {
            self.reclaim(cx, &volume).await?;
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

/// The node of a volume that was made by us: the kubelet there touches the directory of that name and no other.
fn home(volume: &PersistentVolume) -> Option<&str> {
    let local = volume.spec.as_ref()?.local.as_ref()?;
    let named = Path::new(&local.path).file_name().is_some_and(|name| name == meta::name(volume));
    if !named || meta::annotation(volume, PROVISIONED_BY) != Some(PROVISIONER) {
        return None;
    }
    // Older volumes say it by their affinity only, where the host name is the node's.
    meta::annotation(volume, NODE).or_else(|| hostname(volume))
}

fn hostname(volume: &PersistentVolume) -> Option<&str> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let mut terms = required.node_selector_terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
    let values = terms.find(|term| term.key == HOSTNAME)?.values.as_ref()?;
    values.first().map(String::as_str)
}

/// Asks the kubelet of a node to make (PUT) or to remove (DELETE) the directory of a volume.
async fn ask(cx: &Cx, method: http::Method, node: &str, volume: &str) -> Result<(), Error> {
    let path = format!("/api/v1/nodes/{node}/proxy/knarr/volumes/{volume}");
    let request = http::Request::builder().method(method).uri(path).body(Vec::new());
    cx.client.request_text(request.map_err(kube::Error::HttpError)?).await?;
    Ok(())
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
    #[error("node {0:?}, which was chosen for it, is not there")]
    NoNode(String),
    #[error("node {0:?}, which was chosen for it, makes no volumes")]
    NoDirectory(String),
    #[error("no node makes volumes")]
    Nowhere,
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
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        if waits && meta::annotation(claim.as_ref(), SELECTED_NODE).is_none() {
            return Ok(());
        }
        let name = format!("pvc-{}", meta::uid(claim.as_ref()));
        if self.volumes.get(None, &name).is_some() {
            return Ok(());
        }
        let about = |kind, reason, message: String| cx.events.about(claim.as_ref(), kind, reason, message);
        let failed = |why: String| {
            let class = meta::name(class.as_ref());
            about(Type::Warning, "ProvisioningFailed", format!("failed to provision volume with StorageClass {class:?}: {why}"));
            Error::Other(why)
        };
        let place = match check(&claim).and_then(|()| self.place_for(&claim)) {
            Ok(place) => place,
            Err(refusal) => {
                let why = failed(refusal.to_string());
                return if waits && matches!(refusal, Refusal::NoNode(_)) { unselect(cx, &claim).await } else { Err(why) };
            }
        };
        about(Type::Normal, "Provisioning", format!("External provisioner is provisioning volume for claim \"{key}\""));
        ask(cx, http::Method::PUT, &place.node, &name).await.map_err(|error| failed(error.to_string()))?;
        let api: Api<PersistentVolume> = Api::all(cx.client.clone());
        match api.create(&PostParams::default(), &volume(&place, &claim, &class, name.clone())).await {
            Ok(_) => {
                let message = format!("Successfully provisioned volume {name}; its capacity is not enforced");
                about(Type::Normal, "ProvisioningSucceeded", message);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The node that was chosen is gone: the scheduler has to choose another one.
async fn unselect(cx: &Cx, claim: &PersistentVolumeClaim) -> Result<(), Error> {
    let mut next = claim.clone();
    if let Some(annotations) = &mut next.metadata.annotations {
        annotations.remove(SELECTED_NODE);
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(cx.client.clone(), meta::namespace(claim));
    api.replace(meta::name(claim), &PostParams::default(), &next).await?;
    Ok(())
}

/// Selects the node of a place. By its label, as other schedulers, autoscalers and deschedulers look at nothing else of a volume's affinity (upstream's
/// `CheckNodeAffinity`); the kubelet itself sees to it that a node that says to be another one gets no volume of that one. By its name where the label says another name.
fn on_node(place: &Place) -> NodeSelectorTerm {
    let is = |key: &str| {
        let values = Some(vec![place.node.clone()]);
        Some(vec![NodeSelectorRequirement { key: key.to_owned(), operator: "In".to_owned(), values }])
    };
    match place.is_labelled {
        true => NodeSelectorTerm { match_expressions: is(HOSTNAME), match_fields: None },
        false => NodeSelectorTerm { match_expressions: None, match_fields: is("metadata.name") },
    }
}

fn volume(place: &Place, claim: &PersistentVolumeClaim, class: &StorageClass, name: String) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let requested = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let capacity: BTreeMap<_, _> = requested.into_iter().filter(|(resource, _)| resource == "storage").collect();
    let term = on_node(place);
    let policy = class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned());
    PersistentVolume {
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(capacity),
            claim_ref: Some(crate::volumes::reference_to(claim)),
            local: Some(LocalVolumeSource { path: place.root.join(&name).to_string_lossy().into_owned(), fs_type: None }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }),
            persistent_volume_reclaim_policy: Some(policy.clone()),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: spec.volume_mode,
            ..Default::default()
        }),
        metadata: ObjectMeta {
            annotations: Some(
                [(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned()), (NODE.to_owned(), place.node.clone())].into(),
            ),
            finalizers: (policy == "Delete").then(|| vec![reclaim::FINALIZER.to_owned()]),
            name: Some(name),
            ..Default::default()
        },
        status: None,
    }
}
