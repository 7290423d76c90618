//! Killing the process at any instant loses no acknowledged write.
//!
//! The test runs itself again as a child, whose writers tell the parent of every acknowledged write by a pipe, and kills it.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use common::{noise, write};
use store::{Engine, Error, Event, Fjall, History, Options, Revision};

const ROUNDS: u64 = 51;
const WRITERS: usize = 64;
const DIRECTORY: &str = "KNARR_STORE_CRASH_DIRECTORY";

fn options(dir: &Path) -> Options {
    Options {
        history: History { entries: 10_000, bytes: 256 << 20, keep: Duration::ZERO },
        reserve: 1 << 20,
        ..Options::new(dir)
    }
}

/// What a writer writes: some keys are overwritten often, some are deleted, some are large.
fn value(writer: usize, n: u64) -> Option<Bytes> {
    let len = if n.is_multiple_of(97) { 50_000 } else { 50 + (n as usize * 37) % 500 };
    (n % 5 != 4).then(|| {
        let mut bytes = format!("{writer} {n} ").into_bytes();
        bytes.extend_from_slice(&noise(n, len));
        bytes.into()
    })
}

fn key(writer: usize, n: u64) -> String {
    // A deletion follows the write of the same key.
    format!("/{writer}/{}", (n - u64::from(n % 5 == 4)) % 200)
}

/// The child: writes until it is killed, and prints `writer n revision` after each acknowledgement.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (tasks, mut failures) = Tasks::root();
        let engine = Fjall::open(options(Path::new(&dir)), &tasks).await.unwrap();
        // Writes and deletions come in fives.
        let first = (engine.revision() / 5 + 1) * 5;
        for writer in 0..WRITERS {
            let engine = engine.clone();
            tasks.spawn("writer", OnFailure::Shutdown, async move {
                for n in first.. {
                    let revision = engine.commit(write(&key(writer, n), value(writer, n))).await?;
                    let line = format!("{writer} {n} {revision}\n");
                    // One write call: lines of a killed process are whole or missing.
                    std::io::stderr().write_all(line.as_bytes()).map_err(|error| Error::Failed(error.to_string()))?;
                }
                Ok::<_, Error>(())
            });
        }
        panic!("{:?}", failures.recv().await);
    });
}

/// What the parent knows: the last acknowledged write of each key, and of all.
#[derive(Default)]
struct Known {
    keys: HashMap<String, (Revision, Option<Bytes>)>,
    last: Revision,
    count: u64,
}

impl Known {
    /// Runs a child for a while, kills it, and learns what it acknowledged.
    fn round(&mut self, dir: &Path, time: Duration) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DIRECTORY, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut killed = None;
        let mut deadline = None;
        while let Some(Ok(line)) = lines.next() {
            let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap_or_else(|_| panic!("{line}"))).collect();
            let [writer, n, revision] = numbers[..] else { panic!("{line}") };
            self.learn(writer as usize, n, revision);
            // The time begins with the first write, so that the kill hits a working store.
            if killed.is_none() && Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + time) {
                child.kill().unwrap();
                killed = Some(());
            }
        }
        assert!(killed.is_some(), "the child ended by itself");
        child.wait().unwrap();
    }

    fn learn(&mut self, writer: usize, n: u64, revision: Revision) {
        self.count += 1;
        self.last = self.last.max(revision);
        let known = self.keys.entry(key(writer, n)).or_default();
        assert!(revision > known.0, "revisions rise");
        *known = (revision, value(writer, n));
    }

    /// Everything acknowledged is there, unless a later write, perhaps not acknowledged, replaced it.
    async fn check(&mut self, engine: &Fjall) {
        let current = engine.revision();
        assert!(current >= self.last, "revision {current} is before {}", self.last);
        let page = engine.range(b"", b"", None, 0).await.unwrap();
        assert_eq!(page.revision, current);
        let found: HashMap<_, _> = page.records.iter().map(|record| (record.key.clone(), record)).collect();
        let events = history(engine, current).await;
        let latest: HashMap<_, _> = events.iter().map(|event| (event.key.clone(), event)).collect();
        for (key, (revision, value)) in &mut self.keys {
            let record = found.get(key.as_bytes());
            if let Some(event) = latest.get(key.as_bytes()).filter(|event| event.revision > *revision) {
                // Committed, but killed before the acknowledgement.
                (*revision, *value) = (event.revision, event.value.clone());
            }
            let expected = value.as_ref().map(|value| (*revision, value));
            assert_eq!(record.map(|record| (record.revision, &record.value)), expected, "{key}");
        }
        self.last = current;
    }
}

/// Every kept event, checked to be an unbroken line of revisions whose last states are the current ones.
async fn history(engine: &Fjall, current: Revision) -> Vec<Event> {
    let oldest = engine.compacted();
    let (mut events, mut after) = (Vec::new(), oldest);
    while after < current {
        let changes = engine.changes(b"", after, current).await.unwrap();
        events.extend(changes.events);
        after = changes.upto;
    }
    let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (oldest + 1..=current).collect::<Vec<_>>());
    let mut last: HashMap<&Bytes, &Event> = HashMap::new();
    for event in &events {
        if let Some(before) = last.insert(&event.key, event) {
            let previous = event.previous.as_ref().map(|record| (record.revision, &record.value));
            assert_eq!(previous, before.value.as_ref().map(|value| (before.revision, value)));
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = Known::default();
    for round in 0..ROUNDS {
        let time = Duration::from_millis(u64::from(noise(round, 1)[0]) / 2);
        tokio::task::block_in_place(|| known.round(dir.path(), time));
        // Every few rounds the next child recovers what the one before left, without the parent in between.
        if round % 3 == 2 {
            let (tasks, _failures) = Tasks::root();
            let engine = Fjall::open(options(dir.path()), &tasks).await.unwrap();
            known.check(&engine).await;
            engine.close().await;
        }
    }
    println!("{ROUNDS} kills, {} acknowledged writes", known.count);
    assert!(known.count > 50 * ROUNDS, "the children worked: {}", known.count);
}
