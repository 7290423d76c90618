//! The tables on fjall: settings, atomic writes and reads. Nothing here decides.

use std::path::Path;
use std::sync::Arc;

use ::fjall::compaction::Leveled;
use ::fjall::{AbstractTree, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Snapshot};
use bytes::Bytes;

use super::encoding::{Entry, Head, Stored, Tail, decode_u64, encode_u64, split_expiry_key};
use super::stage::{Op, Table, View};
use super::{HEAD, SWEPT, TAIL};
use crate::{Error, Event, Lane, Record, Revision};

const MIB: u64 = 1 << 20;

/// The open tables.
pub(super) struct Database {
    db: ::fjall::Database,
    pub(super) log: Keyspace,
    pub(super) index: Keyspace,
    pub(super) ephemeral: Keyspace,
    pub(super) expiry: Keyspace,
    pub(super) meta: Keyspace,
}

/// Why a batch was not written.
pub(super) enum WriteError {
    /// fjall takes no writes any more, because of an earlier failure: the database must be opened again.
    Poisoned,
    /// The batch failed half-way: only opening the database again tells whether it is on disk.
    Unknown(Error),
}

impl WriteError {
    /// fjall is poisoned by its own threads when they find the disk full.
    pub(super) fn cause(self) -> Error {
        match self {
            Self::Poisoned => Error::NoSpace,
            Self::Unknown(error) => error,
        }
    }
}

/// Some of history.
pub(super) struct Chunk {
    pub(super) events: Vec<Event>,
    /// The revision up to which history was read.
    pub(super) position: Revision,
}

impl Database {
    /// Small caches and write buffers: the process's memory is spent once, in the watch cache, not twice. Small tables and
    /// levels keep each compaction short, and the room that it needs meanwhile small.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let db = ::fjall::Database::builder(path)
            .cache_size(8 * MIB)
            .worker_threads(2)
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
            db,
        })
    }

    /// Writes all of `ops` or none. With `sync` they are on disk when this returns; without, they are no later than what is
    /// written next.
    pub(super) fn write(&self, ops: &[Op], sync: bool) -> Result<(), WriteError> {
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.db.batch().durability(Some(mode));
        for op in ops {
            match &op.value {
                Some(value) => batch.insert(self.table(op.table), op.key.clone(), value.clone()),
                None => batch.remove(self.table(op.table), op.key.clone()),
            }
        }
        batch.commit().map_err(|error| match error {
            ::fjall::Error::Poisoned => WriteError::Poisoned,
            error => WriteError::Unknown(storage(error)),
        })
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.db.snapshot()
    }

    pub(super) fn head(&self) -> Result<Head, Error> {
        self.meta.get(&HEAD).map_err(storage)?.map_or(Ok(Head::default()), |bytes| Head::decode(&bytes))
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
    pub(super) fn history(&self, prefix: &[u8], after: Revision, upto: Revision, limit: usize) -> Result<Chunk, Error> {
        let mut events = Vec::new();
        for entry in self.entries(after + 1, upto) {
            let entry = entry?;
            if !entry.key.starts_with(prefix) {
                continue;
            }
            let previous = if entry.previous == 0 { None } else { self.entry(entry.previous)?.and_then(Entry::into_record) };
            let position = entry.revision;
            events.push(entry.into_event(previous));
            if events.len() == limit {
                return Ok(Chunk { events, position });
            }
        }
        Ok(Chunk { events, position: upto })
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
        self.write(&[op], false).map_err(WriteError::cause)?;
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
    Error::Failed(format!("the value of revision {revision} is missing: restore a snapshot"))
}

/// fjall's error in the store's words.
pub(super) fn storage(error: ::fjall::Error) -> Error {
    let io = match &error {
        ::fjall::Error::Io(io) | ::fjall::Error::Storage(LsmError::Io(io)) => Some(io.kind()),
        _ => None,
    };
    match (io, error) {
        (Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded), _) => Error::NoSpace,
        (_, ::fjall::Error::Locked) => Error::Locked,
        (_, error) => Error::Failed(error.to_string()),
    }
}

/// A record of the log by its revision, as the snapshot has it.
pub(super) fn record_at(database: &Database, snapshot: &Snapshot, revision: Revision) -> Result<Record, Error> {
    use ::fjall::Readable;
    let bytes = snapshot.get(&database.log, encode_u64(revision)).map_err(storage)?.ok_or_else(|| dangling(revision))?;
    Entry::decode(revision, &bytes.into())?.into_record().ok_or_else(|| dangling(revision))
}
