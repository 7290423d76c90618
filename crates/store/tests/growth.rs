//! The directory stays under twice the live data plus a constant, however long it is written.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::Duration;

use base::tasks::Tasks;
use common::{disk, noise, write};
use futures::future::join_all;
use store::{Engine, Fjall, History, Options};

const VALUE: usize = 32 << 10;
const KEYS: usize = 400;
const LIVE: u64 = (KEYS * VALUE) as u64;

/// What the store takes beside the data: two journals of 64 MiB and what is written before they are let go, tables that wait
/// for compaction, and history.
const CONSTANT: u64 = 256 << 20;

struct Growth<'a> {
    engine: &'a Fjall,
    dir: &'a Path,
    written: u64,
    largest: u64,
}

impl Growth<'_> {
    /// Writes `KEYS` keys that start with `prefix`, or deletes them.
    async fn round(&mut self, prefix: &str, put: bool) {
        let seed = self.written;
        let writes = (0..KEYS).map(|n| {
            let value = put.then(|| noise(seed + n as u64, VALUE));
            self.engine.commit(write(&format!("/{prefix}/{n:05}"), value))
        });
        for result in join_all(writes).await {
            result.unwrap();
        }
        self.written += if put { LIVE } else { 0 };
        self.largest = self.largest.max(disk(self.dir));
        assert!(self.largest <= 2 * LIVE + CONSTANT, "{} MiB on disk after {} MiB", self.largest >> 20, self.written >> 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_overwrites_and_deletes_do_not_grow_the_directory() {
    let (tasks, _failures) = Tasks::root();
    let dir = tempfile::tempdir().unwrap();
    let history = History { entries: 10_000, bytes: 8 << 20, keep: Duration::ZERO };
    let options = Options { history, reserve: 1 << 20, ..Options::new(dir.path()) };
    let engine = Fjall::open(options, &tasks).await.unwrap();
    let mut growth = Growth { engine: &engine, dir: dir.path(), written: 0, largest: 0 };
    for _ in 0..30 {
        growth.round("same", true).await;
    }
    println!("overwritten: {} MiB written, {} MiB at most", growth.written >> 20, growth.largest >> 20);
    for n in 0..30 {
        growth.round(&format!("new-{n}"), true).await;
        growth.round(&format!("new-{n}"), false).await;
    }
    println!("created and deleted: {} MiB written, {} MiB at most", growth.written >> 20, growth.largest >> 20);
    assert!(growth.written > 2 * (2 * LIVE + CONSTANT), "enough was written to exceed the bound");
    let page = engine.range(b"", b"", None, 0).await.unwrap();
    assert_eq!(page.records.len(), KEYS, "only what is live is left");
    engine.close().await;
}

/// Marks of deletion are small: nothing but their weight in what they delete tells that the tables are worth rewriting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_given_back_though_nothing_more_is_written() {
    const MANY: usize = 12_000;
    let (tasks, _failures) = Tasks::root();
    let dir = tempfile::tempdir().unwrap();
    let history = History { entries: 10_000, bytes: 8 << 20, keep: Duration::ZERO };
    let options = Options { history, reserve: 1 << 20, ..Options::new(dir.path()) };
    let engine = Fjall::open(options, &tasks).await.unwrap();
    for put in [true, false] {
        for n in (0..MANY).step_by(500) {
            // Every old file loses a little at a time.
            let key = |n: usize| format!("/{:05}", n * 7919 % MANY);
            let value = |n: usize| put.then(|| noise(n as u64, VALUE));
            let writes = (n..n + 500).map(|n| engine.commit(write(&key(n), value(n))));
            join_all(writes).await.into_iter().for_each(|result| assert!(result.is_ok()));
        }
        println!("put {put}: {} MiB", disk(dir.path()) >> 20);
    }
    let mut tries = 0;
    while disk(dir.path()) > CONSTANT / 2 {
        tries += 1;
        assert!(tries < 300, "{} MiB are left of nothing", disk(dir.path()) >> 20);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("after: {} MiB", disk(dir.path()) >> 20);
    engine.close().await;
}
