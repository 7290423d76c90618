//! The registry itself: opening it, and finding kinds in it.

mod announcements;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use arc_swap::ArcSwap;
use base::tasks::Tasks;
use ipnet::IpNet;
use kinds::KINDS;
use store::{Engine, Sink};
use tokio::sync::watch;

use self::announcements::Announcements;
use crate::cache::rings::Rings;
use crate::form::BUILTIN;
use crate::past::Past;
use crate::services::ServiceAddresses;
use crate::storage::Storage;
use crate::sub::TokenSubject;
use crate::{Admission, Catalog, Served};

/// How long a request waits for a revision that is not there yet, as upstream's does.
const FRESH_TIMEOUT: Duration = Duration::from_secs(3);

/// Signs ServiceAccount tokens.
pub trait TokenSigner: Send + Sync {
    /// A token for `subject`.
    fn sign(&self, subject: &TokenSubject) -> Result<String, Status>;

    /// The API server's own audiences.
    fn audiences(&self) -> &[String];
}

/// How ServiceAccount tokens are issued.
#[derive(Clone)]
pub struct Tokens {
    /// Signs them.
    pub signer: Arc<dyn TokenSigner>,
    /// The most seconds that one is good; no limit but that of the API when None.
    pub longest: Option<i64>,
    /// Those that pods are given for the API server outlive the hour that is told, so that clients which read theirs only once go on working.
    pub extends: bool,
}

/// What the registry needs to know.
#[derive(Clone)]
pub struct Options {
    /// Ranges of the services' addresses, one of each family; the first is of the family that services have by default.
    pub service_cidrs: Vec<IpNet>,
    /// Ports for services of type NodePort.
    pub node_ports: RangeInclusive<u16>,
    /// How long events are kept.
    pub event_ttl: Duration,
    /// For the `token` subresource, which is refused without.
    pub tokens: Option<Tokens>,
}

impl Options {
    /// With upstream's defaults.
    pub fn new(service_cidrs: Vec<IpNet>) -> Self {
        Self { service_cidrs, node_ports: 30000..=32767, event_ttl: Duration::from_secs(60 * 60), tokens: None }
    }
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

/// Everything that is served, over one store.
pub struct Registry {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) admission: Vec<Box<dyn Admission>>,
    pub(crate) options: Options,
    /// What watchers have read of the past lately.
    pub(crate) past: Arc<Past>,
    catalog: Arc<ArcSwap<Catalog>>,
    applied: Arc<watch::Sender<u64>>,
    /// Grows with each definition of a custom resource; held while what is served changes.
    pub(crate) epoch: tokio::sync::Mutex<u64>,
    /// The generation of what is served.
    generation: watch::Sender<u64>,
}

/// Feeds the caches with the store's commits.
struct Feed {
    catalog: Arc<ArcSwap<Catalog>>,
    applied: Arc<watch::Sender<u64>>,
    rings: Rings,
    announcements: Arc<Announcements>,
}

impl Sink for Feed {
    fn apply(&self, events: &[store::Event]) {
        let catalog = self.catalog.load();
        let mut changed: Vec<&Arc<Storage>> = Vec::new();
        let mut grown = 0;
        for event in events {
            let Some((storage, path)) = catalog.locate(&event.key) else { continue };
            grown += storage.cache.apply(path, event);
            if !changed.iter().any(|known| Arc::ptr_eq(known, storage)) {
                changed.push(storage);
            }
        }
        if let Some(last) = events.last() {
            self.applied.send_replace(last.revision);
        }
        // Once for all, so that a watcher takes the batch in one step.
        self.announcements.add(&changed);
        self.rings.grown(grown, || catalog.storages().map(|storage| &*storage.cache));
    }
}

impl Registry {
    /// Loads every kind's objects and follows the store from there, until `tasks` end.
    pub async fn open(
        engine: Arc<dyn Engine>,
        mut admission: Vec<Box<dyn Admission>>,
        options: Options,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, OpenError> {
        crate::metrics::rules::observe();
        let catalog = Arc::new(ArcSwap::from_pointee(Catalog::builtin(KINDS).map_err(OpenError::Schema)?));
        let applied = Arc::new(watch::Sender::new(0));
        let announcements = announcements::start(tasks);
        let past = Arc::<Past>::default();
        let rings = Rings::new(past.clone());
        let feed = Feed { catalog: catalog.clone(), applied: applied.clone(), rings, announcements };
        let revision = engine.subscribe(Arc::new(feed));
        for storage in catalog.load().storages() {
            storage.load(engine.as_ref(), revision).await?;
        }
        // Commits from while the caches were loaded have come further already.
        applied.send_modify(|applied| *applied = revision.max(*applied));
        // Addresses come last, when nothing else can refuse the object any more.
        admission.push(Box::new(ServiceAddresses::default()));
        let (epoch, generation) = (tokio::sync::Mutex::new(BUILTIN), watch::Sender::new(catalog.load().generation()));
        Ok(Arc::new(Self { engine, admission, options, past, catalog, applied, epoch, generation }))
    }

    /// Makes a snapshot the present one. Only who holds `epoch` may.
    pub(crate) fn publish(&self, next: Catalog) {
        let generation = next.generation();
        self.catalog.store(Arc::new(next));
        self.generation.send_replace(generation);
    }

    /// The generation of what is served, and its changes.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// What is served now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// The resource of that group, version and plural.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.catalog.load().get(group, version, plural).cloned()
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), store::Error> {
        self.engine.get(b"/registry/health").await.map(|_| ())
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
    pub(crate) fn builtin(&self, group: &str, plural: &str) -> Result<Arc<Served>, Status> {
        self.resource(group, "v1", plural).ok_or_else(|| Status::internal(format!("{plural} are not served")))
    }
}
