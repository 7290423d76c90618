//! watch (API concepts: efficient detection of changes; KEP-3157 for initial events)

use std::sync::Arc;

use apimachinery::Status;
use futures::StreamExt;

use crate::cache::{Change, Event, EventType, Watch};
use crate::pipeline::storage_error;
use crate::verbs::list::{Selection, parse_version};
use crate::{Entry, ListOptions, Registry, Resource};

impl Registry {
    /// The changes of what the options select: from a resource version on, or from the present state.
    pub async fn watch(&self, res: &Arc<Resource>, namespace: Option<&str>, options: &ListOptions) -> Result<Watch, Status> {
        let selection = Selection::new(res, namespace, options)?;
        let version = parse_version(options.resource_version.as_deref())?;
        let selects: Box<dyn Fn(&Entry) -> bool + Send + Sync> = Box::new(move |entry| selection.selects(entry));
        // Unset and "0" start with synthetic ADDED events, unless the client asked how to start.
        let initial = options.send_initial_events.unwrap_or(version.is_none());
        let current = self.revision();
        if version.is_some_and(|version| version > current) {
            return Err(Status::timeout(format!("Too large resource version: {}, current: {current}", version.unwrap_or(0)), 1));
        }
        let watch = match version {
            _ if initial => self.watch_initial(res, selects, options.send_initial_events == Some(true)),
            Some(version) => self.watch_since(res, selects, version).await?,
            None => res.cache.watch_from_now(selects, |_, _| Vec::new()),
        };
        let watch = watch.with_timeout(options.timeout).shown_as(res);
        Ok(if options.allow_bookmarks { watch.with_bookmarks(self.revision_source()) } else { watch })
    }

    fn watch_initial(&self, res: &Arc<Resource>, selects: Box<dyn Fn(&Entry) -> bool + Send + Sync>, bookmark: bool) -> Watch {
        let current = self.revision();
        res.cache.watch_from_now(selects, |entries, newest| {
            let added = entries.into_iter().map(|entry| Event::new(EventType::Added, entry));
            added.chain(bookmark.then(|| res.cache.bookmark(newest.max(current), true))).collect()
        })
    }

    /// From the ring, or from the store's history when the ring does not reach that far back.
    async fn watch_since(
        &self,
        res: &Arc<Resource>,
        selects: Box<dyn Fn(&Entry) -> bool + Send + Sync>,
        version: u64,
    ) -> Result<Watch, Status> {
        let selects = match res.cache.watch_after(selects, version) {
            Ok(watch) => return Ok(watch),
            Err(selects) => selects,
        };
        if res.def.ephemeral {
            return Err(too_old(version, res.cache.complete_after()));
        }
        let until = res.cache.complete_after();
        let history = self.engine.watch(res.prefix.as_bytes(), version).await.map_err(|error| match error {
            store::Error::Compacted(oldest) => too_old(version, oldest),
            error => storage_error(error),
        })?;
        let resource = res.clone();
        let changes = history
            .take_while(move |event| futures::future::ready(event.revision <= until))
            .map(move |event| change(&resource, &event));
        Ok(res.cache.watch_history(selects, changes.boxed()))
    }
}

fn too_old(version: u64, oldest: u64) -> Status {
    Status::resource_expired(format!("too old resource version: {version} ({oldest})"))
}

/// A change as the ring would have held it.
fn change(res: &Resource, event: &store::Event) -> Arc<Change> {
    let cache = &res.cache;
    let previous = event.previous.as_ref().map(|record| Arc::new(cache.entry(&record.value, record.revision, None)));
    Arc::new(match (&event.value, &previous) {
        (Some(value), _) => Change::put(Arc::new(cache.entry(value, event.revision, None)), previous),
        (None, Some(last)) => Change::delete(Arc::new(cache.restamp(last, event.revision)), previous.clone()),
        (None, None) => Change::delete(Arc::new(cache.unstored(&serde_json::Value::Null)), None),
    })
}
