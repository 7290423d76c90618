//! One shared, typed cache of the objects of one kind.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use codec::Decode;
use futures::StreamExt;
use kube::{Client, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::slot::{LabelSet, Slot};
use crate::store::Store;
use crate::watch::{Event, Watch};
use crate::{Changes, Entry, Index, Key, Lean, Values, resource_version};

/// What an informer can hold.
pub trait Object: Resource<DynamicType = ()> + Clone + Debug + Decode + Send + Sync + 'static {}
impl<K: Resource<DynamicType = ()> + Clone + Debug + Decode + Send + Sync + 'static> Object for K {}

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

impl<K> Default for Informer<K> {
    fn default() -> Self {
        let shared = Shared { store: RwLock::new(Store::default()), synced: watch::Sender::new(false) };
        Self { shared: Arc::new(shared) }
    }
}

impl<K: Object> Informer<K> {
    /// Every object, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.select(|_| true)
    }

    /// The objects that are `wanted`, by namespace and name. Each is looked at alone, so that the others take no memory.
    pub fn select(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let slots: Vec<_> = self.shared.store.read().list().cloned().collect();
        objects(&slots).filter(|object| wanted(object)).collect()
    }

    /// Every object, by namespace and name, none of which is decoded.
    pub fn entries(&self) -> Vec<Entry<K>> {
        self.shared.store.read().list().cloned().map(Entry::new).collect()
    }

    /// One object. `namespace` is None for cluster-scoped kinds.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        let slot = self.shared.store.read().get(namespace, name).cloned();
        slot?.get()
    }

    /// One object by its key.
    pub fn by_key(&self, key: &Key) -> Option<Arc<K>> {
        self.get(key.namespace.as_deref(), &key.name)
    }

    /// What another type, a smaller one, reads of an object. Nothing of it stays decoded.
    pub fn read<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        let slot = self.shared.store.read().get(key.namespace.as_deref(), &key.name).cloned();
        slot?.read()
    }

    /// The objects of one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.labelled(namespace, |_| true)
    }

    /// The objects of one namespace whose labels match, by name. Of the others nothing else is looked at.
    pub fn labelled(&self, namespace: &str, matches: impl Fn(&LabelSet) -> bool) -> Vec<Arc<K>> {
        let store = self.shared.store.read();
        let slots: Vec<_> = store.in_namespace(namespace).filter(|slot| matches(slot.labels())).cloned().collect();
        drop(store);
        objects(&slots).collect()
    }

    /// The objects whose controlling owner has this uid, by key. From an index.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let slots = self.shared.store.read().owned_by(uid);
        objects(&slots).collect()
    }

    /// The same, none of which is decoded.
    pub fn entries_owned_by(&self, uid: &str) -> Vec<Entry<K>> {
        let slots = self.shared.store.read().owned_by(uid);
        slots.into_iter().map(Entry::new).collect()
    }

    /// How many they are.
    pub fn count_owned_by(&self, uid: &str) -> usize {
        self.shared.store.read().count_owned_by(uid)
    }

    /// One object, which is not decoded.
    pub fn entry(&self, key: &Key) -> Option<Entry<K>> {
        self.shared.store.read().get(key.namespace.as_deref(), &key.name).cloned().map(Entry::new)
    }

    /// The objects of a namespace that no controller owns and whose labels match, by name. From an index.
    pub fn orphans(&self, namespace: &str, matches: impl Fn(&LabelSet) -> bool) -> Vec<Arc<K>> {
        self.orphan_entries(namespace, matches).iter().filter_map(Entry::get).collect()
    }

    /// The same, none of which is decoded.
    pub fn orphan_entries(&self, namespace: &str, matches: impl Fn(&LabelSet) -> bool) -> Vec<Entry<K>> {
        let mut slots = self.shared.store.read().orphans(namespace);
        slots.retain(|slot| matches(slot.labels()));
        slots.into_iter().map(Entry::new).collect()
    }

    /// The index of that name, shared by all who ask for it; `values` says under what an object is found in it.
    pub fn index(&self, name: &'static str, values: fn(&K, &mut Values)) -> Index<K> {
        self.index_with(name, values, None)
    }

    /// The same for a kind of which there are many: `lean` reads the values from the JSON of an object, and must find the same, where there
    /// are all objects to be read at once.
    pub fn index_lean(&self, name: &'static str, values: fn(&K, &mut Values), lean: Lean) -> Index<K> {
        self.index_with(name, values, Some(lean))
    }

    fn index_with(&self, name: &'static str, values: fn(&K, &mut Values), lean: Option<Lean>) -> Index<K> {
        let place = self.shared.store.write().index(name, values, lean);
        Index::new(self.clone(), place)
    }

    pub(crate) fn indexed(&self, place: usize, value: &str) -> Vec<Arc<K>> {
        let slots = self.shared.store.read().indexed(place, value);
        objects(&slots).collect()
    }

    pub(crate) fn entries_indexed(&self, place: usize, value: &str) -> Vec<Entry<K>> {
        self.shared.store.read().indexed(place, value).into_iter().map(Entry::new).collect()
    }

    pub(crate) fn count_indexed(&self, place: usize, value: &str) -> usize {
        self.shared.store.read().count_indexed(place, value)
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
        let mut events = pin!(Watch::all::<K>(client, &fields).encoded());
        let mut seen = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(event, &mut seen),
                Err(error) => tracing::debug!(kind = %K::kind(&()), %error, "watch failed, connecting again"),
            }
        }
        Ok(())
    }

    fn take(&self, event: Event<Bytes>, seen: &mut HashSet<Key>) {
        match event {
            Event::Init => {
                seen.clear();
                self.shared.store.write().begin();
            }
            Event::InitApply(object) => seen.extend(self.apply(object)),
            Event::InitDone(version) => {
                self.shared.store.write().complete(seen, version);
                *seen = HashSet::new();
                self.shared.synced.send_replace(true);
            }
            Event::Apply(object) => drop(self.apply(object)),
            Event::Delete(object) => match serde_json::from_slice::<Deleted>(&object) {
                Ok(Deleted { metadata: DeletedMeta { namespace, name, resource_version } }) => {
                    let version = resource_version::parse(resource_version.as_deref());
                    self.shared.store.write().remove(&Key { namespace, name }, version);
                }
                Err(error) => unreadable::<K>(&error),
            },
        }
    }

    fn apply(&self, object: Bytes) -> Option<Key> {
        let applied = self.shared.store.write().apply(object);
        applied.inspect_err(unreadable::<K>).ok()
    }
}

/// One object that cannot be read does not hold up the others.
fn unreadable<K: Object>(error: &serde_json::Error) {
    tracing::error!(kind = %K::kind(&()), %error, "an object cannot be decoded");
}

/// What is asked of an object that is gone.
#[derive(serde::Deserialize)]
struct Deleted {
    metadata: DeletedMeta,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeletedMeta {
    namespace: Option<String>,
    name: String,
    resource_version: Option<String>,
}

fn objects<K: Object>(slots: &[Arc<Slot<K>>]) -> impl Iterator<Item = Arc<K>> {
    slots.iter().filter_map(|slot| slot.get())
}
