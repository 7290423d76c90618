//! The calls of the kubelet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ::runtime::api::{
    self, ContainerConfig, Credentials, Error, ExecOutput, Features, Image, ProcessUsage, Resources, Result, Runtime,
    RuntimeEvent, Sandbox, SandboxConfig, Streams, Usage, Usages,
};
use ::runtime::{DiskUsage, Groups};
use async_trait::async_trait;
use futures::stream::BoxStream;
use grpc::Code;

use super::records::{ContainerRecord, Log, internal};
use super::{Client, Inner, LIMIT, PULL, error, follow, requests};
use crate::convert;
use crate::messages::*;

/// Time between two looks at a container that was sent a signal.
const ENDING: Duration = Duration::from_millis(200);

#[async_trait]
impl Runtime for Client {
    fn version(&self) -> String {
        self.0.version.clone()
    }

    fn features(&self) -> Features {
        self.0.features
    }

    async fn check_handler(&self, handler: &str) -> Result<()> {
        let known = self.0.call(StatusRequest::default()).await?.runtime_handlers;
        // Runtimes that name none are asked with the sandbox.
        if handler.is_empty() || known.is_empty() || known.iter().any(|one| one.name == handler) {
            return Ok(());
        }
        let names: Vec<_> = known.into_iter().map(|one| one.name).filter(|name| !name.is_empty()).collect();
        let text = format!("the container runtime has no handler {handler:?}; it has {}", names.join(", "));
        Err(Error::Unsupported(text))
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox> {
        let inner = &self.0;
        if let Some(id) = inner.leftover(&config).await? {
            return inner.sandbox(&id).await;
        }
        inner
            .blocking({
                let (group, limits) = (config.cgroup_parent.clone(), config.resources.clone());
                move |groups| groups.create(&group, &limits)
            })
            .await?;
        let request = RunPodSandboxRequest {
            config: Some(requests::sandbox(&config, &inner.groups)),
            runtime_handler: config.runtime_handler.clone(),
        };
        let made = match inner.act(request, LIMIT).await {
            Ok(made) => inner.keep(made.pod_sandbox_id, &config).await,
            Err(refused) => Err(error(refused)),
        };
        match made {
            Ok(id) => inner.sandbox(&id).await,
            Err(error) => {
                // The runtime may still make it, in its own time: what is then in the group stays there, and the group with it.
                if let Err(left) = inner.remove_group(&config.pod.uid, config.cgroup_parent).await {
                    tracing::warn!(pod = config.pod.uid, error = %left, "the cgroup of a pod without a sandbox is left");
                }
                Err(error)
            }
        }
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        gone(self.0.act(StopPodSandboxRequest { pod_sandbox_id: id.to_owned() }, LIMIT).await)
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let inner = &self.0;
        let containers = inner.listed(Some(id)).await?;
        // A sandbox that was made in spite of an answer that says no has no record.
        let listed = inner.listed_sandboxes().await?.into_iter().find(|sandbox| sandbox.id == id);
        gone(inner.act(RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() }, LIMIT).await)?;
        for container in &containers {
            inner.records.containers.forget(&container.id).await;
        }
        let recorded = inner.records.sandboxes.get(id).map(|config| (config.pod.uid, config.cgroup_parent));
        let labelled = listed.and_then(|mut sandbox| Some((sandbox.metadata?.uid, sandbox.labels.remove(requests::GROUP)?)));
        if let Some((uid, group)) = recorded.or(labelled) {
            inner.remove_group(&uid, group).await?;
        }
        inner.records.sandboxes.forget(id).await;
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        self.0.sandboxes().await
    }

    async fn update_sandbox(&self, id: &str, resources: Resources) -> Result<()> {
        let mut config = self.0.made(id)?;
        let (group, limits) = (config.cgroup_parent.clone(), resources.clone());
        self.0.blocking(move |groups| groups.update(&group, &limits)).await?;
        config.resources = resources;
        self.0.records.sandboxes.keep(id, config).await
    }

    async fn limit_group(&self, group: &str, limits: Resources) -> Result<()> {
        let group = group.to_owned();
        self.0.blocking(move |groups| groups.limit(&group, &limits)).await
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<api::Container> {
        let inner = &self.0;
        let made = inner.made(sandbox)?;
        inner.check_user(&config).await?;
        // The runtime makes the file, not its directory.
        let log_path = made.log_directory.join(&config.log_path);
        if let Some(directory) = log_path.parent() {
            tokio::fs::create_dir_all(directory).await.map_err(internal)?;
        }
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(requests::container(&config, &made, &inner.groups)?),
            sandbox_config: Some(requests::sandbox(&made, &inner.groups)),
        };
        let created = inner.act(request, LIMIT).await.map_err(|error| Error::Create(error.message))?;
        let record = ContainerRecord {
            sandbox: sandbox.to_owned(),
            annotations: config.annotations,
            image_reference: config.image_reference,
            image_digest: config.image_digest,
            log: config.log_limit.map(|(bytes, files)| Log { path: log_path, bytes, files }),
            resources: config.resources,
        };
        inner.records.containers.keep(&created.container_id, record).await?;
        inner.container(&created.container_id).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let started = self.0.act(StartContainerRequest { container_id: id.to_owned() }, LIMIT).await;
        started.map(drop).map_err(|error| Error::Start(error.message))
    }

    async fn update_container(&self, id: &str, resources: Resources, annotations: BTreeMap<String, String>) -> Result<()> {
        let record = self.0.records.containers.get(id).ok_or_else(|| Error::NotFound(format!("container {id}")))?;
        let linux = Some(convert::resources(&resources));
        let request = UpdateContainerResourcesRequest { container_id: id.to_owned(), linux, annotations: annotations.clone() };
        self.0.call(request).await?;
        self.0.records.containers.keep(id, ContainerRecord { resources, annotations, ..record }).await
    }

    async fn pin_container(&self, id: &str, cpus: &str) -> Result<()> {
        let linux = LinuxContainerResources { cpuset_cpus: cpus.to_owned(), ..Default::default() };
        let request = UpdateContainerResourcesRequest { container_id: id.to_owned(), linux: Some(linux), ..Default::default() };
        self.0.call(request).await.map(drop)
    }

    async fn container_disk_usage(&self, id: &str) -> Result<DiskUsage> {
        let answer = self.0.call(ContainerStatsRequest { container_id: id.to_owned() }).await?;
        let layer = answer.stats.and_then(|stats| stats.writable_layer).unwrap_or_default();
        let of = |value: Option<UInt64Value>| value.map(|value| value.value).unwrap_or_default();
        Ok(DiskUsage { bytes: of(layer.used_bytes), inodes: of(layer.inodes_used) })
    }

    async fn stop_container(&self, id: &str, grace: Duration, signal: Option<&str>) -> Result<()> {
        let grace = match signal {
            Some(signal) if !self.0.stops_by(id, signal).await => self.0.send(id, signal, grace).await?,
            _ => grace,
        };
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: i64::try_from(seconds).unwrap_or(i64::MAX) };
        gone(self.0.act(request, grace.saturating_add(LIMIT)).await)
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        self.0.call(ReopenContainerLogRequest { container_id: id.to_owned() }).await.map(drop)
    }

    async fn container_config(&self, _: &str) -> Result<ContainerConfig> {
        Err(Error::Unsupported(
            "a runtime behind --container-runtime-endpoint does not tell what its containers were made from".to_owned(),
        ))
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        gone(self.0.act(RemoveContainerRequest { container_id: id.to_owned() }, LIMIT).await)?;
        self.0.records.containers.forget(id).await;
        Ok(())
    }

    async fn container(&self, id: &str) -> Result<api::Container> {
        self.0.container(id).await
    }

    async fn containers(&self, sandbox: Option<&str>) -> Result<Vec<api::Container>> {
        self.0.containers(sandbox).await
    }

    async fn usages(&self) -> Result<Usages> {
        let groups = self.0.groups_of_pods().await?;
        let containers = self.0.running().await?;
        let read = move |cgroups: &Groups| {
            let of_container = |(id, pod): &(String, String)| {
                Some((id.clone(), of_container(groups.get(pod)?, id).iter().find_map(|group| cgroups.usage(group))?))
            };
            Ok(Usages {
                containers: containers.iter().filter_map(of_container).collect(),
                sandboxes: groups.iter().filter_map(|(id, group)| Some((id.clone(), cgroups.usage(group)?))).collect(),
            })
        };
        self.0.blocking(read).await
    }

    async fn group_usage(&self, group: &str) -> Result<Usage> {
        let name = group.to_owned();
        let read = move |groups: &Groups| Ok(groups.usage(&name));
        self.0.blocking(read).await?.ok_or_else(|| Error::NotFound(format!("cgroup {group}")))
    }

    async fn process_usages(&self) -> Result<BTreeMap<String, ProcessUsage>> {
        let groups = self.0.groups_of_pods().await?;
        let containers = self.0.running().await?;
        let read = move |cgroups: &Groups| {
            let usage = |(id, pod): &(String, String)| {
                Some((id.clone(), of_container(groups.get(pod)?, id).iter().find_map(|group| cgroups.process_usage(group))?))
            };
            Ok(containers.iter().filter_map(usage).collect())
        };
        self.0.blocking(read).await
    }

    fn image_directory(&self) -> PathBuf {
        self.0.image_directory.clone()
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration, limit: usize) -> Result<ExecOutput> {
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        // The runtime ends the command; what it says of that has to arrive.
        let answer = self.0.call_within(request, timeout.saturating_add(LIMIT)).await?;
        let first = |mut bytes: Vec<u8>| {
            bytes.truncate(limit);
            bytes
        };
        Ok(ExecOutput { exit_code: answer.exit_code, stdout: first(answer.stdout), stderr: first(answer.stderr) })
    }

    async fn exec(&self, id: &str, request: api::ExecRequest) -> Result<Streams> {
        self.0.exec(id, request).await
    }

    async fn attach(&self, id: &str, request: api::ExecRequest) -> Result<Streams> {
        self.0.attach(id, &request).await
    }

    /// Connects in the pod's network namespace, as the runtime's own port forwarding does, without its streams in between.
    async fn dial(&self, sandbox: &str, port: u16) -> Result<tokio::net::TcpStream> {
        let found = self.0.sandbox(sandbox).await?;
        if found.state != api::SandboxState::Ready {
            return Err(Error::NotFound(format!("sandbox {sandbox} is not ready: it")));
        }
        let on_host = self.0.made(sandbox)?.host_network;
        if found.netns.is_none() && !on_host {
            return Err(Error::Unsupported("the container runtime does not tell the pod's network namespace".to_owned()));
        }
        ::runtime::dial(found.netns, port).await
    }

    async fn pull_image(&self, reference: &str, credentials: &[Credentials]) -> Result<Image> {
        let mut attempts: Vec<_> = credentials.iter().map(Some).collect();
        if attempts.is_empty() {
            attempts.push(None);
        }
        let mut refused = Error::ImagePull(format!("{reference}: no credentials"));
        for credentials in attempts {
            let auth = credentials.map(|one| AuthConfig {
                username: one.username.clone(),
                password: one.password.clone(),
                ..Default::default()
            });
            let image = Some(ImageSpec { image: reference.to_owned(), ..Default::default() });
            match self.0.act(PullImageRequest { image, auth, sandbox_config: None }, PULL).await {
                Ok(pulled) => {
                    let found = self.0.image(&pulled.image_ref).await?;
                    return found.ok_or_else(|| Error::ImagePull(format!("{reference} was pulled and is not there")));
                }
                Err(error) => refused = not_pulled(error),
            }
        }
        Err(refused)
    }

    /// Nodes share what the built-in runtime has.
    async fn take_image(&self, _: &str) -> Result<Option<Image>> {
        Ok(None)
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        self.0.image(reference).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        let listed = self.0.call(ListImagesRequest::default()).await?;
        Ok(listed.images.into_iter().map(super::answers::image).collect())
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        // The interface removes also what is used.
        let of = |container: &Container| container.image_id == id || container.image_ref == id;
        if let Some(container) = self.0.call(ListContainersRequest::default()).await?.containers.iter().find(|one| of(one)) {
            return Err(Error::InUse(format!("image {id} is used by container {}", container.id)));
        }
        let image = Some(ImageSpec { image: id.to_owned(), ..Default::default() });
        gone(self.0.act(RemoveImageRequest { image }, LIMIT).await)
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        follow::events(self.0.seen.subscribe())
    }
}

impl Inner {
    /// Works on cgroups.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Groups) -> std::io::Result<T> + Send + 'static) -> Result<T> {
        let groups = self.groups.clone();
        tokio::task::spawn_blocking(move || work(&groups)).await.map_err(internal)?.map_err(internal)
    }

    /// The cgroups of the pods, by sandbox.
    async fn groups_of_pods(&self) -> Result<BTreeMap<String, String>> {
        let sandboxes = self.listed_sandboxes().await?.into_iter();
        Ok(sandboxes.filter_map(|one| Some((one.id.clone(), self.records.sandboxes.get(&one.id)?.cgroup_parent))).collect())
    }

    /// Running containers, each with its sandbox.
    async fn running(&self) -> Result<Vec<(String, String)>> {
        let containers = self.listed(None).await?.into_iter().filter(|one| one.state == ContainerState::Running as i32);
        Ok(containers.map(|one| (one.id, one.pod_sandbox_id)).collect())
    }

    /// With what a sandbox was made.
    fn made(&self, sandbox: &str) -> Result<SandboxConfig> {
        self.records.sandboxes.get(sandbox).ok_or_else(|| Error::NotFound(format!("record of sandbox {sandbox}")))
    }

    /// Keeps with what a sandbox was made. One that is not kept cannot be used, and goes.
    async fn keep(&self, sandbox: String, config: &SandboxConfig) -> Result<String> {
        match self.records.sandboxes.keep(&sandbox, config.clone()).await {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                gone(self.act(RemovePodSandboxRequest { pod_sandbox_id: sandbox }, LIMIT).await)?;
                Err(error)
            }
        }
    }

    /// Removes the cgroup of a pod, unless it has a sandbox, which is in it.
    async fn remove_group(&self, pod: &str, group: String) -> Result<()> {
        let sandboxes = self.listed_sandboxes().await?;
        if sandboxes.iter().any(|sandbox| sandbox.metadata.as_ref().is_some_and(|metadata| metadata.uid == pod)) {
            return Ok(());
        }
        self.blocking(move |groups| groups.remove(&group)).await
    }

    /// The sandbox that a run before has made, where it serves. One that does not is in the way: names are taken.
    async fn leftover(&self, config: &SandboxConfig) -> Result<Option<String>> {
        for found in self.listed_sandboxes().await? {
            let metadata = found.metadata.unwrap_or_default();
            if metadata.uid != config.pod.uid || metadata.attempt != config.attempt {
                continue;
            }
            if found.state == PodSandboxState::Ready as i32 {
                self.records.sandboxes.keep(&found.id, config.clone()).await?;
                return Ok(Some(found.id));
            }
            gone(self.act(StopPodSandboxRequest { pod_sandbox_id: found.id.clone() }, LIMIT).await)?;
            gone(self.act(RemovePodSandboxRequest { pod_sandbox_id: found.id }, LIMIT).await)?;
        }
        Ok(None)
    }

    /// Whether a container that must not run as root would: the interface has no word for it, upstream's kubelet looks at the image, too.
    async fn check_user(&self, config: &ContainerConfig) -> Result<()> {
        if !config.security.run_as_non_root {
            return Ok(());
        }
        let user = match config.security.run_as_user {
            Some(user) => api::User::id(user),
            None => self.image(&config.image).await?.and_then(|image| image.user),
        };
        match user {
            Some(api::User::Id(0)) | None => {
                Err(Error::Create("container has runAsNonRoot and image will run as root".to_owned()))
            }
            Some(api::User::Id(_)) => Ok(()),
            Some(user) => {
                let text =
                    format!("container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root");
                Err(Error::Create(text))
            }
        }
    }

    /// Whether the runtime sends a container this signal first. Runtimes from before KEP-4960 do not know the one that it was made with,
    /// and tell none.
    async fn stops_by(&self, id: &str, signal: &str) -> bool {
        let told = self.status(id).await.ok().and_then(|answer| answer.status);
        told.is_some_and(|status| Signal::named(signal) == Some(status.stop_signal()))
    }

    /// Sends a signal of the pod's in place of a runtime that knows only the image's, and gives what is left of the time.
    async fn send(&self, id: &str, signal: &str, grace: Duration) -> Result<Duration> {
        let container = match self.container(id).await {
            Err(Error::NotFound(_)) => return Ok(Duration::ZERO),
            container => container?,
        };
        let Some(pid) = container.pid.and_then(|pid| i32::try_from(pid).ok()) else { return Ok(grace) };
        ::runtime::send_signal(pid, signal)?;
        let ended = async {
            while self.container(id).await.is_ok_and(|container| container.state == api::ContainerState::Running) {
                tokio::time::sleep(ENDING).await;
            }
        };
        // What has not ended is killed.
        let _ = tokio::time::timeout(grace, ended).await;
        Ok(Duration::ZERO)
    }
}

/// The cgroup of a container, as containerd names it, and as CRI-O does.
fn of_container(pod: &str, id: &str) -> [String; 2] {
    [format!("{pod}/{id}"), format!("{pod}/crio-{id}")]
}

/// What is not there any more needs no end.
fn gone<T>(answer: std::result::Result<T, grpc::Error>) -> Result<()> {
    match answer {
        Err(refused) if refused.code == Code::NotFound => Ok(()),
        answer => answer.map(drop).map_err(error),
    }
}

/// Why an image was not pulled.
fn not_pulled(error: grpc::Error) -> Error {
    match error.code {
        Code::NotFound => Error::ImageNotFound(error.message),
        Code::Unavailable => Error::RegistryUnavailable(error.message),
        _ => Error::ImagePull(error.message),
    }
}
