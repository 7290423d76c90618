#![allow(clippy::unwrap_used)]
use std::time::Duration;

use base::tasks::Tasks;
use bytes::Bytes;

use super::*;
use crate::contract::{history, write};
use crate::{Engine, Expect, Fjall, Options, Write};

fn options(dir: &Path) -> Options {
    Options { reserve: 1 << 20, ..Options::new(dir) }
}

async fn copied(engine: &Fjall) -> (Vec<Copied>, Revision) {
    let keep = |all: &mut Vec<Copied>, copied| {
        all.push(copied);
        Ok(())
    };
    engine.copy(Vec::new(), keep).await.unwrap()
}

fn restore(dir: &Path, copies: &[Copied], revision: Revision) -> Result<(), Error> {
    let mut restoring = Restoring::begin(dir)?;
    copies.iter().try_for_each(|copied| restoring.add(copied.clone()))?;
    restoring.finish(revision, 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_made_of_a_copy_has_what_was_current_and_no_past() {
    let (tasks, _failures) = Tasks::root();
    let home = tempfile::tempdir().unwrap();
    let engine = Fjall::open(options(&home.path().join("old")), &tasks).await.unwrap();
    let lease = |key: &'static str, ttl| Write { lane: Lane::Ephemeral, ttl, ..write(key, Expect::Anything, Some("lease")) };
    for (key, value) in [("a", Some("1")), ("b", Some("1")), ("a", Some("2")), ("c", Some("1")), ("b", None), ("d", Some(""))] {
        engine.commit(write(key, Expect::Anything, value)).await.unwrap();
    }
    engine.commit(lease("l", None)).await.unwrap();
    engine.commit(lease("m", Some(Duration::from_secs(3600)))).await.unwrap();
    let large = vec![7; 3 << 20];
    for key in ["x", "y", "z"] {
        let change = crate::Change::Put(large.clone().into());
        engine.commit(Write { change, ..write(key, Expect::Absent, Some("")) }).await.unwrap();
    }
    let (copies, revision) = copied(&engine).await;
    let shown: Vec<_> = copies.iter().map(|copied| (&copied.record.key[..], copied.record.revision, copied.lane)).collect();
    let (durable, ephemeral) = (Lane::Durable, Lane::Ephemeral);
    let expected: [(&[u8], u64, Lane); 8] = [
        (b"a", 3, durable),
        (b"c", 4, durable),
        (b"d", 6, durable),
        (b"x", 9, durable),
        (b"y", 10, durable),
        (b"z", 11, durable),
        (b"l", 7, ephemeral),
        (b"m", 8, ephemeral),
    ];
    assert_eq!((shown, revision), (expected.to_vec(), 11));
    // What comes after the copy is not in it.
    engine.commit(write("late", Expect::Absent, Some("1"))).await.unwrap();

    let new = home.path().join("new");
    restore(&new, &copies, revision).unwrap();
    assert_eq!(restore(&new, &copies, revision), Err(Error::Exists));
    let restored = Fjall::open(options(&new), &tasks).await.unwrap();
    let (again, head) = copied(&restored).await;
    assert_eq!((again, head), (copies, revision + BUMP));
    assert_eq!(restored.get(b"late").await, Ok(None));
    for seen in [1, revision, revision + 1] {
        assert!(matches!(history(&restored, "", seen).await, Err(Error::Compacted(_))));
    }
    assert!(matches!(restored.range(b"", b"", Some(3), 0).await, Err(Error::Compacted(_))));
    // It goes on as any store does, also after a restart.
    let next = restored.commit(write("a", Expect::At(3), Some("3"))).await.unwrap();
    assert_eq!(next, revision + BUMP + 1);
    restored.commit(write("c", Expect::At(4), None)).await.unwrap();
    restored.compact(next + 1).await.unwrap();
    restored.close().await;
    let restored = Fjall::open(options(&new), &tasks).await.unwrap();
    let keys: Vec<Bytes> = copied(&restored).await.0.into_iter().map(|copied| copied.record.key).collect();
    assert_eq!(keys, ["a", "d", "x", "y", "z", "l", "m"]);
    assert_eq!(restored.revision(), next + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_expires_in_the_new_store() {
    let (tasks, _failures) = Tasks::root();
    let home = tempfile::tempdir().unwrap();
    let record = Record { key: "m".into(), value: "lease".into(), revision: 5 };
    restore(home.path(), &[Copied { record, lane: Lane::Ephemeral, expires: 1 }], 5).unwrap();
    let engine = Fjall::open(options(home.path()), &tasks).await.unwrap();
    while engine.get(b"m").await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_store_has_is_refused_and_an_unfinished_restoration_is_no_store() {
    let (tasks, _failures) = Tasks::root();
    let home = tempfile::tempdir().unwrap();
    let row = |lane, key: &str, revision, expires| Copied {
        record: Record { key: key.to_owned().into(), value: "v".into(), revision },
        lane,
        expires,
    };
    let (durable, ephemeral) = (Lane::Durable, Lane::Ephemeral);
    let check = |rows: &[Copied], revision, expected: &str| {
        let error = restore(home.path(), rows, revision).unwrap_err().to_string();
        assert!(error.contains(expected), "{rows:?}: {error}");
    };
    check(&[row(durable, "a", 0, 0)], 5, "the revision of nothing");
    check(&[row(durable, "", 1, 0)], 5, "must not be empty");
    check(&[row(durable, &"a".repeat(100_000), 1, 0)], 5, "at most 4 KiB");
    check(&[row(durable, "a", 1, 7)], 5, "expires in the durable lane");
    check(&[row(durable, "a", 6, 0)], 5, "revision 5, with a key of 6");
    check(&[row(durable, "a", 1, 0), row(durable, "b", 1, 0)], 5, "of another key");
    check(&[row(durable, "a", 1, 0), row(ephemeral, "b", 1, 0)], 5, "of another key");
    check(&[row(durable, "a", 1, 0), row(durable, "a", 2, 0)], 5, "comes again");
    check(&[row(durable, "b", 1, 0), row(durable, "a", 2, 0)], 5, "comes again, or before");
    check(&[row(ephemeral, "a", 1, 0), row(durable, "b", 2, 0)], 5, "comes again, or before");
    check(&[row(durable, "a", 1, 0)], u64::MAX, "revision 18446744073709551615");
    // A server that starts there now would begin with an empty cluster.
    assert_eq!(Fjall::check(home.path()), Err(Error::Unfinished));
    assert_eq!(Fjall::open(options(home.path()), &tasks).await.err(), Some(Error::Unfinished));
    restore(home.path(), &[row(durable, "a", 5, 0)], 5).unwrap();
    assert_eq!(restore(home.path(), &[], 5), Err(Error::Exists));
    assert_eq!(Fjall::check(home.path()), Ok(()));
    assert!(Fjall::open(options(home.path()), &tasks).await.is_ok());
}
