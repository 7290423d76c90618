//! The only writer: all that is queued becomes one batch and one disk synchronisation.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::database::{Database, WriteError};
use super::directory::{Directory, has_room};
use super::encoding::Head;
use super::stage::Stage;
use crate::metrics::METRICS;
use crate::{Change, Error, Event, Revision, Write};

/// What one batch takes at most, so that nobody waits for long.
const BATCH_WRITES: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;

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
}

/// What became of a batch.
enum Outcome {
    Written,
    Refused(Error),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, directory: Directory, queue: mpsc::Receiver<Request>, reserve: u64) -> Self {
        Self { shared, directory, queue, reserve }
    }

    /// Runs until the engine is closed. An error means that the database cannot be written any more.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let result = self.serve();
        self.queue.close();
        while let Ok(request) = self.queue.try_recv() {
            if let Request::Commit(_, answer) = request {
                // Who no longer waits needs no answer.
                let _ = answer.send(Err(super::closed()));
            }
        }
        self.shared.close();
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

    fn batch(&self, writes: Vec<(Write, Answer)>) -> Result<(), Error> {
        let mut answers = Vec::with_capacity(writes.len());
        let staged = self.shared.read(|database| self.stage(database, writes, &mut answers));
        let (outcome, fatal) = match staged {
            Ok(staged) => self.commit(staged),
            Err(error) => (Outcome::Refused(error), None),
        };
        for (answer, result) in answers {
            let result = match &outcome {
                Outcome::Written => result,
                Outcome::Refused(error) => result.and(Err(error.clone())),
            };
            // Who no longer waits needs no answer.
            let _ = answer.send(result);
        }
        fatal.map_or(Ok(()), Err)
    }

    fn stage(
        &self,
        database: &Database,
        writes: Vec<(Write, Answer)>,
        answers: &mut Vec<(Answer, Result<Revision, Error>)>,
    ) -> Result<Staged, Error> {
        let available = self.directory.available()?;
        let mut stage = Stage::new(database, self.shared.head(), now());
        let mut bytes = 0;
        for (write, answer) in writes {
            let size = size(&write) as u64;
            let deletes = write.change == Change::Delete;
            let result = if has_room(available, self.reserve, bytes + size, deletes) {
                bytes += size;
                stage.add(write)
            } else {
                Err(Error::NoSpace)
            };
            answers.push((answer, result));
        }
        stage.finish();
        Ok(Staged { head: stage.head, ops: stage.ops, events: stage.events, expires: stage.expires })
    }

    /// Writes, publishes. The second value ends the engine.
    fn commit(&self, staged: Staged) -> (Outcome, Option<Error>) {
        if staged.events.is_empty() {
            return (Outcome::Written, None);
        }
        let start = Instant::now();
        let (outcome, fatal) = self.write(&staged);
        if matches!(outcome, Outcome::Written) {
            METRICS.sync_seconds.observe(start.elapsed().as_secs_f64());
            METRICS.batch_size.observe(staged.events.len() as f64);
            METRICS.commits.inc_by(staged.events.len() as u64);
            self.shared.committed(staged.head, staged.expires);
            self.shared.hub.publish(&staged.events, staged.head.revision);
        }
        (outcome, fatal)
    }

    /// fjall refuses writes after a failed one; opening the database again replays its journal and shows what is on disk.
    fn write(&self, staged: &Staged) -> (Outcome, Option<Error>) {
        let mut again = true;
        loop {
            let failure = match self.shared.read(|database| Ok(database.write(&staged.ops, true))) {
                Ok(Ok(())) => return (Outcome::Written, None),
                Ok(Err(failure)) => failure,
                Err(error) => return (Outcome::Refused(error), None),
            };
            let poisoned = matches!(failure, WriteError::Poisoned);
            let cause = failure.cause();
            tracing::warn!(error = %cause, "a batch failed, opening the database again");
            METRICS.reopened.inc();
            match self.shared.reopen(&self.directory) {
                Err(error) => return (Outcome::Refused(error.clone()), Some(error)),
                Ok(head) if head.revision >= staged.head.revision => return (Outcome::Written, None),
                Ok(_) if again && poisoned => again = false,
                Ok(_) => return (Outcome::Refused(cause), None),
            }
        }
    }
}

/// A batch, decided.
struct Staged {
    head: Head,
    ops: Vec<super::stage::Op>,
    events: Vec<Event>,
    expires: Option<u64>,
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
