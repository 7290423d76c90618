//! Who has processors for itself, and what is left for all others. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::distribute;
use super::options::Options;
use super::set::CpuSet;
use super::take::{TooFew, take};
use super::topology::Topology;
use crate::affinity::{Hint, Mask, hints};
use crate::holdings::{Entries, Held, Parts, Wait};

/// What is written down, in the fields of upstream's `cpu_manager_state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) policy_name: String,
    pub(super) default_cpu_set: CpuSet,
    #[serde(default)]
    pub(super) entries: Entries<CpuSet>,
}

/// Why what is written down cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// They were chosen anew.
    #[error("not all reserved cpus: \"{reserved}\" are present in defaultCpuSet: \"{shared}\"")]
    Reserved {
        /// Those that no container may have.
        reserved: CpuSet,
        /// Those that are written down as shared.
        shared: CpuSet,
    },
    /// Containers that share the rest had them before that was forbidden.
    #[error("some of strictly reserved cpus: \"{reserved}\" are present in defaultCpuSet: \"{shared}\"")]
    Strict {
        /// Those that no container may run on.
        reserved: CpuSet,
        /// Those that are written down as shared.
        shared: CpuSet,
    },
    /// Somebody has both.
    #[error("pod: {pod}, container: {container} cpuset: \"{cpus}\" overlaps with default cpuset or with another container's")]
    Overlap {
        /// UID of the pod.
        pod: String,
        /// Name of the container.
        container: String,
        /// What it has.
        cpus: CpuSet,
    },
    /// The machine has others by now.
    #[error("current set of available CPUs \"{now}\" doesn't match with CPUs in state \"{then}\"")]
    Machine {
        /// Those that are there.
        now: CpuSet,
        /// Those that are written down.
        then: CpuSet,
    },
}

/// Why a container does not get its processors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They are not there.
    #[error(transparent)]
    TooFew(#[from] TooFew),
    /// A part of a core is asked for.
    #[error("SMT Alignment Error: requested {requested} cpus not multiple cpus per core = {threads}")]
    PartOfCore {
        /// How many are asked for.
        requested: usize,
        /// How many a core has.
        threads: usize,
    },
    /// There are not as many whole cores.
    #[error(
        "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = {available}, requested CPUs = {requested}, CPUs per core = {threads}"
    )]
    TooFewCores {
        /// How many are asked for.
        requested: usize,
        /// How many are free, of cores of which nothing is reserved.
        available: usize,
        /// How many a core has.
        threads: usize,
    },
    /// They will be free when pods have ended that are on their way out.
    #[error("processors are not free before pods have ended that are on their way out")]
    Later,
}

impl Refusal {
    /// Whether it is because cores are given as a whole.
    pub fn is_of_cores(&self) -> bool {
        matches!(self, Self::PartOfCore { .. } | Self::TooFewCores { .. })
    }
}

/// The processors of a node.
#[derive(Clone, Debug)]
pub(super) struct Pools {
    topology: Topology,
    options: Options,
    /// No container has one of them for itself.
    pub(super) reserved: CpuSet,
    /// For all containers that have none for themselves, and for the rest of the system.
    pub(super) shared: CpuSet,
    held: Held<CpuSet>,
}

impl Pools {
    /// A machine of which nothing is given.
    pub(super) fn new(topology: Topology, reserved: CpuSet, options: Options) -> Self {
        let shared = if options.strict_reservation { topology.all().difference(&reserved) } else { topology.all() };
        Self { topology, options, reserved, shared, held: Held::default() }
    }

    /// Goes on with what was written down, as upstream checks it.
    pub(super) fn restore(&mut self, record: Record) -> Result<(), Stale> {
        let shared = record.default_cpu_set;
        if self.options.strict_reservation {
            if !self.reserved.intersection(&shared).is_empty() {
                return Err(Stale::Strict { reserved: self.reserved.clone(), shared });
            }
        } else if !self.reserved.0.is_subset(&shared.0) {
            return Err(Stale::Reserved { reserved: self.reserved.clone(), shared });
        }
        let mut then = shared.clone();
        for (pod, containers) in &record.entries {
            let mut of_pod = CpuSet::default();
            for (container, cpus) in containers {
                // Containers of one pod may have the same: init containers pass theirs on.
                if !cpus.intersection(&then).is_empty() {
                    let (pod, container, cpus) = (pod.clone(), container.clone(), cpus.clone());
                    return Err(Stale::Overlap { pod, container, cpus });
                }
                of_pod = of_pod.union(cpus);
            }
            then = then.union(&of_pod);
        }
        let now =
            if self.options.strict_reservation { self.topology.all().difference(&self.reserved) } else { self.topology.all() };
        if then != now {
            return Err(Stale::Machine { now, then });
        }
        (self.shared, self.held) = (shared, record.entries.into());
        Ok(())
    }

    /// What a container has for itself.
    pub(super) fn of(&self, uid: &str, container: &str) -> Option<&CpuSet> {
        self.held.of(uid, container)
    }

    /// What containers have, and what they could have.
    pub(super) fn allocatable(&self) -> CpuSet {
        let held = self.held.entries().values().flat_map(BTreeMap::values);
        held.fold(self.shared.difference(&self.reserved), |all, cpus| all.union(cpus))
    }

    /// Those that a container can get. Of a core of which something is reserved, nothing is a whole core.
    fn free(&self, reusable: &CpuSet) -> CpuSet {
        let kept = if self.options.full_cores { &self.topology.whole_cores(&self.reserved) } else { &self.reserved };
        self.shared.difference(kept).union(reusable)
    }

    fn too_few(&self, requested: usize, available: usize) -> Refusal {
        let threads = self.topology.threads();
        match self.options.full_cores {
            true => Refusal::TooFewCores { requested, available, threads },
            false => TooFew { requested, available }.into(),
        }
    }

    /// Where `count` processors could be had; `known` are those that the container has already.
    pub(super) fn hints(&self, known: Option<&CpuSet>, reusable: &CpuSet, count: usize) -> Vec<Hint> {
        let nodes = self.topology.nodes();
        let none = CpuSet::default();
        let (free, reusable) = match known {
            Some(known) if known.len() != count => return Vec::new(),
            Some(known) => (known.clone(), &none),
            None => (self.free(reusable), reusable),
        };
        let total = |mask: Mask| self.topology.of_nodes(mask).len();
        hints(&nodes, count, total, |mask| {
            let there = self.topology.of_nodes(mask);
            reusable.0.is_subset(&there.0).then(|| free.intersection(&there).len())
        })
    }

    /// Gives `count` processors to a container, those of the NUMA nodes of `affinity` first. Whether that is news.
    pub(super) fn give(
        &mut self,
        (uid, container): (&str, &str),
        count: usize,
        affinity: Option<Mask>,
        reusable: &CpuSet,
    ) -> Result<bool, Refusal> {
        if self.of(uid, container).is_some() {
            return Ok(false);
        }
        let threads = self.topology.threads();
        if self.options.full_cores && !count.is_multiple_of(threads) {
            return Err(Refusal::PartOfCore { requested: count, threads });
        }
        let free = self.free(reusable);
        if free.len() < count {
            let later = self.held.leaving().fold(free.clone(), |all, cpus| all.union(cpus));
            return Err(if later.len() >= count { Refusal::Later } else { self.too_few(count, free.len()) });
        }
        let aligned = affinity.map(|mask| free.intersection(&self.topology.of_nodes(mask))).unwrap_or_default();
        let first = self.take(&aligned, aligned.len().min(count))?;
        let rest = self.take(&free.difference(&first), count - first.len())?;
        let taken = first.union(&rest);
        self.shared = self.shared.difference(&taken);
        self.held.of_pod_mut(uid).insert(container.to_owned(), taken);
        Ok(true)
    }

    /// Takes processors as the options say.
    fn take(&self, free: &CpuSet, count: usize) -> Result<CpuSet, TooFew> {
        let Options { full_cores, across_nodes, by_cache, .. } = self.options;
        let group = if full_cores { self.topology.threads() } else { 1 };
        match across_nodes {
            true => distribute::take(&self.topology, free, count, group, by_cache),
            false => take(&self.topology, free, count, by_cache),
        }
    }
}

impl Parts for Pools {
    type Part = CpuSet;
    type Record = Record;

    fn held(&mut self) -> &mut Held<CpuSet> {
        &mut self.held
    }

    fn record(&self) -> Record {
        Record {
            policy_name: super::STATIC.to_owned(),
            default_cpu_set: self.shared.clone(),
            entries: self.held.entries().clone(),
        }
    }

    fn release(&mut self, uid: &str) -> bool {
        let Some(held) = self.held.release(uid) else { return false };
        self.shared = held.values().fold(self.shared.clone(), |shared, cpus| shared.union(cpus));
        true
    }
}

impl Wait for Refusal {
    fn is_for_leaving(&self) -> bool {
        *self == Self::Later
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpus::topology::machine;

    fn with(options: Options) -> Pools {
        Pools::new(machine(2, 1, 4), "0,8".parse().unwrap(), options)
    }

    fn pools() -> Pools {
        with(Options::default())
    }

    fn give(pools: &mut Pools, uid: &str, container: &str, count: usize, reusable: &str) -> Result<String, Refusal> {
        pools.give((uid, container), count, None, &reusable.parse().unwrap())?;
        Ok(pools.of(uid, container).unwrap().to_string())
    }

    /// "Control CPU Management Policies on the Node", static policy: exclusive CPUs are taken from the shared pool, reserved ones never.
    #[test]
    fn exclusive_processors_leave_the_shared_pool_and_come_back() {
        let mut pools = pools();
        assert_eq!(give(&mut pools, "a", "c", 2, "").as_deref(), Ok("1,9"));
        assert_eq!(give(&mut pools, "a", "c", 2, "").as_deref(), Ok("1,9"), "it has them already");
        assert_eq!(give(&mut pools, "b", "c", 8, "").as_deref(), Ok("4-7,12-15"));
        assert_eq!(pools.shared.to_string(), "0,2-3,8,10-11");
        let few = TooFew { requested: 5, available: 4 };
        assert_eq!(give(&mut pools, "c", "c", 5, ""), Err(Refusal::TooFew(few)));
        pools.held().leave("a");
        assert_eq!(give(&mut pools, "c", "c", 5, ""), Err(Refusal::Later));
        assert!(pools.release("a") && !pools.release("a"));
        assert_eq!(give(&mut pools, "c", "c", 5, "").unwrap().parse::<CpuSet>().unwrap().len(), 5);
        assert!(pools.release("b") && pools.release("c"));
        assert_eq!(pools.shared, pools.topology.all());
    }

    #[test]
    fn processors_of_init_containers_are_used_again() {
        let mut pools = Pools::new(machine(1, 1, 2), "0,2".parse().unwrap(), Options::default());
        assert_eq!(give(&mut pools, "a", "init", 2, "").as_deref(), Ok("1,3"));
        assert!(give(&mut pools, "a", "main", 2, "").is_err());
        assert_eq!(give(&mut pools, "a", "main", 2, "1,3").as_deref(), Ok("1,3"));
        let record = pools.record();
        let mut again = Pools::new(machine(1, 1, 2), "0,2".parse().unwrap(), Options::default());
        again.restore(record).unwrap();
        assert!(again.release("a"));
        assert_eq!(again.shared.to_string(), "0-3");
    }

    /// KEP-2625: "the pod will be rejected with SMTAlignmentError" where it asks for a part of a core; siblings of reserved processors are nobody's.
    #[test]
    fn whole_cores_only() {
        let options = Options { full_cores: true, ..Options::default() };
        let mut pools = Pools::new(machine(1, 1, 4), "0".parse().unwrap(), options);
        assert_eq!(give(&mut pools, "a", "c", 3, ""), Err(Refusal::PartOfCore { requested: 3, threads: 2 }));
        let few = Refusal::TooFewCores { requested: 8, available: 6, threads: 2 };
        assert_eq!(give(&mut pools, "a", "c", 8, ""), Err(few.clone()));
        let text = "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 6, requested CPUs = 8, CPUs per core = 2";
        assert_eq!(few.to_string(), text);
        assert_eq!(give(&mut pools, "a", "c", 4, "").as_deref(), Ok("1-2,5-6"));
        pools.held().leave("a");
        assert_eq!(give(&mut pools, "b", "c", 4, ""), Err(Refusal::Later));
        assert!(pools.release("a"));
        assert_eq!(give(&mut pools, "b", "c", 6, "").as_deref(), Ok("1-3,5-7"));
        assert_eq!(pools.shared.to_string(), "0,4");
    }

    /// KEP-4540: "reserved CPUs will be strictly used for system daemons": no container runs on them.
    #[test]
    fn reserved_processors_are_nobodys_where_that_is_strict() {
        let strict = Options { strict_reservation: true, ..Options::default() };
        let mut pools = with(strict);
        assert_eq!(pools.shared.to_string(), "1-7,9-15");
        assert_eq!(give(&mut pools, "a", "c", 2, "").as_deref(), Ok("1,9"));
        let record = pools.record();
        assert!(with(strict).restore(record.clone()).is_ok());
        let refused = with(Options::default()).restore(record).map_err(|stale| stale.to_string());
        assert_eq!(refused, Err("not all reserved cpus: \"0,8\" are present in defaultCpuSet: \"2-7,10-15\"".to_owned()));
        let refused = with(strict).restore(with(Options::default()).record()).map_err(|stale| stale.to_string());
        assert_eq!(refused, Err("some of strictly reserved cpus: \"0,8\" are present in defaultCpuSet: \"0-15\"".to_owned()));
        assert!(pools.release("a"));
        assert_eq!(pools.shared.to_string(), "1-7,9-15");
    }

    #[test]
    fn the_numa_nodes_that_are_wished_for_come_first() {
        let mut pools = pools();
        pools.give(("a", "c"), 6, Some(Mask(2)), &CpuSet::default()).unwrap();
        assert_eq!(pools.of("a", "c").unwrap().to_string(), "4-6,12-14");
        pools.give(("b", "c"), 4, Some(Mask(2)), &CpuSet::default()).unwrap();
        assert_eq!(pools.of("b", "c").unwrap().to_string(), "1,7,9,15");
    }

    /// Upstream's `generateCPUTopologyHints`: preferred is what needs as few NUMA nodes as the machine would allow.
    #[test]
    fn hints_say_where_as_many_are_free() {
        let mut pools = pools();
        let shown = |pools: &Pools, count: usize| -> Vec<(u64, bool)> {
            let hints = pools.hints(None, &CpuSet::default(), count);
            hints.into_iter().map(|hint| (hint.mask.unwrap().0, hint.preferred)).collect()
        };
        assert_eq!(shown(&pools, 6), [(1, true), (2, true), (3, false)]);
        assert_eq!(shown(&pools, 8), [(2, true), (3, false)]);
        assert_eq!(shown(&pools, 14), [(3, true)]);
        assert_eq!(shown(&pools, 15), []);
        give(&mut pools, "a", "c", 8, "").unwrap();
        assert_eq!(shown(&pools, 6), [(1, true), (3, false)]);
        assert_eq!(shown(&pools, 7), []);
        let known = pools.of("a", "c").cloned();
        assert_eq!(pools.hints(known.as_ref(), &CpuSet::default(), 8).len(), 2);
        assert_eq!(pools.hints(known.as_ref(), &CpuSet::default(), 7), []);
    }

    #[test]
    fn what_is_written_down_must_fit_the_machine() {
        let check = |shared: &str, held: &[(&str, &str)], expected: Option<&str>| {
            let entries = held.iter().map(|(pod, cpus)| ((*pod).to_owned(), [("c".to_owned(), cpus.parse().unwrap())].into()));
            let record =
                Record { policy_name: "static".into(), default_cpu_set: shared.parse().unwrap(), entries: entries.collect() };
            let refused = pools().restore(record).err().map(|error| error.to_string());
            assert_eq!(refused.as_deref(), expected);
        };
        check("0-15", &[], None);
        check("0-13", &[("a", "14-15")], None);
        check("1-15", &[("a", "0")], Some("not all reserved cpus: \"0,8\" are present in defaultCpuSet: \"1-15\""));
        let other = "cpuset: \"13-15\" overlaps with default cpuset or with another container's";
        check("0-13", &[("a", "13-15")], Some(&format!("pod: a, container: c {other}")));
        check("0-12", &[("a", "13-15"), ("b", "13-15")], Some(&format!("pod: b, container: c {other}")));
        check("0-14", &[], Some("current set of available CPUs \"0-15\" doesn't match with CPUs in state \"0-14\""));
    }
}
