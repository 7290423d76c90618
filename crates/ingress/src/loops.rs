//! Endpoints that lead back to ingress. What they are sent would come around again, each time by another connection or another session,
//! until there is no room for anybody: bytes and datagrams have no count of their hops.
//!
//! Ports of Services are followed, since nodes lead from them to endpoints in turn: node ports, and addresses of Services inside and outside.

mod sessions;

pub(crate) use sessions::SessionAddresses;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use client::{Key, load_balancer};
use k8s_openapi::api::core::v1::Service;

use crate::cluster_addresses::ClusterAddresses;
use crate::endpoints::PortRef;
use crate::gateway::streams::{Port, Transport};

/// Where nodes lead to the endpoints of a Service: at one address, or, without one, at all those of nodes.
type Entrance = (Option<IpAddr>, Port);

/// The entrances of Services.
#[derive(Debug, Default)]
pub(crate) struct Loops {
    to: HashMap<Entrance, BTreeSet<(Key, PortRef)>>,
    of: HashMap<Key, BTreeMap<Entrance, PortRef>>,
}

impl Loops {
    /// A Service is as given; none when it is gone. The addresses that lead somewhere else than before.
    pub(crate) fn set(&mut self, key: &Key, service: Option<&Service>) -> HashSet<IpAddr> {
        let new = service.map(entrances).unwrap_or_default();
        let old = self.of.remove(key).unwrap_or_default();
        if old == new {
            if !new.is_empty() {
                self.of.insert(key.clone(), new);
            }
            return HashSet::new();
        }
        for (entrance, port) in &old {
            if let Some(services) = self.to.get_mut(entrance) {
                services.remove(&(key.clone(), port.clone()));
                if services.is_empty() {
                    self.to.remove(entrance);
                }
            }
        }
        for (entrance, port) in &new {
            self.to.entry(*entrance).or_default().insert((key.clone(), port.clone()));
        }
        let changed = old.keys().chain(new.keys()).filter_map(|(address, _)| *address).collect();
        if !new.is_empty() {
            self.of.insert(key.clone(), new);
        }
        changed
    }

    /// Whether an endpoint could lead anywhere else than to itself: it is a node's or a Service's address.
    pub(crate) fn may_lead_on(&self, endpoint: SocketAddr, transport: Transport, cluster: &ClusterAddresses) -> bool {
        let port = Port { transport, number: endpoint.port() };
        cluster.is_node(endpoint.ip()) || self.to.contains_key(&(Some(endpoint.ip().to_canonical()), port))
    }

    /// Whether what is sent to an endpoint comes back to `ingress`: a port at an address where it is reached.
    pub(crate) fn lead_back(
        &self,
        endpoint: SocketAddr,
        transport: Transport,
        ingress: &dyn Fn(IpAddr, Port) -> bool,
        cluster: &ClusterAddresses,
        behind: &dyn Fn(&Key, &PortRef) -> BTreeSet<SocketAddr>,
    ) -> bool {
        let (mut left, mut seen) = (vec![endpoint], HashSet::new());
        while let Some(at) = left.pop() {
            let port = Port { transport, number: at.port() };
            if ingress(at.ip().to_canonical(), port) {
                return true;
            }
            let is_node = cluster.is_node(at.ip());
            let entrances = [Some((Some(at.ip().to_canonical()), port)), is_node.then_some((None, port))];
            for service in entrances.iter().flatten().filter_map(|entrance| self.to.get(entrance)).flatten() {
                if seen.insert(service) {
                    left.extend(behind(&service.0, &service.1));
                }
            }
        }
        false
    }
}

/// The entrances of a Service, and the port behind each.
fn entrances(service: &Service) -> BTreeMap<Entrance, PortRef> {
    let Some(spec) = &service.spec else { return BTreeMap::new() };
    let balancer = load_balancer::served_at(service).iter().filter_map(|ingress| ingress.ip.as_ref());
    let given = spec.cluster_ips.iter().flatten().chain(spec.external_ips.iter().flatten()).chain(balancer);
    let addresses: BTreeSet<IpAddr> = given.filter_map(|address| address.parse().ok()).collect();
    let mut entrances = BTreeMap::new();
    for port in spec.ports.iter().flatten() {
        let number = |number: i32| Port::named(port.protocol.as_deref().unwrap_or("TCP"), u16::try_from(number).ok()?);
        let Some(own) = number(port.port) else { continue };
        let reference = if own.transport == Transport::Udp { PortRef::Udp(own.number) } else { PortRef::Number(own.number) };
        let node_port = port.node_port.and_then(number).map(|port| (None, port));
        let all = addresses.iter().map(|address| (Some(address.to_canonical()), own)).chain(node_port);
        entrances.extend(all.map(|entrance| (entrance, reference.clone())));
    }
    entrances
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// Services by name: their specs, their addresses as load balancers, and their endpoints.
    fn check(services: &[(&str, Value, &[&str], &[&str])], endpoint: &str, expected: bool) {
        let mut loops = Loops::default();
        for (name, spec, balancer, _) in services {
            let addresses: Vec<Value> = balancer.iter().map(|address| json!({"ip": address})).collect();
            let status = json!({"loadBalancer": {"ingress": addresses}});
            let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).unwrap();
            loops.set(&Key::namespaced("a", *name), Some(&service));
        }
        let cluster = ClusterAddresses::new(Vec::new(), ["192.0.2.1", "fd00::1"].map(|node| node.parse().unwrap()).to_vec());
        cluster.set_nodes(["192.0.2.2".parse().unwrap()]);
        let behind = |key: &Key, _: &PortRef| {
            let (.., endpoints) = services.iter().find(|(name, ..)| *name == key.name).unwrap();
            endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect()
        };
        let ingress = |at: IpAddr, port: Port| cluster.is_node(at) && [Port::tcp(443), Port::tcp(6001)].contains(&port);
        let found = loops.lead_back(endpoint.parse().unwrap(), Transport::Tcp, &ingress, &cluster, &behind);
        assert_eq!(found, expected, "{services:?} {endpoint}");
        for (name, ..) in services {
            loops.set(&Key::namespaced("a", *name), None);
        }
        assert!(loops.to.is_empty() && loops.of.is_empty());
    }

    #[test]
    fn what_comes_around() {
        for endpoint in ["192.0.2.1:6001", "192.0.2.2:6001", "[::ffff:192.0.2.2]:6001", "[fd00::1]:443"] {
            check(&[], endpoint, true);
        }
        for endpoint in ["192.0.2.2:6002", "10.42.0.2:6001", "198.51.100.1:443"] {
            check(&[], endpoint, false);
        }
        let node_port = json!({"ports": [{"port": 80, "nodePort": 30501}]});
        let back: &[&str] = &["10.42.0.2:80", "192.0.2.1:6001"];
        check(&[("np", node_port.clone(), &[], back)], "192.0.2.2:30501", true);
        check(&[("np", node_port.clone(), &[], &["10.42.0.2:6001"])], "192.0.2.2:30501", false);
        let udp = json!({"ports": [{"port": 80, "nodePort": 30501, "protocol": "UDP"}]});
        check(&[("np", udp, &[], back)], "192.0.2.2:30501", false);
        let cluster = json!({"type": "LoadBalancer", "clusterIPs": ["10.43.0.9"], "externalIPs": ["198.51.100.1"], "ports": [{"port": 80}]});
        for entrance in ["10.43.0.9:80", "198.51.100.1:80", "198.51.100.2:80"] {
            check(&[("c", cluster.clone(), &["198.51.100.2"], back)], entrance, true);
        }
        check(&[("c", cluster.clone(), &[], back)], "10.43.0.9:81", false);
        // Nobody serves what is no load balancer any more.
        let plain = json!({"type": "ClusterIP", "clusterIPs": ["10.43.0.9"], "ports": [{"port": 80}]});
        check(&[("c", plain, &["198.51.100.2"], back)], "198.51.100.2:80", false);
        // By way of another Service.
        check(&[("c", cluster.clone(), &[], &["192.0.2.2:30501"]), ("np", node_port, &[], back)], "10.43.0.9:80", true);
        // A load balancer at the port of its own pods in the host's network leads nowhere else.
        check(&[("c", cluster, &["192.0.2.2"], &["192.0.2.2:80"])], "192.0.2.2:80", false);
    }
}
