//! What containers and pods have used of the machine.

use std::collections::BTreeMap;
use std::time::Duration;

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
    /// How many of them there may be; none where there is no limit.
    pub processes_limit: Option<u64>,
    /// What went from and to block devices, for each that was used. With cgroups of version 1, what is written later by the kernel is nobody's.
    pub io: Vec<IoUsage>,
    /// How its processes wait for what is short.
    pub pressure: Pressure,
}

/// What processes wait for (the kernel's PSI); nothing where the kernel does not tell, as with cgroups of version 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// For processors.
    pub cpu: Option<Stalls>,
    /// For memory.
    pub memory: Option<Stalls>,
    /// For block devices.
    pub io: Option<Stalls>,
}

/// Waiting for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// Some processes wait.
    pub some: Stall,
    /// All that could run wait.
    pub full: Stall,
}

/// How long that was the case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Since the group was made.
    pub total: Duration,
    /// Of the last 10, 60 and 300 seconds, in hundredths of a percent.
    pub averages: [u32; 3],
}

impl Pressure {
    /// Reads each resource's file, which `read` finds by the resource's name.
    pub fn read(read: impl Fn(&str) -> Option<String>) -> Self {
        let of = |resource: &str| Stalls::parse(&read(resource)?);
        Self { cpu: of("cpu"), memory: of("memory"), io: of("io") }
    }
}

impl Stalls {
    /// Reads what the kernel writes (Documentation/accounting/psi.rst). For processors it says nothing of `full` before Linux 5.13.
    pub fn parse(text: &str) -> Option<Self> {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).and_then(Stall::parse);
        Some(Self { some: line("some ")?, full: line("full ").unwrap_or_default() })
    }
}

impl Stall {
    fn parse(line: &str) -> Option<Self> {
        let value = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let average = |name: &str| {
            let (whole, hundredths) = value(name)?.split_once('.')?;
            Some(whole.parse::<u32>().ok()?.checked_mul(100)? + hundredths.parse::<u32>().ok().filter(|part| *part < 100)?)
        };
        let total = Duration::from_micros(value("total")?.trim().parse().ok()?);
        Some(Self { total, averages: [average("avg10")?, average("avg60")?, average("avg300")?] })
    }
}

/// What went from and to a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoUsage {
    /// Major and minor number of the device.
    pub device: (u32, u32),
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
    /// Periods in which more was used than the quota, of what was left of earlier ones.
    pub bursts: u64,
    /// How much more that was.
    pub burst: u64,
    /// What it may use in each period, microseconds; none where it has no limit.
    pub quota: Option<u64>,
    /// The period, microseconds; none at the root.
    pub period: Option<u64>,
    /// Its part of the processors beside others, as version 1 counts it (2 to 262144).
    pub shares: Option<u64>,
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
    /// Files that processes have mapped, a part of the page cache.
    pub mapped: u64,
    /// File pages that somebody touched lately.
    pub active_file: u64,
    /// File pages that nobody touched lately.
    pub inactive_file: u64,
    /// What the kernel holds for the group, such as its stacks and page tables.
    pub kernel: u64,
    /// Swap.
    pub swap: u64,
    /// The limit, where there is one.
    pub limit: Option<u64>,
    /// The limit of swap alone; none where there is no limit, or the kernel does not count swap.
    pub swap_limit: Option<u64>,
    /// What the kernel leaves to the group while others have to give: version 2's `memory.min`, version 1's soft limit, where there is one.
    pub reservation: Option<u64>,
    /// How often it would have passed its limit.
    pub limit_hits: u64,
    /// The most that was used at once since the group was made; 0 where the kernel does not tell (version 2 before Linux 5.19).
    pub most: u64,
    /// How often the kernel's OOM killer struck.
    pub oom_kills: u64,
    /// Page faults since the group was made.
    pub page_faults: u64,
    /// Those of them that waited for a disk.
    pub major_page_faults: u64,
    /// Page faults without those of groups below, and those of them that waited for a disk. Version 2 counts all together only.
    pub own_page_faults: [u64; 2],
}

/// The processes of a container, groups that it made itself included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// How many there are, threads not counted.
    pub processes: u64,
    /// Files that they have open, sockets included.
    pub descriptors: u64,
    /// Sockets that they have open.
    pub sockets: u64,
    /// How many files the container's first process may have open; none where that is not known.
    pub open_files: Option<Ulimit>,
}

/// A soft limit (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ulimit {
    /// There is no limit.
    Unlimited,
    /// This many.
    Limited(u64),
}

/// What everything of a runtime has used, by identifier.
#[derive(Clone, Debug, Default)]
pub struct Usages {
    /// By sandbox: the group of the whole pod.
    pub sandboxes: BTreeMap<String, Usage>,
    /// By container; only those that run.
    pub containers: BTreeMap<String, Usage>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documentation/accounting/psi.rst: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
    #[test]
    fn what_the_kernel_tells_of_pressure() {
        let check = |text: &str, expected: Option<(u64, [u32; 3], u64)>| {
            let stalls = Stalls::parse(text);
            let shown = stalls.map(|stalls| {
                let [some, full] = [stalls.some, stalls.full].map(|stall| u64::try_from(stall.total.as_micros()).unwrap_or(0));
                (some, stalls.some.averages, full)
            });
            assert_eq!(shown, expected, "{text}");
        };
        let some = "some avg10=94.26 avg60=7.05 avg300=100.00 total=14826252029\n";
        check(
            &format!("{some}full avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"),
            Some((14_826_252_029, [9426, 705, 10_000], 12)),
        );
        check(some, Some((14_826_252_029, [9426, 705, 10_000], 0)));
        check("", None);
        check("some avg10=1 avg60=0.00 avg300=0.00 total=1\n", None);
        let of_cpu = Pressure::read(|resource| (resource == "cpu").then(|| some.to_owned()));
        assert!(of_cpu.cpu.is_some() && of_cpu.memory.is_none() && of_cpu.io.is_none());
    }
}
