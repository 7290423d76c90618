//! What the NUMA nodes of the machine have.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::{Amounts, MEMORY};
use crate::node::machine::{huge_pages, meminfo};

/// Where the kernel tells of the machine.
pub(super) const SYSTEM: &str = "/sys/devices/system";

/// Bytes of each resource by NUMA node.
pub type Nodes = BTreeMap<u32, Amounts>;

/// Reads `/sys/devices/system`, or a directory like it. Blocking.
///
/// # Errors
/// The kernel does not tell, as one without NUMA.
pub(super) fn read(system: &Path) -> io::Result<Nodes> {
    let mut nodes = Nodes::new();
    for entry in fs::read_dir(system.join("node"))?.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("node")?.parse::<u32>().ok());
        let Some(number) = number else { continue };
        let text = fs::read_to_string(entry.path().join("meminfo"))?;
        let total = meminfo(&text, &format!("Node {number} MemTotal"));
        let total = total.ok_or_else(|| io::Error::other(format!("the memory of NUMA node {number} is not told")))?;
        // Of a node without memory, the kernel lets nobody use any.
        if total == 0 {
            continue;
        }
        let pages = huge_pages(&entry.path().join("hugepages"));
        let amounts = pages.into_iter().chain([(MEMORY.to_owned(), total)]);
        nodes.insert(number, amounts.map(|(name, bytes)| (name, u64::try_from(bytes).unwrap_or(0))).collect());
    }
    if nodes.is_empty() {
        return Err(io::Error::other("there is no NUMA node"));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_tells() {
        let system = tempfile::tempdir().unwrap();
        assert!(read(system.path()).is_err());
        let write = |path: &str, text: &str| {
            let path = system.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("node/has_cpu", "0\n");
        write("node/node0/meminfo", "Node 0 MemTotal:       16384 kB\nNode 0 MemFree:  1 kB\n");
        write("node/node0/hugepages/hugepages-2048kB/nr_hugepages", "3\n");
        write("node/node1/meminfo", "Node 1 MemTotal:       8192 kB\n");
        let amounts = |amounts: &[(&str, u64)]| amounts.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        let expected = [(0, amounts(&[("memory", 16 << 20), ("hugepages-2Mi", 6 << 20)])), (1, amounts(&[("memory", 8 << 20)]))];
        assert_eq!(read(system.path()).unwrap(), expected.into());
        write("node/node2/meminfo", "Node 2 MemTotal:       0 kB\n");
        assert_eq!(read(system.path()).unwrap().len(), 2);
        write("node/node1/meminfo", "");
        assert_eq!(read(system.path()).unwrap_err().to_string(), "the memory of NUMA node 1 is not told");
    }

    #[test]
    fn reads_this_machine() {
        assert!(read(Path::new(SYSTEM)).unwrap().values().any(|amounts| amounts[MEMORY] > 0));
    }
}
