//! What the engine's threads and callers share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::Notify;

use super::compaction::{self, Bounds};
use super::database::Database;
use super::directory::Directory;
use super::encoding::{Head, Tail};
use super::hub::Hub;
use super::moments::Moments;
use super::sweep::MOST_WASTE;
use super::{History, read};
use crate::{Changes, Error, Page, Revision};

/// Events that are read from history at once.
const CHUNK: usize = 256;
/// Bytes of them, after which a page ends.
const CHUNK_BYTES: usize = 1 << 20;

/// Commits after which the sweeper looks for waste.
const SWEEP_EVERY: u64 = 4096;

/// The state of an open engine.
pub(super) struct Shared {
    /// None when closed. Held for writing only while the database is opened again.
    database: RwLock<Option<Database>>,
    /// Why the engine ended, if it did not end by being closed.
    failure: OnceLock<Error>,
    /// Head of the last commit, and tail of history.
    ends: Mutex<(Head, Tail)>,
    /// Reads of the past start here at the earliest. Ahead of the tail while compaction works.
    compacted: AtomicU64,
    /// When the expiry task looks next, milliseconds since 1970. Writes that expire before wake it.
    next_expiry: AtomicU64,
    history: History,
    /// While its oldest entry is young, history may have so many times what its bounds say. One where the disk is small.
    young_factor: u64,
    /// The most waste that a large table may have, bytes.
    most_waste: u64,
    moments: Mutex<Moments>,
    /// Up to here there is nothing that is not young to leave history.
    exhausted: AtomicU64,
    /// The disk has no room for what is new.
    short: AtomicBool,
    pub(super) hub: Hub,
    /// Wakes compaction.
    pub(super) work: Signal,
    /// Wakes the sweeper.
    pub(super) waste: Signal,
    /// Wakes expiry.
    pub(super) expiry: Notify,
}

impl Shared {
    pub(super) fn open(directory: &Directory, history: History) -> Result<Self, Error> {
        directory.forget();
        let database = Database::open(&directory.database())?;
        let (head, tail) = (database.head()?, database.tail()?);
        directory.check_end(head.revision)?;
        database.check_history(head, tail)?;
        let shared = Self {
            database: RwLock::new(Some(database)),
            failure: OnceLock::new(),
            ends: Mutex::new((head, tail)),
            compacted: AtomicU64::new(tail.compacted),
            next_expiry: AtomicU64::new(u64::MAX),
            history,
            young_factor: directory.young_factor(history.bytes)?,
            most_waste: directory.share()?.max(MOST_WASTE),
            moments: Mutex::new(Moments::new(history.keep, head.revision)),
            exhausted: AtomicU64::new(0),
            short: AtomicBool::new(false),
            hub: Hub::new(head.revision),
            work: Signal::default(),
            waste: Signal::default(),
            expiry: Notify::new(),
        };
        shared.wake_compaction();
        shared.waste.wake();
        Ok(shared)
    }

    /// Reads, or writes, the open database.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.database.read() {
            Some(database) => read(database),
            None => Err(self.ended()),
        }
    }

    pub(super) fn range(&self, query: &read::Query<'_>) -> Result<(Page, Revision), Error> {
        self.read(|database| read::range(database, query, &self.compacted))
    }

    pub(super) fn changes(&self, prefix: &[u8], after: Revision, upto: Revision) -> Result<Changes, Error> {
        let current = self.hub.revision();
        if upto > current || after > upto {
            return Err(Error::Future(current));
        }
        let changes = self.read(|database| database.history(prefix, after, upto, (CHUNK, CHUNK_BYTES)));
        // Looked at after the read: compaction may have overtaken it, and what was read then has gaps.
        let oldest = self.compacted();
        if after < oldest { Err(Error::Compacted(oldest)) } else { changes }
    }

    /// Opens the database again and returns where it ends. Readers wait meanwhile.
    pub(super) fn reopen(&self, directory: &Directory) -> Result<Head, Error> {
        let mut slot = self.database.write();
        // The old one lets go of its files first.
        drop(slot.take());
        directory.forget();
        let database = Database::open(&directory.database())?;
        let head = database.head()?;
        directory.check_end(head.revision)?;
        *slot = Some(database);
        Ok(head)
    }

    /// Whether it can be read.
    pub(super) fn is_open(&self) -> bool {
        self.database.read().is_some()
    }

    /// Why nothing can be read or written any more.
    pub(super) fn ended(&self) -> Error {
        self.failure.get().cloned().unwrap_or_else(super::closed)
    }

    /// Ends the engine, with the reason if it failed.
    pub(super) fn close(&self, failure: Option<Error>) {
        if let Some(error) = failure {
            // The first reason counts.
            let _ = self.failure.set(error);
        }
        drop(self.database.write().take());
        self.hub.close();
        self.work.close();
        self.waste.close();
        self.expiry.notify_one();
    }

    pub(super) fn head(&self) -> Head {
        self.ends.lock().0
    }

    pub(super) fn ends(&self) -> (Head, Tail) {
        *self.ends.lock()
    }

    /// A batch is on disk.
    pub(super) fn committed(&self, head: Head, expires: Option<u64>) {
        let before = std::mem::replace(&mut self.ends.lock().0, head);
        if before.revision / SWEEP_EVERY != head.revision / SWEEP_EVERY {
            self.waste.wake();
        }
        self.moments.lock().note(Instant::now(), head.revision);
        self.wake_compaction();
        if expires.is_some_and(|expires| self.expect_expiry(expires) > expires) {
            self.expiry.notify_one();
        }
    }

    /// History is shorter now.
    pub(super) fn trimmed(&self, tail: Tail) {
        self.ends.lock().1 = tail;
    }

    fn wake_compaction(&self) {
        let (head, tail) = *self.ends.lock();
        if compaction::is_due(head, tail, &self.bounds()) {
            self.work.wake();
        }
    }

    /// What leaves history now.
    pub(super) fn bounds(&self) -> Bounds {
        let old = Some(self.moments.lock().old()).filter(|old| *old > self.exhausted.load(Ordering::Relaxed));
        // Where there is no room, what is young is no reason to refuse writes.
        let young_factor = if self.short.load(Ordering::Relaxed) { 1 } else { self.young_factor };
        Bounds { history: self.history, old: old.unwrap_or_default(), young_factor }
    }

    /// Compaction has found nothing to do by these bounds.
    pub(super) fn exhausted(&self, bounds: &Bounds) {
        self.exhausted.fetch_max(bounds.old, Ordering::Relaxed);
    }

    /// Says whether the disk has room for what is new.
    pub(super) fn set_short(&self, short: bool) {
        if self.short.swap(short, Ordering::Relaxed) != short && short {
            self.wake_compaction();
        }
    }

    /// The most waste that a large table may have, bytes; none where the disk has no room for what is new.
    pub(super) fn most_waste(&self) -> Option<u64> {
        (!self.short.load(Ordering::Relaxed)).then_some(self.most_waste)
    }

    pub(super) fn compacted(&self) -> Revision {
        self.compacted.load(Ordering::Acquire)
    }

    /// From now on nothing older than `revision` can be read.
    pub(super) fn compact(&self, revision: Revision) {
        self.compacted.fetch_max(revision, Ordering::AcqRel);
    }

    /// The expiry task looks at `expires` at the latest. Returns when it meant to look before.
    pub(super) fn expect_expiry(&self, expires: u64) -> u64 {
        self.next_expiry.fetch_min(expires, Ordering::AcqRel)
    }

    /// The expiry task looks now: every write from here on wakes it. Returns when it meant to look.
    pub(super) fn take_expiry(&self) -> u64 {
        self.next_expiry.swap(u64::MAX, Ordering::AcqRel)
    }
}

/// Wakes one thread; several wakes while it works are one.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Signal {
    pub(super) fn wake(&self) {
        self.state.lock().0 = true;
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.state.lock().1 = true;
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().1
    }

    /// Waits a moment, for what tells nobody when it is done; false when closed.
    pub(super) fn pause(&self) -> bool {
        let mut state = self.state.lock();
        if !state.1 {
            self.changed.wait_for(&mut state, Duration::from_millis(20));
        }
        !state.1
    }

    /// Waits for a wake; false when closed.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.0 && !state.1 {
            self.changed.wait(&mut state);
        }
        state.0 = false;
        !state.1
    }
}
