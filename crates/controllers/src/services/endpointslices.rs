//! EndpointSlices of services with a selector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::events::Type;
use client::{Entry, Index, Informer, Informers, Key};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};

use parking_lot::Mutex;

use super::keeper::Keeper;
use super::slices::{Frame, Group, MANAGED_BY, SERVICE_NAME};
use super::targets::{self, Family};
use super::topology;
use super::triggers::Triggers;
use super::{enqueue_selecting, labels_of, of_pods, picks, selector};
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::queue::Queue;
use crate::{meta, pods};

const MANAGER: &str = "endpointslice-controller.k8s.io";
const LIMIT: usize = 100;

pub(crate) struct EndpointSlices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    by_node: Index<Pod>,
    nodes: Informer<Node>,
    keeper: Keeper,
    triggers: Triggers,
    /// The services and families of addresses whose endpoints have hints by the zones' processors.
    with_hints: Mutex<BTreeSet<(Key, &'static str)>>,
}

impl EndpointSlices {
    pub(crate) fn new(informers: &Informers) -> Self {
        let pods = informers.of();
        Self {
            services: informers.of(),
            by_node: pods::by_node(&pods),
            pods,
            nodes: informers.of(),
            keeper: Keeper::new(informers, MANAGER),
            triggers: Triggers::default(),
            with_hints: Mutex::default(),
        }
    }
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpointslice";
    const ACCOUNT: &'static str = "endpointslice-controller";

    fn sources(&self) -> Vec<Source> {
        let (services, by_node) = (self.services.clone(), self.by_node.clone());
        // Zones and processors of nodes say who should use which endpoints, where a service asks for that; pods without their node are left out.
        let of_nodes = Source::mapped(&self.nodes, move |change, queue| {
            let weight = |node: &Option<Arc<Node>>| node.as_ref().and_then(|node| topology::weight(node));
            if weight(&change.old) != weight(&change.new) {
                let asking = services.list().into_iter().filter(|service| topology::is_wanted(service));
                asking.for_each(|service| queue.add(Key::of(service.as_ref())));
            }
            if is_another(change.old.as_deref(), change.new.as_deref()) {
                // A pod that is not in the cache yet comes with a change of its own, when the node is there or gone.
                selecting(&services, &by_node.entries(&change.key.name), queue);
            }
        });
        vec![Source::own(&self.services), of_pods(&self.pods, &self.services), self.keeper.source(), of_nodes]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(service) = self.services.by_key(key) else {
            // The slices go with their owner.
            self.keeper.forget(key);
            self.triggers.forget(key);
            self.with_hints.lock().retain(|(service, _)| service != key);
            return Ok(Action::Done);
        };
        let Some(selector) = selector(&service) else { return Ok(Action::Done) };
        if meta::ends(service.as_ref()) {
            return Ok(Action::Done);
        }
        if !self.keeper.is_current(key) {
            return Ok(Action::UNSEEN);
        }
        let pods: Vec<Arc<Pod>> = self.pods.labelled(key.ns(), |labels| picks(selector, labels));
        let mut groups = groups(&service, &pods, |name| self.nodes.get(None, name).as_deref().map(zone));
        self.give_hints(cx, key, &service, &mut groups);
        let wanted = (frame(&service), groups);
        let trigger = self.triggers.since_last(key, &service, &pods);
        self.keeper.keep(cx, key, Some(wanted), trigger).await?;
        Ok(Action::Done)
    }
}

impl EndpointSlices {
    /// Gives endpoints to zones where the service asks for it, and tells when that begins, fails or ends.
    fn give_hints(&self, cx: &Cx, key: &Key, service: &Service, groups: &mut BTreeMap<&'static str, Vec<Group>>) {
        let wanted = topology::is_wanted(service);
        let shares = wanted.then(|| topology::Shares::of(&self.nodes.list()));
        for (family, groups) in groups {
            let given = shares.clone().map(|shares| shares.and_then(|shares| shares.give(groups)));
            let mut with_hints = self.with_hints.lock();
            let known = (key.clone(), *family);
            let tell = |kind, reason: &str, message: String| {
                cx.events.about(service, kind, reason, format!("{message}, addressType: {family}"));
            };
            match given {
                Some(Ok(())) => {
                    if with_hints.insert(known) {
                        let message = "Topology Aware Hints has been enabled".to_owned();
                        tell(Type::Normal, "TopologyAwareHintsEnabled", message);
                    }
                }
                Some(Err(why)) => {
                    let had = with_hints.remove(&known);
                    tracing::debug!(service = %key, %why, had, "endpoints are for all zones");
                    tell(Type::Warning, "TopologyAwareHintsDisabled", why.to_string());
                }
                None => {
                    if with_hints.remove(&known) {
                        let message = "Topology Aware Hints has been disabled".to_owned();
                        tell(Type::Warning, "TopologyAwareHintsDisabled", message);
                    }
                }
            }
        }
    }
}

/// Whether a node came, went, or was made anew: its absence in between may have been seen, though no change tells of it.
pub(super) fn is_another(old: Option<&Node>, new: Option<&Node>) -> bool {
    old.map(|node| &node.metadata.uid) != new.map(|node| &node.metadata.uid)
}

/// Enqueues the services that select any of the pods, which are ordered by key.
fn selecting(services: &Informer<Service>, pods: &[Entry<Pod>], queue: &Queue) {
    for pods in pods.chunk_by(|one, next| one.key().ns() == next.key().ns()) {
        let namespace = pods.first().map(|pod| pod.key().ns()).unwrap_or_default();
        let picks_any = |selector: &_| pods.iter().any(|pod| picks(selector, pod.labels()));
        enqueue_selecting(services, namespace, picks_any, queue);
    }
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
}

fn frame(service: &Service) -> Frame {
    let mut labels = labels_of(service);
    labels.insert(SERVICE_NAME.to_owned(), meta::name(service).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    Frame {
        namespace: meta::namespace(service).to_owned(),
        name: meta::name(service).to_owned(),
        labels,
        annotations: None,
        owner: meta::controller_ref(service),
        limit: LIMIT,
    }
}

/// The endpoints of a service by family, those with the same ports together. `zone` says the zone of a node, where it has one, and nothing of a
/// node that is not there: what runs on it is left out, unless the service wants pods that are not ready, too (kubernetes#110639).
pub(super) fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: impl Fn(&str) -> Option<Option<String>>,
) -> BTreeMap<&'static str, Vec<Group>> {
    let mut families = BTreeMap::new();
    for family in targets::families(service) {
        let groups: &mut Vec<Group> = families.entry(family.as_str()).or_default();
        for pod in pods.iter().filter(|pod| targets::is_target(pod, true)) {
            let node = zone(pods::node(pod));
            if node.is_none() && !publishes(service) {
                continue;
            }
            let Some(endpoint) = endpoint(service, pod, family, node.flatten()) else { continue };
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

fn publishes(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

fn endpoint(service: &Service, pod: &Pod, family: Family, zone: Option<String>) -> Option<Endpoint> {
    let address = targets::address(pod, family)?;
    let (serving, terminating) = (pods::is_ready(pod), meta::ends(pod));
    let ready = publishes(service) || (serving && !terminating);
    let node_name = targets::node_name(pod);
    Some(Endpoint {
        hints: hints(service, node_name.as_ref(), zone.as_ref()).filter(|_| ready),
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }),
        hostname: targets::hostname(pod, service),
        node_name,
        target_ref: Some(targets::reference(pod)),
        zone,
        ..Endpoint::default()
    })
}

/// Who should use the endpoint, as `spec.trafficDistribution` asks (KEP-4444, KEP-3015).
fn hints(service: &Service, node: Option<&String>, zone: Option<&String>) -> Option<EndpointHints> {
    if topology::is_wanted(service) {
        return None;
    }
    let wish = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let node = match wish {
        "PreferSameNode" => node,
        "PreferClose" | "PreferSameZone" => None,
        _ => return None,
    };
    let for_nodes = node.map(|name| vec![ForNode { name: name.clone() }]);
    let for_zones = zone.map(|name| vec![ForZone { name: name.clone() }]);
    (for_nodes.is_some() || for_zones.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}
