//! What the cluster's names mean, kept current service by service.
//!
//! Whoever makes a service chooses how many ports and endpoints it has, and everybody's questions are answered by one loop: what is known of a service
//! is sorted when it is made, and looked up in it when a question comes. The lock is held for looking a service up and for putting another one in its place,
//! not for making either an answer or a service.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::RwLock;

/// Names that are given to addresses, or taken away from them, while others wait.
const PART: usize = 500;

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

/// Ports in order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    all: Vec<Port>,
    /// Their numbers, each once: ports of many names may have the same.
    numbers: Vec<u16>,
}

impl Ports {
    /// Those with this name and protocol; without these all.
    pub fn wanted(&self, wanted: Option<(&str, &str)>) -> &[Port] {
        let Some(wanted) = wanted else { return &self.all };
        let named = |port: &Port| (port.name.as_str(), port.protocol.as_str()).cmp(&wanted);
        let first = self.all.partition_point(|port| named(port).is_lt());
        let end = self.all.partition_point(|port| named(port).is_le());
        self.all.get(first..end).unwrap_or_default()
    }

    /// The numbers of the same, each once.
    pub fn numbers(&self, wanted: Option<(&str, &str)>) -> Cow<'_, [u16]> {
        match wanted {
            Some(_) => self.wanted(wanted).iter().map(|port| port.number).collect(),
            None => Cow::Borrowed(&self.numbers),
        }
    }
}

impl FromIterator<Port> for Ports {
    fn from_iter<T: IntoIterator<Item = Port>>(ports: T) -> Self {
        let mut ports: Vec<Port> = ports.into_iter().collect();
        ports.sort_unstable();
        ports.dedup();
        let mut seen = HashSet::new();
        let numbers = ports.iter().map(|port| port.number).filter(|number| seen.insert(*number)).collect();
        Self { all: ports, numbers }
    }
}

/// A ready endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its label below the service name: its hostname, else its address with dashes.
    pub host: String,
    /// Address.
    pub address: IpAddr,
}

/// Endpoints of one family with the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Whether the addresses are IPv6.
    pub is_v6: bool,
    /// Ports.
    pub ports: Ports,
    /// In order, each once.
    pub endpoints: Vec<Endpoint>,
    /// Their addresses, each once: endpoints of many names may have the same.
    pub addresses: Vec<IpAddr>,
}

impl Group {
    fn new(is_v6: bool, ports: Ports, endpoints: BTreeSet<Endpoint>) -> Self {
        let mut seen = HashSet::new();
        let addresses = endpoints.iter().map(|one| one.address).filter(|address| seen.insert(*address)).collect();
        Self { is_v6, ports, endpoints: endpoints.into_iter().collect(), addresses }
    }

    /// The endpoints of a name.
    pub fn named(&self, host: &str) -> &[Endpoint] {
        let first = self.endpoints.partition_point(|one| one.host.as_str() < host);
        let end = self.endpoints.partition_point(|one| one.host.as_str() <= host);
        self.endpoints.get(first..end).unwrap_or_default()
    }
}

/// What a service name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its own addresses.
    Cluster { addresses: Vec<IpAddr>, ports: Ports },
    /// Its endpoints.
    Headless { groups: Vec<Group> },
    /// Another name.
    External { name: String },
}

/// The records of the cluster domain.
#[derive(Debug, Default)]
pub struct State(RwLock<Records>);

#[derive(Debug, Default)]
struct Records {
    namespaces: HashSet<String>,
    services: HashMap<String, BTreeMap<String, Arc<Target>>>,
    /// Address to the names (below the cluster domain) that services give it.
    reverse: HashMap<IpAddr, BTreeSet<String>>,
}

impl State {
    /// Replaces what is known of one service; none removes it. Whether any answer may be another one now.
    pub fn update<S: Deref<Target = EndpointSlice>>(
        &self,
        namespace: &str,
        name: &str,
        service: Option<&Service>,
        slices: &[S],
    ) -> bool {
        let new = service.and_then(|service| target(service, slices)).map(Arc::new);
        let old = self.service(namespace, name);
        if old == new {
            return false;
        }
        let names = |target: &Option<Arc<Target>>| -> HashSet<(IpAddr, String)> {
            target.iter().flat_map(|target| reverse_of(namespace, name, target)).collect()
        };
        let (before, after) = (names(&old), names(&new));
        let (gone, come): (Vec<_>, Vec<_>) = (before.difference(&after).collect(), after.difference(&before).collect());
        for part in gone.chunks(PART) {
            let mut records = self.0.write();
            part.iter().for_each(|(address, host)| records.forget(*address, host));
        }
        self.0.write().set(namespace, name, new);
        for part in come.chunks(PART) {
            let mut records = self.0.write();
            for (address, host) in part {
                records.reverse.entry(*address).or_default().insert(host.clone());
            }
        }
        true
    }

    /// What a service name leads to.
    pub fn service(&self, namespace: &str, name: &str) -> Option<Arc<Target>> {
        self.0.read().services.get(namespace)?.get(name).cloned()
    }

    /// Notes whether there is a namespace. Whether any answer may be another one now.
    pub fn set_namespace(&self, namespace: &str, is_there: bool) -> bool {
        let namespaces = &mut self.0.write().namespaces;
        if is_there { namespaces.insert(namespace.to_owned()) } else { namespaces.remove(namespace) }
    }

    /// Whether there is the namespace, with services or without.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.0.read().namespaces.contains(namespace)
    }

    /// Names of an address, below the cluster domain; no more than `most`.
    pub fn names_of(&self, address: IpAddr, most: usize) -> Vec<String> {
        self.0.read().reverse.get(&address).into_iter().flatten().take(most).cloned().collect()
    }
}

impl Records {
    fn set(&mut self, namespace: &str, name: &str, target: Option<Arc<Target>>) {
        match target {
            Some(target) => drop(self.services.entry(namespace.to_owned()).or_default().insert(name.to_owned(), target)),
            None => {
                let Some(services) = self.services.get_mut(namespace) else { return };
                services.remove(name);
                if services.is_empty() {
                    self.services.remove(namespace);
                }
            }
        }
    }

    fn forget(&mut self, address: IpAddr, host: &str) {
        if let Some(names) = self.reverse.get_mut(&address) {
            names.remove(host);
            if names.is_empty() {
                self.reverse.remove(&address);
            }
        }
    }
}

fn reverse_of(namespace: &str, name: &str, target: &Target) -> Vec<(IpAddr, String)> {
    let service = format!("{name}.{namespace}.svc");
    match target {
        Target::Cluster { addresses, .. } => addresses.iter().map(|address| (*address, service.clone())).collect(),
        Target::Headless { groups } => groups
            .iter()
            .flat_map(|group| &group.endpoints)
            .map(|endpoint| (endpoint.address, format!("{}.{service}", endpoint.host)))
            .collect(),
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
        let mut groups: BTreeMap<(Ports, bool), BTreeSet<Endpoint>> = BTreeMap::new();
        for slice in slices {
            let (ports, endpoints) = read(slice, all);
            let (v6, v4): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(|endpoint| endpoint.address.is_ipv6());
            for (is_v6, endpoints) in [(false, v4), (true, v6)] {
                if !endpoints.is_empty() {
                    groups.entry((ports.clone(), is_v6)).or_default().extend(endpoints);
                }
            }
        }
        let groups = groups.into_iter().map(|((ports, is_v6), endpoints)| Group::new(is_v6, ports, endpoints));
        return Some(Target::Headless { groups: groups.collect() });
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

/// The ports of a slice and its endpoints, those that are ready unless all are asked for.
fn read(slice: &EndpointSlice, all: bool) -> (Ports, Vec<Endpoint>) {
    let ports = slice.ports.iter().flatten();
    let ports = ports.filter_map(|port| new_port(port.name.as_deref(), port.protocol.as_deref(), port.port?)).collect();
    let ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        all || endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let mut found = Vec::new();
    for endpoint in slice.endpoints.iter().flatten().filter(ready) {
        for address in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
            let host = endpoint.hostname.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| dashed(address));
            found.push(Endpoint { host: host.to_ascii_lowercase(), address });
        }
    }
    (ports, found)
}

/// An address as one label: its text with dashes.
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
