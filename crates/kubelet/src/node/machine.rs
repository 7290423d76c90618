//! What the machine is and has, read once at start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use apimachinery::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{NodeSwapStatus, NodeSystemInfo};

use super::supply::{Supplies, Supply};
use crate::affinity::options::Distances;
use crate::cpus::set::CpuSet;
use crate::cpus::topology::Topology;
use crate::units::{ResourceList, quantity};
use crate::volumes::empty_dir::knows_no_swap;

/// Capacity and identity of the machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Processors.
    pub cpus: u32,
    /// Cores and sockets that the processors are of; 0 where the kernel does not tell.
    pub cores: usize,
    /// See [`Self::cores`].
    pub sockets: usize,
    /// Memory, bytes.
    pub memory_bytes: i64,
    /// Size of the file system with the pods' data, bytes.
    pub storage_bytes: i64,
    /// Processes and threads that there can be; 0 when that is not known.
    pub processes: i64,
    /// Huge pages by resource name, bytes.
    pub huge_pages: BTreeMap<String, i64>,
    /// NUMA nodes that have processors or memory.
    pub numa_nodes: BTreeSet<u32>,
    /// How far they are from each other.
    pub numa_distances: Distances,
    /// Identity for `nodeInfo`, without versions of ours.
    pub info: NodeSystemInfo,
    /// The kernel's host name.
    pub hostname: String,
    /// The kernel confines programs by AppArmor profiles.
    pub app_armor: bool,
    /// What is in memory may be written to a disk.
    pub swaps: bool,
}

/// How much there is to swap to, by `/proc/meminfo`; none where there is nothing, as upstream.
fn swap_status(meminfo: &str) -> Option<NodeSwapStatus> {
    let capacity = self::meminfo(meminfo, "SwapTotal").filter(|capacity| *capacity > 0)?;
    Some(NodeSwapStatus { capacity: Some(capacity) })
}

/// Whether there is any place to swap to, by the kernel's table with its heading.
fn has_swap(table: &str) -> bool {
    table.lines().skip(1).any(|line| !line.trim().is_empty())
}

impl Machine {
    /// Reads /proc, /sys and /etc.
    pub fn read(data_dir: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let uname = nix::sys::utsname::uname().ok();
        let of_uname = |field: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            uname.as_ref().map(|uname| field(uname).to_string_lossy().into_owned()).unwrap_or_default()
        };
        let machine_id = text("/etc/machine-id");
        let system_uuid = Some(text("/sys/class/dmi/id/product_uuid")).filter(|uuid| !uuid.is_empty());
        let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        let topology = Topology::read(Path::new(crate::cpus::SYSTEM)).unwrap_or_default();
        Self {
            cpus,
            cores: topology.cores(),
            sockets: topology.sockets(),
            memory_bytes: meminfo(&text("/proc/meminfo"), "MemTotal").unwrap_or(0),
            storage_bytes: disk(data_dir).map_or(0, |(disk, _)| disk.total),
            processes: processes().map_or(0, |processes| processes.total),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            numa_nodes: ["has_cpu", "has_memory"].into_iter().flat_map(|file| numa_nodes(text, file)).collect(),
            numa_distances: Distances::read(&numa_nodes(text, "online"), |node| {
                text(&format!("/sys/devices/system/node/node{node}/distance"))
            }),
            info: NodeSystemInfo {
                architecture: architecture(std::env::consts::ARCH).to_owned(),
                boot_id: text("/proc/sys/kernel/random/boot_id"),
                kernel_version: of_uname(|uname| uname.release()),
                system_uuid: system_uuid.unwrap_or_else(|| machine_id.clone()),
                machine_id,
                operating_system: "linux".to_owned(),
                os_image: os_image(&text("/etc/os-release")),
                swap: swap_status(&text("/proc/meminfo")),
                ..NodeSystemInfo::default()
            },
            hostname: of_uname(|uname| uname.nodename()),
            app_armor: runtime::has_app_armor(),
            swaps: has_swap(&text("/proc/swaps")),
        }
    }

    /// Whether volumes in memory may come to be on a disk: the machine swaps, and its kernel cannot leave them out.
    pub fn may_swap_memory(&self) -> bool {
        self.swaps && !knows_no_swap(&self.info.kernel_version)
    }

    /// CPU in thousandths.
    pub fn milli_cpu(&self) -> i64 {
        i64::from(self.cpus) * 1000
    }

    /// As `status.capacity`.
    pub fn capacity(&self, max_pods: u32) -> ResourceList {
        let mut list = ResourceList::from([
            ("cpu".to_owned(), quantity(self.cpus)),
            ("memory".to_owned(), quantity(format!("{}Ki", self.memory_bytes / 1024))),
            ("ephemeral-storage".to_owned(), quantity(format!("{}Ki", self.storage_bytes / 1024))),
            ("pods".to_owned(), quantity(max_pods)),
        ]);
        let huge = |bytes: i64| quantity(Quantity::from_units(bytes, Format::BinarySi));
        list.extend(self.huge_pages.iter().map(|(name, bytes)| (name.clone(), huge(*bytes))));
        list
    }
}

/// What is left of memory, disk and processes; the disk is the one with the pods' data.
pub fn supplies(data_dir: &Path) -> Supplies {
    let (disk, inodes) = disk(data_dir).unzip();
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo(&text, "MemTotal").zip(meminfo(&text, "MemAvailable"));
    Supplies { memory: memory.map(|(total, available)| Supply { total, available }), disk, inodes, processes: processes() }
}

/// Bytes and inodes of the file system at `path`; a total of no inodes means that there is no limit.
pub fn disk(path: &Path) -> Option<(Supply, Supply)> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let bytes = |blocks: u64| number(blocks.saturating_mul(stat.fragment_size()));
    let disk = Supply { total: bytes(stat.blocks()), available: bytes(stat.blocks_available()) };
    Some((disk, Supply { total: number(stat.files()), available: number(stat.files_available()) }))
}

/// Bytes of what one line of `/proc/meminfo`, or of a NUMA node's, says.
pub(crate) fn meminfo(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: i64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Process ids: how many there can be, and how many are free.
fn processes() -> Option<Supply> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let used: i64 = load.split(' ').nth(3)?.split_once('/')?.1.parse().ok()?;
    let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse::<i64>().ok();
    let total = number("/proc/sys/kernel/pid_max")?;
    let total = number("/proc/sys/kernel/threads-max").map_or(total, |threads| total.min(threads));
    Some(Supply { total, available: total - used })
}

fn numa_nodes(text: impl Fn(&str) -> String, file: &str) -> BTreeSet<u32> {
    text(&format!("/sys/devices/system/node/{file}")).parse::<CpuSet>().map(|set| set.0).unwrap_or_default()
}

/// Bytes of huge pages by resource name, as a directory of the kernel tells.
pub(crate) fn huge_pages(directory: &Path) -> BTreeMap<String, i64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let name = entry.file_name();
        let kib: i64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: i64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        let size = if kib % (1 << 20) == 0 {
            format!("{}Gi", kib >> 20)
        } else if kib % 1024 == 0 {
            format!("{}Mi", kib >> 10)
        } else {
            format!("{kib}Ki")
        };
        Some((format!("hugepages-{size}"), count * kib * 1024))
    });
    sizes.collect()
}

/// Go's name of an architecture.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn os_image(os_release: &str) -> String {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.map(|value| value.trim_matches('"').to_owned()).unwrap_or_else(|| "Linux".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let check = |text: &str, expected: &str| assert_eq!(os_image(text), expected);
        check("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n", "Debian GNU/Linux 13 (trixie)");
        check("", "Linux");
        assert_eq!(meminfo("MemTotal:       16384 kB\nMemFree: 1 kB\n", "MemTotal"), Some(16384 * 1024));
        assert_eq!(architecture("x86_64"), "amd64");
    }

    #[test]
    fn the_node_tells_how_much_it_may_swap() {
        let told = |text: &str| swap_status(text).and_then(|swap| swap.capacity);
        assert_eq!(told("MemTotal: 5 kB\nSwapCached: 7 kB\nSwapTotal:  1048572 kB\nSwapFree: 9 kB\n"), Some(1_048_572 << 10));
        assert_eq!(told("MemTotal: 5 kB\nSwapTotal:  0 kB\n"), None);
        assert_eq!(told("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn memory_that_may_come_to_be_on_a_disk() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority";
        let check = |rest: &str, kernel: &str, expected: bool| {
            let info = NodeSystemInfo { kernel_version: kernel.to_owned(), ..NodeSystemInfo::default() };
            let machine = Machine { swaps: has_swap(&format!("{heading}{rest}")), info, ..Machine::default() };
            assert_eq!(machine.may_swap_memory(), expected, "{rest} {kernel}");
        };
        let disk = "\n/dev/sda2                               partition\t1048572\t\t0\t\t-2\n";
        check(disk, "6.1.0-18-amd64", true);
        check(disk, "6.12.1", false);
        check("\n", "6.1.0-18-amd64", false);
        check("", "6.1.0-18-amd64", false);
    }

    #[test]
    fn reads_this_machine() {
        let machine = Machine::read(Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && machine.storage_bytes > 0 && machine.processes > 0);
        assert!(!machine.info.kernel_version.is_empty());
    }
}
