//! Watchers.

mod shown;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::time::{Instant, Sleep};

use super::list::{Page, Window, select};
use super::{Cache, Change, Event, EventType};
use crate::past;
use crate::{Entry, Served};
use shown::ByConverted;

/// Time between bookmarks of an idle watch.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long before its end a watch gets its last bookmark, so that the client goes on from there.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// Most changes taken from the ring at once.
const BATCH: usize = 128;

/// Whether a watcher wants to see an object.
pub(crate) type Selects = Box<dyn Fn(&Entry) -> bool + Send + Sync>;
/// A page of the changes after a revision and up to another one, or somewhat further.
type ReadPage = Result<Arc<past::Page>, Status>;
/// Reads such pages.
pub(crate) type ReadPast = Box<dyn Fn(u64, u64) -> BoxFuture<'static, ReadPage> + Send + Sync>;
/// Gives the newest revision that is fully applied to all caches.
pub(crate) type CurrentRevision = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Where the present objects are that a watch starts with: nothing else is looked at, while commits wait.
pub(crate) enum Within<'a> {
    /// It starts with none.
    None,
    /// The one of this path.
    Object(&'a str),
    /// Those of a namespace, or all.
    Window(Window<'a>),
}

/// Events of one watcher. Ends when its time is over, or when it fell behind what is kept of the past.
pub struct Watch {
    cache: Arc<Cache>,
    selects: Selects,
    position: u64,
    /// It has seen every change up to this revision.
    seen: u64,
    changed: tokio::sync::watch::Receiver<()>,
    /// Events to send first, whose objects are as they are stored and are shown when they are taken. Shown already are those of the first
    /// `converted` ones, and with `by_converted` all but bookmarks.
    ready: VecDeque<Event>,
    /// Says what is selected where that depends on objects in the watcher's version, which takes time.
    by_converted: Option<Arc<ByConverted>>,
    /// Changes that come behind the events, of which that has to be found out.
    changes: VecDeque<Arc<Change>>,
    /// Reads what is no more in the ring; none where nothing is kept of it.
    read: Option<ReadPast>,
    /// Up to which revision changes are to be read before the ring from `position` on.
    past: Option<u64>,
    bookmarks: Option<CurrentRevision>,
    next_bookmark: Instant,
    deadline: Option<Instant>,
    /// Wakes for the earlier of both. Kept from event to event: to set a timer takes a lock that all share.
    timer: Option<Pin<Box<Sleep>>>,
    /// The kind to show objects as, where it is not the stored one.
    shown: Option<Arc<Served>>,
    /// How many events at the front of `ready` somebody else has converted.
    converted: usize,
    /// How often the watches of the cache had ended when this one began.
    cuts: u64,
    over: bool,
}

impl Cache {
    /// A watch of what comes from now on, what is there, and the revision of that. With `all`, also what the watch does not select: who
    /// asks selects from it, where that takes long.
    pub(crate) fn watch_from_now(self: &Arc<Self>, selects: Selects, within: Within<'_>, all: bool) -> (Watch, Page, u64) {
        let state = self.state.read();
        let wanted = |entry: &Entry| all || selects(entry);
        let page = match within {
            Within::None => Page::default(),
            Within::Object(path) => Page {
                entries: state.items.get(path).filter(|entry| wanted(entry)).cloned().into_iter().collect(),
                ..Page::default()
            },
            Within::Window(window) => select(&state.items, window, wanted),
        };
        let position = state.start + state.ring.len() as u64;
        let (seen, revision) = (state.revision.max(state.complete_after), state.revision);
        drop(state);
        (Watch::new(self, selects, (position, seen)), page, revision)
    }

    /// A watch of the changes after `revision` that are in the ring. When the ring does not reach that far back, the second
    /// value says up to where the changes must be read elsewhere, and the watch goes on from there.
    pub(crate) fn watch_after(self: &Arc<Self>, selects: Selects, revision: u64) -> (Watch, Option<u64>) {
        let state = self.state.read();
        // Both under one lock: the ring moves on.
        let until = Some(state.complete_after).filter(|complete_after| revision < *complete_after);
        let position = state.start + state.ring.partition_point(|change| change.revision() <= revision) as u64;
        drop(state);
        (Watch::new(self, selects, (position, revision)), until)
    }
}

impl Watch {
    fn new(cache: &Arc<Cache>, selects: Selects, (position, seen): (u64, u64)) -> Self {
        Self {
            changed: cache.changed.subscribe(),
            cache: cache.clone(),
            selects,
            position,
            seen,
            ready: VecDeque::new(),
            by_converted: None,
            changes: VecDeque::new(),
            read: None,
            past: None,
            bookmarks: None,
            next_bookmark: Instant::now() + BOOKMARK_INTERVAL,
            deadline: None,
            timer: None,
            shown: None,
            converted: 0,
            cuts: cache.state.read().cuts,
            over: false,
        }
    }

    /// Starts with these events.
    pub(crate) fn starting_with(mut self, events: impl IntoIterator<Item = Event>) -> Self {
        self.ready.extend(events);
        self
    }

    /// Reads what has left the ring elsewhere.
    pub(crate) fn with_past(mut self, read: ReadPast) -> Self {
        self.read = Some(read);
        self
    }

    /// Starts with the changes that are not in the ring, up to `until`. Refused when they are forgotten.
    pub(crate) async fn starting_before(mut self, until: u64) -> Result<Self, Status> {
        if self.read.is_none() {
            return Err(Status::resource_expired(format!("too old resource version: {} ({until})", self.seen)));
        }
        self.past = Some(until);
        self.read_past().await?;
        Ok(self)
    }

    /// Sends bookmarks.
    pub(crate) fn with_bookmarks(mut self, current: CurrentRevision) -> Self {
        self.bookmarks = Some(current);
        self.schedule_bookmark();
        self
    }

    /// Ends after `timeout`.
    pub(crate) fn with_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self
    }

    /// Shows the objects as another kind, if `res` is one that does.
    pub(crate) fn shown_as(mut self, res: &Arc<Served>) -> Self {
        self.shown = (!res.shows_what_is_stored()).then(|| res.clone());
        self
    }

    /// An event as its watcher sees it, without asking anybody.
    fn show(shown: Option<&Arc<Served>>, event: Event) -> Event {
        match shown {
            None => event,
            Some(_) if event.kind == EventType::Error => event,
            // Its frame is shared with the other watchers.
            Some(res) if res.is_shown(&event.entry) && !res.is_converted() => event,
            Some(res) if event.kind == EventType::Bookmark => Event::new(event.kind, res.show_bookmark(&event.entry)),
            Some(res) => Event::new(event.kind, res.show_here(&event.entry)),
        }
    }

    /// Shows the events that wait, where somebody else converts: several at once, and each to all who watch. Who cannot be shown an object is
    /// told why, and lists again.
    async fn convert_ready(&mut self, res: &Arc<Served>) -> Option<Event> {
        let asks = |event: &Event| !matches!(event.kind, EventType::Error | EventType::Bookmark);
        // One that cannot be converted does not keep those before it back.
        for most in [BATCH, 1] {
            let count = most.min(self.ready.len());
            let events = self.ready.iter().take(count);
            let mut entries: Vec<Arc<Entry>> = events.filter(|event| asks(event)).map(|event| event.entry.clone()).collect();
            match res.show_changes(&mut entries).await {
                Ok(()) => {
                    let mut entries = entries.into_iter();
                    for event in self.ready.iter_mut().take(count) {
                        let converted = if asks(event) { entries.next() } else { None };
                        *event = match converted {
                            Some(entry) => Event::new(event.kind, entry),
                            None => Self::show(Some(res), event.clone()),
                        };
                    }
                    self.converted = count;
                    return None;
                }
                Err(status) if count <= 1 => {
                    self.over = true;
                    self.ready.clear();
                    return Some(Event::error(self.cache.bookmark(0, false).entry, status));
                }
                Err(_) => {}
            }
        }
        None
    }

    /// Who converts elsewhere what is watched.
    fn converted_elsewhere(&self) -> Option<Arc<Served>> {
        self.shown.clone().filter(|res| res.is_converted_elsewhere())
    }

    /// The next event, none at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(by_converted) = self.by_converted.clone()
                && let Some(event) = self.next_by_converted(&by_converted).await
            {
                return Some(event);
            }
            if let Some(res) = self.converted_elsewhere().filter(|_| !self.ready.is_empty()) {
                if self.converted == 0
                    && let Some(error) = self.convert_ready(&res).await
                {
                    return Some(error);
                }
                self.converted = self.converted.saturating_sub(1);
                return self.ready.pop_front();
            }
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
        if self.ready.is_empty() && self.changes.is_empty() && self.past.is_none() && !self.over {
            self.fill();
        }
        let (shown, are_shown) = (self.shown.clone(), self.by_converted.is_some());
        // What somebody else converts is not there without waiting.
        let count = if !are_shown && self.converted_elsewhere().is_some() { 0 } else { self.ready.len() };
        self.ready.drain(..count).map(move |event| match event.kind {
            EventType::Added | EventType::Modified | EventType::Deleted if are_shown => event,
            _ => Self::show(shown.as_ref(), event),
        })
    }

    /// The events as a stream.
    pub fn into_stream(self) -> BoxStream<'static, Event> {
        futures::stream::unfold(self, |mut watch| async move { watch.next().await.map(|event| (event, watch)) }).boxed()
    }

    /// Waits for something to send, or for the end.
    async fn advance(&mut self) {
        if self.past.is_some() {
            let deadline = self.deadline;
            tokio::select! {
                read = self.read_past() => if let Err(status) = read { self.fail(status) },
                () = sleep_until(deadline) => self.over = true,
            }
            return;
        }
        self.changed.mark_unchanged();
        if self.fill() > 0 || self.over {
            return;
        }
        let bookmark = self.bookmarks.is_some().then_some(self.next_bookmark);
        let wake = [self.deadline, bookmark].into_iter().flatten().min();
        if let Some(wake) = wake {
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wake)));
            if timer.deadline() != wake {
                timer.as_mut().reset(wake);
            }
        }
        let timer = async {
            match &mut self.timer {
                Some(timer) if wake.is_some() => timer.await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.changed.changed() => self.over = changed.is_err(),
            () = timer => match self.deadline {
                Some(deadline) if Some(deadline) == wake => self.over = true,
                _ => self.bookmark(),
            },
        }
    }

    /// Moves the next page of the past to `ready`.
    async fn read_past(&mut self) -> Result<(), Status> {
        let (Some(until), Some(read)) = (self.past, &self.read) else { return Ok(()) };
        let page = read(self.seen, until).await?;
        // What comes later is in the ring.
        let wanted = page.changes.iter().filter(|change| change.revision() <= until);
        wanted.for_each(|change| self.see(change));
        self.seen = page.upto.min(until);
        if self.seen >= until {
            self.past = None;
        }
        Ok(())
    }

    /// Moves what the ring has to `ready`; says how many changes it looked at.
    fn fill(&mut self) -> usize {
        let state = self.cache.state.read();
        if self.position < state.start {
            // Both under one lock: the ring moves on.
            let (start, complete_after) = (state.start, state.complete_after);
            drop(state);
            if self.read.is_none() {
                self.fail(Status::resource_expired("too old resource version: the watcher is too slow, list again"));
            } else {
                (self.position, self.past) = (start, Some(complete_after));
            }
            return 1;
        }
        let at = usize::try_from(self.position - state.start).unwrap_or(usize::MAX);
        let changes: Vec<_> = state.ring.iter().skip(at).take(BATCH).cloned().collect();
        self.over |= changes.is_empty() && state.cuts != self.cuts;
        drop(state);
        self.position += changes.len() as u64;
        self.seen = changes.last().map_or(self.seen, |change| change.revision().max(self.seen));
        changes.iter().for_each(|change| self.see(change));
        changes.len()
    }

    fn see(&mut self, change: &Arc<Change>) {
        if self.by_converted.is_some() {
            self.changes.extend((self.selects)(&change.entry).then(|| change.clone()));
            return;
        }
        let cache = self.cache.clone();
        if let Some(event) = change.seen(&self.selects, |entry| cache.restamp(entry, change.revision())) {
            self.ready.push_back(event);
        }
    }

    fn schedule_bookmark(&mut self) {
        let now = Instant::now();
        let last = self.deadline.and_then(|deadline| deadline.checked_sub(LAST_BOOKMARK)).filter(|last| *last > now);
        self.next_bookmark = last.map_or(now + BOOKMARK_INTERVAL, |last| last.min(now + BOOKMARK_INTERVAL));
    }

    fn bookmark(&mut self) {
        self.schedule_bookmark();
        if let Some(current) = &self.bookmarks {
            // Read the revision before the ring: a bookmark never runs ahead of the events.
            let revision = current();
            if self.fill() == 0 {
                self.ready.push_back(self.cache.bookmark(revision, false));
            }
        }
    }

    /// Ends with an error.
    fn fail(&mut self, status: Status) {
        self.over = true;
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
        let form = self.form.load();
        let def = &form.def;
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
