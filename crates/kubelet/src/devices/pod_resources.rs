//! The socket `kubelet.sock` in the directory `pod-resources`, at which monitors of devices ask which containers have them (the pod resources
//! API, `v1`, KEP-606).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use csi::devices::{NumaNode, TopologyInfo};
use csi::pod_resources::{
    ALLOCATABLE, AllocatableResourcesResponse, ContainerDevices, ContainerMemory, ContainerResources, GET,
    GetPodResourcesRequest, GetPodResourcesResponse, LIST, ListPodResourcesResponse, PodResources,
};
use grpc::server;
use grpc::{Code, Error};
use k8s_openapi::api::core::v1::Pod;
use prost::Message;
use tokio::net::UnixListener;

use super::inventory::{Device, Inventory};
use crate::context::Context;
use crate::cpus::set::CpuSet;
use crate::numa::blocks::Block;
use crate::pod::found::ended;

/// A connection is given up after that, and made again by who needs it.
const LIFE: Duration = Duration::from_secs(3600);

struct Lister(Arc<Context>);

impl server::Service for Lister {
    async fn call(&self, method: &str, message: Bytes) -> Result<Vec<u8>, Error> {
        let inventory = self.0.devices.inventory.lock();
        match method {
            LIST => {
                let pods = self.0.pods_of_node().list().into_iter().map(|pod| self.0.statics.as_run(pod));
                let active = pods.filter(|pod| !pod.status.as_ref().is_some_and(ended));
                let pod_resources = active.map(|pod| of_pod(&self.0, &inventory, &pod)).collect();
                Ok(ListPodResourcesResponse { pod_resources }.encode_to_vec())
            }
            GET => {
                let GetPodResourcesRequest { pod_name, pod_namespace } = server::decode(message)?;
                let unknown =
                    || Error { code: Code::NotFound, message: format!("pod {pod_name} in namespace {pod_namespace} not found") };
                let pod = self.0.pods_of_node().get(Some(&pod_namespace), &pod_name).ok_or_else(unknown)?;
                let pod = self.0.statics.as_run(pod);
                Ok(GetPodResourcesResponse { pod_resources: Some(of_pod(&self.0, &inventory, &pod)) }.encode_to_vec())
            }
            ALLOCATABLE => {
                let healthy = |devices: &BTreeMap<String, Device>| -> Vec<String> {
                    devices.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id.clone()).collect()
                };
                let devices =
                    inventory.devices().flat_map(|(name, devices)| listed(name, healthy(devices), Some(devices))).collect();
                let (cpu_ids, memory) = (numbers(self.0.cpus.allocatable()), blocks(self.0.memory.allocatable()));
                Ok(AllocatableResourcesResponse { devices, cpu_ids, memory }.encode_to_vec())
            }
            other => Err(server::unimplemented(other)),
        }
    }
}

fn of_pod(cx: &Context, inventory: &Inventory, pod: &Pod) -> PodResources {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let known: BTreeMap<&str, _> = inventory.devices().collect();
    let containers = pod.spec.iter().flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten().filter(|container| pods::is_sidecar(container));
        sidecars.chain(&spec.containers)
    });
    let resources = containers.map(|container| {
        // While its plugin is asked, nothing is given yet.
        let held = inventory.of_container(uid, &container.name).into_iter().filter(|(_, held)| held.response.is_some());
        let devices = held
            .flat_map(|(name, held)| listed(name, held.devices.iter().cloned().collect(), known.get(name).copied()))
            .collect();
        let cpu_ids = cx.cpus.exclusive(uid, &container.name).map(numbers).unwrap_or_default();
        let memory = blocks(cx.memory.of(uid, &container.name));
        let dynamic_resources = cx.claims.of_container(pod, container);
        ContainerResources { name: container.name.clone(), devices, cpu_ids, memory, dynamic_resources }
    });
    PodResources {
        name: pod.metadata.name.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        containers: resources.collect(),
    }
}

fn numbers(cpus: CpuSet) -> Vec<i64> {
    cpus.0.into_iter().map(i64::from).collect()
}

fn blocks(blocks: Vec<Block>) -> Vec<ContainerMemory> {
    let told = |Block { numa_affinity, resource, size }| {
        let nodes = numa_affinity.into_iter().map(|node| NumaNode { id: i64::from(node) }).collect();
        ContainerMemory { memory_type: resource, size, topology: Some(TopologyInfo { nodes }) }
    };
    blocks.into_iter().map(told).collect()
}

/// Devices of a resource, those of one place together, as upstream lists them.
fn listed(name: &str, ids: Vec<String>, known: Option<&BTreeMap<String, Device>>) -> Vec<ContainerDevices> {
    let mut places: BTreeMap<Vec<i64>, Vec<String>> = BTreeMap::new();
    for id in ids {
        let nodes = known.and_then(|devices| devices.get(&id)).map(|device| device.nodes.clone()).unwrap_or_default();
        places.entry(nodes).or_default().push(id);
    }
    let devices = places.into_iter().map(|(nodes, device_ids)| {
        let topology = TopologyInfo { nodes: nodes.iter().map(|id| NumaNode { id: *id }).collect() };
        let topology = Some(topology).filter(|topology| !topology.nodes.is_empty());
        ContainerDevices { resource_name: name.to_owned(), device_ids, topology }
    });
    devices.collect()
}

/// Serves questions.
pub async fn run(cx: Arc<Context>) -> Result<(), io::Error> {
    let directory = cx.options.data_dir.join("pod-resources");
    tokio::fs::create_dir_all(&directory).await?;
    tokio::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o750)).await?;
    let socket = directory.join("kubelet.sock");
    match tokio::fs::remove_file(&socket).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match server::serve(UnixListener::bind(socket)?, Arc::new(Lister(cx)), server::Limits::few(LIFE)).await {}
}
