//! A process that a shim looks after: the init of a container or an exec session, with its streams.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::log::LogWriter;
use super::protocol::{ExecSession, LAST, ShimConfig, StartRequest};
use crate::container::enter::Target;
use crate::container::helper::HelperRequest;

/// Bytes for standard input that wait for the process; then the sender waits.
const STDIN_LIMIT: usize = 64 << 10;

/// What kind of process it is.
pub(super) enum Role {
    Container {
        request: Box<StartRequest>,
        log: LogWriter,
    },
    /// `bound`: it ends with the connection that asked for it.
    Exec {
        container: String,
        bound: bool,
    },
}

/// How the terminal arrives from the container.
enum Console {
    None,
    Listening(UnixListener, PathBuf),
    Connected(UnixStream),
}

/// One process.
pub(super) struct Task {
    pub(super) role: Role,
    /// The helper that starts it, while it does.
    pub(super) helper: Option<u32>,
    pub(super) result: PathBuf,
    /// Files for the helper, to be removed after it.
    scratch: Vec<PathBuf>,
    pub(super) pid: Option<i32>,
    pub(super) state: super::protocol::TaskState,
    /// The raw wait status, once it ended.
    pub(super) status: Option<i32>,
    /// The helper that runs the hooks for its end, while it does.
    pub(super) hooks: Option<u32>,
    /// Since when nothing came of a command that has ended, while its children have its outputs open.
    pub(super) quiet_since: Option<Instant>,
    stdin: Option<fs::File>,
    stdin_buffer: Vec<u8>,
    stdin_ends: bool,
    /// Until when the streams stay open for a process whose client has gone.
    abandoned: Option<Instant>,
    /// Standard output (all of it, with a terminal) and standard error.
    outputs: [Option<fs::File>; 2],
    console: Console,
    size: Option<(u16, u16)>,
    /// Connections that take its output.
    pub(super) attached: Vec<u64>,
    /// The connections that wait to hear that it started.
    pub(super) starters: Vec<u64>,
    /// A signal that came before there was a process to get it.
    early_signal: Option<i32>,
}

impl Task {
    /// Starts the helper for a container.
    pub(super) fn container(config: &ShimConfig, dir: &Path, number: u64, request: StartRequest) -> io::Result<Self> {
        let log = LogWriter::open(&request.log, request.log_limit)
            .map_err(|error| io::Error::new(error.kind(), format!("log file {}: {error}", request.log.display())))?;
        let helper = HelperRequest {
            id: request.id.clone(),
            bundle: request.dir.clone(),
            process: None,
            target: None,
            console: None,
            oci_root: config.oci_root.clone(),
            runtime: config.runtime.clone(),
            users: config.users,
            result: dir.join(format!("result-{number}.json")),
            is_over: false,
        };
        let (tty, stdin) = (request.tty, request.stdin);
        Self::spawn(dir, number, helper, Role::Container { request: Box::new(request), log }, tty, stdin)
    }

    /// Starts the helper for a command in a container.
    pub(super) fn exec(config: &ShimConfig, dir: &Path, number: u64, session: ExecSession, target: Target) -> io::Result<Self> {
        let process = dir.join(format!("process-{number}.json"));
        fs::write(&process, &session.process)?;
        let helper = HelperRequest {
            id: session.container.clone(),
            bundle: PathBuf::new(),
            process: Some(process.clone()),
            target: Some(target),
            console: None,
            oci_root: config.oci_root.clone(),
            runtime: config.runtime.clone(),
            users: config.users,
            result: dir.join(format!("result-{number}.json")),
            is_over: false,
        };
        let role = Role::Exec { container: session.container, bound: session.bound };
        let mut task = Self::spawn(dir, number, helper, role, session.tty, session.stdin)?;
        task.scratch.push(process);
        Ok(task)
    }

    fn new(result: PathBuf, role: Role) -> Self {
        Self {
            role,
            helper: None,
            result,
            scratch: Vec::new(),
            pid: None,
            state: Default::default(),
            status: None,
            hooks: None,
            quiet_since: None,
            stdin: None,
            stdin_buffer: Vec::new(),
            stdin_ends: false,
            abandoned: None,
            outputs: [None, None],
            console: Console::None,
            size: None,
            attached: Vec::new(),
            starters: Vec::new(),
            early_signal: None,
        }
    }

    fn spawn(dir: &Path, number: u64, mut helper: HelperRequest, role: Role, tty: bool, stdin: bool) -> io::Result<Self> {
        let mut task = Self::new(helper.result.clone(), role);
        let mut streams = [Stdio::null(), Stdio::null(), Stdio::null()];
        if tty {
            // Relative to the working directory, which is `dir`: socket addresses are short.
            let name = PathBuf::from(format!("console-{number}.sock"));
            let _ = fs::remove_file(&name);
            let listener = UnixListener::bind(&name)?;
            listener.set_nonblocking(true)?;
            helper.console = Some(dir.join(&name));
            task.console = Console::Listening(listener, name);
        } else {
            if stdin {
                let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
                streams[0] = read.into();
                task.stdin = Some(nonblocking(write)?);
            }
            for stream in 0..2 {
                let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
                streams[stream + 1] = write.into();
                task.outputs[stream] = Some(nonblocking(read)?);
            }
        }
        let [input, output, error] = streams;
        let argument = serde_json::to_string(&helper)?;
        let child = program(&argument).stdin(input).stdout(output).stderr(error).spawn()?;
        task.helper = Some(child.id());
        Ok(task)
    }

    /// Begins the hooks for the end of a container; false when there are none, or they cannot run.
    pub(super) fn begin_hooks(&mut self, config: &ShimConfig) -> bool {
        let Role::Container { request, .. } = &mut self.role else { return false };
        if !std::mem::take(&mut request.poststop) {
            return false;
        }
        let helper = HelperRequest::over(&request.id, &request.dir, &config.oci_root);
        let begun = serde_json::to_string(&helper).map_err(io::Error::from);
        let begun = begun.and_then(|argument| program(&argument).stdin(Stdio::null()).stdout(Stdio::null()).spawn());
        match begun {
            Ok(child) => self.hooks = Some(child.id()),
            Err(error) => eprintln!("shim: hooks for the end of container {}: {error}", request.id),
        }
        self.hooks.is_some()
    }

    /// Removes the files that only the helper needed.
    pub(super) fn clean_up(&mut self) {
        for path in self.scratch.drain(..).chain([self.result.clone()]) {
            let _ = fs::remove_file(path);
        }
    }

    /// The container that this is about.
    pub(super) fn container_id(&self) -> &str {
        match &self.role {
            Role::Container { request, .. } => &request.id,
            Role::Exec { container, .. } => container,
        }
    }

    /// Where commands are executed, while it runs.
    pub(super) fn target(&self) -> Option<Target> {
        match (&self.role, self.pid) {
            (Role::Container { request, .. }, Some(pid)) => {
                Some(Target { pid, cgroup: request.cgroup.clone(), bundle: request.dir.clone() })
            }
            _ => None,
        }
    }

    pub(super) fn is_container(&self) -> bool {
        matches!(self.role, Role::Container { .. })
    }

    /// Whether it ends with the connection that asked for it.
    pub(super) fn is_bound(&self) -> bool {
        matches!(self.role, Role::Exec { bound: true, .. })
    }

    /// The helper has started the process; it gets the signal that came before it.
    pub(super) fn begun(&mut self, pid: i32) {
        self.pid = Some(pid);
        if let Some(signal) = self.early_signal.take().filter(|_| self.status.is_none()) {
            self.signal(signal);
        }
    }

    /// Sends a signal, as soon as there is a process. An executed command leads its session: its children get it too. One that has ended
    /// gets none: its number may be another's by now.
    pub(super) fn signal(&mut self, signal: i32) {
        match self.pid {
            _ if self.status.is_some() => {}
            // Nothing is gentler than SIGKILL, so that one stays.
            None if self.early_signal != Some(libc::SIGKILL) => self.early_signal = Some(signal),
            None => {}
            Some(pid) => {
                if !self.is_container() {
                    send_signal(-pid, signal);
                }
                send_signal(pid, signal);
            }
        }
    }

    /// The descriptor of an output stream that is worth waiting for. Output waits until the start was reported.
    pub(super) fn output_fd(&self, stream: usize) -> Option<RawFd> {
        self.pid?;
        self.outputs[stream].as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Whether somebody has an output stream open, or has left something in it.
    pub(super) fn has_output(&self, stream: usize) -> bool {
        self.outputs[stream].is_some()
    }

    /// The descriptor of standard input while something waits for it.
    pub(super) fn stdin_fd(&self) -> Option<RawFd> {
        (!self.stdin_buffer.is_empty()).then(|| self.stdin.as_ref().map(AsRawFd::as_raw_fd)).flatten()
    }

    /// The descriptor on which the terminal arrives.
    pub(super) fn console_fd(&self) -> Option<RawFd> {
        match &self.console {
            Console::None => None,
            Console::Listening(listener, _) => Some(listener.as_raw_fd()),
            Console::Connected(stream) => Some(stream.as_raw_fd()),
        }
    }

    /// Goes on with receiving the terminal.
    pub(super) fn advance_console(&mut self) {
        if let Console::Listening(listener, path) = &self.console
            && let Ok((stream, _)) = listener.accept()
        {
            let _ = fs::remove_file(path);
            let _ = stream.set_nonblocking(true);
            self.console = Console::Connected(stream);
        }
        if let Console::Connected(stream) = &self.console {
            match receive_fd(stream) {
                Ok(Some(master)) => {
                    self.console = Console::None;
                    self.set_terminal(master);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(None) | Err(_) => self.console = Console::None,
            }
        }
    }

    fn set_terminal(&mut self, master: OwnedFd) {
        let Ok(file) = nonblocking(master) else { return };
        self.stdin = file.try_clone().ok();
        self.outputs[0] = Some(file);
        if let Some((columns, rows)) = self.size {
            self.resize(columns, rows);
        }
    }

    /// Sets the size of the terminal, or remembers it for when there is one.
    pub(super) fn resize(&mut self, columns: u16, rows: u16) {
        self.size = Some((columns, rows));
        if let Some(master) = &self.stdin {
            let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            // SAFETY: TIOCSWINSZ reads a winsize. On a pipe it fails, which is as good.
            unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        }
    }

    /// Reads what an output stream has, at most `buffer`. None when there is nothing now, empty at its end.
    pub(super) fn read_output(&mut self, stream: usize, buffer: &mut [u8]) -> Option<usize> {
        let file = self.outputs[stream].as_mut()?;
        match file.read(buffer) {
            Ok(count) if count > 0 => Some(count),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            // EIO is how a terminal says that nobody has it open any more.
            _ => {
                self.outputs[stream] = None;
                None
            }
        }
    }

    /// Whether standard input takes more.
    pub(super) fn takes_stdin(&self) -> bool {
        self.stdin_buffer.len() < STDIN_LIMIT
    }

    /// Queues data for standard input.
    pub(super) fn push_stdin(&mut self, data: &[u8]) {
        // Without a reader it goes nowhere, as with a closed pipe; a terminal that is still to come gets it.
        if self.stdin.is_some() || !matches!(self.console, Console::None) {
            self.stdin_buffer.extend_from_slice(data);
            self.flush_stdin();
        }
    }

    /// Ends standard input after what is queued.
    pub(super) fn end_stdin(&mut self) {
        self.stdin_ends = true;
        self.flush_stdin();
    }

    /// Writes as much of the queue as the process takes.
    pub(super) fn flush_stdin(&mut self) {
        while let Some(stdin) = &mut self.stdin
            && !self.stdin_buffer.is_empty()
        {
            match stdin.write(&self.stdin_buffer) {
                Ok(count) => drop(self.stdin_buffer.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.stdin_buffer.clear();
                    self.stdin = None;
                }
            }
        }
        // A terminal stays open: the same descriptor reads its output and sets its size.
        if self.stdin_ends && self.stdin_buffer.is_empty() {
            match self.is_terminal() {
                false => self.stdin = None,
                true if self.abandoned.is_some() => self.close_streams(),
                true => {}
            }
        }
    }

    /// The client has gone. What it has said before is still for the process, which upstream's runtimes let go on. Its output is thrown
    /// away meanwhile: what it says of its input shall not end it. A terminal only waits for what is not written to it yet.
    pub(super) fn abandon(&mut self, had_stdin: bool) {
        self.abandoned = had_stdin.then(|| Instant::now() + LAST);
        self.end_stdin();
        if self.abandoned.is_none() || (self.is_terminal() && self.stdin_buffer.is_empty()) {
            self.close_streams();
        }
    }

    /// How long the streams stay open for a process whose client has gone.
    pub(super) fn left(&self) -> Option<Duration> {
        self.abandoned.map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn is_terminal(&self) -> bool {
        self.stdin.as_ref().is_some_and(IsTerminal::is_terminal)
    }

    /// Lets go of all streams: the process gets SIGHUP from a terminal, SIGPIPE from a pipe.
    pub(super) fn close_streams(&mut self) {
        self.abandoned = None;
        self.stdin = None;
        self.stdin_buffer.clear();
        self.outputs = [None, None];
        self.console = Console::None;
    }
}

/// The helper: this very program, also after an upgrade has put another in its place, for the two speak the same language. The engine started
/// the shim by a way on which nobody can write to it.
fn program(argument: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("knarr").arg("oci-helper").arg(argument).env("RUST_BACKTRACE", "0");
    command
}

/// Sends a signal; a process that is gone needs none.
pub(crate) fn send_signal(pid: i32, signal: i32) {
    // SAFETY: takes integers only.
    unsafe { libc::kill(pid, signal) };
}

fn nonblocking(fd: OwnedFd) -> io::Result<fs::File> {
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd.into())
}

/// Takes one descriptor from a message; none at the end of the stream.
fn receive_fd(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut data = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let mut parts = [io::IoSliceMut::new(&mut data)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            received.extend(fds.into_iter().map(crate::images::tree::owned));
        }
    }
    Ok(received.into_iter().next())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_signal_waits_for_the_process() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let request = StartRequest {
            id: "c".to_owned(),
            dir: dir.path().to_owned(),
            tty: false,
            stdin: false,
            stdin_once: false,
            log: dir.path().join("0.log"),
            log_limit: None,
            cgroup: String::new(),
            shared_pid: false,
            poststop: false,
        };
        let log = LogWriter::open(&request.log, None).unwrap();
        let mut task = Task::new(dir.path().join("result"), Role::Container { request: Box::new(request), log });
        task.signal(libc::SIGKILL);
        task.signal(libc::SIGTERM);
        task.begun(child.id() as i32);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
