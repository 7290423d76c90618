//! An open registry on a store of its own, for tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use base::tasks::{Failures, Tasks};
use registry::Registry;
use tempfile::TempDir;

/// What lives as long as the test.
pub(crate) struct Opened {
    pub(crate) registry: Arc<Registry>,
    pub(crate) tasks: Tasks,
    _failures: Failures,
    _dir: TempDir,
}

/// Opens one without objects and plugins.
pub(crate) async fn open() -> Opened {
    let (tasks, failures) = Tasks::root();
    let dir = tempfile::tempdir().unwrap();
    let store = store::Options { reserve: 0, ..store::Options::new(dir.path().join("db")) };
    let engine = Arc::new(store::Fjall::open(store, &tasks).await.unwrap());
    let options = registry::Options::new(vec!["10.43.0.0/16".parse().unwrap()]);
    let registry = Registry::open(engine, Vec::new(), options, &tasks).await.unwrap();
    Opened { registry, tasks, _failures: failures, _dir: dir }
}
