//! Which processors are taken of those that are free, so that the others fit others best: whole NUMA nodes and sockets first, then whole
//! cores, then single threads, of each kind those of which least is free (upstream's packing). Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::set::CpuSet;
use super::topology::{Place, Topology};

/// There are not as many.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not enough cpus available to satisfy request: requested={requested}, available={available}")]
pub struct TooFew {
    /// How many were asked for.
    pub requested: usize,
    /// How many are free.
    pub available: usize,
}

type Unit = fn(&Place) -> u32;

struct Packer<'a> {
    topology: &'a Topology,
    free: CpuSet,
    taken: CpuSet,
    needed: usize,
}

impl Packer<'_> {
    fn take(&mut self, cpus: &CpuSet) {
        self.needed -= cpus.len();
        self.free = self.free.difference(cpus);
        self.taken = self.taken.union(cpus);
    }

    /// Units that have something free, within `of`: those of which least is free first.
    fn ordered(&self, of: Option<(Unit, u32)>, unit: Unit) -> Vec<u32> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for place in self.free.0.iter().filter_map(|cpu| self.topology.0.get(cpu)) {
            if of.is_none_or(|(outer, number)| outer(place) == number) {
                *counts.entry(unit(place)).or_default() += 1;
            }
        }
        let mut units: Vec<(usize, u32)> = counts.into_iter().map(|(unit, count)| (count, unit)).collect();
        units.sort_unstable();
        units.into_iter().map(|(_, unit)| unit).collect()
    }

    /// The units of each of `outer`, in this order.
    fn nested(&self, outer: &[u32], of: Unit, unit: Unit) -> Vec<u32> {
        let mut seen = BTreeSet::new();
        let all = outer.iter().flat_map(|number| self.ordered(Some((of, *number)), unit));
        all.filter(|unit| seen.insert(*unit)).collect()
    }

    /// Takes whole caches, and then the rest from one cache, if one has as many whole cores free (KEP-4800).
    fn take_caches(&mut self) {
        let (cache, core): (Unit, Unit) = (|place| place.cache, |place| place.core);
        let caches = self.ordered(None, cache);
        self.take_whole(&caches, cache);
        let threads = self.topology.threads();
        for number in self.ordered(None, cache) {
            if self.needed == 0 {
                return;
            }
            let cores = self.ordered(Some((cache, number)), core).into_iter().filter(|number| self.is_free(*number));
            let cores: BTreeSet<u32> = cores.take(self.needed.div_ceil(threads)).collect();
            let of_cores = self.topology.0.iter().filter(|(_, place)| cores.contains(&place.core));
            // The second thread of the last core stays free where it is not needed: those of one core stand together.
            let mut cpus: Vec<(u32, u32)> = of_cores.map(|(cpu, place)| (place.core, *cpu)).collect();
            cpus.sort_unstable();
            if cpus.len() >= self.needed {
                let rest: CpuSet = cpus.into_iter().take(self.needed).map(|(_, cpu)| cpu).collect();
                self.take(&rest);
            }
        }
    }

    /// Whether all processors of a core are free.
    fn is_free(&self, core: u32) -> bool {
        self.topology.0.iter().filter(|(_, place)| place.core == core).all(|(cpu, _)| self.free.0.contains(cpu))
    }

    /// Takes each of the units that is wholly free and not too large.
    fn take_whole(&mut self, units: &[u32], unit: Unit) {
        let mut members: BTreeMap<u32, CpuSet> = BTreeMap::new();
        for (cpu, place) in &self.topology.0 {
            members.entry(unit(place)).or_default().0.insert(*cpu);
        }
        for whole in units.iter().filter_map(|unit| members.get(unit)) {
            if whole.len() <= self.needed && whole.0.is_subset(&self.free.0) {
                self.take(whole);
            }
        }
    }
}

/// Takes `needed` of the processors in `free` so that the others fit others best.
///
/// # Errors
/// There are not as many.
pub(super) fn take(topology: &Topology, free: &CpuSet, needed: usize, by_cache: bool) -> Result<CpuSet, TooFew> {
    let free = free.intersection(&topology.all());
    if free.len() < needed {
        return Err(TooFew { requested: needed, available: free.len() });
    }
    let (node, socket, core): (Unit, Unit, Unit) = (|place| place.node, |place| place.socket, |place| place.core);
    let sockets: BTreeSet<u32> = topology.0.values().map(socket).collect();
    // The larger of the two comes first.
    let (outer, inner) = if sockets.len() >= topology.nodes().len() { (node, socket) } else { (socket, node) };
    let mut packer = Packer { topology, free, taken: CpuSet::default(), needed };
    let units = packer.ordered(None, outer);
    packer.take_whole(&units, outer);
    let units = packer.nested(&packer.ordered(None, outer), outer, inner);
    packer.take_whole(&units, inner);
    if by_cache {
        packer.take_caches();
    }
    let inner_units = packer.nested(&packer.ordered(None, outer), outer, inner);
    let cores = packer.nested(&inner_units, inner, core);
    packer.take_whole(&cores, core);
    let inner_units = packer.nested(&packer.ordered(None, outer), outer, inner);
    let cores = packer.nested(&inner_units, inner, core);
    let of_core = |number: u32| topology.0.iter().filter(move |(_, place)| place.core == number).map(|(cpu, _)| *cpu);
    let rest: CpuSet =
        cores.into_iter().flat_map(of_core).filter(|cpu| packer.free.0.contains(cpu)).take(packer.needed).collect();
    packer.take(&rest);
    Ok(packer.taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpus::topology::machine;

    #[track_caller]
    fn check(topology: &Topology, free: &str, needed: usize, expected: &str) {
        let taken = take(topology, &free.parse().unwrap(), needed, false).map(|set| set.to_string());
        assert_eq!(taken.unwrap_or_else(|error| error.to_string()), expected);
    }

    /// Two sockets of three cores, numbered as some machines do: even ones are in the first socket.
    fn alternating() -> Topology {
        let place = |cpu: u32| Place { core: cpu % 6, socket: cpu % 2, node: cpu % 2, cache: cpu % 2 };
        Topology((0..12).map(|cpu| (cpu, place(cpu))).collect())
    }

    /// Upstream's cases of `takeByTopologyNUMAPacked` on one socket of four cores.
    #[test]
    fn whole_cores_come_before_threads() {
        let one = machine(1, 1, 4);
        check(&one, "0,2,4,6", 5, "not enough cpus available to satisfy request: requested=5, available=4");
        check(&one, "0-7", 0, "");
        check(&one, "0-7", 1, "0");
        check(&one, "1,3,5-7", 1, "6");
        check(&one, "0-7", 2, "0,4");
        check(&one, "0-7", 8, "0-7");
        check(&one, "0-3,6", 2, "2,6");
        check(&one, "0-7", 3, "0-1,4");
    }

    #[test]
    fn the_socket_with_least_to_give_comes_first() {
        let two = alternating();
        check(&two, "1-5,7-11", 1, "2");
        check(&two, "0-11", 6, "0,2,4,6,8,10");
        check(&two, "1-5,7-11", 6, "1,3,5,7,9,11");
    }

    /// Two sockets with two NUMA nodes each: whole sockets come before whole nodes.
    #[test]
    fn whole_sockets_come_before_whole_numa_nodes() {
        let large = machine(2, 2, 10);
        check(&large, "0-79", 40, "0-19,40-59");
        check(&large, "0-79", 20, "0-9,40-49");
        check(&large, "10-39,50-79", 20, "10-19,50-59");
        check(&large, "0-79", 60, "0-29,40-69");
        check(&large, "0-79", 80, "0-79");
    }

    /// KEP-4800: "allocate CPUs to containers in a way that minimizes the number of uncore caches" (prefer-align-cpus-by-uncorecache).
    #[test]
    fn containers_share_as_few_caches_as_can_be() {
        // One socket of eight cores, two of which share a cache: 0-1,8-9 and so on.
        let mut machine = machine(1, 1, 8);
        machine.0.values_mut().for_each(|place| place.cache = place.core / 2);
        let check = |free: &str, needed: usize, plain: &str, by_cache: &str| {
            for (is_on, expected) in [(false, plain), (true, by_cache)] {
                let taken = take(&machine, &free.parse().unwrap(), needed, is_on).map(|set| set.to_string());
                assert_eq!(taken.as_deref(), Ok(expected), "by cache: {is_on}");
            }
        };
        check("0-15", 4, "0-1,8-9", "0-1,8-9");
        check("1-15", 4, "1-2,9-10", "2-3,10-11");
        check("1-15", 3, "1,8-9", "2-3,10");
        check("1-7,9-15", 2, "1,9", "1,9");
        // No cache has as much: they come from where they are.
        check("1,3,5,7,9,11,13,15", 4, "1,3,9,11", "1,3,9,11");
    }
}
