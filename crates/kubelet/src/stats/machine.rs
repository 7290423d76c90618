//! What the whole node uses.

use std::fs;
use std::path::Path;

use base::stat::TICKS;
use jiff::Timestamp;
use runtime::api::Pressure;

use super::network::{self, Interface};
use crate::node::machine;
use crate::node::supply::Supplies;
use crate::volumes::points;

/// CPU time, memory and room of the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeUsage {
    /// When the machine started.
    pub(crate) started: Timestamp,
    /// CPU time since then, nanoseconds.
    pub(crate) cpu: u64,
    /// The part of it in user mode, and the part in the kernel.
    pub(crate) cpu_modes: [u64; 2],
    pub(crate) cpus: u64,
    pub(crate) memory: Memory,
    /// What its processes wait for.
    pub(crate) pressure: Pressure,
    /// The disk with the pods' data, its files, and process ids.
    pub(crate) supplies: Supplies,
    /// Name of the device of that disk.
    pub(crate) device: String,
    /// That of the default route first.
    pub(crate) interfaces: Vec<Interface>,
}

/// Memory of the node, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) usage: u64,
    /// All but free memory and the file pages that nobody has touched lately.
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    pub(crate) cache: u64,
    /// Files that processes have mapped.
    pub(crate) mapped: u64,
    /// File pages, by whether somebody touched them lately.
    pub(crate) active_file: u64,
    pub(crate) inactive_file: u64,
    /// What the kernel holds for itself.
    pub(crate) kernel: u64,
    /// What of the swap space is in use.
    pub(crate) swap: u64,
    /// All swap space.
    pub(crate) swap_space: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
}

impl NodeUsage {
    /// Reads /proc. Blocking.
    pub(crate) fn read(data_dir: &Path, memory_bytes: i64) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (stat, meminfo, vmstat) = (text("/proc/stat"), text("/proc/meminfo"), text("/proc/vmstat"));
        let (started, cpu_modes, cpus) = processors(&stat);
        let total = u64::try_from(memory_bytes).unwrap_or(0);
        let (supplies, interfaces) = (machine::supplies(data_dir), network::of_node());
        let device = points::source(data_dir).ok().flatten().unwrap_or_default();
        let pressure = Pressure::read(|resource| fs::read_to_string(format!("/proc/pressure/{resource}")).ok());
        let memory = memory(total, &meminfo, &vmstat);
        Self { started, cpu: cpu_modes.iter().sum(), cpu_modes, cpus, memory, pressure, supplies, device, interfaces }
    }
}

/// Time of the start, nanoseconds of all processors in user mode and in the kernel, and how many there are (proc_stat(5)).
fn processors(stat: &str) -> (Timestamp, [u64; 2], u64) {
    let line = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let ticks: Vec<u64> = line("cpu ").split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, then idle and waiting, then interrupts of both kinds. Time of guests is in that of users.
    let time = |fields: &[usize]| fields.iter().filter_map(|index| ticks.get(*index)).sum::<u64>() * (1_000_000_000 / TICKS);
    let started = line("btime ").trim().parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let cpus = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    (started.unwrap_or_default(), [time(&[0, 1]), time(&[2, 5, 6])], cpus as u64)
}

fn memory(total: u64, meminfo: &str, vmstat: &str) -> Memory {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    let events = |name: &str| {
        let line = vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
    };
    let usage = total.saturating_sub(bytes("MemFree"));
    Memory {
        total,
        usage,
        working_set: usage.saturating_sub(bytes("Inactive(file)")),
        rss: bytes("AnonPages"),
        cache: bytes("Cached"),
        mapped: bytes("Mapped"),
        active_file: bytes("Active(file)"),
        inactive_file: bytes("Inactive(file)"),
        kernel: ["Slab", "KernelStack", "PageTables"].into_iter().map(bytes).sum(),
        swap: bytes("SwapTotal").saturating_sub(bytes("SwapFree")),
        swap_space: bytes("SwapTotal"),
        page_faults: events("pgfault"),
        major_page_faults: events("pgmajfault"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc() {
        let stat = "cpu  100 20 30 4000 50 6 7 8 0 0\ncpu0 1\ncpu1 1\nintr 5\nbtime 1700000000\n";
        let (started, modes, cpus) = processors(stat);
        assert_eq!((started.as_second(), modes, cpus), (1_700_000_000, [120 * 10_000_000, 43 * 10_000_000], 2));
        let meminfo = "MemTotal: 1000 kB\nMemFree: 300 kB\nCached: 200 kB\nInactive(file): 100 kB\nAnonPages: 50 kB\n\
                       SwapTotal: 9 kB\nSwapFree: 4 kB\nActive(file): 7 kB\nMapped: 6 kB\nSlab: 5 kB\nKernelStack: 2 kB\nPageTables: 1 kB\n";
        let expected = Memory {
            total: 1_024_000,
            usage: 716_800,
            working_set: 614_400,
            rss: 51_200,
            cache: 204_800,
            mapped: 6144,
            active_file: 7168,
            inactive_file: 102_400,
            kernel: 8192,
            swap: 5120,
            swap_space: 9216,
            page_faults: 12,
            major_page_faults: 3,
        };
        assert_eq!(memory(1_024_000, meminfo, "pgfault 12\npgmajfault 3\n"), expected);
    }
}
