//! The stored version of a resource: how its objects are encoded, and what selectors need of them. Of a custom resource it changes
//! with the definition, while objects that were stored before stay as they are: they are brought up to date where they are read.

use std::sync::Arc;

use bytes::Bytes;
use kinds::{KindDef, Rules};
use serde_json::Value;

use crate::ObjectSchema;
use crate::entry::parts::Fields;
use crate::entry::{Encoding, Entry, Index};

/// The epoch of built-in kinds, which never change.
pub(crate) const BUILTIN: u64 = 0;

/// The stored version.
pub(crate) struct Form {
    pub(crate) rules: Rules,
    pub(crate) def: Arc<KindDef>,
    pub(crate) encoding: Encoding,
    pub(crate) schema: ObjectSchema,
    /// Grows with each change of the definition. Objects that were encoded in another epoch may lack what this one says of them.
    pub(crate) epoch: u64,
    /// The fields that an index is made of.
    indexed: Fields,
    /// Somebody else converts: what was stored in another version stays in it.
    by_webhook: bool,
}

impl Form {
    pub(crate) fn new(rules: Rules, epoch: u64) -> Result<Self, String> {
        let def = Arc::new(rules.def().clone());
        let indexed = Index::fields(&*rules);
        Ok(Self {
            encoding: Encoding::new(&def),
            indexed,
            schema: ObjectSchema::of(&rules)?,
            rules,
            def,
            epoch,
            by_webhook: false,
        })
    }

    /// The same, where a webhook converts.
    pub(crate) fn by_webhook(self, by_webhook: bool) -> Self {
        Self { by_webhook, ..self }
    }

    /// What selectors need of an object in this form.
    pub(crate) fn index(&self, object: &Value) -> Index {
        Index::of(&*self.rules, object, self.epoch)
    }

    /// Makes an object one of this version.
    pub(crate) fn settle(&self, object: &mut Value) {
        apimachinery::meta::set_type(object, &self.def.api_version(), &self.def.kind);
        self.schema.settle(object);
    }

    /// An entry from stored bytes. They are decoded when no index of this epoch is at hand, and encoded again when the definition has
    /// something to change in them.
    pub(crate) fn entry(&self, stored: &[u8], revision: u64, index: Option<Arc<Index>>) -> Entry {
        if let Some(index) = index.filter(|index| index.epoch == self.epoch) {
            return Entry { index, revision, json: self.encoding.stamp(stored, revision) };
        }
        if matches!(self.schema, ObjectSchema::Builtin(_)) {
            let index = Arc::new(Index::read(&*self.rules, &self.indexed, stored, self.epoch));
            return Entry { index, revision, json: self.encoding.stamp(stored, revision) };
        }
        let mut object: Value = serde_json::from_slice(stored).unwrap_or_default();
        let changed = self.update(&mut object);
        let json = match &changed {
            Some(bytes) => self.encoding.stamp(bytes, revision),
            None => self.encoding.stamp(stored, revision),
        };
        Entry { index: Arc::new(self.index(&object)), revision, json }
    }

    /// An entry of another epoch in this one.
    pub(crate) fn renew(&self, entry: &Entry) -> Entry {
        let mut object = entry.value();
        let changed = self.update(&mut object);
        let json = changed.map_or_else(|| entry.json.clone(), |bytes| self.encoding.stamp(&bytes, entry.revision));
        Entry { index: Arc::new(self.index(&object)), revision: entry.revision, json }
    }

    /// Brings a stored object of a custom resource up to date; its bytes, if it was not.
    fn update(&self, object: &mut Value) -> Option<Bytes> {
        if matches!(self.schema, ObjectSchema::Builtin(_)) || !object.is_object() {
            return None;
        }
        if self.by_webhook && apimachinery::meta::api_version(object) != self.def.api_version() {
            return None;
        }
        let before = object.clone();
        self.settle(object);
        if *object == before { None } else { self.encoding.encode(object).ok() }
    }
}
