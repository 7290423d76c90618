//! The embedded engine, on fjall.
//!
//! One thread writes: it takes everything that is queued, decides in memory which writes happen ([`stage`]), commits them as
//! one atomic batch with one disk synchronisation, tells the sinks ([`hub`]) and answers. While it waits for the
//! disk, the next batch queues up.
//!
//! A durable value is written once, into the log, under its revision; the index says which revision of a key is current. An
//! entry names the revision that it replaced, so the past is read by undoing ([`read`]), and compaction ([`compaction`])
//! deletes what an entry replaced when the entry leaves history. The ephemeral lane has a table of its own and no history.
//!
//! Between the disk and the sinks a commit is visible in fjall already: readers wait until it is published, so they never see
//! what may still fail.
//!
//! A full disk is met before it is full ([`directory::has_room`]). fjall takes no writes after a failed one, so the writer
//! then opens the database again, which shows what reached the disk. Any other failure of the disk ends the engine: after a
//! failed fsync the kernel may show, as written, what is not on disk.

mod compaction;
mod copy;
mod database;
mod directory;
mod draft;
mod encoding;
mod expiry;
mod hub;
mod moments;
mod quota;
mod read;
mod shared;
mod stage;
mod sweep;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::engine::RESERVE;
use crate::{Changes, Engine, Error, Page, Record, Revision, Sink, Write};
pub use copy::{Copied, Plausible, Restoring};
use directory::Directory;
use shared::Shared;
use writer::{Request, Writer};

const HEAD: Bytes = Bytes::from_static(b"head");
const CURRENT: Bytes = Bytes::from_static(b"current");
const TAIL: Bytes = Bytes::from_static(b"tail");
const SWEPT: Bytes = Bytes::from_static(b"swept");

/// Writes that may wait for the writer; more wait in their callers.
const QUEUE: usize = 1024;

/// Reads of the past at a time: each goes through all that has changed since.
const PAST: usize = 2;

/// How much history is kept. It is compacted when it is over either bound, but what is young stays until there is [`YOUNG`] times as much.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Events.
    pub entries: u64,
    /// Bytes of the events and of the values that they replaced.
    pub bytes: u64,
    /// How long it is young.
    pub keep: Duration,
}

/// How many times its bounds history may have at most while its oldest entry is young. On a small disk it is less, see
/// [`directory::Directory::young_factor`].
const YOUNG: u64 = 8;

/// How to open the engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory, made private to this user.
    pub dir: PathBuf,
    /// How much history is kept.
    pub history: History,
    /// Free bytes on the disk below which writes are refused with [`Error::NoSpace`]; deletions may use half of them.
    pub reserve: u64,
    /// Bytes that current records may take: beyond it nothing new is taken ([`Error::Quota`]), updates only a sixteenth more, and always what
    /// becomes smaller or goes, or is about to ([`Write::removes`]). Where more are found, updates may take a mebibyte more than is
    /// left of that.
    pub quota: u64,
    /// The revision that a store begins with when it is made: above all that an earlier one in its place can have given out, so that who
    /// comes from that one begins anew and takes nothing for what it knows.
    pub begin: Revision,
    /// Called by each thread of the engine before it waits.
    pub idle: fn(),
}

impl Options {
    /// The defaults: 50,000 events and 32 MiB of history, or all of five minutes (as upstream compacts etcd), 128 MiB kept free, no quota, revisions from 1 on.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let history = History { entries: 50_000, bytes: 32 << 20, keep: Duration::from_secs(300) };
        Self { dir: dir.into(), history, reserve: RESERVE, quota: u64::MAX, begin: 0, idle: || () }
    }
}

/// Where a store begins that is made now: microseconds since 1970. None commits as often as that, so each begins above what an earlier one
/// in its place has given out.
#[must_use]
pub fn first_revision() -> Revision {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or_default()
}

/// The embedded engine. Cheap to clone.
#[derive(Clone)]
pub struct Fjall(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    past: Semaphore,
}

impl Fjall {
    /// Whether [`Fjall::open`] would refuse a directory of which a restoration has made half a store. Changes nothing: whoever makes other files
    /// beside a store asks first.
    ///
    /// # Errors
    /// [`Error::Unfinished`].
    pub fn check(directory: &Path) -> Result<(), Error> {
        Directory::check(directory)
    }

    /// Opens the directory, creating it if needed. The engine runs until [`Fjall::close`]; its failure ends the process by way
    /// of `tasks`.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::NewerFormat`] when a newer version wrote it.
    pub async fn open(options: Options, tasks: &Tasks) -> Result<Self, Error> {
        let (queue, requests) = mpsc::channel(QUEUE);
        let idle = options.idle;
        let (opened, opening) = oneshot::channel();
        let (ended, ending) = oneshot::channel();
        let writer = spawn("store-writer", move || {
            directory::private_umask();
            match start(&options) {
                Err(error) => drop(opened.send(Err(error))),
                Ok((shared, directory)) => {
                    let writer = Writer::new(shared.clone(), directory, requests, &options);
                    drop(opened.send(Ok(shared)));
                    drop(ended.send(writer.run()));
                }
            }
        })?;
        let gone = |_| Error::Failed("the store's thread ended while opening".into());
        let shared = opening.await.map_err(gone)??;
        let (compact, sweep) = (shared.clone(), shared.clone());
        let compact = spawn("store-compact", move || compaction::run(&compact, idle))?;
        let sweep = spawn("store-sweep", move || sweep::run(&sweep, idle))?;
        supervise(tasks, ending);
        let expiry = expiry::run(shared.clone(), queue.downgrade());
        tasks.spawn_until_cancelled("store-expiry", OnFailure::Shutdown, expiry);
        Ok(Self(Arc::new(Handle {
            shared,
            queue,
            threads: Mutex::new(vec![writer, compact, sweep]),
            past: Semaphore::new(PAST),
        })))
    }

    /// Hands every current key to `each` with `to`, on a thread that may block, as all are at the revision that is returned: of the durable
    /// lane in the order of keys, then of the ephemeral one. Writers go on meanwhile.
    ///
    /// # Errors
    /// That of `each`, or the store cannot be read.
    pub async fn copy<T: Send + 'static>(
        &self,
        mut to: T,
        mut each: impl FnMut(&mut T, Copied) -> Result<(), Error> + Send + 'static,
    ) -> Result<(T, Revision), Error> {
        let copy = move |shared: &Shared| copy::copy(shared, |copied| each(&mut to, copied)).map(|revision| (to, revision));
        let (to, revision) = self.blocking(copy).await?;
        self.reached(revision).await?;
        Ok((to, revision))
    }

    /// Answers what is queued and lets go of the directory. Later calls fail.
    pub async fn close(&self) {
        // A full queue is waited for, a closed one is what we want.
        let _ = self.0.queue.send(Request::Close).await;
        let threads = std::mem::take(&mut *self.0.threads.lock());
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        if let Err(error) = tokio::task::spawn_blocking(join).await {
            tracing::warn!(%error, "the store's threads were not joined");
        }
    }
}

impl Fjall {
    /// Reads much, on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.0.shared.clone();
        tokio::task::spawn_blocking(move || read(&shared)).await.map_err(|error| Error::Failed(error.to_string()))?
    }

    /// What was read at `revision` may be shown.
    async fn reached(&self, revision: Revision) -> Result<(), Error> {
        self.0.shared.hub.reached(revision).await.map_err(|_| self.0.shared.ended())
    }
}

fn start(options: &Options) -> Result<(Arc<Shared>, Directory), Error> {
    let directory = Directory::open(&options.dir)?;
    directory.draft(options.begin)?;
    // fjall trusts some of what it reads without a check.
    let opened = std::panic::catch_unwind(|| Shared::open(&directory, options.history));
    let shared = opened.unwrap_or_else(|panic| Err(Error::Damaged(panic_text(&*panic))))?;
    directory.mark()?;
    Ok((Arc::new(shared), directory))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it cannot be opened").to_owned()
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    thread::Builder::new().name(name.into()).spawn(run).map_err(|error| Error::Failed(error.to_string()))
}

/// Ends the process when the writer fails or panics.
fn supervise(tasks: &Tasks, ending: oneshot::Receiver<Result<(), Error>>) {
    let panicked = |_| Err(Error::Failed("the store's writer panicked".into()));
    let watch = async move { ending.await.unwrap_or_else(panicked) };
    tasks.spawn_until_cancelled("store-writer", OnFailure::Shutdown, watch);
}

fn closed() -> Error {
    Error::Failed("the store is closed".into())
}

#[async_trait]
impl Engine for Fjall {
    fn revision(&self) -> Revision {
        self.0.shared.hub.revision()
    }

    fn compacted(&self) -> Revision {
        self.0.shared.compacted()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Record>, Error> {
        let (record, revision) = self.0.shared.read(|database| read::get(database, key))?;
        self.reached(revision).await?;
        Ok(record)
    }

    async fn range(&self, start: &[u8], end: &[u8], at: Option<Revision>, limit: usize) -> Result<Page, Error> {
        let (start, end) = (start.to_vec(), end.to_vec());
        let _place = match at {
            // The semaphore is never closed.
            Some(at) if at < self.revision() => self.0.past.acquire().await.ok(),
            _ => None,
        };
        let read = move |shared: &Shared| shared.range(&read::Query { start: &start, end: &end, at, limit });
        let (page, revision) = self.blocking(read).await?;
        self.reached(revision).await?;
        Ok(page)
    }

    async fn changes(&self, prefix: &[u8], after: Revision, upto: Revision) -> Result<Changes, Error> {
        let prefix = prefix.to_vec();
        // A sink may have seen more of a batch than is published yet.
        if upto <= self.0.shared.head().revision {
            self.reached(upto).await?;
        }
        self.blocking(move |shared| shared.changes(&prefix, after, upto)).await
    }

    async fn commit(&self, write: Write) -> Result<Revision, Error> {
        let result = expiry::submit(&self.0.queue, write).await;
        result.map_err(|error| if error == closed() { self.0.shared.ended() } else { error })
    }

    fn subscribe(&self, sink: Arc<dyn Sink>) -> Revision {
        self.0.shared.hub.subscribe(sink)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let current = self.revision();
        if revision > current {
            return Err(Error::Future(current));
        }
        self.0.shared.compact(revision);
        self.0.shared.work.wake();
        Ok(())
    }
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;
