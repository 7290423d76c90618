//! A kubelet with the built-in runtime and an API in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base::readiness::Readiness;
use base::tasks::{Failures, Tasks};
use client::Informers;
use client::fake::Fake;
use k8s_openapi::api::core::v1::Pod;
use kubelet::dns::Cluster;
use kubelet::{Api, Options};
use runtime::api::Runtime;
use runtime::{Engine, Registries};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Longest that anything here takes, on a slow machine with a debug build.
const LONG: Duration = Duration::from_secs(60);

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Node {
    pub(crate) fake: Fake,
    pub(crate) api: Api,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) engine: Engine,
    tasks: Tasks,
    _failures: Failures,
    cgroup_root: String,
}

fn helper() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/kubelet-shim");
    assert!(path.exists(), "{} is missing: build the examples of this crate", path.display());
    path
}

/// A docker archive of an image `busybox:1`.
fn image(path: &Path) {
    let mut layer = tar::Builder::new(Vec::new());
    let program = std::fs::read("/bin/busybox").expect("the package busybox-static is installed");
    let mut add = |name: &str, kind: tar::EntryType, data: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len() as u64);
        match link {
            Some(link) => layer.append_link(&mut header, name, link).unwrap(),
            None => layer.append_data(&mut header, name, data).unwrap(),
        }
    };
    for directory in ["bin", "etc", "tmp", "dev", "proc", "sys"] {
        add(directory, tar::EntryType::Directory, &[], None);
    }
    add("bin/busybox", tar::EntryType::Regular, &program, None);
    for name in ["sh", "cat", "ls", "sleep", "stat", "id", "hostname", "grep", "test", "echo"] {
        add(&format!("bin/{name}"), tar::EntryType::Symlink, &[], Some("busybox"));
    }
    let layer = layer.into_inner().unwrap();
    let hex: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{hex}")]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": ["busybox:1"], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(std::fs::File::create(path).unwrap());
    let parts = [("manifest.json", manifest.to_string()), ("config.json", config.to_string())];
    let parts = parts.iter().map(|(name, text)| (*name, text.as_bytes())).chain([("layer.tar", layer.as_slice())]);
    for (name, data) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        archive.append_data(&mut header, name, data).unwrap();
    }
    archive.finish().unwrap();
}

impl Node {
    /// None when this is not root, which containers need.
    pub(crate) async fn start() -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: containers need root");
            return None;
        }
        let (tasks, failures) = Tasks::root();
        let dir = tempfile::Builder::new().prefix("knarr-test-").tempdir().unwrap();
        let cgroup_root = format!("knarr-kubelet-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let options = runtime::Options {
            start_limit: runtime::START_LIMIT,
            dir: dir.path().join("data"),
            run_dir: dir.path().join("run"),
            cgroup_root: cgroup_root.clone(),
            helper: helper(),
            registries: Registries::default(),
            peers: None,
            network: None,
            tasks: tasks.clone(),
        };
        let engine = Engine::open(options).await.unwrap();
        image(&dir.path().join("image.tar"));
        let archive = std::fs::read(dir.path().join("image.tar"));
        engine.import(futures::stream::iter([archive.map(bytes::Bytes::from)]), None).await.unwrap();
        let fake = Fake::default();
        let readiness = Readiness::default();
        let options = Options {
            node_name: "n1".to_owned(),
            node_ips: vec!["10.1.0.1".parse().unwrap()],
            data_dir: dir.path().join("kubelet"),
            volumes_dir: "/nonexistent/volumes".into(),
            pod_logs_dir: dir.path().join("logs"),
            log_limit: (10 << 20, 5),
            node_logs_dir: dir.path().join("logs"),
            node_log_query: true,
            network: tokio::sync::watch::channel(None).1,
            client: fake.client(),
            informers: Informers::new(fake.client(), tasks.clone()),
            runtime: Arc::new(engine.clone()),
            cluster_dns: Cluster { servers: vec!["10.43.0.10".parse().unwrap()], domain: "cluster.local".to_owned() },
            resolv_conf: "/dev/null".into(),
            version: "v1.36.0".to_owned(),
            zpages: Default::default(),
            max_pods: 110,
            pod_max_pids: None,
            allowed_unsafe_sysctls: Vec::new(),
            seccomp_default: false,
            longest_restart_delay: kubelet::backoff::MAX,
            static_pods: None,
            verification: Default::default(),
            credential_providers: Default::default(),
            sharing: None,
            system_reserved: Default::default(),
            kube_reserved: None,
            cpu_options: Default::default(),
            cpu_manager: Default::default(),
            reserved_cpus: None,
            memory_manager: Default::default(),
            reserved_memory: Default::default(),
            affinity: Default::default(),
            eviction: Default::default(),
            // Off: how full the disk of this machine is must not matter.
            image_gc: kubelet::images::garbage::Policy::new((100, 80), Duration::ZERO, Duration::ZERO).unwrap(),
            shutdown: Default::default(),
            labels: Default::default(),
            annotations: Default::default(),
            taints: Vec::new(),
            server: None,
        };
        let api = kubelet::start(options, tasks.clone(), readiness.gate("kubelet")).await.unwrap();
        tokio::time::timeout(LONG, readiness.wait(&["kubelet"])).await.unwrap();
        Some(Self { fake, api, dir, engine, tasks, _failures: failures, cgroup_root })
    }

    /// Binds a pod to the node.
    pub(crate) fn put(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"] = json!("busybox:1");
                container["imagePullPolicy"] = json!("IfNotPresent");
            }
        }
        let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1,
            "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z"});
        self.fake.put::<Pod>(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
    }

    /// Waits until the pod's status satisfies `condition`.
    pub(crate) async fn until(&self, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        let found = self.fake.until::<Pod>(|pods| {
            let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
            seen = pod.map(|pod| serde_json::to_value(&pod.status).unwrap()).unwrap_or(Value::Null);
            condition(&seen)
        });
        let waited = tokio::time::timeout(LONG, found).await;
        assert!(waited.is_ok(), "the pod did not get there: {}", serde_json::to_string_pretty(&seen).unwrap());
        seen
    }

    /// The whole log of a container.
    pub(crate) async fn logs(&self, pod: &str, container: &str) -> String {
        use futures::TryStreamExt;
        let stream = self.api.logs("ns", pod, container, Default::default()).await.unwrap();
        let parts: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
        String::from_utf8(parts.concat()).unwrap()
    }

    /// Ends everything that is left and checks that nothing stays.
    pub(crate) async fn stop(self) {
        assert!(self.tasks.drain(LONG).await, "background tasks end");
        for sandbox in self.engine.sandboxes().await.unwrap() {
            self.engine.stop_sandbox(&sandbox.id).await.unwrap();
            self.engine.remove_sandbox(&sandbox.id).await.unwrap();
        }
    }
}

impl Drop for Node {
    /// Removes what is left, also when a test failed.
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = |line: &&str| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(self.dir.path()));
        self.kill_shims();
        for line in mounts.lines().rev().filter(ours) {
            if let Some(point) = line.split(' ').nth(4) {
                let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
            }
        }
    }
}

impl Node {
    /// Kills the shims and containers of this node's own cgroups.
    fn kill_shims(&self) {
        for sandbox in std::fs::read_dir(self.dir.path().join("run/sandboxes")).into_iter().flatten().flatten() {
            let state = std::fs::read(sandbox.path().join("shim-state.json")).unwrap_or_default();
            let state: Value = serde_json::from_slice(&state).unwrap_or_default();
            let Some(pid) = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) else { continue };
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&*sandbox.path().to_string_lossy()) {
                kill(pid);
            }
        }
        let controllers = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for root in controllers.chain([PathBuf::from("/sys/fs/cgroup")]) {
            for _ in 0..50 {
                let mut groups = Vec::new();
                collect(&root.join(&self.cgroup_root), &mut groups);
                groups.retain(|group| group.is_dir());
                if groups.is_empty() {
                    break;
                }
                for group in groups.iter().rev() {
                    let processes = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                    processes.lines().flat_map(str::parse).for_each(kill);
                    let _ = std::fs::remove_dir(group);
                }
            }
        }
    }
}

fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
}

fn collect(dir: &Path, groups: &mut Vec<PathBuf>) {
    groups.push(dir.to_owned());
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), groups);
        }
    }
}
