//! Control groups: version 2, or version 1 (also beside an empty version 2).

mod death;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::devices::Node;
use crate::api::Resources;

/// The controller of huge pages.
const HUGE_PAGES: &str = "hugetlb";

/// The hierarchies of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    unified: bool,
    /// Mount points with what they control; one with version 2.
    hierarchies: Vec<Hierarchy>,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    controllers: Vec<String>,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

impl Cgroups {
    /// Finds the hierarchies.
    pub(crate) fn detect() -> io::Result<Self> {
        let found = Self::parse(&fs::read_to_string("/proc/self/mountinfo")?);
        if found.hierarchies.is_empty() {
            return Err(io::Error::other("no cgroup file system is mounted below /sys/fs/cgroup"));
        }
        Ok(found)
    }

    /// Reads mountinfo (proc(5)). Version 1 wins when both are there: then it has the controllers.
    fn parse(mountinfo: &str) -> Self {
        let (mut v1, mut v2) = (Vec::<Hierarchy>::new(), Vec::new());
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
            if !mount.starts_with("/sys/fs/cgroup") {
                continue;
            }
            let controllers = options.split(',').filter(|o| !matches!(*o, "rw" | "ro" | "xattr")).map(str::to_owned).collect();
            match kind {
                "cgroup" if !v1.iter().any(|h| h.mount == mount) => v1.push(Hierarchy { mount, controllers }),
                "cgroup2" => v2.push(Hierarchy { mount, controllers }),
                _ => {}
            }
        }
        match v1.iter().any(|hierarchy| hierarchy.has("memory") || hierarchy.has("cpu")) {
            true => Self { unified: false, hierarchies: v1 },
            false => Self { unified: true, hierarchies: v2.into_iter().take(1).collect() },
        }
    }

    /// Whether this is version 2.
    pub(crate) fn unified(&self) -> bool {
        self.unified
    }

    /// The mounted hierarchies.
    pub(crate) fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    pub(super) fn dir(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let hierarchy = self.hierarchies.iter().find(|h| self.unified || h.has(controller))?;
        Some(hierarchy.mount.join(group))
    }

    /// Makes the group everywhere and sets its limits. One that the kernel refuses is an error, as with runc: what runs in the group would
    /// have no limit, at the expense of others. Where its controller is missing, that goes for limits of CPU time and memory, which somebody
    /// asked for; shares and a limit of processes have all pods, and the node says at its start which controllers it lacks.
    pub(crate) fn create(&self, group: &str, limits: &Resources) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            fs::create_dir_all(hierarchy.mount.join(group))?;
            if self.unified {
                delegate(&hierarchy.mount, group)?;
            }
        }
        for (controller, file, value) in self.settings(limits) {
            let missing = || io::Error::new(io::ErrorKind::NotFound, format!("the {controller} cgroup controller is missing"));
            let written = self.dir(controller, group).ok_or_else(missing).and_then(|dir| set(&dir.join(file), &value));
            match written {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !asked_for(file) => {
                    tracing::debug!(group, file, value, %error, "a limit cannot be set");
                }
                written => written.map_err(|error| failed(group, file, &value, &error))?,
            }
        }
        self.limit_huge_pages(group, limits)
    }

    /// What a group may have of huge pages. An amount that cannot be enforced is refused: the group would have no limit, at the expense of
    /// others that were promised theirs. (containerd starts it, unless `tolerate_missing_hugetlb_controller` is false.)
    fn limit_huge_pages(&self, group: &str, limits: &Resources) -> io::Result<()> {
        let suffix = if self.unified { "max" } else { "limit_in_bytes" };
        for (size, limit) in &limits.huge_pages {
            let dir = self.dir(HUGE_PAGES, group).filter(|_| self.has(HUGE_PAGES));
            let written = match dir.map(|dir| (dir.join(format!("hugetlb.{size}.{suffix}")), dir)) {
                None => Err(io::Error::other("the hugetlb cgroup controller is missing")),
                Some((file, dir)) => {
                    // What is mapped is charged when it is used, what is reserved before; the latter is newer than the former.
                    let reserved = dir.join(format!("hugetlb.{size}.rsvd.{suffix}"));
                    let reserved = if reserved.exists() { fs::write(reserved, limit.to_string()) } else { Ok(()) };
                    fs::write(file, limit.to_string()).and(reserved)
                }
            };
            match written {
                Ok(()) => {}
                Err(error) if *limit > 0 => {
                    let text = format!("huge pages of {size} cannot be limited to {limit} bytes on this node: {error}");
                    return Err(io::Error::new(error.kind(), text));
                }
                // Who asks for none is not told: so it is for all on such a node.
                Err(error) => tracing::debug!(group, size, %error, "huge pages cannot be limited"),
            }
        }
        Ok(())
    }

    /// The controllers that upstream's kubelet requires and this machine lacks.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        ["cpu", "cpuset", "memory", "pids"].into_iter().filter(|name| !self.has(name)).collect()
    }

    /// Whether the kernel limits huge pages here.
    pub(crate) fn limits_huge_pages(&self) -> bool {
        self.has(HUGE_PAGES)
    }

    /// Whether there is this controller.
    fn has(&self, controller: &str) -> bool {
        let of = |mount: &Path| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        let names = |hierarchy: &Hierarchy| of(&hierarchy.mount).split_whitespace().any(|name| name == controller);
        self.hierarchies.iter().any(|hierarchy| if self.unified { names(hierarchy) } else { hierarchy.has(controller) })
    }

    fn settings(&self, limits: &Resources) -> Vec<(&'static str, &'static str, String)> {
        let mut settings = Vec::new();
        let period = limits.cpu_period.filter(|p| *p > 0).unwrap_or(100_000);
        let quota = limits.cpu_quota.filter(|q| *q > 0);
        let memory = limits.memory_limit.filter(|m| *m > 0);
        let pids = limits.pids_limit.filter(|p| *p > 0);
        let shares = limits.cpu_shares.filter(|s| *s > 0);
        if self.unified {
            settings.extend(quota.map(|q| ("cpu", "cpu.max", format!("{q} {period}"))));
            settings.extend(shares.map(|s| ("cpu", "cpu.weight", weight(s).to_string())));
            settings.extend(memory.map(|m| ("memory", "memory.max", m.to_string())));
        } else {
            if let Some(quota) = quota {
                settings.push(("cpu", "cpu.cfs_period_us", period.to_string()));
                settings.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
            }
            settings.extend(shares.map(|s| ("cpu", "cpu.shares", s.to_string())));
            settings.extend(memory.map(|m| ("memory", "memory.limit_in_bytes", m.to_string())));
        }
        settings.extend(pids.map(|p| ("pids", "pids.max", p.to_string())));
        settings
    }

    /// Changes CPU and memory of a group whose processes run; what has no limit any more is set free. Memory below what is in use is
    /// refused: with version 2 the kernel would kill, and with version 1 it would refuse only what it cannot take back.
    pub(crate) fn update(&self, group: &str, limits: &Resources) -> io::Result<()> {
        let memory = limits.memory_limit.filter(|limit| *limit > 0);
        self.check_memory(group, memory)?;
        let mut settings = self.cpu_updates(limits);
        settings.extend(self.memory_updates(group, memory)?);
        self.write(group, settings)
    }

    /// Makes a group above those of pods, or finds it with what runs there, and sets its limits. Memory is refused as for [`Self::update`].
    pub(crate) fn limit(&self, group: &str, limits: &Resources) -> io::Result<()> {
        self.create(group, &Resources { memory_limit: None, ..limits.clone() })?;
        let memory = limits.memory_limit.filter(|limit| *limit > 0);
        if memory.is_none() {
            return Ok(());
        }
        self.check_memory(group, memory)?;
        self.write(group, self.memory_updates(group, memory)?)
    }

    fn check_memory(&self, group: &str, limit: Option<i64>) -> io::Result<()> {
        let Some(limit) = limit else { return Ok(()) };
        let used = self.memory_in_use(group)?;
        if used > limit {
            return Err(io::Error::other(format!("attempting to set memory limit ({limit}) below current usage ({used})")));
        }
        Ok(())
    }

    fn write(&self, group: &str, settings: Vec<(&'static str, &'static str, String)>) -> io::Result<()> {
        for (controller, file, value) in settings {
            let Some(dir) = self.dir(controller, group) else { continue };
            set(&dir.join(file), &value).map_err(|error| failed(group, file, &value, &error))?;
        }
        Ok(())
    }

    /// Lets a group run on these processors only.
    pub(crate) fn pin(&self, group: &str, cpus: &str) -> io::Result<()> {
        self.write(group, vec![("cpuset", "cpuset.cpus", cpus.to_owned())])
    }

    /// Sets CPU only, as it was recorded.
    pub(crate) fn set_cpu(&self, group: &str, limits: &Resources) -> io::Result<()> {
        self.write(group, self.cpu_updates(limits))
    }

    fn cpu_updates(&self, limits: &Resources) -> Vec<(&'static str, &'static str, String)> {
        let quota = limits.cpu_quota.filter(|quota| *quota > 0);
        let period = quota.and(limits.cpu_period);
        let cpu = Resources { cpu_quota: quota, cpu_period: period, cpu_shares: limits.cpu_shares, ..Resources::default() };
        let mut settings = self.settings(&cpu);
        match (quota, self.unified) {
            (Some(_), _) => {}
            (None, true) => settings.push(("cpu", "cpu.max", "max".to_owned())),
            (None, false) => settings.push(("cpu", "cpu.cfs_quota_us", "-1".to_owned())),
        }
        settings
    }

    /// Memory and, where it is limited as well, memory with swap, which with version 1 may at no time be less.
    fn memory_updates(&self, group: &str, limit: Option<i64>) -> io::Result<Vec<(&'static str, &'static str, String)>> {
        if self.unified {
            return Ok(vec![("memory", "memory.max", limit.map_or("max".to_owned(), |limit| limit.to_string()))]);
        }
        let value = limit.unwrap_or(-1).to_string();
        let mut settings = vec![("memory", "memory.limit_in_bytes", value.clone())];
        let Some(dir) = self.dir("memory", group) else { return Ok(settings) };
        let number = |file: &str| -> io::Result<Option<i64>> {
            match fs::read_to_string(dir.join(file)) {
                Ok(text) => Ok(text.trim().parse().ok()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        // What nobody has limited reads as the highest multiple of a page.
        let swap = number("memory.memsw.limit_in_bytes")?.filter(|swap| *swap < 1 << 62);
        if let Some(swap) = swap {
            let grows = limit.is_none_or(|limit| limit > swap);
            settings.insert(usize::from(!grows), ("memory", "memory.memsw.limit_in_bytes", value));
        }
        Ok(settings)
    }

    /// Bytes of memory that the kernel could not take back at once from the group and those below it.
    fn memory_in_use(&self, group: &str) -> io::Result<i64> {
        let Some(dir) = self.dir("memory", group) else { return Ok(0) };
        let (usage, cache) = match self.unified {
            true => ("memory.current", "inactive_file"),
            false => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        let usage: i64 = fs::read_to_string(dir.join(usage))?.trim().parse().unwrap_or(0);
        let stat = fs::read_to_string(dir.join("memory.stat"))?;
        let cache = stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse::<i64>().ok()).unwrap_or(0);
        Ok((usage - cache).max(0))
    }

    /// Keeps the group's processes from devices that containers have no business with, but for those that they are given. With
    /// version 1 the OCI runtime does that with the device controller.
    pub(crate) fn restrict_devices(&self, group: &str, given: &[Node]) -> io::Result<()> {
        match self.hierarchies.first().filter(|_| self.unified) {
            Some(hierarchy) => super::device_filter::restrict(&hierarchy.mount.join(group), given),
            None => Ok(()),
        }
    }

    /// The group to join for a command beside the process whose `/proc/PID/cgroup` is `groups`; none when that process is
    /// not in `group` or below it. With version 2 it is the process's own: when it has made groups below `group`, none may
    /// be joined that has children.
    pub(crate) fn entry_point(&self, groups: &str, group: &str) -> Option<String> {
        let below = |path: &str| {
            path.trim_start_matches('/').strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut paths = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        });
        if self.unified {
            return paths
                .find(|(names, path)| names.is_empty() && below(path))
                .map(|(_, path)| path.trim_start_matches('/').to_owned());
        }
        paths.any(|(names, path)| !names.is_empty() && below(path)).then(|| group.to_owned())
    }

    /// Moves this process, which has one thread, into the group. On version 1 by `tasks`: moving just the calling thread
    /// takes no lock, so there is nothing to wait for.
    pub(crate) fn join(&self, group: &str) -> io::Result<()> {
        let file = if self.unified { "cgroup.procs" } else { "tasks" };
        for hierarchy in &self.hierarchies {
            match fs::write(hierarchy.mount.join(group).join(file), "0") {
                // A hierarchy that the container is not in.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Prepares the kernel for moving a process into a group soon. Blocking, for some 10 ms.
    ///
    /// The first such move after a quiet time waits for an RCU grace period, because it takes the write side of a
    /// per-CPU lock; moves that follow at once do not. Moving this process to where it is already, while a sandbox is
    /// being made, takes that wait (7 to 16 ms of a container's start) out of the way.
    pub(crate) fn prepare_move(&self) {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
            let fits = |h: &&Hierarchy| {
                self.unified == controllers.is_empty() && controllers.split(',').all(|c| self.unified || h.has(c))
            };
            if let Some(hierarchy) = self.hierarchies.iter().find(fits) {
                let file = hierarchy.mount.join(group.trim_start_matches('/')).join("cgroup.procs");
                // Refused where this process sees no more than a part of the hierarchy: then starts are slower.
                let _ = fs::write(file, "0");
                return;
            }
        }
    }

    /// Whether swap can be limited.
    pub(crate) fn limits_swap(&self) -> bool {
        match self.unified {
            true => Path::new("/sys/fs/cgroup/memory.swap.max").exists() || Path::new("/proc/swaps").exists(),
            false => self.dir("memory", "memory.memsw.limit_in_bytes").is_some_and(|file| file.exists()),
        }
    }

    /// The processes of the group and of those below it.
    pub(crate) fn processes(&self, group: &str) -> Vec<i32> {
        let mut pids = Vec::new();
        for hierarchy in &self.hierarchies {
            collect(&hierarchy.mount.join(group), &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// How often the kernel's OOM killer struck in the group. On version 1 the file is read rather than its event awaited:
    /// the event fires before the count rises.
    pub(crate) fn oom_kills(&self, group: &str) -> u64 {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        let text = self.dir("memory", group).and_then(|dir| fs::read_to_string(dir.join(file)).ok()).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Removes the group with all below it. Its processes are dead.
    pub(crate) fn remove(&self, group: &str) -> io::Result<()> {
        let mut result = Ok(());
        for hierarchy in &self.hierarchies {
            result = result.and(remove_tree(&hierarchy.mount.join(group)));
        }
        result
    }
}

/// Version 2: the controllers must be handed down at every level.
fn delegate(mount: &Path, group: &str) -> io::Result<()> {
    let available = fs::read_to_string(mount.join("cgroup.controllers"))?;
    let mut dir = mount.to_owned();
    for part in Path::new(group) {
        for controller in ["cpu", "cpuset", "memory", "pids", "io", HUGE_PAGES] {
            if available.split_whitespace().any(|name| name == controller) {
                // Refused where processes sit in a group that is not a leaf; the limit that needs it says so later.
                let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        dir.push(part);
    }
    Ok(())
}

/// Whether a limit is one that somebody asked for; every pod has the others.
fn asked_for(file: &str) -> bool {
    file.starts_with("cpu.cfs_") || file == "cpu.max" || file.starts_with("memory.")
}

/// Writes a setting; a file that is not there is not made.
fn set(file: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).truncate(true).open(file)?.write_all(value.as_bytes())
}

fn failed(group: &str, file: &str, value: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{file} of {group} to {value}: {error}"))
}

/// Shares of version 1 (2 to 262144) as a weight of version 2 (1 to 10000); KEP-2254.
pub(crate) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn collect(dir: &Path, pids: &mut Vec<i32>) {
    if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    }
    for child in children(dir) {
        collect(&child, pids);
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    let mut attempts = 0;
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // The kernel lets go of a dead process a moment after it is seen dead, and there is no event for that.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempts < 200 => {
                attempts += 1;
                moment();
            }
            result => return result,
        }
    }
}

/// Waits a millisecond, for what the kernel tells of by no event.
fn moment() {
    // SAFETY: no descriptors are passed; this only waits.
    unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(pid: i32) -> Option<std::os::fd::OwnedFd> {
    // SAFETY: pidfd_open takes a pid and flags and gives a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    (fd >= 0).then(|| crate::images::tree::owned(fd as i32))
}

/// Waits until `fd` is readable.
pub(crate) fn wait_readable(fd: &std::os::fd::OwnedFd, timeout: Duration) {
    use std::os::fd::AsRawFd;
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&mut entry, 1, timeout.as_millis() as i32) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn version_one_wins_in_a_hybrid() {
        let hybrid = "26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                      27 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Cgroups::parse(hybrid);
        assert!(!found.unified);
        assert_eq!(found.dir("cpuacct", "a/b").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!(found.dir("pids", "a"), None);
        let unified = Cgroups::parse("25 1 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert!(unified.unified);
        assert_eq!(unified.dir("pids", "a").unwrap(), Path::new("/sys/fs/cgroup/a"));
    }

    #[test]
    fn commands_join_the_group_of_the_process() {
        let check = |unified: bool, groups: &str, expected: Option<&str>| {
            let cgroups = Cgroups { unified, hierarchies: vec![] };
            assert_eq!(cgroups.entry_point(groups, "k/pod/c").as_deref(), expected, "{groups}");
        };
        check(true, "0::/k/pod/c\n", Some("k/pod/c"));
        check(true, "0::/k/pod/c/init.scope\n", Some("k/pod/c/init.scope"));
        check(true, "0::/k/pod/c2\n", None);
        check(true, "0::/\n", None);
        check(false, "4:memory:/k/pod/c/sub\n3:cpu,cpuacct:/k/pod/c\n0::/\n", Some("k/pod/c"));
        check(false, "4:memory:/other\n0::/k/pod/c\n", None);
    }

    #[test]
    fn limits_become_settings() {
        let limits =
            Resources { cpu_quota: Some(50_000), memory_limit: Some(1 << 20), cpu_shares: Some(2), ..Default::default() };
        let two = Cgroups { unified: true, hierarchies: vec![] }.settings(&limits);
        assert_eq!(two[0], ("cpu", "cpu.max", "50000 100000".to_owned()));
        assert_eq!(two[1].2, "1");
        let one = Cgroups { unified: false, hierarchies: vec![] }.settings(&limits);
        assert_eq!(one.last().unwrap(), &("memory", "memory.limit_in_bytes", "1048576".to_owned()));
        assert_eq!((weight(2), weight(262_144), weight(1024)), (1, 10_000, 39));
    }

    /// What the kernel refuses is an error; without its controller a limit is one where somebody asked for it.
    #[test]
    fn a_limit_that_cannot_be_set_is_refused() {
        let memory = Resources { memory_limit: Some(1 << 20), ..Resources::default() };
        let processes = Resources { pids_limit: Some(10), ..Resources::default() };
        let check = |limits: &Resources, there: &[&str], refused: Option<&str>| {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("g")).unwrap();
            // A directory in the place of a file cannot be written, by whomever.
            for name in there {
                fs::create_dir(root.path().join("g").join(name)).unwrap();
            }
            let controllers = vec!["memory".to_owned(), "pids".to_owned()];
            let cgroups = Cgroups { unified: false, hierarchies: vec![Hierarchy { mount: root.path().to_owned(), controllers }] };
            assert_eq!(cgroups.missing(), ["cpu", "cpuset"]);
            let made = cgroups.create("g", limits).map_err(|error| error.to_string());
            assert_eq!(made.is_err(), refused.is_some(), "{made:?}");
            assert!(refused.is_none_or(|words| made.unwrap_err().starts_with(words)));
        };
        check(&memory, &["memory.limit_in_bytes"], Some("memory.limit_in_bytes of g to 1048576: Is a directory"));
        check(&processes, &["pids.max"], Some("pids.max of g to 10: Is a directory"));
        check(&memory, &[], Some("memory.limit_in_bytes of g to 1048576: No such file"));
        check(&processes, &[], None);
    }

    /// hugetlb of cgroup v2 and v1: `hugetlb.<size>.max`, `hugetlb.<size>.limit_in_bytes`, and the same of what is reserved.
    #[test]
    fn huge_pages_are_limited_where_the_kernel_can() {
        let check = |unified: bool, controllers: &str, files: &[&str], limit: u64, expected: Result<(), &str>| {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
            fs::create_dir(root.path().join("g")).unwrap();
            files.iter().for_each(|file| fs::write(root.path().join("g").join(file), "max").unwrap());
            let has = controllers.contains("hugetlb");
            let controllers = controllers.split(' ').map(str::to_owned).collect();
            let cgroups = Cgroups { unified, hierarchies: vec![Hierarchy { mount: root.path().to_owned(), controllers }] };
            let limits = Resources { huge_pages: [("2MB".to_owned(), limit)].into(), ..Resources::default() };
            let made = cgroups.create("g", &limits).map_err(|error| error.to_string());
            let refused = |why| format!("huge pages of 2MB cannot be limited to {limit} bytes on this node: {why}");
            assert_eq!(made, expected.map_err(refused));
            assert_eq!(cgroups.limits_huge_pages(), has);
            let texts = files.iter().map(|file| fs::read_to_string(root.path().join("g").join(file)).unwrap());
            assert!(texts.into_iter().all(|text| text == if has { limit.to_string() } else { "max".to_owned() }));
        };
        let missing = Err("the hugetlb cgroup controller is missing");
        check(true, "cpu hugetlb", &["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"], 4 << 20, Ok(()));
        check(true, "cpu memory", &["hugetlb.2MB.max"], 4 << 20, missing);
        check(true, "cpu memory", &["hugetlb.2MB.max"], 0, Ok(()));
        check(false, "hugetlb", &["hugetlb.2MB.limit_in_bytes"], 4 << 20, Ok(()));
        check(false, "memory", &["hugetlb.2MB.limit_in_bytes"], 4 << 20, missing);
        check(false, "memory", &[], 0, Ok(()));
    }

    fn memory_of(limit: i64) -> Resources {
        Resources { memory_limit: Some(limit), ..Resources::default() }
    }

    #[test]
    fn limits_of_a_group_change_in_an_order_that_the_kernel_takes() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, value: &str| fs::write(root.path().join("g").join(name), value).unwrap();
        fs::create_dir(root.path().join("g")).unwrap();
        let hierarchy = Hierarchy { mount: root.path().to_owned(), controllers: vec!["cpu".into(), "memory".into()] };
        let one = Cgroups { unified: false, hierarchies: vec![hierarchy] };
        for name in ["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes"] {
            file(name, "");
        }
        file("memory.usage_in_bytes", "1000");
        file("memory.stat", "inactive_file 5\ntotal_inactive_file 600\n");
        assert_eq!(one.memory_in_use("g").unwrap(), 400);
        let names = |limit: Option<i64>| -> Vec<&str> {
            one.memory_updates("g", limit).unwrap().into_iter().map(|(_, file, _)| file).collect()
        };
        let (memory, swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        assert_eq!(names(Some(500)), [memory]);
        file(swap, "9223372036854771712");
        assert_eq!(names(Some(500)), [memory]);
        file(swap, "1000");
        assert_eq!(names(Some(500)), [memory, swap]);
        assert_eq!(names(Some(2000)), [swap, memory]);
        assert_eq!(names(None), [swap, memory]);
        for refused in [one.update("g", &memory_of(399)), one.limit("g", &memory_of(399))] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.to_string(), "attempting to set memory limit (399) below current usage (400)");
        }
        one.update("g", &Resources { cpu_shares: Some(512), ..Default::default() }).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join("g").join(name)).unwrap();
        assert_eq!((read("cpu.cfs_quota_us"), read("cpu.shares"), read(memory)), ("-1".into(), "512".into(), "-1".into()));
        one.limit("g", &Resources { pids_limit: Some(7), ..memory_of(5000) }).unwrap();
        assert_eq!((read(memory), read("cpu.shares")), ("5000".into(), "512".into()));
        one.update("g", &Resources { cpu_quota: Some(5000), cpu_period: Some(10_000), ..Default::default() }).unwrap();
        assert_eq!((read("cpu.cfs_quota_us"), read("cpu.cfs_period_us")), ("5000".into(), "10000".into()));
    }
}
