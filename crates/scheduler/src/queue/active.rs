//! Pods that are ready to be tried: those that concern no extender, and apart from them the others, which wait while one of theirs is asked.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use client::Key;

use super::place::Lane;

/// Higher priority first, then who waits longer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) priority: i32,
    pub(super) number: Reverse<u64>,
    pub(super) key: Key,
}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority.cmp(&other.priority).then_with(|| self.number.cmp(&other.number))
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Debug, Default)]
pub(super) struct Active {
    plain: BinaryHeap<Ready>,
    /// By the extenders that they concern; none is empty.
    lanes: BTreeMap<Lane, BinaryHeap<Ready>>,
}

impl Active {
    pub(super) fn push(&mut self, ready: Ready, lane: Lane) {
        match lane {
            0 => self.plain.push(ready),
            lane => self.lanes.entry(lane).or_default().push(ready),
        }
    }

    /// The next one that concerns no extender which is `busy`.
    pub(super) fn pop(&mut self, busy: Lane) -> Option<Ready> {
        let free = self.lanes.iter().filter(|(lane, _)| *lane & busy == 0);
        let best = free.filter_map(|(lane, heap)| Some((heap.peek()?, *lane))).max_by(|a, b| a.0.cmp(b.0));
        let lane = best.filter(|(ready, _)| self.plain.peek().is_none_or(|plain| *ready > plain)).map(|(_, lane)| lane);
        let Some(lane) = lane else { return self.plain.pop() };
        let heap = self.lanes.get_mut(&lane)?;
        let ready = heap.pop();
        if heap.is_empty() {
            self.lanes.remove(&lane);
        }
        ready
    }

    /// Whether there is one to be tried.
    pub(super) fn has_any(&self, busy: Lane) -> bool {
        !self.plain.is_empty() || self.lanes.keys().any(|lane| lane & busy == 0)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.plain.len() + self.lanes.values().map(BinaryHeap::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_concerns_no_busy_extender_comes_first_by_priority() {
        let mut active = Active::default();
        for (number, (name, priority, lane)) in
            [("a", 0, 0), ("b", 5, 1), ("c", 5, 2), ("d", 1, 0), ("e", 9, 3)].into_iter().enumerate()
        {
            active.push(Ready { priority, number: Reverse(number as u64), key: Key::cluster(name) }, lane);
        }
        let check = |active: &mut Active, busy: Lane, expected: &str| {
            assert!(active.has_any(busy));
            assert_eq!(active.pop(busy).map(|ready| ready.key.name).as_deref(), Some(expected), "{busy}");
        };
        check(&mut active, 1, "c");
        check(&mut active, 1, "d");
        check(&mut active, 0, "e");
        check(&mut active, 1, "a");
        assert!(!active.has_any(1) && active.pop(1).is_none() && active.has_any(2));
        check(&mut active, 2, "b");
        assert!(!active.has_any(0) && active.lanes.is_empty());
    }
}
