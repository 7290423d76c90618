//! Where the objects of a resource are: their keys in the store, their stored encoding and their watch cache. There is one for each
//! group and resource, however many versions are served over it.

use std::sync::Arc;

use apimachinery::{GroupResource, meta};
use bytes::Bytes;
use kinds::{KindDef, Strategy};
use schema::TypeId;
use serde_json::Value;
use store::Engine;

use crate::cache::Cache;
use crate::entry::Encoding;
use crate::served::{canonicalize, object_path, schema_type};

/// Most keys read from the store at once while loading.
const LOAD_PAGE: usize = 1000;

/// The storage of a resource.
pub(crate) struct Storage {
    pub(crate) group_resource: GroupResource,
    /// Of all keys: `/registry/GROUP/RESOURCE/`.
    pub(crate) prefix: String,
    /// Facts of the stored version.
    pub(crate) def: &'static KindDef,
    /// The stored version, for what selectors need of its objects.
    pub(crate) strategy: &'static dyn Strategy,
    pub(crate) encoding: Encoding,
    pub(crate) cache: Arc<Cache>,
    ty: TypeId,
}

impl Storage {
    /// Of the version that is stored.
    pub(crate) fn new(strategy: &'static dyn Strategy) -> Result<Self, String> {
        let def = strategy.def();
        let group = if def.group.is_empty() { "core" } else { def.group };
        let encoding = Encoding::new(def);
        Ok(Self {
            group_resource: GroupResource::new(def.group, def.plural),
            prefix: format!("/registry/{group}/{}/", def.plural),
            cache: Arc::new(Cache::new(strategy, encoding.clone())),
            ty: schema_type(def)?,
            def,
            strategy,
            encoding,
        })
    }

    /// The store's key of an object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Bytes {
        format!("{}{}", self.prefix, object_path(namespace, name)).into()
    }

    /// Makes an object that has been converted one of the stored version.
    pub(crate) fn set_type(&self, object: &mut Value) {
        meta::set_type(object, &self.def.api_version(), self.def.kind);
        canonicalize(self.ty, object);
    }

    /// Reads every object. `revision` is of the subscription that feeds the cache from then on.
    pub(crate) async fn load(&self, engine: &dyn Engine, revision: u64) -> Result<(), store::Error> {
        let prefix = self.prefix.as_bytes();
        let (mut start, mut end) = (prefix.to_vec(), prefix.to_vec());
        // '0' follows '/' in ASCII: the end of all keys under the prefix.
        end.pop();
        end.push(b'0');
        let mut next = Some(engine.range(&start, &end, None, LOAD_PAGE).await?);
        while let Some(page) = next.take() {
            start = page.records.last().map_or(start, |last| [&last.key, &b"\0"[..]].concat());
            // The next page is read, on another thread, while this one is taken in.
            let more = async { if page.more { engine.range(&start, &end, None, LOAD_PAGE).await.map(Some) } else { Ok(None) } };
            let take_in = async {
                for record in &page.records {
                    let path = String::from_utf8_lossy(&record.key[prefix.len()..]);
                    self.cache.load(&path, &record.value, record.revision);
                }
            };
            next = tokio::join!(biased; more, take_in).0?;
        }
        self.cache.loaded(self.prefix.len(), revision);
        Ok(())
    }
}
