//! Waking the watchers.
//!
//! A task of its own does it, and not the store's thread that writes: each task that is woken from a thread which is none of the
//! runtime's goes through a queue that all share, and whoever writes would wait for all of them. Under a load this task gets its turn after those that it woke
//! before, so that they find all that came meanwhile in one step, however many they are.

use std::convert::Infallible;
use std::sync::Arc;

use base::tasks::{OnFailure, Tasks};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::storage::Storage;

/// The kinds whose watchers are to be woken.
#[derive(Default)]
pub(super) struct Announcements {
    due: Mutex<Vec<Arc<Storage>>>,
    added: Notify,
}

/// Starts the task.
pub(super) fn start(tasks: &Tasks) -> Arc<Announcements> {
    let announcements = Arc::new(Announcements::default());
    tasks.spawn_until_cancelled("announcements", OnFailure::Shutdown, wake(announcements.clone()));
    announcements
}

async fn wake(announcements: Arc<Announcements>) -> Result<(), Infallible> {
    loop {
        announcements.added.notified().await;
        let due = std::mem::take(&mut *announcements.due.lock());
        due.iter().for_each(|storage| storage.cache.announce());
    }
}

impl Announcements {
    /// These have changes that their watchers have not seen.
    pub(super) fn add(&self, changed: &[&Arc<Storage>]) {
        let mut due = self.due.lock();
        for storage in changed {
            if !due.iter().any(|known| Arc::ptr_eq(known, storage)) {
                due.push(Arc::clone(storage));
            }
        }
        drop(due);
        self.added.notify_one();
    }
}
