//! A copy of what is current, and a new database made of one. History is left out: who follows the new store begins with a list.

use std::collections::HashSet;
use std::path::Path;

use ::fjall::Readable;
use bytes::Bytes;

use super::database::{Database, WriteError, record_at, storage};
use super::directory::Directory;
use super::encoding::{Head, Stored, Tail, decode_u64};
use super::stage::{Batch, Table, check_size};
use super::{Shared, TAIL, read};
use crate::{Error, Lane, Record, Revision};

/// By how much the revision of a store that is made of a copy is above that of the copy at least: more than were committed after the
/// copy was made, so that no revision that somebody has seen then means something else now. The number is the one that etcd's
/// documentation advises for a cluster of Kubernetes (`etcdutl snapshot restore --bump-revision`).
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

/// Whether what is handed over, key by key, can be the copy of a store.
#[derive(Default)]
pub struct Plausible {
    revisions: HashSet<Revision>,
    before: Option<(Lane, Bytes)>,
    newest: Revision,
}

impl Plausible {
    /// Looks at the next key.
    ///
    /// # Errors
    /// No copy has it, or not there.
    pub fn next(&mut self, Copied { record, lane, expires }: &Copied) -> Result<(), Error> {
        let refuse = |why: &str| Err(Error::Implausible(format!("{} {why}", record.key.escape_ascii())));
        check_size(&record.key, Some(&record.value)).map_err(|why| Error::Implausible(why.into()))?;
        if *lane == Lane::Durable && *expires != 0 {
            return refuse("expires in the durable lane");
        }
        if record.revision == 0 || !self.revisions.insert(record.revision) {
            return refuse("has the revision of nothing, or of another key");
        }
        let place = |lane: Lane| lane == Lane::Ephemeral;
        if self.before.as_ref().is_some_and(|(before, key)| (place(*before), key) >= (place(*lane), &record.key)) {
            return refuse("comes again, or before another one");
        }
        self.before = Some((*lane, record.key.clone()));
        self.newest = self.newest.max(record.revision);
        Ok(())
    }

    /// Looks at the revision at which the copy was made, when all keys are there; the one that a store made of it has, which is `begin` where
    /// that is above: one copy may be restored twice, and between them others have seen revisions of the first.
    ///
    /// # Errors
    /// A key is newer, or revisions end there.
    pub fn end(&self, revision: Revision, begin: Revision) -> Result<Revision, Error> {
        let above = revision.checked_add(BUMP).filter(|_| self.newest <= revision).map(|above| above.max(begin));
        above.ok_or_else(|| Error::Implausible(format!("revision {revision}, with a key of {}", self.newest)))
    }
}

/// A database in the making, for one that has none.
pub struct Restoring {
    directory: Directory,
    database: Database,
    plausible: Plausible,
    batch: Batch,
    /// What the batch has of keys and values.
    bytes: usize,
}

impl Restoring {
    /// Begins in a directory where no store is. Until [`Restoring::finish`] is reached none is there, and nobody can make another one there
    /// than this: who started with an empty store would take what runs for what nobody wants.
    ///
    /// # Errors
    /// [`Error::Exists`] where one is, [`Error::Locked`] when another process has the directory.
    pub fn begin(dir: &Path) -> Result<Self, Error> {
        if dir.join("format").exists() {
            return Err(Error::Exists);
        }
        let directory = Directory::restore(dir)?;
        directory.draft(0)?;
        let database = Database::open(&directory.database())?;
        Ok(Self { directory, database, plausible: Plausible::default(), batch: Batch::default(), bytes: 0 })
    }

    /// Adds a key with the revision that it had.
    ///
    /// # Errors
    /// It cannot be written, or is not [`Plausible`].
    pub fn add(&mut self, copied: Copied) -> Result<(), Error> {
        self.plausible.next(&copied)?;
        let Copied { record, lane, expires } = copied;
        self.bytes += record.key.len() + record.value.len();
        match lane {
            Lane::Durable => self.batch.durable(record.revision, &record.key, Some(record.value), None),
            Lane::Ephemeral => {
                let stored = Stored { record, expires };
                self.batch.ephemeral(&stored.record.key, Some(&stored), None);
            }
        }
        if self.bytes >= BATCH { self.write() } else { Ok(()) }
    }

    /// Makes the store one whose copy was made at `revision`, durably; `begin` is what [`crate::Options::begin`] is of one without a copy.
    ///
    /// # Errors
    /// It cannot be written, or what was added cannot be of that revision.
    pub fn finish(mut self, revision: Revision, begin: Revision) -> Result<(), Error> {
        self.batch.head.revision = self.plausible.end(revision, begin)?;
        let Head { revision, entries, kept, .. } = self.batch.head;
        // Who has seen a revision of the old store begins with a list, also where the copy does not have it.
        let tail = Tail { compacted: revision, entries, kept, deleted: 0 };
        self.batch.put(Table::Meta, TAIL, Some(tail.encode()));
        self.batch.finish();
        self.write()?;
        self.database.sync().map_err(WriteError::cause)?;
        drop(self.database);
        self.directory.mark()
    }

    fn write(&mut self) -> Result<(), Error> {
        self.database.write(&std::mem::take(&mut self.batch.ops)).map_err(WriteError::cause)?;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
