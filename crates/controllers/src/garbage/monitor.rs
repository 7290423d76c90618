//! Watches the metadata of every object of every resource that the API serves.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::kube::Resource;
use client::kube::core::{ApiResource, DynamicObject};
use client::watch::{self, Event};
use client::{Client, Key, metadata};
use futures::stream::SelectAll;
use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::graph::{Graph, Uid, uid};
use super::resources::Resources;
use crate::Error;
use crate::discovery::{Discovered, Discovery, discover};
use crate::queue::Queue;

/// How long the first lists may take before work starts without the rest.
const PATIENCE: Duration = Duration::from_secs(30);
/// Discovery is asked again this long after definitions changed: they come in crowds.
const SETTLE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);

/// None when the API does not have the resource.
type Watch = Pin<Box<dyn Stream<Item = (usize, Option<Event<Bytes>>)> + Send>>;

/// What counts here of an object; the rest is not decoded.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Time>,
}

fn meta(object: &[u8]) -> ObjectMeta {
    match metadata::of::<Meta>(object) {
        Ok(Meta { name, namespace, uid, owner_references, finalizers, deletion_timestamp }) => {
            ObjectMeta { name, namespace, uid, owner_references, finalizers, deletion_timestamp, ..ObjectMeta::default() }
        }
        Err(error) => {
            tracing::error!(%error, "an object has no readable metadata");
            ObjectMeta::default()
        }
    }
}

pub(super) struct Monitor {
    pub(super) client: Client,
    pub(super) graph: Arc<Mutex<Graph>>,
    pub(super) resources: Arc<Mutex<Resources>>,
}

struct Running {
    watches: SelectAll<Watch>,
    /// The version in which each resource is watched, and what ends that.
    watched: HashMap<usize, (String, CancellationToken)>,
    /// Uids of the list that is coming in.
    listed: HashMap<usize, HashSet<Uid>>,
    /// Resources whose first list is not in yet.
    waiting: HashSet<usize>,
    /// Work that waits for them.
    held: Vec<Uid>,
}

fn is_watched(resource: &Discovered) -> bool {
    let is_event = resource.api.plural == "events" && matches!(resource.api.group.as_str(), "" | "events.k8s.io");
    !is_event && ["delete", "list", "watch"].iter().all(|verb| resource.can(verb))
}

/// Whether a change of the resource changes what the API serves.
fn defines_resources(resource: &ApiResource) -> bool {
    matches!(resource.plural.as_str(), "customresourcedefinitions" | "apiservices")
}

impl Monitor {
    pub(super) async fn run(self, queue: Queue) {
        let mut running = Running {
            watches: SelectAll::new(),
            watched: HashMap::new(),
            listed: HashMap::new(),
            waiting: HashSet::new(),
            held: Vec::new(),
        };
        let patience = tokio::time::sleep(PATIENCE);
        let mut patience = std::pin::pin!(patience);
        let mut impatient = false;
        let mut refresh = Some(tokio::time::Instant::now());
        // Discovery goes on beside the watches: a watch that nobody polls may keep its turn among the client's requests, and the request
        // behind it would wait for ever.
        let mut discovering = None;
        loop {
            tokio::select! {
                () = at(refresh), if discovering.is_none() => {
                    refresh = None;
                    discovering = Some(Box::pin(discover(&self.client)));
                }
                discovery = outcome(&mut discovering) => {
                    discovering = None;
                    refresh = refresh.or(self.refresh(&mut running, discovery));
                }
                Some((number, event)) = running.watches.next(), if !running.watches.is_empty() => {
                    let again = match &event {
                        // It is served in another version, or about to go.
                        None => Some(RETRY),
                        Some(Event::Apply(_) | Event::Delete(_)) => {
                            defines_resources(&self.resources.lock().all[number].api).then_some(SETTLE)
                        }
                        Some(_) => None,
                    };
                    refresh = refresh.or_else(|| again.map(|again| tokio::time::Instant::now() + again));
                    event.into_iter().for_each(|event| self.take(&mut running, number, event));
                }
                () = &mut patience, if !impatient => impatient = true,
            }
            let is_complete = refresh.is_none() && discovering.is_none() && running.waiting.is_empty();
            if is_complete || impatient {
                running.held.drain(..).for_each(|uid| queue.add(key_of(uid)));
            }
        }
    }

    /// Starts watches of new resources and ends those of resources that went. When to ask again.
    fn refresh(&self, running: &mut Running, discovery: Result<Discovery, Error>) -> Option<tokio::time::Instant> {
        let discovery = match discovery {
            Ok(discovery) => discovery,
            Err(error) => {
                tracing::debug!(%error, "discovery failed, again later");
                return Some(tokio::time::Instant::now() + RETRY);
            }
        };
        let (mut present, before) = (HashSet::new(), running.watches.len());
        for resource in discovery.resources.iter().filter(|resource| is_watched(resource)) {
            let number = self.resources.lock().number(resource);
            present.insert(number);
            let version = &resource.api.api_version;
            if running.watched.get(&number).is_some_and(|(watched, _)| watched == version) {
                continue;
            }
            // What is known of another version stays until the list of this one is in.
            running.forget(number);
            let stop = CancellationToken::new();
            running.waiting.insert(number);
            running.watches.push(watch(&self.client, &resource.api, number, stop.clone()));
            running.watched.insert(number, (version.clone(), stop));
        }
        if running.watches.len() > before {
            running.held.extend(self.graph.lock().unplaced());
        }
        if discovery.failures.is_empty() {
            let gone: Vec<usize> = running.watched.keys().filter(|number| !present.contains(number)).copied().collect();
            for number in gone {
                running.forget(number);
                self.remove_all(running, number, &HashSet::new());
            }
            None
        } else {
            Some(tokio::time::Instant::now() + RETRY)
        }
    }

    fn take(&self, running: &mut Running, number: usize, event: Event<Bytes>) {
        match event {
            Event::Init => {
                running.listed.insert(number, HashSet::new());
            }
            Event::InitApply(object) => {
                let meta = meta(&object);
                let own = uid(meta.uid.as_deref().unwrap_or_default());
                running.listed.entry(number).or_default().insert(own);
                self.observe(running, number, &meta);
            }
            Event::InitDone(_) => {
                running.waiting.remove(&number);
                let keep = running.listed.remove(&number).unwrap_or_default();
                self.remove_all(running, number, &keep);
            }
            Event::Apply(object) => self.observe(running, number, &meta(&object)),
            Event::Delete(object) => {
                let own = uid(meta(&object).uid.as_deref().unwrap_or_default());
                running.held.extend(self.graph.lock().remove(own));
            }
        }
    }

    fn observe(&self, running: &mut Running, number: usize, meta: &ObjectMeta) {
        let owners = self.resources.lock().owners(meta);
        running.held.extend(self.graph.lock().observe(number, meta, owners));
    }

    fn remove_all(&self, running: &mut Running, number: usize, keep: &HashSet<Uid>) {
        let mut graph = self.graph.lock();
        for own in graph.stale(number, keep) {
            running.held.extend(graph.remove(own));
        }
    }
}

impl Running {
    fn forget(&mut self, number: usize) {
        if let Some((_, stop)) = self.watched.remove(&number) {
            stop.cancel();
        }
        self.waiting.remove(&number);
        self.listed.remove(&number);
    }
}

fn watch(client: &Client, resource: &ApiResource, number: usize, stop: CancellationToken) -> Watch {
    let watch = watch::Watch::new(client.clone(), DynamicObject::url_path(resource, None), "");
    // Whole objects: those of the API server's cache cost nothing, and cutting out their metadata would.
    let events = watch.encoded();
    let events = events.filter_map(move |event| {
        std::future::ready(match event {
            Ok(event) => Some((number, Some(event))),
            Err(error) => error.is_missing().then_some((number, None)),
        })
    });
    Box::pin(events.take_until(stop.cancelled_owned()))
}

async fn at(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What comes of a future, once there is one.
async fn outcome<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The queue's key of an object.
pub(super) fn key_of(uid: Uid) -> Key {
    Key::cluster(format!("{uid:032x}"))
}
