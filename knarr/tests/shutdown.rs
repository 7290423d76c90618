//! The machine shuts down, as systemd's login manager says: pods end in their order before it does (KEP-2000).
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use testing::{Cluster, eventually};
use tokio::runtime::Runtime;

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SETTINGS: &str = "/etc/systemd/logind.conf.d/99-kubelet.conf";
/// How long a lock may take that nobody gives or lets go of.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bus of this test's own, by the real daemon.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start(directory: &Path) -> Self {
        let address = format!("unix:path={}", directory.join("bus").display());
        let policy =
            r#"<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>"#;
        let text = format!("<busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth>{policy}</busconfig>");
        std::fs::write(directory.join("bus.conf"), text).unwrap();
        let mut daemon = Command::new("dbus-daemon");
        daemon.arg(format!("--config-file={}", directory.join("bus.conf").display())).args(["--nofork", "--print-address"]);
        let mut daemon = daemon.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:"), "{line}");
        Self { daemon, address }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A lock that was given: the end of it that tells when it is let go of.
struct Lock(File);

impl Lock {
    /// Waits until nobody holds it any more.
    fn released(mut self) {
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send(self.0.read(&mut [0]).unwrap()));
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok(0), "the lock is held still");
    }
}

/// The login manager, and of systemd what makes it read its settings again.
struct Manager {
    locks: Sender<Lock>,
    delay: Arc<AtomicU64>,
}

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn inhibit(&self, what: &str, who: &str, _why: &str, mode: &str) -> zbus::wire::OwnedFd {
        assert_eq!((what, who, mode), ("shutdown", "knarr", "delay"));
        let (ours, theirs) = std::io::pipe().unwrap();
        self.locks.send(Lock(File::from(OwnedFd::from(ours)))).unwrap();
        OwnedFd::from(theirs).into()
    }

    #[zbus(property)]
    fn inhibit_delay_max_u_sec(&self) -> u64 {
        self.delay.load(Ordering::SeqCst) * 1_000_000
    }

    #[zbus(property)]
    fn preparing_for_shutdown(&self) -> bool {
        false
    }
}

struct Systemd {
    delay: Arc<AtomicU64>,
    settings: PathBuf,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn kill_unit(&self, unit: &str, whom: &str, signal: i32) {
        assert_eq!((unit, whom, signal), ("systemd-logind.service", "all", 1));
        let text = std::fs::read_to_string(&self.settings).unwrap();
        let seconds = text.lines().find_map(|line| line.strip_prefix("InhibitDelayMaxSec=")).unwrap();
        assert!(text.contains("[Login]\n"), "{text}");
        self.delay.store(seconds.parse().unwrap(), Ordering::SeqCst);
    }
}

/// The login manager at work.
struct Logind<'a> {
    runtime: &'a Runtime,
    connection: zbus::Connection,
    locks: Receiver<Lock>,
    delay: Arc<AtomicU64>,
}

impl<'a> Logind<'a> {
    fn start(runtime: &'a Runtime, bus: &Bus, settings: &Path) -> Self {
        let (sender, locks) = channel();
        let delay = Arc::new(AtomicU64::new(5));
        let manager = Manager { locks: sender, delay: delay.clone() };
        let systemd = Systemd { delay: delay.clone(), settings: settings.to_owned() };
        let builder = zbus::connection::Builder::address(bus.address.as_str()).serve_at(PATH, manager);
        let builder = builder
            .serve_at("/org/freedesktop/systemd1", systemd)
            .name("org.freedesktop.login1")
            .name("org.freedesktop.systemd1");
        let connection = runtime.block_on(builder.build()).unwrap();
        Self { runtime, connection, locks, delay }
    }

    /// The next lock that it gives.
    fn lock(&self) -> Lock {
        self.locks.recv_timeout(PATIENCE).expect("nobody has asked for a lock")
    }

    fn prepare_for_shutdown(&self, begins: bool) {
        let body = (begins,);
        let signal = self.connection.emit_signal(None::<&str>, PATH, MANAGER, "PrepareForShutdown", &body);
        self.runtime.block_on(signal).unwrap();
    }

    fn stop(self) {
        self.runtime.block_on(self.connection.close()).unwrap();
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A pod that says when it is ended, after `pause` seconds.
fn pod(name: &str, class: &str, pause: u32, directory: &Path) -> String {
    let order = directory.display();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: n1\n  priorityClassName: {class}\n  containers:\n  - name: main\n    image: 127.0.0.1:5000/busybox:1.36\n    \
         command: [sh, -c, 'trap \"sleep {pause}; echo {name} >>/order/ended; exit\" TERM; touch /up; while true; do sleep 1 & wait $!; done']\n    \
         readinessProbe: {{exec: {{command: [test, -e, /up]}}, periodSeconds: 1}}\n    volumeMounts: [{{name: order, mountPath: /order}}]\n  \
         volumes: [{{name: order, hostPath: {{path: {order}}}}}]\n"
    )
}

/// Node Shutdowns, "Graceful node shutdown": "During a graceful shutdown, kubelet terminates pods in two phases: Terminate regular pods running on the
/// node. Terminate critical pods running on the node."
#[test]
fn pods_end_before_the_machine_does() {
    let mut c = Cluster::prepare(KNARR);
    let directory = c.scratch().to_owned();
    let (bus, runtime) = (Bus::start(&directory), runtime());
    // What the kubelet writes below is the machine's own.
    let mounted = c.machine().command("mount".as_ref()).args(["-t", "tmpfs", "none", "/etc/systemd"]).status().unwrap();
    assert!(mounted.success());
    let settings = c.machine().path(Path::new(SETTINGS));
    let logind = Logind::start(&runtime, &bus, &settings);
    c.set_env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address);
    c.start_server_with(&["--shutdown-grace-period", "90s", "--shutdown-grace-period-critical-pods", "30s"]);
    let lock = logind.lock();
    eventually("the login manager waits as long as pods may need", || (logind.delay.load(Ordering::SeqCst) == 90).then_some(()));

    // The critical one would end first by itself.
    c.k_with("create -f -", &pod("regular", "", 2, &directory));
    c.k_with(
        "create -f -",
        &pod("critical", "system-node-critical", 0, &directory).replace("metadata: {", "metadata: {namespace: kube-system, "),
    );
    c.k("wait --for=condition=Ready pod/regular --timeout=60s");
    c.k("-n kube-system wait --for=condition=Ready pod/critical --timeout=60s");

    logind.prepare_for_shutdown(true);
    lock.released();
    assert_eq!(std::fs::read_to_string(directory.join("ended")).unwrap(), "regular\ncritical\n");
    for (namespace, name) in [("default", "regular"), ("kube-system", "critical")] {
        c.k(&format!("-n {namespace} wait --for=jsonpath={{.status.phase}}=Failed pod/{name} --timeout=60s"));
        let field = |path: &str| c.k(&format!("-n {namespace} get pod {name} -o jsonpath={{{path}}}"));
        assert_eq!(field(".status.reason"), "Terminated");
        assert_eq!(field(".status.message"), "Pod was terminated in response to imminent node shutdown.");
        assert_eq!(field(".status.conditions[?(@.type=='DisruptionTarget')].reason"), "TerminationByKubelet");
    }
    c.k("wait --for=condition=Ready=False node/n1 --timeout=60s");
    let message = "get node n1 -o jsonpath={.status.conditions[?(@.type=='Ready')].message}";
    assert_eq!(c.k(message), "node is shutting down");
    c.k_with("create -f -", &pod("late", "", 0, &directory));
    c.k("wait --for=jsonpath={.status.reason}=NodeShutdown pod/late --timeout=60s");

    // The shutdown does not happen after all.
    logind.prepare_for_shutdown(false);
    let lock = logind.lock();
    c.k("wait --for=condition=Ready node/n1 --timeout=60s");
    c.k_with("create -f -", &pod("again", "", 0, &directory));
    c.k("wait --for=condition=Ready pod/again --timeout=60s");

    // Another login manager is asked for a lock of its own, in the place of that of the one before.
    logind.stop();
    let logind = Logind::start(&runtime, &bus, &settings);
    let next = logind.lock();
    lock.released();
    assert!(c.stop_server().0.success());
    next.released();
}

/// A machine without a system bus has nobody who would tell: that is said, and nothing else is different.
#[test]
fn a_machine_without_a_bus_says_so_once() {
    let mut c = Cluster::prepare(KNARR);
    c.set_env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
    c.start_server_with(&["--shutdown-grace-period", "30s"]);
    let said = || std::fs::read_to_string(c.log()).unwrap().matches("this machine has no system bus").count();
    eventually("it is said", || (said() == 1).then_some(()));
    assert!(c.k("get nodes").contains(" Ready "));
    // At the start, also where no node would need them.
    for more in [&[][..], &["--no-agent"]] {
        let options = ["server", "--shutdown-grace-period", "5s", "--shutdown-grace-period-critical-pods", "6s"];
        let refused = c.knarr(&[&options[..], more].concat()).output().unwrap();
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(text.contains("is a part of --shutdown-grace-period, and cannot be longer"), "{text}");
    }
}

/// Pods end before the program does where its file of options says so, also those that do not react to their stop signal, as a PID 1 without a
/// handler, and are made again by whoever wants them.
#[test]
fn pods_end_before_the_program_that_is_to_drain() {
    let mut c = Cluster::prepare(KNARR);
    let directory = c.scratch().to_owned();
    let file = directory.join("options.yaml");
    std::fs::write(
        &file,
        "drain-on-exit: true\nshutdown-grace-period: 10s\nservice-node-port-range: 31000-31001\nnode-cidr-mask-size: 25\ncontainer-log-max-files: 2\n",
    )
    .unwrap();
    let options = ["--config", file.to_str().unwrap()];
    c.start_server_with(&options);
    c.k_with("create -f -", &pod("alone", "", 1, &directory));
    c.k_with(
        "create -f -",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {a: d}}\n  template:\n    metadata: {labels: {a: d}}\n    \
         spec: {containers: [{name: c, image: '127.0.0.1:5000/busybox:1.36', command: [sleep, '100000']}]}\n",
    );
    c.k("wait --for=condition=Ready pod/alone --timeout=60s");
    c.k("wait --for=condition=Available deployment/d --timeout=60s");
    assert!(c.k("get node n1 -o jsonpath={.spec.podCIDR}").ends_with("/25"));
    c.k("create service nodeport d --tcp=80");
    assert!(c.k("get service d -o jsonpath={.spec.ports[0].nodePort}").starts_with("3100"));
    let (status, _) = c.stop_server();
    assert!(status.success());
    assert_eq!(std::fs::read_to_string(directory.join("ended")).unwrap(), "alone\n");
    let processes = c.machine().processes();
    let left: Vec<_> = processes.iter().filter(|(_, line)| line.contains("sleep 100000") || line.contains("trap")).collect();
    assert!(left.is_empty(), "{left:?}");

    c.start_server_with(&options);
    let field = |path: &str| c.k(&format!("get pod alone -o jsonpath={{{path}}}"));
    assert_eq!([field(".status.phase"), field(".status.reason")], ["Failed", "Terminated"]);
    assert!(c.k("get pods -l a=d -o jsonpath={.items[*].status.reason}").contains("Terminated"));
    c.k("rollout status deployment/d --timeout=60s");
}
