//! Keeps history bounded, in small steps on a thread of its own: writers wait for one step at most.

use std::sync::Arc;

use super::database::WriteError;
use super::encoding::{Entry, Head, Tail, encode_u64};
use super::stage::{Op, Table};
use super::{History, Shared, TAIL};
use crate::{Error, Revision};

/// Entries that leave history in one step.
const STEP: usize = 256;

/// Runs until the engine is closed.
pub(super) fn run(shared: &Arc<Shared>, idle: fn()) {
    while shared.work.wait() {
        let done = trim(shared);
        shared.waste.wake();
        if let Err(error) = done {
            // The writer meets the same cause and deals with it; the next commits wake us again.
            tracing::warn!(%error, "history was not compacted");
        }
        idle();
    }
}

/// Whether history is over its bounds by enough to be worth a step.
pub(super) fn is_due(head: Head, tail: Tail, history: &History) -> bool {
    let (entries, kept) = window(head, tail);
    entries > history.entries + (history.entries / 8).min(STEP as u64) || kept > history.bytes + history.bytes / 8
}

fn trim(shared: &Shared) -> Result<(), Error> {
    while step(shared)? {
        if shared.work.is_closed() {
            break;
        }
    }
    Ok(())
}

/// One step; false when nothing is left to do.
fn step(shared: &Shared) -> Result<bool, Error> {
    let head = shared.head();
    let wanted = shared.compacted();
    let plan = shared.read(|database| {
        let tail = database.tail()?;
        let entries = database.entries(tail.compacted + 1, head.revision).take(STEP);
        let sized = entries.map(|entry| entry.and_then(|entry| Ok((database.entry_size(entry.previous)?, entry))));
        Ok(plan(head, tail, wanted, &shared.history, sized.collect::<Result<Vec<_>, _>>()?))
    })?;
    let Some(plan) = plan else { return Ok(false) };
    // First the bound, then the deletions: a reader checks the bound after it has read.
    shared.compact(plan.tail.compacted);
    shared.trimmed(plan.tail);
    shared.read(|database| database.write(&plan.ops).map_err(WriteError::cause))?;
    Ok(true)
}

#[derive(Debug, PartialEq, Eq)]
struct Plan {
    tail: Tail,
    ops: Vec<Op>,
}

/// Lets the oldest entries leave history: up to `wanted`, and as many as the bounds ask for. What an entry replaced goes
/// with it, because no revision that can still be read shows it; so does the entry of a deletion itself. Entries come with
/// the size of what they replaced.
fn plan(head: Head, tail: Tail, wanted: Revision, history: &History, entries: Vec<(u64, Entry)>) -> Option<Plan> {
    let mut next = tail;
    let mut ops = Vec::new();
    let mut all = entries.len() < STEP;
    for (replaced, entry) in entries {
        let (count, kept) = window(head, next);
        if entry.revision > wanted && count <= history.entries && kept <= history.bytes {
            all = true;
            break;
        }
        let size = entry.encoded_len();
        next.compacted = entry.revision;
        next.entries += 1;
        next.kept += size + replaced;
        next.deleted += replaced;
        if entry.previous != 0 {
            ops.push(remove(entry.previous));
        }
        if entry.value.is_none() {
            ops.push(remove(entry.revision));
            next.deleted += size;
        }
    }
    if all {
        next.compacted = next.compacted.max(wanted.min(head.revision));
    }
    if next == tail {
        return None;
    }
    ops.push(Op { table: Table::Meta, key: TAIL, value: Some(next.encode()) });
    Some(Plan { tail: next, ops })
}

fn remove(revision: Revision) -> Op {
    Op { table: Table::Log, key: encode_u64(revision), value: None }
}

/// Entries in history, and the bytes that they keep.
fn window(head: Head, tail: Tail) -> (u64, u64) {
    (head.entries.saturating_sub(tail.entries), head.kept.saturating_sub(tail.kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: Revision, previous: Revision, value: Option<&'static str>) -> Entry {
        Entry { revision, previous, key: "k".into(), value: value.map(Into::into) }
    }

    /// Create, update, (an ephemeral commit,) delete, create: revisions 1, 2, 4, 5.
    fn check(wanted: Revision, max: u64, compacted: Revision, removed: &[Revision]) {
        let entries = [entry(1, 0, Some("a")), entry(2, 1, Some("b")), entry(4, 2, None), entry(5, 0, Some("c"))];
        let size = |n: usize| if n == 0 { 0 } else { entries[n - 1].encoded_len() };
        let bytes = (1..5).map(size).sum();
        let kept = bytes + size(1) + size(2);
        let head = Head { revision: 6, entries: 4, bytes, kept, ..Head::default() };
        let sized = entries.iter().cloned().map(|entry| (size(entry.previous as usize), entry)).collect();
        let plan = plan(head, Tail::default(), wanted, &History { entries: max, bytes: u64::MAX }, sized);
        let (tail, ops) = plan.map_or((Tail::default(), Vec::new()), |plan| (plan.tail, plan.ops));
        assert_eq!(tail.compacted, compacted);
        assert_eq!(tail.deleted, removed.iter().map(|n| size(if *n == 4 { 3 } else { *n as usize })).sum::<u64>());
        let log: Vec<_> = ops.into_iter().filter(|op| op.table == Table::Log).collect();
        assert_eq!(log, removed.iter().copied().map(remove).collect::<Vec<_>>());
    }

    #[test]
    fn what_leaves_history_takes_along_what_it_replaced() {
        check(0, 4, 0, &[]);
        check(1, 4, 1, &[]);
        check(2, 4, 2, &[1]);
        check(3, 4, 3, &[1]);
        check(4, 4, 4, &[1, 2, 4]);
        check(6, 4, 6, &[1, 2, 4]);
        check(100, 4, 6, &[1, 2, 4]);
        check(0, 3, 1, &[]);
        check(0, 1, 4, &[1, 2, 4]);
        check(0, 0, 5, &[1, 2, 4]);
    }

    #[test]
    fn bytes_bound_history_too() {
        let head = Head { revision: 9, entries: 9, kept: 1000, ..Head::default() };
        let history = History { entries: 100, bytes: 800 };
        assert!(is_due(head, Tail::default(), &history));
        assert!(!is_due(head, Tail { kept: 150, ..Tail::default() }, &history));
    }
}
