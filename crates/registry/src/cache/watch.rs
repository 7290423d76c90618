//! Watchers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::{Cache, Change, Event, EventType};
use crate::{Entry, Resource};

/// Time between bookmarks of an idle watch.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Most changes taken from the ring at once.
const BATCH: usize = 128;

/// Whether a watcher wants to see an object.
pub(crate) type Selects = Box<dyn Fn(&Entry) -> bool + Send + Sync>;
/// Gives the newest revision that is fully applied to all caches.
pub(crate) type CurrentRevision = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Events of one watcher. Ends when its time is over or when it fell behind.
pub struct Watch {
    cache: Arc<Cache>,
    selects: Selects,
    position: u64,
    end: tokio::sync::watch::Receiver<u64>,
    /// Events to send first: the present state, or history from before this process.
    ready: VecDeque<Event>,
    /// History from the store, then the ring from `position` on.
    history: Option<BoxStream<'static, Arc<Change>>>,
    bookmarks: Option<CurrentRevision>,
    next_bookmark: Instant,
    deadline: Option<Instant>,
    /// The kind to show objects as, where it is not the stored one.
    shown: Option<Arc<Resource>>,
    over: bool,
}

impl Cache {
    /// A watch that starts with the present objects, in `ready`, or with none of them.
    pub(crate) fn watch_from_now(
        self: &Arc<Self>,
        selects: Selects,
        initial: impl FnOnce(Vec<Arc<Entry>>, u64) -> Vec<Event>,
    ) -> Watch {
        let state = self.state.read();
        let entries = state.items.values().filter(|entry| selects(entry)).cloned().collect();
        let position = state.start + state.ring.len() as u64;
        let ready = initial(entries, state.revision).into();
        drop(state);
        Watch::new(self, selects, position, ready)
    }

    /// A watch of the changes after `revision`, none when the ring does not reach that far back.
    pub(crate) fn watch_after(self: &Arc<Self>, selects: Selects, revision: u64) -> Result<Watch, Selects> {
        let state = self.state.read();
        if revision < state.complete_after {
            return Err(selects);
        }
        let skip = state.ring.partition_point(|change| change.revision() <= revision);
        let position = state.start + skip as u64;
        drop(state);
        Ok(Watch::new(self, selects, position, VecDeque::new()))
    }

    /// A watch that goes through `history`, which ends where the ring is complete, and then through the ring.
    pub(crate) fn watch_history(self: &Arc<Self>, selects: Selects, history: BoxStream<'static, Arc<Change>>) -> Watch {
        let position = self.state.read().start;
        let mut watch = Watch::new(self, selects, position, VecDeque::new());
        watch.history = Some(history);
        watch
    }

    /// The revision after which the ring holds every change.
    pub(crate) fn complete_after(&self) -> u64 {
        self.state.read().complete_after
    }
}

impl Watch {
    fn new(cache: &Arc<Cache>, selects: Selects, position: u64, ready: VecDeque<Event>) -> Self {
        Self {
            end: cache.end.subscribe(),
            cache: cache.clone(),
            selects,
            position,
            ready,
            history: None,
            bookmarks: None,
            next_bookmark: Instant::now() + BOOKMARK_INTERVAL,
            deadline: None,
            shown: None,
            over: false,
        }
    }

    /// Sends bookmarks.
    pub(crate) fn with_bookmarks(mut self, current: CurrentRevision) -> Self {
        self.bookmarks = Some(current);
        self
    }

    /// Ends after `timeout`.
    pub(crate) fn with_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.deadline = timeout.map(|timeout| Instant::now() + timeout);
        self
    }

    /// Shows the objects as another kind, if `res` is one that does.
    pub(crate) fn shown_as(mut self, res: &Arc<Resource>) -> Self {
        self.shown = res.is_view().then(|| res.clone());
        self
    }

    fn show(shown: Option<&Arc<Resource>>, event: Event) -> Event {
        match shown {
            None => event,
            Some(_) if event.kind == EventType::Error => event,
            Some(res) if event.kind == EventType::Bookmark => Event::new(event.kind, res.show_bookmark(&event.entry)),
            Some(res) => Event::new(event.kind, res.show(&event.entry)),
        }
    }

    /// The next event, none at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Self::show(self.shown.as_ref(), event));
            }
            if self.over {
                return None;
            }
            self.advance().await;
        }
    }

    /// Events that are there without waiting.
    pub fn take_ready(&mut self) -> impl Iterator<Item = Event> {
        if self.ready.is_empty() && self.history.is_none() && !self.over {
            self.fill();
        }
        let shown = self.shown.clone();
        self.ready.drain(..).map(move |event| Self::show(shown.as_ref(), event))
    }

    /// The events as a stream.
    pub fn into_stream(self) -> BoxStream<'static, Event> {
        futures::stream::unfold(self, |mut watch| async move { watch.next().await.map(|event| (event, watch)) }).boxed()
    }

    /// Waits for something to send, or for the end.
    async fn advance(&mut self) {
        if let Some(history) = &mut self.history {
            tokio::select! {
                change = history.next() => match change {
                    Some(change) => self.see(&change),
                    None => self.history = None,
                },
                () = sleep_until(self.deadline) => self.over = true,
            }
            return;
        }
        self.end.borrow_and_update();
        if self.fill() > 0 || self.over {
            return;
        }
        let deadline = self.deadline;
        let bookmark = self.bookmarks.is_some().then_some(self.next_bookmark);
        tokio::select! {
            changed = self.end.changed() => self.over = changed.is_err(),
            () = sleep_until(deadline) => self.over = true,
            () = sleep_until(bookmark) => self.bookmark(),
        }
    }

    /// Moves what the ring has to `ready`; says how many changes it looked at.
    fn fill(&mut self) -> usize {
        let state = self.cache.state.read();
        if self.position < state.start {
            drop(state);
            self.cut_off();
            return 1;
        }
        let at = usize::try_from(self.position - state.start).unwrap_or(usize::MAX);
        let changes: Vec<_> = state.ring.iter().skip(at).take(BATCH).cloned().collect();
        drop(state);
        self.position += changes.len() as u64;
        changes.iter().for_each(|change| self.see(change));
        changes.len()
    }

    fn see(&mut self, change: &Change) {
        let cache = self.cache.clone();
        if let Some(event) = change.seen(&self.selects, |entry| cache.restamp(entry, change.revision())) {
            self.ready.push_back(event);
        }
    }

    fn bookmark(&mut self) {
        self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
        if let Some(current) = &self.bookmarks {
            // Read the revision before the ring: a bookmark never runs ahead of the events.
            let revision = current();
            if self.fill() == 0 {
                self.ready.push_back(self.cache.bookmark(revision, false));
            }
        }
    }

    fn cut_off(&mut self) {
        self.over = true;
        let status = Status::resource_expired("too old resource version: the watcher is too slow, list again");
        let entry = self.cache.bookmark(0, false).entry;
        self.ready.push_back(Event::error(entry, status));
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Cache {
    /// A bookmark; the one that ends the initial events says so.
    pub(crate) fn bookmark(&self, revision: u64, ends_initial: bool) -> Event {
        let def = self.strategy.def();
        let mut object = serde_json::json!({
            "kind": def.kind, "apiVersion": def.api_version(),
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if ends_initial {
            object["metadata"]["annotations"] = serde_json::json!({"k8s.io/initial-events-end": "true"});
        }
        Event::new(EventType::Bookmark, Arc::new(self.unstored(&object)))
    }
}
