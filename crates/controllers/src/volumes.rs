//! PersistentVolumes and claims: which volume a claim gets, the phases of both, and what becomes of a volume whose claim is gone
//! (Kubernetes documentation, "Persistent Volumes"). Volumes themselves are made and emptied by provisioners.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::pods::volumes::{self, BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONERS};
use client::Api;
use client::events::Type;
use client::kube::api::PostParams;
use client::{Change, Index, Informer, Informers, Key};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::queue::Queue;
use crate::{meta, pods};
use plan::{ForClaim, ForVolume, Notice, Observed, OfClaim};

const POST: PostParams = PostParams { dry_run: false, field_manager: None };
const YES: &str = "yes";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Keys with a namespace are claims, those without are volumes.
pub(crate) struct Binder {
    claims: Informer<PersistentVolumeClaim>,
    /// Claims without a volume, by the name of their class.
    pending: Index<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    volumes_by_class: Index<PersistentVolume>,
    /// Volumes by the claim that they are meant for, `namespace/name`.
    volumes_by_claim: Index<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    pods_by_claim: Index<Pod>,
}

impl Binder {
    pub(crate) fn new(informers: &Informers) -> Self {
        let (claims, volumes) = (informers.of::<PersistentVolumeClaim>(), informers.of::<PersistentVolume>());
        let pending = claims.index("pending", |claim, values| {
            if !volumes::is_bound(claim) {
                values.add(volumes::class_of_claim(claim).unwrap_or_default());
            }
        });
        let volumes_by_class = volumes.index("class", |volume, values| values.add(volumes::class_of_volume(volume)));
        let volumes_by_claim = volumes.index("claim", |volume, values| {
            if let Some(key) = claim_of(volume) {
                values.add(key.to_string());
            }
        });
        let (classes, pods) = (informers.of(), informers.of());
        let pods_by_claim = pods::by_claim(&pods);
        Self { claims, pending, volumes, volumes_by_class, volumes_by_claim, classes, pods, pods_by_claim }
    }
}

/// The claim that a volume is meant for.
fn claim_of(volume: &PersistentVolume) -> Option<Key> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Key::namespaced(reference.namespace.as_deref()?, reference.name.as_deref()?))
}

impl Controller for Binder {
    const NAME: &'static str = "persistentvolume-binder";
    const ACCOUNT: &'static str = "persistent-volume-binder";
    // One after the other: two claims must not reach for one volume.
    const CONCURRENCY: usize = 1;

    fn sources(&self) -> Vec<Source> {
        let by_claim = self.volumes_by_claim.clone();
        let of_claims = Source::mapped(&self.claims, move |change, queue| {
            queue.add(change.key.clone());
            by_claim.get(&change.key.to_string()).iter().for_each(|volume| queue.add(Key::of(volume.as_ref())));
            for claim in [&change.old, &change.new].into_iter().flatten() {
                let name = volumes::volume_of(claim);
                if !name.is_empty() {
                    queue.add(Key::cluster(name));
                }
            }
        });
        let pending = self.pending.clone();
        let of_volumes = Source::mapped(&self.volumes, move |change, queue| volume_changed(change, &pending, queue));
        let pending = self.pending.clone();
        let of_classes = Source::mapped(&self.classes, move |change, queue| {
            let waiting = pending.get(&change.key.name).into_iter().chain(pending.get(""));
            waiting.for_each(|claim| queue.add(Key::of(claim.as_ref())));
        });
        let claims = self.claims.clone();
        // A claim tells which pods wait for it.
        let of_pods = Source::stepped(&self.pods, move |step, queue| {
            let Some(pod) = step.new.as_ref().filter(|pod| step.old.is_none() && pods::may_have_claims(pod)) else { return };
            let Some(pod) = pod.get().filter(|pod| pods::node(pod).is_empty()) else { return };
            let open = |name: &String| claims.get(Some(step.key().ns()), name).is_some_and(|claim| !volumes::is_bound(&claim));
            pods::claims(&pod).filter(open).for_each(|claim| queue.add(Key::namespaced(step.key().ns(), claim)));
        });
        vec![of_claims, of_volumes, of_classes, of_pods]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        match &key.namespace {
            Some(_) => self.claim(cx, key).await?,
            None => self.volume(cx, key).await?,
        }
        Ok(Action::Done)
    }
}

/// A volume concerns its claim, and while it is free every claim of its class that waits for one.
fn volume_changed(change: &Change<PersistentVolume>, pending: &Index<PersistentVolumeClaim>, queue: &Queue) {
    queue.add(change.key.clone());
    let seen = [&change.old, &change.new].into_iter().flatten();
    seen.filter_map(|volume| claim_of(volume)).for_each(|claim| queue.add(claim));
    if let Some(free) = change.new.as_ref().filter(|volume| claim_of(volume).is_none()) {
        pending.get(volumes::class_of_volume(free)).iter().for_each(|claim| queue.add(Key::of(claim.as_ref())));
    }
}

impl Binder {
    async fn claim(&self, cx: &Cx, key: &Key) -> Result<(), Error> {
        let Some(claim) = self.claims.by_key(key) else { return Ok(()) };
        let class = volumes::class_of_claim(&claim).unwrap_or_default();
        let mut candidates = self.volumes_by_claim.get(&key.to_string());
        candidates.extend(self.volumes_by_class.get(class));
        let observed = Observed {
            claim: &claim,
            volumes: candidates,
            named: self.volumes.get(None, volumes::volume_of(&claim)),
            class: self.classes.get(None, class),
            default: self.default_class(),
            unscheduled: &|| self.unscheduled(key),
        };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(cx.client.clone(), key.ns());
        match plan::for_claim(&observed) {
            ForClaim::Bind(volume) => self.bind(cx, &api, &claim, &volume).await,
            ForClaim::Pend(notice) => {
                tell(cx, claim.as_ref(), notice);
                set_phase(&api, &claim, "Pending").await
            }
            ForClaim::Classify(class) => {
                let mut next = claim.as_ref().clone();
                next.spec.get_or_insert_default().storage_class_name = Some(class);
                api.replace(&key.name, &POST, &next).await?;
                Ok(())
            }
            ForClaim::Ask(provisioner) => ask(cx, &api, &claim, &provisioner).await,
            ForClaim::Lose(notice) => {
                let live: Api<PersistentVolume> = Api::all(cx.client.clone());
                if observed.named.is_none() && live.get_opt(volumes::volume_of(&claim)).await?.is_some() {
                    return Err(Error::Other("the volume is there, and the cache does not show it yet".to_owned()));
                }
                if phase(&claim) != "Lost" {
                    tell(cx, claim.as_ref(), Some(notice));
                }
                set_phase(&api, &claim, "Lost").await
            }
        }
    }

    /// The names of pods that have a claim and no node yet.
    fn unscheduled(&self, claim: &Key) -> Vec<String> {
        let all = self.pods_by_claim.get(&claim.to_string());
        let mut names: Vec<String> =
            all.iter().filter(|pod| pods::node(pod).is_empty()).map(|pod| meta::name(pod.as_ref()).to_owned()).collect();
        names.sort();
        names
    }

    /// Of several default classes the newest, and of those that are as old the first by name.
    fn default_class(&self) -> Option<String> {
        let all = self.classes.list();
        let default = all.iter().filter(|class| meta::annotation(class.as_ref(), DEFAULT_CLASS) == Some("true"));
        let order = |class: &&Arc<StorageClass>| {
            let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (std::cmp::Reverse(created), meta::name(class.as_ref()).to_owned())
        };
        default.min_by_key(order).map(|class| meta::name(class.as_ref()).to_owned())
    }

    /// Makes volume and claim name each other: first the volume, so that nobody else gets it.
    async fn bind(
        &self,
        cx: &Cx,
        api: &Api<PersistentVolumeClaim>,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), Error> {
        let volumes: Api<PersistentVolume> = Api::all(cx.client.clone());
        let mut volume = volume.clone();
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if reference.is_none_or(|reference| reference.uid != claim.metadata.uid) {
            if reference.is_none() {
                annotate(&mut volume.metadata, BOUND_BY_CONTROLLER, YES);
            }
            volume.spec.get_or_insert_default().claim_ref = Some(reference_to(claim));
            volume = volumes.replace(meta::name(&volume), &POST, &volume).await?;
        }
        set_volume_phase(&volumes, &volume, "Bound", None).await?;
        let mut next = claim.clone();
        if volumes::volume_of(claim).is_empty() {
            next.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
            annotate(&mut next.metadata, BOUND_BY_CONTROLLER, YES);
        }
        annotate(&mut next.metadata, BIND_COMPLETED, YES);
        if next != *claim {
            next = api.replace(meta::name(claim), &POST, &next).await?;
        }
        if volumes::is_usable(&next) && grows_elsewhere(&next, &volume) {
            let message = "waiting for an external controller to expand this PVC".to_owned();
            tell(cx, claim, Some(Notice { kind: Type::Normal, reason: "ExternalExpanding", message }));
        }
        let status = next.status.get_or_insert_default();
        let before = status.clone();
        let spec = volume.spec.unwrap_or_default();
        status.phase = Some("Bound".to_owned());
        if before.phase.as_deref() != Some("Bound") {
            // From then on who resizes says how large it is.
            status.capacity = spec.capacity;
        }
        status.access_modes = spec.access_modes;
        status.current_volume_attributes_class_name = spec.volume_attributes_class_name;
        if next.status.as_ref() != Some(&before) {
            api.replace_status(meta::name(claim), &POST, &next).await?;
        }
        Ok(())
    }

    async fn volume(&self, cx: &Cx, key: &Key) -> Result<(), Error> {
        let Some(volume) = self.volumes.by_key(key) else { return Ok(()) };
        let api: Api<PersistentVolume> = Api::all(cx.client.clone());
        let uid = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.as_deref()).unwrap_or_default();
        let is_meant = |claim: &Arc<PersistentVolumeClaim>| uid.is_empty() || meta::uid(claim.as_ref()) == uid;
        let claim = match claim_of(&volume).map(|key| (self.claims.by_key(&key).filter(is_meant), key)) {
            None => OfClaim::None,
            Some((Some(claim), _)) => OfClaim::There(claim),
            // The cache may be behind a volume that was made for a claim, which may have the name of one before it.
            Some((None, key)) => {
                let claims: Api<PersistentVolumeClaim> = Api::namespaced(cx.client.clone(), key.ns());
                claims.get_opt(&key.name).await?.map_or(OfClaim::Gone, |claim| OfClaim::There(Arc::new(claim)))
            }
        };
        match plan::for_volume(&volume, &claim) {
            ForVolume::Nothing => Ok(()),
            ForVolume::Phase(phase) => set_volume_phase(&api, &volume, phase, None).await,
            ForVolume::Fail(notice) => {
                let message = notice.message.clone();
                tell(cx, volume.as_ref(), Some(notice));
                set_volume_phase(&api, &volume, "Failed", Some(message)).await
            }
            ForVolume::Unbind => {
                let mut next = volume.as_ref().clone();
                let spec = next.spec.get_or_insert_default();
                match next.metadata.annotations.as_mut().and_then(|all| all.remove(BOUND_BY_CONTROLLER)) {
                    Some(_) => spec.claim_ref = None,
                    None => spec.claim_ref.get_or_insert_default().uid = None,
                }
                let next = api.replace(&key.name, &POST, &next).await?;
                set_volume_phase(&api, &next, "Available", None).await
            }
        }
    }
}

/// Whether a claim asks for more than it has of a volume whose driver makes it larger, by the resizer that comes with the driver.
fn grows_elsewhere(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some()) && volumes::requested(claim) > volumes::held(claim)
}

fn annotate(meta: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, key: &str, value: &str) {
    meta.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

pub(crate) fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

fn tell<K: client::Object>(cx: &Cx, object: &K, notice: Option<Notice>) {
    if let Some(Notice { kind, reason, message }) = notice {
        cx.events.about(object, kind, reason, message);
    }
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

async fn set_phase(api: &Api<PersistentVolumeClaim>, claim: &PersistentVolumeClaim, wanted: &str) -> Result<(), Error> {
    if phase(claim) == wanted {
        return Ok(());
    }
    let mut next = claim.clone();
    next.status.get_or_insert_default().phase = Some(wanted.to_owned());
    api.replace_status(meta::name(claim), &POST, &next).await?;
    Ok(())
}

async fn set_volume_phase(
    api: &Api<PersistentVolume>,
    volume: &PersistentVolume,
    phase: &str,
    message: Option<String>,
) -> Result<(), Error> {
    let status = volume.status.clone().unwrap_or_default();
    if status.phase.as_deref() == Some(phase) && status.message == message {
        return Ok(());
    }
    let mut next = volume.clone();
    let status = next.status.get_or_insert_default();
    (status.phase, status.message) = (Some(phase.to_owned()), message);
    api.replace_status(meta::name(volume), &POST, &next).await?;
    Ok(())
}

/// Asks the provisioner of the claim's class for a volume, once.
async fn ask(cx: &Cx, api: &Api<PersistentVolumeClaim>, claim: &PersistentVolumeClaim, provisioner: &str) -> Result<(), Error> {
    let mut next = claim.clone();
    PROVISIONERS.iter().for_each(|key| annotate(&mut next.metadata, key, provisioner));
    if next != *claim {
        api.replace(meta::name(claim), &POST, &next).await?;
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    let notice = Notice { kind: Type::Normal, reason: "ExternalProvisioning", message };
    tell(cx, claim, Some(notice));
    set_phase(api, claim, "Pending").await
}
