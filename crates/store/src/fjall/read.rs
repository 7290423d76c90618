//! get and range, now and at a revision of the past.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use ::fjall::{Guard, Keyspace, Readable, Snapshot};
use bytes::Bytes;

use super::HEAD;
use super::database::{Database, dangling, record_at, storage};
use super::encoding::{Entry, Head, Stored, decode_u64, encode_u64};
use crate::{Error, PAGE_BYTES, Page, Record, Revision};

/// Records that are read before their bytes are counted: as many of the largest do not matter.
const TOGETHER: usize = 32;

/// Revisions between two records up to which the log is read on instead of being searched again.
const GAP: Revision = 8;

/// Where the record of a key is.
enum Source {
    Log(Revision),
    Here(Record),
}

type Row = Result<(Bytes, Source), Error>;
type Rows = Peekable<Box<dyn Iterator<Item = Row>>>;

/// What to read.
pub(super) struct Query<'a> {
    pub(super) start: &'a [u8],
    /// Empty for no end.
    pub(super) end: &'a [u8],
    pub(super) at: Option<Revision>,
    pub(super) limit: usize,
}

/// The current record of a key, in either lane, and the revision at which it was read.
pub(super) fn get(database: &Database, key: &[u8]) -> Result<(Option<Record>, Revision), Error> {
    let snapshot = database.snapshot();
    Ok((record(database, &snapshot, key)?, head(database, &snapshot)?.revision))
}

fn record(database: &Database, snapshot: &Snapshot, key: &[u8]) -> Result<Option<Record>, Error> {
    if let Some(revision) = snapshot.get(&database.index, key).map_err(storage)? {
        return record_at(database, snapshot, decode_u64(&revision)?).map(Some);
    }
    let Some(bytes) = snapshot.get(&database.ephemeral, key).map_err(storage)? else { return Ok(None) };
    Stored::decode(Bytes::copy_from_slice(key), &bytes.into()).map(|stored| Some(stored.record))
}

pub(super) fn head(database: &Database, snapshot: &Snapshot) -> Result<Head, Error> {
    let head = snapshot.get(&database.meta, HEAD).map_err(storage)?;
    head.map_or(Ok(Head::default()), |bytes| Head::decode(&bytes))
}

/// A page of both lanes and the revision at which it was read. The ephemeral lane has no past: its records are always shown as they are now.
pub(super) fn range(database: &Database, query: &Query<'_>, compacted: &AtomicU64) -> Result<(Page, Revision), Error> {
    let snapshot = database.snapshot();
    let head = head(database, &snapshot)?;
    let revision = query.at.unwrap_or(head.revision);
    // Read after the snapshot: what it lacks was compacted before.
    let oldest = compacted.load(Ordering::Acquire);
    if revision > head.revision {
        return Err(Error::Future(head.revision));
    }
    if revision < oldest {
        return Err(Error::Compacted(oldest));
    }
    let mut page = Page { records: Vec::new(), revision, more: false };
    if !query.end.is_empty() && query.start >= query.end {
        return Ok((page, head.revision));
    }
    let undone = undo(database, &snapshot, query, revision, head.revision)?;
    let mut sources = [ephemeral(database, &snapshot, query), durable(database, &snapshot, query, undone)];
    let mut found = Vec::new();
    while let Some(row) = next(&mut sources) {
        let (_, source) = row?;
        if query.limit != 0 && found.len() == query.limit {
            page.more = true;
            break;
        }
        found.push(source);
    }
    (page.records, page.more) = match query.limit {
        0 => (records(database, &snapshot, found)?, false),
        _ => bounded(database, &snapshot, found, page.more)?,
    };
    Ok((page, head.revision))
}

/// The records of a page, as long as they are not too large together, and whether there are `more`.
fn bounded(database: &Database, snapshot: &Snapshot, found: Vec<Source>, more: bool) -> Result<(Vec<Record>, bool), Error> {
    let (mut page, mut bytes) = (Vec::with_capacity(found.len()), 0);
    let mut found = found.into_iter();
    while found.len() > 0 && bytes < PAGE_BYTES {
        let some = records(database, snapshot, found.by_ref().take(TOGETHER).collect())?;
        bytes += some.iter().map(|record| record.value.len()).sum::<usize>();
        page.extend(some);
    }
    Ok((page, more || found.len() > 0))
}

/// The records of a page. Those of the log are read in the order of their revisions: objects that lie side by side in a page were
/// often written one after the other, and going on in the log is much cheaper than looking each of them up.
fn records(database: &Database, snapshot: &Snapshot, found: Vec<Source>) -> Result<Vec<Record>, Error> {
    let mut records: Vec<Option<Record>> = vec![None; found.len()];
    let mut wanted = Vec::with_capacity(found.len());
    for (place, source) in found.into_iter().enumerate() {
        match source {
            Source::Here(record) => records[place] = Some(record),
            Source::Log(revision) => wanted.push((revision, place)),
        }
    }
    wanted.sort_unstable();
    for run in wanted.chunk_by(|(before, _), (after, _)| after - before <= GAP) {
        match *run {
            [(revision, place)] => records[place] = Some(record_at(database, snapshot, revision)?),
            _ => read_run(database, snapshot, run, &mut records)?,
        }
    }
    Ok(records.into_iter().flatten().collect())
}

/// Reads records whose revisions lie close to each other.
fn read_run(
    database: &Database,
    snapshot: &Snapshot,
    run: &[(Revision, usize)],
    records: &mut [Option<Record>],
) -> Result<(), Error> {
    let (first, last) = (run[0].0, run[run.len() - 1].0);
    let mut rows = snapshot.range(&database.log, encode_u64(first)..=encode_u64(last));
    for (wanted, place) in run {
        records[*place] = loop {
            let (key, value) = rows.next().ok_or_else(|| dangling(*wanted))?.into_inner().map_err(storage)?;
            let revision = decode_u64(&key)?;
            if revision == *wanted {
                break Some(Entry::decode(revision, &value.into())?.into_record().ok_or_else(|| dangling(revision))?);
            }
            if revision > *wanted {
                return Err(dangling(*wanted));
            }
        };
    }
    Ok(())
}

/// For each key that changed after `revision`, the revision that it had then, 0 for none.
fn undo(
    database: &Database,
    snapshot: &Snapshot,
    query: &Query<'_>,
    revision: Revision,
    head: Revision,
) -> Result<BTreeMap<Bytes, Revision>, Error> {
    let mut undone = BTreeMap::new();
    if revision == head {
        return Ok(undone);
    }
    for row in snapshot.range(&database.log, encode_u64(revision + 1)..=encode_u64(head)) {
        let (key, value) = row.into_inner().map_err(storage)?;
        let entry = Entry::decode(decode_u64(&key)?, &value.into())?;
        if &entry.key[..] >= query.start && (query.end.is_empty() || &entry.key[..] < query.end) {
            // A copy, so that the map does not keep the values alive.
            undone.entry(Bytes::copy_from_slice(&entry.key)).or_insert(entry.previous);
        }
    }
    Ok(undone)
}

fn durable(database: &Database, snapshot: &Snapshot, query: &Query<'_>, undone: BTreeMap<Bytes, Revision>) -> Rows {
    let restored = undone.clone().into_iter().filter(|(_, revision)| *revision != 0);
    let restored: Box<dyn Iterator<Item = Row>> = Box::new(restored.map(|(key, revision)| Ok((key, Source::Log(revision)))));
    let unchanged: Box<dyn Iterator<Item = Row>> = Box::new(scan(&database.index, snapshot, query).filter_map(move |row| {
        let row = pair(row).and_then(|(key, value)| Ok((key, decode_u64(&value)?)));
        match row {
            Ok((key, _)) if undone.contains_key(&key) => None,
            Ok((key, revision)) => Some(Ok((key, Source::Log(revision)))),
            Err(error) => Some(Err(error)),
        }
    }));
    let mut sources = [restored.peekable(), unchanged.peekable()];
    let merged: Box<dyn Iterator<Item = Row>> = Box::new(std::iter::from_fn(move || next(&mut sources)));
    merged.peekable()
}

fn ephemeral(database: &Database, snapshot: &Snapshot, query: &Query<'_>) -> Rows {
    let rows: Box<dyn Iterator<Item = Row>> = Box::new(scan(&database.ephemeral, snapshot, query).map(|row| {
        let (key, value) = pair(row)?;
        Stored::decode(key.clone(), &value).map(|stored| (key, Source::Here(stored.record)))
    }));
    rows.peekable()
}

fn scan(table: &Keyspace, snapshot: &Snapshot, query: &Query<'_>) -> ::fjall::Iter {
    let end = if query.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(query.end) };
    snapshot.range::<&[u8], _>(table, (Bound::Included(query.start), end))
}

fn pair(row: Guard) -> Result<(Bytes, Bytes), Error> {
    let (key, value) = row.into_inner().map_err(storage)?;
    Ok((key.into(), value.into()))
}

/// The row with the smallest key of all sources; an error comes first.
fn next(sources: &mut [Rows]) -> Option<Row> {
    let mut best: Option<(usize, Bytes)> = None;
    for (at, source) in sources.iter_mut().enumerate() {
        match source.peek() {
            None => {}
            Some(Err(_)) => return source.next(),
            Some(Ok((key, _))) if best.as_ref().is_none_or(|(_, least)| key < least) => best = Some((at, key.clone())),
            Some(Ok(_)) => {}
        }
    }
    sources[best?.0].next()
}
