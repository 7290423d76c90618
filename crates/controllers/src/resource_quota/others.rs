//! Objects that quotas only count, of whatever kind: how many there are, and when one goes.

use std::collections::HashMap;
use std::pin::Pin;

use ::pods::quota;
use client::kube::api::ListParams;
use client::kube::core::{ApiResource, DynamicObject};
use client::kube::{Api, Resource};
use client::watch::{self, Event};
use client::{Client, Informer, Key, metadata};
use futures::stream::SelectAll;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ResourceQuota;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::controller::Error;
use crate::discovery::discover;
use crate::queue::Queue;

/// Group and plural.
type Name = (String, String);
/// The namespaces in which objects went; None when it may be any.
type Watch = Pin<Box<dyn Stream<Item = Option<String>> + Send>>;

pub(super) struct Others {
    client: Client,
    known: Mutex<HashMap<Name, ApiResource>>,
}

/// The group and plural of what is only counted under this name; what takes more than a number is counted elsewhere.
pub(super) fn counted(name: &str) -> Option<(&str, &str)> {
    let typed = |resource: &(&str, &str)| {
        matches!(*resource, ("", "pods" | "services" | "persistentvolumeclaims") | quota::devices::RESOURCE)
    };
    quota::counted(name).filter(|resource| !typed(resource))
}

impl Others {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// The resource as the API serves it; None when it does not.
    async fn resource(&self, group: &str, plural: &str) -> Result<Option<ApiResource>, Error> {
        let key = (group.to_owned(), plural.to_owned());
        if let Some(known) = self.known.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let found = discover(&self.client).await?.resources.into_iter().filter(|one| one.namespaced);
        let mut known = self.known.lock();
        known.extend(found.map(|one| ((one.api.group.clone(), one.api.plural.clone()), one.api)));
        Ok(known.get(&key).cloned())
    }

    /// How many objects the namespace has. The API counts them: one is read.
    pub(super) async fn count(&self, namespace: &str, group: &str, plural: &str) -> Result<i64, Error> {
        let Some(resource) = self.resource(group, plural).await? else { return Ok(0) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let list = api.list_metadata(&ListParams::default().limit(1)).await?;
        let more = list.metadata.remaining_item_count.unwrap_or(0);
        Ok(i64::try_from(list.items.len()).unwrap_or(0).saturating_add(more))
    }

    /// Enqueues quotas when objects go that they count, for ever.
    pub(super) async fn follow(&self, quotas: &Informer<ResourceQuota>, queue: &Queue) {
        let (mut changes, mut watches) = (quotas.changes(), SelectAll::<Watch>::new());
        let mut watched: Vec<Name> = Vec::new();
        loop {
            tokio::select! {
                change = changes.next() => {
                    for resource in change.new.as_deref().map(super::numbered_of).unwrap_or_default() {
                        if watched.contains(&resource) {
                            continue;
                        }
                        if let Ok(Some(api)) = self.resource(&resource.0, &resource.1).await {
                            watches.push(deletions(&self.client, &api));
                            watched.push(resource);
                        }
                    }
                }
                Some(namespace) = watches.next(), if !watches.is_empty() => {
                    let quotas = namespace.map_or_else(|| quotas.list(), |namespace| quotas.in_namespace(&namespace));
                    quotas.iter().for_each(|quota| queue.add(Key::of(quota.as_ref())));
                }
            }
        }
    }
}

/// What is read of an object that has gone.
#[derive(Deserialize)]
struct Place {
    namespace: Option<String>,
}

fn deletions(client: &Client, resource: &ApiResource) -> Watch {
    let watch = watch::Watch::new(client.clone(), DynamicObject::url_path(resource, None), "").metadata_only();
    Box::pin(watch.encoded().filter_map(|event| {
        std::future::ready(match event {
            Ok(Event::Delete(object)) => metadata::of(&object).ok().map(|place: Place| place.namespace),
            // A new list: what went meanwhile is not told.
            Ok(Event::InitDone(_)) => Some(None),
            _ => None,
        })
    }))
}
