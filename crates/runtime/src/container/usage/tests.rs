#![allow(clippy::unwrap_used)]
use super::*;

/// Files of a group, by name.
fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        fs::write(dir.path().join(file), text).unwrap();
    }
    dir
}

#[test]
fn processors_of_version_2() {
    let stat = "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 7\n\
                nr_throttled 2\nthrottled_usec 9\nnr_bursts 3\nburst_usec 4\n";
    let dir = group(&[("cpu.stat", stat), ("cpu.max", "50000 100000\n"), ("cpu.weight", "39\n")]);
    let limited = CpuUsage {
        total: 5_000_000,
        user: 3_000_000,
        system: 2_000_000,
        periods: 7,
        throttled_periods: 2,
        throttled: 9_000,
        bursts: 3,
        burst: 4_000,
        quota: Some(50_000),
        period: Some(100_000),
        shares: Some(998),
    };
    assert_eq!(cpu_v2(dir.path()), Some(limited));
    fs::write(dir.path().join("cpu.max"), "max 100000\n").unwrap();
    assert_eq!(cpu_v2(dir.path()), Some(CpuUsage { quota: None, ..limited }));
    // The group at the root has no settings.
    let root = cpu_v2(group(&[("cpu.stat", stat)]).path()).unwrap();
    assert_eq!((root.total, root.quota, root.period, root.shares), (5_000_000, None, None, None));
    assert_eq!(cpu_v2(group(&[]).path()), None);
}

/// KEP-2254: "1 + ((cpu.shares - 2) * 9999) / 262142", the other way round.
#[test]
fn weights_are_shares() {
    for (weight, expected) in [(1, Some(2)), (39, Some(998)), (10_000, Some(262_144)), (0, None)] {
        assert_eq!(shares(weight), expected, "{weight}");
    }
}

#[test]
fn processors_of_version_1() {
    let files = [
        ("cpuacct.usage", "1234567\n"),
        ("cpuacct.stat", "user 3\nsystem 1\n"),
        ("cpu.stat", "nr_periods 5\nnr_throttled 1\nthrottled_time 77\nnr_bursts 2\nburst_time 8\n"),
        ("cpu.cfs_quota_us", "-1\n"),
        ("cpu.cfs_period_us", "100000\n"),
        ("cpu.shares", "1024\n"),
    ];
    let dir = group(&files);
    let unlimited = CpuUsage {
        total: 1_234_567,
        user: 30_000_000,
        system: 10_000_000,
        periods: 5,
        throttled_periods: 1,
        throttled: 77,
        bursts: 2,
        burst: 8,
        quota: None,
        period: Some(100_000),
        shares: Some(1024),
    };
    assert_eq!(cpu_v1(dir.path(), Some(dir.path())), Some(unlimited));
    fs::write(dir.path().join("cpu.cfs_quota_us"), "50000\n").unwrap();
    assert_eq!(cpu_v1(dir.path(), Some(dir.path())), Some(CpuUsage { quota: Some(50_000), ..unlimited }));
    assert_eq!(cpu_v1(dir.path(), None).map(|cpu| (cpu.total, cpu.periods, cpu.shares)), Some((1_234_567, 0, None)));
}

/// What the groups of both versions say while they have no limits.
fn unlimited() -> MemoryUsage {
    MemoryUsage {
        usage: 100,
        working_set: 75,
        rss: 30,
        cache: 60,
        mapped: 12,
        active_file: 35,
        inactive_file: 25,
        kernel: 9,
        swap: 5,
        limit: None,
        swap_limit: None,
        reservation: None,
        most: 140,
        limit_hits: 6,
        oom_kills: 2,
        page_faults: 4,
        major_page_faults: 2,
        own_page_faults: [4, 2],
    }
}

#[test]
fn memory_of_version_2() {
    let stat = "anon 30\nfile 60\nkernel 9\nkernel_stack 1\nfile_mapped 12\nfile_dirty 1\ninactive_anon 3\nactive_anon 4\n\
                inactive_file 25\nactive_file 35\npgfault 4\npgmajfault 2\n";
    let dir = group(&[
        ("memory.current", "100\n"),
        ("memory.stat", stat),
        ("memory.max", "max\n"),
        ("memory.peak", "140\n"),
        ("memory.min", "0\n"),
        ("memory.swap.current", "5\n"),
        ("memory.swap.max", "max\n"),
        ("memory.events", "low 0\nhigh 1\nmax 6\noom 3\noom_kill 2\noom_group_kill 0\n"),
    ]);
    assert_eq!(memory(dir.path(), true), Some(unlimited()));
    for (file, text) in [("memory.max", "200\n"), ("memory.min", "50\n"), ("memory.swap.max", "0\n")] {
        fs::write(dir.path().join(file), text).unwrap();
    }
    let limited = MemoryUsage { limit: Some(200), reservation: Some(50), swap_limit: Some(0), ..unlimited() };
    assert_eq!(memory(dir.path(), true), Some(limited));
    // The parts are counted after the whole.
    let late = memory(group(&[("memory.current", "10\n"), ("memory.stat", "inactive_file 25\n")]).path(), true).unwrap();
    assert_eq!((late.working_set, late.rss), (0, 0));
    assert_eq!(memory(dir.path(), false), None);
}

#[test]
fn memory_of_version_1() {
    let stat = "cache 1\nrss 2\nmapped_file 3\nswap 0\npgfault 11\npgmajfault 1\ninactive_file 3\nhierarchical_memory_limit 9223372036854771712\n\
                total_cache 60\ntotal_rss 30\ntotal_mapped_file 12\ntotal_swap 5\ntotal_pgfault 40\ntotal_pgmajfault 2\n\
                total_inactive_file 25\ntotal_active_file 35\n";
    let none = "9223372036854771712\n";
    let dir = group(&[
        ("memory.usage_in_bytes", "100\n"),
        ("memory.stat", stat),
        ("memory.limit_in_bytes", none),
        ("memory.memsw.limit_in_bytes", none),
        ("memory.soft_limit_in_bytes", none),
        ("memory.max_usage_in_bytes", "140\n"),
        ("memory.kmem.usage_in_bytes", "9\n"),
        ("memory.failcnt", "6\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ]);
    let unlimited = MemoryUsage { page_faults: 40, own_page_faults: [11, 1], ..unlimited() };
    assert_eq!(memory(dir.path(), false), Some(unlimited));
    for (file, text) in
        [("memory.limit_in_bytes", "200\n"), ("memory.memsw.limit_in_bytes", "260\n"), ("memory.soft_limit_in_bytes", "50\n")]
    {
        fs::write(dir.path().join(file), text).unwrap();
    }
    let limited = MemoryUsage { limit: Some(200), reservation: Some(50), swap_limit: Some(60), ..unlimited };
    assert_eq!(memory(dir.path(), false), Some(limited));
    assert_eq!(memory(dir.path(), true), None);
}
