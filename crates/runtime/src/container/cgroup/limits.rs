//! The limits of a group: which files of which controller have them, and what becomes of those that cannot be set.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::Path;

use super::{Cgroups, HUGE_PAGES};
use crate::api::Resources;

/// What becomes of a setting whose controller or file is not there. What the kernel refuses is an error in any case, as with runc: what runs
/// in the group would have no limit, at the expense of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Somebody asked for it: an error. (containerd starts containers without their limit of huge pages, unless
    /// `tolerate_missing_hugetlb_controller` is false.)
    Asked,
    /// Every group has it, or it says that there is no limit: it is left out. The node says at its start which controllers it lacks.
    Usual,
}

/// A file of a group, and what it is to have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    controller: &'static str,
    file: Cow<'static, str>,
    value: String,
    need: Need,
}

impl Setting {
    fn new(need: Need, controller: &'static str, file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Self { controller, file: file.into(), value: value.to_string(), need }
    }

    fn asked(controller: &'static str, file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Self::new(Need::Asked, controller, file, value)
    }

    fn usual(controller: &'static str, file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Self::new(Need::Usual, controller, file, value)
    }
}

/// The limit, where there is one.
fn some(limit: Option<i64>) -> Option<i64> {
    limit.filter(|limit| *limit > 0)
}

impl Cgroups {
    /// The one way by which limits are written, whatever they are of and whenever they are set.
    pub(super) fn write(&self, group: &str, settings: Vec<Setting>) -> io::Result<()> {
        for Setting { controller, file, value, need } in settings {
            let missing = || io::Error::new(io::ErrorKind::NotFound, format!("the {controller} cgroup controller is missing"));
            let written = match self.dir(controller, group) {
                Some(dir) => set(&dir.join(&*file), &value),
                None => Err(missing()),
            };
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && need == Need::Usual => {
                    tracing::debug!(group, %file, value, %error, "a limit cannot be set");
                }
                Err(error) => {
                    let has_none = error.kind() == io::ErrorKind::NotFound && !self.has(controller);
                    let why = if has_none { missing() } else { error };
                    return Err(io::Error::new(why.kind(), format!("{file} of {group} to {value}: {why}")));
                }
            }
        }
        Ok(())
    }

    /// The settings of a new group.
    pub(super) fn settings(&self, limits: &Resources) -> Vec<Setting> {
        let mut settings = self.cpu(limits);
        let memory = if self.unified { "memory.max" } else { "memory.limit_in_bytes" };
        settings.extend(some(limits.memory_limit).map(|limit| Setting::asked("memory", memory, limit)));
        settings.extend(some(limits.pids_limit).map(|limit| Setting::usual("pids", "pids.max", limit)));
        settings.extend(self.huge_pages(limits));
        settings
    }

    fn cpu(&self, limits: &Resources) -> Vec<Setting> {
        let mut settings = Vec::new();
        let period = limits.cpu_period.filter(|period| *period > 0).unwrap_or(100_000);
        let shares = limits.cpu_shares.filter(|shares| *shares > 0);
        match (some(limits.cpu_quota), self.unified) {
            (None, _) => {}
            (Some(quota), true) => settings.push(Setting::asked("cpu", "cpu.max", format!("{quota} {period}"))),
            (Some(quota), false) => {
                settings.push(Setting::asked("cpu", "cpu.cfs_period_us", period));
                settings.push(Setting::asked("cpu", "cpu.cfs_quota_us", quota));
            }
        }
        settings.extend(shares.map(|shares| match self.unified {
            true => Setting::usual("cpu", "cpu.weight", weight(shares)),
            false => Setting::usual("cpu", "cpu.shares", shares),
        }));
        settings
    }

    /// What is mapped is charged when it is used, what is reserved before; the files of the latter are newer than those of the former. All
    /// pods have a limit of none for the sizes that they do not ask for.
    fn huge_pages(&self, limits: &Resources) -> Vec<Setting> {
        let suffix = if self.unified { "max" } else { "limit_in_bytes" };
        let of = |(size, limit): (&String, &u64)| {
            let need = if *limit > 0 { Need::Asked } else { Need::Usual };
            let used = Setting::new(need, HUGE_PAGES, format!("hugetlb.{size}.{suffix}"), limit);
            [used, Setting::usual(HUGE_PAGES, format!("hugetlb.{size}.rsvd.{suffix}"), limit)]
        };
        limits.huge_pages.iter().flat_map(of).collect()
    }

    /// Changes CPU and memory of a group whose processes run; what has no limit any more is set free. Memory below what is in use is
    /// refused: with version 2 the kernel would kill, and with version 1 it would refuse only what it cannot take back.
    pub(crate) fn update(&self, group: &str, limits: &Resources) -> io::Result<()> {
        let memory = some(limits.memory_limit);
        self.check_memory(group, memory)?;
        let mut settings = self.cpu_updates(limits);
        settings.extend(self.memory_updates(group, memory)?);
        self.write(group, settings)
    }

    /// Makes a group above those of pods, or finds it with what runs there, and sets its limits. Memory is refused as for [`Self::update`].
    pub(crate) fn limit(&self, group: &str, limits: &Resources) -> io::Result<()> {
        self.create(group, &Resources { memory_limit: None, ..limits.clone() })?;
        let memory = some(limits.memory_limit);
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

    /// Lets a group run on these processors only.
    pub(crate) fn pin(&self, group: &str, cpus: &str) -> io::Result<()> {
        self.write(group, vec![Setting::asked("cpuset", "cpuset.cpus", cpus)])
    }

    /// Sets CPU only, as it was recorded.
    pub(crate) fn set_cpu(&self, group: &str, limits: &Resources) -> io::Result<()> {
        self.write(group, self.cpu_updates(limits))
    }

    fn cpu_updates(&self, limits: &Resources) -> Vec<Setting> {
        let mut settings = self.cpu(limits);
        match (some(limits.cpu_quota), self.unified) {
            (Some(_), _) => {}
            (None, true) => settings.push(Setting::usual("cpu", "cpu.max", "max")),
            (None, false) => settings.push(Setting::usual("cpu", "cpu.cfs_quota_us", -1)),
        }
        settings
    }

    /// Memory and, where it is limited as well, memory with swap, which with version 1 may at no time be less.
    fn memory_updates(&self, group: &str, limit: Option<i64>) -> io::Result<Vec<Setting>> {
        let need = if limit.is_some() { Need::Asked } else { Need::Usual };
        let value = |none: &str| limit.map_or(none.to_owned(), |limit| limit.to_string());
        if self.unified {
            return Ok(vec![Setting::new(need, "memory", "memory.max", value("max"))]);
        }
        let mut settings = vec![Setting::new(need, "memory", "memory.limit_in_bytes", value("-1"))];
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
            settings.insert(usize::from(!grows), Setting::new(need, "memory", "memory.memsw.limit_in_bytes", value("-1")));
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
}

/// Writes a setting; a file that is not there is not made.
fn set(file: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).truncate(true).open(file)?.write_all(value.as_bytes())
}

/// Shares of version 1 (2 to 262144) as a weight of version 2 (1 to 10000); KEP-2254.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests;
