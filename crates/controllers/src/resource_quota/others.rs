//! Objects that quotas only count, of whatever kind: how many there are, and when one goes.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::time::Duration;

use ::pods::quota;
use client::kube::api::ListParams;
use client::kube::core::{ApiResource, DynamicObject};
use client::kube::{self, Api, Resource};
use client::watch::{self, Event};
use client::{Client, Informer, Key, metadata};
use futures::stream::SelectAll;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ResourceQuota;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use crate::controller::Error;
use crate::discovery::{Discovery, discover};
use crate::queue::Queue;

/// Group and plural.
type Name = (String, String);
type Watch = Pin<Box<dyn Stream<Item = (Name, Seen)> + Send>>;

/// How soon it is asked again whether a resource is served that quotas count.
const RETRY: Duration = Duration::from_secs(30);

/// How soon, when it was served a moment ago.
const SOON: Duration = Duration::from_secs(1);

/// What a watch tells.
enum Seen {
    /// An object went in this namespace; none when it may be any.
    Gone(Option<String>),
    /// The resource is not served any more in the version that was watched. Nothing follows.
    Missing,
}

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

    /// The resource as the API serves it; None when it does not. An error when it is unknown whether it does.
    async fn resource(&self, group: &str, plural: &str) -> Result<Option<ApiResource>, Error> {
        let key = (group.to_owned(), plural.to_owned());
        if let Some(known) = self.known.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let failures = self.learn().await?;
        let found = self.known.lock().get(&key).cloned();
        let silent = failures.iter().find(|version| version.split_once('/').map_or("", |(group, _)| group) == group);
        match (found, silent) {
            (None, Some(version)) => Err(Error::Other(format!("{plural}.{group} cannot be counted: no answer from {version}"))),
            (found, _) => Ok(found),
        }
    }

    /// Asks the API what it serves. The group versions that did not answer.
    async fn learn(&self) -> Result<Vec<String>, Error> {
        let Discovery { resources, failures } = discover(&self.client).await?;
        let found = resources.into_iter().filter(|one| one.namespaced);
        self.known.lock().extend(found.map(|one| ((one.api.group.clone(), one.api.plural.clone()), one.api)));
        Ok(failures)
    }

    fn forget(&self, group: &str, plural: &str) {
        self.known.lock().remove(&(group.to_owned(), plural.to_owned()));
    }

    /// How many objects the namespace has. The API counts them: one is read.
    pub(super) async fn count(&self, namespace: &str, group: &str, plural: &str) -> Result<i64, Error> {
        for _ in 0..2 {
            let Some(resource) = self.resource(group, plural).await? else { break };
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
            match api.list_metadata(&ListParams::default().limit(1)).await {
                Ok(list) => {
                    let more = list.metadata.remaining_item_count.unwrap_or(0);
                    return Ok(i64::try_from(list.items.len()).unwrap_or(0).saturating_add(more));
                }
                // It may be served in another version by now.
                Err(kube::Error::Api(status)) if status.is_not_found() => self.forget(group, plural),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }

    /// Enqueues quotas when objects go that they count, for ever.
    pub(super) async fn follow(&self, quotas: &Informer<ResourceQuota>, queue: &Queue) {
        let (mut changes, mut watches) = (quotas.changes(), SelectAll::<Watch>::new());
        let (mut watched, mut unwatched) = (BTreeSet::<Name>::new(), BTreeSet::<Name>::new());
        let mut again = None;
        loop {
            tokio::select! {
                change = changes.next() => {
                    let names = change.new.as_deref().map(super::numbered_of).unwrap_or_default();
                    let new: Vec<Name> = names.into_iter().filter(|name| !watched.contains(name) && !unwatched.contains(name)).collect();
                    if !new.is_empty() {
                        unwatched.extend(new);
                        again = Some(Instant::now());
                    }
                }
                Some((name, seen)) = watches.next(), if !watches.is_empty() => {
                    let namespace = match seen {
                        Seen::Gone(namespace) => namespace,
                        Seen::Missing => {
                            self.forget(&name.0, &name.1);
                            watched.remove(&name);
                            unwatched.insert(name.clone());
                            again = Some(Instant::now() + SOON);
                            None
                        }
                    };
                    let quotas = namespace.map_or_else(|| quotas.list(), |namespace| quotas.in_namespace(&namespace));
                    let concerned = quotas.iter().filter(|quota| super::numbered_of(quota).contains(&name));
                    concerned.for_each(|quota| queue.add(Key::of(quota.as_ref())));
                }
                () = until(again) => {
                    let is_known = |name: &Name| self.known.lock().contains_key(name);
                    // Once for all of them. What is not known then is asked for again.
                    if !unwatched.iter().all(is_known) && let Err(error) = self.learn().await {
                        tracing::debug!(%error, "discovery failed, again later");
                    }
                    for name in unwatched.extract_if(.., is_known) {
                        if let Some(api) = self.known.lock().get(&name) {
                            watches.push(deletions(&self.client, api, name.clone()));
                            watched.insert(name);
                        }
                    }
                    again = (!unwatched.is_empty()).then(|| Instant::now() + RETRY);
                }
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What is read of an object that has gone.
#[derive(Deserialize)]
struct Place {
    namespace: Option<String>,
}

fn deletions(client: &Client, resource: &ApiResource, name: Name) -> Watch {
    let watch = watch::Watch::new(client.clone(), DynamicObject::url_path(resource, None), "").metadata_only();
    let seen = watch.encoded().filter_map(|event| {
        std::future::ready(match event {
            Ok(Event::Delete(object)) => metadata::of(&object).ok().map(|place: Place| Seen::Gone(place.namespace)),
            // A new list: what went meanwhile is not told.
            Ok(Event::InitDone(_)) => Some(Seen::Gone(None)),
            Err(error) if error.is_missing() => Some(Seen::Missing),
            _ => None,
        })
    });
    let ends = seen.scan(false, move |ended, seen| {
        let last = std::mem::replace(ended, matches!(seen, Seen::Missing));
        std::future::ready((!last).then(|| (name.clone(), seen)))
    });
    Box::pin(ends)
}
