//! Changes, and the events that watchers see of them.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use apimachinery::Status;
use bytes::Bytes;

use crate::Entry;

/// The type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// New, or newly selected.
    Added,
    /// Changed.
    Modified,
    /// Gone, or no longer selected.
    Deleted,
    /// Nothing happened up to this revision.
    Bookmark,
    /// The watch ends for this reason.
    Error,
}

impl EventType {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// One committed change, shared by all watchers.
pub(crate) struct Change {
    kind: EventType,
    /// The new object, or the last state of a deleted one under the revision of the deletion.
    pub(crate) entry: Arc<Entry>,
    pub(crate) previous: Option<Arc<Entry>>,
    /// When it was taken in.
    pub(crate) at: Instant,
    frame: Arc<OnceLock<Bytes>>,
}

impl Change {
    pub(crate) fn put(entry: Arc<Entry>, previous: Option<Arc<Entry>>) -> Self {
        let kind = if previous.is_some() { EventType::Modified } else { EventType::Added };
        Self { kind, entry, previous, at: Instant::now(), frame: Arc::default() }
    }

    pub(crate) fn delete(entry: Arc<Entry>, previous: Option<Arc<Entry>>) -> Self {
        Self { kind: EventType::Deleted, entry, previous, at: Instant::now(), frame: Arc::default() }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.entry.revision
    }

    /// The object, unless it is gone.
    pub(crate) fn present(&self) -> Option<&Arc<Entry>> {
        (self.kind != EventType::Deleted).then_some(&self.entry)
    }

    /// Bytes that it may keep alive: the object, its state before, and the frame that watchers are sent.
    pub(crate) fn weight(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |previous| previous.json.len());
        2 * self.entry.json.len() + previous + 256
    }

    /// What a watcher with this selection sees, if anything.
    pub(crate) fn seen(&self, selects: impl Fn(&Entry) -> bool, restamp: impl Fn(&Entry) -> Entry) -> Option<Event> {
        let selected = |entry: Option<_>| entry.filter(|entry: &&Arc<Entry>| selects(entry));
        self.told(selected(self.previous.as_ref()), selected(self.present()), restamp)
    }

    /// What a watcher sees for which the object was this before and is this now; none where it has not selected it.
    pub(crate) fn told(
        &self,
        before: Option<&Arc<Entry>>,
        now: Option<&Arc<Entry>>,
        restamp: impl Fn(&Entry) -> Entry,
    ) -> Option<Event> {
        let (kind, (seen, own)) = match (before, now) {
            (None, Some(now)) => (EventType::Added, (now, Some(&self.entry))),
            (Some(_), Some(now)) => (EventType::Modified, (now, Some(&self.entry))),
            (Some(before), None) => (EventType::Deleted, (before, self.previous.as_ref())),
            (None, None) => return None,
        };
        // Who sees it as it is shares its frame.
        if kind == self.kind && own.is_some_and(|own| Arc::ptr_eq(seen, own)) {
            return Some(Event { kind, entry: self.entry.clone(), status: None, frame: self.frame.clone() });
        }
        let entry = if kind == EventType::Deleted { Arc::new(restamp(seen)) } else { seen.clone() };
        Some(Event::new(kind, entry))
    }
}

/// A watch event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Type.
    pub kind: EventType,
    /// The object; for a bookmark one with a resource version only.
    pub entry: Arc<Entry>,
    /// For an error.
    pub status: Option<Status>,
    frame: Arc<OnceLock<Bytes>>,
}

impl Event {
    pub(crate) fn new(kind: EventType, entry: Arc<Entry>) -> Self {
        Self { kind, entry, status: None, frame: Arc::default() }
    }

    pub(crate) fn error(entry: Arc<Entry>, status: Status) -> Self {
        Self { kind: EventType::Error, entry, status: Some(status), frame: Arc::default() }
    }

    /// The event as a line of JSON, encoded once for all watchers that see it alike.
    pub fn frame(&self) -> Bytes {
        let encode = || {
            let object = match &self.status {
                Some(status) => Bytes::from(status.to_json()),
                None => self.entry.json.clone(),
            };
            let kind = self.kind.as_str();
            let mut out = Vec::with_capacity(object.len() + kind.len() + 24);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            out.extend_from_slice(&object);
            out.extend_from_slice(b"}\n");
            out.into()
        };
        self.frame.get_or_init(encode).clone()
    }
}
