//! What programs have left running in their process groups when they ended. A helper that was started once is let be; a program that leaves
//! one at every run gathers no more than a few.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::sync::LazyLock;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::stat::field;

/// Most groups of one program that are let be. The oldest goes for one more.
pub(super) const MOST: usize = 8;

/// A process by number and start: numbers are given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    started: u64,
}

/// A process group whose leader has ended.
#[derive(Debug)]
struct Group {
    leader: i32,
    members: Vec<Process>,
}

/// By program, the oldest group first.
static LEFT: LazyLock<Mutex<HashMap<OsString, VecDeque<Group>>>> = LazyLock::new(Mutex::default);

/// Group and start of a process; none of one that has ended.
fn look(pid: i32) -> Option<(i32, Process)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let has_ended = stat.rsplit_once(')').is_none_or(|(_, after)| after.trim_start().starts_with(['Z', 'X']));
    if has_ended {
        return None;
    }
    Some((i32::try_from(field(&stat, 5)?).ok()?, Process { pid, started: field(&stat, 22)? }))
}

impl Group {
    /// What is in the group now.
    fn read(leader: i32) -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let members = pids.filter_map(look).filter(|(group, _)| *group == leader).map(|(_, process)| process);
        Self { leader, members: members.collect() }
    }

    /// Whether one that was there is there still: so long the number of the group is not another's.
    fn is_there(&self) -> bool {
        self.members.iter().any(|known| look(known.pid) == Some((self.leader, *known)))
    }

    fn end(self) {
        if self.is_there() {
            let _ = killpg(Pid::from_raw(self.leader), Signal::SIGKILL);
        }
    }
}

/// A run of the program has ended by itself, and so has this leader of a group. Blocking.
pub(super) fn remember(program: &OsStr, leader: i32) {
    // With nobody in it, there is no such group.
    if killpg(Pid::from_raw(leader), None).is_err() {
        return;
    }
    let group = Group::read(leader);
    if group.members.is_empty() {
        return;
    }
    let mut left = LEFT.lock();
    let groups = left.entry(program.to_owned()).or_default();
    groups.retain(Group::is_there);
    groups.push_back(group);
    while groups.len() > MOST {
        let Some(oldest) = groups.pop_front() else { break };
        tracing::warn!(program = %program.display(), "a program leaves processes behind at every run; the oldest are ended");
        oldest.end();
    }
}
