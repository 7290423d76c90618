//! The objects of one informer, indexed by key, by owner and by whatever its readers ask for, and who listens to their changes.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::changes::Queue;
use crate::index::{Lean, Table, Values};
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
    /// What changed since a list began: some of it is in, and nobody is told before all of it is.
    listing: Option<Vec<Told<K>>>,
}

/// A change, before and after.
type Told<K> = (Key, Option<Arc<Slot<K>>>, Option<Arc<Slot<K>>>);

impl<K> Default for Store<K> {
    fn default() -> Self {
        let indexes = vec![Table::new(OWNER, |slot: &Slot<K>, values| values.add(owner(slot)))];
        Self {
            objects: BTreeMap::new(),
            hot: Arc::default(),
            indexes,
            subscribers: Vec::new(),
            observed: 0,
            count: 0,
            listing: None,
        }
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
        self.indexes.get(index).into_iter().flat_map(|table| table.get(value)).cloned().collect()
    }

    pub(crate) fn count_owned_by(&self, uid: &str) -> usize {
        self.count_indexed(0, uid)
    }

    pub(crate) fn count_indexed(&self, place: usize, value: &str) -> usize {
        self.indexes.get(place).map_or(0, |table| table.count(value))
    }

    /// The place of the index of that name, which is built now if it is new.
    pub(crate) fn index(&mut self, name: &'static str, values: fn(&K, &mut Values), lean: Option<Lean>) -> usize {
        if let Some(place) = self.indexes.iter().position(|table| table.name == name) {
            return place;
        }
        let mut table = Table::new(name, move |slot: &Slot<K>, found| {
            if let Some(object) = slot.get() {
                values(&object, found);
            }
        })
        .with_lean(lean);
        for slot in self.list() {
            table.change(None, Some(slot), true);
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
        if self.listing.is_none() {
            self.observed = self.observed.max(new.version);
        }
        let old = self.get(key.namespace.as_deref(), &key.name).cloned();
        if old.as_ref().is_some_and(|old| old.is_same(&new)) {
            return Ok(key);
        }
        self.reindex(old.as_ref(), Some(&new));
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
        self.reindex(Some(&old), None);
        self.tell(key, Some(&old), None);
    }

    /// A list of all objects begins. Until it is complete the store holds some objects as they were and others as they are now, so
    /// whoever asks how far it is gets the answer of before.
    pub(crate) fn begin(&mut self) {
        self.listing.get_or_insert_default();
    }

    /// The list is complete, with the objects in `keep` as they were at `version`: takes out everything else, and tells what changed.
    pub(crate) fn complete(&mut self, keep: &HashSet<Key>, version: u64) {
        let gone: Vec<Key> = self.list().map(|slot| slot.key.clone()).filter(|key| !keep.contains(key)).collect();
        for key in gone {
            self.remove(&key, 0);
        }
        self.observed = self.observed.max(version);
        let told = self.listing.take().unwrap_or_default();
        // The first list is all that there is.
        if told.len() == self.count && told.iter().all(|(_, old, _)| old.is_none()) {
            let all = self.list().cloned().collect();
            self.each_subscriber(|queue| queue.push_all(&all));
            return;
        }
        for (key, old, new) in told {
            self.tell(&key, old.as_ref(), new.as_ref());
        }
    }

    pub(crate) fn subscribe(&mut self) -> Changes<K> {
        let queue = Arc::new(Queue::default());
        queue.push_all(&self.list().cloned().collect());
        self.subscribers.push(Arc::downgrade(&queue));
        Changes { queue }
    }

    fn tell(&mut self, key: &Key, old: Option<&Arc<Slot<K>>>, new: Option<&Arc<Slot<K>>>) {
        if let Some(listing) = &mut self.listing {
            listing.push((key.clone(), old.cloned(), new.cloned()));
            return;
        }
        self.each_subscriber(|queue| queue.push(key, old, new));
    }

    fn each_subscriber(&mut self, tell: impl Fn(&Queue<K>)) {
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(queue) => {
                tell(&queue);
                true
            }
            None => false,
        });
    }

    fn reindex(&mut self, old: Option<&Arc<Slot<K>>>, new: Option<&Arc<Slot<K>>>) {
        let many = self.listing.is_some();
        for table in &mut self.indexes {
            table.change(old, new, many);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, version: u64) -> Bytes {
        format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}"#).into()
    }

    /// Who waits for its own write to be seen compares versions: in the middle of a list a high version says nothing of the objects
    /// that have not come yet.
    #[test]
    fn a_list_counts_when_it_is_complete() {
        let mut store = Store::<ConfigMap>::default();
        store.begin();
        let keep = HashSet::from([store.apply(object("a", 3)).unwrap()]);
        assert_eq!(store.observed(), 0);
        store.complete(&keep, 5);
        assert_eq!(store.observed(), 5);
        store.apply(object("b", 7)).unwrap();
        let mut changes = store.subscribe();
        while changes.try_next().is_some() {}
        // The watch has lost its place, and meanwhile z came and b went.
        store.begin();
        let mut keep = HashSet::from([store.apply(object("a", 20)).unwrap()]);
        assert_eq!((store.observed(), changes.try_next().is_none()), (7, true));
        keep.insert(store.apply(object("z", 12)).unwrap());
        store.complete(&keep, 30);
        assert_eq!((store.observed(), store.len()), (30, 2));
        let told: Vec<_> =
            std::iter::from_fn(|| changes.try_next()).map(|change| (change.key.name, change.new.is_some())).collect();
        assert_eq!(told, [("a".to_owned(), true), ("z".to_owned(), true), ("b".to_owned(), false)]);
        store.apply(object("c", 31)).unwrap();
        assert_eq!((store.observed(), changes.try_next().unwrap().key.name), (31, "c".to_owned()));
    }
}
