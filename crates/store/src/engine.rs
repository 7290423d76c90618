//! The engine trait that every storage backend implements, and its vocabulary.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// A store revision: one per commit, rising by one, never reused. 0 is before the first commit.
pub type Revision = u64;

/// A key's current value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Bytes,
    /// The value as it was written.
    pub value: Bytes,
    /// The revision of the commit that wrote it.
    pub revision: Revision,
}

/// What must be true of the key's current state for a commit to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    At(Revision),
    /// Nothing is asked.
    Anything,
}

/// Where a key lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Current state, with history for watches.
    #[default]
    Durable,
    /// Outside history, with an optional time to live (Events, Leases). Only sinks hear of its changes.
    Ephemeral,
}

/// What happens to the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write this value.
    Put(Bytes),
    /// Remove the key. It must exist.
    Delete,
}

/// A note that the writer attaches to a commit for the sinks of this process, such as the decoded form of the
/// value. It is never stored: an event without a note means that the value must be decoded.
pub type Note = Arc<dyn Any + Send + Sync>;

/// What somebody keeps from others until a write has come to its end. It goes with the write, not with who waits for the answer: a write
/// that is queued happens also when nobody waits for it any more. Dropping the last clone gives it back.
pub type Hold = Arc<dyn Any + Send + Sync>;

/// One conditional write.
#[derive(Clone)]
pub struct Write {
    /// The key.
    pub key: Bytes,
    /// What must be true.
    pub expect: Expect,
    /// What to do.
    pub change: Change,
    /// Where the key lives.
    pub lane: Lane,
    /// Time to live; the engine deletes the key, as a commit of its own, some time after. Ephemeral lane only.
    pub ttl: Option<Duration>,
    /// Handed to the sinks with the event.
    pub note: Option<Note>,
    /// Dropped when every sink has seen the write, or when it is sure that it will not happen, and before the writer has its answer.
    pub holds: Vec<Hold>,
    /// It is a step of some record's removal, as a mark of deletion is, or of what has to be written elsewhere before another record may go:
    /// what has no room for anything else has room for it, if it makes the value little larger.
    pub removes: bool,
}

impl Write {
    /// A write with nothing beside it.
    pub fn new(key: impl Into<Bytes>, expect: Expect, change: Change, lane: Lane) -> Self {
        Self { key: key.into(), expect, change, lane, ttl: None, note: None, holds: Vec::new(), removes: false }
    }
}

/// One committed change.
#[derive(Clone)]
pub struct Event {
    /// The revision of the commit.
    pub revision: Revision,
    /// The key.
    pub key: Bytes,
    /// The new value, none for a deletion.
    pub value: Option<Bytes>,
    /// The value before, none for a creation.
    pub previous: Option<Record>,
    /// The lane of the key.
    pub lane: Lane,
    /// The writer's note, if the writer was this process.
    pub note: Option<Note>,
}

impl Event {
    /// Bytes of its values.
    pub(crate) fn size(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |record| record.value.len());
        self.value.as_ref().map_or(0, Bytes::len) + previous
    }
}

/// Bytes on the disk that an engine keeps free unless it is told otherwise.
pub const RESERVE: u64 = 128 << 20;

/// Why a write did not happen.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The expectation does not hold; the current record, none when the key does not exist.
    #[error("the key's state is not what the write expects")]
    Conflict(Option<Record>),
    /// The revision asked for is no longer kept; the oldest that is.
    #[error("revision is compacted, the oldest kept is {0}")]
    Compacted(Revision),
    /// The revision asked for is not there yet; the current one.
    #[error("revision is in the future, the current one is {0}")]
    Future(Revision),
    /// No room on disk: nothing was written, reads go on, writes work again when there is room.
    #[error("no space left in the data directory ({} MiB are kept free): free some space, then writes work again", RESERVE >> 20)]
    NoSpace,
    /// Objects take as much as they may: nothing was written. What becomes smaller or goes is written, and then others have room.
    #[error(
        "the cluster's objects take {} MiB, which is all that they may (--storage-quota is {} MiB): delete some; the metric \
         apiserver_resource_objects says of which kind there are many",
        taken >> 20, limit >> 20
    )]
    Quota {
        /// Bytes that are taken.
        taken: u64,
        /// Bytes that may be.
        limit: u64,
    },
    /// The data directory was written by a newer version.
    #[error(
        "the data directory has format {found}, this version reads up to {supported}: run the newer version again or restore a snapshot"
    )]
    NewerFormat {
        /// What the directory says.
        found: u32,
        /// What this build reads.
        supported: u32,
    },
    /// Files of the database are not as they were written, or missing.
    #[error(
        "the database is damaged ({0}): move the store's directory away, then restore a snapshot of it, or start with an empty cluster"
    )]
    Damaged(String),
    /// A value cannot be brought back from the form that it is stored in, such as with a key that is lost.
    #[error("the value of {key} cannot be read: {cause}")]
    Untransformed {
        /// The key.
        key: String,
        /// Why.
        cause: String,
    },
    /// A store is there already.
    #[error("there is a store already: move it away first")]
    Exists,
    /// What is given as the copy of a store cannot be one; what is wrong.
    #[error("no store has this: {0}")]
    Implausible(String),
    /// A store was to be made of a copy, and is not whole.
    #[error("a snapshot was not restored to its end: restore it again, or remove this directory to start with an empty cluster")]
    Unfinished,
    /// Another process has the directory open.
    #[error("the data directory is in use by another process")]
    Locked,
    /// The engine is closed or has failed; the cause.
    #[error("storage failed: {0}")]
    Failed(String),
}

/// Bytes of values after which a page of a range ends: several readers of large records at a time must not fill the memory.
pub const PAGE_BYTES: usize = 8 << 20;

/// A page of a range.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In key order.
    pub records: Vec<Record>,
    /// The revision that the page shows.
    pub revision: Revision,
    /// Whether more keys follow.
    pub more: bool,
}

/// Some of history.
#[derive(Clone, Default)]
pub struct Changes {
    /// In revision order.
    pub events: Vec<Event>,
    /// Every event up to here is in `events`: where to read on.
    pub upto: Revision,
}

/// Sees every commit, in order, before it is acknowledged. Called on the writer's thread: it must not block.
pub trait Sink: Send + Sync {
    /// `events` are of whole commits, in revision order.
    fn apply(&self, events: &[Event]);
}

/// A storage backend.
///
/// Reads show what is published: durable, counted by [`Engine::revision`] and seen by every sink. A write that fails, or whose
/// outcome is not known yet, is in no read.
///
/// To follow the store from a revision on, add a sink, and read what lies between from [`Engine::changes`].
#[async_trait]
pub trait Engine: Send + Sync {
    /// The current revision: of the last commit that every sink has seen.
    fn revision(&self) -> Revision;

    /// The oldest revision from which a range in the past, or reading changes, can start.
    fn compacted(&self) -> Revision;

    /// One key, now.
    async fn get(&self, key: &[u8]) -> Result<Option<Record>, Error>;

    /// Keys from `start` (inclusive) to `end` (exclusive, empty for no end), now or at a kept revision, at most `limit` (0 is no
    /// limit, also of bytes) and little more than [`PAGE_BYTES`]. The ephemeral lane has no past: its keys are always shown as they are now.
    async fn range(&self, start: &[u8], end: &[u8], at: Option<Revision>, limit: usize) -> Result<Page, Error>;

    /// The durable lane's events under `prefix` after revision `after`, up to revision `upto` or as many as are read at once.
    async fn changes(&self, prefix: &[u8], after: Revision, upto: Revision) -> Result<Changes, Error>;

    /// Commits one write durably and returns its revision, after every sink has seen it.
    async fn commit(&self, write: Write) -> Result<Revision, Error>;

    /// Whether the key's value is stored in another form than a write of it would be now.
    async fn is_stale(&self, _key: &[u8]) -> Result<bool, Error> {
        Ok(false)
    }

    /// Adds a sink, which sees every commit after the returned revision.
    fn subscribe(&self, sink: Arc<dyn Sink>) -> Revision;

    /// Forgets history up to and including `revision`, without stopping writers.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;
}
