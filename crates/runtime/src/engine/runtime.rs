//! The trait, handed on to where the work is done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::Engine;
use crate::api::{
    Container, ContainerConfig, Credentials, Error, ExecOutput, ExecRequest, Features, Image, ProcessUsage, Resources, Result,
    Runtime, RuntimeEvent, Sandbox, SandboxConfig, Streams, Usage, Usages,
};
use crate::container::anonymous;
use crate::disk::DiskUsage;
use crate::images::blocking;

#[async_trait]
impl Runtime for Engine {
    fn version(&self) -> String {
        concat!("knarr://", env!("CARGO_PKG_VERSION")).to_owned()
    }

    fn features(&self) -> Features {
        Features {
            recursive_readonly: crate::container::rootfs::sets_attributes(),
            user_namespaces: crate::container::mapped::is_supported(),
        }
    }

    async fn check_handler(&self, handler: &str) -> Result<()> {
        super::handler(handler).map(drop)
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox> {
        self.0.finish("run sandbox", |inner| async move { inner.run_sandbox(config).await }).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.0.finish("stop sandbox", |inner| async move { inner.stop_sandbox(&id).await }).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.0.finish("remove sandbox", |inner| async move { inner.remove_sandbox(&id).await }).await
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        Ok(self.0.sandboxes.lock().values().map(|entry| entry.view()).collect())
    }

    async fn update_sandbox(&self, id: &str, resources: Resources) -> Result<()> {
        let id = id.to_owned();
        self.0.finish("update sandbox", |inner| async move { inner.update_sandbox(&id, resources).await }).await
    }

    async fn limit_group(&self, group: &str, limits: Resources) -> Result<()> {
        let inner = self.0.clone();
        let group = inner.group(group);
        blocking(move || inner.cgroups.limit(&group, &limits)).await?.map_err(super::internal)
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<Container> {
        let sandbox = sandbox.to_owned();
        self.0.finish("create container", |inner| async move { inner.create_container(&sandbox, config).await }).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.0.finish("start container", |inner| async move { inner.start_container(&id).await }).await
    }

    async fn update_container(&self, id: &str, resources: Resources, annotations: BTreeMap<String, String>) -> Result<()> {
        let id = id.to_owned();
        let work = |inner: Arc<super::Inner>| async move { inner.update_container(&id, resources, annotations).await };
        self.0.finish("update container", work).await
    }

    async fn pin_container(&self, id: &str, cpus: &str) -> Result<()> {
        self.0.pin_container(id, cpus).await
    }

    async fn container_disk_usage(&self, id: &str) -> Result<DiskUsage> {
        let dir = self.0.container(id)?.dir.clone();
        // What it has written to its root file system, and what it has in volumes of its own.
        blocking(move || crate::disk_usage(&dir.join("upper")) + crate::disk_usage(&dir.join(anonymous::DIRECTORY))).await
    }

    async fn stop_container(&self, id: &str, grace: Duration, signal: Option<&str>) -> Result<()> {
        self.0.stop_container(id, grace, signal).await
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        self.0.reopen_log(id).await
    }

    async fn container_config(&self, id: &str) -> Result<ContainerConfig> {
        let entry = self.0.container(id)?;
        blocking(move || entry.config()).await?.map_err(super::internal)
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.0.finish("remove container", |inner| async move { inner.remove_container(&id).await }).await
    }

    async fn container(&self, id: &str) -> Result<Container> {
        self.0.container(id).map(|entry| entry.view())
    }

    async fn containers(&self, sandbox: Option<&str>) -> Result<Vec<Container>> {
        let containers = self.0.containers.lock();
        let wanted = containers.values().filter(|entry| sandbox.is_none_or(|sandbox| entry.record.sandbox == sandbox));
        Ok(wanted.map(|entry| entry.view()).collect())
    }

    async fn past_containers(&self) -> Result<Vec<(String, Container)>> {
        Ok(self.0.past.all())
    }

    async fn forget_past(&self, pod_uid: &str) -> Result<()> {
        self.0.forget_past(pod_uid).await
    }

    async fn usages(&self) -> Result<Usages> {
        let inner = self.0.clone();
        blocking(move || inner.usages()).await
    }

    async fn group_usage(&self, group: &str) -> Result<Usage> {
        let inner = self.0.clone();
        let group = inner.group(group);
        blocking(move || inner.cgroups.usage(&group).ok_or_else(|| Error::NotFound(format!("cgroup {group}")))).await?
    }

    async fn process_usages(&self) -> Result<BTreeMap<String, ProcessUsage>> {
        let inner = self.0.clone();
        blocking(move || inner.process_usages()).await
    }

    fn image_directory(&self) -> PathBuf {
        self.0.options.dir.clone()
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration, limit: usize) -> Result<ExecOutput> {
        self.0.exec_sync(id, command, timeout, limit).await
    }

    async fn exec(&self, id: &str, request: ExecRequest) -> Result<Streams> {
        self.0.exec(id, request).await
    }

    async fn attach(&self, id: &str, request: ExecRequest) -> Result<Streams> {
        self.0.attach(id, request).await
    }

    async fn dial(&self, sandbox: &str, port: u16) -> Result<tokio::net::TcpStream> {
        self.0.dial(sandbox, port).await
    }

    async fn pull_image(&self, reference: &str, credentials: &[Credentials]) -> Result<Image> {
        self.0.images.pull(reference, credentials, None).await
    }

    async fn take_image(&self, reference: &str) -> Result<Option<Image>> {
        self.0.images.take(reference).await
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        self.0.images.find(reference)
    }

    async fn images(&self) -> Result<Vec<Image>> {
        Ok(self.0.images.list())
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        let (inner, id) = (self.0.clone(), id.to_owned());
        let work = move || inner.images.store().remove(&id, |image| inner.image_user(image));
        blocking(work).await?
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.0.events.subscribe()
    }
}
