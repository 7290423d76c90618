//! A registry over an engine in whose calls a test can interfere.
#![allow(dead_code)] // Not every test does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use base::tasks::{Failures, Tasks};
use bytes::Bytes;
use futures::future::BoxFuture;
use registry::{Admission, Context, Entry, Options, Registry, Served};
use serde_json::{Value, json};
use store::{Change, Changes, Engine, Error, Expect, Fjall, Lane, Page, Record, Revision, Sink, Write};

/// Called with the engine and the number of the call.
pub(crate) type Hook = Box<dyn Fn(Fjall, usize) -> BoxFuture<'static, ()> + Send + Sync>;

/// The embedded engine, with something that happens within its calls.
pub(crate) struct Hooked {
    pub(crate) engine: Fjall,
    /// After each read of a range.
    pub(crate) after_range: Option<Hook>,
    /// Reads of ranges fail as long as it says so.
    pub(crate) fails: Arc<AtomicBool>,
    /// Before each read of changes.
    pub(crate) before_changes: Option<Hook>,
    pub(crate) calls: AtomicUsize,
}

impl Hooked {
    pub(crate) fn new(engine: Fjall) -> Self {
        Self { engine, after_range: None, fails: Arc::default(), before_changes: None, calls: AtomicUsize::new(0) }
    }

    async fn run(&self, hook: Option<&Hook>) {
        if let Some(hook) = hook {
            hook(self.engine.clone(), self.calls.fetch_add(1, Ordering::Relaxed)).await;
        }
    }
}

#[async_trait]
impl Engine for Hooked {
    fn revision(&self) -> Revision {
        self.engine.revision()
    }

    fn compacted(&self) -> Revision {
        self.engine.compacted()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Record>, Error> {
        self.engine.get(key).await
    }

    async fn range(&self, start: &[u8], end: &[u8], at: Option<Revision>, limit: usize) -> Result<Page, Error> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::Failed("a read".to_owned()));
        }
        let page = self.engine.range(start, end, at, limit).await;
        self.run(self.after_range.as_ref()).await;
        page
    }

    async fn changes(&self, prefix: &[u8], after: Revision, upto: Revision) -> Result<Changes, Error> {
        self.run(self.before_changes.as_ref()).await;
        self.engine.changes(prefix, after, upto).await
    }

    async fn commit(&self, write: Write) -> Result<Revision, Error> {
        self.engine.commit(write).await
    }

    fn subscribe(&self, sink: Arc<dyn Sink>) -> Revision {
        self.engine.subscribe(sink)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.engine.compact(revision).await
    }
}

/// A data directory and the tasks of its engines.
pub(crate) struct Directory {
    pub(crate) path: tempfile::TempDir,
    tasks: Tasks,
    _failures: Failures,
}

impl Directory {
    pub(crate) fn new() -> Self {
        let (tasks, failures) = Tasks::root();
        Self { path: tempfile::tempdir().unwrap(), tasks, _failures: failures }
    }

    pub(crate) async fn engine(&self) -> Fjall {
        self.engine_of(u64::MAX).await
    }

    /// One that takes so many bytes of objects.
    pub(crate) async fn engine_of(&self, quota: u64) -> Fjall {
        let options = store::Options { reserve: 1 << 20, quota, ..store::Options::new(self.path.path().join("store")) };
        Fjall::open(options, &self.tasks).await.unwrap()
    }
}

pub(crate) async fn open(engine: impl Engine + 'static) -> Arc<Registry> {
    open_with(engine, Vec::new()).await
}

/// With these admission plugins.
pub(crate) async fn open_with(engine: impl Engine + 'static, plugins: Vec<Box<dyn Admission>>) -> Arc<Registry> {
    let (tasks, _failures) = Tasks::root();
    let options = Options::new(vec!["10.43.0.0/16".parse().unwrap()]);
    Registry::open(Arc::new(engine), plugins, options, &tasks).await.unwrap()
}

pub(crate) fn cx() -> Context {
    Context { manager: "test".into(), ..Context::default() }
}

pub(crate) fn config_maps(registry: &Registry) -> Arc<Served> {
    registry.resource("", "v1", "configmaps").unwrap()
}

/// A config map with labels `key=value`.
pub(crate) fn config_map(name: &str, labels: &str) -> Value {
    let labels: serde_json::Map<_, _> =
        labels.split(' ').filter_map(|label| label.split_once('=')).map(|(key, value)| (key.into(), value.into())).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
}

pub(crate) async fn create(registry: &Registry, name: &str, labels: &str) -> Arc<Entry> {
    registry.create(&cx(), &config_maps(registry), "ns", None, config_map(name, labels)).await.unwrap()
}

/// A write as the registry would make it, past the registry.
pub(crate) fn raw(resource: &str, name: &str, put: bool) -> Write {
    let value = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"ns"}}}}"#);
    let (lane, resource) = if resource == "events" { (Lane::Ephemeral, resource) } else { (Lane::Durable, resource) };
    let change = if put { Change::Put(Bytes::from(value)) } else { Change::Delete };
    let key = Bytes::from(format!("/registry/core/{resource}/ns/{name}"));
    Write::new(key, Expect::Anything, change, lane)
}
