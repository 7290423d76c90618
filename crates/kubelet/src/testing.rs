//! A container runtime in memory, and a kubelet over it, for tests of whole pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::readiness::Readiness;
use base::tasks::Tasks;
use client::Api;
use client::Informers;
use client::fake::Fake;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use runtime::DiskUsage;
use runtime::api::*;
use serde_json::{Value, json};
use tokio::sync::{Notify, broadcast};

use crate::dns::Cluster;
use crate::options::{Options, Server};

/// What the fake runtime holds.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) configs: BTreeMap<String, ContainerConfig>,
    /// Calls in order, such as `start c`.
    pub(crate) calls: Vec<String>,
    /// Exit code of commands, by their first word; 0 for others.
    pub(crate) commands: BTreeMap<String, i32>,
    /// Bytes that containers have written, by name.
    pub(crate) written: BTreeMap<String, u64>,
    /// References that are here.
    pub(crate) images: Vec<String>,
    /// What every pod and container has used.
    pub(crate) usage: Usage,
    /// Containers do not react to their stop signal: they end with their grace period.
    pub(crate) deaf: bool,
    /// Why nothing can be stopped, while there is a reason.
    pub(crate) stays: Option<String>,
    next: u32,
}

/// The fake; cheap to clone.
#[derive(Clone)]
pub(crate) struct FakeRuntime {
    pub(crate) world: Arc<Mutex<World>>,
    events: broadcast::Sender<RuntimeEvent>,
    changed: Arc<Notify>,
}

impl FakeRuntime {
    pub(crate) fn new(images: &[&str]) -> Self {
        let world = World { images: images.iter().map(|image| (*image).to_owned()).collect(), ..World::default() };
        Self { world: Arc::new(Mutex::new(world)), events: broadcast::channel(64).0, changed: Arc::default() }
    }

    fn tell(&self, sandbox: &str) {
        let uid = self.world.lock().sandboxes.get(sandbox).map(|sandbox| sandbox.pod.uid.clone());
        if let Some(pod_uid) = uid {
            // Nobody listens in some tests.
            let _ = self.events.send(RuntimeEvent { pod_uid });
        }
        self.changed.notify_waiters();
    }

    /// Ends the newest running container of that name.
    pub(crate) fn end(&self, name: &str, code: i32) {
        let sandbox = {
            let mut world = self.world.lock();
            let running = world.containers.values_mut().filter(|c| c.name == name && c.state == ContainerState::Running);
            let container = running.last().unwrap();
            finish(container, code);
            container.sandbox.clone()
        };
        self.tell(&sandbox);
    }

    /// Waits until `condition` holds of the world.
    pub(crate) async fn until(&self, condition: impl Fn(&World) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if condition(&self.world.lock()) {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(waited.is_ok(), "did not come to pass; calls: {:?}", self.world.lock().calls);
    }

    fn may_stop(&self) -> Result<()> {
        self.world.lock().stays.clone().map_or(Ok(()), |why| Err(Error::Internal(why)))
    }

    fn call(&self, words: String) {
        self.world.lock().calls.push(words);
        self.changed.notify_waiters();
    }
}

fn finish(container: &mut Container, code: i32) {
    container.state = ContainerState::Exited;
    container.finished = Some(Timestamp::now());
    container.exit_code = Some(code);
    container.reason = if code == 0 { "Completed".to_owned() } else { "Error".to_owned() };
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn version(&self) -> String {
        "fake://1".to_owned()
    }

    fn features(&self) -> Features {
        Features { recursive_readonly: true, user_namespaces: true }
    }

    async fn check_handler(&self, handler: &str) -> Result<()> {
        if handler.is_empty() { Ok(()) } else { Err(Error::Unsupported(format!("no runtime {handler:?}"))) }
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox> {
        let sandbox = Sandbox {
            id: format!("{}-{}", config.pod.uid, config.attempt),
            pod: config.pod,
            attempt: config.attempt,
            state: SandboxState::Ready,
            created: Timestamp::now(),
            ips: vec!["10.0.0.7".parse().unwrap()],
            netns: None,
            runtime_handler: config.runtime_handler,
            resources: config.resources,
            ..Sandbox::default()
        };
        self.world.lock().sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        self.call(format!("sandbox {}", sandbox.attempt));
        Ok(sandbox)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        self.may_stop()?;
        if let Some(sandbox) = self.world.lock().sandboxes.get_mut(id) {
            sandbox.state = SandboxState::NotReady;
        }
        self.call("stop sandbox".to_owned());
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let mut world = self.world.lock();
        world.sandboxes.remove(id);
        world.containers.retain(|_, container| container.sandbox != id);
        drop(world);
        self.call("remove sandbox".to_owned());
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        Ok(self.world.lock().sandboxes.values().cloned().collect())
    }

    async fn update_sandbox(&self, id: &str, resources: Resources) -> Result<()> {
        let memory = resources.memory_limit.unwrap_or(0);
        if let Some(sandbox) = self.world.lock().sandboxes.get_mut(id) {
            sandbox.resources = resources;
        }
        self.call(format!("update sandbox {memory}"));
        Ok(())
    }

    async fn pin_container(&self, id: &str, cpus: &str) -> Result<()> {
        let name = self.world.lock().containers.get(id).map(|container| container.name.clone());
        self.call(format!("pin {} {cpus}", name.ok_or_else(|| Error::NotFound(id.to_owned()))?));
        Ok(())
    }

    async fn update_container(&self, id: &str, resources: Resources, annotations: BTreeMap<String, String>) -> Result<()> {
        let name = {
            let mut world = self.world.lock();
            let container = world.containers.get_mut(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
            container.annotations = annotations;
            container.name.clone()
        };
        self.call(format!("update {name} {}", resources.memory_limit.unwrap_or(0)));
        Ok(())
    }

    async fn limit_group(&self, group: &str, limits: Resources) -> Result<()> {
        let memory = limits.memory_limit.map(|memory| format!(" {memory}")).unwrap_or_default();
        self.call(format!("limit {group} {}{memory}", limits.cpu_shares.unwrap_or(0)));
        Ok(())
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<Container> {
        let container = {
            let mut world = self.world.lock();
            world.next += 1;
            let container = Container {
                id: format!("c{}", world.next),
                sandbox: sandbox.to_owned(),
                name: config.name.clone(),
                attempt: config.attempt,
                state: ContainerState::Created,
                created: Timestamp::now(),
                started: None,
                finished: None,
                exit_code: None,
                signal: None,
                reason: String::new(),
                message: String::new(),
                image: config.image.clone(),
                image_reference: config.image_reference.clone(),
                image_digest: config.image_digest.clone(),
                log_path: config.log_path.clone(),
                annotations: config.annotations.clone(),
                pid: None,
                user: Some(ProcessUser { uid: 1000, gid: 7, groups: vec![7, 9] }),
                stop_signal: config.stop_signal.clone(),
            };
            world.containers.insert(container.id.clone(), container.clone());
            world.configs.insert(container.id.clone(), config);
            container
        };
        self.call(format!("create {}", container.name));
        Ok(container)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let (name, sandbox, command) = {
            let mut world = self.world.lock();
            let command = world.configs[id].command.clone();
            let container = world.containers.get_mut(id).unwrap();
            if command.first().is_some_and(|word| word == "/missing") {
                return Err(Error::Start("exec: \"/missing\": no such file or directory".to_owned()));
            }
            container.state = ContainerState::Running;
            container.started = Some(Timestamp::now());
            (container.name.clone(), container.sandbox.clone(), command)
        };
        self.call(format!("start {name}"));
        if command.first().is_some_and(|word| word == "exit") {
            self.end(&name, command[1].parse().unwrap());
        }
        self.tell(&sandbox);
        Ok(())
    }

    async fn container_disk_usage(&self, id: &str) -> Result<DiskUsage> {
        let world = self.world.lock();
        let name = world.containers.get(id).map(|container| container.name.clone()).unwrap_or_default();
        Ok(DiskUsage { bytes: world.written.get(&name).copied().unwrap_or(0), inodes: 1 })
    }

    async fn stop_container(&self, id: &str, grace: Duration, _signal: Option<&str>) -> Result<()> {
        self.may_stop()?;
        let is_deaf = self.world.lock().deaf;
        if is_deaf {
            tokio::time::sleep(grace).await;
        }
        let (name, sandbox) = {
            let mut world = self.world.lock();
            let Some(container) = world.containers.get_mut(id) else { return Ok(()) };
            if container.state == ContainerState::Running {
                finish(container, 143);
            }
            (container.name.clone(), container.sandbox.clone())
        };
        self.call(format!("stop {name} {}s", grace.as_secs_f64().round()));
        self.tell(&sandbox);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.world.lock().containers.remove(id);
        Ok(())
    }

    async fn reopen_log(&self, _id: &str) -> Result<()> {
        Err(Error::Unsupported("logs of containers that there are not".to_owned()))
    }

    async fn container_config(&self, _id: &str) -> Result<ContainerConfig> {
        Err(Error::Unsupported("the making of containers that there are not".to_owned()))
    }

    async fn container(&self, id: &str) -> Result<Container> {
        self.world.lock().containers.get(id).cloned().ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    async fn containers(&self, sandbox: Option<&str>) -> Result<Vec<Container>> {
        let world = self.world.lock();
        let wanted = world.containers.values().filter(|container| sandbox.is_none_or(|id| container.sandbox == id));
        Ok(wanted.cloned().collect())
    }

    async fn usages(&self) -> Result<Usages> {
        let world = self.world.lock();
        let running = world.containers.values().filter(|container| container.state == ContainerState::Running);
        Ok(Usages {
            sandboxes: world.sandboxes.keys().map(|id| (id.clone(), world.usage.clone())).collect(),
            containers: running.map(|container| (container.id.clone(), world.usage.clone())).collect(),
        })
    }

    async fn group_usage(&self, _group: &str) -> Result<Usage> {
        let world = self.world.lock();
        let running = world.containers.values().filter(|container| container.state == ContainerState::Running).count() as u64;
        let memory = MemoryUsage { working_set: running * world.usage.memory.working_set, ..MemoryUsage::default() };
        Ok(Usage { memory, ..Usage::default() })
    }

    async fn process_usages(&self) -> Result<BTreeMap<String, ProcessUsage>> {
        Ok(BTreeMap::new())
    }

    fn image_directory(&self) -> std::path::PathBuf {
        "/".into()
    }

    async fn exec_sync(&self, _id: &str, command: &[String], _timeout: Duration, _limit: usize) -> Result<ExecOutput> {
        let word = command.first().cloned().unwrap_or_default();
        self.call(format!("exec {word}"));
        let exit_code = self.world.lock().commands.get(&word).copied().unwrap_or(0);
        Ok(ExecOutput { exit_code, ..ExecOutput::default() })
    }

    async fn exec(&self, _id: &str, _request: ExecRequest) -> Result<Streams> {
        Err(Error::Unsupported("the fake executes nothing".to_owned()))
    }

    async fn attach(&self, _id: &str, _request: ExecRequest) -> Result<Streams> {
        Err(Error::Unsupported("the fake attaches to nothing".to_owned()))
    }

    async fn dial(&self, _sandbox: &str, _port: u16) -> Result<tokio::net::TcpStream> {
        Err(Error::Unsupported("the fake has no network".to_owned()))
    }

    async fn pull_image(&self, reference: &str, _credentials: &[Credentials]) -> Result<Image> {
        self.call(format!("pull {reference}"));
        if reference.contains("broken") {
            return Err(Error::ImageNotFound("manifest unknown".to_owned()));
        }
        if reference.contains("refused") {
            return Err(Error::ImagePull("pull access denied".to_owned()));
        }
        if reference.contains("limited") {
            return Err(Error::RegistryUnavailable("registry answers 429".to_owned()));
        }
        self.world.lock().images.push(reference.to_owned());
        Ok(Image { id: "sha256:1".to_owned(), ..Image::default() })
    }

    async fn take_image(&self, reference: &str) -> Result<Option<Image>> {
        self.call(format!("take {reference}"));
        if !reference.contains("imported") {
            return Ok(None);
        }
        self.world.lock().images.push(reference.to_owned());
        Ok(Some(Image { id: "sha256:1".to_owned(), nodes: vec!["n2".to_owned()], ..Image::default() }))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let here = self.world.lock().images.iter().any(|image| image == reference);
        Ok(here.then(|| Image { id: "sha256:1".to_owned(), ..Image::default() }))
    }

    async fn images(&self) -> Result<Vec<Image>> {
        let ids: Vec<String> = self.world.lock().images.iter().filter(|image| image.starts_with("sha256:")).cloned().collect();
        Ok(ids.into_iter().map(|id| Image { id, size: 100, ..Image::default() }).collect())
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        match id {
            "sha256:stays" => Err(Error::Internal(format!("image store: {id} cannot be removed"))),
            "sha256:taken" => Err(Error::InUse(format!("image {id} is in use"))),
            _ => {
                self.world.lock().images.retain(|image| image != id);
                Ok(())
            }
        }
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        let receiver = self.events.subscribe();
        futures::stream::unfold(receiver, |mut receiver| async move {
            let event = receiver.recv().await.ok()?;
            Some((event, receiver))
        })
        .boxed()
    }
}

/// A kubelet on node `n1` with an API and a runtime in memory.
pub(crate) struct Cell {
    pub(crate) fake: Fake,
    pub(crate) runtime: FakeRuntime,
    pub(crate) tasks: Tasks,
    pub(crate) _failures: base::tasks::Failures,
    pub(crate) _mounts: Mounts,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) eviction: crate::eviction::Settings,
    pub(crate) sharing: Option<crate::sharing::Sharing>,
}

/// What was mounted below a directory goes with it.
pub(crate) struct Mounts(std::path::PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(std::path::Path::new);
        for point in points.filter(|point| point.starts_with(&self.0)) {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

impl Cell {
    pub(crate) fn new() -> Self {
        let (tasks, failures) = Tasks::root();
        let directory = tempfile::tempdir().unwrap();
        Self {
            fake: Fake::default(),
            runtime: FakeRuntime::new(&["img"]),
            tasks,
            _failures: failures,
            _mounts: Mounts(directory.path().to_owned()),
            directory,
            sharing: None,
            eviction: Default::default(),
        }
    }

    pub(crate) async fn start(&self) {
        self.start_as(|_| {}).await;
    }

    pub(crate) async fn start_with(&self, server: Option<Server>) {
        self.start_as(|options| options.server = server).await;
    }

    /// Starts a kubelet whose options `adjust` changes.
    pub(crate) async fn start_as(&self, adjust: impl FnOnce(&mut Options)) -> crate::server::Api {
        let readiness = Readiness::default();
        let mut options = Options {
            node_name: "n1".to_owned(),
            node_ips: vec!["10.1.0.1".parse().unwrap()],
            data_dir: self.directory.path().join("kubelet"),
            volumes_dir: "/nonexistent/volumes".into(),
            pod_logs_dir: self.directory.path().join("logs"),
            log_limit: (10 << 20, 5),
            node_logs_dir: self.directory.path().join("logs"),
            node_log_query: true,
            network: tokio::sync::watch::channel(None).1,
            client: self.fake.client(),
            informers: Informers::new(self.fake.client(), self.tasks.clone()),
            runtime: Arc::new(self.runtime.clone()),
            cluster_dns: Cluster { servers: vec!["10.43.0.10".parse().unwrap()], domain: "cluster.local".to_owned() },
            resolv_conf: "/dev/null".into(),
            version: "v1.36.0".to_owned(),
            zpages: base::zpages::Pages { component: "kubelet", ..Default::default() },
            max_pods: 110,
            pod_max_pids: Some(1000),
            allowed_unsafe_sysctls: Vec::new(),
            seccomp_default: false,
            longest_restart_delay: crate::backoff::MAX,
            static_pods: None,
            verification: Default::default(),
            credential_providers: Default::default(),
            sharing: self.sharing.clone(),
            system_reserved: Default::default(),
            kube_reserved: None,
            cpu_manager: Default::default(),
            cpu_options: Default::default(),
            reserved_cpus: None,
            memory_manager: Default::default(),
            reserved_memory: Default::default(),
            affinity: Default::default(),
            eviction: self.eviction.clone(),
            // Off: how full the disk of this machine is must not matter.
            image_gc: crate::images::garbage::Policy::new((100, 80), Duration::ZERO, Duration::ZERO).unwrap(),
            shutdown: Default::default(),
            labels: Default::default(),
            annotations: Default::default(),
            taints: Vec::new(),
            server: None,
        };
        adjust(&mut options);
        let api = crate::start(options, self.tasks.clone(), readiness.gate("kubelet")).await.unwrap();
        let ready = tokio::time::timeout(Duration::from_secs(60), readiness.wait(&["kubelet"])).await;
        assert!(ready.is_ok(), "not ready: {:?}", readiness.snapshot());
        api
    }

    pub(crate) fn put(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        for container in spec["containers"].as_array_mut().unwrap() {
            container["image"] = container.get("image").cloned().unwrap_or(json!("img"));
            container["imagePullPolicy"] = json!("IfNotPresent");
        }
        let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z"});
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        self.fake.put(&pod);
    }

    /// Lets the kubelet stop, and what runs go on: another one may start.
    pub(crate) async fn stop(&mut self) {
        assert!(self.tasks.drain(Duration::from_secs(60)).await);
        (self.tasks, self._failures) = Tasks::root();
    }

    /// Waits until the pod's status satisfies `condition`.
    pub(crate) async fn until(&self, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        let found = self.fake.until::<Pod>(|pods| {
            let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
            seen = pod.map(|pod| serde_json::to_value(&pod.status).unwrap()).unwrap_or(Value::Null);
            condition(&seen)
        });
        tokio::time::timeout(Duration::from_secs(60), found).await.expect("the pod did not get there");
        seen
    }

    pub(crate) async fn ready(&self, name: &str) -> Value {
        self.until(name, |status| condition(status, "Ready") == "True").await
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.fake.client(), "ns")
    }
}

pub(crate) fn condition(status: &Value, name: &str) -> String {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|condition| condition["type"] == name);
    found.and_then(|condition| condition["status"].as_str().map(str::to_owned)).unwrap_or_default()
}
