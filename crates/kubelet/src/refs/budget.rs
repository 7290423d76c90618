//! How many watches of referenced objects a node has, and who may take which.
//!
//! A server lets a user have 2,000 watches, and a node is one user: without a budget the pods that come first take all, and others, also those of
//! the system, cannot read what they start with.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Of all pods of a node. The rest is for its informers, and for watches that the server has not yet seen the end of.
const OF_NODE: usize = 1_900;
/// Up to how many of them pods with many references take: the others are for pods with [`FEW`].
const OF_MANY: usize = 1_500;
/// As many references as most pods have.
const FEW: usize = 16;

/// The watches that are taken, and who waits for some.
#[derive(Debug, Default)]
pub(super) struct Budget {
    taken: Mutex<usize>,
    waiting: Mutex<Vec<Weak<Notify>>>,
    /// Held by who asks whether there is room until it is taken.
    pub(super) turn: Mutex<()>,
}

impl Budget {
    /// Whether a pod with `count` references may take `more` watches; otherwise why not, and `changed` is notified when there are fewer.
    pub(super) fn has(&self, count: usize, more: usize, changed: &Arc<Notify>) -> Result<(), String> {
        let most = if count > FEW { OF_MANY } else { OF_NODE };
        // Who gives back a watch meanwhile sees who waits.
        let mut waiting = self.waiting.lock();
        let taken = *self.taken.lock();
        if more == 0 || taken + more <= most {
            return Ok(());
        }
        let own = Arc::downgrade(changed);
        waiting.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&own));
        waiting.push(own);
        Err(format!(
            "the pod needs {more} watches, the node has {taken}, and takes at most {most} for pods with {count} references: it waits for others to end"
        ))
    }

    /// Takes one.
    pub(super) fn take(self: &Arc<Self>) -> Place {
        *self.taken.lock() += 1;
        Place(self.clone())
    }
}

/// One watch, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Budget>);

impl Drop for Place {
    fn drop(&mut self) {
        let waiting = {
            let mut waiting = self.0.waiting.lock();
            *self.0.taken.lock() -= 1;
            std::mem::take(&mut *waiting)
        };
        waiting.iter().filter_map(Weak::upgrade).for_each(|changed| changed.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pods_with_few_references_find_room_beside_others() {
        let budget = Arc::new(Budget::default());
        let changed = Arc::new(Notify::new());
        let mut places: Vec<Place> = (0..OF_MANY - 100).map(|_| budget.take()).collect();
        assert_eq!(budget.has(250, 100, &changed), Ok(()));
        let told = budget.has(250, 101, &changed).unwrap_err();
        assert!(told.contains("101 watches, the node has 1400, and takes at most 1500"), "{told}");
        assert_eq!(budget.has(FEW, FEW, &changed), Ok(()));
        places.extend((places.len()..OF_NODE).map(|_| budget.take()));
        // Who asks again waits once.
        assert!(budget.has(1, 1, &changed).is_err() && budget.has(1, 1, &changed).is_err());
        assert_eq!(budget.waiting.lock().len(), 1);
        // What others watch already costs nothing.
        assert_eq!(budget.has(250, 0, &changed), Ok(()));
        places.pop();
        changed.notified().await;
        assert_eq!(budget.has(1, 1, &changed), Ok(()));
        drop(places);
        assert_eq!(*budget.taken.lock(), 0);
        assert!(budget.waiting.lock().is_empty());
    }
}
