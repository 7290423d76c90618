//! Which endpoints of a service port clients may get. Pure.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use super::node::Node;
use crate::nft::Family;
use crate::nft::claims::Programs;
use crate::nft::element::{Endpoint, Protocol};

/// Endpoints for clients, each list sorted and without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// For policy Cluster.
    pub(super) all: Vec<Endpoint>,
    /// For policy Local: those on this node.
    pub(super) local: Vec<Endpoint>,
    /// All that serve, also those that no new client gets.
    pub(super) serving: Vec<Endpoint>,
}

struct Candidate<'a> {
    endpoint: Endpoint,
    api: &'a ApiEndpoint,
    ready: bool,
    local: bool,
}

/// The endpoints for one port of a service. Ready ones are taken; where there are none, those that still serve while they
/// terminate (KEP-1669). Topology hints narrow the choice when every ready endpoint has them (KEP-2433, KEP-3015).
pub(super) fn choose(slices: &[Slice<'_>], family: Family, protocol: Protocol, port: &str, node: &Node) -> Chosen {
    let candidates: Vec<Candidate<'_>> =
        slices.iter().flat_map(|slice| candidates(slice, family, protocol, port, node)).collect();
    let usable = |local: bool| -> Vec<&Candidate<'_>> {
        let considered: Vec<_> = candidates.iter().filter(|one| !local || one.local).collect();
        let ready = considered.iter().any(|one| one.ready);
        considered.into_iter().filter(|one| one.ready == ready).collect()
    };
    let serving = sorted(candidates.iter().collect());
    let all = usable(false);
    // Of those that terminate it counts that they still serve, wherever they are.
    let all = if all.iter().all(|one| one.ready) { hinted(all, node) } else { all };
    Chosen { all: sorted(all), local: sorted(usable(true)), serving }
}

fn candidates<'a>(slice: &Slice<'a>, family: Family, protocol: Protocol, port: &str, node: &Node) -> Vec<Candidate<'a>> {
    if !slice.is_of(family) {
        return Vec::new();
    }
    let Some(port) = slice.port(protocol, port) else { return Vec::new() };
    let mut found = Vec::new();
    for api in slice.api.endpoints.iter().flatten() {
        let (conditions, ready) = (api.conditions.as_ref(), is_ready(api));
        let serving = conditions.and_then(|all| all.serving).unwrap_or(ready);
        let terminating = conditions.and_then(|all| all.terminating).unwrap_or(false);
        let usable = ready || serving && terminating;
        if !usable {
            continue;
        }
        let local = is_here(api, node);
        // Addresses of one endpoint are interchangeable: the first is used, as the API says.
        if let Some(address) = api.addresses.first().and_then(|address| address.parse().ok()) {
            found.push(Candidate { endpoint: Endpoint { address, port }, api, ready, local });
        }
    }
    found
}

fn is_ready(endpoint: &ApiEndpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|all| all.ready).unwrap_or(true)
}

fn is_here(endpoint: &ApiEndpoint, node: &Node) -> bool {
    endpoint.node_name.as_deref() == Some(&node.name)
}

/// How many ready endpoints of a service are on the node, whichever of its ports they have (upstream, endpointsmap.go, LocalReadyEndpoints).
pub(super) fn ready_here(slices: &[Slice<'_>], family: Family, node: &Node) -> usize {
    let all = slices.iter().filter(|slice| slice.is_of(family)).flat_map(|slice| slice.api.endpoints.iter().flatten());
    let here = all.filter(|endpoint| is_ready(endpoint) && is_here(endpoint, node));
    here.filter_map(|endpoint| endpoint.addresses.first()).collect::<HashSet<_>>().len()
}

/// A slice with its ports by their names: each port of a service is asked for, and there may be thousands of both.
pub(super) struct Slice<'a> {
    api: &'a EndpointSlice,
    ports: HashMap<(Protocol, &'a str), u16>,
}

impl<'a> Slice<'a> {
    pub(super) fn of(api: &'a EndpointSlice) -> Self {
        let mut ports = HashMap::new();
        for one in api.ports.iter().flatten() {
            let number = one.port.and_then(|port| u16::try_from(port).ok());
            if let Some((protocol, number)) = Protocol::from_name(one.protocol.as_deref()).zip(number) {
                ports.entry((protocol, one.name.as_deref().unwrap_or_default())).or_insert(number);
            }
        }
        Self { api, ports }
    }

    fn is_of(&self, family: Family) -> bool {
        self.api.address_type == if family == Family::V4 { "IPv4" } else { "IPv6" }
    }

    /// The number that a port of the service has at the endpoints.
    fn port(&self, protocol: Protocol, name: &str) -> Option<u16> {
        self.ports.get(&(protocol, name)).copied()
    }
}

/// Where endpoints of a service port, ready or not, listen at a port with this number. A Service is there before its slices are, and
/// a program listens before it is ready.
pub(super) fn programs(slices: &[Slice<'_>], family: Family, protocol: Protocol, port: &str, number: u16) -> Programs {
    let mut slices = slices.iter().filter(|slice| slice.is_of(family)).peekable();
    if slices.peek().is_none() {
        return Programs::Unknown;
    }
    let at_number = slices.filter(|slice| slice.port(protocol, port) == Some(number));
    let endpoints = at_number.flat_map(|slice| slice.api.endpoints.iter().flatten());
    Programs::At(endpoints.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok()).collect())
}

/// Narrows to the endpoints that are meant for this node, else to those for its zone, when all have such hints.
fn hinted<'a, 'b>(candidates: Vec<&'b Candidate<'a>>, node: &Node) -> Vec<&'b Candidate<'a>> {
    let for_node = |one: &Candidate<'_>| {
        let nodes = one.api.hints.as_ref()?.for_nodes.as_ref().filter(|nodes| !nodes.is_empty())?;
        Some(nodes.iter().any(|hint| hint.name == node.name))
    };
    let for_zone = |one: &Candidate<'_>| {
        let zones = one.api.hints.as_ref()?.for_zones.as_ref().filter(|zones| !zones.is_empty())?;
        Some(zones.iter().any(|hint| Some(&hint.name) == node.zone.as_ref()))
    };
    let narrow = |meant: &dyn Fn(&Candidate<'a>) -> Option<bool>| -> Option<Vec<&'b Candidate<'a>>> {
        let hints: Option<Vec<bool>> = candidates.iter().map(|one| meant(one)).collect();
        let kept: Vec<_> = candidates.iter().zip(hints?).filter(|(_, meant)| *meant).map(|(one, _)| *one).collect();
        (!kept.is_empty()).then_some(kept)
    };
    narrow(&for_node).or_else(|| narrow(&for_zone)).unwrap_or(candidates)
}

fn sorted(candidates: Vec<&Candidate<'_>>) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = candidates.into_iter().map(|one| one.endpoint).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints
}
