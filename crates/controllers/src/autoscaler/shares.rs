//! How much of something each namespace has at the same time, so that one leaves some to the others.

use std::collections::HashMap;

use parking_lot::Mutex;

/// What is taken, by namespace.
pub(super) struct Shares {
    each: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// One that is taken until this is dropped.
pub(super) struct Share<'a> {
    shares: &'a Shares,
    namespace: String,
}

impl Shares {
    /// Each namespace may have `each`.
    pub(super) fn new(each: usize) -> Self {
        Self { each, taken: Mutex::default() }
    }

    /// One more for a namespace; none when it has all that it may have.
    pub(super) fn take(&self, namespace: &str) -> Option<Share<'_>> {
        let mut all = self.taken.lock();
        let taken = all.entry(namespace.to_owned()).or_default();
        (*taken < self.each).then(|| {
            *taken += 1;
            Share { shares: self, namespace: namespace.to_owned() }
        })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut all = self.shares.taken.lock();
        let Some(taken) = all.get_mut(&self.namespace) else { return };
        *taken -= 1;
        if *taken == 0 {
            all.remove(&self.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_share_and_leaves_nothing() {
        let shares = Shares::new(2);
        let mut taken: Vec<_> = (0..5).map(|_| shares.take("a")).collect();
        assert_eq!(taken.iter().flatten().count(), 2);
        assert!(shares.take("b").is_some());
        taken.remove(0);
        assert!(shares.take("a").is_some());
        drop(taken);
        assert!(shares.taken.lock().is_empty());
    }
}
