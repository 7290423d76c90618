//! The memory of all rings of recent changes.
//!
//! One budget is for all kinds: a busy kind may have nearly all of it, and takes it from those that have been idle longest, since
//! always the oldest change of all goes first. Changes also go when they are old, so that memory comes back after a load. Whoever
//! asks for older revisions, or has not seen what went, is served from the store's history. Commits pace the sweeps: leases are renewed every
//! ten seconds, so no timer is needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Cache, Change, State};
use crate::past::Past;
use crate::size;

/// Most changes kept for watchers of one kind.
const EVENTS: usize = 8192;
/// Most bytes that the changes of all kinds keep alive.
const BYTES: usize = 16 << 20;
/// The largest change has its place.
const _: () = assert!(3 * size::MAX_JSON + (1 << 20) < BYTES);
/// How long a change is kept: as long as upstream's caches keep theirs at least (`DefaultEventFreshDuration`).
const AGE: Duration = Duration::from_secs(75);
/// A sweep follows after so many bytes of changes, or after so long a time.
const SWEEP_BYTES: usize = 1 << 20;
const SWEEP_AFTER: Duration = Duration::from_secs(10);
/// Bytes that one kind gives up before it is looked again which has the oldest change.
const STEP: usize = 64 << 10;

/// Says when to sweep.
pub(crate) struct Rings {
    /// Bytes since the last sweep, and when that was.
    pace: Mutex<(usize, Instant)>,
    /// What was read of changes that had gone.
    past: Arc<Past>,
}

impl Rings {
    pub(crate) fn new(past: Arc<Past>) -> Self {
        Self { pace: Mutex::new((0, Instant::now())), past }
    }

    /// Changes of so many bytes were taken in: sweeps the rings if it is time.
    pub(crate) fn grown<'a, I: Iterator<Item = &'a Cache>>(&self, bytes: usize, caches: impl Fn() -> I) {
        let now = Instant::now();
        let mut pace = self.pace.lock();
        pace.0 += bytes;
        if pace.0 < SWEEP_BYTES && now.saturating_duration_since(pace.1) < SWEEP_AFTER {
            return;
        }
        *pace = (0, now);
        drop(pace);
        if let Some(oldest) = now.checked_sub(SWEEP_AFTER) {
            self.past.forget(oldest);
        }
        sweep(&caches().collect::<Vec<_>>(), BYTES, now.checked_sub(AGE));
    }
}

/// Lets go of changes from before `oldest`, then of the oldest ones until all fit into `budget`.
fn sweep(caches: &[&Cache], budget: usize, oldest: Option<Instant>) {
    let mut total = 0;
    for cache in caches {
        let mut state = cache.state.write();
        state.forget(0, |change, _| oldest.is_some_and(|oldest| change.at < oldest));
        state.shrink();
        total += state.bytes;
    }
    while total > budget {
        let first = |cache: &&&Cache| cache.state.read().ring.front().map_or(u64::MAX, |change| change.revision());
        let Some(cache) = caches.iter().min_by_key(first) else { return };
        let enough = STEP.min(total - budget);
        let freed = cache.state.write().forget(0, |_, freed| freed < enough);
        if freed == 0 {
            return;
        }
        total -= freed;
    }
}

impl State {
    /// Adds a change; the bytes that it keeps alive.
    pub(super) fn push(&mut self, change: Arc<Change>) -> usize {
        let weight = change.weight();
        self.revision = change.revision();
        self.bytes += weight;
        self.ring.push_back(change);
        let surplus = self.ring.len().saturating_sub(EVENTS);
        let mut gone = 0;
        // One kind alone may not outgrow all between two sweeps.
        let excess = self.bytes.saturating_sub(BYTES);
        self.forget(1, |_, freed| {
            gone += 1;
            gone <= surplus || freed < excess
        });
        weight
    }

    /// Lets go of the oldest changes, but for `least` of them, as long as `goes` says so, which also hears how many bytes have gone already. Returns
    /// the bytes.
    fn forget(&mut self, least: usize, mut goes: impl FnMut(&Change, usize) -> bool) -> usize {
        let mut freed = 0;
        while self.ring.len() > least && self.ring.front().is_some_and(|change| goes(change, freed)) {
            let Some(oldest) = self.ring.pop_front() else { break };
            freed += oldest.weight();
            self.start += 1;
            self.complete_after = oldest.revision();
        }
        self.bytes -= freed;
        freed
    }

    /// Gives back the room of a ring that has become much shorter.
    fn shrink(&mut self) {
        if self.ring.capacity() > 64 && self.ring.len() < self.ring.capacity() / 4 {
            self.ring.shrink_to(2 * self.ring.len());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::form::{BUILTIN, Form};

    fn caches<const N: usize>() -> [Cache; N] {
        let strategy = kinds::KINDS.iter().find(|strategy| strategy.def().plural == "configmaps").unwrap();
        std::array::from_fn(|_| {
            let cache = Cache::new(Form::new(kinds::Rules::Builtin(*strategy), BUILTIN).unwrap());
            cache.loaded(0, 0);
            cache
        })
    }

    /// Writes an object of a kibibyte; its change keeps two and a quarter alive.
    fn write(cache: &Cache, revision: u64) {
        write_large(cache, revision, 1024);
    }

    fn write_large(cache: &Cache, revision: u64, size: usize) {
        let name = format!("m{revision}");
        let object = serde_json::json!({"metadata": {"name": name, "namespace": "a"}, "data": {"k": "x".repeat(size)}});
        let stored = cache.form().encoding.encode(&object).unwrap();
        let event = store::Event {
            key: name.clone().into(),
            value: Some(stored),
            revision,
            previous: None,
            lane: store::Lane::Durable,
            note: None,
        };
        cache.apply(&format!("a/{name}"), &event);
    }

    fn lengths(caches: &[Cache]) -> Vec<usize> {
        caches.iter().map(|cache| cache.state.read().ring.len()).collect()
    }

    #[test]
    fn the_oldest_change_of_all_goes_first() {
        let caches = caches::<3>();
        // An idle kind, then two that take turns.
        (1..=50).for_each(|revision| write(&caches[0], revision));
        (51..=250).for_each(|revision| write(&caches[1 + revision as usize % 2], revision));
        let all: Vec<&Cache> = caches.iter().collect();
        let weight = caches[0].state.read().bytes / 50;
        let check = |budget: usize, expected: [usize; 3]| {
            sweep(&all, budget, None);
            // A step is some changes: the two that take turns lose theirs in steps.
            let found = lengths(&caches);
            let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= STEP / weight + 1);
            assert!(
                near && caches.iter().map(|cache| cache.state.read().bytes).sum::<usize>() <= budget,
                "{found:?} {expected:?}"
            );
        };
        check(300 * weight, [50, 100, 100]);
        check(220 * weight, [20, 100, 100]);
        check(150 * weight, [0, 75, 75]);
        assert_eq!(lengths(&caches)[0], 0);
        // What is not in the ring is read elsewhere, and the objects stay.
        assert!(caches[0].state.read().complete_after == 50 && caches[0].size().0 == 50);
    }

    #[test]
    fn old_changes_go_though_there_is_room() {
        let caches = caches::<2>();
        (1..=100).for_each(|revision| write(&caches[0], revision));
        let later = Instant::now();
        write(&caches[1], 101);
        let all: Vec<&Cache> = caches.iter().collect();
        sweep(&all, BYTES, Some(later));
        assert_eq!(lengths(&caches), [0, 1]);
        assert!(caches[0].state.read().ring.capacity() < 64 && caches[0].state.read().bytes == 0);
    }

    /// A change that is larger than all room is seen by who watches.
    #[test]
    fn the_newest_change_stays() {
        let [cache] = caches::<1>();
        write(&cache, 1);
        write_large(&cache, 2, BYTES);
        let state = cache.state.read();
        assert_eq!((state.ring.len(), state.complete_after), (1, 1));
    }

    #[test]
    fn one_kind_is_bounded_between_sweeps() {
        let [cache] = caches::<1>();
        (1..=(EVENTS as u64 + 10)).for_each(|revision| write(&cache, revision));
        let state = cache.state.read();
        assert!(state.ring.len() <= EVENTS && state.bytes <= BYTES);
        assert_eq!(state.start + state.ring.len() as u64, EVENTS as u64 + 10);
    }
}
