//! Subscriptions to an informer.
//!
//! A subscription holds at most one pending change per object: a slow reader sees fewer, larger steps and never
//! makes the cache wait or grow beyond the number of objects.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::slot::{ByKey, Slot};
use crate::{Entry, Key, Object};

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

/// One step of one object, from what the subscriber saw last to what is there now, neither of which is decoded: most readers of a kind of
/// which there are many need few of its objects, and see at their metadata which.
pub struct Step<K> {
    /// What the subscriber was told last. None when the object is new to it.
    pub old: Option<Entry<K>>,
    /// What is there now. None when the object is gone.
    pub new: Option<Entry<K>>,
    key: Key,
}

impl<K: Object> Step<K> {
    /// The object's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What there was and what there is.
    pub fn entries(&self) -> impl Iterator<Item = &Entry<K>> {
        self.old.iter().chain(&self.new)
    }

    /// The object as it is, or as it was last seen when it is gone.
    pub fn entry(&self) -> Option<&Entry<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// The same, decoded.
    pub fn change(&self) -> Change<K> {
        let get = |entry: &Option<Entry<K>>| entry.as_ref().and_then(Entry::get);
        Change { key: self.key.clone(), old: get(&self.old), new: get(&self.new) }
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

struct State<K> {
    /// What comes before all else.
    first: First<K>,
    order: VecDeque<ByKey<K>>,
    pending: HashMap<ByKey<K>, Pending<K>>,
}

/// New objects that came at once, sorted by key, as all objects do at a start. Every reader has the same list and a place in it.
struct First<K> {
    objects: Arc<[Arc<Slot<K>>]>,
    /// How many were taken.
    taken: usize,
    /// Objects of the rest that have changed since: they are pending, or gone.
    changed: HashSet<Key>,
}

impl<K> Default for First<K> {
    fn default() -> Self {
        Self { objects: Arc::default(), taken: 0, changed: HashSet::new() }
    }
}

impl<K> First<K> {
    fn take(&mut self) -> Option<Arc<Slot<K>>> {
        while let Some(slot) = self.objects.get(self.taken).cloned() {
            self.taken += 1;
            if !self.changed.remove(&slot.key) {
                return Some(slot);
            }
        }
        if self.taken > 0 {
            *self = Self::default();
        }
        None
    }

    /// Leaves an object to what is pending; whether it is one that the reader has not seen.
    fn leave(&mut self, key: &Key) -> bool {
        let rest = self.objects.get(self.taken..).unwrap_or_default();
        rest.binary_search_by(|slot| slot.key.cmp(key)).is_ok() && self.changed.insert(key.clone())
    }
}

pub(crate) struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let state = State { first: First::default(), order: VecDeque::new(), pending: HashMap::new() };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<K> Queue<K> {
    /// Adds objects that are new to the reader, sorted by key.
    pub(crate) fn push_all(&self, objects: &Arc<[Arc<Slot<K>>]>) {
        let state = &mut *self.state.lock();
        if state.first.objects.is_empty() && state.pending.is_empty() {
            state.first = First { objects: objects.clone(), ..First::default() };
        } else {
            objects.iter().for_each(|slot| state.push(&slot.key, None, Some(slot)));
        }
        self.wake.notify_one();
    }

    pub(crate) fn push(&self, key: &Key, old: Option<&Arc<Slot<K>>>, new: Option<&Arc<Slot<K>>>) {
        self.state.lock().push(key, old, new);
        self.wake.notify_one();
    }

    fn take(&self) -> Option<(Key, Pending<K>)> {
        let state = &mut *self.state.lock();
        if let Some(slot) = state.first.take() {
            return Some((slot.key.clone(), Pending { old: None, new: Some(slot) }));
        }
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

impl<K> State<K> {
    fn push(&mut self, key: &Key, old: Option<&Arc<Slot<K>>>, new: Option<&Arc<Slot<K>>>) {
        let old = old.filter(|_| !self.first.leave(key));
        match self.pending.get_mut(key) {
            Some(pending) if pending.old.is_none() && new.is_none() => {
                // Came and went unseen. Its place in the order is skipped by `pop`.
                self.pending.remove(key);
                if self.order.len() > 2 * self.pending.len() + 64 {
                    self.order.retain(|key| self.pending.contains_key(key));
                }
            }
            Some(pending) => pending.new = new.cloned(),
            None => {
                // What came and went unseen is no change.
                let Some(by) = new.or(old).cloned().map(ByKey) else { return };
                self.pending.insert(by.clone(), Pending { old: old.cloned(), new: new.cloned() });
                self.order.push_back(by);
            }
        }
    }
}

impl<K: Object> Changes<K> {
    /// The next change. Waits for one; safe to drop and call again.
    pub async fn next(&mut self) -> Change<K> {
        self.next_step().await.change()
    }

    /// The next change, of which nothing is decoded. Waits for one; safe to drop and call again.
    ///
    /// A reader of many changes makes room for others now and then. At a start all readers of an informer have all of its objects
    /// before them: side by side they find those decoded that one of them has looked at, and they leave the threads to the API.
    pub async fn next_step(&mut self) -> Step<K> {
        tokio::task::coop::consume_budget().await;
        loop {
            if let Some(step) = self.try_next_step() {
                return step;
            }
            self.queue.wake.notified().await;
        }
    }

    /// The next change when there is one now.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.try_next_step().map(|step| step.change())
    }

    /// The next change when there is one now, of which nothing is decoded.
    pub fn try_next_step(&mut self) -> Option<Step<K>> {
        let (key, Pending { old, new }) = self.queue.take()?;
        Some(Step { old: old.map(Entry::new), new: new.map(Entry::new), key })
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

    /// Some are there at the start; then `steps` happen after so many were taken.
    fn check_first(taken: usize, steps: &[(&str, Option<u64>, Option<u64>)], expected: &[(&str, Option<u64>, Option<u64>)]) {
        let (queue, hot) = (Arc::new(Queue::<ConfigMap>::default()), Arc::<Hot<ConfigMap>>::default());
        let slot = |name: &str, version: u64| {
            let json = format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}"#);
            Arc::new(Slot::new(json.into(), &hot).unwrap())
        };
        queue.push_all(&["a", "b", "c", "d"].map(|name| slot(name, 1)).into());
        let mut changes = Changes { queue };
        for _ in 0..taken {
            changes.try_next().unwrap();
        }
        for (name, old, new) in steps {
            let slot = |version: &Option<u64>| version.map(|version| slot(name, version));
            changes.queue.push(&Key::cluster(*name), slot(old).as_ref(), slot(new).as_ref());
        }
        let version = |object: &Option<Arc<ConfigMap>>| object.as_deref().map(crate::resource_version::of);
        let seen: Vec<_> = std::iter::from_fn(|| changes.try_next())
            .map(|change| (change.key.name.clone(), version(&change.old), version(&change.new)))
            .collect();
        let expected: Vec<_> = expected.iter().map(|(name, old, new)| (name.to_string(), *old, *new)).collect();
        assert_eq!(seen, expected);
        let state = changes.queue.state.lock();
        assert!(state.first.objects.is_empty() && state.first.changed.is_empty() && state.pending.is_empty());
    }

    #[test]
    fn what_changes_before_it_was_seen_is_new() {
        let (a, b, c, d) = (("a", None, Some(1)), ("b", None, Some(1)), ("c", None, Some(1)), ("d", None, Some(1)));
        check_first(0, &[], &[a, b, c, d]);
        check_first(3, &[], &[d]);
        check_first(
            1,
            &[("b", Some(1), Some(2)), ("a", Some(1), Some(3))],
            &[c, d, ("b", None, Some(2)), ("a", Some(1), Some(3))],
        );
        check_first(1, &[("c", Some(1), None)], &[b, d]);
        check_first(1, &[("c", Some(1), None), ("c", None, Some(5))], &[b, d, ("c", None, Some(5))]);
        check_first(1, &[("c", Some(1), Some(4)), ("c", Some(4), None)], &[b, d]);
        check_first(1, &[("e", None, Some(4)), ("e", Some(4), Some(5))], &[b, c, d, ("e", None, Some(5))]);
        check_first(4, &[("a", Some(1), None)], &[("a", Some(1), None)]);
    }

    #[test]
    fn steps_are_not_decoded() {
        let (queue, hot) = (Arc::new(Queue::<ConfigMap>::default()), Arc::<Hot<ConfigMap>>::default());
        // An object that could not be decoded is told like others.
        let slot = |label: &str| {
            let json = format!(r#"{{"metadata":{{"name":"a","labels":{{"l":"{label}"}}}},"data":1}}"#);
            Arc::new(Slot::new(json.into(), &hot).unwrap())
        };
        let mut changes = Changes { queue };
        for (old, new) in [(None, Some("x")), (Some("x"), Some("y")), (Some("y"), None)] {
            changes.queue.push(&Key::cluster("a"), old.map(slot).as_ref(), new.map(slot).as_ref());
            let step = changes.try_next_step().unwrap();
            let label =
                |entry: &Option<Entry<ConfigMap>>| entry.as_ref().and_then(|entry| entry.labels().get("l")).map(str::to_owned);
            assert_eq!((label(&step.old).as_deref(), label(&step.new).as_deref()), (old, new));
            assert_eq!((step.key().name.as_str(), step.entries().count()), ("a", [old, new].iter().flatten().count()));
            let change = step.change();
            assert!(change.old.is_none() && change.new.is_none());
        }
        assert!(changes.try_next_step().is_none());
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
