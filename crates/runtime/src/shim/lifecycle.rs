//! From a request to a process and to its end: the part of the shim's loop that knows of tasks.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::conn::{Conn, Role};
use super::protocol::{DATA, Event, ExecSession, Failure, HelperResult, Kind, Reply, StartRequest, TaskState};
use super::server::{Server, not_running, other};
use super::task::{self, Task, send_signal};

/// Most buffers of output that are taken from a process that has ended: more than pipes hold, so that only a process
/// that it left behind can write more.
const REST: usize = 64;

/// How long the session of a command that has ended waits for more from the children that have its outputs. What they have written before is
/// read in any case; the time is for those that end with the command, like the end of a pipeline, on a machine that is busy. containerd waits
/// for ever (`drain_exec_sync_io_timeout` is 0 unless set), so that who starts a daemon waits for its end; Docker waits two seconds.
const QUIET: Duration = Duration::from_secs(1);

impl Server {
    pub(super) fn start(&mut self, id: u64, request: StartRequest) {
        self.set_role(id, Role::Control);
        // An engine that was restarted asks again for what it had asked before.
        if let Some(task) = self.running(&request.id).and_then(|number| self.tasks.get_mut(&number)) {
            if task.helper.is_some() {
                return task.starters.push(id);
            }
            return self.reply(id, &Reply::Ok);
        }
        self.next += 1;
        match Task::container(&self.config, &self.dir, self.next, request) {
            Ok(mut task) => {
                task.starters.push(id);
                self.tasks.insert(self.next, task);
            }
            Err(error) => self.reply(id, &Reply::Error { kind: Failure::Create, message: error.to_string() }),
        }
    }

    pub(super) fn exec(&mut self, id: u64, session: ExecSession) {
        let target = self.running(&session.container).and_then(|number| self.tasks[&number].target());
        let Some(target) = target else { return self.reply(id, &not_running(&session.container)) };
        let (stdin, outputs) = (session.stdin, [session.stdout, session.stderr]);
        self.next += 1;
        match Task::exec(&self.config, &self.dir, self.next, session, target) {
            Ok(mut task) => {
                task.starters.push(id);
                task.attached.push(id);
                self.tasks.insert(self.next, task);
                self.set_role(id, Role::Session { task: self.next, owner: true, stdin, outputs });
            }
            Err(error) => self.reply(id, &other(format!("exec: {error}"))),
        }
    }

    pub(super) fn attach(&mut self, id: u64, container: &str, stdin: bool, outputs: [bool; 2]) {
        let Some(number) = self.running(container) else { return self.reply(id, &not_running(container)) };
        self.set_role(id, Role::Session { task: number, owner: false, stdin, outputs });
        if let Some(task) = self.tasks.get_mut(&number) {
            task.attached.push(id);
        }
        self.reply(id, &Reply::Ok);
    }

    pub(super) fn kill(&mut self, container: &str, signal: i32, all: bool) -> Reply {
        let Some(task) = self.running(container).and_then(|number| self.tasks.get_mut(&number)) else {
            return not_running(container);
        };
        if let (true, Some(cgroups), task::Role::Container { request, .. }) = (all, &self.cgroups, &task.role) {
            for pid in cgroups.processes(&request.cgroup) {
                send_signal(pid, signal);
            }
        }
        task.signal(signal);
        Reply::Ok
    }

    pub(super) fn reopen_log(&mut self, container: &str) -> Reply {
        let running = self.running(container).and_then(|number| self.tasks.get_mut(&number));
        let Some(Task { role: task::Role::Container { log, .. }, .. }) = running else { return not_running(container) };
        match log.reopen() {
            Ok(()) => Reply::Ok,
            Err(error) => Reply::Error { kind: Failure::Other, message: format!("the log of container {container}: {error}") },
        }
    }

    /// The number of the container's task, from its start to its end.
    fn running(&self, container: &str) -> Option<u64> {
        self.tasks.iter().find(|(_, task)| task.is_container() && task.container_id() == container).map(|(number, _)| *number)
    }

    pub(super) fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: waits for any child without blocking; the status is valid memory.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                break;
            }
            let helper = self.tasks.iter().find(|(_, task)| task.helper == Some(pid as u32)).map(|(number, _)| *number);
            if let Some(number) = helper {
                self.started(number, status);
            } else if let Some(task) = self.tasks.values_mut().find(|task| task.hooks == Some(pid as u32)) {
                task.hooks = None;
            } else if let Some(task) = self.tasks.values_mut().find(|task| task.pid == Some(pid)) {
                task.status = Some(status);
            } else if self.tasks.values().any(|task| task.helper.is_some()) {
                self.early.insert(pid, status);
            }
        }
        if !self.tasks.values().any(|task| task.helper.is_some()) {
            self.early.clear();
        }
        let is_over = |task: &Task| task.status.is_some() && task.hooks.is_none();
        let ended: Vec<u64> = self.tasks.iter().filter(|(_, task)| is_over(task)).map(|(number, _)| *number).collect();
        for number in ended {
            self.end(number);
        }
    }

    /// The helper of a task ended: its result says whether the process runs.
    fn started(&mut self, number: u64, status: i32) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        task.helper = None;
        let result = std::fs::read(&task.result).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        task.clean_up();
        let failure = match result {
            Some(HelperResult::Running { pid }) => {
                task.status = self.early.remove(&pid);
                task.begun(pid);
                task.state = TaskState { pid: Some(pid as u32), started: Some(Timestamp::now()), ..TaskState::default() };
                None
            }
            Some(HelperResult::Failed { kind, message }) => Some((kind, message)),
            None => Some((Failure::Create, format!("the OCI helper ended without a result (wait status {status})"))),
        };
        let starters = std::mem::take(&mut task.starters);
        let reply = match failure {
            None => {
                write_state(task);
                Reply::Ok
            }
            Some((kind, message)) => {
                self.tasks.remove(&number);
                Reply::Error { kind, message }
            }
        };
        for id in starters {
            self.reply(id, &reply);
        }
    }

    /// Moves one buffer of output; false when there was none.
    pub(super) fn pump(&mut self, number: u64, stream: usize) -> bool {
        let mut buffer = [0; DATA];
        let Some(task) = self.tasks.get_mut(&number) else { return false };
        let Some(count) = task.read_output(stream, &mut buffer) else { return false };
        let data = &buffer[..count];
        if let task::Role::Container { log, .. } = &mut task.role {
            // A full disk costs the log, not the container.
            let _ = log.write(stream, data, Timestamp::now());
        }
        task.quiet_since = task.quiet_since.map(|_| Instant::now());
        for id in &task.attached {
            if let Some(conn) = self.conns.get_mut(id)
                && let Role::Session { outputs, .. } = conn.role
                && outputs[stream]
            {
                conn.send([Kind::Stdout, Kind::Stderr][stream], data);
            }
        }
        true
    }

    /// A process ended. The session of a command ends with its streams, as containerd has it: what its children write goes to whoever
    /// started it (see `quiet`).
    fn end(&mut self, number: u64) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        task.advance_console();
        // What hooks have for its devices is over when its end is told: then their driver may give them to others.
        if task.is_container() && task.begin_hooks(&self.config) {
            return;
        }
        if task.is_container() || task.is_bound() {
            return self.finish(number);
        }
        if task.quiet_since.is_none() {
            task.quiet_since = Some(Instant::now());
            task.end_stdin();
        }
    }

    /// Ends sessions of commands that have ended: whose output has come to its end or is wanted by nobody, and those whose children
    /// have said nothing for too long.
    pub(super) fn finish_quiet(&mut self) {
        let quiet = |(number, task): (&u64, &Task)| (self.quiet(task)? == Duration::ZERO).then_some(*number);
        let ended: Vec<u64> = self.tasks.iter().filter_map(quiet).collect();
        for number in ended {
            self.finish(number);
        }
    }

    /// How long until the next session ends because nothing comes.
    pub(super) fn next_quiet(&self) -> Option<Duration> {
        self.tasks.values().filter_map(|task| self.quiet(task)).min()
    }

    /// How long the children of a command that has ended may be silent until its session ends. None while it runs, and while who
    /// reads has more than enough to read.
    fn quiet(&self, task: &Task) -> Option<Duration> {
        let since = task.quiet_since?;
        let wanted = |stream: usize| {
            task.attached
                .iter()
                .any(|id| matches!(self.conns.get(id), Some(Conn { role: Role::Session { outputs, .. }, .. }) if outputs[stream]))
        };
        if self.stopping || !(0..2).any(|stream| task.has_output(stream) && wanted(stream)) {
            return Some(Duration::ZERO);
        }
        (!self.is_blocked(task)).then(|| QUIET.saturating_sub(since.elapsed()))
    }

    /// A process ended: hands out the rest of its output, then its end.
    fn finish(&mut self, number: u64) {
        for stream in 0..2 {
            let _ = (0..REST).take_while(|_| self.pump(number, stream)).count();
        }
        let Some(mut task) = self.tasks.remove(&number) else { return };
        let Some(status) = task.status else { return };
        task.close_streams();
        let (code, signal) = exit_of(status);
        if let task::Role::Container { request, log } = &mut task.role {
            let _ = log.finish(Timestamp::now());
            let oom = self.cgroups.as_ref().is_some_and(|cgroups| cgroups.oom_kills(&request.cgroup) > 0);
            if let (true, Some(cgroups)) = (request.shared_pid, &self.cgroups) {
                for pid in cgroups.processes(&request.cgroup) {
                    send_signal(pid, libc::SIGKILL);
                }
            }
            task.state.finished = Some(Timestamp::now());
            task.state.exit_code = Some(code);
            task.state.signal = signal;
            task.state.reason = reason(code, oom).to_owned();
            let event = Event { container: request.id.clone(), state: task.state.clone() };
            if !write_state(&task) {
                self.unsaved.push(event.clone());
            }
            self.announce(&event);
        }
        for id in &task.attached {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.send(Kind::Exit, &code.to_be_bytes());
                conn.closing = true;
            }
        }
    }

    fn announce(&mut self, event: &Event) {
        let payload = serde_json::to_vec(event).unwrap_or_default();
        for conn in self.conns.values_mut().filter(|conn| conn.role == Role::Watch) {
            conn.send(Kind::Event, &payload);
        }
    }

    /// Begins to tell a connection of events; first of the ends that no file tells of.
    pub(super) fn watch(&mut self, id: u64) {
        self.set_role(id, Role::Watch);
        self.reply(id, &Reply::Ok);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        for event in &self.unsaved {
            conn.send(Kind::Event, &serde_json::to_vec(event).unwrap_or_default());
        }
    }
}

/// Records the state; false when the disk does not take it.
fn write_state(task: &Task) -> bool {
    let task::Role::Container { request, .. } = &task.role else { return true };
    let result = task.state.write(&request.dir);
    if let Err(error) = &result {
        eprintln!("shim: the state of container {}: {error}", request.id);
    }
    result.is_ok()
}

fn exit_of(status: i32) -> (i32, Option<i32>) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        return (128 + signal, Some(signal));
    }
    (libc::WEXITSTATUS(status), None)
}

/// Whoever of the container's processes it was that memory ran out for is told, also when the first one went on and ended well, as containerd does.
fn reason(code: i32, oom: bool) -> &'static str {
    match code {
        _ if oom => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_as_codes_and_reasons() {
        assert_eq!(exit_of(3 << 8), (3, None));
        assert_eq!(exit_of(libc::SIGKILL), (137, Some(libc::SIGKILL)));
        let check = |code, oom, expected| assert_eq!(reason(code, oom), expected);
        check(0, true, "OOMKilled");
        check(0, false, "Completed");
        check(137, true, "OOMKilled");
        check(1, false, "Error");
    }
}
