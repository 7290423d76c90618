//! What the cluster's names mean, kept current service by service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Deref;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Name, empty when the only port has none.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Number.
    pub number: u16,
}

/// A ready endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its label below the service name: its hostname, else its address with dashes.
    pub host: String,
    /// Address.
    pub address: IpAddr,
    /// Ports.
    pub ports: Vec<Port>,
}

/// What a service name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its own addresses.
    Cluster { addresses: Vec<IpAddr>, ports: Vec<Port> },
    /// Its endpoints.
    Headless { endpoints: Vec<Endpoint> },
    /// Another name.
    External { name: String },
}

/// The records of the cluster domain.
#[derive(Debug, Default)]
pub struct State {
    services: HashMap<String, BTreeMap<String, Target>>,
    /// Address to the names (below the cluster domain) that services give it.
    reverse: HashMap<IpAddr, BTreeSet<String>>,
}

impl State {
    /// Replaces what is known of one service; none removes it. Whether any answer may be another one now.
    pub fn update<S: Deref<Target = EndpointSlice>>(
        &mut self,
        namespace: &str,
        name: &str,
        service: Option<&Service>,
        slices: &[S],
    ) -> bool {
        let new = service.and_then(|service| target(service, slices));
        if self.service(namespace, name) == new.as_ref() {
            return false;
        }
        let old = self.services.get_mut(namespace).and_then(|services| services.remove(name));
        for (address, host) in old.iter().flat_map(|target| reverse_of(namespace, name, target)) {
            if let Some(names) = self.reverse.get_mut(&address) {
                names.remove(&host);
                if names.is_empty() {
                    self.reverse.remove(&address);
                }
            }
        }
        for (address, host) in new.iter().flat_map(|target| reverse_of(namespace, name, target)) {
            self.reverse.entry(address).or_default().insert(host);
        }
        match new {
            Some(target) => {
                self.services.entry(namespace.to_owned()).or_default().insert(name.to_owned(), target);
            }
            None if self.services.get(namespace).is_some_and(BTreeMap::is_empty) => {
                self.services.remove(namespace);
            }
            None => (),
        }
        true
    }

    /// What a service name leads to.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Target> {
        self.services.get(namespace)?.get(name)
    }

    /// Whether the namespace has a service.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.services.contains_key(namespace)
    }

    /// Names of an address, below the cluster domain.
    pub fn names_of(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.reverse.get(&address).into_iter().flatten().map(String::as_str)
    }
}

fn reverse_of(namespace: &str, name: &str, target: &Target) -> Vec<(IpAddr, String)> {
    let service = format!("{name}.{namespace}.svc");
    match target {
        Target::Cluster { addresses, .. } => addresses.iter().map(|address| (*address, service.clone())).collect(),
        Target::Headless { endpoints } => {
            endpoints.iter().map(|endpoint| (endpoint.address, format!("{}.{service}", endpoint.host))).collect()
        }
        Target::External { .. } => Vec::new(),
    }
}

fn target<S: Deref<Target = EndpointSlice>>(service: &Service, slices: &[S]) -> Option<Target> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some(Target::External { name: spec.external_name.clone()? });
    }
    let cluster_ips = spec.cluster_ips.as_deref().filter(|ips| !ips.is_empty());
    let cluster_ips = cluster_ips.or(spec.cluster_ip.as_ref().map(std::slice::from_ref)).unwrap_or_default();
    if cluster_ips.iter().any(|ip| ip == "None") {
        let all = spec.publish_not_ready_addresses == Some(true);
        let mut endpoints: Vec<Endpoint> = slices.iter().flat_map(|slice| endpoints(slice, all)).collect();
        endpoints.sort();
        endpoints.dedup();
        return Some(Target::Headless { endpoints });
    }
    let addresses: Vec<IpAddr> = cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    let ports = spec.ports.iter().flatten();
    let ports = ports.filter_map(|port| new_port(port.name.as_deref(), port.protocol.as_deref(), port.port)).collect();
    // A service whose address is not allocated yet has no records.
    (!addresses.is_empty()).then_some(Target::Cluster { addresses, ports })
}

fn new_port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or_default().to_ascii_lowercase(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
        number: number.try_into().ok()?,
    })
}

fn endpoints(slice: &EndpointSlice, all: bool) -> Vec<Endpoint> {
    let ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| new_port(port.name.as_deref(), port.protocol.as_deref(), port.port?))
        .collect();
    let ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        all || endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let mut found = Vec::new();
    for endpoint in slice.endpoints.iter().flatten().filter(ready) {
        for address in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
            let host = endpoint.hostname.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| dashed(address));
            found.push(Endpoint { host: host.to_ascii_lowercase(), address, ports: ports.clone() });
        }
    }
    found
}

/// An address as one label: its text with dashes.
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
