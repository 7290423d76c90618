//! Containers: made, started, stopped and removed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::tasks::OnFailure;
use jiff::Timestamp;

use super::Inner;
use super::signals;
use super::state::{ContainerEntry, ContainerRecord, SandboxRecord, write_json};
use crate::api::{
    AppArmor, Container, ContainerConfig, ContainerState, Error, HookStage, ImageSource, NamespaceMode, ProcessUser, Resources,
    Result, Seccomp, SecurityContext,
};
use crate::container::caps::{self, Available};
use crate::container::devices::{self, Node};
use crate::container::helper::HelperRequest;
use crate::container::mapped::{self, Mapped};
use crate::container::seccomp::profile;
use crate::container::spec::Input;
use crate::container::working_dir::{self, Volume};
use crate::container::{anonymous, rootfs, user};
use crate::images::blocking;
use crate::images::store::{Record, Store};
use crate::images::tree::Tree;
use crate::shim::client;
use crate::shim::protocol::{RECORD, Request, StartRequest, TaskState};

/// How long a shim may take to answer what it does at once. One that takes longer hangs.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// How long a killed process usually takes to be gone. One that takes longer waits for CPU time.
const KILL_SOON: Duration = Duration::from_millis(500);
/// How long a killed process may take to be gone; only the kernel can keep it.
const KILL_WAIT: Duration = Duration::from_secs(60);

impl Inner {
    /// See [`crate::api::Runtime::create_container`].
    pub(super) async fn create_container(self: &Arc<Self>, sandbox: &str, mut config: ContainerConfig) -> Result<Container> {
        let entry = self.sandbox(sandbox)?;
        if !entry.is_ready() {
            return Err(Error::Create(format!("sandbox {sandbox} is not ready")));
        }
        let image = self.images.store().find(&config.image)?.ok_or_else(|| Error::NotFound(format!("image {}", config.image)))?;
        let parent = entry.record();
        let target = config.target.as_deref().map(|name| self.process_of(sandbox, name)).transpose()?;
        // The record has the profile's name: what `RuntimeDefault` means may differ in a later version.
        config.security.app_armor = self.profiles.of_container(&config.security).await?.map(AppArmor::Localhost);
        let id = uuid::Uuid::new_v4().simple().to_string();
        let record = ContainerRecord {
            sandbox: sandbox.to_owned(),
            pod_uid: parent.config.pod.uid.clone(),
            image: image.config.clone(),
            created: Timestamp::now(),
            log_path: parent.config.log_directory.join(&config.log_path),
            cgroup: self.group(&format!("{}/{id}", parent.config.cgroup_parent.trim_matches('/'))),
            shared_pid: parent.config.pid != NamespaceMode::Container || target.is_some(),
            user: None,
            id: id.clone(),
            config,
        };
        let dir = self.container_dir(&id);
        let container = Arc::new(ContainerEntry::new(dir.clone(), record, TaskState::default()));
        // From here on the image is in use.
        self.containers.lock().insert(id.clone(), container.clone());
        let (inner, made) = (self.clone(), container.clone());
        let result = blocking(move || inner.prepare(&made.dir, &made.record, &parent, target, &image)).await;
        match result.and_then(|result| result) {
            // It is set for the first time: a container is prepared once.
            Ok(user) => drop(container.user.set(user)),
            Err(error) => {
                self.containers.lock().remove(&id);
                let (inner, container) = (self.clone(), container.clone());
                let _ = blocking(move || inner.discard(&container)).await;
                return Err(error);
            }
        }
        self.events.notify(&container.record.pod_uid);
        Ok(container.view())
    }

    /// A container will be started soon, and the groups that are needed for that are there: see
    /// [`crate::container::cgroup::Cgroups::prepare_move`].
    pub(super) fn expect_start(self: &Arc<Self>) {
        let inner = self.clone();
        self.options.tasks.spawn("prepare for a start", OnFailure::Log, blocking(move || inner.cgroups.prepare_move()));
    }

    /// The first process of a running container of the sandbox.
    fn process_of(&self, sandbox: &str, name: &str) -> Result<u32> {
        let containers = self.containers.lock();
        let named = containers.values().filter(|entry| entry.record.sandbox == sandbox && entry.record.config.name == name);
        let pid = named.into_iter().find_map(|entry| entry.view().pid);
        pid.ok_or_else(|| Error::Create(format!("target container {name:?} does not run")))
    }

    /// Makes the container's group; gives the devices that its processes are given.
    fn make_group(self: &Arc<Self>, record: &ContainerRecord, handler: &str) -> Result<Vec<Node>> {
        let devices = devices::resolve(&record.config.devices).map_err(|error| Error::Create(error.to_string()))?;
        let failed = |error| Error::Create(format!("cgroup: {error}"));
        self.cgroups.create(&record.cgroup, &Resources::default()).map_err(failed)?;
        if !record.config.security.privileged && matches!(handler, "" | "knarr") {
            let refused = |error| Error::Create(format!("device filter (the kernel needs CONFIG_CGROUP_BPF): {error}"));
            self.cgroups.restrict_devices(&record.cgroup, &devices).map_err(refused)?;
        }
        self.expect_start();
        Ok(devices)
    }

    /// Makes all but the process; gives who that will be.
    fn prepare(
        self: &Arc<Self>,
        dir: &Path,
        record: &ContainerRecord,
        parent: &SandboxRecord,
        target: Option<u32>,
        image: &Record,
    ) -> Result<ProcessUser> {
        let failed = |what: &'static str| move |error: std::io::Error| Error::Create(format!("{what}: {error}"));
        std::fs::create_dir_all(dir).map_err(failed("container directory"))?;
        let devices = self.make_group(record, &parent.config.runtime_handler)?;
        let layers: Vec<String> = image.layers.iter().map(|layer| Store::layer_path(layer)).collect();
        let layers_dir = self.images.store().layers_dir();
        let mapped = parent.config.users.zip(parent.holder);
        let mapped = mapped.map(|(range, holder)| Mapped::new(&self.options.run_dir, &record.id, holder, range));
        let mapped = mapped.transpose().map_err(failed("user namespace"))?;
        let root = match &mapped {
            Some(mapped) => mapped.root(&layers_dir, &layers, dir),
            None => rootfs::mount_overlay(&layers_dir, &layers, dir, &dir.join("rootfs")).map(|()| dir.join("rootfs")),
        };
        let root = root.map_err(failed("root file system"))?;
        let user = user::resolve(&root, &image.config.user, &record.config.security)?;
        let mut shared_dir = super::sandbox::shared_dir(&self.sandbox_dir(&record.sandbox));
        let mut config = record.config.clone();
        for (number, mount) in config.mounts.iter_mut().enumerate() {
            match (&mount.image, &mapped) {
                (Some(source), mapped) => {
                    mount.host_path = self.mount_image(dir, number, source, mapped.as_ref())?;
                    mount.readonly = true;
                }
                (None, Some(mapped)) => {
                    let shown = mapped.attach(&mount.host_path, &number.to_string());
                    mount.host_path = shown.map_err(failed("mapping the users of a mount"))?;
                }
                (None, None) => {}
            }
        }
        let mut tree = Tree::open(&root).map_err(failed("root file system"))?;
        let mut anonymous = anonymous::make(&image.config, &config.mounts, &root, dir).map_err(failed("volume of the image"))?;
        if let Some(mapped) = &mapped {
            shared_dir = mapped.attach(&shared_dir, "shared").map_err(failed("mapping the users of the pod's files"))?;
            for (number, volume) in anonymous.iter_mut().enumerate() {
                let shown = mapped.show(&volume.host_path, &format!("volume-{number}"));
                volume.host_path = shown.map_err(failed("volume of the image"))?;
            }
        }
        let resolve = |path: &Path, taken: &BTreeSet<PathBuf>| tree.resolve(path, &|place: &Path| taken.contains(place));
        let input = Input {
            config: &config,
            image: &image.config,
            sandbox: &parent.config,
            user: &user,
            cgroup: &record.cgroup,
            cgroups: &self.cgroups,
            available: self.available,
            shared_dir: &shared_dir,
            shim: parent.holder(),
            root: &root,
            has_users: mapped.is_some(),
            joined: target.or(parent.pod_init),
            oom_floor: self.oom_floor,
            seccomp: seccomp(&record.config.security, self.available)?,
            anonymous: &anonymous,
            devices: &devices,
            resolve: &resolve,
        };
        let spec = input.spec()?;
        let working_dir = input.working_dir();
        let of_pod = config.mounts.iter().zip(&record.config.mounts).filter(|(mount, _)| mount.image.is_none());
        let of_pod = of_pod.map(|(shown, mount)| Volume { shown: &shown.host_path, files: &mount.host_path, is_users: false });
        let of_image =
            anonymous.iter().map(|mount| &*mount.host_path).map(|path| Volume { shown: path, files: path, is_users: true });
        let volumes: Vec<_> = of_pod.chain(of_image).collect();
        working_dir::make(&mut tree, Path::new(&working_dir), &spec, &volumes, mapped.as_ref())
            .map_err(failed("working directory"))?;
        write_json(&dir.join("config.json"), &spec).map_err(failed("configuration"))?;
        let record = ContainerRecord { user: Some(user.clone()), ..record.clone() };
        write_json(&dir.join(RECORD), &record).map_err(failed("container record"))?;
        Ok(user)
    }

    /// Mounts what of an image a container shows. It goes with the container's directory.
    fn mount_image(&self, dir: &Path, number: usize, source: &ImageSource, mapped: Option<&Mapped>) -> Result<PathBuf> {
        let store = self.images.store();
        let image = store.get(&source.id).ok_or_else(|| Error::NotFound(format!("image {}", source.id)))?;
        let layers: Vec<String> = image.layers.iter().map(|layer| Store::layer_path(layer)).collect();
        let failed = |error: std::io::Error| Error::Create(format!("mounting image {}: {error}", source.id));
        let (empty, number, part) = (dir.join("empty"), number.to_string(), &source.sub_path);
        match mapped {
            Some(mapped) => mapped.image(&store.layers_dir(), &layers, &empty, &number, part),
            None => rootfs::mount_image(&store.layers_dir(), &layers, &empty, &dir.join("images").join(number), part),
        }
        .map_err(failed)
    }

    /// See [`crate::api::Runtime::start_container`].
    pub(super) async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let entry = self.container(id)?;
        let _one = self.busy.lock(&format!("container {id}")).await;
        // A server that was killed while it started may not have heard the answer.
        entry.refresh();
        match entry.phase() {
            ContainerState::Created => {}
            ContainerState::Running => return Ok(()),
            ContainerState::Exited => return Err(Error::Start(format!("container {id} has ended: make a new one"))),
        }
        let record = &entry.record;
        let request = Request::Start(StartRequest {
            id: id.to_owned(),
            dir: entry.dir.clone(),
            tty: record.config.tty,
            stdin: record.config.stdin,
            stdin_once: record.config.stdin_once,
            log: record.log_path.clone(),
            log_limit: record.config.log_limit,
            cgroup: record.cgroup.clone(),
            shared_pid: record.shared_pid,
            poststop: self.has_poststop(record),
        });
        let sandbox_dir = self.sandbox_dir(&record.sandbox);
        let result = client::call(&sandbox_dir, &request, self.options.start_limit).await;
        if matches!(result, Err(Error::Timeout(_))) {
            // The shim goes on with it: what began after all would run beside what takes its place.
            if let Err(error) = self.kill(&entry, libc::SIGKILL, true).await {
                tracing::error!(container = id, %error, "a container that did not start in time may start later");
            }
        }
        entry.refresh();
        match &result {
            // An earlier call that was cut off may have started it.
            _ if entry.phase() != ContainerState::Created => {
                self.events.notify(&record.pod_uid);
                return Ok(());
            }
            Ok(()) => {}
            Err(error) => {
                let (inner, entry, message) = (self.clone(), entry.clone(), error.to_string());
                blocking(move || inner.give_up(&entry, 128, "StartError", &message)).await?;
            }
        }
        self.events.notify(&record.pod_uid);
        result
    }

    /// Records the end of a container that has no shim to do it. Blocking.
    pub(super) fn give_up(&self, entry: &ContainerEntry, code: i32, reason: &str, message: &str) {
        if self.has_poststop(&entry.record) {
            let request = HelperRequest::over(&entry.record.id, &entry.dir, &self.oci_root());
            if let Err(error) = request.run(&self.program.path()) {
                tracing::warn!(container = %entry.record.id, %error, "hooks for the end of a container");
            }
        }
        let mut state = entry.state.borrow().clone();
        state.finished = Some(Timestamp::now());
        state.exit_code = Some(code);
        state.signal = (code > 128).then(|| code - 128).filter(|_| reason == "Error");
        state.reason = reason.to_owned();
        state.message = message.to_owned();
        if let Err(error) = state.write(&entry.dir) {
            tracing::error!(container = %entry.record.id, %error, "recording the end of a container");
        }
        entry.advance(state);
        self.events.notify(&entry.record.pod_uid);
    }

    /// See [`crate::api::Runtime::stop_container`].
    pub(super) async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration, signal: Option<&str>) -> Result<()> {
        let Some(entry) = self.containers.lock().get(id).cloned() else { return Ok(()) };
        if entry.phase() != ContainerState::Running {
            return Ok(());
        }
        if !grace.is_zero() {
            let made_with = entry.record.config.stop_signal.as_deref();
            let number = signals::to_stop(signal.or(made_with), &entry.record.image.stop_signal);
            self.kill(&entry, number, false).await?;
            if ended(&entry, grace).await {
                return Ok(());
            }
        }
        self.kill(&entry, libc::SIGKILL, entry.record.shared_pid).await?;
        if ended(&entry, KILL_SOON).await {
            return Ok(());
        }
        let (inner, group) = (self.clone(), entry.record.cgroup.clone());
        blocking(move || inner.cgroups.kill(&group)).await?;
        match ended(&entry, KILL_WAIT).await {
            true => Ok(()),
            false => Err(Error::Timeout(format!("container {id} does not end after SIGKILL"))),
        }
    }

    async fn kill(&self, entry: &ContainerEntry, signal: i32, all: bool) -> Result<()> {
        let request = Request::Kill { id: entry.record.id.clone(), signal, all };
        let dir = self.sandbox_dir(&entry.record.sandbox);
        match client::call(&dir, &request, ANSWER).await {
            // It ended meanwhile.
            Err(Error::NotFound(_)) => {
                if entry.refresh() {
                    self.events.notify(&entry.record.pod_uid);
                }
                Ok(())
            }
            Err(Error::Timeout(why)) => {
                self.end_hung_shim(&entry.record.sandbox, &why).await;
                Ok(())
            }
            // Without a shim the watch kills the container.
            Err(error) if entry.phase() == ContainerState::Running && ended(entry, Duration::from_secs(5)).await => {
                tracing::debug!(%error, "the shim was gone");
                Ok(())
            }
            result => result,
        }
    }

    /// See [`crate::api::Runtime::reopen_log`].
    pub(super) async fn reopen_log(&self, id: &str) -> Result<()> {
        let entry = self.container(id)?;
        client::call(&self.sandbox_dir(&entry.record.sandbox), &Request::ReopenLog { id: id.to_owned() }, ANSWER).await
    }

    /// See [`crate::api::Runtime::remove_container`].
    pub(super) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Some(entry) = self.containers.lock().get(id).cloned() else { return Ok(()) };
        let _one = self.busy.lock(&format!("container {id}")).await;
        if entry.phase() == ContainerState::Running {
            return Err(Error::Internal(format!("container {id} is running: stop it first")));
        }
        let (inner, container) = (self.clone(), entry.clone());
        blocking(move || inner.discard(&container)).await?.map_err(super::internal)?;
        self.containers.lock().remove(id);
        self.events.notify(&entry.record.pod_uid);
        Ok(())
    }

    /// Removes everything a container has but its log. Blocking.
    pub(super) fn discard(&self, entry: &ContainerEntry) -> std::io::Result<()> {
        self.cgroups.kill(&entry.record.cgroup);
        self.forget_external(entry);
        let state = self.oci_root().join(&entry.record.id);
        base::trees::remove(&state)?;
        self.cgroups.remove(&entry.record.cgroup)?;
        mapped::remove(&mapped::directory(&self.options.run_dir, &entry.record.id))?;
        rootfs::remove(&entry.dir)
    }

    /// The OCI runtime of a container, while its sandbox is there.
    fn handler_of(&self, record: &ContainerRecord) -> Option<String> {
        self.sandboxes.lock().get(&record.sandbox).map(|sandbox| sandbox.record.lock().config.runtime_handler.clone())
    }

    /// Whether hooks run for the end of a container. Another OCI runtime runs them when its container is deleted.
    fn has_poststop(&self, record: &ContainerRecord) -> bool {
        let has_any = record.config.hooks.iter().any(|hook| hook.stage == HookStage::Poststop);
        has_any && self.handler_of(record).is_some_and(|handler| matches!(handler.as_str(), "" | "knarr"))
    }

    /// Another OCI runtime has a state of its own.
    fn forget_external(&self, entry: &ContainerEntry) {
        let handler = self.handler_of(&entry.record);
        let Some(Ok(Some(program))) = handler.map(|handler| super::handler(&handler)) else { return };
        let deleted = std::process::Command::new(program)
            .arg("--root")
            .arg(self.oci_root())
            .args(["delete", "--force", &entry.record.id])
            .output();
        if let Err(error) = deleted {
            tracing::warn!(container = %entry.record.id, %error, "the OCI runtime could not delete the container");
        }
    }

    pub(super) fn container_dir(&self, id: &str) -> PathBuf {
        self.options.dir.join("containers").join(id)
    }
}

/// Waits until the container has ended; false when it takes longer.
async fn ended(entry: &ContainerEntry, timeout: Duration) -> bool {
    let mut state = entry.state.subscribe();
    tokio::time::timeout(timeout, state.wait_for(|state| state.finished.is_some())).await.is_ok()
}

/// The system call filter of a container.
fn seccomp(security: &SecurityContext, available: Available) -> Result<Option<serde_json::Value>> {
    match &security.seccomp {
        _ if security.privileged => Ok(None),
        None => Ok(None),
        Some(Seccomp::RuntimeDefault) => Ok(Some(profile::runtime_default(&caps::for_container(security, available)))),
        Some(Seccomp::Localhost(path)) => profile::from_file(path).map(Some).map_err(Error::Create),
    }
}
