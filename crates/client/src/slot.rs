//! One object of an informer: its JSON, and the typed form while somebody uses it.
//!
//! A typed Pod takes three times the memory of its JSON, and in the server's process the JSON is that of the API server's cache, so
//! that keeping it costs nothing. What was decoded lately stays ([`Hot`]): small clusters never decode an object twice.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use kube::Resource;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::{Key, lean, resource_version};

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

/// The objects that were decoded last.
pub(crate) struct Hot<K>(Mutex<Ring<K>>);

/// Objects, oldest first, with the bytes of their JSON, and these in all.
struct Ring<K> {
    objects: VecDeque<(Arc<K>, usize)>,
    bytes: usize,
}

impl<K> Default for Hot<K> {
    fn default() -> Self {
        Self(Mutex::new(Ring { objects: VecDeque::new(), bytes: 0 }))
    }
}

impl<K> Hot<K> {
    fn keep(&self, object: Arc<K>, size: usize) {
        let mut dropped = Vec::new();
        let ring = &mut *self.0.lock();
        ring.objects.push_back((object, size));
        ring.bytes += size;
        while ring.bytes > HOT
            && let Some((object, size)) = ring.objects.pop_front()
        {
            ring.bytes -= size;
            // Not under the lock: an object may be large.
            dropped.push(object);
        }
    }
}

pub(crate) struct Slot<K> {
    pub(crate) key: Key,
    pub(crate) version: u64,
    uid: Box<str>,
    labels: LabelSet,
    json: Bytes,
    typed: Mutex<Weak<K>>,
    hot: Arc<Hot<K>>,
}

impl<K: Resource + DeserializeOwned> Slot<K> {
    /// Of an object's JSON; gives the object too.
    pub(crate) fn new(json: Bytes, hot: &Arc<Hot<K>>) -> Result<(Self, Arc<K>), serde_json::Error> {
        let object = Arc::new(lean::decode::<K>(&json)?);
        let meta = object.meta();
        let labels = meta.labels.iter().flatten().map(|(key, value)| (key.as_str().into(), value.as_str().into()));
        let slot = Self {
            key: Key::of(object.as_ref()),
            version: resource_version::of(object.as_ref()),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            labels: LabelSet(labels.collect()),
            typed: Mutex::new(Arc::downgrade(&object)),
            hot: hot.clone(),
            json,
        };
        hot.keep(object.clone(), slot.json.len());
        Ok((slot, object))
    }

    /// The object.
    pub(crate) fn get(&self) -> Option<Arc<K>> {
        let mut typed = self.typed.lock();
        if let Some(object) = typed.upgrade() {
            return Some(object);
        }
        match lean::decode::<K>(&self.json) {
            Ok(object) => {
                let object = Arc::new(object);
                *typed = Arc::downgrade(&object);
                drop(typed);
                self.hot.keep(object.clone(), self.json.len());
                Some(object)
            }
            Err(error) => {
                // The same bytes have been decoded before.
                tracing::error!(key = %self.key, %error, "an object cannot be decoded again");
                None
            }
        }
    }
}

impl<K> Slot<K> {
    pub(crate) fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// Whether both are the same version of the same object.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.version != 0 && self.version == other.version && self.uid == other.uid
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
            Slot::new(json.into(), &hot).unwrap().0
        };
        let slots: Vec<_> = (1..9).map(slot).collect();
        let alive = || slots.iter().filter(|slot| slot.typed.lock().strong_count() > 0).count();
        assert_eq!(alive(), 3);
        for slot in &slots {
            assert_eq!(slot.get().unwrap().metadata.name.as_ref(), Some(&slot.key.name));
        }
        assert_eq!((alive(), slots[0].labels().get("a"), slots[0].version), (3, Some("b"), 1));
    }
}
