//! How the long-running commands begin and end.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testing::{Cluster, Outcome, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// Starts a server without pods, with signals as `shell` sets them, and waits until it is ready. Gives what waits for it, and its process.
fn start(c: &Cluster, shell: &str) -> (Child, Pid) {
    let mut command = c.machine().command("sh".as_ref());
    command.args(["-c", &format!("{shell}; exec \"$@\""), "sh", KNARR, "server", "--no-agent", "--data-dir"]).arg(c.data_dir());
    let log = std::fs::OpenOptions::new().create(true).append(true).open(c.log()).unwrap();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let status = c.knarr(&["status", "--wait", "--timeout", "60s"]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
    let pid = testing::machine::child_of(child.id().try_into().unwrap());
    (child, Pid::from_raw(pid))
}

/// Each signal by which a terminal or a service manager ends a process ends the server as SIGTERM does.
#[test]
fn signals_let_the_server_drain() {
    let c = Cluster::prepare(KNARR);
    for signal in [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGINT] {
        let (mut child, server) = start(&c, "true");
        kill(server, signal).unwrap();
        assert!(child.wait().unwrap().success(), "{signal}");
    }
    let log = std::fs::read_to_string(c.log()).unwrap();
    assert_eq!(log.matches("stopping; pods keep running").count(), 3, "{log}");
}

/// nohup(1): a process that is started so ignores the end of its terminal.
#[test]
fn a_server_that_is_to_outlive_its_terminal_does() {
    let c = Cluster::prepare(KNARR);
    let (mut child, server) = start(&c, "trap '' HUP");
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    assert_eq!(u64::from_str_radix(mask.trim(), 16).unwrap() & 1, 1, "{mask}");
    kill(server, Signal::SIGHUP).unwrap();
    assert!(c.knarr(&["status"]).output().unwrap().status.success());
    kill(server, Signal::SIGQUIT).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Who waits for a server that has ended is told so long before he would give up.
#[test]
fn nobody_waits_for_a_server_that_does_not_run_any_more() {
    let c = Cluster::prepare(KNARR);
    let (mut child, server) = start(&c, "true");
    kill(server, Signal::SIGKILL).unwrap();
    assert!(!child.wait().unwrap().success());
    refused(&mut c.knarr(&["status", "--wait", "--timeout", "1h"]), "no server works with the data directory");
}

/// What the command says that is refused.
#[track_caller]
fn refused(command: &mut Command, expected: &str) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(expected), "{said}");
}

/// Labels, "Syntax and character set": a value has 63 characters at most, and the node's name is one (kubernetes.io/hostname).
#[test]
fn names_that_no_node_can_have_are_refused() {
    let c = Cluster::prepare(KNARR);
    let long = format!("{}.{}", "a".repeat(32), "b".repeat(31));
    let check = |name: &str, expected: &str| {
        refused(&mut c.knarr(&["server", "--node-name", name]), expected);
        refused(&mut c.knarr(&["agent", "--server", "https://192.168.77.1:6443", "--node-name", name]), expected);
    };
    check(&long, "must be no more than 63 bytes. Give another with --node-name");
    check("a_b", "\"a_b\" cannot be the node's name: a lowercase RFC 1123 subdomain must consist of");
    assert!(!c.data_dir().exists(), "nothing has begun");
}

/// The service manager's socket, and what is in it.
struct Manager(UnixDatagram);

impl Manager {
    /// Every next command of the cluster is one that the manager has started.
    fn listen(c: &mut Cluster) -> Self {
        let path = c.scratch().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        c.set_env("NOTIFY_SOCKET", path.to_str().unwrap());
        c.set_env("WATCHDOG_USEC", "3600000000");
        Self(socket)
    }

    #[track_caller]
    fn hears(&self, expected: &[&str]) {
        for expected in expected {
            let mut buffer = [0; 64];
            let length = self.0.recv(&mut buffer).unwrap();
            assert_eq!(str::from_utf8(&buffer[..length]).unwrap(), *expected);
        }
    }
}

/// What a pod's shim has in its environment; all that makes its containers has it from there.
#[track_caller]
fn environment_of_shims(c: &Cluster, count: usize) -> Vec<String> {
    // What it begins has its command line until it is another program.
    let shims = eventually(&format!("{count} shims"), || {
        let shims: Vec<_> = c.machine().processes().into_iter().filter(|(_, line)| line.contains("knarr shim ")).collect();
        (shims.len() == count).then_some(shims)
    });
    shims.into_iter().map(|(pid, _)| std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap()).collect()
}

/// sd_notify(3), sd_watchdog_enabled(3): the variables are for the process that the manager has started. OCI runtimes that have NOTIFY_SOCKET
/// wait for their container to say READY=1.
#[test]
fn the_service_manager_hears_of_the_server_alone() {
    let mut c = Cluster::prepare(KNARR);
    let manager = Manager::listen(&mut c);
    c.start_server();
    manager.hears(&["READY=1", "WATCHDOG=1"]);
    for (name, count) in [("one", 1), ("two", 2)] {
        if count == 2 {
            // The server starts again in the same process, and goes on to tell.
            let begun = Outcome::of(&mut c.knarr(&["certificate", "rotate-ca"]));
            assert_eq!(begun.code, Some(0), "{begun:?}");
            manager.hears(&["READY=1", "WATCHDOG=1"]);
        }
        c.k(&format!("run {name} --image=127.0.0.1:5000/busybox:1.36 --restart=Never -- sleep 100000"));
        c.k(&format!("wait pod/{name} --for=condition=Ready --timeout=60s"));
        for environment in environment_of_shims(&c, count) {
            assert!(environment.contains("PATH=") && environment.contains("RUST_BACKTRACE=0"), "{environment}");
            assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"), "{environment}");
        }
    }
    let (status, _) = c.stop_server();
    assert!(status.success(), "{status}");
    manager.hears(&["STOPPING=1"]);
}

#[test]
fn commands_that_need_a_server_say_which() {
    let c = Cluster::prepare(KNARR);
    let start = format!(
        "no server has started with the data directory {0}: start one (knarr server --data-dir {0})",
        c.data_dir().display()
    );
    refused(&mut c.knarr(&["token", "list"]), &start);
    refused(&mut c.knarr(&["status"]), &start);
    let (mut child, server) = self::start(&c, "true");
    kill(server, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    refused(&mut c.knarr(&["token", "list"]), "the server does not answer: does it run?");
}
