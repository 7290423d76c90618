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
        let memory = memory.map(|memory| MemoryUsage { oom_kills: self.oom_kills(group), ..memory });
        let cpu = match self.unified() {
            true => dir("cpu").and_then(|dir| {
                let cpu = cpu_v2(&fs::read_to_string(dir.join("cpu.stat")).ok()?);
                // Version 2 shows `max` where there is no limit.
                let max = fs::read_to_string(dir.join("cpu.max")).unwrap_or_default();
                Some(CpuUsage { quota: max.trim().split_once(' ').and_then(quota), ..cpu })
            }),
            false => dir("cpuacct").and_then(|acct| cpu_v1(&acct, dir("cpu").as_deref())),
        };
        if cpu.is_none() && memory.is_none() {
            return None;
        }
        let processes = dir("pids").and_then(|dir| number(&dir, "pids.current")).unwrap_or(0);
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
            processes,
            io: io.unwrap_or_default(),
        })
    }
}

/// Quota and period.
fn quota((quota, period): (&str, &str)) -> Option<(u64, u64)> {
    Some((quota.trim().parse().ok()?, period.trim().parse().ok()?))
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// Lines of a name and a number.
fn numbers(text: &str) -> HashMap<&str, u64> {
    text.lines().filter_map(|line| line.split_once(' ')).filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
}

/// `cpu.stat` of version 2, whose times are microseconds.
fn cpu_v2(stat: &str) -> CpuUsage {
    let numbers = numbers(stat);
    let get = |name: &str| numbers.get(name).copied().unwrap_or(0);
    CpuUsage {
        total: get("usage_usec") * 1000,
        user: get("user_usec") * 1000,
        system: get("system_usec") * 1000,
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled: get("throttled_usec") * 1000,
        quota: None,
    }
}

fn cpu_v1(acct: &Path, cpu: Option<&Path>) -> Option<CpuUsage> {
    let total = number(acct, "cpuacct.usage")?;
    let text = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let (ticks, stat) = (text(acct, "cpuacct.stat"), cpu.map(|dir| text(dir, "cpu.stat")).unwrap_or_default());
    let (ticks, stat) = (numbers(&ticks), numbers(&stat));
    let time = |name: &str| ticks.get(name).copied().unwrap_or(0) * (1_000_000_000 / base::stat::TICKS);
    let get = |name: &str| stat.get(name).copied().unwrap_or(0);
    Some(CpuUsage {
        total,
        user: time("user"),
        system: time("system"),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled: get("throttled_time"),
        // Version 1 shows -1 where there is no limit.
        quota: cpu.and_then(|dir| quota((&text(dir, "cpu.cfs_quota_us"), &text(dir, "cpu.cfs_period_us")))),
    })
}

fn memory(dir: &Path, unified: bool) -> Option<MemoryUsage> {
    let (usage, limit, swap, most) = match unified {
        true => ("memory.current", "memory.max", "memory.swap.current", "memory.peak"),
        false => ("memory.usage_in_bytes", "memory.limit_in_bytes", "", "memory.max_usage_in_bytes"),
    };
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let mut memory = memory_of(number(dir, usage)?, &stat, unified);
    memory.limit = number(dir, limit).filter(|limit| *limit < NO_LIMIT);
    memory.most = number(dir, most).unwrap_or(0);
    if unified {
        memory.swap = number(dir, swap).unwrap_or(0);
    }
    Some(memory)
}

/// From all that is used and the parts of it.
fn memory_of(usage: u64, stat: &str, unified: bool) -> MemoryUsage {
    let numbers = numbers(stat);
    let get = |name: &str| numbers.get(name).copied().unwrap_or(0);
    let names = match unified {
        true => ["inactive_file", "anon", "file", "", "pgfault", "pgmajfault"],
        false => ["total_inactive_file", "total_rss", "total_cache", "total_swap", "total_pgfault", "total_pgmajfault"],
    };
    let [inactive, rss, cache, swap, page_faults, major_page_faults] = names.map(get);
    let working_set = usage.saturating_sub(inactive);
    MemoryUsage { usage, working_set, rss, cache, swap, page_faults, major_page_faults, ..MemoryUsage::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_both_versions() {
        let stat = "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\n";
        let expected = CpuUsage {
            total: 5_000_000,
            user: 3_000_000,
            system: 2_000_000,
            periods: 7,
            throttled_periods: 2,
            throttled: 9_000,
            quota: None,
        };
        assert_eq!(cpu_v2(stat), expected);
        let check = |unified: bool, usage: u64, stat: &str, expected: [u64; 4]| {
            let memory = memory_of(usage, stat, unified);
            assert_eq!([memory.working_set, memory.rss, memory.cache, memory.page_faults], expected);
        };
        check(true, 100, "anon 30\nfile 60\ninactive_file 25\npgfault 4\n", [75, 30, 60, 4]);
        let v1 = "cache 1\nrss 2\ninactive_file 3\ntotal_cache 60\ntotal_rss 30\ntotal_inactive_file 25\ntotal_pgfault 4\n";
        check(false, 100, v1, [75, 30, 60, 4]);
        // The parts are counted after the whole.
        check(true, 10, "inactive_file 25\n", [0, 0, 0, 0]);
    }

    #[test]
    fn directories_of_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        put("cpuacct.usage", "1234567\n");
        put("cpuacct.stat", "user 3\nsystem 1\n");
        put("cpu.stat", "nr_periods 5\nnr_throttled 1\nthrottled_time 77\n");
        put("memory.usage_in_bytes", "4096\n");
        put("memory.limit_in_bytes", "9223372036854771712\n");
        let cpu = cpu_v1(dir.path(), Some(dir.path())).unwrap();
        assert_eq!((cpu.total, cpu.user, cpu.system, cpu.throttled), (1_234_567, 30_000_000, 10_000_000, 77));
        for (limit, expected) in [("-1\n", None), ("50000\n", Some((50_000, 100_000)))] {
            put("cpu.cfs_quota_us", limit);
            put("cpu.cfs_period_us", "100000\n");
            assert_eq!(cpu_v1(dir.path(), Some(dir.path())).unwrap().quota, expected);
        }
        assert_eq!((quota(("max", "100000")), quota(("20", "100"))), (None, Some((20, 100))));
        assert_eq!(memory(dir.path(), false).unwrap(), MemoryUsage { usage: 4096, working_set: 4096, ..MemoryUsage::default() });
        put("memory.limit_in_bytes", "8192\n");
        put("memory.max_usage_in_bytes", "6000\n");
        assert_eq!(memory(dir.path(), false).unwrap().most, 6000);
        assert_eq!(memory(dir.path(), false).unwrap().limit, Some(8192));
        assert_eq!(memory(dir.path(), true), None);
    }
}
