//! Sets of processors, as the kernel writes them (`0-3,8`).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most processors: Linux has no more than 8,192.
const MOST: u32 = 8192;

/// Processors by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CpuSet(pub BTreeSet<u32>);

/// Why a text is no set of processors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no list of processors: expected something like 0-3,8")]
pub struct NoSet(String);

impl CpuSet {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(&self.0 | &other.0)
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }

    /// Those of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for cpu in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
                _ => ranges.push((*cpu, *cpu)),
            }
        }
        for (index, (first, last)) in ranges.into_iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for CpuSet {
    type Err = NoSet;

    fn from_str(text: &str) -> Result<Self, NoSet> {
        let wrong = || NoSet(text.to_owned());
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|cpu| *cpu < MOST).ok_or_else(wrong);
        let mut cpus = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.trim().is_empty()) {
            match part.split_once('-') {
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(wrong());
                    }
                    cpus.extend(first..=last);
                }
                None => drop(cpus.insert(number(part)?)),
            }
        }
        Ok(Self(cpus))
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

impl TryFrom<String> for CpuSet {
    type Error = NoSet;

    fn try_from(text: String) -> Result<Self, NoSet> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        let check = |text: &str, expected: Option<(&[u32], &str)>| {
            let set = text.parse::<CpuSet>().ok();
            assert_eq!(set, expected.map(|(cpus, _)| cpus.iter().copied().collect()), "{text}");
            assert_eq!(set.map(|set| set.to_string()).as_deref(), expected.map(|(_, text)| text));
        };
        check("0-3,8\n", Some((&[0, 1, 2, 3, 8], "0-3,8")));
        check("2,1,0", Some((&[0, 1, 2], "0-2")));
        check("", Some((&[], "")));
        for wrong in ["3-1", "a", "1-", "0-99999999", "-1"] {
            check(wrong, None);
        }
    }
}
