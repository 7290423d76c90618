//! The tables on fjall: settings, atomic writes and reads. Nothing here decides.

use std::path::Path;
use std::sync::Arc;

use ::fjall::compaction::Leveled;
use ::fjall::{AbstractTree, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Snapshot};
use bytes::Bytes;

use super::encoding::{Entry, Head, Stored, Tail, decode_u64, encode_u64, split_expiry_key};
use super::stage::{Op, Table, View};
use super::{CURRENT, HEAD, SWEPT, TAIL};
use crate::{Changes, Error, Lane, Record, Revision};

const MIB: u64 = 1 << 20;

/// The open tables.
pub(super) struct Database {
    db: ::fjall::Database,
    pub(super) log: Keyspace,
    pub(super) index: Keyspace,
    pub(super) ephemeral: Keyspace,
    pub(super) expiry: Keyspace,
    pub(super) meta: Keyspace,
    /// Whether the disk fails to synchronise.
    #[cfg(test)]
    pub(super) faulty: std::sync::atomic::AtomicBool,
}

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// fjall takes no writes any more, because of an earlier failure of its own threads: it must be opened again.
    Stopped,
    /// The disk is full: opening the database again tells whether the batch is in the journal all the same.
    Full,
    /// The disk failed. What the kernel holds of the batch may differ from what is on disk and nobody can tell, not even by
    /// reading it (the kernel forgets a failed synchronisation once it was reported), so nothing may be built upon it.
    Broken(Error),
}

impl WriteError {
    /// fjall's own threads stop it when they find the disk full.
    pub(super) fn cause(self) -> Error {
        match self {
            Self::Stopped | Self::Full => Error::NoSpace,
            Self::Broken(error) => error,
        }
    }
}

impl Database {
    /// Small caches and write buffers: the process's memory is spent once, in the watch cache, not twice. Small tables and
    /// levels keep each compaction short, and the room that it needs meanwhile small.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let db = ::fjall::Database::builder(path)
            .cache_size(8 * MIB)
            // Of several, the first hands compactions on to the others, and to itself again for as long as they are busy.
            .worker_threads(1)
            .max_journaling_size(64 * MIB)
            .max_cached_files(Some(128))
            .open()
            .map_err(storage)?;
        let table = |name: &str, memtable: u64, target: u64| {
            let strategy = Leveled::default().with_table_target_size(target);
            let options = || KeyspaceCreateOptions::default().max_memtable_size(memtable).compaction_strategy(Arc::new(strategy));
            db.keyspace(name, options).map_err(storage)
        };
        Ok(Self {
            log: table("log", 8 * MIB, 8 * MIB)?,
            index: table("index", 2 * MIB, 2 * MIB)?,
            ephemeral: table("ephemeral", 4 * MIB, 4 * MIB)?,
            expiry: table("expiry", MIB, MIB)?,
            meta: table("meta", MIB, MIB)?,
            #[cfg(test)]
            faulty: false.into(),
            db,
        })
    }

    /// Writes all of `ops` or none. They are on disk when [`Database::sync`] returns, or when later ones are.
    pub(super) fn write(&self, ops: &[Op]) -> Result<(), WriteError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::Buffer));
        for op in ops {
            match &op.value {
                Some(value) => batch.insert(self.table(op.table), op.key.clone(), value.clone()),
                None => batch.remove(self.table(op.table), op.key.clone()),
            }
        }
        batch.commit().map_err(|error| match error {
            ::fjall::Error::Poisoned => WriteError::Stopped,
            error => match storage(error) {
                Error::NoSpace => WriteError::Full,
                error => broken(&error),
            },
        })
    }

    /// Waits until everything that was written is on disk.
    pub(super) fn sync(&self) -> Result<(), WriteError> {
        #[cfg(test)]
        if self.faulty.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(broken(&Error::Failed("Input/output error".into())));
        }
        // The second looks whether one of fjall's own threads has met a failure meanwhile: the kernel tells it once, to whoever synchronises
        // first, and to the other that all is well.
        self.db.persist(PersistMode::SyncData).and_then(|()| self.db.persist(PersistMode::Buffer)).map_err(|error| match error {
            ::fjall::Error::Poisoned => WriteError::Stopped,
            error => broken(&storage(error)),
        })
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.db.snapshot()
    }

    pub(super) fn head(&self) -> Result<Head, Error> {
        let Some(bytes) = self.meta.get(&HEAD).map_err(storage)? else { return Ok(Head::default()) };
        let head = Head::decode(&bytes)?;
        match self.meta.get(&CURRENT).map_err(storage)?.and_then(|bytes| head.decode_durable(&bytes)) {
            Some(durable) => Ok(Head { durable, ..head }),
            None => self.count(head),
        }
    }

    /// Counts what is there: the last one who wrote did not count what is current, and of what history keeps he may have counted deletions
    /// otherwise. The next commit stores it.
    fn count(&self, head: Head) -> Result<Head, Error> {
        let sizes = self.index.iter().map(|row| self.entry_size(decode_u64(&row.value().map_err(storage)?)?));
        let durable = sizes.sum::<Result<u64, Error>>()?;
        let tail = self.tail()?;
        let kept = self.entries(tail.compacted + 1, head.revision).map(|entry| {
            let entry = entry?;
            Ok(entry.encoded_len() + self.entry_size(entry.previous)?)
        });
        Ok(Head { durable, kept: tail.kept + kept.sum::<Result<u64, Error>>()?, ..head })
    }

    pub(super) fn tail(&self) -> Result<Tail, Error> {
        self.meta.get(&TAIL).map_err(storage)?.map_or(Ok(Tail::default()), |bytes| Tail::decode(&bytes))
    }

    /// Log entries from `from` to `to`, both included.
    pub(super) fn entries(&self, from: Revision, to: Revision) -> impl Iterator<Item = Result<Entry, Error>> + use<> {
        self.log.range(encode_u64(from)..=encode_u64(to)).map(|row| {
            let (key, value) = row.into_inner().map_err(storage)?;
            Entry::decode(decode_u64(&key)?, &value.into())
        })
    }

    /// Events under `prefix` after `after` and up to `upto`, at most `limit`.
    pub(super) fn history(
        &self,
        prefix: &[u8],
        after: Revision,
        upto: Revision,
        (limit, most): (usize, usize),
    ) -> Result<Changes, Error> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        for entry in self.entries(after + 1, upto) {
            let entry = entry?;
            if !entry.key.starts_with(prefix) {
                continue;
            }
            let previous = if entry.previous == 0 { None } else { self.entry(entry.previous)?.and_then(Entry::into_record) };
            let upto = entry.revision;
            let event = entry.into_event(previous);
            bytes += event.size();
            events.push(event);
            if events.len() == limit || bytes >= most {
                return Ok(Changes { events, upto });
            }
        }
        Ok(Changes { events, upto })
    }

    /// Refuses a database that has lost a part of its recent past: a sealed journal was cut where it was damaged.
    pub(super) fn check_history(&self, head: Head, tail: Tail) -> Result<(), Error> {
        let found = self.entries(tail.compacted + 1, head.revision).try_fold(0, |count, entry| entry.map(|_| count + 1))?;
        let expected = head.entries.saturating_sub(tail.entries);
        if found == expected {
            return Ok(());
        }
        Err(Error::Damaged(format!("{found} of {expected} changes are left after revision {}", tail.compacted)))
    }

    /// Up to `limit` entries of the expiry index that expire from `from` on: time, key, revision.
    pub(super) fn expiries(&self, from: u64, limit: usize) -> Result<Vec<(u64, Bytes, Revision)>, Error> {
        let rows = self.expiry.range(encode_u64(from)..).take(limit).map(|row| {
            let (key, revision) = row.into_inner().map_err(storage)?;
            let (expires, key) = split_expiry_key(&key.into())?;
            Ok((expires, key, decode_u64(&revision)?))
        });
        rows.collect()
    }

    /// Bytes of a log entry, 0 when there is none.
    pub(super) fn entry_size(&self, revision: Revision) -> Result<u64, Error> {
        if revision == 0 {
            return Ok(0);
        }
        Ok(self.log.size_of(encode_u64(revision)).map_err(storage)?.map_or(0, u64::from))
    }

    /// Bytes of a table on disk.
    pub(super) fn size(&self, table: Table) -> u64 {
        self.table(table).disk_space()
    }

    /// Starts to write what of the table is in memory.
    pub(super) fn flush(&self, table: Table) -> Result<(), Error> {
        self.table(table).rotate_memtable().map(drop).map_err(storage)
    }

    /// Whether that is still being written.
    pub(super) fn is_flushing(&self, table: Table) -> bool {
        self.table(table).sealed_memtable_count() > 0
    }

    /// Rewrites the files of a table without what was deleted.
    pub(super) fn rewrite(&self, table: Table) -> Result<(), Error> {
        let unseen = self.db.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
        self.table(table).tree.major_compact(8 * MIB, unseen).map_err(|error| storage(error.into()))?;
        // fjall removes the old files when a table is next flushed after a later write: that may be never, if the store is idle.
        let op = Op { table: Table::Meta, key: SWEPT, value: Some(encode_u64(unseen)) };
        self.write(&[op]).map_err(WriteError::cause)?;
        self.flush(Table::Meta)
    }

    fn entry(&self, revision: Revision) -> Result<Option<Entry>, Error> {
        let value = self.log.get(encode_u64(revision)).map_err(storage)?;
        value.map(|bytes| Entry::decode(revision, &bytes.into())).transpose()
    }

    fn table(&self, table: Table) -> &Keyspace {
        match table {
            Table::Log => &self.log,
            Table::Index => &self.index,
            Table::Ephemeral => &self.ephemeral,
            Table::Expiry => &self.expiry,
            Table::Meta => &self.meta,
        }
    }
}

/// The state as the writer sees it: nobody else changes records, so no snapshot is needed.
impl View for Database {
    fn current(&self, lane: Lane, key: &Bytes) -> Result<Option<Stored>, Error> {
        if lane == Lane::Ephemeral {
            let value = self.ephemeral.get(key).map_err(storage)?;
            return value.map(|bytes| Stored::decode(key.clone(), &bytes.into())).transpose();
        }
        let Some(revision) = self.index.get(key).map_err(storage)? else { return Ok(None) };
        let revision = decode_u64(&revision)?;
        let record = self.entry(revision)?.and_then(Entry::into_record).ok_or_else(|| dangling(revision))?;
        Ok(Some(Stored { record, expires: 0 }))
    }
}

/// The index names a revision that the log does not have.
pub(super) fn dangling(revision: Revision) -> Error {
    Error::Damaged(format!("the value of revision {revision} is missing"))
}

fn broken(error: &Error) -> WriteError {
    WriteError::Broken(Error::Failed(format!("the disk did not take a write, check it before the next start: {error}")))
}

/// fjall's error in the store's words.
pub(super) fn storage(error: ::fjall::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, QuotaExceeded, StorageFull, UnexpectedEof};
    match error {
        ::fjall::Error::Locked => Error::Locked,
        ::fjall::Error::Poisoned => Error::Failed("the database stopped after a failed write".into()),
        ::fjall::Error::Io(io) | ::fjall::Error::Storage(LsmError::Io(io)) => match io.kind() {
            StorageFull | QuotaExceeded => Error::NoSpace,
            // Lengths, places and names of files come from other files.
            NotFound | UnexpectedEof | InvalidData | InvalidInput => Error::Damaged(io.to_string()),
            _ => Error::Failed(io.to_string()),
        },
        error => Error::Damaged(error.to_string()),
    }
}

/// A record of the log by its revision, as the snapshot has it.
pub(super) fn record_at(database: &Database, snapshot: &Snapshot, revision: Revision) -> Result<Record, Error> {
    use ::fjall::Readable;
    let bytes = snapshot.get(&database.log, encode_u64(revision)).map_err(storage)?.ok_or_else(|| dangling(revision))?;
    Entry::decode(revision, &bytes.into())?.into_record().ok_or_else(|| dangling(revision))
}
