//! How much may be stored. What is stored is in memory, too: whoever could store without end would end the server, and each next start.

use crate::Error;

/// What of a limit updates may take beyond it: status, finalizers and the marks of deletion are updates, and are on the way to fewer
/// objects.
const FOR_UPDATES: u64 = 16;

/// How many bytes records may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota(pub(super) u64);

impl Quota {
    /// Whether a record of `before` bytes (none where there is none) may have `after` bytes (none for a deletion) beside `taken` ones.
    ///
    /// # Errors
    /// [`Error::Quota`].
    pub(super) fn check(self, taken: u64, before: Option<usize>, after: Option<usize>) -> Result<(), Error> {
        let Self(limit) = self;
        let allowed = match (before, after) {
            (_, None) => return Ok(()),
            (Some(before), Some(after)) if after <= before => return Ok(()),
            (Some(_), _) => limit.saturating_add(limit / FOR_UPDATES),
            (None, _) => limit,
        };
        let more = after.unwrap_or_default().saturating_sub(before.unwrap_or_default());
        if taken.saturating_add(more as u64) <= allowed { Ok(()) } else { Err(Error::Quota { taken, limit }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_room_is_never_refused_and_what_grows_ends_at_the_limit() {
        let check = |stored, before, after, fits: bool| {
            assert_eq!(Quota(1_600).check(stored, before, after).is_ok(), fits, "{stored} {before:?} {after:?}");
        };
        check(1_500, None, Some(100), true);
        check(1_500, None, Some(101), false);
        check(1_600, Some(10), Some(110), true);
        check(1_600, Some(10), Some(111), false);
        check(9_999, Some(10), Some(10), true);
        check(9_999, Some(10), None, true);
        check(u64::MAX, None, Some(1), false);
    }
}
