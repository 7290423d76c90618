//! The watch cache of one kind: its present objects, and its recent changes for watchers.
//!
//! The store's writer feeds it in commit order, before the commit is acknowledged, so reading it is reading your own writes. Watchers
//! share one ring of changes and each keep a position in it: there is no queue per watcher, and who falls out of the
//! ring goes on from the store's history, if that has what is missing. The rings of all kinds share one budget ([`rings`]).

mod cursor;
mod event;
mod items;
mod list;
pub(crate) mod rings;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apimachinery::meta;
use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use parking_lot::RwLock;

pub use cursor::{Cursor, Since};
pub use event::{Event, EventType};
pub use watch::Watch;
pub(crate) use watch::{Selects, Within};

use crate::entry::{Entry, Index};
use crate::form::Form;
pub(crate) use event::Change;
use items::Items;
pub(crate) use list::{Page, Window};

pub(crate) struct Cache {
    /// The stored version.
    form: ArcSwap<Form>,
    state: RwLock<State>,
    /// Revision of the newest change, for who asks whether there is one, often, and nothing else. It is written under the lock of the state,
    /// when the change is in it: who has seen it finds the change there.
    newest: AtomicU64,
    /// Watchers wait on it.
    changed: tokio::sync::watch::Sender<()>,
}

#[derive(Default)]
struct State {
    items: Items,
    ring: VecDeque<Arc<Change>>,
    /// Position of the first change in the ring.
    start: u64,
    bytes: usize,
    /// Revision of the newest change.
    revision: u64,
    /// Every change after this revision is in the ring.
    complete_after: u64,
    /// Commits from while the objects are loaded, none when they are. The store itself writes by then: it deletes what expired.
    early: Option<Vec<store::Event>>,
    /// How often all watchers were told to begin again.
    cuts: u64,
}

/// Objects that are renewed before others get their turn.
const RENEWED: usize = 64;

impl Cache {
    pub(crate) fn new(form: Form) -> Self {
        let state = State { early: Some(Vec::new()), ..State::default() };
        let form = ArcSwap::from_pointee(form);
        Self { form, state: RwLock::new(state), newest: AtomicU64::new(0), changed: tokio::sync::watch::Sender::new(()) }
    }

    /// The stored version.
    pub(crate) fn form(&self) -> Guard<Arc<Form>> {
        self.form.load()
    }

    /// Changes the stored version. Objects are brought up to date by [`Cache::renew`]; until then that is done where they are read.
    pub(crate) fn set_form(&self, form: Form) {
        self.form.store(Arc::new(form));
    }

    /// Ends all watches: what they show is no longer what they would show now.
    pub(crate) fn cut(&self) {
        self.state.write().cuts += 1;
        self.announce();
    }

    /// Brings all objects into the present form, a few at a time, until it is the present one no more.
    pub(crate) fn renew(&self) {
        let form = self.form.load_full();
        loop {
            let old: Vec<Arc<Entry>> = {
                let state = self.state.read();
                state.items.values().filter(|entry| entry.index.epoch != form.epoch).cloned().collect()
            };
            if old.is_empty() {
                return;
            }
            for some in old.chunks(RENEWED) {
                let new: Vec<Arc<Entry>> = some.iter().map(|entry| Arc::new(form.renew(entry))).collect();
                let mut state = self.state.write();
                if !Arc::ptr_eq(&form, &self.form.load()) {
                    return;
                }
                for (old, new) in some.iter().zip(new) {
                    // Unless it was written meanwhile.
                    if state.items.get(old.index.path()).is_some_and(|entry| Arc::ptr_eq(entry, old)) {
                        state.items.insert(old.index.path(), new);
                    }
                }
            }
        }
    }

    /// An entry from stored bytes; decodes them when the index is not at hand.
    pub(crate) fn entry(&self, stored: &[u8], revision: u64, index: Option<Arc<Index>>) -> Entry {
        self.form.load().entry(stored, revision, index)
    }

    /// Takes in an object as it was when the resource was opened.
    pub(crate) fn load(&self, path: &str, stored: &Bytes, revision: u64) {
        let entry = Arc::new(self.entry(stored, revision, None));
        self.state.write().items.insert(path, entry);
    }

    /// Says that everything up to `revision` is loaded. Commits that came meanwhile are taken in where what was loaded is older; their
    /// keys have a prefix of `prefix` bytes.
    pub(crate) fn loaded(&self, prefix: usize, revision: u64) {
        let mut state = self.state.write();
        state.complete_after = state.complete_after.max(revision);
        for event in state.early.take().unwrap_or_default() {
            state.complete_after = state.complete_after.max(event.revision);
            let path = String::from_utf8_lossy(&event.key[prefix..]);
            if state.items.get(&path).is_some_and(|entry| entry.revision >= event.revision) {
                continue;
            }
            match &event.value {
                Some(value) => drop(state.items.insert(&path, Arc::new(self.entry(value, event.revision, None)))),
                None => drop(state.items.remove(&path)),
            }
        }
    }

    /// Takes in one committed change, unannounced. The bytes that its ring keeps alive more than before.
    pub(crate) fn apply(&self, path: &str, event: &store::Event) -> usize {
        let index = event.note.clone().and_then(|note| note.downcast::<Index>().ok());
        let new = event.value.as_ref().map(|value| Arc::new(self.entry(value, event.revision, index)));
        let mut state = self.state.write();
        if let Some(early) = &mut state.early {
            early.push(event.clone());
            return 0;
        }
        let previous = match &new {
            Some(entry) => state.items.insert(path, entry.clone()),
            None => state.items.remove(path),
        };
        let entry = match (new, &previous) {
            (Some(entry), _) => Change::put(entry, previous),
            (None, Some(last)) => Change::delete(Arc::new(self.restamp(last, event.revision)), previous),
            (None, None) => return 0,
        };
        let grown = state.push(Arc::new(entry));
        self.newest.store(state.revision, Ordering::Release);
        grown
    }

    /// How many there are.
    pub(crate) fn watchers(&self) -> usize {
        self.changed.receiver_count()
    }

    /// Says when something has changed.
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wakes the watchers: there are changes that they have not seen.
    pub(crate) fn announce(&self) {
        self.changed.send_replace(());
    }

    pub(crate) fn get(&self, path: &str) -> Option<Arc<Entry>> {
        self.state.read().items.get(path).cloned()
    }

    /// The same object under another revision.
    pub(crate) fn restamp(&self, entry: &Entry, revision: u64) -> Entry {
        self.form.load().encoding.restamp(entry, revision)
    }

    /// The encoded form of an object that is not stored (dry run).
    pub(crate) fn unstored(&self, object: &serde_json::Value) -> Entry {
        let json = serde_json::to_vec(object).unwrap_or_default().into();
        let revision = meta::resource_version(object).parse().unwrap_or(0);
        Entry { index: Arc::new(self.form.load().index(object)), revision, json }
    }
}
