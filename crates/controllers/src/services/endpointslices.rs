//! EndpointSlices of services with a selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

use super::slices::{self, Frame, Group, MANAGED_BY, SERVICE_NAME};
use super::targets::{self, Family};
use super::{labels_of, of_pods, selector, selects};
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::expectations::Expectations;
use crate::namespace::tolerate;
use crate::{meta, pods};

const MANAGER: &str = "endpointslice-controller.k8s.io";
const LIMIT: usize = 100;

pub(crate) struct EndpointSlices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    expectations: Expectations,
}

impl EndpointSlices {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self {
            services: informers.of(),
            pods: informers.of(),
            nodes: informers.of(),
            slices: informers.of(),
            expectations: Expectations::default(),
        }
    }

    fn own(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        of_owner(&self.slices, key, MANAGER)
    }
}

fn label<'a>(slice: &'a EndpointSlice, key: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// The slices of a service that one controller keeps.
pub(super) fn of_owner(slices: &Informer<EndpointSlice>, key: &Key, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let ours = |slice: &Arc<EndpointSlice>| {
        label(slice, SERVICE_NAME) == Some(&key.name) && label(slice, MANAGED_BY) == Some(manager) && !meta::ends(slice.as_ref())
    };
    slices.in_namespace(key.ns()).into_iter().filter(ours).collect()
}

/// Enqueues the service of every slice that one controller keeps.
pub(super) fn of_slices(slices: &Informer<EndpointSlice>, manager: &'static str) -> Source {
    Source::mapped(slices, move |change, queue| {
        for slice in [&change.old, &change.new].into_iter().flatten() {
            if let Some(service) = label(slice, SERVICE_NAME).filter(|_| label(slice, MANAGED_BY) == Some(manager)) {
                queue.add(Key { namespace: change.key.namespace.clone(), name: service.to_owned() });
            }
        }
    })
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpointslice";
    const ACCOUNT: &'static str = "endpointslice-controller";

    fn sources(&self) -> Vec<Source> {
        let nodes = self.nodes.clone();
        let ready = Source {
            synced: Box::pin(async move { nodes.synced().await }),
            feed: Box::new(|_| Box::pin(std::future::pending())),
        };
        let slices = of_slices(&self.slices, MANAGER);
        vec![Source::own(&self.services), of_pods(&self.pods, &self.services), slices, ready]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(service) = self.services.by_key(key) else {
            // The slices go with their owner.
            self.expectations.forget(key);
            return Ok(Action::Done);
        };
        let Some(selector) = selector(&service) else { return Ok(Action::Done) };
        if meta::ends(service.as_ref()) || !self.expectations.seen(key, &self.slices) {
            return Ok(Action::Done);
        }
        let pods: Vec<Arc<Pod>> = self.pods.in_namespace(key.ns()).into_iter().filter(|pod| selects(selector, pod)).collect();
        let zone = |node: &str| {
            let node = self.nodes.get(None, node)?;
            node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
        };
        let groups = groups(&service, &pods, zone);
        let changes = slices::plan(&frame(&service), &self.own(key), groups);
        let created = |slice: &EndpointSlice| self.expectations.created(key, slice);
        let deleted = |slice: &EndpointSlice| self.expectations.deleted(key, Key::of(slice), meta::uid(slice));
        match slices::apply(cx, key.ns(), changes, created, deleted).await {
            Err(Error::Api(error)) => tolerate::<()>(Err(error))?,
            other => other?,
        }
        Ok(Action::Done)
    }
}

fn frame(service: &Service) -> Frame {
    let mut labels = labels_of(service);
    labels.insert(SERVICE_NAME.to_owned(), meta::name(service).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    Frame {
        namespace: meta::namespace(service).to_owned(),
        name: meta::name(service).to_owned(),
        labels,
        owner: meta::controller_ref(service),
        limit: LIMIT,
    }
}

/// The endpoints of a service by family, those with the same ports together.
pub(super) fn groups<'a>(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: impl Fn(&str) -> Option<String>,
) -> BTreeMap<&'a str, Vec<Group>> {
    let mut families = BTreeMap::new();
    for family in targets::families(service) {
        let groups: &mut Vec<Group> = families.entry(family.as_str()).or_default();
        for pod in pods.iter().filter(|pod| targets::is_target(pod, true)) {
            let Some(endpoint) = endpoint(service, pod, family, &zone) else { continue };
            let ports = ports(service, pod);
            match groups.iter_mut().find(|group| group.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { ports, endpoints: vec![endpoint] }),
            }
        }
    }
    families
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(targets::port_number(pod, port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.filter_map(port).collect()
}

fn endpoint(service: &Service, pod: &Pod, family: Family, zone: impl Fn(&str) -> Option<String>) -> Option<Endpoint> {
    let address = targets::address(pod, family)?;
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let (serving, terminating) = (pods::is_ready(pod), meta::ends(pod));
    Some(Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: targets::hostname(pod, service),
        node_name: targets::node_name(pod),
        target_ref: Some(targets::reference(pod)),
        zone: zone(pods::node(pod)),
        ..Endpoint::default()
    })
}
