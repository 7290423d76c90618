//! Following a cache from its readers' side, without waiting: what has changed since the last look.

use std::sync::Arc;

use super::Cache;
use crate::Entry;

/// How far somebody has read the changes of a cache.
#[derive(Debug, Default)]
pub struct Cursor(Option<u64>);

/// What is new since the last look.
pub enum Since {
    /// Every object there is: it is the first look, or the ring has forgotten some of the changes.
    All(Vec<Arc<Entry>>),
    /// The paths that changed, in order, and what is there now; none is an object that is gone.
    Changes(Vec<(String, Option<Arc<Entry>>)>),
}

impl Cache {
    /// What has changed since `cursor`, which moves on.
    pub(crate) fn since(&self, cursor: &mut Cursor) -> Since {
        let state = self.state.read();
        let end = state.start + state.ring.len() as u64;
        let read = cursor.0.replace(end).and_then(|read| read.checked_sub(state.start));
        let Some(read) = read.and_then(|read| usize::try_from(read).ok()) else {
            return Since::All(state.items.values().cloned().collect());
        };
        let changes = state.ring.iter().skip(read);
        Since::Changes(changes.map(|change| (change.entry.index.path().to_owned(), change.present().cloned())).collect())
    }
}
