//! watch (API concepts: efficient detection of changes; KEP-3157 for initial events)

use std::sync::Arc;

use apimachinery::Status;
use futures::FutureExt;

use crate::cache::{Change, Event, EventType, Selects, Watch, Window, Within};
use crate::past::Page;
use crate::pipeline::storage_error;
use crate::verbs::list::{Selection, parse_version};
use crate::{ListOptions, Registry, Served};

impl Registry {
    /// The changes of what the options select: from a resource version on, or from the present state.
    pub async fn watch(&self, res: &Arc<Served>, namespace: Option<&str>, options: &ListOptions) -> Result<Watch, Status> {
        let selection = Arc::new(Selection::new(res, namespace, options)?);
        let version = parse_version(options.resource_version.as_deref())?;
        let own = selection.clone();
        let selects: Selects = Box::new(move |entry| own.may_select(entry));
        // Unset and "0" start with synthetic ADDED events, unless the client asked how to start.
        let initial = options.send_initial_events.unwrap_or(version.is_none());
        self.reached(version).await?;
        let watch = match version {
            _ if initial => {
                let bookmark = options.send_initial_events == Some(true) && options.allow_bookmarks;
                self.watch_initial(res, selects, &selection, bookmark).await?
            }
            Some(version) => self.watch_since(res, selects, &selection, version).await?,
            None => self.prepared(res, &selection, res.storage.cache.watch_from_now(selects, Within::None, false).0),
        };
        let watch = watch.with_timeout(options.timeout).shown_as(res);
        Ok(if options.allow_bookmarks { watch.with_bookmarks(self.revision_source()) } else { watch })
    }

    async fn watch_initial(
        &self,
        res: &Arc<Served>,
        selects: Selects,
        selection: &Arc<Selection>,
        bookmark: bool,
    ) -> Result<Watch, Status> {
        let current = self.revision();
        let single = selection.single();
        let within = match &single {
            Some(path) => Within::Object(path),
            // A watch has no pages.
            None => Within::Window(Window { limit: 0, ..selection.window(None) }),
        };
        let apart = selection.takes_long();
        let (watch, mut page, newest) = res.storage.cache.watch_from_now(selects, within, apart);
        if apart {
            page = selection.choose(res, page.entries, 0).await?;
        }
        let added = page.entries.into_iter().map(|entry| Event::new(EventType::Added, entry));
        let last = bookmark.then(|| res.storage.cache.bookmark(newest.max(current), true));
        Ok(self.prepared(res, selection, watch).starting_with(added.chain(last)))
    }

    /// From the ring, and before that from the store's history when the ring does not reach that far back.
    async fn watch_since(
        &self,
        res: &Arc<Served>,
        selects: Selects,
        selection: &Arc<Selection>,
        version: u64,
    ) -> Result<Watch, Status> {
        let (watch, until) = res.storage.cache.watch_after(selects, version);
        let watch = self.prepared(res, selection, watch);
        match until {
            None => Ok(watch),
            Some(until) => watch.starting_before(until).await,
        }
    }

    /// A watch that finds the past, and says by what is shown what is selected, where that decides.
    fn prepared(&self, res: &Arc<Served>, selection: &Arc<Selection>, watch: Watch) -> Watch {
        let watch = self.with_past(res, watch);
        if !selection.is_by_converted() {
            return watch;
        }
        let own = selection.clone();
        watch.selecting_converted(res, Box::new(move |entry| own.selects(entry)))
    }

    /// What has left the ring is read from the store's history, which has nothing of the ephemeral kinds.
    fn with_past(&self, res: &Arc<Served>, watch: Watch) -> Watch {
        if res.def.ephemeral {
            return watch;
        }
        let (engine, resource, past) = (self.engine.clone(), res.clone(), self.past.clone());
        let read = move |after, until| {
            let (engine, resource, past) = (engine.clone(), resource.clone(), past.clone());
            async move {
                let (prefix, oldest) = (&resource.storage.prefix, engine.compacted());
                if after < oldest {
                    return Err(too_old(after, oldest));
                }
                let read = async {
                    let changes = engine.changes(prefix.as_bytes(), after, until).await.map_err(|error| match error {
                        store::Error::Compacted(oldest) => too_old(after, oldest),
                        error => storage_error(error),
                    })?;
                    Ok(Page {
                        changes: changes.events.iter().map(|event| change(&resource, event)).collect(),
                        upto: changes.upto,
                    })
                };
                past.page(prefix, after, read).await
            }
            .boxed()
        };
        watch.with_past(Box::new(read))
    }
}

fn too_old(version: u64, oldest: u64) -> Status {
    Status::resource_expired(format!("too old resource version: {version} ({oldest})"))
}

/// A change as the ring would have held it.
fn change(res: &Served, event: &store::Event) -> Arc<Change> {
    let cache = &res.storage.cache;
    let previous = event.previous.as_ref().map(|record| Arc::new(cache.entry(&record.value, record.revision, None)));
    Arc::new(match (&event.value, &previous) {
        (Some(value), _) => Change::put(Arc::new(cache.entry(value, event.revision, None)), previous),
        (None, Some(last)) => Change::delete(Arc::new(cache.restamp(last, event.revision)), previous.clone()),
        (None, None) => Change::delete(Arc::new(cache.unstored(&serde_json::Value::Null)), None),
    })
}
