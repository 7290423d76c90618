//! The shim's loop: one thread, `poll`, everything non-blocking.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signalfd::SignalFd;

use super::conn::{Conn, Role};
use super::protocol::{Event, Failure, Kind, Reply, Request, ShimConfig};
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
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) tasks: BTreeMap<u64, Task>,
    /// The last number that a connection or task got.
    pub(super) next: u64,
    /// Ends of processes whose helper has not told of them yet.
    pub(super) early: HashMap<i32, i32>,
    /// Ends that could not be written down.
    pub(super) unsaved: Vec<Event>,
    pub(super) stopping: bool,
}

impl Server {
    pub(super) fn new(config: ShimConfig, dir: PathBuf, listener: UnixListener, signals: SignalFd) -> Self {
        let cgroups = Cgroups::detect().ok();
        let (conns, tasks, early, unsaved) = Default::default();
        Self { config, dir, listener, signals, cgroups, conns, tasks, next: 0, early, unsaved, stopping: false }
    }

    /// Serves until it is told to shut down.
    pub(super) fn run(&mut self) -> io::Result<()> {
        while !(self.stopping && self.tasks.is_empty() && !self.conns.values().any(Conn::has_output)) {
            let (sources, mut fds) = self.interests();
            let abandoned = self.tasks.values().filter_map(Task::left);
            let wait = self.next_quiet().into_iter().chain(abandoned).min().map_or(-1, |left| left.as_millis() as i32 + 1);
            // SAFETY: a valid array of pollfd with its length.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, wait) };
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
            self.tasks.values_mut().filter(|task| task.left() == Some(Duration::ZERO)).for_each(Task::close_streams);
            self.finish_quiet();
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
            let blocked = self.is_blocked(task);
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
                    (Kind::StdinEnd, _) if stdin && ends_with_sender(task, owner) => task.end_stdin(),
                    // The container's input stays open for others: who has no more of it is done.
                    (Kind::StdinEnd, _) if stdin => {
                        conn.send(Kind::Exit, &0_i32.to_be_bytes());
                        conn.closing = true;
                    }
                    (Kind::Resize, &[a, b, c, d]) => task.resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
                    (Kind::Kill, _) if owner => task.signal(libc::SIGKILL),
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
            Request::Watch => return self.watch(id),
            Request::Kill { id: container, signal, all } => self.kill(&container, signal, all),
            Request::ReopenLog { id: container } => self.reopen_log(&container),
            Request::Shutdown => {
                self.stopping = true;
                self.tasks.values_mut().filter(|task| task.status.is_none()).for_each(|task| task.signal(libc::SIGKILL));
                Reply::Ok
            }
        };
        self.reply(id, &reply);
    }

    /// Whether somebody who takes the output of the task has more than enough to read.
    pub(super) fn is_blocked(&self, task: &Task) -> bool {
        task.attached.iter().any(|conn| self.conns.get(conn).is_some_and(Conn::is_full))
    }

    pub(super) fn set_role(&mut self, id: u64, role: Role) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.role = role;
        }
    }

    pub(super) fn reply(&mut self, id: u64, reply: &Reply) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.reply(reply);
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
            if owner && task.is_bound() {
                task.close_streams();
                task.signal(libc::SIGKILL);
            } else if owner {
                task.abandon(stdin);
            } else if stdin && ends_with_sender(task, false) {
                task.end_stdin();
            }
        }
    }
}

/// Standard input of an exec ends with its sender's; that of a container only if it asked for `stdinOnce`.
fn ends_with_sender(task: &Task, owner: bool) -> bool {
    owner || matches!(&task.role, task::Role::Container { request, .. } if request.stdin_once)
}

pub(super) fn other(message: String) -> Reply {
    Reply::Error { kind: Failure::Other, message }
}

pub(super) fn not_running(container: &str) -> Reply {
    Reply::Error { kind: Failure::NotFound, message: format!("running container {container}") }
}
