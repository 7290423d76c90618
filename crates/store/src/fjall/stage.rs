//! The decision of the writer, without I/O: which writes of a batch happen, and what they change on disk.

use std::collections::HashMap;

use bytes::Bytes;

use super::encoding::{Entry, Head, Stored, encode_u64, encoded_len, expiry_key};
use super::quota::{Quota, Sizes};
use crate::{Change, Error, Event, Expect, Lane, Record, Revision, Write};

/// Longer keys are refused, as are values that no reader would take.
const MAX_KEY: usize = 4 << 10;
const MAX_VALUE: usize = 64 << 20;

/// The tables of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Revision to entry: history, and the current values of the durable lane.
    Log,
    /// Key to the revision of its current value.
    Index,
    /// Key to record.
    Ephemeral,
    /// Time and key to revision.
    Expiry,
    /// Head and tail.
    Meta,
}

/// One change of one table. A value of none removes the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) table: Table,
    pub(super) key: Bytes,
    pub(super) value: Option<Bytes>,
}

/// The state before the batch.
pub(super) trait View {
    /// The key's current record in the lane.
    fn current(&self, lane: Lane, key: &Bytes) -> Result<Option<Stored>, Error>;
}

/// Changes that are written together.
#[derive(Default)]
pub(super) struct Batch {
    /// The head after them.
    pub(super) head: Head,
    /// What to write.
    pub(super) ops: Vec<Op>,
    /// The earliest expiry among them.
    pub(super) expires: Option<u64>,
}

/// A batch in the making: later writes see the earlier ones.
pub(super) struct Stage<'a, V> {
    view: &'a V,
    overlay: HashMap<(Lane, Bytes), Option<Stored>>,
    now: u64,
    quota: Quota,
    pub(super) batch: Batch,
    /// What the sinks will see.
    pub(super) events: Vec<Event>,
}

impl<'a, V: View> Stage<'a, V> {
    /// `now` is in milliseconds since 1970.
    pub(super) fn new(view: &'a V, head: Head, quota: Quota, now: u64) -> Self {
        let batch = Batch { head, ..Batch::default() };
        Self { view, overlay: HashMap::new(), now, quota, batch, events: Vec::new() }
    }

    /// Adds a write and returns its revision, or says why it does not happen; the batch is as before then.
    pub(super) fn add(&mut self, write: Write) -> Result<Revision, Error> {
        let value = match &write.change {
            Change::Put(value) => Some(value.clone()),
            Change::Delete => None,
        };
        check_size(&write.key, value.as_ref()).map_err(|why| Error::Failed(why.into()))?;
        if write.ttl.is_some() && write.lane == Lane::Durable {
            return Err(Error::Failed("a time to live needs the ephemeral lane".into()));
        }
        let id = (write.lane, write.key.clone());
        let before = match self.overlay.get(&id) {
            Some(stored) => stored.clone(),
            None => self.view.current(write.lane, &write.key)?,
        };
        check_expectation(&write, before.as_ref())?;
        let length = |value: &Bytes| write.key.len() + value.len();
        let taken = self.batch.head.current();
        let (old, new) = (before.as_ref().map(|stored| length(&stored.record.value)), value.as_ref().map(length));
        self.quota.check(taken, Sizes { before: old, after: new, removes: write.removes })?;
        let revision = self.batch.head.revision + 1;
        let after = value.as_ref().map(|value| Stored {
            record: Record { key: write.key.clone(), value: value.clone(), revision },
            expires: write.ttl.map_or(0, |ttl| self.now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))),
        });
        match write.lane {
            Lane::Durable => self.batch.durable(revision, &write.key, value.clone(), before.as_ref()),
            Lane::Ephemeral => self.batch.ephemeral(&write.key, after.as_ref(), before.as_ref()),
        }
        self.batch.head.revision = revision;
        self.overlay.insert(id, after);
        let previous = before.map(|stored| stored.record);
        self.events.push(Event { revision, key: write.key, value, previous, lane: write.lane, note: write.note });
        Ok(revision)
    }
}

impl Batch {
    /// Adds the new head.
    pub(super) fn finish(&mut self) {
        self.put(Table::Meta, super::HEAD, Some(self.head.encode()));
        self.put(Table::Meta, super::CURRENT, Some(self.head.encode_durable()));
    }

    /// A change of the durable lane: its entry of the log, and which revision of the key is current.
    pub(super) fn durable(&mut self, revision: Revision, key: &Bytes, value: Option<Bytes>, before: Option<&Stored>) {
        let index = value.is_some().then(|| encode_u64(revision));
        let is_record = value.is_some();
        let previous = before.map_or(0, |stored| stored.record.revision);
        let entry = Entry { revision, previous, key: key.clone(), value }.encode();
        let replaced = before.map_or(0, |stored| encoded_len(key, &stored.record.value));
        self.head.entries += 1;
        self.head.bytes += entry.len() as u64;
        self.head.kept += entry.len() as u64 + replaced;
        let added = if is_record { entry.len() as u64 } else { 0 };
        self.head.durable = (self.head.durable + added).saturating_sub(replaced);
        self.put(Table::Log, encode_u64(revision), Some(entry));
        self.put(Table::Index, key.clone(), index);
    }

    /// A change of the ephemeral lane.
    pub(super) fn ephemeral(&mut self, key: &Bytes, after: Option<&Stored>, before: Option<&Stored>) {
        if let Some(old) = before.filter(|stored| stored.expires != 0) {
            self.put(Table::Expiry, expiry_key(old.expires, key), None);
        }
        if let Some(new) = after.filter(|stored| stored.expires != 0) {
            self.put(Table::Expiry, expiry_key(new.expires, key), Some(encode_u64(new.record.revision)));
            self.expires = Some(self.expires.map_or(new.expires, |earliest| earliest.min(new.expires)));
        }
        let size = |stored: Option<&Stored>| stored.map_or(0, |stored| encoded_len(key, &stored.record.value));
        self.head.ephemeral = (self.head.ephemeral + size(after)).saturating_sub(size(before));
        self.put(Table::Ephemeral, key.clone(), after.map(Stored::encode));
    }

    pub(super) fn put(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        self.ops.push(Op { table, key, value });
    }
}

/// Refuses what no reader would take; `value` is none for a deletion.
pub(super) fn check_size(key: &[u8], value: Option<&Bytes>) -> Result<(), &'static str> {
    match value {
        _ if key.is_empty() => Err("a key must not be empty"),
        _ if key.len() > MAX_KEY => Err("a key is at most 4 KiB long"),
        Some(value) if value.len() > MAX_VALUE => Err("a value is at most 64 MiB long"),
        _ => Ok(()),
    }
}

fn check_expectation(write: &Write, before: Option<&Stored>) -> Result<(), Error> {
    let revision = before.map(|stored| stored.record.revision);
    let holds = match write.expect {
        Expect::Absent => revision.is_none(),
        Expect::At(expected) => revision == Some(expected),
        Expect::Anything => true,
    };
    let possible = revision.is_some() || write.change != Change::Delete;
    if holds && possible { Ok(()) } else { Err(Error::Conflict(before.map(|stored| stored.record.clone()))) }
}

#[cfg(test)]
mod tests;
