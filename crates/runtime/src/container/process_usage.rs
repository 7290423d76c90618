//! What the processes of a container have open, read from /proc.

use std::fs;
use std::path::Path;

use super::cgroup::Cgroups;
use crate::api::{ProcessUsage, Ulimit};

impl Cgroups {
    /// What the processes of a group and of those below it have open.
    pub(crate) fn process_usage(&self, group: &str) -> ProcessUsage {
        measure(Path::new("/proc"), &self.members(group))
    }
}

/// Processes that end meanwhile have nothing open.
fn measure(proc: &Path, pids: &[i32]) -> ProcessUsage {
    // The one with the lowest number is the one that was there first, unless the numbers began anew meanwhile.
    let first = pids.iter().min().and_then(|pid| fs::read_to_string(proc.join(format!("{pid}/limits"))).ok());
    let mut usage = ProcessUsage {
        processes: pids.len() as u64,
        open_files: first.and_then(|limits| open_files(&limits)),
        ..ProcessUsage::default()
    };
    let open = pids.iter().filter_map(|pid| fs::read_dir(proc.join(format!("{pid}/fd"))).ok());
    for descriptor in open.flatten().flatten() {
        usage.descriptors += 1;
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        usage.sockets += u64::from(target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
    }
    usage
}

/// The soft limit of open files (proc_pid_limits(5)).
fn open_files(limits: &str) -> Option<Ulimit> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(Ulimit::Unlimited),
        number => number.parse().ok().map(Ulimit::Limited),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                          Max processes             96365                96365                processes \n\
                          Max open files            20000                1048576              files     \n";

    #[test]
    fn sockets_are_among_what_is_open() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, targets) in [(12, &["/dev/null", "socket:[81]", "pipe:[5]"][..]), (7, &["socket:[82]", "/socket:"])] {
            let dir = proc.path().join(format!("{pid}/fd"));
            fs::create_dir_all(&dir).unwrap();
            for (number, target) in targets.iter().enumerate() {
                symlink(target, dir.join(number.to_string())).unwrap();
            }
        }
        fs::write(proc.path().join("7/limits"), LIMITS).unwrap();
        let expected = ProcessUsage { processes: 3, descriptors: 5, sockets: 2, open_files: Some(Ulimit::Limited(20_000)) };
        // One has ended meanwhile.
        assert_eq!(measure(proc.path(), &[12, 7, 99]), expected);
        assert_eq!(measure(proc.path(), &[]), ProcessUsage::default());
    }

    #[test]
    fn limits_of_the_first_process() {
        for (limits, expected) in [
            (LIMITS, Some(Ulimit::Limited(20_000))),
            ("Max open files            unlimited            unlimited            files \n", Some(Ulimit::Unlimited)),
            ("Max open files\n", None),
            ("", None),
        ] {
            assert_eq!(open_files(limits), expected, "{limits}");
        }
    }

    /// The kernel's own files.
    #[test]
    fn this_process_has_something_open() {
        let _socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = measure(Path::new("/proc"), &[i32::try_from(std::process::id()).unwrap()]);
        assert!(own.processes == 1 && own.descriptors > own.sockets && own.sockets >= 1 && own.open_files.is_some(), "{own:?}");
    }
}
