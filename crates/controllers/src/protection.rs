//! Claims, volumes and classes of attributes stay as long as they are used: a finalizer, which the API server gives them
//! (StorageObjectInUseProtection), keeps them when they are deleted, and is taken away here once nobody uses them
//! (Kubernetes documentation, "Storage Object in Use Protection").

pub(crate) mod classes;
#[cfg(test)]
mod tests;

use client::Api;
use client::kube;
use client::kube::api::{ListParams, PostParams};
use client::{Entry, Index, Informer, Informers, Key, Object};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::{meta, pods};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

pub(crate) struct ClaimProtection {
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
    by_claim: Index<Pod>,
}

impl ClaimProtection {
    pub(crate) fn new(informers: &Informers) -> Self {
        let pods = informers.of();
        Self { claims: informers.of(), by_claim: pods::by_claim(&pods), pods }
    }
}

impl Controller for ClaimProtection {
    const NAME: &'static str = "persistentvolumeclaim-protection";
    const ACCOUNT: &'static str = "pvc-protection-controller";

    fn sources(&self) -> Vec<Source> {
        let of_pods = Source::stepped(&self.pods, |step, queue| {
            let Some(pod) = step.entry().filter(|pod| pods::may_have_claims(pod)).and_then(Entry::get) else { return };
            let ended = step.new.is_none() || pods::is_finished(&pod);
            for claim in pods::claims(&pod).filter(|_| ended) {
                queue.add(Key::namespaced(step.key().ns(), claim));
            }
        });
        vec![Source::own(&self.claims), of_pods]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(claim) = self.claims.by_key(key) else { return Ok(Action::Done) };
        let used = meta::ends(claim.as_ref()) && self.is_used(cx, key).await?;
        let api = Api::namespaced(cx.client.clone(), key.ns());
        settle(&api, claim.as_ref(), CLAIM_FINALIZER, used).await
    }
}

impl ClaimProtection {
    /// Asks the cache first, and the API server where the cache says no: it may be behind.
    async fn is_used(&self, cx: &Cx, key: &Key) -> Result<bool, Error> {
        if self.by_claim.get(&key.to_string()).iter().any(|pod| uses(pod, &key.name)) {
            return Ok(true);
        }
        let api: Api<Pod> = Api::namespaced(cx.client.clone(), key.ns());
        Ok(api.list(&ListParams::default()).await?.items.iter().any(|pod| uses(pod, &key.name)))
    }
}

/// Only pods that have a node use a claim: a kubelet does not start one whose claim is being deleted. A claim of the pod's own is
/// free as soon as the pod has finished.
fn uses(pod: &Pod, claim: &str) -> bool {
    let own = |volume: &&Volume| volume.persistent_volume_claim.is_none();
    !pods::node(pod).is_empty()
        && pods::volumes(pod)
            .filter(|volume| !(own(volume) && pods::is_finished(pod)))
            .any(|volume| pods::claim_of(pod, volume).is_some_and(|name| name == claim))
}

pub(crate) struct VolumeProtection {
    volumes: Informer<PersistentVolume>,
}

impl VolumeProtection {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { volumes: informers.of() }
    }
}

impl Controller for VolumeProtection {
    const NAME: &'static str = "persistentvolume-protection";
    const ACCOUNT: &'static str = "pv-protection-controller";

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.volumes)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(volume) = self.volumes.by_key(key) else { return Ok(Action::Done) };
        let bound = volume.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"));
        settle(&Api::all(cx.client.clone()), volume.as_ref(), VOLUME_FINALIZER, bound).await
    }
}

/// What to do about the finalizer.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
    Nothing,
}

fn plan(ends: bool, protected: bool, used: bool) -> Change {
    match (ends, protected) {
        (false, false) => Change::Add,
        (true, true) if !used => Change::Remove,
        _ => Change::Nothing,
    }
}

async fn settle<K: Object + codec::Encode>(api: &Api<K>, object: &K, finalizer: &str, used: bool) -> Result<Action, Error> {
    let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
    match plan(meta::ends(object), finalizers.iter().any(|one| one == finalizer), used) {
        Change::Add => finalizers.push(finalizer.to_owned()),
        Change::Remove => finalizers.retain(|one| one != finalizer),
        Change::Nothing => return Ok(Action::Done),
    }
    let mut changed = object.clone();
    changed.meta_mut().finalizers = Some(finalizers);
    match api.replace(meta::name(object), &PostParams::default(), &changed).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Action::Done),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Action::Done),
    }
}
