//! When revisions were: history that is young stays longer, so that whoever writes much does not take it from all who are away for a moment.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::Revision;

/// Moments that are kept, spread over the time that is asked about.
const KEPT: u32 = 64;

/// The newest revisions at some moments of the last while.
pub(super) struct Moments {
    keep: Duration,
    /// Oldest first.
    known: VecDeque<(Instant, Revision)>,
    /// All up to here are old.
    old: Revision,
}

impl Moments {
    /// All up to `revision` are old: they are of an earlier process.
    pub(super) fn new(keep: Duration, revision: Revision) -> Self {
        Self { keep, known: VecDeque::new(), old: revision }
    }

    /// Notes that `revision` is the newest one now.
    pub(super) fn note(&mut self, now: Instant, revision: Revision) {
        let is_new = self.known.back().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= self.keep / KEPT);
        if is_new {
            self.known.push_back((now, revision));
        }
        while let Some((then, revision)) = self.known.front()
            && now.saturating_duration_since(*then) >= self.keep
        {
            self.old = self.old.max(*revision);
            self.known.pop_front();
        }
    }

    /// The newest revision that was the newest one so long ago.
    pub(super) fn old(&self) -> Revision {
        self.old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut moments = Moments::new(64 * second, 5);
        // The last after nothing had happened for long.
        for (at, revision, old) in
            [(0, 6, 5), (0, 7, 5), (10, 20, 5), (63, 30, 5), (64, 31, 6), (73, 32, 6), (74, 33, 20), (1000, 40, 33)]
        {
            moments.note(start + at * second, revision);
            assert_eq!(moments.old(), old, "{at}");
        }
        // As many moments as it takes, however much is written.
        (1..=640).for_each(|number| moments.note(start + 1000 * second + number * second / 10, 40 + Revision::from(number)));
        assert_eq!((moments.old(), moments.known.len()), (40, 64));
    }
}
