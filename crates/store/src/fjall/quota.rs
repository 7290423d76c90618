//! How much may be stored. What is stored is in memory, too: whoever could store without end would end the server, and each next start.

use crate::Error;

/// What of a limit updates may take beyond it: status, finalizers and what is said of an end are updates, and are on the way to fewer objects.
const FOR_UPDATES: u64 = 16;

/// Bytes that updates may take beyond what a start has found, or beyond what is left of that since, where it is more than they may have: a quota
/// was lowered, and nothing could be taken down if nobody could say how far he is.
const FOR_UPDATES_BEYOND: u64 = 1 << 20;

/// Most bytes by which a step of a removal makes a record larger, and is refused by no quota: a mark of deletion, finalizers of the garbage
/// collector, a condition. What is longer is an update like others.
const OF_REMOVAL: usize = 4 << 10;

/// How many bytes records may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    limit: u64,
    /// How many where it is an update that takes them.
    updates: u64,
}

/// A record before and after a write, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// None where there is none.
    pub(super) before: Option<usize>,
    /// None for a deletion.
    pub(super) after: Option<usize>,
    /// The write is a step of some record's removal, maybe another one's ([`crate::Write::removes`]).
    pub(super) removes: bool,
}

impl Quota {
    /// A limit for a store in which so many bytes are taken.
    pub(super) fn new(limit: u64, taken: u64) -> Self {
        Self { limit, updates: for_updates(limit, taken) }
    }

    /// Takes note of how much is taken now: what has gone makes no room for updates beyond the limit again.
    pub(super) fn settle(&mut self, taken: u64) {
        self.updates = self.updates.min(for_updates(self.limit, taken));
    }

    /// Whether a write may make a record so large beside `taken` bytes. What does not grow is never refused.
    ///
    /// # Errors
    /// [`Error::Quota`].
    pub(super) fn check(self, taken: u64, sizes: Sizes) -> Result<(), Error> {
        let Self { limit, updates } = self;
        let more = sizes.after.unwrap_or_default().saturating_sub(sizes.before.unwrap_or_default());
        let allowed = match sizes {
            Sizes { after: None, .. } => return Ok(()),
            Sizes { before: Some(_), removes, .. } if more == 0 || removes && more <= OF_REMOVAL => return Ok(()),
            Sizes { before: Some(_), .. } => updates,
            Sizes { before: None, .. } => limit,
        };
        if taken.saturating_add(more as u64) <= allowed { Ok(()) } else { Err(Error::Quota { taken, limit }) }
    }
}

/// How many bytes may be taken by updates where so many are taken.
fn for_updates(limit: u64, taken: u64) -> u64 {
    let share = limit / FOR_UPDATES;
    let usual = limit.saturating_add(share);
    if taken > usual { taken.saturating_add(share.min(FOR_UPDATES_BEYOND)) } else { usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `found` is what was taken at the start.
    #[track_caller]
    fn check(found: u64, taken: u64, (before, after): (Option<usize>, Option<usize>), removes: bool, fits: bool) {
        let sizes = Sizes { before, after, removes };
        assert_eq!(Quota::new(1_600, found).check(taken, sizes).is_ok(), fits, "{found} {taken} {sizes:?}");
    }

    #[test]
    fn what_makes_room_is_never_refused_and_what_grows_ends_at_the_limit() {
        for found in [0, 1_700] {
            check(found, 1_500, (None, Some(100)), false, true);
            check(found, 1_500, (None, Some(101)), false, false);
            check(found, 1_600, (Some(10), Some(110)), false, true);
            check(found, 1_600, (Some(10), Some(111)), false, false);
            check(found, 9_999, (Some(10), Some(10)), false, true);
            check(found, 9_999, (Some(10), None), false, true);
            check(found, u64::MAX, (None, Some(1)), false, false);
        }
    }

    #[test]
    fn over_a_lowered_limit_objects_can_be_taken_down() {
        // A hundred more than there were.
        check(9_000, 9_000, (Some(10), Some(110)), false, true);
        check(9_000, 9_000, (Some(10), Some(111)), false, false);
        check(9_000, 9_000, (None, Some(1)), false, false);
        check(9_000, 9_101, (Some(10), Some(10 + OF_REMOVAL)), true, true);
        check(9_000, 9_101, (Some(10), Some(11 + OF_REMOVAL)), true, false);
        // Nothing is removed that is not there.
        check(9_000, 9_101, (None, Some(1)), true, false);
        let large = Quota::new(1 << 40, 1 << 41);
        assert_eq!(large.updates, (1 << 41) + FOR_UPDATES_BEYOND);
    }

    #[test]
    fn what_has_gone_makes_no_room_for_updates_beyond_the_limit() {
        let mut quota = Quota::new(1_600, 9_000);
        for (taken, updates) in [(9_000, 9_100), (9_100, 9_100), (5_000, 5_100), (5_100, 5_100), (1_650, 1_700), (9_000, 1_700)] {
            quota.settle(taken);
            assert_eq!(quota.updates, updates, "{taken}");
        }
        let update = Sizes { before: Some(10), after: Some(11), removes: false };
        assert!(quota.check(1_699, update).is_ok() && quota.check(1_700, update).is_err());
    }
}
