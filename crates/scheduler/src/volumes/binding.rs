//! What claims need before their pod is bound to its node: volumes are taken for them or asked for, and waited for (upstream's `BindPodVolumes` and
//! `checkBindings`).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::kube::api::{Patch, PatchParams, PostParams};
use client::kube::{self, Resource};
use client::{Api, Client, Informer, Key, resource_version};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pods::volumes as rules;
use serde_json::json;

use super::Step;
use crate::selectors::Labels;
use crate::waiting::Cache;

/// Why claims do not get their volumes. The texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}", client::why(.0))]
    Api(#[from] kube::Error),
    #[error("provisioning failed for PVC {0:?}")]
    Provisioning(String),
    #[error("failed to check provisioning pvc: could not find v1.PersistentVolumeClaim \"{0}\"")]
    ClaimGone(Key),
    #[error("ClaimRef got reset for pv {0:?}")]
    Reset(String),
    #[error("pv {volume:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms")]
    Unreachable { volume: String, node: String },
}

/// The steps for the claims of a pod, and what is looked at while they are waited for.
pub(crate) struct Bindings {
    pub(crate) steps: Vec<Step>,
    pub(crate) cache: Cache<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    pub(crate) node: String,
    pub(crate) labels: Labels,
}

/// A claim that waits for its volume.
pub(crate) struct Open {
    key: Key,
    uid: Option<String>,
    by: By,
}

/// How it gets one.
enum By {
    /// This volume is meant for it as of this version.
    Volume(String, u64),
    /// It has been told the node at this version.
    Provisioner(u64),
}

impl Bindings {
    /// Takes the steps. Gives the claims that wait for their volumes then.
    pub(crate) async fn begin(&self, client: &Client) -> Result<Vec<Open>, Error> {
        let mut open = Vec::new();
        for step in &self.steps {
            let (claim, by) = match step {
                Step::Take(volume, claim) => (claim, take(client, volume, claim).await?),
                Step::Provision(claim) => (claim, self.ask(client, claim).await?),
            };
            open.push(Open { key: Key::of(claim.as_ref()), uid: claim.metadata.uid.clone(), by });
        }
        Ok(open)
    }

    /// Tells the provisioner of a claim the node.
    async fn ask(&self, client: &Client, claim: &PersistentVolumeClaim) -> Result<By, Error> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        let patch = json!({"metadata": {"uid": claim.metadata.uid, "annotations": {rules::SELECTED_NODE: self.node}}});
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let told = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(By::Provisioner(resource_version::of(&told)))
    }

    /// Waits until the claims have their volumes, and the node can use these.
    pub(crate) async fn until_bound(&self, open: &[Open]) -> Result<(), Error> {
        let waiter = self.cache.waiting.wait(open.iter().map(|one| one.key.clone()).collect());
        while !self.all_bound(open)? {
            waiter.changed().await;
        }
        Ok(())
    }

    fn all_bound(&self, open: &[Open]) -> Result<bool, Error> {
        let mut all = true;
        for one in open {
            all &= self.is_bound(one)?;
        }
        Ok(all)
    }

    fn is_bound(&self, open: &Open) -> Result<bool, Error> {
        let claim = self.cache.claims.by_key(&open.key).filter(|claim| claim.metadata.uid == open.uid);
        let claim = claim.ok_or_else(|| Error::ClaimGone(open.key.clone()))?;
        let usable = rules::is_usable(&claim);
        match &open.by {
            By::Volume(name, version) => {
                let reset = || Error::Reset(name.clone());
                let volume = self.volumes.get(None, name).ok_or_else(reset)?;
                // Older ones do not show yet what has been written.
                if resource_version::of(volume.as_ref()) >= *version && !rules::is_for(&volume, &claim) {
                    return Err(reset());
                }
            }
            By::Provisioner(version) => {
                // A provisioner that cannot make a volume takes the node's name away again.
                let is_news = resource_version::of(claim.as_ref()) >= *version;
                if !usable && is_news && chosen(&claim) != Some(self.node.as_str()) {
                    return Err(Error::Provisioning(open.key.name.clone()));
                }
            }
        }
        // A new volume may be seen after its claim.
        let Some(volume) = self.volumes.get(None, rules::volume_of(&claim)).filter(|_| usable) else { return Ok(false) };
        if !rules::is_reachable(&volume, &self.node, &self.labels) {
            return Err(Error::Unreachable { volume: rules::volume_of(&claim).to_owned(), node: self.node.clone() });
        }
        Ok(true)
    }
}

/// Makes a volume one for a claim.
async fn take(client: &Client, volume: &PersistentVolume, claim: &Arc<PersistentVolumeClaim>) -> Result<By, Error> {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let mut next = volume.clone();
    let annotations = next.metadata.annotations.get_or_insert_default();
    annotations.insert(rules::BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    next.spec.get_or_insert_default().claim_ref = Some(claim.object_ref(&()));
    let taken = Api::<PersistentVolume>::all(client.clone()).replace(&name, &PostParams::default(), &next).await?;
    Ok(By::Volume(name, resource_version::of(&taken)))
}

/// The node that a claim's provisioner has been told.
fn chosen(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(rules::SELECTED_NODE).map(String::as_str)
}
