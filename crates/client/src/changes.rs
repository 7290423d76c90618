//! Subscriptions to an informer.
//!
//! A subscription holds at most one pending change per object: a slow reader sees fewer, larger steps and never
//! makes the cache wait or grow beyond the number of objects.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::slot::Slot;
use crate::{Key, Object};

/// Changes of which an empty queue keeps the room.
const ROOM: usize = 1024;

/// One step of one object, from what the subscriber saw last to what is there now.
#[derive(Debug)]
pub struct Change<K> {
    /// The object's key.
    pub key: Key,
    /// What the subscriber was told last. None when the object is new to it.
    pub old: Option<Arc<K>>,
    /// What is there now. None when the object is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object as it is, or as it was last seen when it is gone.
    pub fn object(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

/// A subscription; starts with all objects that are present. Dropping it ends it.
pub struct Changes<K> {
    pub(crate) queue: Arc<Queue<K>>,
}

struct Pending<K> {
    old: Option<Arc<Slot<K>>>,
    new: Option<Arc<Slot<K>>>,
}

/// A slot that stands for its key. At a start every reader has all objects before it: names are not kept for each of them.
struct ByKey<K>(Arc<Slot<K>>);

impl<K> Clone for ByKey<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Borrow<Key> for ByKey<K> {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl<K> Hash for ByKey<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl<K> PartialEq for ByKey<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl<K> Eq for ByKey<K> {}

struct State<K> {
    order: VecDeque<ByKey<K>>,
    pending: HashMap<ByKey<K>, Pending<K>>,
}

pub(crate) struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { state: Mutex::new(State { order: VecDeque::new(), pending: HashMap::new() }), wake: Notify::new() }
    }
}

impl<K> Queue<K> {
    pub(crate) fn push(&self, key: &Key, old: Option<&Arc<Slot<K>>>, new: Option<&Arc<Slot<K>>>) {
        let state = &mut *self.state.lock();
        match state.pending.get_mut(key) {
            Some(pending) if pending.old.is_none() && new.is_none() => {
                // Came and went unseen. Its place in the order is skipped by `pop`.
                state.pending.remove(key);
                if state.order.len() > 2 * state.pending.len() + 64 {
                    state.order.retain(|key| state.pending.contains_key(key));
                }
            }
            Some(pending) => pending.new = new.cloned(),
            None => {
                let Some(by) = new.or(old).cloned().map(ByKey) else { return };
                state.pending.insert(by.clone(), Pending { old: old.cloned(), new: new.cloned() });
                state.order.push_back(by);
            }
        }
        self.wake.notify_one();
    }

    fn take(&self) -> Option<(Key, Pending<K>)> {
        let state = &mut *self.state.lock();
        while let Some(key) = state.order.pop_front() {
            if let Some(pending) = state.pending.remove(&key) {
                return Some((key.0.key.clone(), pending));
            }
        }
        // The room of many changes at once goes back.
        if state.order.capacity() > ROOM {
            state.order = VecDeque::new();
            state.pending = HashMap::new();
        }
        None
    }
}

impl<K: Object> Queue<K> {
    fn pop(&self) -> Option<Change<K>> {
        let (key, Pending { old, new }) = self.take()?;
        let get = |slot: Option<Arc<Slot<K>>>| slot.and_then(|slot| slot.get());
        Some(Change { key, old: get(old), new: get(new) })
    }
}

impl<K: Object> Changes<K> {
    /// The next change. Waits for one; safe to drop and call again.
    ///
    /// A reader of many changes makes room for others now and then. At a start all readers of an informer have all of its objects
    /// before them: side by side they find those decoded that one of them has looked at, and they leave the threads to the API.
    pub async fn next(&mut self) -> Change<K> {
        tokio::task::coop::consume_budget().await;
        loop {
            if let Some(change) = self.queue.pop() {
                return change;
            }
            self.queue.wake.notified().await;
        }
    }

    /// The next change when there is one now.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.queue.pop()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;
    use crate::slot::Hot;

    fn check(steps: &[(&str, Option<u64>, Option<u64>)], expected: &[(&str, Option<u64>, Option<u64>)]) {
        let (queue, hot) = (Arc::new(Queue::<ConfigMap>::default()), Arc::<Hot<ConfigMap>>::default());
        let slot = |name: &str, version: u64| {
            let json = format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}"#);
            Arc::new(Slot::new(json.into(), &hot).unwrap())
        };
        for (name, old, new) in steps {
            let slot = |version: &Option<u64>| version.map(|version| slot(name, version));
            queue.push(&Key::cluster(*name), slot(old).as_ref(), slot(new).as_ref());
        }
        let mut changes = Changes { queue };
        let mut seen = Vec::new();
        let version = |object: &Option<Arc<ConfigMap>>| object.as_deref().map(crate::resource_version::of);
        while let Some(change) = changes.try_next() {
            seen.push((change.key.name.clone(), version(&change.old), version(&change.new)));
        }
        let expected: Vec<_> = expected.iter().map(|(name, old, new)| (name.to_string(), *old, *new)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn coalesces_per_object() {
        check(
            &[("a", None, Some(1)), ("b", None, Some(9)), ("a", Some(1), Some(2))],
            &[("a", None, Some(2)), ("b", None, Some(9))],
        );
        check(&[("a", Some(1), Some(2)), ("a", Some(2), None)], &[("a", Some(1), None)]);
        check(&[("a", Some(1), None), ("a", None, Some(3))], &[("a", Some(1), Some(3))]);
        check(&[("a", None, Some(1)), ("a", Some(1), None)], &[]);
        check(&[("a", None, Some(1)), ("a", Some(1), None), ("a", None, Some(2))], &[("a", None, Some(2))]);
    }
}
