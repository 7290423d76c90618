//! How much of something each of many has at the same time, such as each namespace, so that one leaves some to the others.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Held, Meter};

/// What is taken, by whose it is. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    each: usize,
    meter: Option<Meter>,
    by_key: Mutex<HashMap<String, usize>>,
}

/// One that is taken until this is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    key: String,
    _held: Option<Held>,
}

impl Shares {
    /// Each may have `each`.
    pub fn new(each: usize) -> Self {
        Self(Arc::new(Taken { each, meter: None, by_key: Mutex::default() }))
    }

    /// The same, as the budget of that name, whose limit is that of each.
    pub fn metered(budget: &'static str, each: usize) -> Self {
        Self(Arc::new(Taken { each, meter: Some(Meter::new(budget, each)), by_key: Mutex::default() }))
    }

    /// What each may have.
    pub fn each(&self) -> usize {
        self.0.each
    }

    /// One more for `key`; none when it has all that it may have.
    pub fn take(&self, key: &str) -> Option<Share> {
        let mut by_key = self.0.by_key.lock();
        let taken = by_key.get(key).copied().unwrap_or_default();
        if taken >= self.0.each {
            self.0.meter.iter().for_each(Meter::refused);
            return None;
        }
        by_key.insert(key.to_owned(), taken + 1);
        Some(Share { shares: self.clone(), key: key.to_owned(), _held: self.0.meter.as_ref().map(Meter::hold) })
    }

    /// Whether `key` has all that it may have.
    pub fn is_full(&self, key: &str) -> bool {
        self.0.by_key.lock().get(key).copied().unwrap_or_default() >= self.0.each
    }

    /// Whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.0.by_key.lock().is_empty()
    }
}

impl Share {
    /// Whose it is.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut by_key = self.shares.0.by_key.lock();
        let Some(taken) = by_key.get_mut(&self.key) else { return };
        *taken -= 1;
        if *taken == 0 {
            by_key.remove(&self.key);
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
}
