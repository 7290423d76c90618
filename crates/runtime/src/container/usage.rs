//! What a control group has used, read from its files.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::cgroup::Cgroups;
use super::io_usage;
use crate::api::{CpuUsage, MemoryUsage, Pressure, Usage};

/// Version 1 shows a limit of this many bytes, less a page or two, where there is none.
const NO_LIMIT: u64 = 1 << 62;

impl Cgroups {
    /// What the group has used; none when it is gone.
    pub(crate) fn usage(&self, group: &str) -> Option<Usage> {
        let dir = |controller: &str| self.dir(controller, group);
        let memory = dir("memory").and_then(|dir| memory(&dir, self.unified()));
        let cpu = match self.unified() {
            true => dir("cpu").and_then(|dir| cpu_v2(&dir)),
            false => dir("cpuacct").and_then(|acct| cpu_v1(&acct, dir("cpu").as_deref())),
        };
        if cpu.is_none() && memory.is_none() {
            return None;
        }
        let pids = |file: &str| dir("pids").and_then(|dir| number(&dir, file));
        let io = match self.unified() {
            true => dir("io").map(|dir| io_usage::v2(&dir)),
            false => dir("blkio").map(|dir| io_usage::v1(&dir)),
        };
        let pressure = match self.unified() {
            true => Pressure::read(|resource| fs::read_to_string(dir(resource)?.join(format!("{resource}.pressure"))).ok()),
            false => Pressure::default(),
        };
        Some(Usage {
            pressure,
            group: format!("/{group}"),
            cpu: cpu.unwrap_or_default(),
            memory: memory.unwrap_or_default(),
            processes: pids("pids.current").unwrap_or(0),
            // Both versions write `max` where there is no limit.
            processes_limit: pids("pids.max"),
            io: io.unwrap_or_default(),
        })
    }
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    text(dir, file).trim().parse().ok()
}

/// A limit in bytes; none where there is none, which version 1 shows as a large number and version 2 as `max`.
fn limit(dir: &Path, file: &str) -> Option<u64> {
    number(dir, file).filter(|limit| *limit < NO_LIMIT)
}

/// Lines of a name and a number.
fn numbers(text: &str) -> HashMap<&str, u64> {
    text.lines().filter_map(|line| line.split_once(' ')).filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
}

/// Version 2, whose times are microseconds.
fn cpu_v2(dir: &Path) -> Option<CpuUsage> {
    let stat = fs::read_to_string(dir.join("cpu.stat")).ok()?;
    let numbers = numbers(&stat);
    let get = |name: &str| numbers.get(name).copied().unwrap_or(0);
    let max = text(dir, "cpu.max");
    let (quota, period) = max.trim().split_once(' ').unzip();
    Some(CpuUsage {
        total: get("usage_usec") * 1000,
        user: get("user_usec") * 1000,
        system: get("system_usec") * 1000,
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled: get("throttled_usec") * 1000,
        bursts: get("nr_bursts"),
        burst: get("burst_usec") * 1000,
        // `max` where there is no limit.
        quota: quota.and_then(|quota| quota.parse().ok()),
        period: period.and_then(|period| period.parse().ok()),
        shares: number(dir, "cpu.weight").and_then(shares),
    })
}

/// Shares of version 1 that amount to a weight of version 2 (KEP-2254). Weights are coarser: 1024 shares, a weight of 39, come back as 998, as
/// they do with cAdvisor.
fn shares(weight: u64) -> Option<u64> {
    Some(2 + weight.checked_sub(1)? * 262_142 / 9999)
}

fn cpu_v1(acct: &Path, cpu: Option<&Path>) -> Option<CpuUsage> {
    let total = number(acct, "cpuacct.usage")?;
    let (ticks, stat) = (text(acct, "cpuacct.stat"), cpu.map(|dir| text(dir, "cpu.stat")).unwrap_or_default());
    let (ticks, stat) = (numbers(&ticks), numbers(&stat));
    let time = |name: &str| ticks.get(name).copied().unwrap_or(0) * (1_000_000_000 / base::stat::TICKS);
    let get = |name: &str| stat.get(name).copied().unwrap_or(0);
    let setting = |file: &str| number(cpu?, file);
    Some(CpuUsage {
        total,
        user: time("user"),
        system: time("system"),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled: get("throttled_time"),
        bursts: get("nr_bursts"),
        burst: get("burst_time"),
        // -1 where there is no limit.
        quota: setting("cpu.cfs_quota_us"),
        period: setting("cpu.cfs_period_us"),
        shares: setting("cpu.shares"),
    })
}

fn memory(dir: &Path, unified: bool) -> Option<MemoryUsage> {
    let usage = number(dir, if unified { "memory.current" } else { "memory.usage_in_bytes" })?;
    let parts = memory_of(usage, &text(dir, "memory.stat"), unified);
    Some(match unified {
        true => {
            let events = text(dir, "memory.events");
            let events = numbers(&events);
            let event = |name: &str| events.get(name).copied().unwrap_or(0);
            MemoryUsage {
                swap: number(dir, "memory.swap.current").unwrap_or(0),
                limit: limit(dir, "memory.max"),
                swap_limit: limit(dir, "memory.swap.max"),
                reservation: limit(dir, "memory.min").filter(|bytes| *bytes > 0),
                most: number(dir, "memory.peak").unwrap_or(0),
                limit_hits: event("max"),
                oom_kills: event("oom_kill"),
                ..parts
            }
        }
        false => {
            let limited = limit(dir, "memory.limit_in_bytes");
            MemoryUsage {
                kernel: number(dir, "memory.kmem.usage_in_bytes").unwrap_or(0),
                limit: limited,
                // Version 1 limits memory and swap together.
                swap_limit: limit(dir, "memory.memsw.limit_in_bytes").map(|both| both.saturating_sub(limited.unwrap_or(0))),
                reservation: limit(dir, "memory.soft_limit_in_bytes"),
                most: number(dir, "memory.max_usage_in_bytes").unwrap_or(0),
                limit_hits: number(dir, "memory.failcnt").unwrap_or(0),
                oom_kills: super::cgroup::oom_kills(&text(dir, "memory.oom_control")),
                ..parts
            }
        }
    })
}

/// From all that is used and the parts of it.
fn memory_of(usage: u64, stat: &str, unified: bool) -> MemoryUsage {
    let numbers = numbers(stat);
    let get = |name: &str| numbers.get(name).copied().unwrap_or(0);
    // Version 2 counts what is below a group always, version 1 in these.
    let total = |name: &str| if unified { get(name) } else { get(&format!("total_{name}")) };
    let named = |v2: &str, v1: &str| total(if unified { v2 } else { v1 });
    let inactive_file = total("inactive_file");
    MemoryUsage {
        usage,
        working_set: usage.saturating_sub(inactive_file),
        rss: named("anon", "rss"),
        cache: named("file", "cache"),
        mapped: named("file_mapped", "mapped_file"),
        active_file: total("active_file"),
        inactive_file,
        // Since Linux 5.18.
        kernel: if unified { get("kernel") } else { 0 },
        swap: if unified { 0 } else { total("swap") },
        page_faults: total("pgfault"),
        major_page_faults: total("pgmajfault"),
        own_page_faults: [get("pgfault"), get("pgmajfault")],
        ..MemoryUsage::default()
    }
}

#[cfg(test)]
mod tests;
