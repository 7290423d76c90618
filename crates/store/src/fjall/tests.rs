#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base::tasks::Failures;
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
    let second = Fjall::open(options(dir.path()), &directories.tasks).await;
    assert_eq!(second.err(), Some(Error::Locked));
    engine.close().await;
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
    let history = History { entries: 100, bytes: 1 << 30, keep: Duration::ZERO };
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
    let kept = contract::history(&engine, "", engine.compacted()).await.unwrap();
    assert_eq!(kept.last().unwrap().revision, revision);
    assert_eq!(engine.range(b"", b"", None, 0).await.unwrap().records.len(), 10);
    let log = || engine.0.shared.read(|database| Ok(database.entries(0, revision).count())).unwrap();
    while log() > 10 + 112 {
        tokio::task::yield_now().await;
    }
    engine.close().await;
}

/// After a failed fsync the kernel may forget what it could not write and show it all the same: nothing that the database says
/// then is worth an acknowledgement, so the engine ends. What was acknowledged before is there after the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_to_synchronise_ends_the_engine() {
    let (tasks, mut failures) = Tasks::root();
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open(options(dir.path()), &tasks).await.unwrap();
    let kept = engine.commit(write("kept", Expect::Absent, Some("1"))).await.unwrap();
    let fails = |database: &database::Database| {
        database.faulty.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    };
    engine.0.shared.read(fails).unwrap();
    let read = async {
        loop {
            match engine.get(b"lost").await {
                Ok(found) => assert_eq!(found, None, "a write that was not acknowledged is shown"),
                Err(error) => return error,
            }
            tokio::task::yield_now().await;
        }
    };
    let (refused, read) = tokio::join!(engine.commit(write("lost", Expect::Absent, Some("1"))), read);
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, Error::Failed(why) if why.contains("check it before the next start")), "{refused}");
    assert_eq!(read, refused);
    assert_eq!(engine.commit(write("more", Expect::Absent, Some("1"))).await, Err(refused.clone()));
    assert_eq!(engine.range(b"", b"", None, 0).await.err(), Some(refused.clone()));
    assert_eq!(engine.revision(), kept);
    let failure = failures.recv().await.unwrap();
    assert_eq!((failure.task.as_str(), failure.error), ("store-writer", refused.to_string()));
    engine.close().await;
    let engine = Fjall::open(options(dir.path()), &tasks).await.unwrap();
    assert_eq!(engine.get(b"kept").await.unwrap().map(|record| record.revision), Some(kept));
}

#[tokio::test]
async fn a_store_begins_above_what_an_earlier_one_gave_out() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::root().0);
    let begin = first_revision();
    let engine = Fjall::open(Options { begin, ..options(dir.path()) }, &tasks).await.unwrap();
    assert_eq!(engine.changes(b"", 17, begin).await.err(), Some(Error::Compacted(begin)));
    assert_eq!(engine.commit(write("a", Expect::Absent, Some("1"))).await, Ok(begin + 1));
    assert_eq!(engine.changes(b"", begin, begin + 1).await.unwrap().events.len(), 1);
    engine.close().await;
    let engine = Fjall::open(Options { begin: begin + 99, ..options(dir.path()) }, &tasks).await.unwrap();
    assert_eq!(engine.revision(), begin + 1);
    engine.close().await;
}

#[tokio::test]
async fn a_full_store_takes_what_makes_room() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::root().0);
    let history = History { entries: 10, bytes: 0, keep: Duration::ZERO };
    let engine = Fjall::open(Options { quota: 10_000, history, ..options(dir.path()) }, &tasks).await.unwrap();
    let value = "v".repeat(1_000);
    let mut count = 0;
    let refused = loop {
        match engine.commit(write(&format!("k{count}"), Expect::Absent, Some(&value))).await {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Quota { limit: 10_000, .. }), "{refused}");
    assert!((8..=10).contains(&count), "{count}");
    engine.commit(write("k0", Expect::Anything, Some("small"))).await.unwrap();
    engine.commit(write("k1", Expect::Anything, None)).await.unwrap();
    // What goes has gone when compaction has seen it.
    let again = write("again", Expect::Absent, Some("v"));
    while let Err(Error::Quota { .. }) = engine.commit(again.clone()).await {
        tokio::task::yield_now().await;
    }
    assert!(engine.get(b"again").await.unwrap().is_some());
    engine.close().await;
}

/// A quota may be lowered below what there is: then what is there can still be taken down.
#[tokio::test]
async fn a_lowered_quota_lets_go() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::root().0);
    let value = |bytes: usize| "v".repeat(bytes);
    let engine = Fjall::open(options(dir.path()), &tasks).await.unwrap();
    for n in 0..20 {
        engine.commit(write(&format!("k{n}"), Expect::Absent, Some(&value(1_000)))).await.unwrap();
    }
    engine.close().await;
    let engine = Fjall::open(Options { quota: 10_000, ..options(dir.path()) }, &tasks).await.unwrap();
    let put = async |key: &str, bytes: usize, removes: bool| {
        let write = crate::Write { removes, ..write(key, Expect::Anything, Some(&value(bytes))) };
        engine
            .commit(write)
            .await
            .map_err(|error| assert!(matches!(error, Error::Quota { limit: 10_000, .. }), "{error}"))
            .is_ok()
    };
    assert!(!put("new", 1, true).await && put("k0", 1_500, false).await && !put("k1", 1_500, false).await);
    for n in 0..20 {
        assert!(put(&format!("k{n}"), 1_600, true).await, "a mark");
        engine.commit(write(&format!("k{n}"), Expect::Anything, None)).await.unwrap();
        assert!(n != 9 || !put("k19", 3_000, false).await, "what has gone makes room for nobody");
    }
    engine.close().await;
}

/// A directory whose last writer did not know the number, or counted deletions twice in what history keeps, or not.
#[tokio::test]
async fn what_is_current_is_counted_where_it_was_not() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::root().0);
    let head = |engine: &Fjall| engine.0.shared.head();
    let mut engine = Fjall::open(options(dir.path()), &tasks).await.unwrap();
    let mut last = None;
    for n in 0..300 {
        // Two thirds of what is made goes again.
        let (key, value) = (format!("k{n}"), "v".repeat(n));
        last = Some(engine.commit(write(&key, Expect::Absent, Some(&value))).await.unwrap());
        if n % 3 != 0 {
            engine.commit(write(&key, Expect::Anything, Some("small"))).await.unwrap();
            engine.commit(write(&key, Expect::Anything, None)).await.unwrap();
        }
    }
    engine.compact(last.unwrap() / 2).await.unwrap();
    let lease = crate::Write { lane: crate::Lane::Ephemeral, ..write("lease", Expect::Absent, Some("v")) };
    engine.commit(lease).await.unwrap();
    let right = head(&engine);
    let records = engine.range(b"", b"", None, 0).await.unwrap().records;
    let sizes = records.iter().map(|record| encoding::encoded_len(&record.key, &record.value));
    assert_eq!((records.len(), right.current()), (101, sizes.sum()));
    let older = |current: Option<Bytes>, kept: u64| {
        let op = |key, value| stage::Op { table: stage::Table::Meta, key, value };
        [op(HEAD, Some(encoding::Head { kept, ..right }.encode())), op(CURRENT, current)]
    };
    let of_another = encoding::Head { revision: right.revision - 1, durable: 7, ..right }.encode_durable();
    for (current, kept) in [(Some(right.encode_durable()), right.kept), (None, 7), (Some(of_another), right.kept + 99_999)] {
        let ops = older(current, kept);
        engine.0.shared.read(|database| database.write(&ops).map_err(database::WriteError::cause)).unwrap();
        engine.close().await;
        engine = Fjall::open(options(dir.path()), &tasks).await.unwrap();
        assert_eq!(head(&engine), right);
    }
    // From then on it is stored.
    engine.commit(write("more", Expect::Absent, Some("1"))).await.unwrap();
    let more = head(&engine);
    assert_eq!(more.durable, right.durable + encoding::encoded_len(b"more", b"1"));
    engine.close().await;
    engine = Fjall::open(options(dir.path()), &tasks).await.unwrap();
    assert_eq!(head(&engine), more);
    engine.close().await;
}
