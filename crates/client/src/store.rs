//! The objects of one informer, indexed by key, by owner and by whatever its readers ask for, and who listens to their changes.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::changes::Queue;
use crate::index::{Table, Values};
use crate::slot::{Hot, Slot};
use crate::{Changes, Key, Object};

/// The index that every store has: by the uid of the controller, or by the namespace where there is none.
const OWNER: &str = "controller";

/// Objects by name.
type Names<K> = BTreeMap<Box<str>, Arc<Slot<K>>>;

/// Objects by namespace and name. Cluster-scoped objects have the namespace "".
pub(crate) struct Store<K> {
    objects: BTreeMap<Box<str>, Names<K>>,
    hot: Arc<Hot<K>>,
    /// The indexes by their place; the first is [`OWNER`].
    indexes: Vec<Table<K>>,
    subscribers: Vec<Weak<Queue<K>>>,
    observed: u64,
    count: usize,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        let indexes = vec![Table::new(OWNER, |slot: &Slot<K>, values| values.add(owner(slot)))];
        Self { objects: BTreeMap::new(), hot: Arc::default(), indexes, subscribers: Vec::new(), observed: 0, count: 0 }
    }
}

/// The uid of an object's controller; of an object without one its namespace behind a slash, which no uid begins with.
fn owner<K>(slot: &Slot<K>) -> String {
    slot.controller().map_or_else(|| orphans(slot.key.ns()), str::to_owned)
}

fn orphans(namespace: &str) -> String {
    format!("/{namespace}")
}

impl<K: Object> Store<K> {
    pub(crate) fn get(&self, namespace: Option<&str>, name: &str) -> Option<&Arc<Slot<K>>> {
        self.objects.get(namespace.unwrap_or_default())?.get(name)
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = &Arc<Slot<K>>> {
        self.objects.values().flat_map(BTreeMap::values)
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Slot<K>>> {
        self.objects.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    pub(crate) fn owned_by(&self, uid: &str) -> Vec<Arc<Slot<K>>> {
        self.indexed(0, uid)
    }

    pub(crate) fn orphans(&self, namespace: &str) -> Vec<Arc<Slot<K>>> {
        self.indexed(0, &orphans(namespace))
    }

    /// The objects that the index at this place has under `value`.
    pub(crate) fn indexed(&self, index: usize, value: &str) -> Vec<Arc<Slot<K>>> {
        let keys = self.indexes.get(index).into_iter().flat_map(|table| table.keys(value));
        keys.filter_map(|key| self.get(key.namespace.as_deref(), &key.name).cloned()).collect()
    }

    /// The place of the index of that name, which is built now if it is new.
    pub(crate) fn index(&mut self, name: &'static str, values: fn(&K, &mut Values)) -> usize {
        if let Some(place) = self.indexes.iter().position(|table| table.name == name) {
            return place;
        }
        let mut table = Table::new(name, move |slot: &Slot<K>, found| {
            if let Some(object) = slot.get() {
                values(&object, found);
            }
        });
        for slot in self.list() {
            table.change(&slot.key, None, Some(slot));
        }
        self.indexes.push(table);
        self.indexes.len() - 1
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn observed(&self) -> u64 {
        self.observed
    }

    /// Puts in an object. Nothing happens when this version is already there.
    ///
    /// # Errors
    /// When it has no readable metadata.
    pub(crate) fn apply(&mut self, object: Bytes) -> Result<Key, serde_json::Error> {
        let new = Arc::new(Slot::new(object, &self.hot)?);
        let key = new.key.clone();
        self.observed = self.observed.max(new.version);
        let old = self.get(key.namespace.as_deref(), &key.name).cloned();
        if old.as_ref().is_some_and(|old| old.is_same(&new)) {
            return Ok(key);
        }
        self.reindex(&key, old.as_deref(), Some(&new));
        if !self.objects.contains_key(key.ns()) {
            self.objects.insert(key.ns().into(), BTreeMap::new());
        }
        if let Some(names) = self.objects.get_mut(key.ns()) {
            names.insert(key.name.as_str().into(), new.clone());
        }
        self.count += usize::from(old.is_none());
        self.tell(&key, old.as_ref(), Some(&new));
        Ok(key)
    }

    /// Takes out the object of `key`. `version` is the resource version of the deletion, 0 when not known.
    pub(crate) fn remove(&mut self, key: &Key, version: u64) {
        self.observed = self.observed.max(version);
        let Some(names) = self.objects.get_mut(key.ns()) else { return };
        let Some(old) = names.remove(key.name.as_str()) else { return };
        if names.is_empty() {
            self.objects.remove(key.ns());
        }
        self.count -= 1;
        self.reindex(key, Some(&old), None);
        self.tell(key, Some(&old), None);
    }

    /// Takes out everything that is not in `keep`: the end of a relist.
    pub(crate) fn retain(&mut self, keep: &HashSet<Key>) {
        let gone: Vec<Key> = self.list().map(|slot| slot.key.clone()).filter(|key| !keep.contains(key)).collect();
        for key in gone {
            self.remove(&key, 0);
        }
    }

    pub(crate) fn subscribe(&mut self) -> Changes<K> {
        let queue = Arc::new(Queue::default());
        for slot in self.list() {
            queue.push(&slot.key, None, Some(slot));
        }
        self.subscribers.push(Arc::downgrade(&queue));
        Changes { queue }
    }

    fn tell(&mut self, key: &Key, old: Option<&Arc<Slot<K>>>, new: Option<&Arc<Slot<K>>>) {
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(queue) => {
                queue.push(key, old, new);
                true
            }
            None => false,
        });
    }

    fn reindex(&mut self, key: &Key, old: Option<&Slot<K>>, new: Option<&Slot<K>>) {
        for table in &mut self.indexes {
            table.change(key, old, new);
        }
    }
}
