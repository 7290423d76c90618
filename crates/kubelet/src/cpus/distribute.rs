//! Processors spread evenly over NUMA nodes where one node is not enough (`distribute-cpus-across-numa`, KEP-2902). Pure.
//!
//! As few nodes as can be; of all sets of so many nodes the one after which what is left is most even. Where no set of nodes can give even
//! shares, processors are packed as without the option.

use super::set::CpuSet;
use super::take::{self, TooFew};
use super::topology::Topology;
use crate::affinity::Mask;

/// Of more nodes there are too many sets to look at: processors are packed.
const MOST_NODES: usize = 12;

/// How a set of nodes gives what is needed: each of `nodes` a share, and those of `more` one group after the other of what is over.
struct Plan {
    nodes: Vec<usize>,
    more: Vec<usize>,
    /// How uneven what is left is, as the sum of its squares: of plans that give as much, the lower is the more even.
    unevenness: usize,
}

/// Takes `needed` of the processors in `free`, in groups of `group`.
///
/// # Errors
/// There are not as many.
pub(super) fn take(topology: &Topology, free: &CpuSet, needed: usize, group: usize, by_cache: bool) -> Result<CpuSet, TooFew> {
    let free = free.intersection(&topology.all());
    let of_node = |node: u32| free.intersection(&topology.of_nodes(Mask(1_u64.checked_shl(node).unwrap_or(0))));
    let mut nodes: Vec<(usize, u32)> = topology.nodes().into_iter().map(|node| (of_node(node).len(), node)).collect();
    nodes.retain(|(count, _)| *count > 0);
    nodes.sort_unstable();
    if needed == 0 || !needed.is_multiple_of(group) || free.len() < needed || nodes.len() > MOST_NODES {
        return take::take(topology, &free, needed, by_cache);
    }
    let counts: Vec<usize> = nodes.iter().map(|(count, _)| *count).collect();
    let groups = needed / group;
    let of_each = topology.0.len().div_ceil(group).div_ceil(topology.nodes().len().max(1)).max(1);
    let sizes = groups.div_ceil(of_each)..=groups.min(nodes.len());
    let Some(plan) = sizes.into_iter().find_map(|size| best(&counts, size, needed, group)) else {
        return take::take(topology, &free, needed, by_cache);
    };
    let share = share(needed, plan.nodes.len(), group);
    let mut taken = CpuSet::default();
    for node in &plan.nodes {
        taken = taken.union(&take::take(topology, &of_node(nodes[*node].1), share, by_cache)?);
    }
    for node in plan.more.iter().cycle() {
        if taken.len() >= needed {
            break;
        }
        let left = of_node(nodes[*node].1).difference(&taken);
        if left.len() >= group {
            taken = taken.union(&take::take(topology, &left, group, by_cache)?);
        }
    }
    Ok(taken)
}

/// What each of so many nodes gives, in whole groups.
fn share(needed: usize, nodes: usize, group: usize) -> usize {
    needed / nodes / group * group
}

/// The best plan with so many of the nodes that have these counts free.
fn best(counts: &[usize], size: usize, needed: usize, group: usize) -> Option<Plan> {
    let all: Vec<usize> = (0..counts.len()).collect();
    let plans = subsets(&all, size).into_iter().filter_map(|nodes| plan(counts, nodes, needed, group));
    plans.reduce(|best, next| if next.unevenness < best.unevenness { next } else { best })
}

fn plan(counts: &[usize], nodes: Vec<usize>, needed: usize, group: usize) -> Option<Plan> {
    let share = share(needed, nodes.len(), group);
    let groups: usize = nodes.iter().map(|node| counts[*node] / group).sum();
    if groups * group < needed || nodes.iter().any(|node| counts[*node] < share) {
        return None;
    }
    let mut left = counts.to_vec();
    nodes.iter().for_each(|node| left[*node] -= share);
    let over = needed - share * nodes.len();
    if over == 0 {
        return Some(Plan { unevenness: squares(&left), nodes, more: Vec::new() });
    }
    let can: Vec<usize> = nodes.iter().copied().filter(|node| left[*node] >= group).collect();
    let more = subsets(&can, over / group).into_iter().map(|more| {
        let mut left = left.clone();
        more.iter().for_each(|node| left[*node] -= group);
        (squares(&left), more)
    });
    let (unevenness, more) = more.reduce(|best, next| if next.0 < best.0 { next } else { best })?;
    Some(Plan { nodes, more, unevenness })
}

fn squares(left: &[usize]) -> usize {
    left.iter().map(|count| count * count).sum()
}

/// All subsets of that size, in the order of the items.
fn subsets(items: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let with = |(at, first): (usize, &usize)| {
        let rest = subsets(&items[at + 1..], size - 1).into_iter();
        rest.map(|rest| [&[*first], rest.as_slice()].concat()).collect::<Vec<_>>()
    };
    items.iter().enumerate().flat_map(with).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cpus::topology::machine;

    #[track_caller]
    fn check(topology: &Topology, free: &str, needed: usize, group: usize, expected: &str) {
        let taken = take(topology, &free.parse().unwrap(), needed, group, false).map(|set| set.to_string());
        assert_eq!(taken.unwrap_or_else(|error| error.to_string()), expected);
    }

    /// KEP-2902: "evenly distribute CPUs across NUMA nodes in cases where more than one NUMA node is required".
    #[test]
    fn processors_are_spread_where_one_node_is_not_enough() {
        // Two nodes of four cores each: 0-3,8-11 and 4-7,12-15.
        let two = machine(2, 1, 4);
        check(&two, "0-15", 4, 1, "0-1,8-9");
        check(&two, "0-15", 8, 1, "0-3,8-11");
        check(&two, "0-15", 10, 1, "0-2,4-6,8-9,12-13");
        check(&two, "0-15", 12, 1, "0-2,4-6,8-10,12-14");
        // Cores as a whole: three each, and one core more of the node that comes first.
        check(&two, "0-15", 14, 2, "0-6,8-14");
        check(&two, "0-15", 3, 2, "0-1,8");
        check(&two, "0-15", 17, 1, "not enough cpus available to satisfy request: requested=17, available=16");
    }

    #[test]
    fn what_is_left_is_even() {
        // Four nodes of four processors; of the first one half is gone.
        let four = machine(4, 1, 2);
        check(&four, "1-7,9-15", 6, 1, "2-5,10,12");
        // The nodes cannot give two each: processors are packed.
        check(&machine(2, 1, 4), "0-2,4", 4, 1, "0-2,4");
    }

    #[test]
    fn all_subsets_in_order() {
        assert_eq!(subsets(&[1, 2, 3], 2), [[1, 2], [1, 3], [2, 3]]);
        assert_eq!(subsets(&[1], 2), Vec::<Vec<usize>>::new());
        assert_eq!(subsets(&[1, 2], 0), [Vec::<usize>::new()]);
    }
}
