//! Memory and CPU time of all processes of a machine.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use crate::Machine;

/// Clock ticks of /proc/PID/stat per second (USER_HZ).
const TICKS: u64 = 100;

/// The cluster's processes: the server, shims and containers, without those that make the machine.
fn processes(machine: &Machine) -> Vec<i32> {
    let ours = machine.processes().into_iter().filter(|(_, line)| line.contains("knarr"));
    ours.map(|(pid, _)| pid).collect()
}

/// Proportional set size of the server and the shims, in bytes: pages that processes share count once.
pub fn memory(machine: &Machine) -> u64 {
    let pss = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    processes(machine).into_iter().map(pss).sum()
}

/// Resident memory of one process now; its peak counts from here on.
///
/// # Errors
/// When the kernel refuses.
pub fn forget_peak(pid: i32) -> Result<u64> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    Ok(peak(pid))
}

/// The most resident memory that a process has had, in bytes.
pub fn peak(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// CPU time that the server and the shims have used.
pub fn cpu(machine: &Machine) -> Duration {
    processes(machine).into_iter().map(cpu_of).sum()
}

/// CPU time that one process has used.
pub fn cpu_of(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((field(11) + field(12)) * 1000 / TICKS)
}
