//! Load balancers without a cloud: a Service of type LoadBalancer is served on the addresses of the nodes.
//!
//! The service proxy of every node answers on the addresses in `status.loadBalancer.ingress`; this decides which these are.
//! Of nodes' addresses those count that nobody else has ([`node_addresses`]): what a node says takes nothing from the others.
//! A port of the nodes can belong to one Service only: who is served at it keeps it, among those that are not the older one gets it,
//! and the others wait; why is a condition of theirs. A number that is a node port of somebody is nobody else's. Where a node says that it has given
//! a port of a Service to others ([`TakenPort`]), that port has an error at that node's addresses, and an address without any port is left out. Services with a `loadBalancerClass` are left to the implementation of that class.

mod condition;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use client::Api;
use client::events::Type;
use client::kube::api::{Patch, PatchParams};
use client::node_addresses::{self, Kind};
use client::taken_ports::TakenPort;
use client::{Index, Informer, Informers, Key};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, PortStatus, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::slices::{SERVICE_NAME, by_service};
use super::targets::{Family, families};
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::meta;
use crate::namespace::tolerate;

/// The error of a port that a node has given to others.
const UNAVAILABLE: &str = "PortUnavailable";

/// Nodes with this label are not used.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

pub(crate) struct Balancers {
    services: Informer<Service>,
    /// By each port of the nodes that they want or have.
    by_port: Index<Service>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    of_service: Index<EndpointSlice>,
    /// Ports that are every node's own.
    own: BTreeSet<(i32, String)>,
    /// Ranges of pods and services, in which no node is.
    inside: Vec<IpNet>,
}

impl Balancers {
    pub(crate) fn new(informers: &Informers, own: BTreeSet<(i32, String)>, inside: Vec<IpNet>) -> Self {
        let (services, slices): (Informer<Service>, Informer<EndpointSlice>) = (informers.of(), informers.of());
        Self {
            by_port: services.index("port of the nodes", |service, values| {
                node_ports(service).union(&balanced(service)).for_each(|port| values.add(value(port)));
            }),
            of_service: by_service(&slices),
            services,
            nodes: informers.of(),
            slices,
            own,
            inside,
        }
    }
}

impl Controller for Balancers {
    const NAME: &'static str = "service-load-balancer";
    const ACCOUNT: &'static str = "service-controller";

    fn sources(&self) -> Vec<Source> {
        let by_port = self.by_port.clone();
        let of_services = Source::mapped(&self.services, move |change, queue| {
            queue.add(change.key.clone());
            let states = [&change.old, &change.new].map(|state| state.as_deref());
            for port in ports_that_change(states) {
                let others = by_port.get(&value(&port)).into_iter().filter(|other| is_ours(other));
                others.filter(|other| concerns(states, other, &port)).for_each(|other| queue.add(Key::of(other.as_ref())));
            }
        });
        let services = self.services.clone();
        let of_nodes = Source::mapped(&self.nodes, move |change, queue| {
            let shown = |node: &Option<Arc<Node>>| {
                let shown = |node| (is_used(node), node_addresses::told(node), kubelet(node), TakenPort::told(node));
                node.as_deref().map(shown)
            };
            if shown(&change.old) != shown(&change.new) {
                all(&services).for_each(|key| queue.add(key));
            }
        });
        let services = self.services.clone();
        let of_slices = Source::mapped(&self.slices, move |change, queue| {
            let slice = change.new.as_ref().or(change.old.as_ref());
            let Some(name) = slice.and_then(|slice| slice.metadata.labels.as_ref()?.get(SERVICE_NAME)) else { return };
            let key = Key { namespace: change.key.namespace.clone(), name: name.clone() };
            if services.by_key(&key).is_some_and(|service| is_ours(&service) && is_local(&service)) {
                queue.add(key);
            }
        });
        vec![of_services, of_nodes, of_slices]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(service) = self.services.by_key(key).filter(|service| !meta::ends(service.as_ref())) else {
            return Ok(Action::Done);
        };
        // One that is no load balancer of ours any more keeps what others have written, and loses our condition.
        let taken = if is_ours(&service) { self.taken(&service) } else { None };
        let (wanted, taken) = match taken {
            _ if !is_ours(&service) => (current(&service), None),
            None => {
                let slices = self.of_service.get(&key.to_string());
                let (wanted, is_lost) = ingress(&service, &self.nodes.list(), &self.inside, &slices);
                let nowhere = || {
                    "every node has the ports itself or has given them to others, as events of it say: choose other ports"
                        .to_owned()
                };
                let taken = (wanted.is_empty() && is_lost).then(nowhere);
                (wanted, taken)
            }
            taken => (Vec::new(), taken),
        };
        let is_told = condition::told(&service) == taken.as_deref();
        if current(&service) == wanted && is_told {
            return Ok(Action::Done);
        }
        if let Some(reason) = taken.as_deref().filter(|_| !is_told) {
            let text = format!("Error syncing load balancer: failed to ensure load balancer: {reason}");
            cx.events.about(service.as_ref(), Type::Warning, "SyncLoadBalancerFailed", text);
        }
        let ingress = (!wanted.is_empty()).then_some(&wanted);
        let mut patch = json!({
            "metadata": {"resourceVersion": service.metadata.resource_version},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        if !is_told {
            patch["status"]["conditions"] = json!(condition::with(&service, taken.as_deref(), Timestamp::now()));
        }
        let api: Api<Service> = Api::namespaced(cx.client.clone(), key.ns());
        tolerate(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(Action::Done)
    }
}

impl Balancers {
    /// Why the nodes' ports are not for this service.
    fn taken(&self, service: &Service) -> Option<String> {
        let wanted = ports(service);
        let api = self.of_service.get("default/kubernetes");
        let served = |slice: &Arc<EndpointSlice>| slice.ports.iter().flatten().filter_map(|port| port.port).collect::<Vec<_>>();
        let api: Vec<i32> = api.iter().flat_map(served).collect();
        if let Some((port, _)) = wanted.iter().find(|(port, protocol)| protocol == "TCP" && api.contains(port)) {
            return Some(format!("port {port}/TCP of the nodes is the API server's: choose another port"));
        }
        if let Some((port, protocol)) = self.own.intersection(&wanted).next() {
            return Some(format!("port {port}/{protocol} of the nodes is their own: choose another port"));
        }
        let is_other = |other: &Arc<Service>| Key::of(other.as_ref()) != Key::of(service);
        let others = wanted.iter().flat_map(|port| self.by_port.get(&value(port)));
        others.filter(is_other).find_map(|other| {
            let is_first = |port: &&(i32, String)| order(&other, port) < order(service, port);
            let balanced = balanced(&other).intersection(&wanted).find(is_first).map(|port| (port.clone(), ""));
            let of_node = node_ports(&other);
            let mut of_node = of_node.intersection(&wanted).filter(|port| !is_served(service, port));
            let ((port, protocol), what) = balanced.or_else(|| of_node.next().map(|port| (port.clone(), "the node port of ")))?;
            let (namespace, name) = (meta::namespace(other.as_ref()), meta::name(other.as_ref()));
            let text = format!("port {port}/{protocol} of the nodes is taken by {what}service {namespace}/{name}");
            Some(format!("{text}: choose another port or delete that"))
        })
    }
}

fn all(services: &Informer<Service>) -> impl Iterator<Item = Key> {
    services.list().into_iter().filter(|service| is_ours(service)).map(|service| Key::of(service.as_ref()))
}

/// A port as the index has it.
fn value((port, protocol): &(i32, String)) -> String {
    format!("{port}/{protocol}")
}

/// Ports that a service wants of the nodes as a load balancer.
fn balanced(service: &Service) -> BTreeSet<(i32, String)> {
    if is_ours(service) && !meta::ends(service) { ports(service) } else { BTreeSet::new() }
}

/// Ports of a service that has changed for which others may wait, or which it may take from them. Most changes concern none.
fn ports_that_change([old, new]: [Option<&Service>; 2]) -> BTreeSet<(i32, String)> {
    let ours = |service: Option<&Service>| service.filter(|one| is_ours(one)).map(|one| (one.spec.clone(), meta::ends(one)));
    let of_node = |service: Option<&Service>| service.map(node_ports).unwrap_or_default();
    if ours(old) == ours(new) && of_node(old) == of_node(new) {
        return BTreeSet::new();
    }
    let all = |service: &Service| node_ports(service).into_iter().chain(balanced(service)).collect::<Vec<_>>();
    [old, new].into_iter().flatten().flat_map(all).collect()
}

/// Whether it matters to `other` that a service has changed, of which it wants the same port: only where that comes before it.
fn concerns(states: [Option<&Service>; 2], other: &Service, port: &(i32, String)) -> bool {
    let of_node = |state: &&Service| node_ports(state).contains(port);
    let before = |state: &&Service| order(state, port) < order(other, port);
    states.into_iter().flatten().any(|state| of_node(&state) || before(&state))
}

/// The order in which services get a port: a Service that asks for it late, as a load balancer or with one port more, takes it from nobody who is
/// served at it.
fn order<'a>(service: &'a Service, port: &(i32, String)) -> (bool, Option<jiff::Timestamp>, &'a str, &'a str) {
    let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (!is_served(service, port), created, meta::namespace(service), meta::name(service))
}

/// Whether the status says that the service is served at the port. Where it says nothing of ports, all are.
fn is_served(service: &Service, port: &(i32, String)) -> bool {
    let is_it = |told: &PortStatus| (told.port, &told.protocol) == (port.0, &port.1) && told.error.is_none();
    current(service).iter().any(|one| one.ports.as_ref().is_none_or(|ports| ports.iter().any(is_it)))
}

fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
}

fn is_local(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref()) == Some("Local")
}

fn ports(service: &Service) -> BTreeSet<(i32, String)> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    ports.map(|port| (port.port, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()))).collect()
}

/// Ports that a service has on every node, whatever its type. The health check of a load balancer is one of them.
fn node_ports(service: &Service) -> BTreeSet<(i32, String)> {
    let Some(spec) = &service.spec else { return BTreeSet::new() };
    let tcp = || "TCP".to_owned();
    let ports = spec.ports.iter().flatten().filter_map(|port| Some((port.node_port?, port.protocol.clone().unwrap_or_else(tcp))));
    ports.chain(spec.health_check_node_port.map(|port| (port, tcp()))).filter(|(port, _)| *port > 0).collect()
}

fn current(service: &Service) -> Vec<LoadBalancerIngress> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.clone()).unwrap_or_default()
}

/// Whether load balancers are served at a node.
fn is_used(node: &Node) -> bool {
    let excluded = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
    crate::node_lifecycle::is_ready(node) && !excluded && !meta::ends(node)
}

/// The kubelet's port, which nobody gets at its node's addresses.
fn kubelet(node: &Node) -> Option<(i32, String)> {
    let endpoints = node.status.as_ref()?.daemon_endpoints.as_ref()?;
    Some((endpoints.kubelet_endpoint.as_ref()?.port, "TCP".to_owned()))
}

/// The addresses of a node that clients may use: external ones, else internal ones.
fn addresses(all: &[(Kind, IpAddr)]) -> Vec<String> {
    let of = |kind: Kind| all.iter().filter(move |(of, _)| *of == kind).map(|(_, address)| address.to_string());
    let external: Vec<String> = of(Kind::External).collect();
    if external.is_empty() { of(Kind::Internal).collect() } else { external }
}

/// Where the service is served, and whether a node has given ports of it to others. With external traffic policy Local only on nodes with ready
/// endpoints.
fn ingress(
    service: &Service,
    nodes: &[Arc<Node>],
    inside: &[IpNet],
    slices: &[Arc<EndpointSlice>],
) -> (Vec<LoadBalancerIngress>, bool) {
    let (families, wanted, key) = (families(service), ports(service), Key::of(service));
    let ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).filter(ready);
    let hosts: BTreeSet<&str> = endpoints.filter_map(|endpoint| endpoint.node_name.as_deref()).collect();
    let is_inside = |address: &IpAddr| inside.iter().any(|range| range.contains(address));
    let believed = node_addresses::believed(nodes.iter().map(AsRef::as_ref), None, is_inside);
    let mut found = BTreeMap::new();
    let mut is_lost = false;
    for node in nodes.iter().filter(|node| !is_local(service) || hosts.contains(meta::name(node.as_ref()))) {
        let Some(addresses) = believed.get(meta::name(node.as_ref())).filter(|_| is_used(node)) else { continue };
        let told = TakenPort::told(node).into_iter().filter(|taken| taken.service == key).map(|taken| taken.port);
        let lost: BTreeSet<(i32, String)> = told.chain(kubelet(node)).filter(|port| wanted.contains(port)).collect();
        is_lost |= !lost.is_empty();
        if !lost.is_empty() && lost == wanted {
            continue;
        }
        let port = |(port, protocol): &(i32, String)| PortStatus {
            port: *port,
            protocol: protocol.clone(),
            error: lost.contains(&(*port, protocol.clone())).then(|| UNAVAILABLE.to_owned()),
        };
        for address in self::addresses(addresses) {
            // The service's first family first: many clients take the first address.
            let Some(family) = families.iter().position(|family| Family::of(&address) == Some(*family)) else { continue };
            found.entry((family, address)).or_insert_with(|| wanted.iter().map(port).collect::<Vec<_>>());
        }
    }
    let entry = |((_, ip), ports)| LoadBalancerIngress {
        ip: Some(ip),
        ip_mode: Some("VIP".to_owned()),
        ports: Some(ports),
        ..LoadBalancerIngress::default()
    };
    (found.into_iter().map(entry).collect(), is_lost)
}

#[cfg(test)]
mod tests;
