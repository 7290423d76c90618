//! Objects whose owners are gone go too; owners that wait for their dependents go after them, or free them.

mod graph;
mod monitor;
mod resources;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::events::Type;
use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use client::kube::core::{DynamicObject, PartialObjectMeta};
use client::kube::{self, Api};
use client::segment;
use client::{Client, Key};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::Mutex;
use serde_json::json;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::discovery::Discovered;
use graph::{FOREGROUND, Graph, Item, ORPHAN, Uid, Waits, uid};
use monitor::{Monitor, key_of};
use resources::Resources;

type Meta = PartialObjectMeta<DynamicObject>;

pub(crate) struct GarbageCollector {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    resources: Arc<Mutex<Resources>>,
    /// Where deletions that make others due are announced.
    queue: Arc<Mutex<Option<crate::queue::Queue>>>,
}

impl GarbageCollector {
    /// `client` has the collector's own identity, which may read the metadata of everything.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, graph: Arc::default(), resources: Arc::default(), queue: Arc::default() }
    }
}

/// What an owner is to a dependent that may have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bond {
    /// It is there and stays.
    Solid,
    /// It is gone.
    Dangling,
    /// It waits for its dependents to go.
    Waiting,
    /// The reference cannot be followed: nothing outside of namespaces is owned by something in one.
    Senseless,
    /// The API serves no such kind. It may come: the monitor has the object looked at again then.
    Unserved,
}

impl Controller for GarbageCollector {
    const NAME: &'static str = "garbage-collector";
    const ACCOUNT: &'static str = "generic-garbage-collector";
    const CONCURRENCY: usize = 20;

    fn sources(&self) -> Vec<Source> {
        let monitor = Monitor { client: self.client.clone(), graph: self.graph.clone(), resources: self.resources.clone() };
        let slot = self.queue.clone();
        vec![Source {
            synced: Box::pin(std::future::ready(())),
            feed: Box::new(move |queue| {
                *slot.lock() = Some(queue.clone());
                Box::pin(monitor.run(queue))
            }),
        }]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Ok(own) = Uid::from_str_radix(&key.name, 16) else { return Ok(Action::Done) };
        let Some(item) = self.graph.lock().item(own).cloned() else { return Ok(Action::Done) };
        let target = self.target(cx, &item);
        let Some(live) = target.get(&item.name, own).await? else {
            // Somebody else was faster; the watch tells the rest.
            return Ok(Action::Done);
        };
        match item.waits {
            Waits::Foreground => return self.finish_foreground(&target, own, &live).await,
            Waits::Orphan => return self.finish_orphaning(cx, &target, own, &live).await,
            Waits::No if item.ends || live.deletion_timestamp.is_some() => return Ok(Action::Done),
            Waits::No => {}
        }
        self.judge(cx, &target, own, &live).await
    }
}

/// The API of one object's resource.
struct Target {
    meta: Api<Meta>,
    whole: Api<DynamicObject>,
}

impl Target {
    fn new(client: &Client, resource: &Discovered, namespace: Option<&str>) -> Self {
        let (client, api) = (client.clone(), &resource.api);
        match namespace.filter(|_| resource.namespaced) {
            Some(namespace) => Self {
                meta: Api::namespaced_with(client.clone(), namespace, api),
                whole: Api::namespaced_with(client, namespace, api),
            },
            None => Self { meta: Api::all_with(client.clone(), api), whole: Api::all_with(client, api) },
        }
    }

    /// The object, if it is there with this uid.
    async fn get(&self, name: &str, own: Uid) -> Result<Option<ObjectMeta>, Error> {
        let found = self.meta.get_metadata_opt(&segment(name)?).await?.map(|object| object.metadata);
        Ok(found.filter(|meta| uid(meta.uid.as_deref().unwrap_or_default()) == own))
    }

    /// Changes metadata, if the object is still as it was seen. What it is then; none when it is gone.
    async fn patch(&self, seen: &ObjectMeta, mut change: serde_json::Value) -> Result<Option<ObjectMeta>, Error> {
        change["uid"] = json!(seen.uid);
        change["resourceVersion"] = json!(seen.resource_version);
        let name = seen.name.as_deref().unwrap_or_default();
        let patch = Patch::Merge(json!({"metadata": change}));
        forget_missing(
            self.whole.patch_metadata(&segment(name)?, &PatchParams::default(), &patch).await.map(|object| object.metadata),
        )
    }

    async fn remove_finalizer(&self, seen: &ObjectMeta, finalizer: &str) -> Result<(), Error> {
        let mut finalizers = seen.finalizers.clone().unwrap_or_default();
        finalizers.retain(|one| one != finalizer);
        self.patch(seen, json!({"finalizers": finalizers})).await.map(|_| ())
    }

    async fn keep_owners(&self, seen: &ObjectMeta, keep: impl Fn(&OwnerReference) -> bool) -> Result<(), Error> {
        let owners: Vec<&OwnerReference> = seen.owner_references.iter().flatten().filter(|owner| keep(owner)).collect();
        self.patch(seen, json!({"ownerReferences": owners})).await.map(|_| ())
    }

    /// Makes the object hold up no deletion of its owners.
    async fn unblock_owners(&self, seen: &ObjectMeta) -> Result<Option<ObjectMeta>, Error> {
        let unblocked = |owner: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() };
        let owners: Vec<OwnerReference> = seen.owner_references.iter().flatten().map(unblocked).collect();
        self.patch(seen, json!({"ownerReferences": owners})).await
    }

    async fn delete(&self, seen: &ObjectMeta, policy: PropagationPolicy) -> Result<(), Error> {
        let (uid, resource_version) = (seen.uid.clone(), seen.resource_version.clone());
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        let params = params.preconditions(Preconditions { uid, resource_version });
        let name = seen.name.as_deref().unwrap_or_default();
        forget_missing(self.whole.delete(&segment(name)?, &params).await).map(|_| ())
    }
}

fn forget_missing<T>(result: kube::Result<T>) -> Result<Option<T>, Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        other => Ok(Some(other?)),
    }
}

impl GarbageCollector {
    fn target(&self, cx: &Cx, item: &Item) -> Target {
        let resources = self.resources.lock();
        Target::new(&cx.client, &resources.all[item.resource], item.namespace.as_deref())
    }

    /// Lets an owner go when nothing holds it up; otherwise makes sure that what does is on its way.
    async fn finish_foreground(&self, target: &Target, own: Uid, live: &ObjectMeta) -> Result<Action, Error> {
        let blocking = self.graph.lock().blocking(own);
        if blocking.is_empty() {
            target.remove_finalizer(live, FOREGROUND).await?;
            return Ok(Action::Done);
        }
        let dependents: Vec<Uid> = {
            let graph = self.graph.lock();
            graph.dependents_of(own).filter(|uid| graph.item(*uid).is_some_and(|item| !item.ends)).collect()
        };
        let queue = self.queue.lock().clone();
        dependents.into_iter().for_each(|uid| queue.iter().for_each(|queue| queue.add(key_of(uid))));
        Ok(Action::Done)
    }

    /// Frees the dependents of an owner, then lets it go.
    async fn finish_orphaning(&self, cx: &Cx, target: &Target, own: Uid, live: &ObjectMeta) -> Result<Action, Error> {
        let dependents: Vec<(Uid, Item)> = {
            let graph = self.graph.lock();
            graph.dependents_of(own).filter_map(|uid| Some((uid, graph.item(uid)?.clone()))).collect()
        };
        for (uid_of, item) in dependents {
            let dependent = self.target(cx, &item);
            if let Some(seen) = dependent.get(&item.name, uid_of).await? {
                dependent.keep_owners(&seen, |owner| uid(&owner.uid) != own).await?;
            }
        }
        target.remove_finalizer(live, ORPHAN).await?;
        Ok(Action::Done)
    }

    /// Deletes an object that no owner holds any more.
    async fn judge(&self, cx: &Cx, target: &Target, own: Uid, live: &ObjectMeta) -> Result<Action, Error> {
        let owners = live.owner_references.as_deref().unwrap_or_default();
        let mut bonds = Vec::with_capacity(owners.len());
        for owner in owners {
            bonds.push(self.bond(cx, owner, own, live).await?);
        }
        if bonds.is_empty() || bonds.iter().any(|bond| matches!(bond, Bond::Senseless | Bond::Unserved)) {
            return Ok(Action::Done);
        }
        if bonds.contains(&Bond::Solid) {
            if bonds.iter().any(|bond| *bond != Bond::Solid) {
                let solid: Vec<&str> = owners
                    .iter()
                    .zip(&bonds)
                    .filter(|(_, bond)| **bond == Bond::Solid)
                    .map(|(owner, _)| owner.uid.as_str())
                    .collect();
                target.keep_owners(live, |owner| solid.contains(&owner.uid.as_str())).await?;
            }
            return Ok(Action::Done);
        }
        let (has_dependents, may_be_circle) = self.dependents(own);
        if !(bonds.contains(&Bond::Waiting) && has_dependents) {
            target.delete(live, policy(live)).await?;
        } else if !may_be_circle {
            target.delete(live, PropagationPolicy::Foreground).await?;
        } else if let Some(live) = target.unblock_owners(live).await? {
            // Everybody in a circle would wait for the next one: this object no longer lets its owners wait.
            target.delete(&live, PropagationPolicy::Foreground).await?;
        }
        Ok(Action::Done)
    }

    /// Whether an object has dependents, and whether one of them waits for dependents of its own.
    fn dependents(&self, own: Uid) -> (bool, bool) {
        let graph = self.graph.lock();
        let has_some = graph.dependents_of(own).next().is_some();
        let waiting = graph.dependents_of(own).any(|uid| graph.waits(uid) == Waits::Foreground);
        (has_some, waiting)
    }

    /// What an owner is to an object.
    async fn bond(&self, cx: &Cx, owner: &OwnerReference, own: Uid, live: &ObjectMeta) -> Result<Bond, Error> {
        let (namespace, owner_uid) = (live.namespace.as_deref(), uid(&owner.uid));
        let (resource, place) = {
            let resources = self.resources.lock();
            let Some(number) = resources.of_kind(&owner.api_version, &owner.kind) else {
                // Upstream tries again for ever, and tells of it at verbosity 5: whoever writes such a reference fills no log.
                tracing::debug!(name = live.name, namespace, kind = owner.kind, "the API serves no such kind of an owner");
                return Ok(Bond::Unserved);
            };
            (resources.all[number].clone(), resources.place_of(owner, namespace))
        };
        let seen = {
            let graph = self.graph.lock();
            if graph.is_live(owner_uid, place) {
                let waits = graph.waits(owner_uid) == Waits::Foreground;
                return Ok(if waits { Bond::Waiting } else { Bond::Solid });
            }
            graph.place(owner_uid)
        };
        let is_elsewhere = seen.zip(place).is_some_and(|(seen, place)| seen.is_elsewhere(place));
        if resource.namespaced && namespace.is_none() {
            if is_elsewhere {
                self.report_elsewhere(cx, owner, own, live);
            }
            return Ok(Bond::Senseless);
        }
        // The watch may be behind: the API decides.
        let Some(found) = Target::new(&cx.client, &resource, namespace).get(&owner.name, owner_uid).await? else {
            if is_elsewhere {
                self.report_elsewhere(cx, owner, own, live);
            }
            return Ok(Bond::Dangling);
        };
        let foreground = found.finalizers.iter().flatten().any(|one| one == FOREGROUND);
        Ok(if found.deletion_timestamp.is_some() && foreground { Bond::Waiting } else { Bond::Solid })
    }

    /// Tells the user that the owner is in another namespace, which no reference reaches.
    fn report_elsewhere(&self, cx: &Cx, owner: &OwnerReference, own: Uid, live: &ObjectMeta) {
        let number = self.graph.lock().item(own).map(|item| item.resource);
        let Some(api) = number.map(|number| self.resources.lock().all[number].api.clone()) else { return };
        let object = ObjectReference {
            api_version: Some(api.api_version),
            kind: Some(api.kind),
            namespace: live.namespace.clone(),
            name: live.name.clone(),
            uid: live.uid.clone(),
            ..ObjectReference::default()
        };
        let OwnerReference { api_version, kind, name, uid, .. } = owner;
        let namespace = live.namespace.as_deref().unwrap_or_default();
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace {namespace:?}"
        );
        cx.events.event(&object, Type::Warning, "OwnerRefInvalidNamespace", message);
    }
}

/// How an object wants to be deleted, by the finalizers it was given before.
fn policy(live: &ObjectMeta) -> PropagationPolicy {
    let has = |name: &str| live.finalizers.iter().flatten().any(|finalizer| finalizer == name);
    if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    }
}
