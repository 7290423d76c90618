//! What the node, its pods and their containers use. It is read when somebody asks and at no other time.
//!
//! The forms are upstream's: the summary (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`), the resource metrics (KEP-727) and those
//! of cAdvisor.

mod cadvisor;
pub(crate) mod details;
pub(crate) mod disks;
mod machine;
mod network;
pub(crate) mod paced;
mod page;
mod resource;
mod summary;
mod system;
pub(crate) mod volumes;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::api::{Container, ContainerState, Error, Sandbox, SandboxState, Usage, Usages};

use crate::context::Context;
pub(crate) use cadvisor::cadvisor;
pub(crate) use details::Details;
use disks::Disk;
pub(crate) use machine::NodeUsage;
pub(crate) use network::Interface;
pub(crate) use resource::resource;
pub(crate) use summary::{Earlier, summary};
pub(crate) use system::SystemUsage;
pub(crate) use volumes::VolumeUsage;

/// What everything uses at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) at: Timestamp,
    pub(crate) node_name: String,
    pub(crate) node: NodeUsage,
    pub(crate) system: Vec<SystemUsage>,
    pub(crate) pods: Vec<PodUsage>,
}

/// What a pod uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodUsage {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Identifier of the sandbox.
    pub(crate) sandbox: String,
    pub(crate) started: Timestamp,
    pub(crate) usage: Usage,
    /// Interfaces of the pod's own network; none on the host's.
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) containers: Vec<ContainerUsage>,
    /// What its volumes hold, where that was asked for.
    pub(crate) volumes: Vec<VolumeUsage>,
}

/// What a running container uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerUsage {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) started: Timestamp,
    pub(crate) usage: Usage,
    /// What it has on disk, where that was asked for.
    pub(crate) disk: Disk,
}

/// Reads everything but what is on disk.
pub(crate) async fn collect(cx: &Arc<Context>, pods: &[Arc<Pod>]) -> Result<Snapshot, Error> {
    let runtime = cx.runtime();
    let (sandboxes, containers) = (runtime.sandboxes().await?, runtime.containers(None).await?);
    let usages = runtime.usages().await?;
    let all_pods = runtime.group_usage("kubepods").await.ok();
    let (data_dir, pods) = (cx.options.data_dir.clone(), pods.to_vec());
    let (node_name, memory) = (cx.options.node_name.clone(), cx.machine.memory_bytes);
    let read = move || {
        let node = NodeUsage::read(&data_dir, memory);
        let all_pods = all_pods.map(|usage| SystemUsage::pods(node.started, usage));
        Snapshot {
            at: Timestamp::now(),
            node_name,
            system: SystemUsage::kubelet(node.started).into_iter().chain(all_pods).collect(),
            node,
            pods: assemble(&pods, &sandboxes, &containers, usages, network::of_process),
        }
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| Error::Internal(error.to_string()))
}

/// Puts together what belongs to each pod of the API. Pods without a sandbox have used nothing yet.
fn assemble(
    pods: &[Arc<Pod>],
    sandboxes: &[Sandbox],
    containers: &[Container],
    mut usages: Usages,
    interfaces: impl Fn(u32) -> Vec<Interface>,
) -> Vec<PodUsage> {
    let mut newest: HashMap<&str, &Sandbox> = HashMap::new();
    for sandbox in sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready) {
        let known = newest.entry(&sandbox.pod.uid).or_insert(sandbox);
        if known.attempt < sandbox.attempt {
            *known = sandbox;
        }
    }
    let mut running: HashMap<&str, Vec<&Container>> = HashMap::new();
    for container in containers.iter().filter(|container| container.state == ContainerState::Running) {
        running.entry(&container.sandbox).or_default().push(container);
    }
    let of_pod = |pod: &Arc<Pod>| {
        let sandbox = newest.get(pod.metadata.uid.as_deref()?)?;
        let members = running.get(sandbox.id.as_str()).map_or(&[][..], Vec::as_slice);
        let pid = members.iter().find_map(|container| container.pid).filter(|_| sandbox.netns.is_some());
        let of_container = |container: &&Container| {
            Some(ContainerUsage {
                id: container.id.clone(),
                name: container.name.clone(),
                image: container.image_reference.clone(),
                started: container.started.unwrap_or(container.created),
                usage: usages.containers.remove(&container.id)?,
                disk: Disk::default(),
            })
        };
        let containers: Vec<ContainerUsage> = members.iter().filter_map(of_container).collect();
        Some(PodUsage {
            namespace: sandbox.pod.namespace.clone(),
            name: sandbox.pod.name.clone(),
            uid: sandbox.pod.uid.clone(),
            sandbox: sandbox.id.clone(),
            started: sandbox.created,
            usage: usages.sandboxes.remove(&sandbox.id)?,
            interfaces: pid.map(&interfaces).unwrap_or_default(),
            containers,
            volumes: Vec::new(),
        })
    };
    pods.iter().filter_map(of_pod).collect()
}

#[cfg(test)]
mod tests;
