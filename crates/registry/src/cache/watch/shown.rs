//! Watches that select by what is shown: a selector names fields of a custom resource, of which each version has its own. An object is shown as it
//! was before a change and as it is after it, and both say what the watcher sees of the change.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Status;

use super::{BATCH, Selects, Watch};
use crate::cache::{Change, Event, EventType};
use crate::{Entry, Served};

/// Says what is selected by what is shown.
pub(super) struct ByConverted {
    res: Arc<Served>,
    selects: Selects,
}

impl ByConverted {
    /// What the watcher sees of changes.
    async fn events(&self, changes: &[Arc<Change>]) -> Result<Vec<Event>, Status> {
        // What one change has made of an object is what the next one finds.
        let (mut places, mut entries) = (HashMap::new(), Vec::new());
        let mut place = |entry: &Arc<Entry>| {
            *places.entry((entry.revision, entry.index.key().clone())).or_insert_with(|| {
                entries.push(entry.clone());
                entries.len() - 1
            })
        };
        let both: Vec<[Option<usize>; 2]> =
            changes.iter().map(|change| [change.previous.as_ref(), change.present()].map(|side| side.map(&mut place))).collect();
        self.res.show_changes(&mut entries).await?;
        let seen = changes.iter().zip(both).filter_map(|(change, both)| {
            let [before, now] = both.map(|at| entries.get(at?).filter(|shown| (self.selects)(shown)));
            change.told(before, now, |entry| self.res.restamp(entry, change.revision()))
        });
        Ok(seen.collect())
    }
}

impl Watch {
    /// Selects by what is shown as `res`; what else it selects is of stored objects, and comes first.
    pub(crate) fn selecting_converted(mut self, res: &Arc<Served>, selects: Selects) -> Self {
        self.by_converted = Some(Arc::new(ByConverted { res: res.clone(), selects }));
        self
    }

    /// The next event of such a watch that is at hand or follows from a change that is; none when there is none.
    pub(super) async fn next_by_converted(&mut self, by_converted: &ByConverted) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(match event.kind {
                    EventType::Bookmark => Self::show(self.shown.as_ref(), event),
                    _ => event,
                });
            }
            if self.changes.is_empty() {
                return None;
            }
            self.look(by_converted).await;
        }
    }

    /// Makes events of the changes that wait, several at once. They wait until that is done: nothing is lost when nobody waits for it any more.
    async fn look(&mut self, by_converted: &ByConverted) {
        // One that cannot be converted does not keep those before it back.
        for most in [BATCH, 1] {
            let some: Vec<Arc<Change>> = self.changes.iter().take(most).cloned().collect();
            match by_converted.events(&some).await {
                Ok(events) => {
                    self.changes.drain(..some.len());
                    self.ready.extend(events);
                    return;
                }
                Err(status) if some.len() <= 1 => {
                    self.changes.clear();
                    return self.fail(status);
                }
                Err(_) => {}
            }
        }
    }
}
