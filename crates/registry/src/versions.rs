//! The versions of one resource, in each of which managers may own fields.
//!
//! What a write changes is found out in every version that has managers, by objects in that version (upstream:
//! `structured-merge-diff/merge/update.go`). Where a webhook converts them, that takes time: the rules of `apimachinery::apply` are pure, and
//! are asked again once what they had to see has been converted, until they have seen everything.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::apply::{Seen, Types, Versions};
use apimachinery::{Status, meta};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{Catalog, Registry, Served};

/// Every version of the resource that a request is about.
pub(crate) struct Siblings<'a> {
    catalog: Arc<Catalog>,
    of: &'a Served,
    /// Where a webhook converts: what it has said, and what it is to be asked.
    elsewhere: Mutex<Conversions>,
}

/// An object, as text, and the version that it is wanted in.
type Wanted = (String, String);

#[derive(Default)]
struct Conversions {
    known: HashMap<Wanted, Value>,
    missing: HashMap<Wanted, Value>,
}

impl Registry {
    /// The versions over the storage of that one.
    pub(crate) fn siblings<'a>(&self, of: &'a Served) -> Siblings<'a> {
        Siblings { catalog: self.catalog(), of, elsewhere: Mutex::default() }
    }
}

impl Siblings<'_> {
    /// How a request in this version of a kind that no webhook converts sees the object.
    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen { types: self.of.schema.types(), others: self }
    }

    /// What `rules` make of objects in all their versions.
    ///
    /// # Errors
    /// An object cannot be converted.
    pub(crate) async fn resolve<T>(&self, mut rules: impl FnMut(Seen<'_>) -> T) -> Result<T, Status> {
        loop {
            let made = rules(self.seen());
            let missing = std::mem::take(&mut self.elsewhere.lock().missing);
            if missing.is_empty() {
                return Ok(made);
            }
            // Each round has seen more than the one before: there are as many as the rules make objects of each other.
            for ((text, version), object) in missing {
                let converted = match self.find(&version) {
                    Some(to) => self.of.convert_to(to, object).await?,
                    None => object,
                };
                self.elsewhere.lock().known.insert((text, version), converted);
            }
        }
    }

    fn find(&self, api_version: &str) -> Option<&Served> {
        self.catalog.versions_of(self.of).find(|served| served.def.api_version() == api_version).map(|served| &**served)
    }

    /// An object in another version, if it is known already.
    fn converted_elsewhere(&self, object: &Value, api_version: &str) -> Option<Value> {
        let mut object = object.clone();
        // No webhook may change them, and they are the larger half of many objects.
        meta::remove(&mut object, "managedFields");
        let wanted = (object.to_string(), api_version.to_owned());
        let mut elsewhere = self.elsewhere.lock();
        let known = elsewhere.known.get(&wanted).cloned();
        if known.is_none() {
            elsewhere.missing.insert(wanted, object);
        }
        known
    }
}

impl Versions for Siblings<'_> {
    fn types(&self, api_version: &str) -> Option<Types<'_>> {
        self.find(api_version).map(|served| served.schema.types())
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let (from, to) = (self.find(meta::api_version(object))?, self.find(api_version)?);
        if self.of.is_converted_elsewhere() {
            return self.converted_elsewhere(object, api_version);
        }
        let mut object = object.clone();
        from.store(&mut object);
        if to.is_converted() {
            to.show_stored(&mut object);
        }
        Some(object)
    }
}
