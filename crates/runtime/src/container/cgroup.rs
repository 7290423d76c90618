//! Control groups: version 2, or version 1 (also beside an empty version 2).

mod death;
mod limits;

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

    /// Whether the group is there.
    pub(crate) fn exists(&self, group: &str) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.mount.join(group).is_dir())
    }

    /// Makes the group everywhere and sets its limits.
    ///
    /// # Errors
    /// A limit that cannot be set (see [`limits::Need`]), by its file and value.
    pub(crate) fn create(&self, group: &str, limits: &Resources) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            fs::create_dir_all(hierarchy.mount.join(group))?;
            if self.unified {
                delegate(&hierarchy.mount, group)?;
            }
        }
        self.write(group, self.settings(limits))
    }

    /// The controllers that upstream's kubelet requires and this machine lacks.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        ["cpu", "cpuset", "memory", "pids"].into_iter().filter(|name| !self.has(name)).collect()
    }

    /// Whether the kernel limits huge pages here.
    pub(crate) fn limits_huge_pages(&self) -> bool {
        self.has(HUGE_PAGES)
    }

    /// Whether memory can be limited.
    pub(crate) fn limits_memory(&self) -> bool {
        self.has("memory")
    }

    /// Whether there is this controller.
    fn has(&self, controller: &str) -> bool {
        let of = |mount: &Path| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        let names = |hierarchy: &Hierarchy| of(&hierarchy.mount).split_whitespace().any(|name| name == controller);
        self.hierarchies.iter().any(|hierarchy| if self.unified { names(hierarchy) } else { hierarchy.has(controller) })
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
    /// being made, takes that wait (7 to 16 ms of a container's start) out of the way. The lock of all groups is held
    /// meanwhile, for which making a group waits: those that the start needs are made before.
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

    /// Whether swap can be limited in groups beside and below `group`, which is there. With version 2 the group at the root has no such file,
    /// and none has it where the kernel does not count swap (`swapaccount=0`).
    pub(crate) fn limits_swap(&self, group: &str) -> bool {
        let file = if self.unified { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
        self.dir("memory", group).is_some_and(|dir| dir.join(file).exists())
    }

    /// The processes of the group and of those below it, by one hierarchy that all of a container are in. It reads less than
    /// [`Self::processes`], and misses processes that are in one hierarchy only.
    pub(super) fn members(&self, group: &str) -> Vec<i32> {
        let mut pids = Vec::new();
        if let Some(dir) = ["pids", "cpu", "memory"].into_iter().find_map(|controller| self.dir(controller, group)) {
            collect(&dir, &mut pids);
        }
        pids
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
        let text = self.dir("memory", group).and_then(|dir| fs::read_to_string(dir.join(file)).ok());
        oom_kills(&text.unwrap_or_default())
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

/// See [`Cgroups::oom_kills`]: what its file says.
pub(super) fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok()).unwrap_or(0)
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

    /// Kernels that do not count swap have no file to limit it by, whatever they swap to.
    #[test]
    fn swap_is_limited_where_groups_have_the_file() {
        for (unified, file) in [(true, "memory.swap.max"), (false, "memory.memsw.limit_in_bytes")] {
            let mount = tempfile::tempdir().unwrap();
            let group = mount.path().join("k/pod");
            fs::create_dir_all(&group).unwrap();
            let hierarchy = Hierarchy { mount: mount.path().to_owned(), controllers: vec!["memory".to_owned()] };
            let cgroups = Cgroups { unified, hierarchies: vec![hierarchy] };
            assert!(!cgroups.limits_swap("k/pod"), "{file}");
            fs::write(group.join(file), "max").unwrap();
            assert!(cgroups.limits_swap("k/pod"), "{file}");
        }
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
}
