//! The only writer: all that is queued becomes one batch and one disk synchronisation.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::database::{Database, WriteError};
use super::directory::{Directory, For, has_room};
use super::quota::Quota;
use super::stage::{Batch, Stage};
use super::{Options, Shared};
use crate::metrics::METRICS;
use crate::{Change, Error, Event, Hold, Revision, Write};

/// What one batch takes at most, so that nobody waits for long.
const BATCH_WRITES: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;

/// With this much room, in bytes, it is not the disk that stopped fjall: no flush or compaction needs more.
const ROOM: u64 = 64 << 20;

/// What the queue carries.
pub(super) enum Request {
    Commit(Write, Answer),
    /// Finish what is queued, then end.
    Close,
}

type Answer = oneshot::Sender<Result<Revision, Error>>;

/// The thread that owns the database.
pub(super) struct Writer {
    shared: Arc<Shared>,
    directory: Directory,
    queue: mpsc::Receiver<Request>,
    reserve: u64,
    quota: Quota,
    idle: fn(),
}

/// Why a batch was not written.
enum Failure {
    /// The engine goes on.
    Refused(Error),
    /// The engine ends.
    Fatal(Error),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, directory: Directory, queue: mpsc::Receiver<Request>, options: &Options) -> Self {
        METRICS.quota.set(i64::try_from(options.quota).unwrap_or(i64::MAX));
        let quota = Quota::new(options.quota, shared.head().current());
        let mut writer = Self { shared, directory, queue, reserve: options.reserve, quota, idle: options.idle };
        writer.measure();
        writer
    }

    /// Runs until the engine is closed. An error means that the database cannot be written any more.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let result = self.serve();
        self.shared.close(result.clone().err());
        result
    }

    fn serve(&mut self) -> Result<(), Error> {
        while let Some(request) = self.queue.blocking_recv() {
            let (writes, close) = self.gather(request);
            self.batch(writes)?;
            if close {
                // Everything that was sent before is answered; senders wait for nothing after.
                self.queue.close();
            }
            (self.idle)();
        }
        Ok(())
    }

    /// The request and everything else that is queued by now.
    fn gather(&mut self, first: Request) -> (Vec<(Write, Answer)>, bool) {
        let mut writes = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Close => return (writes, true),
                Request::Commit(write, answer) => {
                    bytes += size(&write);
                    writes.push((write, answer));
                }
            }
            let more = writes.len() < BATCH_WRITES && bytes < BATCH_BYTES;
            next = if more { self.queue.try_recv().ok() } else { None };
        }
        (writes, false)
    }

    /// Decides, writes, publishes and answers. An error ends the engine.
    fn batch(&mut self, writes: Vec<(Write, Answer)>) -> Result<(), Error> {
        let (mut writes, answers): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        let holds = holds(&mut writes);
        let done = self.shared.read(|database| self.stage(database, writes)).map_err(Failure::Refused);
        let done = done.and_then(|(staged, results)| self.commit(&staged).map(|()| results));
        let (results, fatal) = match done {
            Ok(results) => (results, None),
            Err(Failure::Refused(error)) => (vec![Err(error); answers.len()], None),
            Err(Failure::Fatal(error)) => (vec![Err(error.clone()); answers.len()], Some(error)),
        };
        // The sinks have seen the writes. Who has an answer finds nothing held for his write any more.
        drop(holds);
        for (answer, result) in answers.into_iter().zip(results) {
            // Who no longer waits needs no answer.
            let _ = answer.send(result);
        }
        fatal.map_or(Ok(()), Err)
    }

    fn stage(&self, database: &Database, writes: Vec<Write>) -> Result<(Staged, Vec<Result<Revision, Error>>), Error> {
        let available = self.directory.available()?;
        let mut stage = Stage::new(database, self.shared.head(), self.quota, now());
        let (mut bytes, mut puts, mut refused) = (0, false, false);
        let results = writes.into_iter().map(|write| {
            let size = size(&write) as u64;
            let purpose = purpose(&write);
            if !has_room(available, self.reserve, bytes + size, purpose) {
                refused = true;
                return Err(Error::NoSpace);
            }
            puts |= purpose == For::Content;
            bytes += size;
            let result = stage.add(write);
            if matches!(result, Err(Error::Quota { .. })) {
                METRICS.over_quota.inc();
            }
            result
        });
        let results = results.collect();
        if puts || refused {
            self.shared.set_short(refused);
        }
        stage.batch.finish();
        Ok((Staged { batch: stage.batch, events: stage.events }, results))
    }

    /// Writes, publishes.
    fn commit(&mut self, staged: &Staged) -> Result<(), Failure> {
        if staged.events.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        self.write(staged)?;
        METRICS.sync_seconds.observe(start.elapsed().as_secs_f64());
        METRICS.batch_size.observe(staged.events.len() as f64);
        METRICS.commits.inc_by(staged.events.len() as u64);
        self.directory.acknowledge(staged.batch.head.revision);
        self.shared.committed(staged.batch.head, staged.batch.expires);
        self.shared.hub.publish(&staged.events, staged.batch.head.revision);
        self.measure();
        Ok(())
    }

    /// Sees how much of the quota is taken, and tells it.
    fn measure(&mut self) {
        let taken = self.shared.head().current();
        self.quota.settle(taken);
        METRICS.taken.set(i64::try_from(taken).unwrap_or(i64::MAX));
    }

    /// fjall refuses writes after a failed one. When the disk is full, opening the database again replays its journal, cuts off
    /// what was half written, and shows what is on disk. From any other failure there is no way on.
    fn write(&self, staged: &Staged) -> Result<(), Failure> {
        let mut again = true;
        loop {
            let written = self.shared.read(|database| Ok(database.write(&staged.batch.ops).and_then(|()| database.sync())));
            let failure = match written.map_err(Failure::Refused)? {
                Ok(()) => return Ok(()),
                Err(WriteError::Broken(error)) => return Err(Failure::Fatal(error)),
                Err(failure) => failure,
            };
            let stopped = matches!(failure, WriteError::Stopped);
            let cause = match self.directory.available() {
                Ok(available) if stopped && available > ROOM => {
                    Error::Failed("the database stopped by itself: its files may be damaged".into())
                }
                _ => failure.cause(),
            };
            tracing::warn!(error = %cause, "a batch failed, opening the database again");
            METRICS.reopened.inc();
            match self.shared.reopen(&self.directory).map_err(Failure::Fatal)? {
                // It is in the journal; what of that is not on the disk yet must get there before anybody is told.
                head if head.revision >= staged.batch.head.revision => {
                    let synced = self.shared.read(|database| Ok(database.sync())).map_err(Failure::Refused)?;
                    return synced.map_err(|failure| Failure::Fatal(failure.cause()));
                }
                _ if again && stopped => again = false,
                _ => return Err(Failure::Refused(cause)),
            }
        }
    }
}

impl Drop for Writer {
    /// Also when the thread panics, nobody waits for it any more.
    fn drop(&mut self) {
        self.shared.close(None);
    }
}

/// A batch, decided.
struct Staged {
    batch: Batch,
    events: Vec<Event>,
}

/// Takes out what is held for the writes.
fn holds(writes: &mut [Write]) -> Vec<Hold> {
    writes.iter_mut().flat_map(|write| std::mem::take(&mut write.holds)).collect()
}

fn purpose(write: &Write) -> For {
    match write.change {
        Change::Delete => For::Deletion,
        Change::Put(_) if write.removes => For::Removal,
        Change::Put(_) => For::Content,
    }
}

fn size(write: &Write) -> usize {
    let value = match &write.change {
        Change::Put(value) => value.len(),
        Change::Delete => 0,
    };
    write.key.len() + value
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
