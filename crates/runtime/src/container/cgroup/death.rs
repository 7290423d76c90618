//! Killing all processes of a group.
//!
//! A killed process needs CPU time to die. Processes that have used up the quota of their group get none, and a fork bomb uses up
//! every quota: it dies at once only if the quota is lifted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cgroups, children, moment, pidfd, wait_readable};

/// How long processes may take to be gone.
const DEATH: Duration = Duration::from_secs(30);
/// Of how many processes the end is awaited at once: each takes a descriptor.
const AWAITED: usize = 64;

impl Cgroups {
    /// Kills everything in the group and waits until it is dead. Blocking.
    pub(crate) fn kill(&self, group: &str) {
        if self.processes(group).is_empty() {
            return;
        }
        let _lifted = self.lift(group);
        let deadline = Instant::now() + DEATH;
        // A process may fork while the list is read: until none is left, but not for ever.
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let pids = self.kill_once(group);
            if pids.is_empty() {
                return;
            }
            let handles: Vec<_> = pids.into_iter().take(AWAITED).filter_map(pidfd).collect();
            if handles.is_empty() {
                moment();
            }
            for handle in handles {
                wait_readable(&handle, left.min(Duration::from_secs(2)));
            }
        }
        tracing::warn!(group, "processes of the cgroup do not die");
    }

    /// Sends SIGKILL to all in the group and below it; gives who was there.
    fn kill_once(&self, group: &str) -> Vec<i32> {
        let unified = self.hierarchies.first().filter(|_| self.unified).map(|hierarchy| hierarchy.mount.join(group));
        if let Some(dir) = &unified
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return self.processes(group);
        }
        // Frozen processes make no children. With version 1 they take the signal when they are thawed.
        let (freezer, [freeze, thaw]) = match unified {
            Some(dir) => (Some(dir.join("cgroup.freeze")), ["1", "0"]),
            None => (self.dir("freezer", group).map(|dir| dir.join("freezer.state")), ["FROZEN", "THAWED"]),
        };
        // A group without a freezer, or a kernel without one, makes for more rounds.
        let set = |state: &str| freezer.as_ref().is_some_and(|file| fs::write(file, state).is_ok());
        set(freeze);
        let pids = self.processes(group);
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        set(thaw);
        pids
    }

    /// Lifts the CPU quotas of the group, of what is below it and of the group above, until the result is dropped.
    fn lift(&self, group: &str) -> Lifted {
        let (file, free) = if self.unified { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
        let mut lifted = Lifted { free, quotas: Vec::new() };
        let above = Path::new(group).parent().and_then(Path::to_str).filter(|above| !above.is_empty());
        for dir in [above.and_then(|above| self.dir("cpu", above)), self.dir("cpu", group)].into_iter().flatten() {
            lifted.lift(&dir.join(file));
        }
        let mut below: Vec<PathBuf> = self.dir("cpu", group).iter().flat_map(|dir| children(dir)).collect();
        while let Some(dir) = below.pop() {
            lifted.lift(&dir.join(file));
            below.extend(children(&dir));
        }
        lifted
    }
}

/// Quotas that do not apply as long as this lives: files with what they said, from above to below.
struct Lifted {
    free: &'static str,
    quotas: Vec<(PathBuf, String)>,
}

impl Lifted {
    fn lift(&mut self, file: &Path) {
        match fs::read_to_string(file) {
            Ok(quota) if !quota.starts_with(self.free) => match fs::write(file, self.free) {
                Ok(()) => self.quotas.push((file.to_owned(), quota.trim().to_owned())),
                Err(error) => tracing::debug!(file = %file.display(), %error, "the CPU quota of what is killed cannot be lifted"),
            },
            _ => {}
        }
    }
}

impl Drop for Lifted {
    /// A quota below one that was changed meanwhile may be refused, and a group may be gone: then there is nothing to limit.
    fn drop(&mut self) {
        for (file, quota) in &self.quotas {
            if fs::read_to_string(file).is_ok_and(|now| now.starts_with(self.free)) {
                let _ = fs::write(file, quota);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Hierarchy;
    use super::*;

    #[test]
    fn quotas_are_lifted_and_come_back() {
        let check = |unified: bool, file: &str, limited: &str, free: &str| {
            let root = tempfile::tempdir().unwrap();
            let groups = ["kubepods", "kubepods/pod", "kubepods/pod/c", "kubepods/pod/c/below", "kubepods/pod/other"];
            let path = |group: &str| root.path().join(group).join(file);
            for group in groups {
                fs::create_dir(root.path().join(group)).unwrap();
                fs::write(path(group), limited).unwrap();
            }
            fs::write(path("kubepods/pod/c/below"), free).unwrap();
            let hierarchy = Hierarchy { mount: root.path().to_owned(), controllers: vec!["cpu".into()] };
            let cgroups = Cgroups { unified, hierarchies: vec![hierarchy] };
            let values = || groups.map(|group| fs::read_to_string(path(group)).unwrap());
            let lifted = cgroups.lift("kubepods/pod/c");
            let word = if unified { "max" } else { "-1" };
            assert_eq!(values(), [limited, word, word, free, limited]);
            // Somebody gives the pod another limit meanwhile.
            fs::write(path("kubepods/pod"), "7").unwrap();
            drop(lifted);
            assert_eq!(values(), [limited, "7", limited, free, limited]);
        };
        check(true, "cpu.max", "20000 100000", "max 100000");
        check(false, "cpu.cfs_quota_us", "20000", "-1");
    }
}
