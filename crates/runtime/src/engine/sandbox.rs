//! Sandboxes: made, stopped and removed.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::OnFailure;
use jiff::Timestamp;
use nix::mount::{MsFlags, mount};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::Inner;
use super::container::ANSWER;
use super::state::{SandboxEntry, SandboxRecord, read_json, write_json};
use crate::api::{ContainerState, Error, NamespaceMode, Result, Sandbox, SandboxConfig, SandboxState};
use crate::container::{cgroup, rootfs};
use crate::images::blocking;
use crate::shim::client::{self, Client};
use crate::shim::protocol::{Request, ShimConfig, ShimState, TaskState};

/// How long a shim may take to set up its namespaces.
const SHIM_START: Duration = Duration::from_secs(30);
/// How long it may take to end.
const SHIM_END: Duration = Duration::from_secs(5);
/// Where the pod's own memory is mounted, below the sandbox's directory.
const MEMORY: &str = "memory";
/// Pause before a shim that lives is connected to again.
const RECONNECT: Duration = Duration::from_secs(1);

impl Inner {
    /// See [`crate::api::Runtime::run_sandbox`].
    pub(super) async fn run_sandbox(self: &Arc<Self>, config: SandboxConfig) -> Result<Sandbox> {
        let _one = self.busy.lock(&format!("{}/{}", config.pod.uid, config.attempt)).await;
        let same = |record: &SandboxRecord| record.config.pod.uid == config.pod.uid && record.config.attempt == config.attempt;
        if let Some(known) = self.sandboxes.lock().values().find(|entry| same(&entry.record.lock())) {
            return Ok(known.view());
        }
        let runtime = super::handler(&config.runtime_handler)?;
        check_group(&config.cgroup_parent)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let dir = self.sandbox_dir(&id);
        match self.make_sandbox(&id, &dir, config, runtime).await {
            Ok(entry) => {
                let entry = Arc::new(entry);
                self.sandboxes.lock().insert(id, entry.clone());
                self.watch(entry.clone());
                self.events.notify(&entry.pod_uid());
                self.forget_past(&entry.pod_uid()).await.unwrap_or_else(|error| tracing::warn!(%error, "containers of the past"));
                Ok(entry.view())
            }
            Err(error) => {
                self.scrap_sandbox(&id).await;
                Err(error)
            }
        }
    }

    /// See [`crate::api::Runtime::forget_past`].
    pub(super) async fn forget_past(self: &Arc<Self>, pod_uid: &str) -> Result<()> {
        if !self.past.has(pod_uid) {
            return Ok(());
        }
        let (inner, pod_uid) = (self.clone(), pod_uid.to_owned());
        blocking(move || inner.past.forget(&pod_uid)).await?.map_err(super::internal)
    }

    async fn make_sandbox(
        self: &Arc<Self>,
        id: &str,
        dir: &Path,
        config: SandboxConfig,
        runtime: Option<PathBuf>,
    ) -> Result<SandboxEntry> {
        let shim_config = ShimConfig {
            new_net: !config.host_network,
            new_ipc: config.ipc != NamespaceMode::Node,
            new_uts: !config.host_network,
            users: config.users,
            new_pid: config.pid == NamespaceMode::Pod,
            hostname: config.hostname.clone(),
            sysctls: config.sysctls.clone(),
            cgroup: self.group(&config.cgroup_parent),
            oci_root: self.oci_root(),
            runtime,
        };
        let (inner, config_copy, directory) = (self.clone(), config.clone(), dir.to_owned());
        blocking(move || inner.prepare_sandbox(&directory, &config_copy, &shim_config))
            .await?
            .map_err(|error| Error::Create(format!("sandbox: {error}")))?;
        let shim = self.spawn_shim(dir).await?;
        let netns = if config.host_network { None } else { Some(self.pin_netns(id, shim.holder.unwrap_or(shim.pid)).await?) };
        let ips = match (&self.options.network, &netns) {
            (Some(network), Some(netns)) => network.attach(id, netns, &config).await?,
            _ => Vec::new(),
        };
        let record = SandboxRecord {
            id: id.to_owned(),
            config,
            created: Timestamp::now(),
            state: SandboxState::Ready,
            ips,
            netns,
            shim: shim.pid,
            pod_init: shim.pod_init,
            holder: shim.holder,
        };
        write_json(&dir.join("sandbox.json"), &record).map_err(|error| Error::Create(format!("sandbox: {error}")))?;
        Ok(SandboxEntry { dir: dir.to_owned(), record: Mutex::new(record) })
    }

    fn prepare_sandbox(self: &Arc<Self>, dir: &Path, config: &SandboxConfig, shim: &ShimConfig) -> std::io::Result<()> {
        std::fs::create_dir_all(dir.join(MEMORY))?;
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        write_json(&dir.join("shim.json"), shim)?;
        self.cgroups.create(&self.group(&config.cgroup_parent), &config.resources)?;
        self.expect_start();
        writable_files(&dir.join(MEMORY), config)?;
        if !config.log_directory.as_os_str().is_empty() {
            std::fs::create_dir_all(&config.log_directory)?;
        }
        Ok(())
    }

    async fn spawn_shim(&self, dir: &Path) -> Result<ShimState> {
        let failed = |error: std::io::Error| Error::Create(format!("starting the pod's shim: {error}"));
        let log = std::fs::File::create(dir.join("shim.log")).map_err(failed)?;
        // Reaped by tokio when it ends before this process; otherwise by init.
        let mut child = tokio::process::Command::new(self.program.path())
            .arg0("knarr")
            .arg("shim")
            .arg(dir)
            .args(base::budgets::descriptors::inherited().map(|limit| limit.to_string()))
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let Some(stdout) = child.stdout.take() else { return Err(Error::Create("the shim has no output".to_owned())) };
        let mut line = String::new();
        match tokio::time::timeout(SHIM_START, BufReader::new(stdout).read_line(&mut line)).await {
            Ok(Ok(_)) if line.trim() == "ok" => {}
            Ok(Ok(_)) => {
                let log = std::fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
                return Err(Error::Create(format!("the pod's shim did not start: {} {}", line.trim(), log.trim())));
            }
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => {
                let _ = child.start_kill();
                return Err(Error::Timeout("the pod's shim did not start".to_owned()));
            }
        }
        read_json(&dir.join("shim-state.json")).map_err(failed)
    }

    /// Gives the network namespace a name that outlives its processes, so that it can be released in order.
    async fn pin_netns(&self, id: &str, shim: u32) -> Result<PathBuf> {
        let path = self.options.run_dir.join("netns").join(id);
        let target = path.clone();
        let pin = move || -> std::io::Result<()> {
            std::fs::write(&target, "")?;
            let source = PathBuf::from(format!("/proc/{shim}/ns/net"));
            Ok(mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
        };
        blocking(pin).await?.map_err(|error| Error::Create(format!("network namespace: {error}")))?;
        Ok(path)
    }

    /// Follows the shim's events as long as it lives.
    pub(super) fn watch(self: &Arc<Self>, entry: Arc<SandboxEntry>) {
        let inner = self.clone();
        let name = format!("watch sandbox {}", entry.record.lock().id);
        self.options.tasks.spawn_until_cancelled(name, OnFailure::Log, async move {
            loop {
                match Client::connect(&entry.dir).await {
                    Ok(client) => inner.follow(&entry, client).await,
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => break,
                    Err(error) => {
                        // It lives, but this process lacks something, such as a descriptor: nothing tells when it has it.
                        tracing::warn!(sandbox = %entry.record.lock().id, %error, "cannot connect to the pod's shim, trying again");
                        tokio::time::sleep(RECONNECT).await;
                    }
                }
            }
            inner.shim_gone(&entry).await;
            Ok::<_, Error>(())
        });
    }

    /// Takes in events until the connection ends.
    async fn follow(&self, entry: &SandboxEntry, mut client: Client) {
        if client.call(&Request::Watch).await.is_ok() {
            // What happened before the watch began.
            self.refresh(entry);
            while let Ok(event) = client.event().await {
                self.advance(&event.container, event.state);
            }
        }
    }

    /// Ends a shim that does not answer; what it held is then lost like with any shim that died.
    pub(super) async fn end_hung_shim(&self, id: &str, why: &str) {
        let Ok(entry) = self.sandbox(id) else { return };
        tracing::error!(sandbox = id, why, "the pod's shim hangs: it is killed, and its containers with it");
        let (shim, dir) = (entry.record.lock().shim, entry.dir.clone());
        // A task that fails to do this is a shim that is gone.
        let _ = blocking(move || end_shim(shim, &dir)).await;
    }

    fn refresh(&self, entry: &SandboxEntry) {
        let id = entry.record.lock().id.clone();
        for container in self.containers_of(&id) {
            if container.refresh() {
                self.events.notify(&container.record.pod_uid);
            }
        }
    }

    fn advance(&self, container: &str, state: TaskState) {
        let entry = self.containers.lock().get(container).cloned();
        if let Some(entry) = entry
            && entry.advance(state)
        {
            self.events.notify(&entry.record.pod_uid);
        }
    }

    /// The shim ended. When nobody told it to, its containers have nobody to look after them: they are killed.
    pub(super) async fn shim_gone(self: &Arc<Self>, entry: &Arc<SandboxEntry>) {
        let id = entry.record.lock().id.clone();
        if !entry.set_state(SandboxState::NotReady).unwrap_or(true) {
            return;
        }
        tracing::warn!(sandbox = %id, "the pod's shim is gone: its containers are killed");
        let inner = self.clone();
        if let Err(error) = blocking(move || inner.end_without_shim(&id)).await {
            tracing::error!(%error, "killing the containers of a sandbox without a shim");
        }
        self.events.notify(&entry.pod_uid());
    }

    /// Kills and records as ended what runs of a sandbox that does not serve any more. Blocking.
    pub(super) fn end_without_shim(&self, sandbox: &str) {
        for container in self.containers_of(sandbox) {
            container.refresh();
            if container.phase() == ContainerState::Running {
                self.cgroups.kill(&container.record.cgroup);
                self.give_up(&container, 137, "Error", "the pod's shim was killed");
            }
        }
    }

    /// See [`crate::api::Runtime::stop_sandbox`].
    pub(super) async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Some(entry) = self.sandboxes.lock().get(id).cloned() else { return Ok(()) };
        let _one = self.busy.lock(&format!("sandbox {id}")).await;
        for container in self.containers_of(id) {
            if container.phase() == ContainerState::Running {
                self.stop_container(&container.record.id, Duration::ZERO, None).await?;
            }
        }
        let was_ready = entry.set_state(SandboxState::NotReady).map_err(super::internal)?;
        if was_ready {
            // A shim that is gone needs no shutdown.
            let _ = client::call(&entry.dir, &Request::Shutdown, ANSWER).await;
            let (shim, dir) = (entry.record.lock().shim, entry.dir.clone());
            blocking(move || await_shim(shim, &dir)).await?;
        }
        if let Some(network) = &self.options.network {
            network.detach(id).await?;
        }
        self.release(id).await?;
        if was_ready {
            self.events.notify(&entry.pod_uid());
        }
        Ok(())
    }

    /// Lets go of the mounts of a sandbox.
    async fn release(&self, id: &str) -> Result<()> {
        let (netns, dir) = (self.options.run_dir.join("netns").join(id), self.sandbox_dir(id));
        let work = move || -> std::io::Result<()> {
            rootfs::unmount(&netns)?;
            remove_file(&netns)?;
            rootfs::unmount(&dir.join(MEMORY))?;
            // Of an earlier version.
            rootfs::unmount(&dir.join("shm"))
        };
        blocking(work).await?.map_err(super::internal)
    }

    /// See [`crate::api::Runtime::remove_sandbox`].
    pub(super) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Some(entry) = self.sandboxes.lock().get(id).cloned() else { return Ok(()) };
        self.stop_sandbox(id).await?;
        let containers = self.containers_of(id);
        futures::future::try_join_all(containers.iter().map(|container| self.remove_container(&container.record.id))).await?;
        let (record, dir, inner) = (entry.record(), entry.dir.clone(), self.clone());
        let work = move || {
            end_shim(record.shim, &dir);
            inner.release_group(&record.id, &inner.group(&record.config.cgroup_parent));
            base::trees::remove(&dir)
        };
        blocking(work).await?.map_err(super::internal)?;
        self.sandboxes.lock().remove(id);
        Ok(())
    }

    /// Removes the pod's cgroup with what half-made containers left in it, unless another sandbox of the pod has it too. Blocking.
    fn release_group(&self, sandbox: &str, group: &str) {
        let shared = self.sandboxes.lock().values().any(|other| {
            let record = other.record.lock();
            record.id != sandbox && self.group(&record.config.cgroup_parent) == group
        });
        if shared || group == self.options.cgroup_root {
            return;
        }
        self.cgroups.kill(group);
        if let Err(error) = self.cgroups.remove(group) {
            tracing::warn!(group, %error, "the pod's cgroup cannot be removed");
        }
    }

    /// Removes what a sandbox that did not come to be has left, and last its network: that may be waited for, as long as the
    /// network is not there yet.
    pub(super) async fn scrap_sandbox(self: &Arc<Self>, id: &str) {
        self.scrap_locally(id).await;
        if let Some(network) = &self.options.network
            && let Err(error) = network.detach(id).await
        {
            tracing::warn!(sandbox = id, %error, "releasing the network of a failed sandbox");
        }
    }

    /// Removes all but its network. One that is forgotten then is released when the network starts anew.
    pub(super) async fn scrap_locally(self: &Arc<Self>, id: &str) {
        let dir = self.sandbox_dir(id);
        let work = {
            let (dir, id, inner) = (dir.clone(), id.to_owned(), self.clone());
            move || {
                if let Ok(state) = read_json::<ShimState>(&dir.join("shim-state.json")) {
                    end_shim(state.pid, &dir);
                }
                if let Ok(config) = read_json::<ShimConfig>(&dir.join("shim.json"))
                    && !config.cgroup.is_empty()
                {
                    inner.release_group(&id, &config.cgroup);
                }
            }
        };
        let _ = blocking(work).await;
        let released = self.release(id).await;
        let removed = blocking(move || base::trees::remove(&dir)).await;
        if let (Err(error), _) | (_, Err(error)) = (released, removed) {
            tracing::warn!(sandbox = id, %error, "removing a failed sandbox");
        }
    }
}

/// Makes what the pod's containers may write to and share: /dev/shm, /etc/hostname and /etc/resolv.conf. They are together in
/// a memory of their own at `dir`, whose limit is all that a container can fill by them.
fn writable_files(dir: &Path, config: &SandboxConfig) -> std::io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), dir, Some("tmpfs"), flags, Some("mode=0755,size=67108864"))?;
    let shm = dir.join("shm");
    std::fs::create_dir(&shm)?;
    std::fs::set_permissions(&shm, std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    let write = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text)?;
        std::fs::set_permissions(dir.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o644))
    };
    write("hostname", &format!("{}\n", config.hostname))?;
    config.resolv_conf.as_deref().map_or(Ok(()), |text| write("resolv.conf", text))
}

/// Where the files of [`writable_files`] are in a sandbox's directory. A sandbox of an earlier version has them in the
/// directory itself.
pub(super) fn shared_dir(sandbox: &Path) -> PathBuf {
    let own = sandbox.join(MEMORY);
    if own.is_dir() { own } else { sandbox.to_owned() }
}

/// The process `pid`, if it is the shim of `dir`.
fn shim_handle(pid: u32, dir: &Path) -> Option<OwnedFd> {
    let handle = cgroup::pidfd(pid as i32)?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_ours = command.split(|byte| *byte == 0).any(|argument| argument == dir.as_os_str().as_encoded_bytes());
    is_ours.then_some(handle)
}

/// Kills the process if it is the shim of `dir`, and waits for its end. Blocking.
fn end_shim(pid: u32, dir: &Path) {
    if let Some(handle) = shim_handle(pid, dir) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL);
        cgroup::wait_readable(&handle, SHIM_END);
    }
}

/// Waits for the end of a shim that was told to shut down: it may still be making a container. Blocking.
fn await_shim(pid: u32, dir: &Path) {
    if let Some(handle) = shim_handle(pid, dir) {
        cgroup::wait_readable(&handle, SHIM_END);
    }
}

fn check_group(group: &str) -> Result<()> {
    match Path::new(group).components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir)) {
        true => Ok(()),
        false => Err(Error::Create(format!("cgroup parent {group:?} is not a plain path"))),
    }
}

fn remove_file(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
