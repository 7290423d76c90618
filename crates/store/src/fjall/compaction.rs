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

/// When entries leave history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) history: History,
    /// Entries up to here are not young.
    pub(super) old: Revision,
    /// How many times the bounds there may be where the oldest entry is young.
    pub(super) young_factor: u64,
}

impl Bounds {
    /// Whether an entry leaves so much history.
    fn exceeds(&self, (entries, kept): (u64, u64), revision: Revision) -> bool {
        let times = if revision <= self.old { 1 } else { self.young_factor };
        entries > self.history.entries.saturating_mul(times) || kept > self.history.bytes.saturating_mul(times)
    }
}

/// Whether history is over its bounds by enough to be worth a step.
pub(super) fn is_due(head: Head, tail: Tail, bounds: &Bounds) -> bool {
    let history = bounds.history;
    let (entries, kept) = window(head, tail);
    let beyond_slack = (entries.saturating_sub((history.entries / 8).min(STEP as u64)), kept.saturating_sub(history.bytes / 8));
    bounds.exceeds(beyond_slack, tail.compacted + 1)
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
    let bounds = shared.bounds();
    let plan = shared.read(|database| {
        let tail = database.tail()?;
        let entries = database.entries(tail.compacted + 1, head.revision).take(STEP);
        let sized = entries.map(|entry| entry.and_then(|entry| Ok((database.entry_size(entry.previous)?, entry))));
        Ok(plan(head, tail, wanted, &bounds, sized.collect::<Result<Vec<_>, _>>()?))
    })?;
    let Some(plan) = plan else {
        // The next revision may be one that is in no history: until more is old, there is nothing to wake up for.
        if is_due(head, shared.ends().1, &bounds) {
            shared.exhausted(&bounds);
        }
        return Ok(false);
    };
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
fn plan(head: Head, tail: Tail, wanted: Revision, bounds: &Bounds, entries: Vec<(u64, Entry)>) -> Option<Plan> {
    let mut next = tail;
    let mut ops = Vec::new();
    let mut all = entries.len() < STEP;
    for (replaced, entry) in entries {
        if entry.revision > wanted && !bounds.exceeds(window(head, next), entry.revision) {
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
    use std::time::Duration;

    use super::*;

    fn entry(revision: Revision, previous: Revision, value: Option<&'static str>) -> Entry {
        Entry { revision, previous, key: "k".into(), value: value.map(Into::into) }
    }

    fn bounds(entries: u64, bytes: u64) -> Bounds {
        Bounds { history: History { entries, bytes, keep: Duration::ZERO }, old: Revision::MAX, young_factor: 1 }
    }

    /// Create, update, (an ephemeral commit,) delete, create: revisions 1, 2, 4, 5.
    fn check(wanted: Revision, max: u64, compacted: Revision, removed: &[Revision]) {
        let entries = [entry(1, 0, Some("a")), entry(2, 1, Some("b")), entry(4, 2, None), entry(5, 0, Some("c"))];
        let size = |n: usize| if n == 0 { 0 } else { entries[n - 1].encoded_len() };
        let bytes = (1..5).map(size).sum();
        let kept = bytes + size(1) + size(2);
        let head = Head { revision: 6, entries: 4, bytes, kept, ..Head::default() };
        let sized = entries.iter().cloned().map(|entry| (size(entry.previous as usize), entry)).collect();
        let plan = plan(head, Tail::default(), wanted, &bounds(max, u64::MAX), sized);
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
        let bounds = bounds(100, 800);
        assert!(is_due(head, Tail::default(), &bounds));
        assert!(!is_due(head, Tail { kept: 150, ..Tail::default() }, &bounds));
    }

    /// Who writes much does not take the history of the last minutes from those who were away.
    #[test]
    fn what_is_young_stays_longer() {
        let check = |kept: u64, tail: Revision, old: Revision, due: bool| {
            let head = Head { revision: 20, entries: 20, kept, ..Head::default() };
            let tail = Tail { compacted: tail, entries: tail, ..Tail::default() };
            let bounds = Bounds { old, young_factor: 3, ..bounds(100, 800) };
            assert_eq!(is_due(head, tail, &bounds), due, "{kept} {tail:?} {old}");
        };
        check(1000, 4, 4, false);
        check(1000, 4, 5, true);
        check(2500, 4, 4, false);
        check(2501, 4, 4, true);
        let entries = (1..=4).map(|revision| (0, entry(revision, 0, Some("v")))).collect::<Vec<_>>();
        let head = Head { revision: 4, entries: 4, kept: 1000, ..Head::default() };
        for (old, young_factor, compacted) in [(0, 4, None), (0, 3, Some(1)), (2, 3, Some(2)), (0, 1, Some(3))] {
            let bounds = Bounds { old, young_factor, ..bounds(1, u64::MAX) };
            let plan = plan(head, Tail::default(), 0, &bounds, entries.clone());
            assert_eq!(plan.map(|plan| plan.tail.compacted), compacted, "{old} {young_factor}");
        }
    }
}
