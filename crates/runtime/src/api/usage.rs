//! What containers and pods have used of the machine.

use std::collections::BTreeMap;

/// CPU time and memory of one control group, with all groups below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Path of the group in its hierarchies, with a leading slash.
    pub group: String,
    /// CPU time since the group was made.
    pub cpu: CpuUsage,
    /// Memory that is held now.
    pub memory: MemoryUsage,
    /// Processes and threads.
    pub processes: u64,
    /// What went from and to block devices, for each that was used. With cgroups of version 1, what is written later by the kernel is nobody's.
    pub io: Vec<IoUsage>,
}

/// What went from and to a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoUsage {
    /// The device, such as `/dev/sda`.
    pub device: String,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// How often it was read.
    pub reads: u64,
    /// How often it was written.
    pub writes: u64,
}

/// CPU time, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// All of it.
    pub total: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Those of them in which the quota was used up.
    pub throttled_periods: u64,
    /// How long the group's processes were kept from running.
    pub throttled: u64,
    /// What it may use in each period, and the period, microseconds; none where it has no limit.
    pub quota: Option<(u64, u64)>,
}

/// Memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// All that the kernel counts, page cache included.
    pub usage: u64,
    /// What cannot be taken back without harm: all but the file pages that nobody has touched lately.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    /// Swap.
    pub swap: u64,
    /// The limit, where there is one.
    pub limit: Option<u64>,
    /// The most that was used at once since the group was made; 0 where the kernel does not tell (version 2 before Linux 5.19).
    pub most: u64,
    /// How often the kernel's OOM killer struck.
    pub oom_kills: u64,
    /// Page faults since the group was made.
    pub page_faults: u64,
    /// Those of them that waited for a disk.
    pub major_page_faults: u64,
}

/// What everything of a runtime has used, by identifier.
#[derive(Clone, Debug, Default)]
pub struct Usages {
    /// By sandbox: the group of the whole pod.
    pub sandboxes: BTreeMap<String, Usage>,
    /// By container; only those that run.
    pub containers: BTreeMap<String, Usage>,
}
