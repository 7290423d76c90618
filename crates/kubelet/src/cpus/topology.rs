//! Where the machine's processors are: threads of a core, cores of a socket, sockets and NUMA nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use super::set::CpuSet;
use crate::affinity::Mask;

/// Where a processor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its core, by the lowest number of the core's processors.
    pub core: u32,
    /// Its socket.
    pub socket: u32,
    /// Its NUMA node.
    pub node: u32,
    /// The cache of the last level, by the lowest number of the processors that share it.
    pub cache: u32,
}

/// The processors that are online.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology(pub BTreeMap<u32, Place>);

impl Topology {
    /// Reads `/sys/devices/system`, or a directory like it. Blocking.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn read(system: &Path) -> io::Result<Self> {
        let set = |path: &Path| fs::read_to_string(path)?.parse::<CpuSet>().map_err(io::Error::other);
        let online = set(&system.join("cpu/online"))?;
        let mut nodes = BTreeMap::new();
        for entry in fs::read_dir(system.join("node")).into_iter().flatten().flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("node")?.parse::<u32>().ok());
            if let Some(number) = number {
                nodes.extend(set(&entry.path().join("cpulist"))?.0.into_iter().map(|cpu| (cpu, number)));
            }
        }
        let place = |cpu: u32| {
            let directory = system.join(format!("cpu/cpu{cpu}/topology"));
            let socket =
                fs::read_to_string(directory.join("physical_package_id"))?.trim().parse::<i64>().map_err(io::Error::other)?;
            let threads = set(&directory.join("thread_siblings_list"))?;
            let core = threads.0.first().copied().unwrap_or(cpu);
            // Virtual machines have -1 where they do not know.
            let socket = u32::try_from(socket).unwrap_or(0);
            // Where the kernel tells of no such cache, those of a node share one, as upstream has it.
            let node = nodes.get(&cpu).copied().unwrap_or(0);
            let shared = set(&system.join(format!("cpu/cpu{cpu}/cache/index3/shared_cpu_list"))).ok();
            let cache = shared.and_then(|cpus| cpus.0.first().copied()).unwrap_or(u32::MAX - node);
            Ok((cpu, Place { core, socket, node, cache }))
        };
        online.0.into_iter().map(place).collect::<io::Result<_>>().map(Self)
    }

    /// All processors.
    pub fn all(&self) -> CpuSet {
        self.0.keys().copied().collect()
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.0.values().map(|place| (place.socket, place.core)).collect::<BTreeSet<_>>().len()
    }

    /// How many sockets there are.
    pub fn sockets(&self) -> usize {
        self.0.values().map(|place| place.socket).collect::<BTreeSet<_>>().len()
    }

    /// The NUMA nodes.
    pub fn nodes(&self) -> BTreeSet<u32> {
        self.0.values().map(|place| place.node).collect()
    }

    /// The cores that these processors are of, wholly.
    pub fn whole_cores(&self, cpus: &CpuSet) -> CpuSet {
        let cores: BTreeSet<u32> = cpus.0.iter().filter_map(|cpu| self.0.get(cpu)).map(|place| place.core).collect();
        self.0.iter().filter(|(_, place)| cores.contains(&place.core)).map(|(cpu, _)| *cpu).collect()
    }

    /// How many processors a core has.
    pub fn threads(&self) -> usize {
        let cores: BTreeSet<u32> = self.0.values().map(|place| place.core).collect();
        (self.0.len() / cores.len().max(1)).max(1)
    }

    /// The processors of these NUMA nodes.
    pub fn of_nodes(&self, mask: Mask) -> CpuSet {
        self.0.iter().filter(|(_, place)| mask.has(place.node)).map(|(cpu, _)| *cpu).collect()
    }
}

/// `sockets` sockets, each with `nodes` NUMA nodes of `cores` cores of two threads, numbered as Linux does: the second threads last.
#[cfg(test)]
pub(super) fn machine(sockets: u32, nodes: u32, cores: u32) -> Topology {
    let all = sockets * nodes * cores;
    let place = |core: u32| Place { core, socket: core / (nodes * cores), node: core / cores, cache: core / cores };
    Topology((0..2 * all).map(|cpu| (cpu, place(cpu % all))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_tells() {
        let system = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = system.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("cpu/online", "0-3\n");
        for (cpu, socket, threads) in [(0, "0", "0,2"), (1, "-1", "1,3"), (2, "0", "0,2"), (3, "-1", "1,3")] {
            write(&format!("cpu/cpu{cpu}/topology/physical_package_id"), socket);
            write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), threads);
        }
        assert_eq!(Topology::read(system.path()).unwrap().0[&3], Place { core: 1, socket: 0, node: 0, cache: u32::MAX });
        write("node/node0/cpulist", "0,2\n");
        write("node/node1/cpulist", "1,3\n");
        let found = Topology::read(system.path()).unwrap();
        assert_eq!(found.0[&3], Place { core: 1, socket: 0, node: 1, cache: u32::MAX - 1 });
        assert_eq!(found.of_nodes(Mask(2)).to_string(), "1,3");
        assert_eq!((found.cores(), found.sockets()), (2, 1));
        let large = machine(2, 1, 4);
        assert_eq!((large.cores(), large.sockets()), (8, 2));
        write("cpu/cpu3/cache/index3/shared_cpu_list", "2-3\n");
        assert_eq!(Topology::read(system.path()).unwrap().0[&3].cache, 2);
        write("cpu/online", "0-4\n");
        assert!(Topology::read(system.path()).is_err());
    }

    #[test]
    fn reads_this_machine() {
        assert!(!Topology::read(Path::new("/sys/devices/system")).unwrap().0.is_empty());
    }
}
