//! What a pod has been given of the node, which may differ from what its specification asks for by now (KEP-1287). Pure.
//!
//! A pod gets what it asked for when it was admitted. When it is resized, the node decides whether there is room; until then everything
//! on the node goes by what the pod has.

use codec::Decode;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;

use crate::spec::Model;

/// Annotation of a container in the runtime: its requests and limits as the API has them.
pub const RESOURCES: &str = "knarr.kubelet/resources";

/// Why a pod does not have what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` until there is room, or `Infeasible`: the node will never have as much.
    pub reason: &'static str,
    /// Figures for people.
    pub message: String,
    /// Generation of the specification that asks.
    pub generation: Option<i64>,
}

/// Requests and limits of a pod and its containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    pod: Option<ResourceRequirements>,
    containers: BTreeMap<String, Option<ResourceRequirements>>,
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

impl Allocation {
    /// What the specification asks for.
    pub fn wanted(pod: &Pod) -> Self {
        let containers = containers(pod).map(|container| (container.name.clone(), container.resources.clone())).collect();
        Self { pod: pod.spec.as_ref().and_then(|spec| spec.resources.clone()), containers }
    }

    /// What a pod has that ran before this kubelet started: `running` has the texts of [`RESOURCES`] by container. What it has as a whole is
    /// what the kubelet before has told of it, and so are the requests of containers that were never made; limits are told of none of these.
    pub fn found<'a>(pod: &Pod, running: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut allocation = Self::wanted(pod);
        let told = pod.status.as_ref().and_then(|status| status.resources.clone());
        allocation.pod = allocation.pod.map(|wanted| told.unwrap_or(wanted));
        let told = pod.status.iter().flat_map(|status| [&status.init_container_statuses, &status.container_statuses]);
        for one in told.flatten().flatten() {
            if let (Some(known), Some(told)) = (allocation.containers.get_mut(&one.name), &one.allocated_resources)
                && known.as_ref().and_then(|known| known.requests.as_ref()) != Some(told)
            {
                known.get_or_insert_default().requests = Some(told.clone());
            }
        }
        for (name, text) in running {
            let known = allocation.containers.get_mut(name);
            if let (Some(known), Ok(resources)) = (known, ResourceRequirements::from_json(text.as_bytes()))
                && resources != known.clone().unwrap_or_default()
            {
                *known = Some(resources);
            }
        }
        allocation
    }

    /// The pod as this node runs it; the same object where it has what it asks for.
    pub fn apply(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if *self == Self::wanted(pod) {
            return pod.clone();
        }
        let mut given = Pod::clone(pod);
        if let Some(spec) = &mut given.spec {
            spec.resources.clone_from(&self.pod);
            for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
                if let Some(resources) = self.containers.get(&container.name) {
                    container.resources.clone_from(resources);
                }
            }
        }
        Arc::new(given)
    }
}

/// What events say of a resize, as upstream: the resources of each container, in JSON.
pub fn summary(model: &Model, error: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Named<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        resources: Option<&'a ResourceRequirements>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<Named<'a>>,
        containers: Vec<Named<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resources: Option<&'a ResourceRequirements>,
        generation: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    }
    fn named(container: &Container) -> Named<'_> {
        Named { name: &container.name, resources: container.resources.as_ref() }
    }
    let spec = model.spec();
    let sidecars = spec.init_containers.iter().flatten().filter(|container| pods::is_sidecar(container));
    let summary = Summary {
        init_containers: sidecars.map(named).collect(),
        containers: spec.containers.iter().map(named).collect(),
        resources: spec.resources.as_ref(),
        generation: model.pod.metadata.generation.unwrap_or_default(),
        error,
    };
    serde_json::to_string(&summary).unwrap_or_default()
}

#[cfg(test)]
mod tests;
