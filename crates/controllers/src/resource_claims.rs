//! Claims for devices (KEP-4381): one for each entry of a pod that names a template, and none kept allocated that nobody uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::pods::claims::{self, Named};
use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Index, Informer, Informers, Key, Values};
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::{meta, pods, write};

/// Room for five letters at the end of a name that is a label.
const NAME: usize = 57;

/// Pods by the claims and the templates that they name, as `namespace/claim` and `namespace//template`.
fn by_claim(pods: &Informer<Pod>) -> Index<Pod> {
    fn values(pod: &Pod, values: &mut Values) {
        let namespace = meta::namespace(pod);
        claims::names(pod).for_each(|claim| values.add(format!("{namespace}/{claim}")));
        let templates = claims::entries(pod).iter().filter_map(|entry| entry.resource_claim_template_name.as_ref());
        templates.for_each(|template| values.add(format!("{namespace}//{template}")));
    }
    // Most pods ask for none, which their text tells.
    pods.index_lean("resource-claim", values, |pod, _| !pods::may_name_device_claims(pod))
}

/// Keys are those of pods: makes their claims.
pub(crate) struct PodClaims {
    pods: Informer<Pod>,
    by_claim: Index<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
}

impl PodClaims {
    pub(crate) fn new(informers: &Informers) -> Self {
        let pods = informers.of();
        Self { by_claim: by_claim(&pods), pods, claims: informers.of(), templates: informers.of() }
    }

    /// The claim that an entry of a pod should have and does not have: one that was made and not noted, or none. `Err` when there is nothing to do.
    fn missing(&self, pod: &Pod, entry: &PodResourceClaim) -> Result<Option<Arc<ResourceClaim>>, ()> {
        let namespace = Some(meta::namespace(pod));
        match claims::named(pod, entry) {
            Named::Shared(_) | Named::Nothing => return Err(()),
            Named::Own(name) => {
                if self.claims.get(namespace, name).is_some_and(|claim| claims::is_for(&claim, meta::uid(pod))) {
                    return Err(());
                }
            }
            Named::NotMade => {}
        }
        let mut made = self.claims.owned_by(meta::uid(pod)).into_iter();
        Ok(made.find(|claim| meta::annotation(claim.as_ref(), claims::POD_CLAIM) == Some(&entry.name)))
    }

    async fn make(&self, cx: &Cx, pod: &Pod, entry: &PodResourceClaim) -> Result<String, Error> {
        let name = entry.resource_claim_template_name.as_deref().unwrap_or_default();
        let template = self.templates.get(Some(meta::namespace(pod)), name);
        let template = template.ok_or_else(|| Error::Other(format!("resource claim template {name:?}: not found")))?;
        let api: Api<ResourceClaim> = Api::namespaced(cx.client.clone(), meta::namespace(pod));
        let made = api.create(&PostParams::default(), &claim_of(pod, entry, &template)).await?;
        Ok(meta::name(&made).to_owned())
    }
}

impl Controller for PodClaims {
    const NAME: &'static str = "resource-claim-of-pod";
    const ACCOUNT: &'static str = "resource-claim-controller";

    fn sources(&self) -> Vec<Source> {
        let of_pods = Source::stepped(&self.pods, |step, queue| {
            let Some(change) = pods::with_device_claims(step) else { return };
            if change.new.as_ref().is_some_and(|pod| needs_claims(pod)) {
                queue.add(change.key.clone());
            }
        });
        let pods = self.by_claim.clone();
        let of_claims = Source::mapped(&self.claims, move |change, queue| {
            // One that is gone is made again; one that is allocated may be waited for.
            let Some(claim) = change.object() else { return };
            if let Some((pod, _)) = claims::owner(claim) {
                queue.add(Key { namespace: change.key.namespace.clone(), name: pod.to_owned() });
            }
            let named = pods.get(&format!("{}/{}", change.key.ns(), change.key.name));
            named.iter().for_each(|pod| queue.add(Key::of(pod.as_ref())));
        });
        let pods = self.by_claim.clone();
        let of_templates = Source::mapped(&self.templates, move |change, queue| {
            if change.new.is_some() && change.old.is_none() {
                let named = pods.get(&format!("{}//{}", change.key.ns(), change.key.name));
                named.iter().for_each(|pod| queue.add(Key::of(pod.as_ref())));
            }
        });
        vec![of_pods, of_claims, of_templates]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.by_key(key).filter(|pod| needs_claims(pod)) else { return Ok(Action::Done) };
        let mut made = BTreeMap::new();
        for entry in claims::entries(&pod) {
            let name = match self.missing(&pod, entry) {
                Err(()) => continue,
                Ok(Some(claim)) => meta::name(claim.as_ref()).to_owned(),
                Ok(None) => match self.make(cx, &pod, entry).await {
                    Ok(name) => name,
                    Err(error) => {
                        let text = format!("PodResourceClaim {}: {error}", entry.name);
                        cx.events.about(pod.as_ref(), Type::Warning, "FailedResourceClaimCreation", text);
                        return Err(error);
                    }
                },
            };
            // Noted at once: what is made and not noted is found by a cache that has seen it only.
            note(cx, &pod, &entry.name, &name).await?;
            made.insert(entry.name.clone(), name);
        }
        self.reserve(cx, &pod).await?;
        Ok(if made.is_empty() { Action::Done } else { Action::UNSEEN })
    }
}

impl PodClaims {
    /// A pod that was given its node by somebody else than the scheduler may use claims that are allocated.
    async fn reserve(&self, cx: &Cx, pod: &Pod) -> Result<(), Error> {
        if pods::node(pod).is_empty() {
            return Ok(());
        }
        let api: Api<ResourceClaim> = Api::namespaced(cx.client.clone(), meta::namespace(pod));
        for name in claims::names(pod) {
            let claim = self.claims.get(Some(meta::namespace(pod)), name).filter(|claim| claims::is_allocated(claim));
            let Some(claim) = claim.filter(|claim| !claims::is_reserved_for(claim, meta::uid(pod))) else { continue };
            if claims::consumers(&claim).len() >= claims::MAX_CONSUMERS {
                continue;
            }
            let mut claim = claim.as_ref().clone();
            let status = claim.status.get_or_insert_default();
            status.reserved_for.get_or_insert_default().push(claims::consumer(meta::name(pod), meta::uid(pod)));
            api.replace_status(name, &PostParams::default(), &claim).await?;
        }
        Ok(())
    }
}

fn needs_claims(pod: &Pod) -> bool {
    !claims::entries(pod).is_empty() && !meta::ends(pod) && !pods::is_finished(pod)
}

/// Writes into the pod which claim was made for an entry.
async fn note(cx: &Cx, pod: &Pod, entry: &str, claim: &str) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(cx.client.clone(), meta::namespace(pod));
    let statuses = json!([{"name": entry, "resourceClaimName": claim}]);
    let patch = json!({"metadata": {"uid": meta::uid(pod)}, "status": {"resourceClaimStatuses": statuses}});
    api.patch_status(meta::name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// A claim for an entry of a pod, as its template says.
fn claim_of(pod: &Pod, entry: &PodResourceClaim, template: &ResourceClaimTemplate) -> ResourceClaim {
    let meta = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(claims::POD_CLAIM.to_owned(), entry.name.clone());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base_name(meta::name(pod), &entry.name)),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            // Nothing waits for the claim when its pod is deleted in the foreground (kubernetes#134956).
            owner_references: Some(vec![OwnerReference { block_owner_deletion: None, ..meta::controller_ref(pod) }]),
            ..Default::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// What a generated name begins with; both parts are cut alike where they are too long.
fn base_name(pod: &str, entry: &str) -> String {
    let whole = format!("{pod}-{entry}-");
    if whole.len() <= NAME {
        return whole;
    }
    let cut = |text: &str| text.chars().take(text.len() * NAME / whole.len()).collect::<String>();
    format!("{}-{}", cut(pod), cut(entry))
}

/// Keys are those of claims: what nobody uses is deallocated, and what was made for a pod that has ended goes.
pub(crate) struct ClaimUse {
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
}

/// What is done for a claim.
#[derive(Debug, PartialEq)]
struct Plan {
    /// The claim with this status, where it has to change.
    status: Option<ResourceClaim>,
    /// Nothing is allocated any more, so that it need not be kept.
    unprotect: bool,
    /// Its pod needs it no more.
    delete: bool,
}

/// What is known of a pod that a claim names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumer {
    Gone,
    Done,
    Runs,
}

/// `consumers` are the states of those that the claim is reserved for, in order; `owner` is that of the pod that it was made for.
fn plan(claim: &ResourceClaim, consumers: &[Consumer], owner: Option<Consumer>) -> Plan {
    let reserved = claims::consumers(claim);
    let valid: Vec<_> = reserved.iter().zip(consumers).filter(|(_, state)| **state == Consumer::Runs).collect();
    let protected = claim.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == claims::FINALIZER);
    let unused = valid.is_empty();
    // Claims are allocated for their users: with the last of them that ends.
    let deallocate = protected && unused && claims::is_allocated(claim) && (!reserved.is_empty() || meta::ends(claim));
    let status = (valid.len() < reserved.len() || deallocate).then(|| {
        let mut next = claim.clone();
        let status = next.status.get_or_insert_default();
        status.reserved_for = Some(valid.iter().map(|(consumer, _)| (*consumer).clone()).collect()).filter(|_| !unused);
        if deallocate {
            (status.allocation, status.devices) = (None, None);
        }
        next
    });
    let free = deallocate || !claims::is_allocated(claim);
    Plan {
        unprotect: protected && unused && free && (status.is_some() || meta::ends(claim)),
        delete: unused && !meta::ends(claim) && matches!(owner, Some(Consumer::Gone | Consumer::Done)),
        status,
    }
}

impl ClaimUse {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { pods: informers.of(), claims: informers.of() }
    }

    /// The state of a pod; the cache may not know yet one that is reserved for.
    async fn state(&self, cx: &Cx, namespace: &str, name: &str, uid: &str) -> Result<Consumer, Error> {
        let pod = match self.pods.get(Some(namespace), name) {
            Some(pod) => Some(pod),
            None => Api::<Pod>::namespaced(cx.client.clone(), namespace).get_opt(name).await?.map(Arc::new),
        };
        Ok(match pod.filter(|pod| meta::uid(pod.as_ref()) == uid) {
            None => Consumer::Gone,
            Some(pod) if pods::is_finished(&pod) || meta::ends(pod.as_ref()) && pods::node(&pod).is_empty() => Consumer::Done,
            Some(_) => Consumer::Runs,
        })
    }
}

impl Controller for ClaimUse {
    const NAME: &'static str = "resource-claim";
    const ACCOUNT: &'static str = "resource-claim-controller";

    fn sources(&self) -> Vec<Source> {
        let of_pods = Source::stepped(&self.pods, |step, queue| {
            let Some(change) = pods::with_device_claims(step) else { return };
            let ended = |pod: &Arc<Pod>| change.new.is_none() || pods::is_finished(pod) || meta::ends(pod.as_ref());
            let Some(pod) = change.object().filter(|pod| ended(pod)) else { return };
            for name in claims::names(pod) {
                queue.add(Key { namespace: change.key.namespace.clone(), name: name.to_owned() });
            }
        });
        vec![of_pods, Source::own(&self.claims)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(claim) = self.claims.by_key(key) else { return Ok(Action::Done) };
        let mut consumers = Vec::new();
        for consumer in claims::consumers(&claim) {
            consumers.push(match (consumer.api_group.as_deref().unwrap_or_default(), consumer.resource.as_str()) {
                ("", "pods") => self.state(cx, key.ns(), &consumer.name, &consumer.uid).await?,
                // Of what else uses it nothing is known: it stays.
                _ => Consumer::Runs,
            });
        }
        let owner = match claims::owner(&claim) {
            // A pod of which the cache has not heard yet is looked for where a reservation depends on it; else the garbage collector
            // goes by it.
            Some((name, uid)) if self.pods.get(Some(key.ns()), name).is_some() => {
                Some(self.state(cx, key.ns(), name, uid).await?)
            }
            _ => None,
        };
        let plan = plan(&claim, &consumers, owner);
        let api: Api<ResourceClaim> = Api::namespaced(cx.client.clone(), key.ns());
        let name = key.name.as_str();
        let mut latest = claim.as_ref().clone();
        // Written whole, so that it fails if anything has changed since.
        if let Some(next) = plan.status {
            latest = api.replace_status(name, &PostParams::default(), &next).await?;
        }
        if plan.unprotect {
            latest.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != claims::FINALIZER);
            gone_is_fine(api.replace(name, &PostParams::default(), &latest).await.map(drop))?;
        }
        if plan.delete {
            write::delete(&api, claim.as_ref()).await?;
        }
        Ok(Action::Done)
    }
}

fn gone_is_fine(result: kube::Result<()>) -> Result<(), Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests;
