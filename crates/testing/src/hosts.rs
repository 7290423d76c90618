//! More hosts of a machine: network namespaces on one wire, where agents run.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Cluster;
use crate::machine::{self, Machine, REGISTRY};
use crate::wait::PATIENCE;

/// A host with a node of its own, named after its number: `n2`, `n3`.
pub(crate) struct Host {
    number: u8,
    agent: Option<Child>,
}

impl Host {
    /// Ends the agent that runs here, and waits for its end.
    fn signal(&mut self, signal: Signal) {
        let mut agent = self.agent.take().expect("a started agent");
        kill(Pid::from_raw(machine::child_of(agent.id() as i32)), signal).unwrap();
        agent.wait().unwrap();
    }
}

impl Machine {
    /// The network namespace of a host, as this side reaches it.
    fn netns(&self, name: &str) -> PathBuf {
        self.path(&Path::new("/run/netns").join(name))
    }

    /// Makes a host, which reaches the images where all do.
    fn add_host(&self, number: u8) {
        let script = self.directory().join("host.sh");
        fs::write(&script, include_str!("host.sh")).unwrap();
        let made = self.command(Path::new("sh")).arg(&script).arg(number.to_string()).output().unwrap();
        assert!(made.status.success(), "no host: {}", String::from_utf8_lossy(&made.stderr));
        let namespace = File::open(self.netns(&format!("host{number}"))).unwrap();
        let listener = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind(REGISTRY).unwrap()
        });
        self.forward(listener.join().unwrap());
    }

    /// A program that will run on a host.
    fn command_on(&self, number: u8, program: &Path) -> Command {
        self.command_in(&self.netns(&format!("host{number}")), program)
    }
}

impl Cluster {
    /// Starts a server with its node `n1`, and agents on further hosts: `n2` and so on, `nodes` in all. Waits until all are Ready.
    ///
    /// # Panics
    /// When one does not become ready.
    pub fn start_nodes(binary: impl Into<PathBuf>, nodes: u8) -> Self {
        let mut cluster = Self::prepare(binary);
        (2..=nodes).for_each(|number| cluster.add_host(number));
        cluster.start_server();
        (2..=nodes).for_each(|number| cluster.start_agent(number));
        cluster.wait_nodes(nodes);
        cluster
    }

    /// A host of this number without an agent on it.
    pub fn add_host(&mut self, number: u8) {
        self.machine().add_host(number);
        self.hosts.push(Host { number, agent: None });
    }

    /// Starts the agent of a host, also again.
    pub fn start_agent(&mut self, number: u8) {
        let (name, address) = (format!("n{number}"), format!("192.168.77.{number}"));
        let token = self.token_file();
        self.start_agent_with(number, &token, &["--node-name", &name, "--node-ip", &address]);
    }

    /// The same with another token and other options.
    pub fn start_agent_with(&mut self, number: u8, token: &Path, options: &[&str]) {
        let log = OpenOptions::new().create(true).append(true).open(self.agent_log(number)).unwrap();
        let mut command = self.machine().command_on(number, &self.binary);
        let server = format!("https://{}:6443", machine::ADDRESS);
        command.args(["agent", "--server", &server, "--token-file"]).arg(token);
        command.arg("--data-dir").arg(self.agent_dir(number)).args(crate::disk::whatever_is_free(options));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let agent = command.spawn().unwrap();
        self.host(number).agent = Some(agent);
    }

    /// Waits until so many nodes are Ready.
    pub fn wait_nodes(&self, nodes: u8) {
        crate::eventually("the nodes have registered", || {
            let names = self.k("get nodes -o name");
            (names.lines().count() == usize::from(nodes)).then_some(())
        });
        self.k(&format!("wait --for=condition=Ready nodes --all --timeout={}s", PATIENCE.as_secs()));
    }

    /// SIGKILL: the agent gets no chance to clean up.
    pub fn kill_agent(&mut self, number: u8) {
        self.host(number).signal(Signal::SIGKILL);
    }

    /// SIGTERM, and its end.
    pub fn stop_agent(&mut self, number: u8) {
        self.host(number).signal(Signal::SIGTERM);
    }

    /// Waits for an agent that ends by itself, and tells what it logged.
    pub fn wait_agent(&mut self, number: u8) -> String {
        let mut agent = self.host(number).agent.take().expect("a started agent");
        agent.wait().unwrap();
        fs::read_to_string(self.agent_log(number)).unwrap()
    }

    /// The agent's process, as this side numbers it.
    pub fn agent_pid(&mut self, number: u8) -> i32 {
        machine::child_of(self.host(number).agent.as_ref().expect("a started agent").id() as i32)
    }

    /// Unplugs a host, or plugs it in again.
    pub fn plug(&self, number: u8, is_in: bool) {
        let mut command = self.machine().command(Path::new("ip"));
        command.args(["-n", "wire", "link", "set", &format!("wire{number}"), if is_in { "up" } else { "down" }]);
        assert!(command.status().unwrap().success());
    }

    /// Of the packets between hosts so many of a hundred are lost from now on, each for itself.
    pub fn lose_packets(&self, percent: u8) {
        let chain = "chain wire { type filter hook forward priority 0; }";
        let rule = match percent {
            0 => String::new(),
            1..=99 => format!("; add rule bridge loss wire numgen random mod 100 < {percent} drop"),
            _ => "; add rule bridge loss wire drop".to_owned(),
        };
        let loss = format!("table bridge loss {{ {chain}; }}; flush chain bridge loss wire{rule}");
        let mut command = self.machine().command_in(&self.machine().netns("wire"), Path::new("nft"));
        assert!(command.arg(loss).status().unwrap().success());
    }

    /// Gives a host another address.
    pub fn move_host(&self, number: u8, from: u8, to: u8) {
        let address = |last: u8| format!("192.168.77.{last}/24");
        // With the first address of a network the others of it go.
        for arguments in [["del", &address(from)], ["add", &address(to)]] {
            let mut command = self.on_host(number, "ip");
            assert!(command.arg("address").args(arguments).args(["dev", "node0"]).status().unwrap().success());
        }
        // The default route went with the address that it was made for.
        let mut command = self.on_host(number, "ip");
        assert!(command.args(["route", "replace", "default", "via", "192.168.77.254"]).status().unwrap().success());
    }

    /// A program that runs on a host.
    pub fn on_host(&self, number: u8, program: &str) -> Command {
        self.machine().command_on(number, Path::new(program))
    }

    /// The data directory of a host's agent.
    pub fn agent_dir(&self, number: u8) -> PathBuf {
        self.machine().directory().join(format!("n{number}"))
    }

    /// What the agents of a host logged.
    pub fn agent_log(&self, number: u8) -> PathBuf {
        self.machine().directory().join(format!("n{number}.log"))
    }

    /// The token by which machines join.
    pub fn token_file(&self) -> PathBuf {
        self.data_dir().join("token")
    }

    fn host(&mut self, number: u8) -> &mut Host {
        self.hosts.iter_mut().find(|host| host.number == number).expect("a host of this number")
    }

    /// The ends of the agents' logs.
    pub(crate) fn explain_hosts(&self) {
        for host in &self.hosts {
            let log = fs::read_to_string(self.agent_log(host.number)).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- end of the log of n{}\n{}\n---", host.number, lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}
