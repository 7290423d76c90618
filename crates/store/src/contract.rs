//! What every engine must do, written against the trait. An engine's tests call [`check`] with a way to open it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Change, Engine, Error, Event, Expect, Lane, PAGE_BYTES, Record, Revision, Sink, Write};

/// Opens and reopens the engine under test.
#[async_trait]
pub trait Factory: Send + Sync {
    /// An engine with no data.
    async fn empty(&self) -> Arc<dyn Engine>;

    /// The engine that [`Factory::empty`] returned last, after a restart.
    async fn restart(&self) -> Arc<dyn Engine>;
}

/// Runs the whole suite.
pub async fn check(factory: &dyn Factory) {
    revisions_rise_by_one_and_conflicts_take_none(&*factory.empty().await).await;
    concurrent_writers_have_one_winner(factory.empty().await).await;
    ranges_are_sorted_limited_and_end_before_the_end(&*factory.empty().await).await;
    ranges_show_what_was_written_in_any_order(&*factory.empty().await).await;
    pages_of_large_records_are_short(&*factory.empty().await).await;
    the_past_is_kept_until_compaction(&*factory.empty().await).await;
    changes_and_a_sink_have_no_gap_and_no_duplicate(factory.empty().await).await;
    reads_show_what_is_published(factory.empty().await).await;
    sinks_see_a_commit_before_its_writer(factory.empty().await).await;
    a_hold_goes_with_the_write(factory.empty().await).await;
    the_ephemeral_lane_has_no_history(&*factory.empty().await).await;
    what_expires_is_deleted_with_an_event(&*factory.empty().await).await;
    a_restart_keeps_everything(factory).await;
}

/// A write in the durable lane.
pub fn write(key: &str, expect: Expect, value: Option<&str>) -> Write {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    let change = value.map_or(Change::Delete, Change::Put);
    Write::new(Bytes::copy_from_slice(key.as_bytes()), expect, change, Lane::Durable)
}

fn lease(key: &str, value: Option<&str>, ttl: Option<Duration>) -> Write {
    Write { lane: Lane::Ephemeral, ttl, ..write(key, Expect::Anything, value) }
}

/// `(key, value, revision)` of records, readable in assertions.
fn show(records: &[Record]) -> Vec<(String, String, Revision)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    records.iter().map(|record| (text(&record.key), text(&record.value), record.revision)).collect()
}

fn row(key: &str, value: &str, revision: Revision) -> (String, String, Revision) {
    (key.into(), value.into(), revision)
}

async fn put(engine: &dyn Engine, key: &str, value: &str) -> Revision {
    engine.commit(write(key, Expect::Anything, Some(value))).await.unwrap()
}

async fn delete(engine: &dyn Engine, key: &str) -> Revision {
    engine.commit(write(key, Expect::Anything, None)).await.unwrap()
}

async fn range(engine: &dyn Engine, at: Option<Revision>) -> Vec<(String, String, Revision)> {
    show(&engine.range(b"", b"", at, 0).await.unwrap().records)
}

/// All of history after a revision.
pub async fn history(engine: &dyn Engine, prefix: &str, mut after: Revision) -> Result<Vec<Event>, Error> {
    let upto = engine.revision();
    let mut events = Vec::new();
    while after < upto {
        let changes = engine.changes(prefix.as_bytes(), after, upto).await?;
        assert!(changes.upto > after && changes.upto <= upto, "reading goes on");
        assert!(changes.events.iter().all(|event| event.revision > after && event.revision <= changes.upto));
        events.extend(changes.events);
        after = changes.upto;
    }
    Ok(events)
}

fn revisions(events: &[Event]) -> Vec<Revision> {
    events.iter().map(|event| event.revision).collect()
}

async fn revisions_rise_by_one_and_conflicts_take_none(engine: &dyn Engine) {
    let start = engine.revision();
    assert_eq!(engine.get(b"a").await, Ok(None));
    let first = put(engine, "a", "1").await;
    assert_eq!(first, start + 1);
    let record = engine.get(b"a").await.unwrap().unwrap();
    assert_eq!(show(std::slice::from_ref(&record)), [row("a", "1", first)]);
    let conflicts = [
        (write("a", Expect::Absent, Some("2")), Some(record.clone())),
        (write("a", Expect::At(first + 1), Some("2")), Some(record.clone())),
        (write("a", Expect::At(first + 1), None), Some(record)),
        (write("b", Expect::At(first), Some("2")), None),
        (write("b", Expect::Anything, None), None),
    ];
    for (write, current) in conflicts {
        assert_eq!(engine.commit(write).await, Err(Error::Conflict(current)));
    }
    assert_eq!(engine.revision(), first);
    assert_eq!(engine.commit(write("a", Expect::At(first), Some("2"))).await, Ok(first + 1));
    assert_eq!(engine.commit(write("a", Expect::At(first + 1), None)).await, Ok(first + 2));
    assert_eq!(engine.get(b"a").await, Ok(None));
    assert_eq!(engine.commit(write("a", Expect::Absent, Some("3"))).await, Ok(first + 3));
    assert_eq!(engine.revision(), first + 3);
}

async fn concurrent_writers_have_one_winner(engine: Arc<dyn Engine>) {
    const WRITERS: u64 = 16;
    let start = put(&*engine, "counter", "0").await;
    let increments = (0..WRITERS).map(|_| async {
        loop {
            let record = engine.get(b"counter").await.unwrap().unwrap();
            let next: u64 = std::str::from_utf8(&record.value).unwrap().parse::<u64>().unwrap() + 1;
            match engine.commit(write("counter", Expect::At(record.revision), Some(&next.to_string()))).await {
                Ok(_) => return,
                Err(error) => assert!(matches!(error, Error::Conflict(Some(_))), "{error}"),
            }
        }
    });
    futures::future::join_all(increments).await;
    assert_eq!(range(&*engine, None).await, [row("counter", &WRITERS.to_string(), start + WRITERS)]);
}

async fn ranges_are_sorted_limited_and_end_before_the_end(engine: &dyn Engine) {
    for key in ["/b/2", "/a/1", "/b/1", "/c", "/b/10"] {
        put(engine, key, "v").await;
    }
    let cases: [(&str, &str, usize, &[&str], bool); 7] = [
        ("/b/", "/b0", 0, &["/b/1", "/b/10", "/b/2"], false),
        ("/b/", "/b0", 2, &["/b/1", "/b/10"], true),
        ("/b/", "/b0", 3, &["/b/1", "/b/10", "/b/2"], false),
        ("/b/1\0", "/b0", 1, &["/b/10"], true),
        ("/b/2", "/c", 0, &["/b/2"], false),
        ("/b/2", "", 0, &["/b/2", "/c"], false),
        ("/c", "/b", 0, &[], false),
    ];
    for (start, end, limit, keys, more) in cases {
        let page = engine.range(start.as_bytes(), end.as_bytes(), None, limit).await.unwrap();
        let found: Vec<_> = page.records.iter().map(|record| record.key.clone()).collect();
        assert_eq!((found, page.more), (keys.iter().map(|key| Bytes::from(key.to_string())).collect(), more), "{start} {end}");
        assert_eq!(page.revision, engine.revision());
    }
}

/// Keys are written in another order than they are read, near to each other and far apart, again and again.
async fn ranges_show_what_was_written_in_any_order(engine: &dyn Engine) {
    let mut model = std::collections::BTreeMap::new();
    let mut past = Vec::new();
    for step in 0..240_u64 {
        let key = format!("k{:02}", (step * step * 7 + step / 3) % 83);
        if step % 11 == 5 && model.remove(&key).is_some() {
            delete(engine, &key).await;
        } else {
            let value = format!("v{step}");
            let revision = put(engine, &key, &value).await;
            model.insert(key.clone(), row(&key, &value, revision));
        }
        if step % 40 == 39 {
            past.push((engine.revision(), model.values().cloned().collect::<Vec<_>>()));
        }
    }
    let all: Vec<_> = model.into_values().collect();
    assert_eq!(range(engine, None).await, all);
    for limit in [1, 7, 40] {
        assert_eq!(show(&engine.range(b"", b"", None, limit).await.unwrap().records), all[..limit]);
    }
    for (revision, expected) in past {
        assert_eq!(range(engine, Some(revision)).await, expected, "at {revision}");
    }
}

/// A page ends with its limit or after so many bytes, and what follows it is the rest.
async fn pages_of_large_records_are_short(engine: &dyn Engine) {
    const RECORDS: usize = 80;
    let large = "x".repeat(PAGE_BYTES / 20);
    for number in 0..RECORDS {
        put(engine, &format!("k{number:02}"), &large).await;
    }
    let before = engine.revision();
    put(engine, "k00", "small").await;
    for at in [None, Some(before)] {
        let (mut start, mut found, mut pages) = (Bytes::new(), Vec::new(), 0);
        loop {
            let page = engine.range(&start, b"", at, 1000).await.unwrap();
            let bytes: usize = page.records.iter().map(|record| record.value.len()).sum();
            assert!(bytes < 3 * PAGE_BYTES, "{bytes} bytes");
            pages += 1;
            found.extend(page.records.iter().map(|record| record.key.clone()));
            match page.records.last() {
                Some(last) if page.more => start = [&last.key, &b"\0"[..]].concat().into(),
                _ => break,
            }
        }
        assert!(pages > 1);
        assert_eq!(found, (0..RECORDS).map(|number| Bytes::from(format!("k{number:02}"))).collect::<Vec<_>>());
    }
    assert_eq!(engine.range(b"", b"", None, 0).await.unwrap().records.len(), RECORDS, "without a limit it is all");
}

async fn the_past_is_kept_until_compaction(engine: &dyn Engine) {
    let start = put(engine, "kept", "1").await;
    put(engine, "gone", "1").await;
    put(engine, "new", "1").await;
    put(engine, "gone", "2").await;
    delete(engine, "gone").await;
    put(engine, "new", "2").await;
    let kept = row("kept", "1", start);
    let (gone, new) = (row("gone", "1", start + 1), row("new", "1", start + 2));
    assert_eq!(range(engine, Some(start)).await, std::slice::from_ref(&kept));
    assert_eq!(range(engine, Some(start + 2)).await, [gone, kept.clone(), new.clone()]);
    assert_eq!(range(engine, Some(start + 3)).await, [row("gone", "2", start + 3), kept.clone(), new.clone()]);
    assert_eq!(range(engine, Some(start + 4)).await, [kept.clone(), new.clone()]);
    assert_eq!(range(engine, Some(start + 5)).await, [kept.clone(), row("new", "2", start + 5)]);
    let page = engine.range(b"kept", b"", Some(start + 2), 1).await.unwrap();
    assert_eq!((show(&page.records), page.revision, page.more), (vec![kept.clone()], start + 2, true));
    assert_eq!(engine.range(b"", b"", Some(start + 6), 0).await.err(), Some(Error::Future(start + 5)));
    assert_eq!(engine.compact(start + 6).await, Err(Error::Future(start + 5)));

    engine.compact(start + 4).await.unwrap();
    assert_eq!(engine.compacted(), start + 4);
    assert_eq!(engine.range(b"", b"", Some(start + 3), 0).await.err(), Some(Error::Compacted(start + 4)));
    assert_eq!(history(engine, "", start + 3).await.err(), Some(Error::Compacted(start + 4)));
    assert_eq!(engine.changes(b"", start + 4, start + 6).await.err(), Some(Error::Future(start + 5)));
    assert_eq!(range(engine, Some(start + 4)).await, [kept.clone(), new]);
    let event = history(engine, "", start + 4).await.unwrap().remove(0);
    assert_eq!(event.previous.map(|record| record.revision), Some(start + 2), "what an event replaced outlives compaction");
    engine.compact(start).await.unwrap();
    assert_eq!(engine.compacted(), start + 4, "compaction does not go back");
    assert_eq!(range(engine, None).await, [kept, row("new", "2", start + 5)]);
}

async fn changes_and_a_sink_have_no_gap_and_no_duplicate(engine: Arc<dyn Engine>) {
    let start = put(&*engine, "/a/x", "0").await;
    put(&*engine, "/b/x", "0").await;
    let writer = engine.clone();
    let writes = async move {
        for n in 0..600 {
            put(&*writer, if n % 3 == 0 { "/b/x" } else { "/a/x" }, &n.to_string()).await;
        }
        delete(&*writer, "/a/x").await;
    };
    let reads = async {
        let mut followers = Vec::new();
        for after in [start - 1, start, start + 1] {
            let sink = Arc::new(Recorder::default());
            let from = engine.subscribe(sink.clone());
            assert!(from >= after);
            let mut events = history(&*engine, "/a/", after).await.unwrap();
            events.retain(|event| event.revision <= from);
            followers.push((after, events, sink));
            tokio::task::yield_now().await;
        }
        followers
    };
    let ((), followers) = tokio::join!(writes, reads);
    for (after, mut events, sink) in followers {
        events.extend(sink.0.lock().iter().filter(|event| event.key.starts_with(b"/a/")).cloned());
        assert_eq!(events.len(), if after < start { 402 } else { 401 });
        assert!(events.iter().all(|event| event.key == "/a/x"));
        for pair in events.windows(2) {
            let previous = pair[1].previous.as_ref().map(|record| (record.revision, Some(&record.value)));
            assert_eq!(previous, Some((pair[0].revision, pair[0].value.as_ref())), "each event names the one before");
        }
        assert_eq!(events.last().and_then(|event| event.value.clone()), None);
    }
}

/// Takes its time, so that what a reader sees too early is seen.
struct Slow;

impl Sink for Slow {
    fn apply(&self, _: &[Event]) {
        let (_open, never) = std::sync::mpsc::channel::<()>();
        let _ = never.recv_timeout(Duration::from_millis(2));
    }
}

async fn reads_show_what_is_published(engine: Arc<dyn Engine>) {
    let start = put(&*engine, "k", "0").await;
    put(&*engine, "other", "0").await;
    engine.subscribe(Arc::new(Slow));
    let sink = Arc::new(Recorder::default());
    engine.subscribe(sink.clone());
    let writer = engine.clone();
    let writes = async move {
        for n in 0..50 {
            delete(&*writer, "k").await;
            put(&*writer, "k", &n.to_string()).await;
        }
    };
    let check = |revision: Revision, what: &str| {
        assert!(engine.revision() >= revision, "{what}: {revision} is not published");
        assert!(sink.0.lock().last().map_or(start + 1, |event| event.revision) >= revision, "{what}: {revision} is in no sink");
    };
    let reads = async {
        let mut last = start;
        while engine.revision() < start + 101 {
            match engine.get(b"k").await.unwrap() {
                Some(record) => last = record.revision,
                None => check(last + 1, "a deletion"),
            }
            check(last, "a record");
            let page = engine.range(b"", b"", None, 0).await.unwrap();
            check(page.revision, "a range");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writes, reads);
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Sink for Recorder {
    fn apply(&self, events: &[Event]) {
        self.0.lock().extend_from_slice(events);
    }
}

async fn sinks_see_a_commit_before_its_writer(engine: Arc<dyn Engine>) {
    put(&*engine, "before", "1").await;
    let sink = Arc::new(Recorder::default());
    let from = engine.subscribe(sink.clone());
    assert_eq!(from, engine.revision());
    let commits = (0..200).map(|n| {
        let (engine, sink) = (engine.clone(), sink.clone());
        async move {
            let note: crate::Note = Arc::new(n);
            let write = Write { note: Some(note), ..write(&format!("k{n}"), Expect::Absent, Some("v")) };
            let revision = engine.commit(write).await.unwrap();
            assert!(sink.0.lock().iter().any(|event| event.revision == revision), "seen before the answer");
        }
    });
    futures::future::join_all(commits).await;
    engine.commit(lease("lease", Some("v"), None)).await.unwrap();
    let events = sink.0.lock();
    assert_eq!(revisions(&events), (from + 1..=from + 201).collect::<Vec<_>>(), "every commit once, in order");
    let note = |event: &Event| event.note.clone().and_then(|note| note.downcast::<i32>().ok());
    assert!(events[..200].iter().all(|event| note(event).is_some_and(|n| event.key == format!("k{n}"))));
    assert_eq!(events[200].lane, Lane::Ephemeral);
}

/// Notes whether the hold was there when a sink saw the write.
struct Held(std::sync::Weak<()>, Mutex<Vec<bool>>);

impl Sink for Held {
    fn apply(&self, events: &[Event]) {
        self.1.lock().extend(events.iter().map(|_| self.0.strong_count() > 0));
    }
}

async fn a_hold_goes_with_the_write(engine: Arc<dyn Engine>) {
    let hold = Arc::new(());
    let sink = Arc::new(Held(Arc::downgrade(&hold), Mutex::default()));
    engine.subscribe(sink.clone());
    let gone = async || {
        while sink.0.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    // Who has queued the write does not wait for it.
    {
        let holds: Vec<crate::Hold> = vec![hold];
        let commit = engine.commit(Write { holds, ..write("a", Expect::Absent, Some("1")) });
        // The answer may be there already.
        let _ = futures::poll!(std::pin::pin!(commit));
    }
    gone().await;
    assert_eq!(*sink.1.lock(), [true]);
    // Who has the answer may have what was held, also where the write did not happen: a caller that tries again at once must not stand in its
    // own way. Often, since the one who drops it may be slower.
    let mut written = 0;
    for n in 0..200 {
        let hold: crate::Hold = Arc::new(());
        let weak = Arc::downgrade(&hold);
        let expect = if n % 2 == 0 { Expect::Anything } else { Expect::Absent };
        let done = engine.commit(Write { holds: vec![hold], ..write("a", expect, Some("2")) }).await;
        assert_eq!(weak.strong_count(), 0, "{done:?}");
        written += u64::from(done.is_ok());
    }
    assert_eq!(written, 100);
}

async fn the_ephemeral_lane_has_no_history(engine: &dyn Engine) {
    let start = put(engine, "/a", "1").await;
    let sink = Arc::new(Recorder::default());
    engine.subscribe(sink.clone());
    let revision = engine.commit(lease("/lease", Some("1"), None)).await.unwrap();
    assert_eq!(revision, start + 1, "both lanes share one line of revisions");
    let conflict = engine.commit(Write { expect: Expect::At(start), ..lease("/lease", Some("2"), None) }).await;
    assert!(matches!(conflict, Err(Error::Conflict(Some(record))) if record.revision == revision));
    engine.commit(Write { expect: Expect::At(revision), ..lease("/lease", Some("2"), None) }).await.unwrap();
    put(engine, "/b", "1").await;
    assert_eq!(revisions(&sink.0.lock()), [start + 1, start + 2, start + 3]);
    let rows = [row("/a", "1", start), row("/b", "1", start + 3), row("/lease", "2", start + 2)];
    assert_eq!(range(engine, None).await, rows);
    assert_eq!(revisions(&history(engine, "/", start).await.unwrap()), [start + 3], "history has the durable lane only");
    assert_eq!(show(engine.get(b"/lease").await.unwrap().as_slice()), rows[2..]);
    engine.commit(lease("/lease", None, None)).await.unwrap();
    assert_eq!(engine.get(b"/lease").await, Ok(None));
}

async fn what_expires_is_deleted_with_an_event(engine: &dyn Engine) {
    let start = engine.revision();
    let sink = Arc::new(Recorder::default());
    engine.subscribe(sink.clone());
    engine.commit(lease("long", Some("v"), Some(Duration::from_secs(3600)))).await.unwrap();
    engine.commit(lease("renewed", Some("v"), Some(Duration::from_millis(2000)))).await.unwrap();
    engine.commit(lease("renewed", Some("w"), Some(Duration::from_secs(3600)))).await.unwrap();
    engine.commit(lease("short", Some("v"), Some(Duration::from_millis(2200)))).await.unwrap();
    while engine.revision() < start + 5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let last = sink.0.lock()[4].clone();
    assert_eq!((last.revision, &last.key[..], &last.value), (start + 5, &b"short"[..], &None));
    assert_eq!(last.previous.as_ref().map(|record| record.revision), Some(start + 4));
    let rows = [row("long", "v", start + 1), row("renewed", "w", start + 3)];
    assert_eq!(range(engine, None).await, rows);
}

async fn a_restart_keeps_everything(factory: &dyn Factory) {
    let engine = factory.empty().await;
    let start = put(&*engine, "a", "1").await;
    put(&*engine, "a", "2").await;
    delete(&*engine, "a").await;
    put(&*engine, "b", "1").await;
    engine.commit(lease("lease", Some("v"), Some(Duration::from_secs(3600)))).await.unwrap();
    engine.commit(lease("dying", Some("v"), Some(Duration::from_millis(1)))).await.unwrap();
    engine.compact(start).await.unwrap();
    drop(engine);

    let engine = factory.restart().await;
    let events = history(&*engine, "", start).await.unwrap();
    assert_eq!(revisions(&events), [start + 1, start + 2, start + 3]);
    assert_eq!(range(&*engine, Some(start + 1)).await[0], row("a", "2", start + 1));
    // The deletion of what expired may come before or after the restart, and takes the next revision.
    while engine.get(b"dying").await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(engine.revision(), start + 6);
    assert_eq!(range(&*engine, None).await, [row("b", "1", start + 3), row("lease", "v", start + 4)]);
    assert_eq!(put(&*engine, "c", "1").await, start + 7, "revisions go on");
}
