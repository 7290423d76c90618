//! Pods that are ready to be tried: those that concern no extender, and apart from them the others, which wait while one of theirs is asked.
//!
//! Of pods with the same priority those of each namespace have their turn: a namespace with many that find no node, again and again, does not stand before
//! the first one of another. Within a namespace the one that waits longest comes first.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use client::Key;

use super::place::Lane;

/// Higher priority first, then whose namespace's turn comes first, then who waits longer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) priority: i32,
    turn: Reverse<u64>,
    pub(super) number: Reverse<u64>,
    pub(super) key: Key,
}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |ready: &Self| (ready.priority, ready.turn, ready.number);
        order(self).cmp(&order(other))
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Turns of the pods of one priority: the n-th of each namespace comes before the one after it of any.
#[derive(Debug, Default)]
struct Turns {
    /// The turn of the pod that was tried last.
    passed: u64,
    /// That of the last pod of each namespace.
    last: HashMap<String, u64>,
}

impl Turns {
    fn next(&mut self, namespace: &str) -> u64 {
        let passed = self.passed;
        if self.last.len() == self.last.capacity() {
            self.last.retain(|_, turn| *turn > passed);
        }
        let last = self.last.entry(namespace.to_owned()).or_default();
        *last = passed.max(*last) + 1;
        *last
    }
}

#[derive(Debug, Default)]
pub(super) struct Active {
    plain: BinaryHeap<Ready>,
    /// By the extenders that they concern; none is empty.
    lanes: BTreeMap<Lane, BinaryHeap<Ready>>,
    /// By priority. None is left when nobody is ready.
    turns: HashMap<i32, Turns>,
}

impl Active {
    /// A pod is ready, which has waited since this number.
    pub(super) fn push(&mut self, key: Key, priority: i32, number: u64, lane: Lane) {
        let turn = self.turns.entry(priority).or_default().next(key.ns());
        let ready = Ready { priority, turn: Reverse(turn), number: Reverse(number), key };
        match lane {
            0 => self.plain.push(ready),
            lane => self.lanes.entry(lane).or_default().push(ready),
        }
    }

    /// The next one that concerns no extender which is `busy`.
    pub(super) fn pop(&mut self, busy: Lane) -> Option<Ready> {
        let ready = self.take(busy)?;
        if self.plain.is_empty() && self.lanes.is_empty() {
            self.turns.clear();
        } else if let Some(turns) = self.turns.get_mut(&ready.priority) {
            turns.passed = turns.passed.max(ready.turn.0);
        }
        Some(ready)
    }

    fn take(&mut self, busy: Lane) -> Option<Ready> {
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
            active.push(Key::cluster(name), priority, number as u64, lane);
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
        assert!(!active.has_any(0) && active.lanes.is_empty() && active.turns.is_empty());
    }

    #[test]
    fn each_namespace_has_its_turn() {
        let mut active = Active::default();
        let mut number = 0;
        let mut push = |active: &mut Active, namespace: &str, name: &str, priority: i32| {
            number += 1;
            active.push(Key::namespaced(namespace, name), priority, number, 0);
        };
        let pop = |active: &mut Active| active.pop(0).map(|ready| ready.key.name).unwrap_or_default();
        for name in ["a1", "a2", "a3", "a4", "a5"] {
            push(&mut active, "a", name, 0);
        }
        push(&mut active, "b", "b1", 0);
        push(&mut active, "b", "b2", 0);
        assert_eq!([pop(&mut active), pop(&mut active), pop(&mut active)], ["a1", "b1", "a2"]);
        // Who comes back or comes anew waits for one of each, whatever there is of one; who matters more does not wait.
        push(&mut active, "a", "a1", 0);
        push(&mut active, "c", "c1", 0);
        push(&mut active, "a", "high", 1);
        let all: Vec<String> = std::iter::from_fn(|| active.pop(0).map(|ready| ready.key.name)).collect();
        assert_eq!(all, ["high", "b2", "a3", "c1", "a4", "a5", "a1"]);
    }
}
