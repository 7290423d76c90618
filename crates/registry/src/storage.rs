//! Where the objects of a resource are: their keys in the store, their stored encoding and their watch cache. There is one for each
//! group and resource, however many versions are served over it.

use std::sync::Arc;

use apimachinery::GroupResource;
use arc_swap::Guard;
use bytes::Bytes;
use store::Engine;

use crate::cache::Cache;
use crate::form::Form;

/// Most keys read from the store at once while loading.
const LOAD_PAGE: usize = 1000;

/// The storage of a resource.
pub(crate) struct Storage {
    pub(crate) group_resource: GroupResource,
    /// Of all keys: `/registry/GROUP/RESOURCE/`.
    pub(crate) prefix: Arc<str>,
    pub(crate) cache: Arc<Cache>,
}

impl Storage {
    /// Of the version that is stored.
    pub(crate) fn new(form: Form) -> Self {
        let def = &form.def;
        Self {
            group_resource: GroupResource::new(&*def.group, &*def.plural),
            prefix: prefix(&def.group, &def.plural).into(),
            cache: Arc::new(Cache::new(form)),
        }
    }

    /// The version that is stored.
    pub(crate) fn form(&self) -> Guard<Arc<Form>> {
        self.cache.form()
    }

    /// The store's key of an object.
    pub(crate) fn key(&self, path: &str) -> Bytes {
        format!("{}{path}", self.prefix).into()
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

/// Of the keys of a resource.
pub(crate) fn prefix(group: &str, plural: &str) -> String {
    format!("{}{plural}/", group_prefix(group))
}

/// What the prefixes of a group's resources begin with.
pub(crate) fn group_prefix(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    format!("/registry/{group}/")
}
