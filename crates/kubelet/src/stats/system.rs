//! What belongs to no pod of its own, `systemContainers` of the summary: all pods together, and this process, which is the kubelet and the runtime.

use std::fs;

use base::stat::{self, TICKS};
use jiff::Timestamp;
use runtime::api::{CpuUsage, MemoryUsage, Usage};

/// One of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SystemUsage {
    /// As upstream names it: `pods` or `kubelet`.
    pub(crate) name: &'static str,
    pub(crate) started: Timestamp,
    pub(crate) usage: Usage,
}

impl SystemUsage {
    /// What stands for it where samples are compared.
    pub(crate) fn key(&self) -> String {
        format!("/{}", self.name)
    }

    /// All pods, in a group that was made when the machine or the node started.
    pub(crate) fn pods(started: Timestamp, usage: Usage) -> Self {
        Self { name: "pods", started, usage }
    }

    /// This process. `boot` is when the machine started. Blocking.
    pub(crate) fn kubelet(boot: Timestamp) -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let statm = fs::read_to_string("/proc/self/statm").ok()?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        process(&stat, &statm, u64::try_from(page).ok()?, boot)
    }
}

/// See proc_pid_stat(5) and proc_pid_statm(5).
fn process(stat: &str, statm: &str, page: u64, boot: Timestamp) -> Option<SystemUsage> {
    let field = |number| stat::field(stat, number);
    let [user, system] = [field(14)?, field(15)?].map(|ticks| ticks * (1_000_000_000 / TICKS));
    let mut pages = statm.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    let memory = MemoryUsage {
        usage: resident * page,
        working_set: resident * page,
        rss: resident.saturating_sub(shared) * page,
        page_faults: field(10)?,
        major_page_faults: field(12)?,
        ..MemoryUsage::default()
    };
    let started = boot + jiff::SignedDuration::from_millis(i64::try_from(field(22)? * (1000 / TICKS)).ok()?);
    let usage = Usage { cpu: CpuUsage { total: user + system, user, system, ..CpuUsage::default() }, memory, ..Usage::default() };
    Some(SystemUsage { name: "kubelet", started, usage })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_of_a_process() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1000 0 5 0 150 50 0 0 20 0 9 0 2000 1000000 300 18446744073709551615 1";
        let boot = Timestamp::from_second(1000).unwrap();
        let found = process(stat, "900 300 100 1 0 200 0", 4096, boot).unwrap();
        assert_eq!((found.name, found.started.as_second()), ("kubelet", 1020));
        assert_eq!((found.usage.cpu.total, found.usage.cpu.user), (2_000_000_000, 1_500_000_000));
        let memory = found.usage.memory;
        assert_eq!(
            (memory.working_set, memory.rss, memory.page_faults, memory.major_page_faults),
            (300 * 4096, 200 * 4096, 1000, 5)
        );
        assert_eq!(process("7 (a) S 1", "900 300 100", 4096, boot), None);
    }

    #[test]
    fn this_process_is_told_of() {
        let own = SystemUsage::kubelet(Timestamp::UNIX_EPOCH).unwrap();
        assert!(own.usage.memory.working_set > 1 << 20, "{own:?}");
    }
}
