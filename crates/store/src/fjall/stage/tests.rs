#![allow(clippy::unwrap_used)]
use std::time::Duration;

use super::*;
use crate::fjall::encoding::expiry_key;

fn no_quota() -> Quota {
    Quota::new(u64::MAX, 0)
}

struct Fixed(Vec<(Lane, Stored)>);

impl View for Fixed {
    fn current(&self, lane: Lane, key: &Bytes) -> Result<Option<Stored>, Error> {
        Ok(self.0.iter().find(|(at, stored)| *at == lane && stored.record.key == key).map(|(_, stored)| stored.clone()))
    }
}

fn stored(key: &'static str, value: &'static str, revision: Revision, expires: u64) -> Stored {
    Stored { record: Record { key: key.into(), value: value.into(), revision }, expires }
}

/// `a` is durable at revision 3, `l` ephemeral at revision 5, expiring at 2,000. The head is at 10, it is 1,000.
fn view() -> Fixed {
    Fixed(vec![(Lane::Durable, stored("a", "old", 3, 0)), (Lane::Ephemeral, stored("l", "lease", 5, 2_000))])
}

fn write(key: &'static str, expect: Expect, value: Option<&'static str>) -> Write {
    let change = value.map_or(Change::Delete, |value| Change::Put(value.into()));
    let lane = if key.starts_with('l') { Lane::Ephemeral } else { Lane::Durable };
    Write::new(key, expect, change, lane)
}

/// Runs the writes as one batch; `expected` has the revision, or the revision of the record that conflicts.
fn check(writes: Vec<Write>, expected: &[Result<Revision, Option<Revision>>]) {
    let view = view();
    let mut stage = Stage::new(&view, Head { revision: 10, ..Head::default() }, no_quota(), 1_000);
    let results: Vec<_> = writes
        .into_iter()
        .map(|write| {
            stage.add(write).map_err(|error| match error {
                Error::Conflict(record) => record.map(|record| record.revision),
                other => panic!("{other}"),
            })
        })
        .collect();
    assert_eq!(results, expected);
    let committed: Vec<Revision> = expected.iter().copied().flatten().collect();
    assert_eq!(stage.events.iter().map(|event| event.revision).collect::<Vec<_>>(), committed);
    assert_eq!(stage.batch.head.revision, 10 + committed.len() as u64);
}

#[test]
fn expectations_hold_against_the_state_before() {
    check(vec![write("new", Expect::Absent, Some("v"))], &[Ok(11)]);
    check(vec![write("a", Expect::Absent, Some("v"))], &[Err(Some(3))]);
    check(vec![write("a", Expect::At(3), Some("v"))], &[Ok(11)]);
    check(vec![write("a", Expect::At(2), Some("v"))], &[Err(Some(3))]);
    check(vec![write("new", Expect::At(2), Some("v"))], &[Err(None)]);
    check(vec![write("new", Expect::Anything, Some("v"))], &[Ok(11)]);
    check(vec![write("a", Expect::At(3), None)], &[Ok(11)]);
    check(vec![write("new", Expect::Anything, None)], &[Err(None)]);
    check(vec![write("new", Expect::Absent, None)], &[Err(None)]);
    check(vec![write("l", Expect::At(5), None)], &[Ok(11)]);
}

#[test]
fn a_batch_sees_its_own_writes_and_conflicts_take_no_revision() {
    check(
        vec![
            write("new", Expect::Absent, Some("1")),
            write("new", Expect::Absent, Some("2")),
            write("new", Expect::At(11), Some("3")),
            write("new", Expect::At(12), None),
            write("new", Expect::At(12), None),
            write("new", Expect::Absent, Some("4")),
        ],
        &[Ok(11), Err(Some(11)), Ok(12), Ok(13), Err(None), Ok(14)],
    );
}

#[test]
fn an_update_keeps_the_previous_record() {
    let view = view();
    let mut stage = Stage::new(&view, Head { revision: 10, durable: 1_000, ..Head::default() }, no_quota(), 1_000);
    stage.add(write("a", Expect::At(3), Some("new"))).unwrap();
    stage.add(write("a", Expect::At(11), None)).unwrap();
    assert_eq!(stage.events[0].previous, Some(stored("a", "old", 3, 0).record));
    assert_eq!(stage.events[1].previous, Some(stored("a", "new", 11, 0).record));
    let index: Vec<_> = stage.batch.ops.iter().filter(|op| op.table == Table::Index).map(|op| op.value.is_some()).collect();
    assert_eq!(index, [true, false]);
    let log = stage.batch.ops.iter().rfind(|op| op.table == Table::Log).unwrap();
    assert_eq!(Entry::decode(12, log.value.as_ref().unwrap()).unwrap().previous, 11);
    // Keys of one byte, values of 3 bytes, then none.
    let entry = |value: &[u8]| encoded_len(b"a", value);
    assert_eq!((stage.batch.head.entries, stage.batch.head.bytes), (2, entry(b"new") + entry(b"")));
    // With what was replaced.
    assert_eq!(stage.batch.head.kept, stage.batch.head.bytes + entry(b"old") + entry(b"new"));
    assert_eq!(stage.batch.head.durable, 1_000 - entry(b"old"));
}

#[test]
fn the_expiry_index_follows_the_record() {
    let view = view();
    let mut stage = Stage::new(&view, Head { revision: 10, ephemeral: 1_000, ..Head::default() }, no_quota(), 1_000);
    let renewal = Write { ttl: Some(Duration::from_secs(5)), ..write("l", Expect::At(5), Some("again")) };
    stage.add(renewal).unwrap();
    let expiry: Vec<_> = stage.batch.ops.iter().filter(|op| op.table == Table::Expiry).cloned().collect();
    let op = |expires, value| Op { table: Table::Expiry, key: expiry_key(expires, b"l"), value };
    assert_eq!(expiry, [op(2_000, None), op(6_000, Some(encode_u64(11)))]);
    assert_eq!(stage.batch.expires, Some(6_000));
    assert_eq!(stage.batch.head.entries, 0, "the ephemeral lane has no history");
    assert_eq!(stage.batch.head.ephemeral, 1_000, "again is as long as lease");
}

#[test]
fn impossible_writes_are_refused() {
    let view = view();
    let mut stage = Stage::new(&view, Head::default(), no_quota(), 0);
    let empty = write("", Expect::Anything, Some("v"));
    let long = Write { key: vec![b'k'; MAX_KEY + 1].into(), ..write("k", Expect::Anything, Some("v")) };
    let ttl = Write { ttl: Some(Duration::from_secs(1)), ..write("a", Expect::Anything, Some("v")) };
    for write in [empty, long, ttl] {
        assert!(matches!(stage.add(write), Err(Error::Failed(_))));
    }
    assert!(stage.batch.ops.is_empty() && stage.events.is_empty());
}

#[test]
fn a_batch_counts_what_it_adds_and_a_refused_write_leaves_it_as_it_was() {
    let view = view();
    let head = Head { revision: 10, bytes: 5_000, durable: 600, ephemeral: 100, ..Head::default() };
    let mut stage = Stage::new(&view, head, Quota::new(760, 0), 1_000);
    let new = |key: &'static str| write(key, Expect::Absent, Some("a value of thirty letters here"));
    assert_eq!(stage.add(new("b")), Ok(11));
    let Err(Error::Quota { taken, limit: 760 }) = stage.add(new("c")) else { panic!("no room is left") };
    assert!(taken > 730, "{taken}");
    assert_eq!((stage.batch.head.revision, stage.events.len()), (11, 1));
    assert_eq!(stage.add(write("a", Expect::At(3), Some("new"))), Ok(12));
    let full = stage.batch.head.current();
    assert_eq!(stage.add(write("b", Expect::At(11), None)), Ok(13));
    assert_eq!(stage.batch.head.current(), 700);
    assert!(full > 740, "{full}");
}
