//! The present objects of a kind, sorted by path.
//!
//! A sorted list that is cut into short runs. A page of a list has to say how many objects come behind it, and must not cost
//! more where there are many: between two places lies the sum of the lengths of some runs, which a tree of the standard
//! library could only count one by one.

use std::sync::Arc;

use crate::Entry;

/// Objects of a run, at most.
const RUN: usize = 256;

type Pair = (Arc<str>, Arc<Entry>);

/// Objects by their paths.
#[derive(Default)]
pub(super) struct Items {
    /// None is empty.
    runs: Vec<Vec<Pair>>,
    /// Of all objects, as they are encoded.
    bytes: usize,
}

/// A place between two objects: a run, and how many of its objects come before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    run: usize,
    at: usize,
}

impl Items {
    /// The place before the first object whose path is not `before` the wanted one.
    fn partition(&self, before: impl Fn(&str) -> bool) -> Place {
        let run = self.runs.partition_point(|run| run.last().is_some_and(|(path, _)| before(path)));
        let at = self.runs.get(run).map_or(0, |run| run.partition_point(|(path, _)| before(path)));
        Place { run, at }
    }

    /// The place before a path.
    pub(super) fn before(&self, path: &str) -> Place {
        self.partition(|known| known < path)
    }

    /// The place behind a path.
    pub(super) fn behind(&self, path: &str) -> Place {
        self.partition(|known| known <= path)
    }

    /// The place behind all.
    pub(super) fn end(&self) -> Place {
        Place { run: self.runs.len(), at: 0 }
    }

    /// How many objects come before a place.
    pub(super) fn rank(&self, place: Place) -> usize {
        self.runs[..place.run].iter().map(Vec::len).sum::<usize>() + place.at
    }

    /// The objects between two places.
    pub(super) fn range(&self, from: Place, to: Place) -> impl Iterator<Item = (&Arc<str>, &Arc<Entry>)> {
        let runs = self.runs.iter().enumerate().take(to.run + 1).skip(from.run);
        runs.flat_map(move |(number, run)| {
            let start = if number == from.run { from.at } else { 0 };
            let end = if number == to.run { to.at } else { run.len() };
            run.get(start..end).unwrap_or_default().iter().map(|(path, entry)| (path, entry))
        })
    }

    /// All objects.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.runs.iter().flatten().map(|(_, entry)| entry)
    }

    /// The object at a path.
    pub(super) fn get(&self, path: &str) -> Option<&Arc<Entry>> {
        let Place { run, at } = self.before(path);
        self.runs.get(run)?.get(at).filter(|(known, _)| **known == *path).map(|(_, entry)| entry)
    }

    /// The bytes of all objects.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts an object in its place, and gives the one that was there.
    pub(super) fn insert(&mut self, path: &str, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        self.bytes += entry.json.len();
        let old = self.place(path, entry);
        self.bytes -= old.as_ref().map_or(0, |old| old.json.len());
        old
    }

    fn place(&mut self, path: &str, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let key = || if **entry.index.key() == *path { entry.index.key().clone() } else { path.into() };
        let Place { run: number, at } = self.before(path);
        // Behind all: the last run takes it.
        let number = number.min(self.runs.len().saturating_sub(1));
        let Some(run) = self.runs.get_mut(number) else {
            self.runs.push(vec![(key(), entry)]);
            return None;
        };
        let at = if run.last().is_some_and(|(last, _)| **last < *path) { run.len() } else { at };
        if let Some((known, old)) = run.get_mut(at)
            && **known == *path
        {
            *known = key();
            return Some(std::mem::replace(old, entry));
        }
        if run.len() < RUN {
            run.insert(at, (key(), entry));
        } else if at == RUN {
            // Objects that come in order fill their runs.
            self.runs.insert(number + 1, vec![(key(), entry)]);
        } else {
            let half = run.split_off(RUN / 2);
            self.runs.insert(number + 1, half);
            return self.place(path, entry);
        }
        None
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, path: &str) -> Option<Arc<Entry>> {
        let Place { run: number, at } = self.before(path);
        let run = self.runs.get_mut(number)?;
        if run.get(at).is_none_or(|(known, _)| **known != *path) {
            return None;
        }
        let (_, entry) = run.remove(at);
        self.bytes -= entry.json.len();
        if run.is_empty() {
            self.runs.remove(number);
        } else {
            self.join(number);
            self.join(number.wrapping_sub(1));
        }
        Some(entry)
    }

    /// Joins a run with the next one where both are short.
    fn join(&mut self, number: usize) {
        if let Some([run, next, ..]) = self.runs.get(number..)
            && run.len() + next.len() <= RUN / 2
        {
            let next = self.runs.remove(number + 1);
            self.runs[number].extend(next);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::entry::Index;

    fn entry(revision: u64) -> Arc<Entry> {
        let strategy = kinds::KINDS.iter().find(|strategy| strategy.def().kind == "ConfigMap").unwrap();
        let index = Arc::new(Index::of(*strategy, &serde_json::json!({}), 0));
        Arc::new(Entry { index, revision, json: bytes::Bytes::new() })
    }

    /// A generator that gives the same numbers in each run.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self, below: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % below
        }
    }

    #[track_caller]
    fn check(items: &Items, model: &BTreeMap<String, u64>, path: &str) {
        let found: Vec<_> = items.range(items.behind(path), items.end()).map(|(path, entry)| (&**path, entry.revision)).collect();
        let expected: Vec<_> =
            model.iter().filter(|(known, _)| *known.as_str() > *path).map(|(path, it)| (&**path, *it)).collect();
        assert_eq!(found, expected);
        assert_eq!(items.rank(items.before(path)), model.keys().filter(|known| *known.as_str() < *path).count());
        assert_eq!(items.get(path).map(|entry| entry.revision), model.get(path).copied());
        assert!(items.runs.iter().all(|run| !run.is_empty() && run.len() <= RUN));
    }

    #[test]
    fn it_is_a_sorted_map() {
        let (mut items, mut model, mut numbers) = (Items::default(), BTreeMap::new(), Numbers(7));
        for step in 0..20_000_u64 {
            // Grows, shrinks, and grows again.
            let grows = step % 8000 < 5000;
            let path = format!("n{}/{:05}", numbers.next(3), numbers.next(3000));
            if numbers.next(10) < if grows { 8 } else { 1 } {
                let old = items.insert(&path, entry(step));
                assert_eq!(old.map(|entry| entry.revision), model.insert(path.clone(), step));
            } else {
                assert_eq!(items.remove(&path).map(|entry| entry.revision), model.remove(&path));
            }
            if step % 500 == 0 {
                check(&items, &model, &path);
                check(&items, &model, "n1/");
                check(&items, &model, "");
                check(&items, &model, "o");
            }
        }
        assert_eq!(items.values().count(), model.len());
    }

    #[test]
    fn objects_in_order_fill_their_runs() {
        let mut items = Items::default();
        for number in 0..10 * RUN {
            items.insert(&format!("{number:06}"), entry(1));
        }
        assert_eq!(items.runs.len(), 10);
        for number in (0..10 * RUN).filter(|number| number % 8 != 0) {
            items.remove(&format!("{number:06}"));
        }
        assert!(items.runs.len() <= 5, "{}", items.runs.len());
    }
}
