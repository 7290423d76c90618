//! When what has failed is tried again.

use std::time::Duration;

use tokio::time::Instant;

use crate::nft::table::Patience;

/// Waits that double from the first one to the longest.
#[derive(Debug)]
pub(crate) struct Retry {
    first: Duration,
    longest: Duration,
    next: Duration,
    at: Option<Instant>,
}

impl Retry {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, at: None }
    }

    /// It failed. What fails before its time, as something else had to be tried, makes no wait longer.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.at.is_none_or(|at| at <= now) {
            self.at = Some(now + self.next);
            self.next = (self.next * 2).min(self.longest);
        }
    }

    /// Nothing is to be tried again.
    pub(crate) fn settled(&mut self) {
        *self = Self::new(self.first, self.longest);
    }

    /// Whether it failed in time so often that the waits grow no longer.
    pub(crate) fn is_spent(&self) -> bool {
        self.next >= self.longest
    }

    /// What is done about an error that may pass; with `is_again`, something that did not pass before is tried another time, and not waited for.
    pub(crate) fn patience(&self, is_again: bool) -> Patience {
        if is_again || self.is_spent() { Patience::Spent } else { Patience::Left }
    }

    /// Whether it failed, and its time has not come.
    pub(crate) fn is_waiting(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at > now)
    }

    /// When it is to be tried again; none, where nothing has failed.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// Returns when it is to be tried again; never, where nothing has failed.
    pub(crate) async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_failures_in_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut retry = Retry::new(Duration::from_secs(2), Duration::from_secs(7));
        assert!(!retry.is_due(after(1000)) && !retry.is_spent());
        retry.failed(start);
        // News come at any time, as often as they like.
        (0..100).for_each(|_| retry.failed(after(1)));
        assert!(!retry.is_due(after(1)) && retry.is_due(after(2)) && !retry.is_spent());
        assert!(retry.is_waiting(after(1)) && !retry.is_waiting(after(2)));
        retry.failed(after(2));
        assert!(!retry.is_due(after(5)) && retry.is_due(after(6)) && retry.is_spent());
        retry.failed(after(6));
        assert!(!retry.is_due(after(12)) && retry.is_due(after(13)) && retry.is_spent());
        retry.settled();
        assert!(!retry.is_due(after(1000)) && !retry.is_spent());
    }
}
