//! Sets of completion indexes, kept as intervals: `1,3-5,7`.

use std::collections::BTreeSet;
use std::fmt;

/// Indexes in order, as first and last of each run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads a list. Indexes from `completions` on, which a job had before it became smaller, are left out, and so is what
    /// is no index.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let interval = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            (first < completions).then_some((first, last.min(completions - 1)))
        };
        Self::of(text.split(',').filter_map(interval).collect())
    }

    fn of(mut intervals: Vec<(i32, i32)>) -> Self {
        intervals.sort_unstable();
        let mut runs: Vec<(i32, i32)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match runs.last_mut() {
                Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
                _ => runs.push((first, last)),
            }
        }
        Self(runs)
    }

    /// These and those.
    pub(super) fn with(&self, more: &BTreeSet<i32>) -> Self {
        Self::of(self.0.iter().copied().chain(more.iter().map(|index| (*index, *index))).collect())
    }

    /// Both sets together.
    pub(super) fn merge(&self, other: &Self) -> Self {
        Self::of(self.0.iter().chain(&other.0).copied().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many indexes there are.
    pub(super) fn count(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(super) fn has(&self, index: i32) -> bool {
        let run = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(run).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes both have.
    pub(super) fn common(&self, other: &Self) -> i32 {
        let (mut mine, mut theirs, mut common) = (self.0.iter().peekable(), other.0.iter().peekable(), 0);
        while let (Some(&&(first, last)), Some(&&(other_first, other_last))) = (mine.peek(), theirs.peek()) {
            common += (last.min(other_last) - first.max(other_first) + 1).max(0);
            if last <= other_last {
                mine.next();
            } else {
                theirs.next();
            }
        }
        common
    }

    /// The first `number` indexes below `completions` that are not in the set.
    pub(super) fn missing(&self, number: usize, completions: i32) -> Vec<i32> {
        let mut start = 0;
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        for (first, last) in &self.0 {
            gaps.push(start..(*first).min(completions));
            start = last.saturating_add(1);
        }
        gaps.push(start..completions);
        gaps.into_iter().flatten().take(number).collect()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        let check = |text: &str, shown: &str, count: i32| {
            let indexes = Indexes::parse(text, 10);
            assert_eq!((indexes.to_string().as_str(), indexes.count()), (shown, count), "{text}");
        };
        check("", "", 0);
        check("1,3-5,7", "1,3-5,7", 5);
        check("0,1,2,4,5", "0-2,4,5", 5);
        check("1-2,3,8-40,50", "1-3,8,9", 5);
        check("x,2", "2", 1);
    }

    #[test]
    fn sets() {
        let set = Indexes::parse("1,3-5", 10);
        assert_eq!(set.with(&[0, 6, 9].into()).to_string(), "0,1,3-6,9");
        assert_eq!(set.merge(&Indexes::parse("2,7-9", 10)).to_string(), "1-5,7-9");
        assert_eq!((0..7).filter(|index| set.has(*index)).collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert_eq!(set.common(&Indexes::parse("0-3,5-9", 10)), 3);
        assert_eq!(set.missing(3, 10), [0, 2, 6]);
        assert_eq!(set.missing(9, 5), [0, 2]);
        assert!(Indexes::parse("0-9", 10).missing(3, 4).is_empty());
    }
}
