//! A node of its own for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base::tasks::Tasks;
use runtime::api::{
    Container, ContainerConfig, ContainerState, ExecOutput, Image, NamespaceMode, PodIdentity, PodNetwork, Runtime, SandboxConfig,
};
use runtime::{Engine, Options, Registries};
use serde_json::json;

use crate::registry::{Registry, busybox};

/// Longest that anything here takes, on a slow machine with a debug build.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Most that is kept of the output of a command, bytes.
pub(crate) const OUTPUT: usize = 100 << 10;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// An engine with its directories, an image, and what cleans up after it.
pub(crate) struct Node {
    pub(crate) engine: Option<Engine>,
    tasks: Tasks,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cgroup_root: String,
    pub(crate) registry: Registry,
    pub(crate) image: String,
    pub(crate) registries: Registries,
    pub(crate) peers: Option<Arc<dyn runtime::Peers>>,
    pub(crate) network: Option<Arc<dyn PodNetwork>>,
    pub(crate) helper: PathBuf,
    pub(crate) start_limit: Duration,
}

/// Whether the test can run here; says so when not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED: containers need root");
    }
    root
}

fn helper() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/knarr-shim");
    assert!(path.exists(), "{} is missing: build the examples of this crate", path.display());
    path
}

impl Node {
    /// A new node with the BusyBox image, none when this is not root.
    pub(crate) async fn start() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let registry = Registry::start();
        registry.image("busybox", "1", &[busybox()], json!({"Cmd": ["sh"], "Env": ["FROM=image"]}));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup_root = format!("knarr-test-{}-{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix("knarr-test-").tempdir().unwrap();
        let mut node = Self {
            engine: None,
            tasks: Tasks::root().0,
            dir,
            cgroup_root,
            registry,
            image: String::new(),
            registries: Registries::default(),
            peers: None,
            network: None,
            helper: helper(),
            start_limit: runtime::START_LIMIT,
        };
        node.open().await;
        node.image = node.engine().pull_image(&node.registry.reference("busybox:1"), &[]).await.unwrap().id;
        Some(node)
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// Imports an archive.
    pub(crate) async fn import(&self, file: &Path) -> runtime::api::Result<Vec<Image>> {
        let bytes = std::fs::read(file).map(bytes::Bytes::from);
        self.engine().import(futures::stream::iter([bytes]), None).await
    }

    /// Opens the engine (again).
    pub(crate) async fn open(&mut self) {
        self.tasks = Tasks::root().0;
        let options = Options {
            dir: self.dir.path().join("data"),
            run_dir: self.dir.path().join("run"),
            cgroup_root: self.cgroup_root.clone(),
            helper: self.helper.clone(),
            registries: self.registries.clone(),
            peers: self.peers.clone(),
            network: self.network.clone(),
            start_limit: self.start_limit,
            tasks: self.tasks.clone(),
        };
        self.engine = Some(Engine::open(options).await.unwrap());
    }

    /// Ends the engine as a stopped server does.
    pub(crate) async fn close(&mut self) {
        assert!(self.tasks.drain(LONG).await, "background tasks end");
        self.engine = None;
    }

    /// Leaves the engine as a killed server does: nobody waits for what it does.
    pub(crate) async fn abandon(&mut self) {
        self.tasks.token().cancel();
        self.engine = None;
    }

    pub(crate) fn pod(&self, name: &str) -> SandboxConfig {
        SandboxConfig {
            pod: PodIdentity { name: name.into(), namespace: "default".into(), uid: format!("uid-{name}") },
            hostname: name.into(),
            log_directory: self.dir.path().join("logs").join(name),
            resolv_conf: Some("nameserver 10.43.0.10\n".into()),
            pid: NamespaceMode::Container,
            cgroup_parent: format!("kubepods/pod{name}"),
            ..SandboxConfig::default()
        }
    }

    /// A sandbox; its identifier.
    pub(crate) async fn sandbox(&self, name: &str) -> String {
        self.engine().run_sandbox(self.pod(name)).await.unwrap().id
    }

    pub(crate) fn config(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: name.into(),
            image: self.image.clone(),
            image_reference: "busybox:1".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            log_path: format!("{name}/0.log").into(),
            ..ContainerConfig::default()
        }
    }

    /// A started container; its identifier.
    pub(crate) async fn start_with(&self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.engine().create_container(sandbox, config).await.unwrap().id;
        self.engine().start_container(&id).await.unwrap();
        id
    }

    pub(crate) async fn run(&self, sandbox: &str, name: &str, script: &str) -> String {
        self.start_with(sandbox, self.config(name, script)).await
    }

    /// Waits for the end of a container, by events.
    pub(crate) async fn ended(&self, id: &str) -> Container {
        use futures::StreamExt;
        let mut events = self.engine().events();
        let wait = async {
            loop {
                let container = self.engine().container(id).await.unwrap();
                if container.state == ContainerState::Exited {
                    return container;
                }
                events.next().await.unwrap();
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("the container ends")
    }

    /// Runs a container to its end: exit code and log without its heads.
    pub(crate) async fn output(&self, sandbox: &str, config: ContainerConfig) -> (i32, String) {
        let id = self.start_with(sandbox, config).await;
        let container = self.ended(&id).await;
        (container.exit_code.unwrap(), log_text(&container.log_path))
    }

    pub(crate) async fn exec(&self, id: &str, script: &str) -> ExecOutput {
        let command = ["sh", "-c", script].map(str::to_owned);
        self.engine().exec_sync(id, &command, LONG, OUTPUT).await.unwrap()
    }

    /// Waits until the container has made the file `/ready`: a probe with an exec.
    pub(crate) async fn wait_ready(&self, id: &str) {
        let output = self.exec(id, "until test -e /ready; do sleep 0.02; done").await;
        assert_eq!(output.exit_code, 0);
    }
}

/// Waits for what tells nobody when it is so.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// The texts of a log.
pub(crate) fn log_text(path: &Path) -> String {
    let log = std::fs::read_to_string(path).unwrap();
    log.lines()
        .map(|line| {
            let mut fields = line.splitn(4, ' ');
            let (tag, text) = (fields.nth(2).unwrap(), fields.next().unwrap());
            if tag == "F" { format!("{text}\n") } else { text.to_owned() }
        })
        .collect()
}

pub(crate) fn shim_of(node: &Node, sandbox: &str) -> i32 {
    let path = node.dir.path().join("run/sandboxes").join(sandbox).join("shim-state.json");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    state["pid"].as_i64().unwrap() as i32
}

impl Drop for Node {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Node {
    /// Leaves the engine as a machine does that is started again: nothing runs, and only the disk remembers.
    pub(crate) async fn reboot(&mut self) {
        self.close().await;
        self.halt();
        base::trees::remove(&self.dir.path().join("run")).unwrap();
    }

    /// Removes what is left without the engine: it may be what failed.
    fn halt(&self) {
        let run = self.dir.path().join("run");
        let children = |path: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        let kill = |pid: i32| {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        };
        for sandbox in children(&run.join("sandboxes")) {
            let state = std::fs::read(sandbox.join("shim-state.json")).unwrap_or_default();
            let state: serde_json::Value = serde_json::from_slice(&state).unwrap_or_default();
            if let Some(pid) = state["pid"].as_i64() {
                let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                if String::from_utf8_lossy(&command).contains(sandbox.to_str().unwrap()) {
                    kill(pid as i32);
                }
            }
        }
        for _ in 0..50 {
            let mut groups = Vec::new();
            for controller in children(Path::new("/sys/fs/cgroup")) {
                collect(&controller.join(&self.cgroup_root), &mut groups);
            }
            collect(&Path::new("/sys/fs/cgroup").join(&self.cgroup_root), &mut groups);
            groups.retain(|group| group.is_dir());
            if groups.is_empty() {
                break;
            }
            for group in groups.iter().rev() {
                let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                procs.lines().flat_map(str::parse).for_each(kill);
                let _ = std::fs::remove_dir(group);
            }
        }
        let mut mounts: Vec<PathBuf> = children(&run.join("netns"));
        mounts.extend(children(&run.join("sandboxes")).iter().map(|dir| dir.join("memory")));
        mounts.extend(children(&self.dir.path().join("data/containers")).iter().map(|dir| dir.join("rootfs")));
        mounts.extend(children(&run.join("users")).iter().flat_map(|dir| children(dir)));
        for mount in mounts {
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn collect(dir: &Path, groups: &mut Vec<PathBuf>) {
    groups.push(dir.to_owned());
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), groups);
        }
    }
}
