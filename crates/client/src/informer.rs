//! One shared, typed cache of the objects of one kind.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use kube::{Client, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::store::Store;
use crate::watch::{Event, Watch};
use crate::{Changes, Index, Key, Values, resource_version};

/// What an informer can hold.
pub trait Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Object for K {}

/// A cache of all objects of kind `K` (or of those that a field selector picks), kept current by a watch. Cheap to clone.
pub struct Informer<K> {
    pub(crate) shared: Arc<Shared<K>>,
}

pub(crate) struct Shared<K> {
    store: RwLock<Store<K>>,
    synced: watch::Sender<bool>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K: Resource> Default for Informer<K> {
    fn default() -> Self {
        let shared = Shared { store: RwLock::new(Store::default()), synced: watch::Sender::new(false) };
        Self { shared: Arc::new(shared) }
    }
}

impl<K: Object> Informer<K> {
    /// Every object, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.store.read().list().cloned().collect()
    }

    /// One object. `namespace` is None for cluster-scoped kinds.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        self.shared.store.read().get(namespace, name).cloned()
    }

    /// One object by its key.
    pub fn by_key(&self, key: &Key) -> Option<Arc<K>> {
        self.get(key.namespace.as_deref(), &key.name)
    }

    /// The objects of one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared.store.read().in_namespace(namespace).cloned().collect()
    }

    /// The objects whose controlling owner has this uid, by key. From an index.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.shared.store.read().owned_by(uid)
    }

    /// The objects of a namespace that no controller owns, by name. From an index.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared.store.read().orphans(namespace)
    }

    /// The index of that name, shared by all who ask for it; `values` says under what an object is found in it.
    pub fn index(&self, name: &'static str, values: fn(&K, &mut Values)) -> Index<K> {
        let place = self.shared.store.write().index(name, values);
        Index::new(self.clone(), place)
    }

    pub(crate) fn indexed(&self, place: usize, value: &str) -> Vec<Arc<K>> {
        self.shared.store.read().indexed(place, value)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.store.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The highest resource version of any object that was seen so far.
    pub fn observed(&self) -> u64 {
        self.shared.store.read().observed()
    }

    /// Subscribes to changes; begins with the objects that are there.
    pub fn changes(&self) -> Changes<K> {
        self.shared.store.write().subscribe()
    }

    /// Returns when the first complete list is in.
    pub async fn synced(&self) {
        // The sender lives in self: the channel cannot close while we wait.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether the first complete list is in.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Lists and watches for ever.
    pub(crate) async fn run(self, client: Client, fields: String) -> Result<(), Infallible> {
        let mut events = pin!(Watch::all::<K>(client, &fields).events::<K>());
        let mut seen = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(event, &mut seen),
                Err(error) => tracing::debug!(kind = %K::kind(&()), %error, "watch failed, connecting again"),
            }
        }
        Ok(())
    }

    fn take(&self, event: Event<K>, seen: &mut HashSet<Key>) {
        match event {
            Event::Init => seen.clear(),
            Event::InitApply(object) => {
                seen.insert(Key::of(&object));
                self.shared.store.write().apply(lean(object));
            }
            Event::InitDone => {
                self.shared.store.write().retain(seen);
                *seen = HashSet::new();
                self.shared.synced.send_replace(true);
            }
            Event::Apply(object) => self.shared.store.write().apply(lean(object)),
            Event::Delete(object) => {
                self.shared.store.write().remove(&Key::of(&object), resource_version::of(&object));
            }
        }
    }
}

/// Nobody who reads from a cache asks for managed fields, and they are often the larger half of an object.
fn lean<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}
