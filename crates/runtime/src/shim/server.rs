//! The shim's loop: one thread, `poll`, everything non-blocking.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use jiff::Timestamp;
use nix::sys::signalfd::SignalFd;

use super::conn::{Conn, Role};
use super::protocol::{
    DATA, Event, ExecSession, Failure, HelperResult, Kind, Reply, Request, ShimConfig, StartRequest, TaskState,
};
use super::task::{self, Task};
use crate::container::cgroup::Cgroups;

/// What a descriptor that is ready belongs to.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Conn(u64),
    Output(u64, usize),
    Stdin(u64),
    Console(u64),
}

/// A running shim.
pub(super) struct Server {
    pub(super) config: ShimConfig,
    pub(super) dir: PathBuf,
    pub(super) listener: UnixListener,
    pub(super) signals: SignalFd,
    pub(super) cgroups: Option<Cgroups>,
    conns: BTreeMap<u64, Conn>,
    tasks: BTreeMap<u64, Task>,
    next: u64,
    /// Ends of processes whose helper has not told of them yet.
    early: HashMap<i32, i32>,
    stopping: bool,
}

impl Server {
    pub(super) fn new(config: ShimConfig, dir: PathBuf, listener: UnixListener, signals: SignalFd) -> Self {
        let cgroups = Cgroups::detect().ok();
        let (conns, tasks, early) = Default::default();
        Self { config, dir, listener, signals, cgroups, conns, tasks, next: 0, early, stopping: false }
    }

    /// Serves until it is told to shut down.
    pub(super) fn run(&mut self) -> io::Result<()> {
        while !(self.stopping && self.tasks.is_empty() && !self.conns.values().any(Conn::has_output)) {
            let (sources, mut fds) = self.interests();
            // SAFETY: a valid array of pollfd with its length.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
            if ready < 0 {
                match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    error => return Err(error),
                }
            }
            for (source, fd) in sources.into_iter().zip(fds) {
                if fd.revents != 0 {
                    self.handle(source, fd.revents);
                }
            }
            self.sweep();
        }
        Ok(())
    }

    fn interests(&self) -> (Vec<Source>, Vec<libc::pollfd>) {
        let (mut sources, mut fds) = (Vec::new(), Vec::new());
        let mut add = |source: Source, fd: RawFd, events: i16| {
            sources.push(source);
            fds.push(libc::pollfd { fd, events, revents: 0 });
        };
        add(Source::Signals, self.signals.as_raw_fd(), libc::POLLIN);
        add(Source::Listener, self.listener.as_raw_fd(), libc::POLLIN);
        for (id, conn) in &self.conns {
            let stdin_full = match conn.role {
                Role::Session { task, .. } => self.tasks.get(&task).is_some_and(|task| !task.takes_stdin()),
                _ => false,
            };
            let mut events = if stdin_full || conn.closing { 0 } else { libc::POLLIN };
            if conn.has_output() {
                events |= libc::POLLOUT;
            }
            add(Source::Conn(*id), conn.stream.as_raw_fd(), events);
        }
        for (id, task) in &self.tasks {
            let blocked = task.attached.iter().any(|conn| self.conns.get(conn).is_some_and(Conn::is_full));
            for stream in 0..2 {
                if let Some(fd) = task.output_fd(stream).filter(|_| !blocked) {
                    add(Source::Output(*id, stream), fd, libc::POLLIN);
                }
            }
            if let Some(fd) = task.stdin_fd() {
                add(Source::Stdin(*id), fd, libc::POLLOUT);
            }
            if let Some(fd) = task.console_fd() {
                add(Source::Console(*id), fd, libc::POLLIN);
            }
        }
        (sources, fds)
    }

    fn handle(&mut self, source: Source, events: i16) {
        match source {
            Source::Signals => {
                let _ = self.signals.read_signal();
                self.reap();
            }
            Source::Listener => {
                if let Ok((stream, _)) = self.listener.accept()
                    && let Ok(conn) = Conn::new(stream)
                {
                    self.next += 1;
                    self.conns.insert(self.next, conn);
                }
            }
            Source::Conn(id) => self.serve(id, events),
            Source::Output(id, stream) => {
                self.pump(id, stream);
            }
            Source::Stdin(id) => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.flush_stdin();
                }
            }
            Source::Console(id) => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.advance_console();
                }
            }
        }
    }

    fn serve(&mut self, id: u64, events: i16) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if events & libc::POLLOUT != 0 {
            conn.flush();
        }
        if events & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0 && !conn.closing {
            conn.fill();
        } else if events & (libc::POLLHUP | libc::POLLERR) != 0 {
            conn.dead = true;
        }
        while let Some((kind, payload)) = self.conns.get_mut(&id).and_then(Conn::frame) {
            self.frame(id, kind, &payload);
        }
    }

    fn frame(&mut self, id: u64, kind: Kind, payload: &[u8]) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match (conn.role, kind) {
            (Role::New, Kind::Request) => match serde_json::from_slice(payload) {
                Ok(request) => self.request(id, request),
                Err(error) => conn.reply(&other(format!("request: {error}"))),
            },
            (Role::Session { task, owner, stdin, .. }, kind) => {
                let Some(task) = self.tasks.get_mut(&task) else { return };
                match (kind, payload) {
                    (Kind::Stdin, data) if stdin => task.push_stdin(data),
                    (Kind::StdinEnd, _) if stdin => end_stdin(task, owner),
                    (Kind::Resize, &[a, b, c, d]) => task.resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
                    (Kind::Kill, _) if owner => kill_session(task),
                    _ => {}
                }
            }
            _ => conn.dead = true,
        }
    }

    fn request(&mut self, id: u64, request: Request) {
        let reply = match request {
            Request::Start(start) => return self.start(id, start),
            Request::Exec(session) => return self.exec(id, session),
            Request::Attach { container, stdin, stdout, stderr } => {
                return self.attach(id, &container, stdin, [stdout, stderr]);
            }
            Request::Watch => {
                self.set_role(id, Role::Watch);
                Reply::Ok
            }
            Request::Kill { id: container, signal, all } => self.kill(&container, signal, all),
            Request::Shutdown => {
                self.stopping = true;
                for task in self.tasks.values().filter(|task| task.status.is_none()) {
                    kill_session(task);
                }
                Reply::Ok
            }
        };
        self.reply(id, &reply);
    }

    fn set_role(&mut self, id: u64, role: Role) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.role = role;
        }
    }

    fn reply(&mut self, id: u64, reply: &Reply) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.reply(reply);
        }
    }

    fn start(&mut self, id: u64, request: StartRequest) {
        if self.running(&request.id).is_some() {
            return self.reply(id, &other(format!("container {} is running", request.id)));
        }
        self.set_role(id, Role::Control);
        self.next += 1;
        match Task::container(&self.config, &self.dir, self.next, request) {
            Ok(mut task) => {
                task.starter = Some(id);
                self.tasks.insert(self.next, task);
            }
            Err(error) => self.reply(id, &Reply::Error { kind: Failure::Create, message: error.to_string() }),
        }
    }

    fn exec(&mut self, id: u64, session: ExecSession) {
        let target = self.running(&session.container).and_then(|number| self.tasks[&number].target());
        let Some(target) = target else { return self.reply(id, &not_running(&session.container)) };
        let (stdin, outputs) = (session.stdin, [session.stdout, session.stderr]);
        self.next += 1;
        match Task::exec(&self.config, &self.dir, self.next, session, target) {
            Ok(mut task) => {
                task.starter = Some(id);
                task.attached.push(id);
                self.tasks.insert(self.next, task);
                self.set_role(id, Role::Session { task: self.next, owner: true, stdin, outputs });
            }
            Err(error) => self.reply(id, &other(format!("exec: {error}"))),
        }
    }

    fn attach(&mut self, id: u64, container: &str, stdin: bool, outputs: [bool; 2]) {
        let Some(number) = self.running(container) else { return self.reply(id, &not_running(container)) };
        self.set_role(id, Role::Session { task: number, owner: false, stdin, outputs });
        if let Some(task) = self.tasks.get_mut(&number) {
            task.attached.push(id);
        }
        self.reply(id, &Reply::Ok);
    }

    fn kill(&mut self, container: &str, signal: i32, all: bool) -> Reply {
        let Some(task) = self.running(container).and_then(|number| self.tasks.get(&number)) else {
            return not_running(container);
        };
        if let (true, Some(cgroups), task::Role::Container { request, .. }) = (all, &self.cgroups, &task.role) {
            for pid in cgroups.processes(&request.cgroup) {
                send_signal(pid, signal);
            }
        }
        if let Some(pid) = task.pid {
            send_signal(pid, signal);
        }
        Reply::Ok
    }

    /// The number of the container's task, from its start to its end.
    fn running(&self, container: &str) -> Option<u64> {
        self.tasks.iter().find(|(_, task)| task.is_container() && task.container_id() == container).map(|(number, _)| *number)
    }

    fn reap(&mut self) {
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
            } else if let Some(task) = self.tasks.values_mut().find(|task| task.pid == Some(pid)) {
                task.status = Some(status);
            } else if self.tasks.values().any(|task| task.helper.is_some()) {
                self.early.insert(pid, status);
            }
        }
        if !self.tasks.values().any(|task| task.helper.is_some()) {
            self.early.clear();
        }
        let ended: Vec<u64> = self.tasks.iter().filter(|(_, task)| task.status.is_some()).map(|(number, _)| *number).collect();
        for number in ended {
            self.finish(number);
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
                task.pid = Some(pid);
                task.status = self.early.remove(&pid);
                task.state = TaskState { pid: Some(pid as u32), started: Some(Timestamp::now()), ..TaskState::default() };
                None
            }
            Some(HelperResult::Failed { kind, message }) => Some((kind, message)),
            None => Some((Failure::Create, format!("the OCI helper ended without a result (wait status {status})"))),
        };
        let starter = task.starter.take();
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
        if let Some(id) = starter {
            self.reply(id, &reply);
        }
    }

    /// Moves one buffer of output; false when there was none.
    fn pump(&mut self, number: u64, stream: usize) -> bool {
        let mut buffer = [0; DATA];
        let Some(task) = self.tasks.get_mut(&number) else { return false };
        let Some(count) = task.read_output(stream, &mut buffer) else { return false };
        let data = &buffer[..count];
        if let task::Role::Container { log, .. } = &mut task.role {
            // A full disk costs the log, not the container.
            let _ = log.write(stream, data, Timestamp::now());
        }
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

    /// A process ended: hands out the rest of its output, then its end.
    fn finish(&mut self, number: u64) {
        if let Some(task) = self.tasks.get_mut(&number) {
            task.advance_console();
        }
        for stream in 0..2 {
            while self.pump(number, stream) {}
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
            write_state(&task);
            self.announce(&task);
        }
        for id in &task.attached {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.send(Kind::Exit, &code.to_be_bytes());
                conn.closing = true;
            }
        }
    }

    fn announce(&mut self, task: &Task) {
        let event = Event { container: task.container_id().to_owned(), state: task.state.clone() };
        let payload = serde_json::to_vec(&event).unwrap_or_default();
        for conn in self.conns.values_mut().filter(|conn| conn.role == Role::Watch) {
            conn.send(Kind::Event, &payload);
        }
    }

    /// Forgets connections that are done, and what they held.
    fn sweep(&mut self) {
        let gone: Vec<u64> = self.conns.iter().filter(|(_, conn)| conn.finished()).map(|(id, _)| *id).collect();
        for id in gone {
            let Some(conn) = self.conns.remove(&id) else { continue };
            let Role::Session { task, owner, stdin, .. } = conn.role else { continue };
            let Some(task) = self.tasks.get_mut(&task) else { continue };
            task.attached.retain(|attached| *attached != id);
            if owner {
                task.close_streams();
            } else if stdin {
                end_stdin(task, false);
            }
        }
    }
}

/// Standard input of an exec ends with its sender's; that of a container only if it asked for `stdinOnce`.
fn end_stdin(task: &mut Task, owner: bool) {
    let once = matches!(&task.role, task::Role::Container { request, .. } if request.stdin_once);
    if owner || once {
        task.end_stdin();
    }
}

fn kill_session(task: &Task) {
    if let Some(pid) = task.pid {
        // The command is the leader of its session: its children go with it.
        send_signal(-pid, libc::SIGKILL);
        send_signal(pid, libc::SIGKILL);
    }
}

fn send_signal(pid: i32, signal: i32) {
    // SAFETY: sends a signal; a pid that is gone is an error that does not matter.
    unsafe { libc::kill(pid, signal) };
}

/// Records the state. An end is flushed before anybody hears of it; that a container runs is no use after a crash.
fn write_state(task: &Task) {
    let task::Role::Container { request, .. } = &task.role else { return };
    let path = request.dir.join("state.json");
    let bytes = serde_json::to_vec(&task.state).unwrap_or_default();
    let result = match task.state.finished {
        Some(_) => crate::images::store::write_durably(&path, &bytes),
        None => crate::engine::write_bytes(&path, &bytes),
    };
    if let Err(error) = result {
        eprintln!("shim: {}: {error}", path.display());
    }
}

fn exit_of(status: i32) -> (i32, Option<i32>) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        return (128 + signal, Some(signal));
    }
    (libc::WEXITSTATUS(status), None)
}

fn reason(code: i32, oom: bool) -> &'static str {
    match code {
        0 => "Completed",
        _ if oom => "OOMKilled",
        _ => "Error",
    }
}

fn other(message: String) -> Reply {
    Reply::Error { kind: Failure::Other, message }
}

fn not_running(container: &str) -> Reply {
    Reply::Error { kind: Failure::NotFound, message: format!("container {container} is not running") }
}
