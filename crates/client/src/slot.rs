//! One object of an informer: its JSON, and the typed form while somebody uses it.
//!
//! A typed Pod takes three times the memory of its JSON, and in the server's process the JSON is that of the API server's cache, so
//! that keeping it costs nothing. What was decoded lately stays ([`Hot`]): small clusters never decode an object twice. Nothing is
//! decoded before somebody asks for it, so that a start with many objects does not wait for that.

use std::any::Any;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use codec::Decode;
use kube::Resource;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::{Key, lean, metadata, resource_version};

/// Bytes of JSON of the objects of one informer that stay decoded.
const HOT: usize = 8 << 20;

/// The labels of an object.
#[derive(Debug, Default)]
pub struct LabelSet(Box<[(Box<str>, Box<str>)]>);

impl LabelSet {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(label, _)| **label == *key).map(|(_, value)| &**value)
    }
}

/// The objects that were decoded last. They belong to their slots, so an object that has changed or is gone takes no memory here.
pub(crate) struct Hot<K>(Mutex<Ring<K>>);

/// Where decoded objects are, oldest first, and the bytes of their JSON in all.
struct Ring<K> {
    places: VecDeque<(Weak<Mutex<Typed<K>>>, usize)>,
    bytes: usize,
}

impl<K> Default for Hot<K> {
    fn default() -> Self {
        Self(Mutex::new(Ring { places: VecDeque::new(), bytes: 0 }))
    }
}

impl<K> Hot<K> {
    /// An object with so many bytes of JSON was decoded: the oldest ones cool down for it.
    fn keep(&self, place: &Arc<Mutex<Typed<K>>>, size: usize) {
        let mut oldest = Vec::new();
        {
            let ring = &mut *self.0.lock();
            ring.bytes += size;
            ring.places.push_back((Arc::downgrade(place), size));
            while ring.bytes > HOT
                && let Some((place, size)) = ring.places.pop_front()
            {
                ring.bytes -= size;
                oldest.push(place);
            }
        }
        // Not under the lock: an object may be large.
        for place in oldest.iter().filter_map(Weak::upgrade) {
            place.lock().cool();
        }
    }
}

/// What is asked of many objects again and again. Small: they are kept as long as the object.
pub trait Facts<K>: Send + Sync + Sized + 'static {
    /// The facts of one object.
    fn of(object: &K) -> Self;
}

pub(crate) struct Slot<K> {
    pub(crate) key: Key,
    pub(crate) version: u64,
    uid: Box<str>,
    labels: LabelSet,
    /// The uid of its controller.
    controller: Option<Box<str>>,
    /// Whether it is being deleted.
    ends: bool,
    json: Bytes,
    typed: Arc<Mutex<Typed<K>>>,
    /// The facts of the first type that somebody asked for.
    facts: OnceLock<Arc<dyn Any + Send + Sync>>,
    hot: Arc<Hot<K>>,
}

/// The decoded object.
enum Typed<K> {
    /// Decoded lately.
    Hot(Arc<K>),
    /// While somebody else has it.
    Cold(Weak<K>),
    /// It has turned out to be none of the kind, which was logged.
    Unreadable,
}

impl<K> Typed<K> {
    /// Leaves the object to whoever else has it. Where that is nobody, nothing of it stays: a weak reference would keep the memory of the
    /// object itself, which is 3.5 KB for a pod.
    fn cool(&mut self) {
        if let Self::Hot(object) = self {
            *self = Self::Cold(if Arc::strong_count(object) > 1 { Arc::downgrade(object) } else { Weak::new() });
        }
    }
}

/// What is kept of the metadata.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    namespace: Option<String>,
    name: String,
    #[serde(default)]
    uid: Option<Box<str>>,
    resource_version: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
    labels: Option<BTreeMap<Box<str>, Option<Box<str>>>>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Deserialize)]
struct Owner {
    uid: Box<str>,
    controller: Option<bool>,
}

impl<K> Slot<K> {
    /// Of an object's JSON, which is decoded when somebody asks for it.
    pub(crate) fn new(json: Bytes, hot: &Arc<Hot<K>>) -> Result<Self, serde_json::Error> {
        let meta: Meta = metadata::of(&json)?;
        let labels = meta.labels.into_iter().flatten().map(|(key, value)| (key, value.unwrap_or_default()));
        let controller = meta.owner_references.into_iter().flatten().find(|owner| owner.controller == Some(true));
        Ok(Self {
            key: Key { namespace: meta.namespace, name: meta.name },
            version: resource_version::parse(meta.resource_version.as_deref()),
            uid: meta.uid.unwrap_or_default(),
            labels: LabelSet(labels.collect()),
            controller: controller.map(|owner| owner.uid),
            ends: meta.deletion_timestamp.is_some(),
            json,
            typed: Arc::new(Mutex::new(Typed::Cold(Weak::new()))),
            facts: OnceLock::new(),
            hot: hot.clone(),
        })
    }
}

impl<K: Resource<DynamicType = ()> + Decode> Slot<K> {
    /// The object; none when it is none of the kind, so that one object that cannot be read does not hold up the others.
    pub(crate) fn get(&self) -> Option<Arc<K>> {
        let mut typed = self.typed.lock();
        let known = match &*typed {
            Typed::Hot(object) => Some(object.clone()),
            Typed::Cold(object) => object.upgrade(),
            Typed::Unreadable => return None,
        };
        if known.is_some() {
            return known;
        }
        match lean::decode::<K>(&self.json) {
            Ok(object) => {
                let object = Arc::new(object);
                *typed = Typed::Hot(object.clone());
                drop(typed);
                self.hot.keep(&self.typed, self.json.len());
                Some(object)
            }
            Err(error) => {
                tracing::error!(kind = %K::kind(&()), key = %self.key, %error, "an object cannot be decoded");
                *typed = Typed::Unreadable;
                None
            }
        }
    }

    /// The facts of the object. It is decoded for them once, and does not stay so: whoever asks for them asks for many.
    pub(crate) fn facts<F: Facts<K>>(&self) -> Option<Arc<F>> {
        if let Some(known) = self.facts.get().and_then(|known| known.clone().downcast::<F>().ok()) {
            return Some(known);
        }
        let facts = Arc::new(match self.decoded() {
            Some(object) => F::of(&object),
            None => match lean::decode::<K>(&self.json) {
                Ok(object) => F::of(&object),
                // It is told there.
                Err(_) => F::of(self.get()?.as_ref()),
            },
        });
        // Facts of another type are made anew each time.
        self.facts.get_or_init(|| facts.clone());
        Some(facts)
    }
}

impl<K> Slot<K> {
    /// The object, when somebody has it decoded already.
    pub(crate) fn decoded(&self) -> Option<Arc<K>> {
        match &*self.typed.lock() {
            Typed::Hot(object) => Some(object.clone()),
            Typed::Cold(object) => object.upgrade(),
            Typed::Unreadable => None,
        }
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ends
    }

    pub(crate) fn json(&self) -> &[u8] {
        &self.json
    }

    pub(crate) fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// What another type reads of the object.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.json).ok()
    }

    /// The uid of its controller, if it has one.
    pub(crate) fn controller(&self) -> Option<&str> {
        self.controller.as_deref()
    }

    /// Whether both are the same version of the same object.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.version != 0 && self.version == other.version && self.uid == other.uid
    }
}

/// A slot that stands for its key: names are not kept again wherever objects are found by them.
pub(crate) struct ByKey<K>(pub(crate) Arc<Slot<K>>);

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

impl<K> PartialOrd for ByKey<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for ByKey<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    #[test]
    fn objects_are_decoded_again_when_they_are_asked_for() {
        let hot = Arc::<Hot<ConfigMap>>::default();
        let slot = |number: usize| {
            let data = "x".repeat(HOT / 4);
            let json = format!(
                r#"{{"metadata":{{"name":"m{number}","resourceVersion":"{number}","labels":{{"a":"b"}}}},"data":{{"k":"{data}"}}}}"#
            );
            Slot::new(json.into(), &hot).unwrap()
        };
        let slots: Vec<_> = (1..9).map(slot).collect();
        let is_hot = |slot: &&Slot<ConfigMap>| matches!(&*slot.typed.lock(), Typed::Hot(_));
        let alive = || slots.iter().filter(is_hot).count();
        assert_eq!(alive(), 0);
        for slot in &slots {
            assert_eq!(slot.get().unwrap().metadata.name.as_ref(), Some(&slot.key.name));
        }
        assert_eq!((alive(), slots[0].labels().get("a"), slots[0].version), (3, Some("b"), 1));
        // Nothing is left of those that nobody has any more, not even the memory that a weak reference holds.
        let has_memory = |slot: &&Slot<ConfigMap>| !matches!(&*slot.typed.lock(), Typed::Cold(cold) if cold.ptr_eq(&Weak::new()));
        assert_eq!(slots.iter().filter(has_memory).count(), 3);
        // What somebody has is not decoded a second time.
        let held = slots[7].get().unwrap();
        (0..7).for_each(|at| drop(slots[at].get()));
        assert!(Arc::ptr_eq(&held, &slots[7].get().unwrap()));
        // An object that has changed or is gone is not kept, though it was decoded last.
        let last = Arc::downgrade(&slots[6].get().unwrap());
        assert_eq!(last.strong_count(), 1);
        drop(slots);
        assert_eq!((last.strong_count(), Arc::strong_count(&held)), (0, 1));
    }

    #[test]
    fn what_cannot_be_decoded_is_not_there() {
        let json = r#"{"metadata":{"name":"m","uid":"u","ownerReferences":[{"uid":"o","controller":true}]},"data":1}"#;
        let slot = Slot::<ConfigMap>::new(json.into(), &Arc::default()).unwrap();
        assert!(slot.get().is_none() && slot.get().is_none());
        assert_eq!((slot.key.name.as_str(), slot.controller()), ("m", Some("o")));
        assert!(Slot::<ConfigMap>::new(r#"{"metadata":{}}"#.into(), &Arc::default()).is_err());
    }
}
