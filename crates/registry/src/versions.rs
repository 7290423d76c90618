//! The versions of one resource, in each of which managers may own fields.

use std::sync::Arc;

use apimachinery::apply::{Seen, Types, Versions};
use apimachinery::meta;
use serde_json::Value;

use crate::{Catalog, Registry, Served};

/// Every version of the resource that a request is about.
pub(crate) struct Siblings<'a> {
    catalog: Arc<Catalog>,
    of: &'a Served,
}

impl Registry {
    /// The versions over the storage of that one.
    pub(crate) fn siblings<'a>(&self, of: &'a Served) -> Siblings<'a> {
        Siblings { catalog: self.catalog(), of }
    }
}

impl Siblings<'_> {
    /// How a request in this version sees the object.
    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen { types: self.of.schema.types(), others: self }
    }

    fn find(&self, api_version: &str) -> Option<&Served> {
        self.catalog.versions_of(self.of).find(|served| served.def.api_version() == api_version).map(|served| &**served)
    }
}

impl Versions for Siblings<'_> {
    fn types(&self, api_version: &str) -> Option<Types<'_>> {
        self.find(api_version).map(|served| served.schema.types())
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let (from, to) = (self.find(meta::api_version(object))?, self.find(api_version)?);
        let mut object = object.clone();
        from.store(&mut object);
        if to.is_converted() {
            to.show_stored(&mut object);
        }
        Some(object)
    }
}
