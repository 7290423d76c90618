//! After how many seconds who was refused should come again: the longer, the more are refused.

use std::collections::VecDeque;

const LONGEST: u64 = 32;

/// The refusals of one priority level.
#[derive(Debug)]
pub(crate) struct Dropped {
    /// Seconds in which some were refused, and how many, the current one last.
    history: VecDeque<(u64, u64)>,
    retry_after: u64,
    raised: Option<u64>,
}

impl Default for Dropped {
    fn default() -> Self {
        Self { history: VecDeque::new(), retry_after: 1, raised: None }
    }
}

impl Dropped {
    /// Another one is refused in this second. How long it should wait.
    pub(crate) fn note(&mut self, second: u64) -> u64 {
        match self.history.back_mut() {
            Some((last, count)) if *last >= second => *count += 1,
            _ => {
                self.adapt(second);
                self.history.push_back((second, 1));
            }
        }
        self.retry_after
    }

    /// Doubles the wait when three were refused for each of its seconds, and lets it shrink again when less than one was.
    fn adapt(&mut self, second: u64) {
        let wait = self.retry_after;
        while self.history.front().is_some_and(|(then, _)| second - then > LONGEST) {
            self.history.pop_front();
        }
        let dropped: u64 = self.history.iter().filter(|(then, _)| second - then <= wait).map(|(_, count)| count).sum();
        let is_due = self.raised.is_none_or(|raised| second - raised >= wait);
        if is_due && dropped >= 3 * wait {
            self.retry_after = (wait * 2).min(LONGEST);
            self.raised = Some(second);
        } else if dropped < wait && wait > 1 {
            self.retry_after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits() {
        let check = |refusals: &[(u64, u64)], expected: u64| {
            let mut dropped = Dropped::default();
            let waits = refusals.iter().flat_map(|(second, count)| (0..*count).map(|_| *second));
            assert_eq!(waits.map(|second| dropped.note(second)).last(), Some(expected), "{refusals:?}");
        };
        check(&[(10, 100)], 1);
        check(&[(10, 2), (11, 1)], 1);
        check(&[(10, 3), (11, 1)], 2);
        check(&[(10, 3), (11, 100), (12, 1)], 2);
        check(&[(10, 3), (11, 100), (12, 1), (13, 1)], 4);
        // After a time without any it is as if nothing had been.
        check(&[(10, 3), (11, 1), (100, 1)], 1);
        let flood: Vec<_> = (10..200).map(|second| (second, 1000)).collect();
        check(&flood, LONGEST);
    }
}
