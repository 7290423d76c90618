//! Services, their endpoints, and the nodes: who answers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use client::events::Type;
use client::node_addresses::{self, Kind};
use client::taken_ports::TakenPort;
use client::{Key, load_balancer};
use k8s_openapi::api::core::v1::{Node, Service, ServicePort};

use super::{Follower, GATEWAY_PORT, SYSTEM, WEB};
use crate::endpoints::{self, Behind, PortRef};
use crate::gateway::streams::Port;
use crate::gateway::{Offer, TakenAt, TakenPorts};
use crate::upstream::{Place, Upstream};

impl Follower {
    /// Takes the addresses of the nodes.
    pub(super) fn nodes(&mut self) {
        let nodes = self.nodes.list();
        // A node writes its addresses itself: its word must not shut others out.
        let believed = node_addresses::believed(nodes.iter().map(AsRef::as_ref), None, |at| self.cluster.is_in_range(*at));
        if self.cluster.set_nodes(believed.values().flatten().map(|(_, address)| *address)) {
            self.look_behind_those(|_| true);
            self.replan = true;
        }
        let taken = self.taken_ports(&nodes, &believed);
        self.replan |= taken != self.taken;
        self.taken = taken;
    }

    /// The ports that lead here and that nodes tell to have given to others.
    fn taken_ports(&self, nodes: &[Arc<Node>], believed: &HashMap<&str, Vec<(Kind, IpAddr)>>) -> TakenPorts {
        let mut taken = TakenPorts::new();
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let mut addresses = believed.get(name.as_str()).into_iter().flatten();
            let is_ours = addresses.any(|(_, address)| self.options.addresses.contains(address));
            for one in TakenPort::told(node) {
                let (number, protocol) = &one.port;
                let port = u16::try_from(*number).ok().and_then(|number| Port::named(protocol, number));
                // Only ingress's own Services have such names: others make none in that namespace.
                if let Some(port) = port.filter(|_| one.service.ns() == SYSTEM && one.service.name.starts_with(WEB)) {
                    taken.entry(port).or_default().insert(TakenAt { node: name.clone(), is_ours });
                }
            }
        }
        taken
    }

    /// Takes Services and their endpoints.
    pub(super) fn services(&mut self, changed: &BTreeSet<Key>) {
        let mut moved = HashSet::new();
        for key in changed {
            let service = self.services.get(key).0;
            if service.is_none() {
                self.left_out.remove(key);
            }
            moved.extend(self.loops.set(key, service.as_deref()));
            let (offers, has) = (service.as_deref().map(offer), service.as_deref().map(balanced).unwrap_or_default());
            let had = if has.is_empty() { self.balancers.remove(key) } else { self.balancers.insert(key.clone(), has.clone()) };
            self.replan |= had.unwrap_or_default() != has;
            let offered = self.services_there.get(key).map(Arc::as_ref);
            if offered != offers.as_ref() {
                self.replan = true;
                match offers {
                    Some(offers) => drop(self.services_there.insert(key.clone(), offers.into())),
                    None => drop(self.services_there.remove(key)),
                }
            }
        }
        for key in changed {
            self.look_behind_service(key);
        }
        if !changed.is_empty() {
            self.look_behind_suspects();
        }
        if !moved.is_empty() {
            self.look_behind_those(|upstream| upstream.is_at(&moved));
        }
    }

    /// Looks again at endpoints that may lead back here: where they lead has changed.
    pub(super) fn look_behind_suspects(&mut self) {
        for key in self.suspects.clone() {
            self.look_behind_service(&key);
        }
    }

    fn look_behind_those(&mut self, wanted: impl Fn(&Upstream) -> bool) {
        for upstream in self.upstreams.all() {
            if wanted(&upstream) {
                self.look_behind(&upstream);
            }
        }
    }

    fn look_behind_service(&mut self, key: &Key) {
        self.suspects.remove(key);
        for upstream in self.upstreams.of_service(key) {
            self.look_behind(&upstream);
        }
    }

    /// Gives a back end the endpoints that it has now, without those that lead back here.
    pub(super) fn look_behind(&mut self, upstream: &Upstream) {
        let Place::Service(key, port) = &upstream.key.place else { return };
        let mut behind = self.behind(key, port);
        if let Behind::Addresses(addresses, _) = &mut behind {
            let transport = port.transport();
            if addresses.iter().any(|at| self.loops.may_lead_on(*at, transport, &self.cluster)) {
                self.suspects.insert(key.clone());
            }
            let web = [self.options.http_port, self.options.https_port].map(Port::tcp);
            let is_at = |address: IpAddr| match self.options.nodes_lead_here {
                true => self.cluster.is_node(address),
                false => self.options.addresses.contains(&address),
            };
            let of_ingress =
                |address: IpAddr, port: Port| is_at(address) && (web.contains(&port) || self.wanted_ports.contains(&port));
            let addresses_of = |key: &Key, port: &PortRef| match self.behind(key, port) {
                Behind::Addresses(addresses, _) => addresses,
                _ => BTreeSet::<SocketAddr>::new(),
            };
            let leads_back = |at: &SocketAddr| self.loops.lead_back(*at, transport, &of_ingress, &self.cluster, &addresses_of);
            let left_out: BTreeSet<SocketAddr> = addresses.iter().copied().filter(leads_back).collect();
            addresses.retain(|at| !left_out.contains(at));
            self.tell_left_out(key, port, left_out);
        }
        upstream.set(behind);
    }

    /// Tells, once for each, which endpoints of a Service are left out.
    fn tell_left_out(&mut self, key: &Key, port: &PortRef, endpoints: BTreeSet<SocketAddr>) {
        let ports = self.left_out.get(key);
        let told = ports.and_then(|ports| ports.get(port)).cloned().unwrap_or_default();
        if endpoints == told {
            return;
        }
        let new: Vec<String> = endpoints.difference(&told).map(SocketAddr::to_string).collect();
        if let Some(service) = self.services.get(key).0.filter(|_| !new.is_empty()) {
            let message = format!("ingress leaves out endpoints that lead back to it: {}", new.join(", "));
            self.recorder.about(service.as_ref(), Type::Warning, "EndpointLeadsBack", message);
        }
        let ports = self.left_out.entry(key.clone()).or_default();
        if endpoints.is_empty() {
            ports.remove(port);
        } else {
            ports.insert(port.clone(), endpoints);
        }
        if ports.is_empty() {
            self.left_out.remove(key);
        }
    }

    fn behind(&self, key: &Key, port: &PortRef) -> Behind {
        let (service, slices) = self.services.get(key);
        endpoints::behind(service.as_deref(), &slices, port)
    }
}

/// What a Service offers to routes.
fn offer(service: &Service) -> Offer {
    let spec = service.spec.as_ref();
    let ports = spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = |port: &ServicePort| {
        let number = u16::try_from(port.port).ok()?;
        Some((Port::named(port.protocol.as_deref().unwrap_or("TCP"), number)?, port.name.clone()))
    };
    let is_name = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    Offer { is_name, ports: ports.filter_map(port).collect() }
}

/// The ports of the nodes that a Service has as a load balancer, unless they are those of a Gateway.
fn balanced(service: &Service) -> BTreeSet<Port> {
    // The label says so in that namespace alone, where users make no Services.
    let is_system = service.metadata.namespace.as_deref() == Some(SYSTEM);
    let of_gateway = is_system && service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(GATEWAY_PORT));
    if of_gateway || load_balancer::served_at(service).is_empty() {
        return BTreeSet::new();
    }
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter_map(|port| Port::named(port.protocol.as_deref().unwrap_or("TCP"), u16::try_from(port.port).ok()?)).collect()
}
