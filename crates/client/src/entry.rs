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

    /// What fields of this name have, as it is written, wherever they stand: where that is the same nobody has to decode two versions to compare
    /// them. Of texts with a comma or a bracket it is a part.
    pub fn written<'a>(&'a self, field: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let json = self.0.json();
        let quoted = |at: &usize| {
            let end = at + field.len();
            // A quote within a text has a backslash before it, so that this one begins or ends a text.
            *at > 0 && json[at - 1] == b'"' && json.get(end) == Some(&b'"')
        };
        memmem::find_iter(json, field).filter(quoted).filter_map(move |at| {
            let rest = json[at + field.len() + 1..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
            let mut depth = 0_usize;
            let end = rest.iter().position(|byte| {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth > 1 => depth -= 1,
                    b'}' | b']' => return true,
                    _ => {}
                }
                depth == 0 && *byte == b','
            })?;
            // A bracket at the end is its own, or that of what it is in.
            Some(rest[..end + depth].trim_ascii_end())
        })
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

    #[test]
    fn fields_as_they_are_written() {
        let json = r#"{"metadata":{"name":"m","annotations":{"a":"{\"size\":{\"x\":1}}","size":"s"}},"size":{"cpu":"1","of":{}},
            "list":[{"size" : {"b":"2"}},{"size":null},{"resize":{"c":"3"}},{"a":"size"},{"size":[[1],2]}],"size":{}}"#;
        let entry = Entry::<ConfigMap>::of_json(json).unwrap();
        let written: Vec<_> = entry.written("size").map(|one| std::str::from_utf8(one).unwrap()).collect();
        assert_eq!(written, [r#""s""#, r#"{"cpu":"1","of":{}}"#, r#"{"b":"2"}"#, "null", "[[1],2]", "{}"]);
        let other = Entry::<ConfigMap>::of_json(r#"{"metadata":{"name":"m"},"a":{"b": 1 ,"c":-2}}"#).unwrap();
        let of = |field: &str| other.written(field).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!([of("b"), of("c"), of("d")], [vec![b"1".to_vec()], vec![b"-2".to_vec()], vec![]]);
    }

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
