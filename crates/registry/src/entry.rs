//! Encoded objects.
//!
//! An object is encoded once. The stored bytes start with a head that is the same for all objects of a kind,
//! `{"apiVersion":"v1","kind":"ConfigMap","metadata":{`, and lack the resource version, which the store assigns at the
//! commit; [`Encoding::stamp`] writes it in right behind the head. The stamped bytes are what gets, lists and watchers share.

pub(crate) mod parts;

use std::any::Any;
use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use apimachinery::labels::Labels;
use apimachinery::meta;
use bytes::Bytes;
use kinds::{KindDef, Names, Strategy};
use parts::{Fields, Rest};
use serde::Serialize;
use serde_json::Value;

/// `namespace/name`, or `name` alone.
pub(crate) fn object_path(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// What selectors need of an object, attached to its commit so that nobody decodes it again.
///
/// Every object in memory has one, so all its words are one text and their ends: each word in a place of its own would take more than the
/// word.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// `namespace/name`, or the name alone. What the object is found by in memory is the same text.
    path: Arc<str>,
    /// Keys and values of the labels in turn, and then the value of each of [`Strategy::selectable`] up to the last that has one.
    text: Box<str>,
    /// Where each word of the text ends.
    ends: Box<[u32]>,
    /// Where the name begins in the path.
    name: u32,
    labels: u32,
    /// That of the form that this is of.
    pub(crate) epoch: u64,
    /// See [`Entry::derived`].
    derived: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Index {
    /// Of an encoded object, of which no more than these `fields` ([`Index::fields`]) is decoded: when the server starts, every object
    /// is read for it, and the rest is most of the text.
    pub(crate) fn read(strategy: &dyn Strategy, fields: &Fields, encoded: &[u8], epoch: u64) -> Self {
        // The bytes are what this process encoded, or one before it.
        Self::of(strategy, &parts::select(encoded, fields).unwrap_or_default(), epoch)
    }

    /// The fields that an index is made of.
    pub(crate) fn fields(strategy: &dyn Strategy) -> Fields {
        let own = ["metadata.namespace", "metadata.name", "metadata.labels"];
        Fields::at(own.into_iter().chain(strategy.selectable().iter()))
    }

    pub(crate) fn of(strategy: &dyn Strategy, object: &Value, epoch: u64) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        let mut add = |word: &str| {
            text.push_str(word);
            // An object has at most a few MiB.
            ends.push(text.len() as u32);
        };
        let mut labels = 0;
        for (key, value) in meta::labels(object).into_iter().flatten() {
            add(key);
            add(value.as_str().unwrap_or_default());
            labels += 1;
        }
        let mut fields = strategy.fields(object);
        fields.retain(|(_, value)| !value.is_empty());
        fields.sort_by_key(|(position, _)| *position);
        let mut next = 0;
        for (position, value) in fields {
            (next..position).for_each(|_| add(""));
            add(&value);
            next = position + 1;
        }
        let (namespace, name) = (meta::namespace(object), meta::name(object));
        Self {
            path: object_path(namespace, name).into(),
            text: text.into(),
            ends: ends.into(),
            // Names are short; a namespace is followed by a slash.
            name: if namespace.is_empty() { 0 } else { namespace.len() as u32 + 1 },
            labels,
            epoch,
            derived: OnceLock::new(),
        }
    }

    /// A word of the text, empty where there are not as many.
    fn word(&self, number: usize) -> &str {
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        let end = self.ends.get(number).map_or(start, |end| *end as usize);
        self.text.get(start..end).unwrap_or_default()
    }

    /// What the object is found by in memory.
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.path
    }

    /// `namespace/name`, or the name alone.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn namespace(&self) -> &str {
        &self.path[..(self.name as usize).saturating_sub(1)]
    }

    fn name(&self) -> &str {
        &self.path[self.name as usize..]
    }
}

/// An object in its encoded form, with what selectors need.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) index: Arc<Index>,
    /// The revision of its last write, for tombstones of its deletion.
    pub revision: u64,
    /// The complete object as JSON.
    pub json: Bytes,
}

impl Entry {
    /// The same object in another form.
    pub(crate) fn with_json(&self, json: Bytes) -> Self {
        Self { index: self.index.clone(), revision: self.revision, json }
    }

    /// `namespace/name`, or the name alone.
    pub fn path(&self) -> &str {
        self.index.path()
    }

    /// Namespace, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.index.namespace()
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.index.name()
    }

    /// What follows from the object as it is, kept as long as this version of it: who asks again and again does not decode it each time.
    /// For kinds of one form, such as pods: all forms share it. There is one such thing for a kind; another type is made each time.
    pub fn derived<T: Send + Sync + 'static>(&self, of: impl Fn(Value) -> T) -> Arc<T> {
        let known = self.index.derived.get_or_init(|| Arc::new(of(self.value())));
        known.clone().downcast().unwrap_or_else(|_| Arc::new(of(self.value())))
    }

    /// Decodes the object.
    pub fn value(&self) -> Value {
        // What this process encoded, or one before it: of what was there at the start, no more than an index needs has been decoded yet.
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The value of a field for field selectors, empty when it has none. `selectable` are the fields of the stored version.
    pub(crate) fn field(&self, selectable: &Names, name: &str) -> &str {
        match name {
            "metadata.name" => self.index.name(),
            "metadata.namespace" => self.index.namespace(),
            _ => {
                let position = selectable.iter().position(|field| field == name);
                position.map_or("", |position| self.index.word(2 * self.index.labels as usize + position))
            }
        }
    }
}

impl Labels for Entry {
    fn label(&self, key: &str) -> Option<&str> {
        // Those of an object are sorted.
        let (mut from, mut to) = (0, self.index.labels as usize);
        while from < to {
            let middle = from.midpoint(to);
            match self.index.word(2 * middle).cmp(key) {
                Ordering::Less => from = middle + 1,
                Ordering::Greater => to = middle,
                Ordering::Equal => return Some(self.index.word(2 * middle + 1)),
            }
        }
        None
    }
}

/// How objects of one kind are encoded.
#[derive(Clone, Debug)]
pub(crate) struct Encoding {
    head: Box<str>,
}

impl Encoding {
    pub(crate) fn new(def: &KindDef) -> Self {
        let head = format!(r#"{{"apiVersion":"{}","kind":"{}","metadata":{{"#, def.api_version(), def.kind);
        Self { head: head.into() }
    }

    /// The bytes to store. `metadata` is never empty: it has at least a name.
    pub(crate) fn encode(&self, object: &Value) -> Result<Bytes, serde_json::Error> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(self.head.as_bytes());
        let metadata = meta::metadata(object).into_iter().flatten().filter(|(key, _)| *key != "resourceVersion");
        write_fields(&mut out, metadata, false)?;
        out.push(b'}');
        let rest = object.as_object().into_iter().flatten();
        write_fields(&mut out, rest.filter(|(key, _)| !["apiVersion", "kind", "metadata"].contains(&key.as_str())), true)?;
        out.push(b'}');
        Ok(out.into())
    }

    /// The bytes to store of an object after a write of its status: the other fields are as they were stored.
    pub(crate) fn encode_apart(&self, object: &Value, rest: &Rest<'_>) -> Result<Bytes, serde_json::Error> {
        let Rest { fields, managed } = rest;
        let size: usize = fields.iter().map(|(name, text)| name.len() + text.get().len() + 4).sum();
        let mut out = Vec::with_capacity(size + managed.as_deref().map_or(0, str::len) + 2048);
        out.extend_from_slice(self.head.as_bytes());
        let metadata = meta::metadata(object).into_iter().flatten().filter(|(key, _)| *key != "resourceVersion");
        let (before, after): (Vec<_>, Vec<_>) = metadata.partition(|(key, _)| key.as_str() < "managedFields");
        let mut comma = !before.is_empty();
        write_fields(&mut out, before.into_iter(), false)?;
        if let Some(managed) = managed {
            out.extend_from_slice(if comma { br#","managedFields":"# } else { br#""managedFields":"# });
            out.extend_from_slice(managed.as_bytes());
            comma = true;
        }
        write_fields(&mut out, after.into_iter(), comma)?;
        out.push(b'}');
        let (before, after) = fields.split_at(fields.partition_point(|(name, _)| &**name < "status"));
        write_fields(&mut out, before.iter().map(|(name, text)| (name, text)), true)?;
        write_fields(&mut out, object.get("status").into_iter().map(|status| ("status", status)), true)?;
        write_fields(&mut out, after.iter().map(|(name, text)| (name, text)), true)?;
        out.push(b'}');
        Ok(out.into())
    }

    /// Whether these are the bytes of an object of this version.
    pub(crate) fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.starts_with(self.head.as_bytes())
    }

    /// The length of an object's head: the same for all, but for those that were stored in another version.
    fn head_of(&self, bytes: &[u8]) -> usize {
        const METADATA: &[u8] = br#","metadata":{"#;
        if bytes.starts_with(self.head.as_bytes()) {
            return self.head.len();
        }
        memchr::memmem::find(bytes, METADATA).map_or(bytes.len(), |at| at + METADATA.len())
    }

    /// The complete object.
    pub(crate) fn stamp(&self, stored: &[u8], revision: u64) -> Bytes {
        let (head, rest) = stored.split_at(self.head_of(stored));
        versioned(head, revision, rest)
    }

    /// The same object with another resource version.
    pub(crate) fn restamp(&self, entry: &Entry, revision: u64) -> Entry {
        let (head, rest) = entry.json.split_at(self.head_of(&entry.json));
        let json = versioned(head, revision, &rest[version(entry.revision).len()..]);
        Entry { index: entry.index.clone(), revision, json }
    }
}

fn version(revision: u64) -> String {
    format!(r#""resourceVersion":"{revision}","#)
}

/// An object with its resource version between both parts. Its room is measured: a cache has as many of them as there are objects.
fn versioned(head: &[u8], revision: u64, rest: &[u8]) -> Bytes {
    [head, version(revision).as_bytes(), rest].concat().into()
}

fn write_fields(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (impl Serialize, impl Serialize)>,
    mut comma: bool,
) -> Result<(), serde_json::Error> {
    for (key, value) in fields {
        if comma {
            out.push(b',');
        }
        comma = true;
        serde_json::to_writer(&mut *out, &key)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, &value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// A write of the status that leaves the rest apart stores the same bytes as one that does not.
    #[test]
    fn what_is_apart_is_encoded_as_it_was() {
        let strategy = kinds::KINDS.iter().find(|strategy| strategy.def().kind == "Pod").unwrap();
        let encoding = Encoding::new(strategy.def());
        let check = |mut object: Value| {
            let managed = json!([{"manager": "m", "fieldsV1": {"f:a": {}}}]);
            object["metadata"] = json!({"name": "p", "resourceVersion": "7", "labels": {"a": "b"}, "managedFields": managed});
            let stored = encoding.stamp(&encoding.encode(&object).unwrap(), 7);
            let mut apart = parts::Apart::read(&stored, &Fields::default()).unwrap();
            for status in [json!({"phase": "Failed"}), json!({"a\"b": [1.5, "\n"]})] {
                (object["status"], apart.object["status"]) = (status.clone(), status);
                assert_eq!(encoding.encode_apart(&apart.object, &apart.rest).unwrap(), encoding.encode(&object).unwrap());
            }
        };
        check(json!({"spec": {"b": 1, "a": ["x", {"y": null}]}, "status": {"phase": "Running"}}));
        check(json!({"spec": {}, "alpha": 1, "zeta": {"\u{e9}": "\u{0}"}}));
        check(json!({}));
    }

    /// Selectors find each label and field of an object, and nothing where it has none.
    #[test]
    fn words_of_an_index() {
        let strategy = *kinds::KINDS.iter().find(|strategy| strategy.def().kind == "Pod").unwrap();
        let object = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"b": "", "a": "1", "long/key": "\u{e9}"}},
            "spec": {"nodeName": "node", "schedulerName": "s"}, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
        let entry = |object| Entry { index: Arc::new(Index::of(strategy, object, 0)), revision: 1, json: Bytes::new() };
        let pod = entry(&object);
        let labels = ["a", "b", "long/key", "", "1"].map(|key| pod.label(key));
        assert_eq!(labels, [Some("1"), Some(""), Some("\u{e9}"), None, None]);
        for object in [&object, &json!({"metadata": {"name": "p"}}), &json!({"status": {"phase": "Failed"}})] {
            let (found, expected) = (entry(object), strategy.fields(object));
            for (position, name) in strategy.selectable().iter().enumerate().filter(|(_, name)| !name.starts_with("metadata.")) {
                let expected = expected.iter().find(|(at, _)| *at == position).map_or("", |(_, value)| value);
                assert_eq!(found.field(strategy.selectable(), name), expected, "{name} of {object}");
            }
        }
        assert_eq!((pod.path(), pod.namespace(), pod.name(), pod.label("n")), ("n/p", "n", "p", None));
    }

    #[test]
    fn an_object_survives_encoding_and_gets_its_version() {
        let strategy = kinds::KINDS.iter().find(|strategy| strategy.def().kind == "ConfigMap").unwrap();
        let encoding = Encoding::new(strategy.def());
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
            "metadata": {"name": "m", "namespace": "n", "resourceVersion": "5", "labels": {"x": "y"}}});
        let stored = encoding.encode(&object).unwrap();
        let index = Arc::new(Index::of(*strategy, &object, 0));
        let entry = Entry { index, revision: 42, json: encoding.stamp(&stored, 42) };
        let mut expected = object;
        expected["metadata"]["resourceVersion"] = "42".into();
        assert_eq!(entry.value(), expected);
        assert_eq!((entry.label("x"), entry.field(strategy.selectable(), "metadata.name")), (Some("y"), "m"));
        let decoded = std::sync::atomic::AtomicUsize::new(0);
        let labels =
            |object: Value| (decoded.fetch_add(1, std::sync::atomic::Ordering::Relaxed), object["metadata"]["labels"].clone());
        assert_eq!(
            [entry.derived(labels), entry.clone().derived(labels)].map(|known| (known.0, known.1["x"] == "y")),
            [(0, true); 2]
        );
        assert_eq!(*entry.derived(|_| 7), 7);
        expected["metadata"]["resourceVersion"] = "1007".into();
        assert_eq!(encoding.restamp(&entry, 1007).value(), expected);
    }
}
