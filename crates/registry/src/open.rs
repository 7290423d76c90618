//! The registry itself: opening it, and finding kinds in it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apimachinery::Status;
use kinds::KINDS;
use store::{Engine, Sink};

use crate::hooks::{Hook, hook_for};
use crate::services::Allocator;
use crate::sub::TokenSubject;
use crate::{Admission, Resource};

/// Most keys read from the store at once while loading.
const LOAD_PAGE: usize = 1000;

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
    pub(crate) allocator: Allocator,
    resources: Vec<Arc<Resource>>,
    by_name: HashMap<(&'static str, &'static str, &'static str), usize>,
    applied: Arc<AtomicU64>,
}

/// Feeds the caches with the store's commits.
struct Feed {
    resources: HashMap<String, Arc<Resource>>,
    applied: Arc<AtomicU64>,
}

impl Sink for Feed {
    fn apply(&self, events: &[store::Event]) {
        for event in events {
            // The key is /registry/GROUP/PLURAL/PATH; the first three parts name the resource.
            let Ok(key) = std::str::from_utf8(&event.key) else { continue };
            let Some((end, _)) = key.match_indices('/').nth(3) else { continue };
            if let Some(resource) = self.resources.get(&key[..=end]) {
                resource.cache.apply(&key[end + 1..], event);
            }
        }
        if let Some(last) = events.last() {
            self.applied.store(last.revision, Ordering::Release);
        }
    }
}

impl Registry {
    /// Loads every kind's objects and follows the store from there.
    pub async fn open(
        engine: Arc<dyn Engine>,
        admission: Vec<Box<dyn Admission>>,
        options: Options,
    ) -> Result<Arc<Self>, OpenError> {
        let resources = resources().map_err(OpenError::Schema)?;
        let applied = Arc::new(AtomicU64::new(0));
        // Nobody else writes yet: what is loaded here is complete up to the revision at which the feed starts.
        for resource in resources.iter().filter(|resource| resource.def.stored && !resource.is_view()) {
            load(engine.as_ref(), resource).await?;
        }
        let by_prefix = resources.iter().map(|resource| (resource.prefix.clone(), resource.clone())).collect();
        let revision = engine.subscribe(Arc::new(Feed { resources: by_prefix, applied: applied.clone() }));
        applied.store(revision, Ordering::Release);
        resources.iter().for_each(|resource| resource.cache.loaded(revision));
        let name = |resource: &Resource| (resource.def.group, resource.def.version, resource.def.plural);
        let by_name = resources.iter().enumerate().map(|(index, resource)| (name(resource), index)).collect();
        Ok(Arc::new(Self { engine, admission, options, allocator: Allocator::default(), resources, by_name, applied }))
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
        self.applied.load(Ordering::Acquire)
    }

    pub(crate) fn revision_source(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let applied = self.applied.clone();
        Arc::new(move || applied.load(Ordering::Acquire))
    }

    pub(crate) fn hook(&self, resource: &Resource) -> Option<&'static dyn Hook> {
        hook_for(resource.def)
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
