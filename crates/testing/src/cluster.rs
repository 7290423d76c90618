//! One `knarr server` on a machine of its own.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::disk;
use crate::hosts::Host;
use crate::machine::{self, Machine};
use crate::wait::PATIENCE;
use crate::{Api, eventually};

/// Name of the only node.
pub const NODE: &str = "n1";

/// A cluster. Everything of it ends with this value.
pub struct Cluster {
    // Dropped in this order: clients, the server's parent, the machine.
    api: Option<Api>,
    server: Option<Child>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) binary: PathBuf,
    environment: Vec<(String, String)>,
    machine: Machine,
}

impl Cluster {
    /// Starts a cluster of this `knarr` binary and waits until its node is Ready.
    ///
    /// # Panics
    /// When it does not become ready; says what the server logged.
    pub fn start(binary: impl Into<PathBuf>) -> Self {
        let mut cluster = Self::prepare(binary);
        cluster.start_server();
        cluster
    }

    /// A machine with the binary, without a server on it.
    pub fn prepare(binary: impl Into<PathBuf>) -> Self {
        Self {
            api: None,
            server: None,
            hosts: Vec::new(),
            binary: binary.into(),
            environment: Vec::new(),
            machine: Machine::new(),
        }
    }

    /// Starts the server, also again, and waits until it serves and its node is Ready.
    pub fn start_server(&mut self) {
        self.start_server_with(&[]);
    }

    /// The same with further options. A second `--node-ip` is one more address of the node.
    pub fn start_server_with(&mut self, options: &[&str]) {
        self.start_api_with(options);
        let patience = format!("{}s", PATIENCE.as_secs());
        let status = self.knarr(&["status", "--wait", "--timeout", &patience]).output().unwrap();
        assert!(status.status.success(), "knarr status: {}", String::from_utf8_lossy(&status.stderr));
    }

    /// The same, and waits until it serves: its node may not be Ready yet.
    pub fn start_api_with(&mut self, options: &[&str]) {
        self.spawn_server(options);
        let kubeconfig = self.kubeconfig();
        eventually("the server writes its kubeconfig", || {
            let ended = self.server.as_mut().and_then(|server| server.try_wait().ok().flatten());
            assert!(ended.is_none(), "knarr server ended with {ended:?}");
            kubeconfig.exists().then_some(())
        });
        self.connect();
    }

    /// Requests go to the server that has written its kubeconfig.
    pub fn connect(&mut self) {
        self.api = Some(Api::of_kubeconfig(&self.kubeconfig()));
    }

    /// Starts the server with further options and does not wait for anything. How full the disk is does not count unless they say so.
    pub fn spawn_server(&mut self, options: &[&str]) {
        let log = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.knarr(&["server", "--node-name", NODE, "--node-ip", machine::ADDRESS]);
        command.args(disk::whatever_is_free(options)).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(command.spawn().unwrap());
    }

    /// A `knarr` command on the machine, with the cluster's data directory.
    pub fn knarr(&self, arguments: &[&str]) -> Command {
        let mut command = self.machine.command(&self.binary);
        let (name, rest) = arguments.split_first().expect("a subcommand");
        command.arg(name).arg("--data-dir").arg(self.data_dir()).args(rest);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Servers and commands are of this binary from now on, and the one before is given back: an upgrade, or the way back.
    pub fn set_binary(&mut self, binary: impl Into<PathBuf>) -> PathBuf {
        std::mem::replace(&mut self.binary, binary.into())
    }

    /// An environment variable of `knarr` commands, and of servers that start from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where the server keeps sockets and namespaces of pods, in the machine: named after the data directory (FNV-1a).
    pub fn run_dir(&self) -> PathBuf {
        let data = self.data_dir();
        let hash = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        PathBuf::from(format!("/run/knarr-{:08x}", data.as_os_str().as_encoded_bytes().iter().fold(0x811c_9dc5, hash)))
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.machine.directory().join("data")
    }

    /// Administrator's configuration of clients.
    pub fn kubeconfig(&self) -> PathBuf {
        self.machine.path(&self.data_dir().join("kubeconfig"))
    }

    /// A directory for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.machine.directory()
    }

    /// What the servers of this cluster logged.
    pub fn log(&self) -> PathBuf {
        self.machine.directory().join("server.log")
    }

    /// HTTPS requests as the administrator.
    ///
    /// # Panics
    /// Before the server was started.
    pub fn api(&self) -> &Api {
        self.api.as_ref().expect("a started server")
    }

    /// The server's process, as this side numbers it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn server_pid(&self) -> i32 {
        machine::child_of(self.server.as_ref().expect("a started server").id() as i32)
    }

    /// SIGKILL: the server gets no chance to clean up.
    pub fn kill_server(&mut self) {
        self.signal(Signal::SIGKILL);
    }

    /// SIGTERM, and how the server ended after how long.
    pub fn stop_server(&mut self) -> (ExitStatus, Duration) {
        self.signal(Signal::SIGTERM)
    }

    /// Waits for a server that ends by itself.
    pub fn wait_server(&mut self) -> ExitStatus {
        self.server.take().expect("a started server").wait().unwrap()
    }

    fn signal(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let start = Instant::now();
        kill(Pid::from_raw(self.server_pid()), signal).unwrap();
        (self.wait_server(), start.elapsed())
    }
}

impl Cluster {
    /// Prints what explains most failures: the nodes, the pods, the events and the server's log.
    fn explain(&self) {
        let kubectl = |line: &str| self.try_kubectl(&line.split(' ').chain(["--request-timeout=5s"]).collect::<Vec<_>>());
        for line in ["describe nodes", "get pods -A -o wide", "get events -A --sort-by=.lastTimestamp"] {
            let shown = kubectl(line);
            eprintln!("--- kubectl {line}\n{}{}", shown.stdout, shown.stderr);
        }
        self.explain_hosts();
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        eprintln!("--- end of the server's log\n{}\n---", lines[lines.len().saturating_sub(80)..].join("\n"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
    }
}
