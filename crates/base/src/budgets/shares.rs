//! How much of something each of many has at the same time, such as each namespace or client, so that one leaves some to the others.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Held, Meter};

/// What is taken, by whose it is. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Shares<K = String>(Arc<Taken<K>>);

#[derive(Debug)]
struct Taken<K> {
    each: usize,
    all: usize,
    meter: Option<Meter>,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    all: usize,
    by_key: HashMap<K, usize>,
}

/// What is taken until this is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash = String> {
    shares: Shares<K>,
    key: K,
    count: usize,
    _held: Option<Held>,
}

impl Shares {
    /// Each may have `each`.
    pub fn new(each: usize) -> Self {
        Self::of(None, each, usize::MAX)
    }

    /// The same, as the budget of that name, whose limit is that of each.
    pub fn metered(budget: &'static str, each: usize) -> Self {
        Self::of(Some(Meter::new(budget, each)), each, usize::MAX)
    }
}

impl<K: Eq + Hash> Shares<K> {
    /// Each may have `each`, and all together `all`. The meter, if there is one, counts what is taken.
    pub fn of(meter: Option<Meter>, each: usize, all: usize) -> Self {
        let state = Mutex::new(State { all: 0, by_key: HashMap::new() });
        Self(Arc::new(Taken { each, all, meter, state }))
    }

    /// What each may have.
    pub fn each(&self) -> usize {
        self.0.each
    }

    /// One more for `key`; none when it has all that it may have, or all together have.
    pub fn take<Q>(&self, key: &Q) -> Option<Share<K>>
    where
        K: Borrow<Q> + Clone,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        self.take_of(key, 1)
    }

    /// `count` more for `key`, such as bytes; none when there are not so many for it, or for all together.
    pub fn take_of<Q>(&self, key: &Q, count: usize) -> Option<Share<K>>
    where
        K: Borrow<Q> + Clone,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let mut state = self.0.state.lock();
        let taken = state.by_key.get(key).copied().unwrap_or_default();
        let left = self.0.each.saturating_sub(taken).min(self.0.all.saturating_sub(state.all));
        if count > left {
            self.0.meter.iter().for_each(Meter::refused);
            return None;
        }
        let key = key.to_owned();
        state.all += count;
        state.by_key.insert(key.clone(), taken + count);
        drop(state);
        let held = self.0.meter.as_ref().map(|meter| meter.hold_of(count));
        Some(Share { shares: Self(self.0.clone()), key, count, _held: held })
    }

    /// How much all together have.
    pub fn taken(&self) -> usize {
        self.0.state.lock().all
    }

    /// Whether `key` has all that it may have.
    pub fn is_full<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.state.lock().by_key.get(key).copied().unwrap_or_default() >= self.0.each
    }

    /// Whether all together have all.
    pub fn is_exhausted(&self) -> bool {
        self.0.state.lock().all >= self.0.all
    }

    /// Whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        let state = self.0.state.lock();
        state.all == 0 && state.by_key.is_empty()
    }
}

impl<K: Eq + Hash> Share<K> {
    /// Whose it is.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut state = self.shares.0.state.lock();
        state.all -= self.count;
        let Some(taken) = state.by_key.get_mut(&self.key) else { return };
        *taken -= self.count;
        if *taken == 0 {
            state.by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share_and_leaves_nothing() {
        for shares in [Shares::new(2), Shares::metered("test_shares", 2)] {
            let mut taken: Vec<_> = (0..5).map_while(|_| shares.take("a")).collect();
            assert_eq!((taken.len(), shares.is_full("a"), shares.is_full("b")), (2, true, false));
            assert!(shares.take("b").is_some());
            if let Some(meter) = &shares.0.meter {
                assert_eq!((meter.used.get(), meter.refused.get()), (2, 1));
            }
            taken.remove(0);
            assert!(!shares.is_full("a") && shares.take("a").is_some());
            drop(taken);
            assert!(shares.is_empty());
            assert_eq!(shares.0.meter.as_ref().map_or(0, |meter| meter.used.get()), 0);
        }
        assert!(Shares::new(0).take("a").is_none() && Shares::new(0).is_empty());
    }

    /// What counts more than one takes so much, and gives so much back.
    #[test]
    fn shares_of_many() {
        let shares = Shares::of(Some(Meter::new("test_shares_of_many", 100)), 60, 100);
        let used = || shares.0.meter.as_ref().map(|meter| meter.used.get());
        let first = shares.take_of("a", 50);
        assert!(first.is_some() && shares.take_of("a", 11).is_none());
        let second = (shares.take_of("a", 10), shares.take_of("b", 41), shares.take_of("b", 40));
        assert_eq!((second.0.is_some(), second.1.is_some(), second.2.is_some()), (true, false, true));
        assert_eq!((shares.taken(), used(), shares.is_exhausted()), (100, Some(100), true));
        assert!(shares.take_of("c", usize::MAX).is_none());
        drop(first);
        assert_eq!((shares.taken(), used()), (50, Some(50)));
        drop(second);
        assert!(shares.is_empty() && used() == Some(0));
    }

    #[test]
    fn each_has_so_many_and_all_have_so_many() {
        let shares = Shares::<u8>::of(Some(Meter::new("test_shares_of_all", 5)), 3, 5);
        let take = |key: u8, count: usize| (0..count).map_while(|_| shares.take(&key)).collect::<Vec<_>>();
        let first = take(1, 10);
        let second = take(2, 10);
        assert_eq!((first.len(), second.len(), take(3, 1).len()), (3, 2, 0));
        assert!(shares.is_full(&1) && !shares.is_full(&2) && shares.is_exhausted());
        drop(first);
        assert!(!shares.is_exhausted());
        let third = take(3, 1);
        assert_eq!((third.len(), take(1, 10).len()), (1, 2));
        drop(third);
        drop(second);
        assert!(shares.is_empty());
        let meter = shares.0.meter.as_ref().map(|meter| (meter.used.get(), meter.refused.get()));
        assert_eq!(meter, Some((0, 4)));
    }
}
