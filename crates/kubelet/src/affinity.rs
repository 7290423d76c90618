//! Processors and devices of one container from as few NUMA nodes as can be (docs "Control Topology Management Policies on a node").
//!
//! Who gives something to containers says in hints from which NUMA nodes it could, and the policy decides with all hints. Pure but for
//! [`fn@admit`].

mod admit;
pub mod options;

use std::collections::{BTreeMap, BTreeSet};

use crate::named::named;
pub use admit::admit;
use options::Distances;

/// Most NUMA nodes with a policy, as upstream: hints are for all sets of them.
pub const NODES: usize = 8;

/// A set of NUMA nodes, a bit each. No machine has more than 64 with a policy, see [`NODES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mask(pub u64);

impl Mask {
    /// All of these nodes.
    pub fn of(nodes: &BTreeSet<u32>) -> Self {
        Self(nodes.iter().filter_map(|node| 1_u64.checked_shl(*node)).fold(0, |all, bit| all | bit))
    }

    /// Whether the node is one of them.
    pub fn has(self, node: u32) -> bool {
        1_u64.checked_shl(node).is_some_and(|bit| self.0 & bit != 0)
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// A set of NUMA nodes from which something can be had; without a set, any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hint {
    /// The nodes.
    pub mask: Option<Mask>,
    /// No smaller set would do, whatever is free.
    pub preferred: bool,
}

/// Hints for `count` of something: `total` says how many there are at a set of nodes, `free` how many of them can be had, if it may be that set.
pub fn hints(
    nodes: &BTreeSet<u32>,
    count: usize,
    total: impl Fn(Mask) -> usize,
    free: impl Fn(Mask) -> Option<usize>,
) -> Vec<Hint> {
    let numbers: Vec<u32> = nodes.iter().copied().take(NODES).collect();
    let bit = |index: usize| numbers.get(index).and_then(|node| 1_u64.checked_shl(*node)).unwrap_or(0);
    let sets = (1_u64..1 << numbers.len()).map(|set| {
        let chosen = (0..numbers.len()).filter(|index| set >> index & 1 == 1);
        Mask(chosen.fold(0, |mask, index| mask | bit(index)))
    });
    let sets: Vec<Mask> = sets.collect();
    let least = sets.iter().filter(|mask| total(**mask) >= count).map(|mask| mask.count()).min();
    let can = sets.into_iter().filter(|mask| free(*mask).is_some_and(|free| free >= count));
    can.map(|mask| Hint { mask: Some(mask), preferred: Some(mask.count()) == least }).collect()
}

/// The machine's NUMA nodes.
#[derive(Clone, Copy, Debug)]
pub struct Nodes<'a> {
    /// All of them.
    pub all: Mask,
    /// How far they are from each other, where that counts.
    pub distances: Option<&'a Distances>,
}

named! {
    /// What a pod is refused for.
    pub enum Policy {
        /// Nobody is asked for hints.
        #[default]
        None = "none",
        /// Nothing.
        BestEffort = "best-effort",
        /// When there is no preferred set.
        Restricted = "restricted",
        /// When there is no preferred set of one node.
        SingleNumaNode = "single-numa-node",
    }
}

named! {
    /// What is aligned.
    pub enum Scope {
        /// Each container by itself.
        #[default]
        Container = "container",
        /// The whole pod.
        Pod = "pod",
    }
}

impl Policy {
    /// The nodes that a container shall get its parts from, none where any will do. Each list has the hints of one resource.
    ///
    /// # Errors
    /// The pod is refused.
    pub fn decide(self, machine: Nodes<'_>, lists: &[Vec<Hint>]) -> Result<Option<Mask>, Misaligned> {
        if self == Self::None {
            return Ok(None);
        }
        let single = |hint: &&Hint| hint.preferred && hint.mask.is_none_or(|mask| mask.count() == 1);
        let kept: Vec<Vec<Hint>> = match self {
            Self::SingleNumaNode => lists.iter().map(|list| list.iter().filter(single).copied().collect()).collect(),
            _ => lists.to_vec(),
        };
        let best = merge(machine, &kept);
        if self != Self::BestEffort && !best.preferred {
            return Err(Misaligned);
        }
        Ok(best.mask.filter(|mask| self != Self::SingleNumaNode || *mask != machine.all))
    }
}

/// Why a pod is refused, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Resources cannot be allocated with Topology locality")]
pub struct Misaligned;

/// What a choice of one hint of each list comes to, as far as lists have been looked at: the nodes in common, whether one of the hints
/// names some, and whether all are preferred and name the same.
type Merged = (Mask, bool, bool);

/// The best that one hint of each list comes to. All choices are merged at once, list by list: there are never more than four times as many
/// results as sets of nodes.
fn merge(machine: Nodes<'_>, lists: &[Vec<Hint>]) -> Hint {
    let mut merged: BTreeSet<Merged> = BTreeSet::from([(machine.all, false, true)]);
    for list in lists {
        let with = |(mask, named, preferred): Merged, hint: &Hint| match hint.mask {
            None => (mask, named, preferred && hint.preferred),
            Some(own) => (Mask(mask.0 & own.0), true, preferred && hint.preferred && (!named || mask == own)),
        };
        merged = merged.iter().flat_map(|state| list.iter().map(move |hint| with(*state, hint))).collect();
    }
    let widest_need = lists.iter().filter_map(|list| list.iter().filter_map(|hint| Some(hint.mask?.count())).min()).max();
    let results = merged.into_iter().filter(|(mask, ..)| mask.count() > 0).map(|(mask, _, preferred)| (mask, preferred));
    let distance = |mask: Mask| machine.distances.map_or(0, |distances| distances.within(mask));
    let best = results.min_by_key(|(mask, preferred)| rank(*mask, *preferred, widest_need.unwrap_or(0), distance(*mask)));
    best.map_or(Hint { mask: Some(machine.all), preferred: false }, |(mask, preferred)| Hint { mask: Some(mask), preferred })
}

/// The lower, the better. Of preferred sets the narrowest is best. Of others the best has as many nodes as the resource needs that needs most;
/// then come smaller ones, the largest first, then larger ones. Of sets that are as large the closer one is best, then that of the lower nodes.
fn rank(mask: Mask, preferred: bool, needed: u32, distance: u64) -> (bool, u8, i64, u64, u64) {
    let count = mask.count();
    let (class, order) = match count.cmp(&needed) {
        _ if preferred => (0, i64::from(count)),
        std::cmp::Ordering::Equal => (0, 0),
        std::cmp::Ordering::Less => (1, -i64::from(count)),
        std::cmp::Ordering::Greater => (2, i64::from(count)),
    };
    (!preferred, class, order, distance, mask.0)
}

/// Hints of resources by name, as their owners say them: none has no wish.
pub type Wishes = BTreeMap<String, Option<Vec<Hint>>>;

/// The lists that [`Policy::decide`] takes.
pub fn lists(wishes: Wishes) -> Vec<Vec<Hint>> {
    let any = |preferred| vec![Hint { mask: None, preferred }];
    let list = |wish: Option<Vec<Hint>>| match wish {
        None => any(true),
        Some(hints) if hints.is_empty() => any(false),
        Some(hints) => hints,
    };
    wishes.into_values().map(list).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(mask: u64, preferred: bool) -> Hint {
        Hint { mask: Some(Mask(mask)), preferred }
    }

    const ANY: Hint = Hint { mask: None, preferred: true };
    const NEVER: Hint = Hint { mask: None, preferred: false };

    /// What the policies decide on a machine with the nodes 0 to 3: best-effort, restricted, single-numa-node.
    #[track_caller]
    fn check(lists: &[&[Hint]], best: u64, restricted: bool, single: Option<Option<u64>>) {
        let lists: Vec<Vec<Hint>> = lists.iter().map(|list| list.to_vec()).collect();
        let nodes = Nodes { all: Mask(15), distances: None };
        let decide = |policy: Policy| policy.decide(nodes, &lists).map(|mask| mask.map(|mask| mask.0));
        assert_eq!(decide(Policy::None), Ok(None));
        assert_eq!(decide(Policy::BestEffort), Ok(Some(best)));
        assert_eq!(decide(Policy::Restricted), if restricted { Ok(Some(best)) } else { Err(Misaligned) });
        assert_eq!(decide(Policy::SingleNumaNode), single.ok_or(Misaligned));
    }

    /// Upstream's cases of `TestPolicyBestEffortMerge` and its kind.
    #[test]
    fn hints_are_merged() {
        check(&[], 15, true, Some(None));
        check(&[&[ANY], &[ANY]], 15, true, Some(None));
        check(&[&[hint(1, true)], &[ANY]], 1, true, Some(Some(1)));
        check(&[&[hint(1, true)], &[NEVER]], 1, false, None);
        check(&[&[hint(1, true), hint(2, true)], &[hint(2, true)]], 2, true, Some(Some(2)));
        check(&[&[hint(1, true)], &[hint(1, false)]], 1, false, None);
        // Wishes that have nothing in common are no wish.
        check(&[&[hint(1, true)], &[hint(2, true)]], 15, false, None);
        // Preferred is only what all name alike.
        check(&[&[hint(2, true)], &[hint(3, true)]], 2, false, None);
        check(&[&[hint(3, true)], &[hint(3, true)]], 3, true, None);
        check(&[&[hint(1, true), hint(3, false)], &[hint(3, true), hint(1, true)]], 1, true, Some(Some(1)));
    }

    #[test]
    fn of_what_nobody_prefers_the_width_that_is_needed_is_best() {
        check(&[&[hint(15, false), hint(3, false)], &[hint(3, false)]], 3, false, None);
        // Of equally wide sets it is that of the lower nodes.
        check(&[&[hint(15, false), hint(5, false)], &[hint(3, false), hint(5, false)]], 3, false, None);
        check(&[&[hint(1, false), hint(3, false)], &[hint(7, false)]], 3, false, None);
    }

    #[test]
    fn many_resources_are_merged_in_no_time() {
        let nodes: BTreeSet<u32> = (0..8).collect();
        let all = hints(&nodes, 1, |mask| mask.count() as usize, |mask| Some(mask.count() as usize));
        assert_eq!(all.len(), 255);
        let lists = vec![all; 16];
        let all = Nodes { all: Mask::of(&nodes), distances: None };
        assert_eq!(Policy::Restricted.decide(all, &lists), Ok(Some(Mask(1))));
    }

    /// KEP-3545: "prefer-closest-numa-nodes ... favors sets of NUMA nodes with shorter distance between them when making admission decisions".
    #[test]
    fn close_nodes_are_better_where_that_counts() {
        // Nodes 0 and 3 are neighbours, and 1 and 2.
        let distances = Distances::read(&(0..4).collect(), |from| {
            let to = |to| {
                if from == to {
                    "10"
                } else if from + to == 3 {
                    "12"
                } else {
                    "30"
                }
            };
            (0..4).map(to).collect::<Vec<_>>().join(" ")
        });
        let check = |lists: &[Vec<Hint>], plain: u64, closest: u64| {
            for (distances, expected) in [(None, plain), (Some(&distances), closest)] {
                let nodes = Nodes { all: Mask(15), distances };
                assert_eq!(Policy::BestEffort.decide(nodes, lists), Ok(Some(Mask(expected))));
            }
        };
        let pairs = |preferred| [0b0011, 0b0101, 0b1001, 0b0110].map(|mask| hint(mask, preferred)).to_vec();
        check(&[pairs(true)], 0b0011, 0b0110);
        check(&[pairs(false)], 0b0011, 0b0110);
        // A smaller set is better than a close one.
        check(&[vec![hint(0b0110, true), hint(0b1000, true)]], 0b1000, 0b1000);
    }
}
