#![allow(clippy::unwrap_used)]
use std::sync::atomic::{AtomicU8, Ordering};

use base::tasks::{Failures, Tasks};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::contract::{self, Factory, write};
use crate::memory::{Memory, Reliable};
use crate::{Expect, Fjall, Options};

/// Adds a number to each byte. Only forms of this number, and of those before it that are kept, are brought back.
struct Shift {
    now: AtomicU8,
    oldest: AtomicU8,
    writes: Arc<RwLock<()>>,
}

const MARK: &[u8] = b"shifted by ";

impl Shift {
    fn by(now: u8) -> Arc<Self> {
        Arc::new(Self { now: now.into(), oldest: 1.into(), writes: Arc::default() })
    }
}

impl Transformer for Shift {
    fn transform_to_storage(&self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, Error> {
        let by = self.now.load(Ordering::Relaxed);
        let shifted = value.iter().map(|byte| byte.wrapping_add(by));
        Ok((!key.starts_with(b"/plain")).then(|| MARK.iter().copied().chain([by]).chain(shifted).collect()))
    }

    fn transform_from_storage(&self, key: &[u8], stored: &[u8]) -> Result<Option<Bytes>, Error> {
        let Some(rest) = stored.strip_prefix(MARK) else { return Ok(None) };
        if rest[0] < self.oldest.load(Ordering::Relaxed) {
            return Err(Error::Untransformed { key: String::from_utf8_lossy(key).into(), cause: "lost".into() });
        }
        Ok(Some(rest[1..].iter().map(|byte| byte.wrapping_sub(rest[0])).collect()))
    }

    fn concerns(&self, key: &[u8]) -> bool {
        !key.starts_with(b"/plain")
    }

    fn writes(&self) -> Option<&Arc<RwLock<()>>> {
        Some(&self.writes)
    }

    fn is_transformed(&self, stored: &[u8]) -> bool {
        stored.starts_with(MARK)
    }

    fn is_stale(&self, key: &[u8], stored: &[u8]) -> bool {
        !key.starts_with(b"/plain") && stored.get(MARK.len()) != Some(&self.now.load(Ordering::Relaxed))
    }
}

struct Directories {
    tasks: Tasks,
    _failures: Failures,
    open: Mutex<Option<(Arc<TempDir>, Fjall)>>,
    shift: Arc<Shift>,
}

impl Directories {
    fn new(shift: Arc<Shift>) -> Self {
        let (tasks, failures) = Tasks::root();
        Self { tasks, _failures: failures, open: Mutex::new(None), shift }
    }

    async fn open(&self, dir: Arc<TempDir>) -> Transformed<Fjall> {
        let options = Options { reserve: 1 << 20, ..Options::new(dir.path().join("data")) };
        let engine = Fjall::open(options, &self.tasks).await.unwrap();
        *self.open.lock() = Some((dir, engine.clone()));
        Transformed::new(engine, self.shift.clone())
    }

    async fn fresh(&self) -> Transformed<Fjall> {
        self.open(Arc::new(tempfile::tempdir().unwrap())).await
    }
}

#[async_trait]
impl Factory for Directories {
    async fn empty(&self) -> Arc<dyn Engine> {
        Arc::new(self.fresh().await)
    }

    async fn restart(&self) -> Arc<dyn Engine> {
        let (dir, engine) = self.open.lock().take().unwrap();
        engine.close().await;
        Arc::new(self.open(dir).await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    contract::check(&Directories::new(Shift::by(1))).await;
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Sink for Recorder {
    fn apply(&self, events: &[Event]) {
        self.0.lock().extend_from_slice(events);
    }
}

fn put(key: &str, value: &str) -> Write {
    write(key, Expect::Anything, Some(value))
}

#[tokio::test]
async fn what_is_stored_is_not_what_is_read() {
    let directories = Directories::new(Shift::by(1));
    let engine = directories.fresh().await;
    let sink = Arc::new(Recorder::default());
    engine.subscribe(sink.clone());
    engine.commit(put("/a", "one")).await.unwrap();
    engine.commit(put("/a", "two")).await.unwrap();
    engine.commit(put("/plain", "one")).await.unwrap();
    let stored = engine.engine.range(b"", b"", None, 0).await.unwrap().records;
    assert_eq!(stored[0].value, [MARK, b"\x01uxp"].concat());
    assert_eq!(stored[1].value, "one");
    let seen = sink.0.lock().clone();
    let values: Vec<_> = seen.iter().map(|event| event.value.clone().unwrap()).collect();
    assert_eq!(values, ["one", "two", "one"]);
    assert_eq!(seen[1].previous.as_ref().unwrap().value, "one");
    assert!(seen.iter().all(|event| event.note.is_none()), "notes are the writer's");
    let conflict = engine.commit(write("/a", Expect::Absent, Some("three"))).await.unwrap_err();
    assert!(matches!(conflict, Error::Conflict(Some(record)) if record.value == "two"));
}

#[tokio::test]
async fn what_a_lost_key_has_written() {
    let shift = Shift::by(1);
    let directories = Directories::new(shift.clone());
    let engine = directories.fresh().await;
    let first = engine.commit(put("/a", "one")).await.unwrap();
    engine.commit(put("/b", "one")).await.unwrap();
    assert_eq!(engine.is_stale(b"/a").await, Ok(false));
    shift.now.store(2, Ordering::Relaxed);
    assert_eq!((engine.is_stale(b"/a").await, engine.is_stale(b"/none").await), (Ok(true), Ok(false)));
    engine.commit(put("/a", "one")).await.unwrap();
    assert_eq!(engine.is_stale(b"/a").await, Ok(false));
    shift.oldest.store(2, Ordering::Relaxed);
    assert_eq!(engine.get(b"/a").await.unwrap().unwrap().value, "one");
    let lost = Error::Untransformed { key: "/b".into(), cause: "lost".into() };
    assert_eq!(engine.get(b"/b").await, Err(lost.clone()));
    assert_eq!(engine.range(b"", b"", None, 0).await.err(), Some(lost));
    // The past is no error: who asks for it begins again.
    let revision = engine.revision();
    assert_eq!(engine.range(b"", b"", Some(first), 0).await.err(), Some(Error::Compacted(revision)));
    assert_eq!(engine.changes(b"", 0, revision).await.err(), Some(Error::Compacted(revision)));
}

/// The writer takes what is queued whether or not somebody waits for it.
#[tokio::test]
async fn who_changes_the_form_waits_for_writes_that_nobody_waits_for() {
    let shift = Shift::by(1);
    let (tasks, _failures) = Tasks::root();
    let engine = Transformed::new(Memory::open(Arc::default(), Arc::new(Reliable), &tasks), shift.clone());
    {
        let given_up = engine.commit(put("/a", "one"));
        assert!(futures::poll!(std::pin::pin!(given_up)).is_pending());
    }
    assert!(shift.writes.try_write().is_err(), "it is on its way");
    let all = shift.writes.write().await;
    assert_eq!(engine.get(b"/a").await.unwrap().unwrap().value, "one");
    // Nothing is transformed meanwhile. One that is refused holds it no longer than one that is written.
    let mut refused = Box::pin(engine.commit(write("/a", Expect::Absent, Some("two"))));
    assert!(futures::poll!(&mut refused).is_pending());
    drop(all);
    assert!(matches!(refused.await, Err(Error::Conflict(Some(_)))));
    drop(shift.writes.write().await);
}
