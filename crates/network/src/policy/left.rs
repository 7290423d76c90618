//! Changes that the kernel refuses and for which nothing stands in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::nft::contents::{Change, Fragment};
use crate::retry::Retry;

/// Each time that a change is refused, the kernel gets the whole table anew, and sessions lose their endpoints.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(5);
pub(super) const RETRY_MAX: Duration = Duration::from_secs(300);

/// They are tried again from time to time, not with each change of something else.
pub(super) struct Left {
    changes: Vec<Change>,
    /// Of those that are left, or were when they were tried last.
    owners: BTreeSet<String>,
    again: Retry,
}

impl Left {
    pub(super) fn new() -> Self {
        Self { changes: Vec::new(), owners: BTreeSet::new(), again: Retry::new(RETRY_MIN, RETRY_MAX) }
    }

    /// What is to be tried with these changes: all that is left too, when it is time or one of them is of something that is left, on which others of these may depend.
    pub(super) fn with(&mut self, changes: Vec<Change>, now: Instant) -> Vec<Change> {
        if self.again.is_due(now) || changes.iter().any(|(owner, _)| self.owners.contains(owner)) {
            return over(std::mem::take(&mut self.changes), changes);
        }
        changes
    }

    /// Keeps what is refused of what was tried. What is left from earlier times stays so.
    pub(super) fn keep(&mut self, refused: Vec<Change>) {
        self.changes = over(std::mem::take(&mut self.changes), refused);
        self.owners = self.changes.iter().map(|(owner, _)| owner.clone()).collect();
    }

    /// What is left of these owners is out of date.
    pub(super) fn forget(&mut self, tried: &[Change]) {
        self.changes.retain(|(owner, _)| !tried.iter().any(|(other, _)| other == owner));
    }

    /// What was to be tried has been, at this time. If it `failed` in passing, what was left may be among what somebody else keeps.
    pub(super) fn settle(&mut self, now: Instant, failed: bool) {
        if !self.changes.is_empty() || (failed && self.again.is_due(now)) {
            self.again.failed(now);
        } else if !failed {
            self.again.settled();
        }
    }

    /// Whether something of an owner is refused, as far as is known.
    pub(super) fn has(&self, owner: &str) -> bool {
        self.owners.contains(owner)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.again.is_due(now)
    }

    /// Returns when it is time to try what is left.
    pub(super) async fn due(&self) {
        self.again.due().await;
    }
}

/// Changes, the later ones in place of the earlier.
pub(super) fn over(earlier: Vec<Change>, later: Vec<Change>) -> Vec<Change> {
    let mut merged: BTreeMap<String, Fragment> = earlier.into_iter().collect();
    merged.extend(later);
    merged.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(owners: &str) -> Vec<Change> {
        owners.split_whitespace().map(|owner| (owner.to_owned(), Fragment::default())).collect()
    }

    fn check(changes: &[Change], expected: &str) {
        assert_eq!(changes.iter().map(|(owner, _)| owner.as_str()).collect::<Vec<_>>().join(" "), expected);
    }

    /// Tries changes, of which these are refused; returns what was tried.
    fn tried(left: &mut Left, given: &str, refused: &str, now: Instant) -> Vec<Change> {
        let tried = left.with(changes(given), now);
        left.forget(&tried);
        left.keep(changes(refused));
        left.settle(now, false);
        tried
    }

    #[test]
    fn what_is_left_is_tried_when_it_is_time() {
        let (mut left, start) = (Left::new(), Instant::now());
        check(&tried(&mut left, "a b c", "a b", start), "a b c");
        // Not with changes of others, however many they are.
        for _ in 0..100 {
            check(&tried(&mut left, "c d", "", start), "c d");
        }
        assert!(left.has("a") && left.has("b") && !left.has("c"));
        let mut now = start + RETRY_MIN;
        check(&tried(&mut left, "c", "a b", now), "a b c");
        check(&tried(&mut left, "c", "", now + RETRY_MIN), "c");
        // The waits grow to the longest one.
        for _ in 0..10 {
            now += RETRY_MAX;
            check(&tried(&mut left, "", "a b", now), "a b");
        }
        assert!(!left.is_due(now + RETRY_MAX / 2) && left.is_due(now + RETRY_MAX));
        // What is new of one of them may be what the others need.
        check(&tried(&mut left, "a d", "a", now), "a b d");
        assert!(left.has("a") && !left.has("b"));
        check(&tried(&mut left, "a", "", now), "a");
        assert!(!left.has("a") && !left.is_due(now + RETRY_MAX));
    }

    #[test]
    fn what_stands_in_replaces_what_is_left() {
        let (mut left, start) = (Left::new(), Instant::now());
        tried(&mut left, "a b", "a b", start);
        left.forget(&changes("a"));
        check(&left.with(Vec::new(), start + RETRY_MIN), "b");
    }

    /// A failure that may pass makes nobody try without a pause.
    #[test]
    fn what_fails_in_passing_waits() {
        let (mut left, start) = (Left::new(), Instant::now());
        tried(&mut left, "a", "a", start);
        let now = start + RETRY_MIN;
        check(&left.with(Vec::new(), now), "a");
        left.settle(now, true);
        assert!(!left.is_due(now) && left.is_due(now + 2 * RETRY_MIN));
        left.settle(now, false);
        assert!(!left.is_due(now + RETRY_MAX));
    }
}
