//! Calls about what containers and pods use.

use grpc::Error;
use jiff::Timestamp;
use runtime::api;

use super::{Server, errors, view};
use crate::messages::*;

impl Server {
    pub(super) async fn container_stats(&self, request: ContainerStatsRequest) -> Result<ContainerStatsResponse, Error> {
        let id = self.container(&request.container_id).await?.id;
        let filter = ContainerStatsFilter { id: id.clone(), ..Default::default() };
        let stats = self.measured(filter).await?.into_iter().next();
        Ok(ContainerStatsResponse {
            stats: Some(stats.ok_or_else(|| errors::precondition(format!("container {id} does not run")))?),
        })
    }

    pub(super) async fn list_container_stats(
        &self,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse, Error> {
        Ok(ListContainerStatsResponse { stats: self.measured(request.filter.unwrap_or_default()).await? })
    }

    /// What running containers use.
    async fn measured(&self, filter: ContainerStatsFilter) -> Result<Vec<ContainerStats>, Error> {
        let ContainerStatsFilter { id, pod_sandbox_id, label_selector } = filter;
        let filter = ContainerFilter { id, pod_sandbox_id, label_selector, state: None };
        let containers = self.list_containers(ListContainersRequest { filter: Some(filter) }).await?.containers;
        let usages = self.runtime.usages().await.map_err(errors::of)?;
        let mut stats = Vec::new();
        for container in containers {
            let Some(usage) = usages.containers.get(&container.id) else { continue };
            // One that has gone meanwhile takes nothing.
            let disk = self.runtime.container_disk_usage(&container.id).await.unwrap_or_default();
            stats.push(ContainerStats {
                writable_layer: Some(self.written(disk.bytes, disk.inodes)),
                ..of_container(container, usage)
            });
        }
        Ok(stats)
    }

    fn written(&self, bytes: u64, inodes: u64) -> FilesystemUsage {
        FilesystemUsage {
            timestamp: view::nanoseconds(Timestamp::now()),
            fs_id: Some(FilesystemIdentifier { mountpoint: self.runtime.image_directory().to_string_lossy().into_owned() }),
            used_bytes: Some(UInt64Value { value: bytes }),
            inodes_used: Some(UInt64Value { value: inodes }),
        }
    }

    pub(super) async fn sandbox_stats(&self, request: PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse, Error> {
        let id = self.sandbox(&request.pod_sandbox_id).await?.id;
        let filter = PodSandboxStatsFilter { id: id.clone(), ..Default::default() };
        let stats = self.list_sandbox_stats(ListPodSandboxStatsRequest { filter: Some(filter) }).await?.stats.into_iter().next();
        Ok(PodSandboxStatsResponse {
            stats: Some(stats.ok_or_else(|| errors::precondition(format!("sandbox {id} is not ready")))?),
        })
    }

    pub(super) async fn list_sandbox_stats(
        &self,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse, Error> {
        let PodSandboxStatsFilter { id, label_selector } = request.filter.unwrap_or_default();
        let filter = PodSandboxFilter { id: id.clone(), label_selector, state: None };
        let sandboxes = self.list_sandboxes(ListPodSandboxRequest { filter: Some(filter) }).await?.items;
        let containers = self.measured(ContainerStatsFilter { pod_sandbox_id: id, ..Default::default() }).await?;
        let of = self.list_containers(ListContainersRequest::default()).await?.containers;
        let usages = self.runtime.usages().await.map_err(errors::of)?;
        let mut stats = Vec::new();
        for sandbox in sandboxes {
            let Some(usage) = usages.sandboxes.get(&sandbox.id) else { continue };
            let inside = |stats: &&ContainerStats| {
                let id = stats.attributes.as_ref().map(|attributes| &attributes.id);
                of.iter().any(|container| Some(&container.id) == id && container.pod_sandbox_id == sandbox.id)
            };
            let containers = containers.iter().filter(inside).cloned().collect();
            stats.push(of_sandbox(sandbox, usage, containers));
        }
        Ok(ListPodSandboxStatsResponse { stats })
    }
}

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn of_container(container: Container, usage: &api::Usage) -> ContainerStats {
    let Container { id, metadata, labels, annotations, .. } = container;
    let timestamp = view::nanoseconds(Timestamp::now());
    let held = &usage.memory;
    let swap_available_bytes = held.swap_limit.and_then(|limit| value(limit.saturating_sub(held.swap)));
    let swap = SwapUsage { timestamp, swap_available_bytes, swap_usage_bytes: value(held.swap) };
    ContainerStats {
        attributes: Some(ContainerAttributes { id, metadata, labels, annotations }),
        cpu: Some(cpu(usage, timestamp)),
        memory: Some(memory(usage, timestamp)),
        writable_layer: None,
        swap: Some(swap),
        io: Some(io(usage, timestamp)),
    }
}

fn of_sandbox(sandbox: PodSandbox, usage: &api::Usage, containers: Vec<ContainerStats>) -> PodSandboxStats {
    let PodSandbox { id, metadata, labels, annotations, .. } = sandbox;
    let timestamp = view::nanoseconds(Timestamp::now());
    let linux = LinuxPodSandboxStats {
        cpu: Some(cpu(usage, timestamp)),
        memory: Some(memory(usage, timestamp)),
        network: None,
        process: Some(ProcessUsage { timestamp, process_count: value(usage.processes) }),
        containers,
        io: Some(io(usage, timestamp)),
    };
    PodSandboxStats { attributes: Some(PodSandboxAttributes { id, metadata, labels, annotations }), linux: Some(linux) }
}

fn cpu(usage: &api::Usage, timestamp: i64) -> CpuUsage {
    let psi = usage.pressure.cpu.map(pressure);
    // How much it is a second is for who asks twice.
    CpuUsage { timestamp, usage_core_nano_seconds: value(usage.cpu.total), usage_nano_cores: None, psi }
}

fn memory(usage: &api::Usage, timestamp: i64) -> MemoryUsage {
    let memory = &usage.memory;
    MemoryUsage {
        timestamp,
        working_set_bytes: value(memory.working_set),
        available_bytes: memory.limit.and_then(|limit| value(limit.saturating_sub(memory.working_set))),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: usage.pressure.memory.map(pressure),
    }
}

fn io(usage: &api::Usage, timestamp: i64) -> IoUsage {
    IoUsage { timestamp, psi: usage.pressure.io.map(pressure) }
}

fn pressure(stalls: api::Stalls) -> PsiStats {
    let data = |stall: api::Stall| {
        let [avg10, avg60, avg300] = stall.averages.map(|hundredths| f64::from(hundredths) / 100.0);
        PsiData { total: u64::try_from(stall.total.as_nanos()).unwrap_or(u64::MAX), avg10, avg60, avg300 }
    };
    PsiStats { full: Some(data(stalls.full)), some: Some(data(stalls.some)) }
}
