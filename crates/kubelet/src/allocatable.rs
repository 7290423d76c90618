//! What pods may take of the node: its capacity without what is kept for others (docs "Reserve Compute Resources for System Daemons"). Pure.
//!
//! The cgroup of all pods is limited to the capacity without what is reserved: pods that take too much memory are then killed among
//! themselves, and the kernel has no reason to kill anything else. What is left over above the thresholds of eviction is not given to pods
//! either, so that the kubelet comes before the kernel.

use crate::eviction::Signal;
use crate::eviction::Threshold;
use crate::node::machine::Machine;
use crate::units::{ResourceList, quantity};

const MIB: i64 = 1 << 20;

/// Amounts that are kept from pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// CPU, thousandths.
    pub milli_cpu: i64,
    /// Memory, bytes.
    pub memory: i64,
    /// Disk, bytes.
    pub storage: i64,
    /// Process ids.
    pub processes: i64,
}

/// Why something cannot be reserved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservedError {
    /// Nothing of this name can be.
    #[error("{0:?} cannot be reserved: it is one of cpu, memory, ephemeral-storage, pid")]
    Resource(String),
    /// That is no amount.
    #[error("{1:?} is no amount of {0}: expected something like 100m, 512Mi")]
    Amount(String, String),
    /// The machine has no more than that.
    #[error("{reserved} of {name} are reserved, and the machine has {capacity}: reserve less")]
    TooMuch {
        /// The resource.
        name: &'static str,
        /// What is reserved.
        reserved: i64,
        /// What there is.
        capacity: i64,
    },
}

impl Reserved {
    /// Reads amounts by the resource's name, as `--system-reserved` has them.
    ///
    /// # Errors
    /// A name or an amount is not one.
    pub fn parse<'a>(amounts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ReservedError> {
        let mut reserved = Self::default();
        for (name, text) in amounts {
            let amount = apimachinery::quantity::Quantity::parse(text).ok().filter(|amount| amount.signum() >= 0);
            let amount = amount.ok_or_else(|| ReservedError::Amount(name.to_owned(), text.to_owned()))?;
            match name {
                "cpu" => reserved.milli_cpu = amount.as_milli(),
                "memory" => reserved.memory = amount.as_i64(),
                "ephemeral-storage" => reserved.storage = amount.as_i64(),
                "pid" => reserved.processes = amount.as_i64(),
                _ => return Err(ReservedError::Resource(name.to_owned())),
            }
        }
        Ok(reserved)
    }

    /// What Knarr keeps for itself where nobody says: a sixteenth of memory, from 64 to 256 MiB, and of the process ids up to a thousand.
    pub fn for_knarr(machine: &Machine) -> Self {
        Self {
            memory: (machine.memory_bytes / 16).clamp(64 * MIB, 256 * MIB),
            processes: (machine.processes / 16).min(1000),
            ..Self::default()
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            milli_cpu: self.milli_cpu.saturating_add(other.milli_cpu),
            memory: self.memory.saturating_add(other.memory),
            storage: self.storage.saturating_add(other.storage),
            processes: self.processes.saturating_add(other.processes),
        }
    }
}

/// What pods may have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocatable {
    /// CPU, thousandths.
    pub milli_cpu: i64,
    /// Memory, bytes; whole KiB.
    pub memory: i64,
    /// Disk, bytes; whole KiB.
    pub storage: i64,
    /// Memory that pods do not get because it is reserved, or a hard threshold keeps it, bytes.
    pub kept_memory: i64,
    /// Limit of the memory of all pods together, bytes.
    pub memory_limit: i64,
    /// Limit of the processes of all pods together; none where it is not known how many there can be.
    pub processes_limit: Option<i64>,
    list: ResourceList,
}

impl Allocatable {
    /// Takes from the machine what is reserved and what hard thresholds keep free.
    ///
    /// # Errors
    /// There would be nothing left.
    pub fn of(machine: &Machine, max_pods: u32, reserved: &Reserved, thresholds: &[Threshold]) -> Result<Self, ReservedError> {
        let left = |name: &'static str, capacity: i64, reserved: i64| match capacity - reserved {
            left if left > 0 || reserved == 0 => Ok(left),
            _ => Err(ReservedError::TooMuch { name, reserved, capacity }),
        };
        let kept = |signal: Signal, capacity: i64| {
            let hard = thresholds.iter().filter(|threshold| threshold.signal == signal && threshold.is_hard());
            hard.map(|threshold| threshold.quantity(capacity)).max().unwrap_or(0)
        };
        let milli_cpu = left("cpu", machine.milli_cpu(), reserved.milli_cpu)?;
        let memory_limit = left("memory", machine.memory_bytes, reserved.memory)?;
        // What is set apart as huge pages is no other memory.
        let huge: i64 = machine.huge_pages.values().sum();
        let kept_memory = reserved.memory + kept(Signal::MemoryAvailable, machine.memory_bytes);
        let memory = (machine.memory_bytes - kept_memory - huge).max(0) / 1024;
        let storage = left("ephemeral-storage", machine.storage_bytes, reserved.storage)?;
        let storage = (storage - kept(Signal::NodeFsAvailable, machine.storage_bytes)).max(0) / 1024;
        let processes_limit = match machine.processes {
            0 => None,
            all => Some(left("pid", all, reserved.processes)?),
        };
        let mut list = machine.capacity(max_pods);
        let cpu = if milli_cpu % 1000 == 0 { quantity(milli_cpu / 1000) } else { quantity(format!("{milli_cpu}m")) };
        list.extend([
            ("cpu".to_owned(), cpu),
            ("memory".to_owned(), quantity(format!("{memory}Ki"))),
            ("ephemeral-storage".to_owned(), quantity(format!("{storage}Ki"))),
        ]);
        Ok(Self { milli_cpu, memory: memory * 1024, storage: storage * 1024, kept_memory, memory_limit, processes_limit, list })
    }

    /// As `status.allocatable`.
    pub fn list(&self) -> &ResourceList {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::Settings;

    const GIB: i64 = 1 << 30;

    fn machine() -> Machine {
        Machine { cpus: 2, memory_bytes: 4 * GIB, storage_bytes: 100 * GIB, processes: 32768, ..Machine::default() }
    }

    #[track_caller]
    fn check(reserved: &[(&str, &str)], expected: Result<[&str; 3], &str>) {
        let parsed = Reserved::parse(reserved.iter().copied());
        let allocatable =
            parsed.and_then(|reserved| Allocatable::of(&machine(), 110, &reserved, &Settings::default().thresholds));
        let shown =
            allocatable.map(|allocatable| ["cpu", "memory", "ephemeral-storage"].map(|name| allocatable.list()[name].0.clone()));
        let shown = shown.as_ref().map(|amounts| amounts.each_ref().map(String::as_str)).map_err(ToString::to_string);
        assert_eq!(shown, expected.map_err(str::to_owned));
    }

    #[test]
    fn what_is_reserved_and_what_thresholds_keep_is_not_for_pods() {
        // 100 MiB of memory and 1 GiB of the disk are kept free.
        check(&[], Ok(["2", "4091904Ki", "103809024Ki"]));
        check(&[("cpu", "500m"), ("memory", "1Gi"), ("ephemeral-storage", "9Gi")], Ok(["1500m", "3043328Ki", "94371840Ki"]));
        check(&[("memory", "4000Mi")], Ok(["2", "0Ki", "103809024Ki"]));
        check(&[("memory", "4Gi")], Err("4294967296 of memory are reserved, and the machine has 4294967296: reserve less"));
        check(&[("gpu", "1")], Err("\"gpu\" cannot be reserved: it is one of cpu, memory, ephemeral-storage, pid"));
        check(&[("cpu", "-1")], Err("\"-1\" is no amount of cpu: expected something like 100m, 512Mi"));
    }

    /// Manage HugePages: "Huge pages are ... pre-allocated", and are resources of their own.
    #[test]
    fn huge_pages_are_taken_from_memory() {
        let machine =
            Machine { huge_pages: [("hugepages-2Mi".to_owned(), GIB), ("hugepages-1Gi".to_owned(), 0)].into(), ..machine() };
        let allocatable = Allocatable::of(&machine, 110, &Reserved::default(), &Settings::default().thresholds).unwrap();
        let amounts = ["memory", "hugepages-2Mi", "hugepages-1Gi"].map(|name| allocatable.list()[name].0.clone());
        assert_eq!(amounts, ["3043328Ki", "1Gi", "0"]);
    }

    #[test]
    fn the_cgroup_of_all_pods_has_all_but_what_is_reserved() {
        let reserved = Reserved { memory: GIB, processes: 700, ..Reserved::default() };
        let allocatable = Allocatable::of(&machine(), 110, &reserved, &Settings::default().thresholds).unwrap();
        assert_eq!((allocatable.memory_limit, allocatable.processes_limit), (3 * GIB, Some(32068)));
        assert_eq!(allocatable.list()["pods"].0, "110");
    }

    #[test]
    fn knarr_keeps_a_part_that_fits_the_machine() {
        let check = |memory: i64, expected: i64| {
            let machine = Machine { memory_bytes: memory, ..machine() };
            assert_eq!(Reserved::for_knarr(&machine).and(&Reserved::default()).memory, expected);
        };
        check(GIB / 2, 64 << 20);
        check(2 * GIB, 128 << 20);
        check(64 * GIB, 256 << 20);
        assert_eq!(Reserved::for_knarr(&machine()).processes, 1000);
    }
}
