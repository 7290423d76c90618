//! What the engine in memory has written: the current state, and history with what each change replaced.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Change, Changes, Error, Event, Expect, Lane, PAGE_BYTES, Page, Record, Revision, Write};

/// Events that are read at once.
const READ: usize = 1000;

/// A disk in memory.
#[derive(Default)]
pub struct Disk(Mutex<Content>);

#[derive(Default)]
struct Content {
    state: BTreeMap<Bytes, Stored>,
    /// Of the durable lane, in order.
    history: Vec<Event>,
    revision: Revision,
    compacted: Revision,
    /// How many engines have opened the disk. The last one has it.
    openings: u64,
}

#[derive(Clone)]
struct Stored {
    record: Record,
    /// Milliseconds since 1970; 0 for never.
    expires: u64,
}

/// A batch in the making: later writes see the earlier ones.
pub(super) struct Stage<'d> {
    disk: &'d Disk,
    opening: u64,
    changed: BTreeMap<Bytes, Option<Stored>>,
    events: Vec<Event>,
    revision: Revision,
    now: u64,
}

impl Stage<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Of the last commit.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// What happens, in order.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Adds a write, or says why it does not happen.
    pub(super) fn add(&mut self, write: Write) -> Result<Revision, Error> {
        let before = match self.changed.get(&write.key) {
            Some(stored) => stored.clone(),
            None => self.disk.0.lock().state.get(&write.key).cloned(),
        };
        let at = before.as_ref().map(|stored| stored.record.revision);
        let holds = match write.expect {
            Expect::Absent => at.is_none(),
            Expect::At(revision) => at == Some(revision),
            Expect::Anything => true,
        };
        if !holds || (at.is_none() && write.change == Change::Delete) {
            return Err(Error::Conflict(before.map(|stored| stored.record)));
        }
        self.revision += 1;
        let value = match write.change {
            Change::Put(value) => Some(value),
            Change::Delete => None,
        };
        let life = |ttl: std::time::Duration| self.now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let after = value.clone().map(|value| Stored {
            record: Record { key: write.key.clone(), value, revision: self.revision },
            expires: write.ttl.map_or(0, life),
        });
        self.changed.insert(write.key.clone(), after);
        let previous = before.map(|stored| stored.record);
        let revision = self.revision;
        self.events.push(Event { revision, key: write.key, value, previous, lane: write.lane, note: write.note });
        Ok(self.revision)
    }
}

impl Disk {
    /// Takes the disk from whoever had it, and returns the number of this opening: tasks of an engine that has ended may still be on
    /// their way, and write nothing from now on.
    pub(super) fn open(&self) -> u64 {
        let mut content = self.0.lock();
        content.openings += 1;
        content.openings
    }

    pub(super) fn stage(&self, opening: u64, now: u64) -> Stage<'_> {
        let revision = self.0.lock().revision;
        Stage { disk: self, opening, changed: BTreeMap::new(), events: Vec::new(), revision, now }
    }

    /// Makes the batch part of what is written. False when another engine has the disk.
    pub(super) fn write(&self, stage: Stage<'_>) -> bool {
        let mut content = self.0.lock();
        if content.openings != stage.opening {
            return false;
        }
        content.revision = stage.revision;
        for (key, stored) in stage.changed {
            match stored {
                Some(stored) => content.state.insert(key, stored),
                None => content.state.remove(&key),
            };
        }
        // Notes are for the sinks of the process that writes.
        let kept = stage.events.iter().filter(|event| event.lane == Lane::Durable);
        content.history.extend(kept.map(|event| Event { note: None, ..event.clone() }));
        true
    }

    /// Of the last commit.
    pub(super) fn revision(&self) -> Revision {
        self.0.lock().revision
    }

    pub(super) fn compacted(&self) -> Revision {
        self.0.lock().compacted
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Record> {
        self.0.lock().state.get(key).map(|stored| stored.record.clone())
    }

    pub(super) fn range(&self, start: &[u8], end: &[u8], at: Option<Revision>, limit: usize) -> Result<Page, Error> {
        let content = self.0.lock();
        let revision = at.unwrap_or(content.revision);
        if revision > content.revision {
            return Err(Error::Future(content.revision));
        }
        if revision < content.compacted {
            return Err(Error::Compacted(content.compacted));
        }
        let mut page = Page { records: Vec::new(), revision, more: false };
        if !end.is_empty() && start >= end {
            return Ok(page);
        }
        let until = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        let within = content.state.range::<[u8], _>((Bound::Included(start), until));
        let mut records: BTreeMap<Bytes, Record> = within.map(|(key, stored)| (key.clone(), stored.record.clone())).collect();
        for event in content.history.iter().rev().take_while(|event| event.revision > revision) {
            if &event.key[..] >= start && (end.is_empty() || &event.key[..] < end) {
                match &event.previous {
                    Some(record) => records.insert(event.key.clone(), record.clone()),
                    None => records.remove(&event.key),
                };
            }
        }
        let mut bytes = 0;
        for record in records.into_values() {
            page.more = limit != 0 && (page.records.len() == limit || bytes >= PAGE_BYTES);
            if page.more {
                break;
            }
            bytes += record.value.len();
            page.records.push(record);
        }
        Ok(page)
    }

    pub(super) fn changes(&self, prefix: &[u8], after: Revision, upto: Revision) -> Result<Changes, Error> {
        let content = self.0.lock();
        if after < content.compacted {
            return Err(Error::Compacted(content.compacted));
        }
        if upto > content.revision {
            return Err(Error::Future(content.revision));
        }
        let first = content.history.partition_point(|event| event.revision <= after);
        let within = content.history[first..].iter().take_while(|event| event.revision <= upto);
        let events: Vec<_> = within.filter(|event| event.key.starts_with(prefix)).take(READ).cloned().collect();
        let upto = if events.len() == READ { events.last().map_or(upto, |event| event.revision) } else { upto };
        Ok(Changes { events, upto })
    }

    pub(super) fn compact(&self, revision: Revision) -> Result<(), Error> {
        let mut content = self.0.lock();
        if revision > content.revision {
            return Err(Error::Future(content.revision));
        }
        content.compacted = content.compacted.max(revision);
        let gone = content.history.partition_point(|event| event.revision <= revision);
        content.history.drain(..gone);
        Ok(())
    }

    /// Keys that have outlived their time, and when the next one will have.
    pub(super) fn expired(&self, now: u64, limit: usize) -> (Vec<(Bytes, Revision)>, Option<u64>) {
        let content = self.0.lock();
        let mortal = || content.state.values().filter(|stored| stored.expires != 0);
        let due = mortal().filter(|stored| stored.expires <= now).take(limit);
        let due = due.map(|stored| (stored.record.key.clone(), stored.record.revision)).collect();
        (due, mortal().map(|stored| stored.expires).filter(|expires| *expires > now).min())
    }

    /// All events of the durable lane that are kept, in order.
    pub fn history(&self) -> Vec<Event> {
        self.0.lock().history.clone()
    }
}
