//! From a Service and its EndpointSlices to table entries. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Deref;

use base::addresses;
use client::load_balancer;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::endpoints::{Slice, choose, programs, ready_here};
use super::node::Node;
use crate::nft::Family;
use crate::nft::claims::Programs;
use crate::nft::contents::Fragment;
use crate::nft::element::{Claim, Endpoint, Key, Protocol};
use crate::nft::features::reserved;
use crate::nft::features::services::{self, Clients, Empty, Entry};

/// Endpoints, and ranges of clients, of all entries of one service together; the table takes some dozens of megabytes for so many. Whoever makes a service chooses how
/// many ports, addresses and endpoints it has, and each port has all endpoints at each address.
pub const MOST: usize = 1 << 18;

/// The entries of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Entries, at most one of a map and key.
    pub entries: Vec<Entry>,
    /// Endpoints on this node, which may connect to themselves.
    pub hairpin: Vec<IpAddr>,
    /// The health check port of external traffic policy Local.
    pub health_port: Option<u16>,
    /// Ready endpoints on this node, which load balancers ask for there: those that terminate serve on, and get no more than what is under way.
    pub local_endpoints: usize,
    /// Ports of a load balancer that nodes serve.
    pub balanced: Vec<Balanced>,
    /// Ports that the service asks for at its external addresses, and at those of load balancers of other implementations.
    pub external: Vec<Key>,
    /// Endpoints of UDP ports that new flows do not get, and that serve: flows to them go on, as connections do, whatever keeps new ones from
    /// them (that they terminate, traffic policies, topology).
    pub lingering: Vec<(Key, Endpoint)>,
    /// Where the API servers are, if the service is theirs: nobody gets these places, here as little as at the servers' nodes.
    pub api: Vec<Key>,
    /// Ports that are left out, the last ones: with them there would be more than [`MOST`].
    pub left_out: usize,
}

/// A port that a load balancer asks for on every node, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balanced {
    /// Family of the nodes' addresses.
    pub family: Family,
    /// Protocol
    pub protocol: Protocol,
    /// Port
    pub port: u16,
    /// What the service leads to and may listen at the port itself.
    pub programs: Programs,
}

/// Plans one service. `previous` is its last plan, from which slots are kept.
pub fn plan<S: Deref<Target = EndpointSlice>>(service: &Service, slices: &[S], node: &Node, previous: &Plan) -> Plan {
    let Some(spec) = service.spec.as_ref().filter(|_| is_proxied(service)) else { return Plan::default() };
    let mut plan = Plan::default();
    let slices: Vec<Slice<'_>> = slices.iter().map(|slice| Slice::of(slice)).collect();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut families = families(spec);
    families.retain(|family| node.families.contains(family));
    let outside: Vec<Outside> = families.iter().map(|family| Outside::of(service, spec, *family, node)).collect();
    let mut room = MOST;
    'ports: for (index, port) in ports.iter().enumerate() {
        let Some(protocol) = Protocol::from_name(port.protocol.as_deref()) else { continue };
        for outside in &outside {
            match plan_port(&mut plan, service, spec, port, protocol, outside, &slices, node, room) {
                Some(left) => room = left,
                None => {
                    plan.left_out = ports.len() - index;
                    break 'ports;
                }
            }
        }
    }
    plan.hairpin.sort_unstable();
    plan.hairpin.dedup();
    if external_local(spec) {
        plan.health_port = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        plan.local_endpoints = families.iter().map(|family| ready_here(&slices, *family, node)).max().unwrap_or_default();
    }
    keep_slots(&mut plan, previous);
    plan
}

/// What a plan contributes to the table.
pub fn fragment(plan: &Plan) -> Fragment {
    let mut fragment = services::fragment(&plan.entries);
    fragment.elements.extend(plan.hairpin.iter().map(|address| services::hairpin(*address)));
    fragment.claimed.extend(plan.api.iter().map(|key| reserved::claim(*key)));
    fragment.lingering.clone_from(&plan.lingering);
    fragment
}

/// Headless services, those with the label of headless ones, aliases and those that name another proxy are not ours.
fn is_proxied(service: &Service) -> bool {
    const LEFT_OUT: [&str; 2] = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
    let labels = service.metadata.labels.as_ref();
    let labelled = labels.is_some_and(|labels| LEFT_OUT.iter().any(|label| labels.contains_key(*label)));
    let Some(spec) = &service.spec else { return false };
    let headless = spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None");
    !labelled && !headless && spec.type_.as_deref() != Some("ExternalName")
}

fn meta(service: &Service) -> (Option<&str>, Option<&str>) {
    (service.metadata.namespace.as_deref(), service.metadata.name.as_deref())
}

fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let many = spec.cluster_ips.iter().flatten();
    let mut ips: Vec<IpAddr> = many.chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok()).collect();
    let mut seen = HashSet::new();
    ips.retain(|ip| seen.insert(*ip));
    ips
}

fn families(spec: &ServiceSpec) -> Vec<Family> {
    cluster_ips(spec).into_iter().map(Family::of).collect()
}

fn external_local(spec: &ServiceSpec) -> bool {
    spec.external_traffic_policy.as_deref() == Some("Local")
}

/// The clients that may use the load balancer's addresses of a family. None: everybody.
fn sources(spec: &ServiceSpec, family: Family) -> Option<Vec<IpNet>> {
    let ranges = spec.load_balancer_source_ranges.as_ref().filter(|ranges| !ranges.is_empty())?;
    let ranges = ranges.iter().filter_map(|range| range.trim().parse().ok());
    let ranges: Vec<IpNet> = ranges.filter(|range: &IpNet| Family::of(range.addr()) == family).collect();
    // The kernel wants ranges that do not overlap.
    Some(IpNet::aggregate(&ranges))
}

/// Whether nodes serve the load balancer: it is of no other implementation.
fn is_balanced(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
}

/// What a service has of the world outside, in one family: read once, not for each of its ports.
struct Outside {
    family: Family,
    /// The clients that may use the load balancer's addresses. None: everybody.
    sources: Option<Vec<IpNet>>,
    external: Vec<IpAddr>,
    /// Addresses of the load balancer, each with the ports that it has not got there, as the controller has written: what goes there goes to the node's own.
    balancers: Vec<(IpAddr, HashSet<(i32, String)>)>,
}

impl Outside {
    fn of(service: &Service, spec: &ServiceSpec, family: Family, node: &Node) -> Self {
        let address = |ip: &String| {
            let address = ip.parse().ok().filter(|address| Family::of(*address) == family)?;
            // No status is checked for what would be every address of the node, its own loopback or the credentials of its cloud.
            let is_outside = !addresses::is_special(address) && !node.inner_cidrs.iter().any(|cidr| cidr.contains(&address));
            is_outside.then_some(address)
        };
        let lost = |one: &LoadBalancerIngress| {
            let lost = one.ports.iter().flatten().filter(|told| told.error.is_some());
            lost.map(|told| (told.port, told.protocol.clone())).collect()
        };
        // ipMode Proxy: the load balancer wants the traffic even of the cluster itself.
        let balancers = load_balancer::served_at(service).iter().filter(|one| one.ip_mode.as_deref() != Some("Proxy"));
        Self {
            family,
            sources: sources(spec, family),
            external: spec.external_ips.iter().flatten().filter_map(address).collect(),
            balancers: balancers.filter_map(|one| Some((address(one.ip.as_ref()?)?, lost(one)))).collect(),
        }
    }

    /// The addresses that have the port, each with whether it is a load balancer's.
    fn at(&self, protocol: Protocol, port: i32) -> Vec<(IpAddr, bool)> {
        let port = (port, protocol.name().to_owned());
        let balancers = self.balancers.iter().filter(|(_, lost)| !lost.contains(&port)).map(|(address, _)| (*address, true));
        self.external.iter().map(|address| (*address, false)).chain(balancers).collect()
    }
}

/// Returns how much of `room` is left; none, and plans nothing, where the port has not enough.
#[allow(clippy::too_many_arguments)] // One call, and a struct would name every argument once more.
fn plan_port(
    plan: &mut Plan,
    service: &Service,
    spec: &ServiceSpec,
    port: &ServicePort,
    protocol: Protocol,
    outside: &Outside,
    slices: &[Slice<'_>],
    node: &Node,
    room: usize,
) -> Option<usize> {
    let name = port.name.as_deref().unwrap_or_default();
    let (family, sources, externals) = (outside.family, &outside.sources, outside.at(protocol, port.port));
    let chosen = choose(slices, family, protocol, name, node);
    // At each address, and at the node port, for each kind of clients.
    let places = cluster_ips(spec).len() + (externals.len() + 1) * if external_local(spec) { 2 } else { 1 };
    let room = room.checked_sub(places * (1 + chosen.serving.len() + sources.as_ref().map_or(0, Vec::len)))?;
    let programs = |number| programs(slices, family, protocol, name, number);
    let key = |address, port: i32| Some(Key { address, protocol, port: u16::try_from(port).ok().filter(|port| *port > 0)? });
    let sticky = sticky(spec);
    // Without endpoints anywhere the service is known to be down; with some elsewhere a Local policy is just silent.
    let empty = if chosen.all.is_empty() { Empty::Reject } else { Empty::Drop };
    let entry = |clients, key, slots: &[Endpoint], masquerade| Entry {
        clients,
        key,
        slots: slots.to_vec(),
        empty,
        sticky,
        masquerade,
        sources: None,
        claim: Claim::ClusterIp,
        programs: Programs::NONE,
    };
    let mut entries = Vec::new();
    let internal = if spec.internal_traffic_policy.as_deref() == Some("Local") { &chosen.local } else { &chosen.all };
    for address in cluster_ips(spec).into_iter().filter(|address| Family::of(*address) == family) {
        entries.extend(key(address, port.port).map(|key| entry(Clients::All, key, internal, false)));
    }
    let place = |(address, balancer)| {
        // Who has an address that another implementation has written is nobody's to say: it counts as an external one, and the node whose address
        // it is tells the others what it has not given to it.
        let claim = if balancer && is_balanced(spec) { Claim::Balancer } else { Claim::External };
        Some((key(address, port.port)?, sources.clone().filter(|_| balancer), claim))
    };
    let mut outside: Vec<(Key, Option<Vec<IpNet>>, Claim)> = externals.into_iter().filter_map(place).collect();
    // What is led to where it is going needs no rule: a program of the node listens there.
    outside.retain(|(key, ..)| chosen.all != [Endpoint { address: key.address, port: key.port }]);
    outside.extend(port.node_port.and_then(|number| Some((key(family.unspecified(), number)?, None, Claim::External))));
    let external = outside.iter().filter(|(key, _, claim)| *claim == Claim::External && !key.address.is_unspecified());
    plan.external.extend(external.map(|(key, ..)| *key));
    for (key, sources, claim) in outside {
        let of_all = Entry { sources, claim, programs: programs(key.port), ..entry(Clients::All, key, &chosen.all, true) };
        // The client's address is kept: its packets stay on this node.
        let of_outside = || Entry { clients: Clients::Outside, slots: chosen.local.clone(), masquerade: false, ..of_all.clone() };
        let of_outside = external_local(spec).then(of_outside);
        entries.push(of_all);
        entries.extend(of_outside);
    }
    let mut seen = HashSet::new();
    entries.retain(|entry| seen.insert((entry.clients, entry.key)));
    if protocol == Protocol::Udp {
        for Entry { key, slots, .. } in entries.iter().filter(|entry| entry.clients == Clients::All) {
            let others = chosen.serving.iter().filter(|one| slots.binary_search(one).is_err());
            plan.lingering.extend(others.map(|one| (*key, *one)));
        }
    }
    plan.entries.extend(entries);
    let here = |address: &IpAddr| node.pod_cidrs.iter().any(|cidr| cidr.contains(address));
    plan.hairpin.extend(chosen.all.iter().chain(&chosen.local).map(|one| one.address).filter(here));
    if let Some(number) = u16::try_from(port.port).ok().filter(|_| is_balanced(spec)) {
        plan.balanced.push(Balanced { family, protocol, port: number, programs: programs(number) });
    }
    if meta(service) == (Some("default"), Some("kubernetes")) {
        plan.api.extend(chosen.all.iter().map(|one| Key { address: one.address, protocol, port: one.port }));
    }
    Some(room)
}

/// Affinity timeout in seconds, 0 for none; 3 hours unless said otherwise.
fn sticky(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|client_ip| client_ip.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
    seconds.unwrap_or(10_800).clamp(1, 86_400)
}

fn keep_slots(plan: &mut Plan, previous: &Plan) {
    let old: HashMap<(Clients, Key), &Entry> = previous.entries.iter().map(|entry| ((entry.clients, entry.key), entry)).collect();
    for entry in &mut plan.entries {
        if let Some(old) = old.get(&(entry.clients, entry.key)) {
            entry.slots = assign(&old.slots, &entry.slots);
        }
    }
}

/// Puts `wanted` (sorted) endpoints into as many slots, each into its old one when that still exists.
fn assign(old: &[Endpoint], wanted: &[Endpoint]) -> Vec<Endpoint> {
    let mut slots: Vec<Option<Endpoint>> = (0..wanted.len())
        .map(|index| old.get(index).copied().filter(|endpoint| wanted.binary_search(endpoint).is_ok()))
        .collect();
    let placed: HashSet<Endpoint> = slots.iter().flatten().copied().collect();
    let mut rest = wanted.iter().filter(|endpoint| !placed.contains(endpoint));
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = rest.next().copied();
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
