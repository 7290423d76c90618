//! The memory that this process may use, and what of it the objects of a cluster may take.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of objects for which this machine has memory: an eighth of it. In memory an object takes up to six times what it takes in the store
/// (caches of the API, of controllers and of the scheduler). At least 128 MiB, at most 8 GiB, which is what etcd's documentation advises.
#[must_use]
pub fn of_objects() -> u64 {
    share(available())
}

fn share(memory: u64) -> u64 {
    (memory / 8).clamp(128 << 20, 8 << 30)
}

/// Bytes that this process may use: what the machine has, or the least limit of the control groups that it is in.
fn available() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text)).unwrap_or(u64::MAX);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits(&groups).filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).fold(machine, u64::min)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// Where limits are, of the control groups of a process and of those around them.
fn limits(groups: &str) -> impl Iterator<Item = PathBuf> {
    let groups = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        match controllers {
            "" => Some(("/sys/fs/cgroup", "memory.max", path)),
            one if one.split(',').any(|one| one == "memory") => Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path)),
            _ => None,
        }
    });
    groups.flat_map(|(root, file, path)| {
        let own = Path::new(path.trim_start_matches('/'));
        own.ancestors().map(|group| Path::new(root).join(group).join(file)).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_an_eighth_within_bounds() {
        let check = |memory: u64, expected: u64| assert_eq!(share(memory), expected);
        check(512 << 20, 128 << 20);
        check(4 << 30, 512 << 20);
        check(24 << 30, 3 << 30);
        check(u64::MAX, 8 << 30);
    }

    #[test]
    fn the_machine_and_its_groups_say_how_much_there_is() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        let files: Vec<_> = limits("11:memory:/a/b\n3:cpu,cpuacct:/x\n0::/c\n").map(|file| file.display().to_string()).collect();
        let expected = [
            "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/c/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, expected);
    }
}
