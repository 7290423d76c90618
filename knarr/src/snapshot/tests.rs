#![allow(clippy::unwrap_used)]
use std::path::PathBuf;

use base::tasks::Tasks;
use store::{Change, Engine, Expect, Fjall, Lane, Options};

use super::*;

fn put(key: &'static str, value: &'static str) -> store::Write {
    let change = Change::Put(value.into());
    store::Write {
        key: key.into(),
        expect: Expect::Anything,
        change,
        lane: Lane::Durable,
        ttl: None,
        note: None,
        holds: Vec::new(),
        removes: false,
    }
}

/// A data directory with keys and a store, and its snapshot.
async fn saved(home: &Path, tasks: &Tasks) -> PathBuf {
    let old = home.join("old");
    let engine = Fjall::open(Options { reserve: 1 << 20, ..Options::new(old.join("store")) }, tasks).await.unwrap();
    for name in FILES.iter().filter(|name| **name != "encryption.yaml") {
        files::replace_private(&old.join(name), name.as_bytes()).unwrap();
    }
    engine.commit(put("/a", "1")).await.unwrap();
    engine.commit(put("/b", "2")).await.unwrap();
    let path = home.join("snapshot");
    write(&engine, &old, File::create(&path).unwrap()).await.unwrap();
    engine.close().await;
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_becomes_that_of_the_snapshot() {
    let (tasks, _failures) = Tasks::root();
    let home = tempfile::tempdir().unwrap();
    let path = saved(home.path(), &tasks).await;
    let new = home.path().join("new");
    let summary = check(File::open(&path).unwrap()).unwrap();
    restore(&summary, &path, &new, &new.join("store")).unwrap();
    assert_eq!(summary.end, End { revision: 2, records: 2 });
    let engine = Fjall::open(Options { reserve: 1 << 20, ..Options::new(new.join("store")) }, &tasks).await.unwrap();
    assert_eq!(engine.get(b"/b").await.unwrap().map(|record| record.value), Some("2".into()));
    for name in FILES {
        let expected = (name != "encryption.yaml").then(|| name.to_owned());
        assert_eq!(std::fs::read_to_string(new.join(name)).ok(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_replaced() {
    let (tasks, _failures) = Tasks::root();
    let home = tempfile::tempdir().unwrap();
    let path = saved(home.path(), &tasks).await;
    let summary = check(File::open(&path).unwrap()).unwrap();
    let refused = |directory: &str, expected: &str| {
        let directory = home.path().join(directory);
        let error = format!("{:#}", restore(&summary, &path, &directory, &directory.join("store")).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    refused("old", "there is a store already");
    // The keys are the same: only the store is in the way.
    std::fs::rename(home.path().join("old/store"), home.path().join("old/store.damaged")).unwrap();
    let old = home.path().join("old");
    restore(&summary, &path, &old, &old.join("store")).unwrap();
    let other = home.path().join("other");
    files::replace_private(&other.join("pki/ca.key"), b"another").unwrap();
    refused("other", "of another cluster");
    assert!(!other.join("store").exists() && !other.join("token").exists());
    // One that is cut is none.
    let bytes = std::fs::read(&path).unwrap();
    assert!(format!("{:#}", check(&bytes[..bytes.len() - 1]).unwrap_err()).contains("snapshot"));
}

/// What is told of a snapshot is what a restoration makes of it.
#[test]
fn what_no_cluster_has_is_refused() {
    let made = |lines: Vec<Line>, revision: u64| {
        let head = Head { format: FORMAT, version: "1.2.3".to_owned(), created: Timestamp::UNIX_EPOCH };
        let mut writer = Writer::new(Vec::new(), head).unwrap();
        lines.iter().for_each(|line| writer.line(line).unwrap());
        writer.finish(revision).unwrap()
    };
    let file = |name: &str, length: usize| Line::File(Part { name: name.to_owned(), content: "x".repeat(length) });
    let key = |key: &str, revision: u64| {
        let record = store::Record { key: key.to_owned().into(), value: "v".into(), revision };
        Line::Record(Row::of(store::Copied { record, lane: Lane::Durable, expires: 0 }).unwrap())
    };
    let check = |lines: Vec<Line>, revision: u64, expected: &str| {
        let error = check(&made(lines, revision)[..]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(vec![file("../../evil", 1)], 1, "line 2: ../../evil is not of a data directory");
    check(vec![file("token", 1), file("token", 1)], 1, "line 3: token comes again");
    check(vec![file("token", FILE + 1)], 1, "line 2: token is too large");
    check(vec![key("/b", 1), key("/a", 2)], 2, "line 3: no store has this: /a comes again, or before another one");
    check(vec![key(&"k".repeat(100_000), 1)], 2, "line 2: no store has this: a key is at most 4 KiB long");
    check(vec![key("/a", 3)], 2, "revision 2, with a key of 3");
    check(vec![], u64::MAX, "no store has this");
}
