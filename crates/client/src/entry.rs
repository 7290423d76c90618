//! Objects of an informer that nobody has to decode for what is asked of many of them.
//!
//! A controller that counts the pods of a large owner looks at all of them whenever one has changed. Decoding a pod takes 30 us and 3.5 KB,
//! so that ten thousand of them would take longer than the next change is away. What such a controller asks of an object ([`Facts`]) is
//! made of each version of it once and stays with it.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use memchr::memmem;
use serde::Deserialize;

use crate::slot::{Facts, Slot};
use crate::{Key, LabelSet, Object, metadata};

/// An object of an informer, at one version. Cheap to clone.
pub struct Entry<K>(Arc<Slot<K>>);

impl<K> Clone for Entry<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Object> Entry<K> {
    pub(crate) fn new(slot: Arc<Slot<K>>) -> Self {
        Self(slot)
    }

    /// Of an object's JSON, which no informer has.
    ///
    /// # Errors
    /// When its metadata cannot be read.
    pub fn of_json(json: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        Ok(Self(Arc::new(Slot::new(json.into(), &Arc::default())?)))
    }

    /// Namespace and name.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// The uid, empty when there is none.
    pub fn uid(&self) -> &str {
        self.0.uid()
    }

    /// The labels.
    pub fn labels(&self) -> &LabelSet {
        self.0.labels()
    }

    /// The resource version, 0 when it is not known.
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// Its controller, if it has one.
    pub fn controller(&self) -> Option<OwnerReference> {
        self.0.controller()?;
        let Owners { owner_references } = metadata::of(self.0.json()).ok()?;
        owner_references.into_iter().find(|owner| owner.controller == Some(true))
    }

    /// Whether a controller owns it.
    pub fn is_controlled(&self) -> bool {
        self.0.controller().is_some()
    }

    /// Whether its JSON has this text somewhere. Where it has not, the object has no field of that name, or no field with that string.
    pub fn mentions(&self, text: &str) -> bool {
        memmem::find(self.0.json(), text.as_bytes()).is_some()
    }

    /// Its JSON.
    pub fn json(&self) -> &[u8] {
        self.0.json()
    }

    /// Whether it is being deleted.
    pub fn is_ending(&self) -> bool {
        self.0.is_ending()
    }

    /// The whole object; none when it cannot be read, which was logged.
    pub fn get(&self) -> Option<Arc<K>> {
        self.0.get()
    }

    /// Its facts; none when it cannot be read. Of one type of facts of each kind they are kept.
    pub fn facts<F: Facts<K>>(&self) -> Option<Arc<F>> {
        self.0.facts()
    }
}

/// What says which controller an object has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owners {
    owner_references: Vec<OwnerReference>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    struct Size(usize);
    struct Colour(String);
    static READS: AtomicU32 = AtomicU32::new(0);

    impl Facts<ConfigMap> for Size {
        fn of(map: &ConfigMap) -> Self {
            READS.fetch_add(1, Ordering::Relaxed);
            Self(map.data.as_ref().map_or(0, std::collections::BTreeMap::len))
        }
    }

    impl Facts<ConfigMap> for Colour {
        fn of(map: &ConfigMap) -> Self {
            Self(map.data.as_ref().and_then(|data| data.get("colour")).cloned().unwrap_or_default())
        }
    }

    #[test]
    fn facts_are_made_once() {
        let json = r#"{"metadata":{"namespace":"a","name":"m","uid":"u","labels":{"l":"v"},"deletionTimestamp":"2026-01-01T00:00:00Z"},"data":{"colour":"red"}}"#;
        let entry = Entry::<ConfigMap>::of_json(json).unwrap();
        assert_eq!((entry.key(), entry.uid(), entry.labels().get("l")), (&Key::namespaced("a", "m"), "u", Some("v")));
        assert!(entry.is_ending());
        for _ in 0..3 {
            assert_eq!(entry.facts::<Size>().unwrap().0, 1);
            // Others are no less right.
            assert_eq!(entry.facts::<Colour>().unwrap().0, "red");
        }
        assert_eq!(READS.load(Ordering::Relaxed), 1);
        assert_eq!(entry.get().unwrap().data.as_ref().unwrap().len(), 1);
        let check = |json: &'static str, ends: bool| assert_eq!(Entry::<ConfigMap>::of_json(json).unwrap().is_ending(), ends);
        check(r#"{"metadata":{"name":"m","deletionTimestamp":null}}"#, false);
        check(r#"{"metadata":{"name":"m"}}"#, false);
        let unreadable = Entry::<ConfigMap>::of_json(r#"{"metadata":{"name":"m"},"data":1}"#).unwrap();
        assert!(unreadable.facts::<Size>().is_none() && unreadable.get().is_none());
        assert!(Entry::<ConfigMap>::of_json("{}").is_err());
    }
}
