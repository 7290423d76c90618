//! Which objects belong to an owner: by controller reference, and by selector where nobody has claimed them.

use codec::Encode;
use std::sync::Arc;

use apimachinery::labels::Selector;
use client::Api;
use client::kube::api::{Patch, PatchParams};
use client::kube::core::NamespaceResourceScope;
use client::kube::{self, Resource};
use client::{Entry, Informer, Key, Object, Step};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::controller::{Cx, Error};
use crate::meta;
use crate::queue::Queue;

/// A namespaced kind.
pub(crate) trait Owned: Object + Resource<Scope = NamespaceResourceScope> {}
impl<K: Object + Resource<Scope = NamespaceResourceScope>> Owned for K {}

/// The objects of `owner`, after adopting those that match and letting go of those that no longer do.
pub(crate) async fn claim<O: Owned, C: Owned>(
    cx: &Cx,
    owner: &O,
    selector: &Selector,
    cache: &Informer<C>,
) -> Result<Vec<Arc<C>>, Error> {
    let rules = Rules { may_own: |_: &Entry<C>| true, is_past: |_: &Entry<C>| false, finalizer: None };
    Ok(claim_as(cx, owner, selector, cache, rules).await?.objects())
}

/// [`claim`] for an owner that may have very many: what is there already is not decoded. It takes nothing that `is_past`, and lets none of it go.
pub(crate) async fn claim_entries<O: Owned, C: Owned + Encode>(
    cx: &Cx,
    owner: &O,
    selector: &Selector,
    cache: &Informer<C>,
    is_past: impl Fn(&Entry<C>) -> bool,
) -> Result<Vec<Entry<C>>, Error> {
    let rules = Rules { may_own: |_: &Entry<C>| true, is_past, finalizer: None };
    let Claimed { mut known, adopted } = claim_as(cx, owner, selector, cache, rules).await?;
    let entry = |object: C| object.to_json().and_then(Entry::of_json).ok();
    known.extend(adopted.into_iter().filter_map(entry));
    Ok(known)
}

/// [`claim`] for an owner that takes only objects of which `may_own` is true, whatever their labels.
pub(crate) async fn claim_where<O: Owned, C: Owned>(
    cx: &Cx,
    owner: &O,
    selector: &Selector,
    cache: &Informer<C>,
    may_own: impl Fn(&C) -> bool,
) -> Result<Vec<Arc<C>>, Error> {
    let may_own = |entry: &Entry<C>| entry.get().is_some_and(|object| may_own(&object));
    let rules = Rules { may_own, is_past: |_: &Entry<C>| false, finalizer: None };
    Ok(claim_as(cx, owner, selector, cache, rules).await?.objects())
}

/// [`claim`] for an owner that holds what it owns by a finalizer: it comes with adoption and goes with release.
pub(crate) async fn claim_tracked<O: Owned, C: Owned>(
    cx: &Cx,
    owner: &O,
    selector: &Selector,
    cache: &Informer<C>,
    finalizer: &str,
) -> Result<Vec<Arc<C>>, Error> {
    let rules = Rules { may_own: |_: &Entry<C>| true, is_past: |_: &Entry<C>| false, finalizer: Some(finalizer) };
    Ok(claim_as(cx, owner, selector, cache, rules).await?.objects())
}

/// How an owner takes objects and lets them go.
struct Rules<'a, M, P> {
    /// Whether it may own an object.
    may_own: M,
    /// Whether an object counts no more: it stays whose it is.
    is_past: P,
    /// Comes with adoption and goes with release.
    finalizer: Option<&'a str>,
}

/// What an owner has: what the cache says that it has, and what it has just been given.
struct Claimed<C> {
    known: Vec<Entry<C>>,
    adopted: Vec<C>,
}

impl<C: Owned> Claimed<C> {
    fn objects(self) -> Vec<Arc<C>> {
        let known = self.known.iter().filter_map(Entry::get);
        known.chain(self.adopted.into_iter().map(Arc::new)).collect()
    }
}

async fn claim_as<O: Owned, C: Owned>(
    cx: &Cx,
    owner: &O,
    selector: &Selector,
    cache: &Informer<C>,
    Rules { may_own, is_past, finalizer }: Rules<'_, impl Fn(&Entry<C>) -> bool, impl Fn(&Entry<C>) -> bool>,
) -> Result<Claimed<C>, Error> {
    let namespace = meta::namespace(owner);
    let api: Api<C> = Api::namespaced(cx.client.clone(), namespace);
    let mut claimed = Claimed { known: Vec::new(), adopted: Vec::new() };
    for entry in cache.entries_owned_by(meta::uid(owner)) {
        if entry.key().ns() != namespace {
            continue;
        }
        let stays = || selector.matches(&meta::Labels(entry.labels())) && may_own(&entry);
        if meta::ends(owner) || stays() || is_past(&entry) {
            claimed.known.push(entry);
        } else if let Some(object) = entry.get() {
            release(&api, object.as_ref(), meta::uid(owner), finalizer).await?;
        }
    }
    if meta::ends(owner) {
        return Ok(claimed);
    }
    let mut orphans = cache.orphan_entries(namespace, |labels| selector.matches(&meta::Labels(labels)));
    orphans.retain(|entry| !entry.is_ending() && may_own(entry) && !is_past(entry));
    if orphans.is_empty() {
        return Ok(claimed);
    }
    confirm_alive(cx, owner).await?;
    for object in orphans.iter().filter_map(Entry::get) {
        claimed.adopted.extend(adopt(&api, object.as_ref(), owner, finalizer).await?);
    }
    Ok(claimed)
}

/// A cache may be behind: an owner that is being deleted must not adopt what its deletion orphans.
async fn confirm_alive<O: Owned>(cx: &Cx, owner: &O) -> Result<(), Error> {
    let api: Api<O> = Api::namespaced(cx.client.clone(), meta::namespace(owner));
    let live = api.get(meta::name(owner)).await?;
    if live.meta().uid != owner.meta().uid || meta::ends(&live) {
        return Err(Error::Other(format!("{} was deleted meanwhile", meta::name(owner))));
    }
    Ok(())
}

async fn adopt<O: Owned, C: Owned>(api: &Api<C>, object: &C, owner: &O, finalizer: Option<&str>) -> Result<Option<C>, Error> {
    let mut meta = object.meta().clone();
    let owners = meta.owner_references.get_or_insert_default();
    owners.retain(|reference| reference.uid != meta::uid(owner));
    owners.push(meta::controller_ref(owner));
    if let Some(finalizer) = finalizer {
        let finalizers = meta.finalizers.get_or_insert_default();
        finalizers.retain(|other| other != finalizer);
        finalizers.push(finalizer.to_owned());
    }
    set_owners(api, &meta).await
}

async fn release<C: Owned>(api: &Api<C>, object: &C, uid: &str, finalizer: Option<&str>) -> Result<(), Error> {
    let mut meta = object.meta().clone();
    meta.owner_references.get_or_insert_default().retain(|reference| reference.uid != uid);
    meta.finalizers.get_or_insert_default().retain(|other| Some(other.as_str()) != finalizer);
    set_owners(api, &meta).await.map(|_| ())
}

/// Writes owners and finalizers. None when the object is gone or another.
async fn set_owners<C: Owned>(api: &Api<C>, meta: &ObjectMeta) -> Result<Option<C>, Error> {
    let patch = json!({"metadata": {
        "ownerReferences": meta.owner_references,
        "finalizers": meta.finalizers,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    }});
    match api.patch(meta.name.as_deref().unwrap_or_default(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(changed) => Ok(Some(changed)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Enqueues the owners that a change of an owned object concerns: its controller before and after, and for an object
/// without controller every owner whose selector matches it.
pub(crate) fn owners<O: Object, C: Object>(
    step: &Step<C>,
    owners: &Informer<O>,
    kind: &str,
    selector: impl Fn(&O) -> Option<Selector>,
    queue: &Queue,
) {
    // Most objects belong to owners of other kinds.
    for entry in step.entries().filter(|entry| entry.is_controlled() && entry.mentions(kind)) {
        if let Some(owner) = entry.controller().filter(|owner| owner.kind == kind) {
            queue.add(Key { namespace: step.key().namespace.clone(), name: owner.name });
        }
    }
    adopters(step, owners, selector, queue);
}

/// Enqueues every owner whose selector matches the object of a change, if that object has no controller.
pub(crate) fn adopters<O: Object, C: Object>(
    step: &Step<C>,
    owners: &Informer<O>,
    selector: impl Fn(&O) -> Option<Selector>,
    queue: &Queue,
) {
    let Some(new) = step.new.as_ref().filter(|new| !new.is_controlled() && !new.is_ending()) else { return };
    for owner in owners.in_namespace(step.key().ns()) {
        let matches = |selector: Selector| !selector.is_everything() && selector.matches(&meta::Labels(new.labels()));
        if selector(&owner).is_some_and(matches) {
            queue.add(Key::of(owner.as_ref()));
        }
    }
}
