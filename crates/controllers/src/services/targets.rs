//! What a pod offers to a service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{meta, pods};

/// An IP family, in the words of `addressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    pub(super) fn of(address: &str) -> Option<Self> {
        Some(match address.parse::<IpAddr>().ok()? {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        })
    }
}

/// The families of a service, its first one first.
pub(super) fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|spec| spec.ip_families.as_ref()).into_iter().flatten();
    let named: Vec<Family> = named.map(|name| if name == "IPv6" { Family::V6 } else { Family::V4 }).collect();
    if !named.is_empty() {
        return named;
    }
    let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    vec![Family::of(address).unwrap_or(Family::V4)]
}

/// The pod's address of a family.
pub(super) fn address(pod: &Pod, family: Family) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    all.into_iter().find(|address| Family::of(address) == Some(family))
}

/// Whether the pod has a place among the endpoints at all.
pub(super) fn is_target(pod: &Pod, ending_too: bool) -> bool {
    let has_address = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some() || status.pod_ips.is_some());
    has_address && !pods::is_finished(pod) && (ending_too || !meta::ends(pod))
}

/// The number of a service's port on this pod. None when the pod has no port of that name.
pub(super) fn port_number(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecar = |one: &&Container| ::pods::is_sidecar(one);
            let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
            let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let named = ports
                .into_iter()
                .find(|one| one.name.as_deref() == Some(name) && one.protocol.as_deref().unwrap_or("TCP") == protocol);
            named.map(|one| one.container_port)
        }
    }
}

/// The name by which DNS knows the pod within the service.
pub(super) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let ours = spec.subdomain.as_deref() == Some(meta::name(service));
    spec.hostname.clone().filter(|name| ours && !name.is_empty())
}

pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

pub(super) fn node_name(pod: &Pod) -> Option<String> {
    Some(pods::node(pod).to_owned()).filter(|name| !name.is_empty())
}
