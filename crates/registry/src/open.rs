//! The registry itself: opening it, and finding kinds in it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use kinds::KINDS;
use parking_lot::Mutex;
use store::{Engine, Sink};
use tokio::sync::watch;

use crate::services::ServiceAddresses;
use crate::sub::TokenSubject;
use crate::{Admission, Resource};

/// Most keys read from the store at once while loading.
const LOAD_PAGE: usize = 1000;

/// How long a request waits for a revision that is not there yet, as upstream's does.
const FRESH_TIMEOUT: Duration = Duration::from_secs(3);

/// Signs ServiceAccount tokens.
pub trait TokenSigner: Send + Sync {
    /// A token for `subject` and the time of its end.
    fn sign(&self, subject: &TokenSubject) -> Result<(String, jiff::Timestamp), Status>;
}

/// What the registry needs to know.
#[derive(Clone)]
pub struct Options {
    /// First address and prefix length of the service network.
    pub service_cidr: (IpAddr, u8),
    /// Ports for services of type NodePort.
    pub node_ports: RangeInclusive<u16>,
    /// Signs tokens for the `token` subresource; without it the subresource is refused.
    pub tokens: Option<Arc<dyn TokenSigner>>,
}

/// Why the registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A kind has no schema: the tables of this build do not agree.
    #[error("{0}")]
    Schema(String),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// All kinds, over one store.
pub struct Registry {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) admission: Vec<Box<dyn Admission>>,
    pub(crate) options: Options,
    resources: Vec<Arc<Resource>>,
    by_name: HashMap<(&'static str, &'static str, &'static str), usize>,
    applied: Arc<watch::Sender<u64>>,
}

/// Feeds the caches with the store's commits.
struct Feed {
    resources: HashMap<String, Arc<Resource>>,
    applied: Arc<watch::Sender<u64>>,
    /// Commits from while the caches are loaded, none when they are. The store itself writes by then: it deletes what expired.
    early: Mutex<Option<Vec<store::Event>>>,
}

impl Feed {
    /// The resource of a key and the rest of it: `/registry/GROUP/PLURAL/` names the resource.
    fn route<'a>(&self, event: &'a store::Event) -> Option<(&Arc<Resource>, &'a str)> {
        let key = std::str::from_utf8(&event.key).ok()?;
        let (end, _) = key.match_indices('/').nth(3)?;
        Some((self.resources.get(&key[..=end])?, &key[end + 1..]))
    }

    /// Everything up to `revision` is loaded, and more: what came later is taken in where it is not loaded already.
    fn loaded(&self, mut revision: u64) {
        let mut early = self.early.lock();
        for event in early.take().unwrap_or_default() {
            if let Some((resource, path)) = self.route(&event) {
                resource.cache.load_change(path, &event);
            }
            revision = event.revision;
        }
        self.resources.values().for_each(|resource| resource.cache.loaded(revision));
        self.applied.send_replace(revision);
    }
}

impl Sink for Feed {
    fn apply(&self, events: &[store::Event]) {
        if let Some(early) = &mut *self.early.lock() {
            early.extend_from_slice(events);
            return;
        }
        let mut changed: Vec<&Arc<Resource>> = Vec::new();
        for event in events {
            let Some((resource, path)) = self.route(event) else { continue };
            resource.cache.apply(path, event);
            if !changed.iter().any(|known| Arc::ptr_eq(known, resource)) {
                changed.push(resource);
            }
        }
        if let Some(last) = events.last() {
            self.applied.send_replace(last.revision);
        }
        // Once for all, so that a watcher takes the batch in one step.
        changed.iter().for_each(|resource| resource.cache.announce());
    }
}

impl Registry {
    /// Loads every kind's objects and follows the store from there.
    pub async fn open(
        engine: Arc<dyn Engine>,
        mut admission: Vec<Box<dyn Admission>>,
        options: Options,
    ) -> Result<Arc<Self>, OpenError> {
        let resources = resources().map_err(OpenError::Schema)?;
        let applied = Arc::new(watch::Sender::new(0));
        let by_prefix = resources.iter().map(|resource| (resource.prefix.clone(), resource.clone())).collect();
        let early = Mutex::new(Some(Vec::new()));
        let feed = Arc::new(Feed { resources: by_prefix, applied: applied.clone(), early });
        let revision = engine.subscribe(feed.clone());
        for resource in resources.iter().filter(|resource| resource.def.stored && !resource.is_view()) {
            load(engine.as_ref(), resource).await?;
        }
        feed.loaded(revision);
        let name = |resource: &Resource| (resource.def.group, resource.def.version, resource.def.plural);
        let by_name = resources.iter().enumerate().map(|(index, resource)| (name(resource), index)).collect();
        // Addresses come last, when nothing else can refuse the object any more.
        admission.push(Box::new(ServiceAddresses::default()));
        Ok(Arc::new(Self { engine, admission, options, resources, by_name, applied }))
    }

    /// Every kind, in the order of the list of kinds.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// The kind of that group, version and plural.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_name.get(&(group, version, plural)).map(|index| &self.resources[*index])
    }

    /// The newest revision that every cache shows.
    pub fn revision(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Waits for a revision that a client names: the caches may be in the middle of the batch that it is of.
    pub(crate) async fn reached(&self, version: Option<u64>) -> Result<(), Status> {
        let Some(version) = version.filter(|version| *version > self.revision()) else { return Ok(()) };
        let mut applied = self.applied.subscribe();
        let reached = tokio::time::timeout(FRESH_TIMEOUT, applied.wait_for(|revision| *revision >= version)).await;
        if matches!(reached, Ok(Ok(_))) { Ok(()) } else { Err(Status::too_large_resource_version(version, self.revision())) }
    }

    pub(crate) fn revision_source(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let applied = self.applied.clone();
        Arc::new(move || *applied.borrow())
    }

    /// A kind that is part of every build, such as those that hooks look up.
    pub(crate) fn builtin(&self, group: &str, plural: &str) -> Result<&Arc<Resource>, Status> {
        self.resource(group, "v1", plural).ok_or_else(|| Status::internal(format!("{plural} are not served")))
    }
}

/// Every kind; one that shows another's objects comes after that one.
fn resources() -> Result<Vec<Arc<Resource>>, String> {
    let mut all: Vec<Arc<Resource>> = Vec::with_capacity(KINDS.len());
    for strategy in KINDS {
        let resource = match strategy.view() {
            None => Resource::new(*strategy)?,
            Some(view) => {
                let wanted = view.stored.def();
                let stored = all.iter().find(|one| (one.def.group, one.def.kind) == (wanted.group, wanted.kind));
                let stored = stored.ok_or_else(|| format!("{} {} is shown before it is there", wanted.group, wanted.kind))?;
                Resource::of_view(*strategy, view, stored)?
            }
        };
        all.push(Arc::new(resource));
    }
    Ok(all)
}

async fn load(engine: &dyn Engine, resource: &Resource) -> Result<(), store::Error> {
    let prefix = resource.prefix.as_bytes();
    let mut start = prefix.to_vec();
    let mut end = prefix.to_vec();
    // '0' follows '/' in ASCII: the end of all keys under the prefix.
    end.pop();
    end.push(b'0');
    loop {
        let page = engine.range(&start, &end, None, LOAD_PAGE).await?;
        for record in &page.records {
            let path = String::from_utf8_lossy(&record.key[prefix.len()..]);
            resource.cache.load(&path, &record.value, record.revision);
        }
        match page.records.last() {
            Some(last) if page.more => {
                start = last.key.to_vec();
                start.push(0);
            }
            _ => return Ok(()),
        }
    }
}
