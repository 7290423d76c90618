//! An engine in memory, for tests and simulations: what it has written stands on a [`Disk`] that outlives it, and the process that it
//! is of can end at any batch.
//!
//! It does what the embedded engine does, in the same order: all that is queued becomes one batch, the batch reaches the disk, every
//! sink hears of it, and then its writers have their answers.

mod disk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base::tasks::{OnFailure, Tasks};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{Change, Changes, Engine, Error, Expect, Lane, Page, Record, Revision, Sink, Write};
pub use disk::Disk;

/// Expired keys that are deleted in one batch.
const EXPIRED: usize = 64;

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is written and answered.
    Written,
    /// The process ends before the batch is on disk. Nobody has an answer.
    Lost,
    /// The process ends when the batch is on disk and nobody has heard of it.
    Kept,
}

/// Decides how the disk behaves.
pub trait Fate: Send + Sync {
    /// How long the next batch takes.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }

    /// What becomes of a batch whose last commit has this revision.
    fn judge(&self, revision: Revision) -> Verdict {
        let _ = revision;
        Verdict::Written
    }
}

/// A disk that answers at once and never fails.
pub struct Reliable;

impl Fate for Reliable {}

/// The engine in memory. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<(Write, Answer)>,
}

type Answer = oneshot::Sender<Result<Revision, Error>>;

struct Shared {
    disk: Arc<Disk>,
    /// The number of this engine at its disk.
    opening: u64,
    sinks: Mutex<Vec<Arc<dyn Sink>>>,
    fate: Arc<dyn Fate>,
    /// The process has ended.
    dead: AtomicBool,
    /// An earlier expiry has come.
    expiry: Notify,
}

impl Memory {
    /// Opens the disk. The engine runs under `tasks`. An engine that had the disk open writes and answers nothing from now on.
    pub fn open(disk: Arc<Disk>, fate: Arc<dyn Fate>, tasks: &Tasks) -> Self {
        let (queue, requests) = mpsc::unbounded_channel();
        let (sinks, dead, expiry) = (Mutex::default(), AtomicBool::new(false), Notify::new());
        let opening = disk.open();
        let engine = Self { shared: Arc::new(Shared { disk, opening, sinks, fate, dead, expiry }), queue };
        let never_fails = OnFailure::Shutdown;
        tasks.spawn_until_cancelled("store-writer", never_fails, write(engine.shared.clone(), requests));
        tasks.spawn_until_cancelled("store-expiry", never_fails, expire(engine.clone()));
        engine
    }

    /// An engine of a process that has ended answers nobody.
    async fn alive(&self) {
        if self.shared.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

async fn write(shared: Arc<Shared>, mut requests: mpsc::UnboundedReceiver<(Write, Answer)>) -> Result<(), Error> {
    while let Some(first) = requests.recv().await {
        let delay = shared.fate.delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut batch = vec![first];
        while let Ok(next) = requests.try_recv() {
            batch.push(next);
        }
        if !shared.batch(batch) {
            // The answers are never given.
            std::future::pending::<()>().await;
        }
    }
    Ok(())
}

impl Shared {
    /// Decides, writes, publishes and answers. False when the process has ended over it.
    fn batch(&self, batch: Vec<(Write, Answer)>) -> bool {
        let (mut writes, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let holds: Vec<_> = writes.iter_mut().flat_map(|write| std::mem::take(&mut write.holds)).collect();
        // Held until the sinks have heard: who subscribes gets the revision of the batch that it did not get.
        let sinks = self.sinks.lock();
        let mut staged = self.disk.stage(self.opening, now());
        let results: Vec<_> = writes.into_iter().map(|write| staged.add(write)).collect();
        let verdict = if staged.is_empty() { Verdict::Written } else { self.fate.judge(staged.revision()) };
        if verdict != Verdict::Written {
            self.dead.store(true, Ordering::Relaxed);
        }
        if verdict == Verdict::Lost {
            std::mem::forget(answers);
            return false;
        }
        // Reads show the batch when every sink has seen it.
        if verdict == Verdict::Written && !staged.is_empty() {
            sinks.iter().for_each(|sink| sink.apply(staged.events()));
            self.expiry.notify_one();
        }
        let written = self.disk.write(staged);
        drop(sinks);
        if !written || verdict == Verdict::Kept {
            self.dead.store(true, Ordering::Relaxed);
            std::mem::forget(answers);
            return false;
        }
        // The sinks have seen the writes. Who has an answer finds nothing held for his write any more.
        drop(holds);
        for (answer, result) in answers.into_iter().zip(results) {
            // Who no longer waits needs no answer.
            let _ = answer.send(result);
        }
        true
    }
}

/// Deletes what has outlived its time.
async fn expire(engine: Memory) -> Result<(), Error> {
    loop {
        let (due, next) = engine.shared.disk.expired(now(), EXPIRED);
        if due.is_empty() {
            let wait = next.map_or(Duration::from_secs(86_400), |at| Duration::from_millis(at.saturating_sub(now())));
            // Woken by every commit; the loop looks again in any case.
            let _ = tokio::time::timeout(wait, engine.shared.expiry.notified()).await;
            continue;
        }
        for (key, revision) in due {
            let expect = Expect::At(revision);
            let write = Write::new(key, expect, Change::Delete, Lane::Ephemeral);
            // A conflict: it was written again meanwhile.
            let _ = engine.commit(write).await;
        }
    }
}

#[async_trait]
impl Engine for Memory {
    fn revision(&self) -> Revision {
        self.shared.disk.revision()
    }

    fn compacted(&self) -> Revision {
        self.shared.disk.compacted()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Record>, Error> {
        self.alive().await;
        Ok(self.shared.disk.get(key))
    }

    async fn range(&self, start: &[u8], end: &[u8], at: Option<Revision>, limit: usize) -> Result<Page, Error> {
        self.alive().await;
        self.shared.disk.range(start, end, at, limit)
    }

    async fn changes(&self, prefix: &[u8], after: Revision, upto: Revision) -> Result<Changes, Error> {
        self.alive().await;
        self.shared.disk.changes(prefix, after, upto)
    }

    async fn commit(&self, write: Write) -> Result<Revision, Error> {
        self.alive().await;
        let (answer, answered) = oneshot::channel();
        let gone = || Error::Failed("the store is closed".into());
        self.queue.send((write, answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    fn subscribe(&self, sink: Arc<dyn Sink>) -> Revision {
        let mut sinks = self.shared.sinks.lock();
        sinks.push(sink);
        self.shared.disk.revision()
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.shared.disk.compact(revision)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::contract;

    struct InMemory(Mutex<Arc<Disk>>, Tasks);

    #[async_trait]
    impl contract::Factory for InMemory {
        async fn empty(&self) -> Arc<dyn Engine> {
            *self.0.lock() = Arc::default();
            self.restart().await
        }

        async fn restart(&self) -> Arc<dyn Engine> {
            let disk = self.0.lock().clone();
            Arc::new(Memory::open(disk, Arc::new(Reliable), &self.1))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_the_contract() {
        let (tasks, _failures) = Tasks::root();
        contract::check(&InMemory(Mutex::default(), tasks)).await;
    }

    /// Ends at a revision.
    struct Ends(AtomicU64, Verdict);

    impl Fate for Ends {
        fn judge(&self, revision: Revision) -> Verdict {
            if revision >= self.0.load(Ordering::Relaxed) { self.1 } else { Verdict::Written }
        }
    }

    #[tokio::test]
    async fn a_process_that_ends_answers_nobody() {
        for (verdict, left) in [(Verdict::Lost, 1), (Verdict::Kept, 2)] {
            let (tasks, _failures) = Tasks::root();
            let disk = Arc::<Disk>::default();
            let engine = Memory::open(disk.clone(), Arc::new(Ends(AtomicU64::new(2), verdict)), &tasks);
            engine.commit(contract::write("a", Expect::Absent, Some("1"))).await.unwrap();
            let second = engine.commit(contract::write("b", Expect::Absent, Some("2")));
            let wait = Duration::from_millis(20);
            assert!(tokio::time::timeout(wait, second).await.is_err(), "{verdict:?}");
            assert!(tokio::time::timeout(wait, engine.get(b"a")).await.is_err(), "{verdict:?}");
            let again = Memory::open(disk, Arc::new(Reliable), &tasks);
            assert_eq!((again.revision(), again.range(b"", b"", None, 0).await.unwrap().records.len()), (left, left as usize));
        }
    }

    #[tokio::test]
    async fn who_opens_the_disk_has_it_alone() {
        let (tasks, _failures) = Tasks::root();
        let disk = Arc::<Disk>::default();
        let before = Memory::open(disk.clone(), Arc::new(Reliable), &tasks);
        before.commit(contract::write("a", Expect::Absent, Some("1"))).await.unwrap();
        let engine = Memory::open(disk, Arc::new(Reliable), &tasks);
        // One that would be written, and one that finds a conflict and takes no revision.
        for late in [contract::write("b", Expect::Absent, Some("1")), contract::write("a", Expect::Absent, Some("2"))] {
            let late = tokio::time::timeout(Duration::from_millis(20), before.commit(late)).await;
            assert!(late.is_err(), "{late:?}");
        }
        assert_eq!(engine.commit(contract::write("c", Expect::Absent, Some("1"))).await, Ok(2));
        assert_eq!(engine.get(b"b").await, Ok(None));
    }
}
