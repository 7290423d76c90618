#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base::tasks::Failures;
use futures::StreamExt;
use tempfile::TempDir;

use super::*;
use crate::contract::{self, Factory, write};
use crate::{Engine, Expect};

struct Directories {
    tasks: Tasks,
    _failures: Failures,
    open: Mutex<Option<(Arc<TempDir>, Fjall)>>,
}

impl Directories {
    fn new() -> Self {
        let (tasks, failures) = Tasks::root();
        Self { tasks, _failures: failures, open: Mutex::new(None) }
    }

    async fn open(&self, dir: Arc<TempDir>) -> Fjall {
        let engine = Fjall::open(options(dir.path()), &self.tasks).await.unwrap();
        *self.open.lock() = Some((dir, engine.clone()));
        engine
    }
}

fn options(dir: &Path) -> Options {
    Options { reserve: 1 << 20, ..Options::new(dir.join("data")) }
}

#[async_trait]
impl Factory for Directories {
    async fn empty(&self) -> Arc<dyn Engine> {
        Arc::new(self.open(Arc::new(tempfile::tempdir().unwrap())).await)
    }

    async fn restart(&self) -> Arc<dyn Engine> {
        let (dir, engine) = self.open.lock().take().unwrap();
        engine.close().await;
        Arc::new(self.open(dir).await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    contract::check(&Directories::new()).await;
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_has_closed() {
    let directories = Directories::new();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let engine = directories.open(dir.clone()).await;
    let mut watch = engine.watch(b"", 0).await.unwrap();
    let second = Fjall::open(options(dir.path()), &directories.tasks).await;
    assert_eq!(second.err(), Some(Error::Locked));
    engine.close().await;
    assert!(watch.next().await.is_none(), "closing ends the watches");
    assert_eq!(engine.get(b"a").await, Err(closed()));
    assert_eq!(engine.commit(write("a", Expect::Anything, Some("1"))).await, Err(closed()));
    directories.open(dir).await;
}

#[tokio::test]
async fn every_file_is_private() {
    let directories = Directories::new();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let engine = directories.open(dir.clone()).await;
    engine.commit(write("a", Expect::Absent, Some("1"))).await.unwrap();
    let mut folders = vec![dir.path().join("data")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", folder.display());
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = path.metadata().unwrap().permissions().mode() & 0o077;
            assert_eq!(mode, 0, "{}", path.display());
            if path.is_dir() { folders.push(path) } else { files += 1 }
        }
    }
    assert!(files > 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_bounded_without_being_asked() {
    let (tasks, _failures) = Tasks::root();
    let dir = tempfile::tempdir().unwrap();
    let history = History { entries: 100, bytes: 1 << 30 };
    let engine = Fjall::open(Options { history, ..options(dir.path()) }, &tasks).await.unwrap();
    let writes = (0..1000).map(|n| {
        let engine = engine.clone();
        async move { engine.commit(write(&format!("k{}", n % 10), Expect::Anything, Some("v"))).await.unwrap() }
    });
    futures::future::join_all(writes).await;
    let revision = engine.revision();
    while engine.compacted() + 112 < revision {
        tokio::task::yield_now().await;
    }
    assert!(engine.compacted() <= revision - 100, "what was asked for is kept");
    let watch = engine.watch(b"", engine.compacted()).await.unwrap();
    let kept = watch.take((revision - engine.compacted()) as usize).collect::<Vec<_>>().await;
    assert_eq!(kept.last().unwrap().revision, revision);
    assert_eq!(engine.range(b"", b"", None, 0).await.unwrap().records.len(), 10);
    let log = || engine.0.shared.read(|database| Ok(database.entries(0, revision).count())).unwrap();
    while log() > 10 + 112 {
        tokio::task::yield_now().await;
    }
    engine.close().await;
}
