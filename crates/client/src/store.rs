//! The objects of one informer, indexed by key and by owner, and who listens to their changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};

use kube::Resource;

use crate::changes::Queue;
use crate::{Changes, Key, resource_version};

/// Objects by namespace and name. Cluster-scoped objects have the namespace "".
pub(crate) struct Store<K> {
    objects: BTreeMap<Box<str>, BTreeMap<Box<str>, Arc<K>>>,
    /// Keys by the uid of their controller, and under "" those without one.
    by_owner: HashMap<Box<str>, HashSet<Key>>,
    subscribers: Vec<Weak<Queue<K>>>,
    observed: u64,
    count: usize,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), by_owner: HashMap::new(), subscribers: Vec::new(), observed: 0, count: 0 }
    }
}

fn owner_uid<K: Resource>(object: &K) -> &str {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map_or("", |owner| owner.uid.as_str())
}

impl<K: Resource> Store<K> {
    pub(crate) fn get(&self, namespace: Option<&str>, name: &str) -> Option<&Arc<K>> {
        self.objects.get(namespace.unwrap_or_default())?.get(name)
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values().flat_map(BTreeMap::values)
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.objects.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    pub(crate) fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Arc<K>> {
        let keys = self.by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|key| self.get(key.namespace.as_deref(), &key.name))
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn observed(&self) -> u64 {
        self.observed
    }

    /// Puts in `object`. Nothing happens when this version is already there.
    pub(crate) fn apply(&mut self, object: K) {
        let key = Key::of(&object);
        self.observed = self.observed.max(resource_version::of(&object));
        let old = self.get(key.namespace.as_deref(), &key.name).cloned();
        if old.as_ref().is_some_and(|old| same_version(old.as_ref(), &object)) {
            return;
        }
        self.reindex(&key, old.as_deref(), Some(&object));
        let new = Arc::new(object);
        if !self.objects.contains_key(key.ns()) {
            self.objects.insert(key.ns().into(), BTreeMap::new());
        }
        if let Some(names) = self.objects.get_mut(key.ns()) {
            names.insert(key.name.as_str().into(), new.clone());
        }
        self.count += usize::from(old.is_none());
        self.tell(&key, old.as_ref(), Some(&new));
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
        self.reindex(key, Some(old.as_ref()), None);
        self.tell(key, Some(&old), None);
    }

    /// Takes out everything that is not in `keep`: the end of a relist.
    pub(crate) fn retain(&mut self, keep: &HashSet<Key>) {
        let gone: Vec<Key> = self.list().map(|object| Key::of(object.as_ref())).filter(|key| !keep.contains(key)).collect();
        for key in gone {
            self.remove(&key, 0);
        }
    }

    pub(crate) fn subscribe(&mut self) -> Changes<K> {
        let queue = Arc::new(Queue::default());
        for object in self.list() {
            queue.push(&Key::of(object.as_ref()), None, Some(object));
        }
        self.subscribers.push(Arc::downgrade(&queue));
        Changes { queue }
    }

    fn tell(&mut self, key: &Key, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(queue) => {
                queue.push(key, old, new);
                true
            }
            None => false,
        });
    }

    fn reindex(&mut self, key: &Key, old: Option<&K>, new: Option<&K>) {
        let (before, after) = (old.map(owner_uid), new.map(owner_uid));
        if before == after {
            return;
        }
        if let Some(uid) = before
            && let Some(keys) = self.by_owner.get_mut(uid)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_owner.remove(uid);
            }
        }
        if let Some(uid) = after {
            self.by_owner.entry(uid.into()).or_default().insert(key.clone());
        }
    }
}

fn same_version<K: Resource>(a: &K, b: &K) -> bool {
    let (a, b) = (a.meta(), b.meta());
    a.resource_version.is_some() && a.resource_version == b.resource_version && a.uid == b.uid
}
