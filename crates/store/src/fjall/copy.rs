//! A copy of what is current, and a new database made of one. History is left out: who follows the new store begins with a list.

use std::path::Path;

use ::fjall::Readable;

use super::database::{Database, WriteError, record_at, storage};
use super::directory::Directory;
use super::encoding::{Entry, Head, Stored, Tail, decode_u64, encode_u64, expiry_key};
use super::stage::{Op, Table};
use super::{HEAD, Shared, TAIL, read};
use crate::{Error, Lane, Record, Revision};

/// By how much the revision of a store that is made of a copy is above that of the copy: more than were committed after the copy was
/// made, so that no revision that somebody has seen then means something else now. The number is the one that etcd's documentation
/// advises for a cluster of Kubernetes (`etcdutl snapshot restore --bump-revision`).
const BUMP: Revision = 1_000_000_000;

/// What is written at once, bytes.
const BATCH: usize = 4 << 20;

/// The current state of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its value.
    pub record: Record,
    /// Where it lives.
    pub lane: Lane,
    /// When it is deleted, milliseconds since 1970; 0 for never.
    pub expires: u64,
}

/// Hands every current key to `each`, as all are at the revision that is returned. Writers go on meanwhile.
pub(super) fn copy(shared: &Shared, mut each: impl FnMut(Copied) -> Result<(), Error>) -> Result<Revision, Error> {
    shared.read(|database| {
        let snapshot = database.snapshot();
        for row in snapshot.iter(&database.index) {
            let revision = decode_u64(&row.value().map_err(storage)?)?;
            let record = record_at(database, &snapshot, revision)?;
            each(Copied { record, lane: Lane::Durable, expires: 0 })?;
        }
        for row in snapshot.iter(&database.ephemeral) {
            let (key, value) = row.into_inner().map_err(storage)?;
            let Stored { record, expires } = Stored::decode(key.into(), &value.into())?;
            each(Copied { record, lane: Lane::Ephemeral, expires })?;
        }
        Ok(read::head(database, &snapshot)?.revision)
    })
}

/// A database in the making, for one that has none.
pub struct Restoring {
    directory: Directory,
    database: Database,
    head: Head,
    batch: Vec<Op>,
    bytes: usize,
}

impl Restoring {
    /// Begins in a directory where no store is. Unless [`Restoring::finish`] is reached, none is there afterwards.
    ///
    /// # Errors
    /// [`Error::Exists`] where one is, [`Error::Locked`] when another process has the directory.
    pub fn begin(dir: &Path) -> Result<Self, Error> {
        if dir.join("format").exists() {
            return Err(Error::Exists);
        }
        let directory = Directory::open(dir)?;
        directory.draft()?;
        let database = Database::open(&directory.database())?;
        Ok(Self { directory, database, head: Head::default(), batch: Vec::new(), bytes: 0 })
    }

    /// Adds a key with the revision that it had.
    ///
    /// # Errors
    /// It cannot be written, or cannot be of a copy.
    pub fn add(&mut self, copied: Copied) -> Result<(), Error> {
        let Copied { record, lane, expires } = copied;
        if record.revision == 0 || record.key.is_empty() || (lane == Lane::Durable && expires != 0) {
            return Err(Error::Failed("the copy has a key that no store has".into()));
        }
        let revision = record.revision;
        self.head.revision = self.head.revision.max(revision);
        self.bytes += record.key.len() + record.value.len();
        match lane {
            Lane::Durable => {
                let key = record.key.clone();
                let entry = Entry { revision, previous: 0, key: record.key, value: Some(record.value) }.encode();
                self.head.entries += 1;
                self.head.bytes += entry.len() as u64;
                self.head.kept += entry.len() as u64;
                self.put(Table::Log, encode_u64(revision), entry);
                self.put(Table::Index, key, encode_u64(revision));
            }
            Lane::Ephemeral => {
                let key = record.key.clone();
                self.head.ephemeral += super::encoding::encoded_len(&key, &record.value);
                if expires != 0 {
                    self.put(Table::Expiry, expiry_key(expires, &key), encode_u64(revision));
                }
                self.put(Table::Ephemeral, key, Stored { record, expires }.encode());
            }
        }
        if self.bytes >= BATCH { self.write() } else { Ok(()) }
    }

    /// Makes the store one whose copy was made at `revision`, durably.
    ///
    /// # Errors
    /// It cannot be written, or what was added cannot be of that revision.
    pub fn finish(mut self, revision: Revision) -> Result<(), Error> {
        if self.head.revision > revision {
            return Err(Error::Failed(format!("the copy is of revision {revision}, but has a key of {}", self.head.revision)));
        }
        self.head.revision = revision + BUMP;
        let Head { revision, entries, kept, .. } = self.head;
        // Who has seen a revision of the old store begins with a list, also where the copy does not have it.
        let tail = Tail { compacted: revision, entries, kept, deleted: 0 };
        self.put(Table::Meta, HEAD, self.head.encode());
        self.put(Table::Meta, TAIL, tail.encode());
        self.write()?;
        self.database.sync().map_err(WriteError::cause)?;
        drop(self.database);
        self.directory.mark()
    }

    fn put(&mut self, table: Table, key: bytes::Bytes, value: bytes::Bytes) {
        self.batch.push(Op { table, key, value: Some(value) });
    }

    fn write(&mut self) -> Result<(), Error> {
        self.database.write(&std::mem::take(&mut self.batch)).map_err(WriteError::cause)?;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
