//! A machine made of namespaces, with a watchdog that removes it even when the test is killed.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// The machine's own address.
pub const ADDRESS: &str = "192.168.77.1";
/// Where the images are: the same address inside and outside.
pub const REGISTRY: &str = "127.0.0.1:5000";

/// Namespaces, cgroups and a directory that end with this value, or with the process that made it.
pub struct Machine {
    directory: PathBuf,
    init: i32,
    watchdog: Child,
    alive: Option<ChildStdin>,
    home: File,
}

impl Machine {
    /// Makes the machine and moves the calling thread, and what it starts from now on, into its network.
    ///
    /// # Panics
    /// When the process is not root or the kernel refuses.
    pub fn new() -> Self {
        Self::with_init(include_str!("init.sh"))
    }

    fn with_init(init: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("kt-").tempdir().unwrap().keep();
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let scripts = [("watchdog.sh", include_str!("watchdog.sh")), ("init.sh", init), ("enter.sh", include_str!("enter.sh"))];
        for (file, text) in scripts {
            fs::write(directory.join(file), text).unwrap();
        }
        let log = directory.join("watchdog.log");
        let mut watchdog = Command::new("sh");
        watchdog.arg(directory.join("watchdog.sh")).arg(&directory).arg(&name).process_group(0);
        watchdog.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut watchdog = watchdog.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "no machine (are you root?): {}", fs::read_to_string(&log).unwrap_or_default());
        let init = child_of(child_of(watchdog.id() as i32));
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        setns(File::open(format!("/proc/{init}/ns/net")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let alive = watchdog.stdin.take();
        let machine = Self { directory, init, watchdog, alive, home };
        machine.forward(TcpListener::bind(REGISTRY).unwrap());
        machine
    }

    /// Connects what arrives at a listener of the machine to the registry of this side.
    pub(crate) fn forward(&self, listener: TcpListener) {
        let home = self.home.try_clone().unwrap();
        thread::spawn(move || {
            setns(home, CloneFlags::CLONE_NEWNET).unwrap();
            for inside in listener.incoming().flatten() {
                // Refused: the connection closes, as with a registry that is down.
                let Ok(outside) = TcpStream::connect(REGISTRY) else { continue };
                pipe(&inside, &outside);
                pipe(&outside, &inside);
            }
        });
    }

    /// A directory that ends with the machine.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path of the machine, as this side reaches it: the machine may have mounted something there.
    pub fn path(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.init.to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A program that will run as one of the machine's processes. Its process is the child of the one that starts.
    pub fn command(&self, program: &Path) -> Command {
        self.command_in(&PathBuf::from(format!("/proc/{}/ns/net", self.init)), program)
    }

    /// The same in another network namespace.
    pub(crate) fn command_in(&self, netns: &Path, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns.display()));
        command.args(["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--target", &self.init.to_string(), "--", "sh"]);
        command.arg(self.directory.join("enter.sh")).arg(program);
        command
    }

    /// Every process of the machine, as this side numbers them, with its command line.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.init);
        let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = pids.filter(|pid| own.is_some() && below(*pid, &own, namespace, self.init));
        let line = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        ours.map(|pid| (pid, line(pid))).collect()
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.alive.take());
        // Errors have nowhere to go: the watchdog does the same without us.
        let _ = self.watchdog.wait();
        let _ = setns(&self.home, CloneFlags::CLONE_NEWNET);
    }
}

/// Whether a process is in the machine's process namespace or in one below it: containers have their own.
fn below(pid: i32, own: &Option<PathBuf>, namespace: impl Fn(i32) -> Option<PathBuf>, init: i32) -> bool {
    if namespace(pid) == *own {
        return true;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|text| text.trim().parse().ok());
    parent.is_some_and(|parent: i32| parent > 1 && parent != init && below(parent, own, namespace, init))
}

/// Starts a thread in the network of a process, such as one of a pod.
///
/// # Panics
/// When there is no such process.
pub fn in_network_of<T: Send + 'static>(pid: i32, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    let network = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    thread::spawn(move || {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

/// The first child of a process.
///
/// # Panics
/// When it has none.
pub fn child_of(pid: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().expect("a child process").parse().unwrap()
}

fn pipe(from: &TcpStream, to: &TcpStream) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_machine_that_does_not_start_says_why() {
        let made = std::panic::catch_unwind(|| Machine::with_init("echo out of order >&2; exit 1"));
        let why = made.err().expect("there is no machine").downcast::<String>().unwrap();
        assert!(why.contains("out of order"), "{why}");
    }
}
