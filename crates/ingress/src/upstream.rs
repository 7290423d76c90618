//! The back ends: ports of Services with their endpoints, each with its connections.
//!
//! Routes hold an [`Upstream`], whose endpoints are swapped while requests are under way. An endpoint that stays keeps its connections
//! and its history; one that goes ends with its last request.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base::addresses::is_special;
use client::Key;
use parking_lot::Mutex;

use crate::balance::{Choice, Load, Member, choose, hash};
use crate::cluster_addresses::ClusterAddresses;
use crate::endpoints::{Behind, PortRef};
use crate::names;
use crate::policy::Protocol;
use crate::pool::Pool;
use crate::verify::Trust;

/// How long the addresses of a name outside the cluster hold.
const NAME_HOLDS: Duration = Duration::from_secs(15);

/// What makes one upstream another than the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamKey {
    /// Where it is.
    pub place: Place,
    /// What it speaks, when an annotation says it.
    pub protocol: Option<Protocol>,
    /// The name that is sent by TLS.
    pub tls_name: Option<String>,
    /// What its certificate has to be like; without this nobody looks at it.
    pub trust: Option<Arc<Trust>>,
}

/// Where a back end is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A port of a Service.
    Service(Key, PortRef),
    /// A name outside the cluster.
    Name {
        /// Which.
        name: String,
        /// Its port.
        port: u16,
        /// Whose object says so.
        namespace: String,
    },
}

/// One address of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// The name that is sent by TLS.
    pub tls_name: Option<String>,
    /// What its certificate has to be like.
    pub(crate) trust: Option<Arc<Trust>>,
    id: u64,
    load: Load,
    pub(crate) pool: Pool,
}

impl Member for Endpoint {
    fn id(&self) -> u64 {
        self.id
    }

    fn load(&self) -> &Load {
        &self.load
    }
}

/// A back end. What it consists of changes while it is used.
#[derive(Debug)]
pub struct Upstream {
    /// What it is.
    pub key: UpstreamKey,
    /// A number for it, which cookies of sessions carry.
    pub id: u64,
    now: ArcSwap<Now>,
    turn: AtomicUsize,
    resolving: tokio::sync::Mutex<()>,
    cluster: Arc<ClusterAddresses>,
}

#[derive(Debug, Default)]
struct Now {
    endpoints: Vec<Arc<Endpoint>>,
    /// A name whose addresses they are, and since when.
    name: Option<(String, u16, Option<Instant>)>,
}

/// What a back end consisted of when somebody looked.
pub(crate) struct Look(Arc<Now>);

impl Look {
    /// Whether it still consists of the same.
    pub(crate) fn is_current(&self, upstream: &Upstream) -> bool {
        Arc::ptr_eq(&self.0, &upstream.now.load())
    }
}

impl Upstream {
    fn new(key: UpstreamKey, cluster: Arc<ClusterAddresses>) -> Self {
        let id = hash(&format!("{:?}", key.place));
        let name = match &key.place {
            Place::Name { name, port, .. } => Some((name.clone(), *port, None)),
            Place::Service(..) => None,
        };
        let now = ArcSwap::from_pointee(Now { endpoints: Vec::new(), name });
        Self { key, id, now, turn: AtomicUsize::new(0), resolving: tokio::sync::Mutex::default(), cluster }
    }

    /// Takes what is behind its port now.
    pub fn set(&self, behind: Behind) {
        let old = self.now.load();
        let now = match behind {
            Behind::Nothing => Now::default(),
            Behind::Addresses(addresses, protocol) => Now { endpoints: self.keep(addresses, protocol), name: None },
            Behind::Name(name, port) => match &old.name {
                Some((known, number, _)) if *known == name && *number == port => return,
                _ => Now { endpoints: Vec::new(), name: Some((name, port, None)) },
            },
        };
        self.now.store(Arc::new(now));
    }

    /// The endpoints of these addresses; those that are there already stay what they are.
    fn keep(&self, addresses: impl IntoIterator<Item = SocketAddr>, protocol: Option<Protocol>) -> Vec<Arc<Endpoint>> {
        let protocol = self.key.protocol.or(protocol).unwrap_or_default();
        let old = self.now.load();
        let known: HashMap<SocketAddr, &Arc<Endpoint>> = old.endpoints.iter().map(|one| (one.address, one)).collect();
        let endpoint = |address: SocketAddr| match known.get(&address).filter(|known| known.protocol == protocol) {
            Some(known) => Arc::clone(known),
            None => Arc::new(Endpoint {
                address,
                protocol,
                tls_name: self.key.tls_name.clone(),
                trust: self.key.trust.clone(),
                id: hash(&address.to_string()),
                load: Load::default(),
                pool: Pool::default(),
            }),
        };
        addresses.into_iter().map(endpoint).collect()
    }

    /// Looks a name up whose addresses have become old. While that fails, those of before are used.
    pub(crate) async fn refresh(&self) {
        let due = |now: &Now| match &now.name {
            Some((name, port, at)) if at.is_none_or(|at| at.elapsed() > NAME_HOLDS) => Some((name.clone(), *port)),
            _ => None,
        };
        if due(&self.now.load()).is_none() {
            return;
        }
        let _only_one = self.resolving.lock().await;
        let Some((name, port)) = due(&self.now.load()) else { return };
        let namespace = match &self.key.place {
            Place::Service(key, _) => key.ns(),
            Place::Name { namespace, .. } => namespace,
        };
        // Where none was asked, the next request asks.
        let Some(found) = names::look_up(namespace, &name, port).await else { return };
        let is_outside = |address: &SocketAddr| self.is_outside(address.ip());
        let addresses: Vec<SocketAddr> = found.into_iter().filter(is_outside).collect();
        let known = || self.now.load().endpoints.iter().filter(|one| is_outside(&one.address)).cloned().collect();
        let endpoints = if addresses.is_empty() { known() } else { self.keep(addresses, None) };
        self.now.store(Arc::new(Now { endpoints, name: Some((name, port, Some(Instant::now()))) }));
    }

    /// Whether a name that somebody chose may lead to an address: not to what listens on this machine for itself only, nor to pods and Services,
    /// which network policies and ReferenceGrants guard. Nodes are what a Service of type ExternalName must not be, either: their ports lead to
    /// Services again, this one among them. A question to `auth-url` may go there, since who answers it is often behind the same nodes.
    fn is_outside(&self, address: IpAddr) -> bool {
        let is_service = matches!(self.key.place, Place::Service(..));
        let is_inside = self.cluster.is_in_range(address) || (is_service && self.cluster.is_node(address));
        !is_special(address) && !is_inside
    }

    /// The endpoint for a request; none when there is none that was not tried.
    pub fn choose(&self, choice: Choice, tried: &[u64]) -> Option<Arc<Endpoint>> {
        // Only who takes a turn moves it on: sessions between others would have these come to the same endpoint.
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        choose(&self.now.load().endpoints, choice, turn, tried, Instant::now()).cloned()
    }

    /// Whether it has this endpoint.
    pub fn has(&self, id: u64) -> bool {
        self.now.load().endpoints.iter().any(|endpoint| endpoint.id == id)
    }

    /// Looks at what it consists of now.
    pub(crate) fn look(&self) -> Look {
        Look(self.now.load_full())
    }

    /// Whether it has an endpoint at one of these addresses.
    pub(crate) fn is_at(&self, addresses: &HashSet<IpAddr>) -> bool {
        self.now.load().endpoints.iter().any(|endpoint| addresses.contains(&endpoint.address.ip().to_canonical()))
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.now.load().endpoints.len()
    }

    /// Whether nobody could answer.
    pub fn is_empty(&self) -> bool {
        let now = self.now.load();
        now.endpoints.is_empty() && now.name.is_none()
    }

    /// Lets all connections go that nobody uses.
    pub(crate) fn close(&self) {
        self.now.load().endpoints.iter().for_each(|endpoint| endpoint.pool.close());
    }
}

/// The upstreams that somebody uses, one for each key.
#[derive(Debug, Default)]
pub struct Upstreams {
    known: Mutex<Known>,
    cluster: Arc<ClusterAddresses>,
}

#[derive(Debug, Default)]
struct Known {
    by_key: HashMap<UpstreamKey, Weak<Upstream>>,
    by_service: HashMap<Key, Vec<Weak<Upstream>>>,
    /// How many there may be until those are forgotten that nobody uses.
    sweep_at: usize,
}

impl Known {
    fn sweep(&mut self) {
        self.by_key.retain(|_, upstream| upstream.strong_count() > 0);
        self.by_service.retain(|_, upstreams| {
            upstreams.retain(|upstream| upstream.strong_count() > 0);
            !upstreams.is_empty()
        });
        self.sweep_at = (self.by_key.len() * 2).max(64);
    }
}

impl Upstreams {
    /// None yet, in a cluster with these addresses.
    pub fn new(cluster: Arc<ClusterAddresses>) -> Self {
        Self { known: Mutex::default(), cluster }
    }

    /// The upstream of a key; a new one has no endpoints yet, and is told of to `fresh`.
    pub fn get(&self, key: &UpstreamKey, fresh: &mut Vec<Arc<Upstream>>) -> Arc<Upstream> {
        let mut known = self.known.lock();
        if let Some(upstream) = known.by_key.get(key).and_then(Weak::upgrade) {
            return upstream;
        }
        if known.by_key.len() >= known.sweep_at {
            known.sweep();
        }
        let upstream = Arc::new(Upstream::new(key.clone(), self.cluster.clone()));
        known.by_key.insert(key.clone(), Arc::downgrade(&upstream));
        if let Place::Service(service, _) = &key.place {
            known.by_service.entry(service.clone()).or_default().push(Arc::downgrade(&upstream));
        }
        fresh.push(upstream.clone());
        upstream
    }

    /// Those of a Service.
    pub fn of_service(&self, service: &Key) -> Vec<Arc<Upstream>> {
        self.known.lock().by_service.get(service).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    /// All.
    pub fn all(&self) -> Vec<Arc<Upstream>> {
        self.known.lock().by_key.values().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endpoints_stay_what_they_are() {
        let upstreams = Upstreams::default();
        let place = Place::Service(Key::namespaced("a", "web"), PortRef::Number(80));
        let key = UpstreamKey { place, protocol: None, tls_name: None, trust: None };
        let mut fresh = Vec::new();
        let upstream = upstreams.get(&key, &mut fresh);
        assert!(Arc::ptr_eq(&upstream, &upstreams.get(&key, &mut fresh)) && fresh.len() == 1);
        let set = |addresses: &[&str], protocol| {
            upstream.set(Behind::Addresses(addresses.iter().map(|a| a.parse().unwrap()).collect(), protocol));
            upstream.now.load().endpoints.clone()
        };
        let one = set(&["10.0.0.1:80"], None);
        let two = set(&["10.0.0.1:80", "10.0.0.2:80"], None);
        assert!(Arc::ptr_eq(&one[0], &two[0]));
        let other = set(&["10.0.0.1:80"], Some(Protocol::Grpc));
        assert!(!Arc::ptr_eq(&one[0], &other[0]) && other[0].id == one[0].id);
        assert_eq!(upstreams.of_service(&Key::namespaced("a", "web")).len(), 1);
        drop((upstream, fresh));
        assert!(upstreams.all().is_empty());
    }

    #[test]
    fn names_do_not_lead_inside() {
        let ranges = ["10.42.0.0/16", "10.43.0.0/16", "fd42::/48"].map(|range| range.parse().unwrap());
        let cluster = Arc::new(ClusterAddresses::new(ranges.to_vec(), vec!["192.0.2.1".parse().unwrap()]));
        assert!(cluster.set_nodes(["192.0.2.2".parse().unwrap()]) && !cluster.set_nodes(["192.0.2.2".parse().unwrap()]));
        let of = |place| Upstream::new(UpstreamKey { place, protocol: None, tls_name: None, trust: None }, cluster.clone());
        let service = of(Place::Service(Key::namespaced("a", "web"), PortRef::Number(80)));
        let named = of(Place::Name { name: "login.example".to_owned(), port: 443, namespace: "a".to_owned() });
        let check = |address: &str, expected: [bool; 2]| {
            let address = address.parse().unwrap();
            assert_eq!([service.is_outside(address), named.is_outside(address)], expected, "{address}");
        };
        check("93.184.216.34", [true, true]);
        check("10.1.2.3", [true, true]);
        for node in ["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.2"] {
            check(node, [false, true]);
        }
        let special = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "0.0.0.0", "fe80::1"];
        for address in special.into_iter().chain(["10.42.0.2", "10.43.0.1", "::ffff:10.42.0.2", "fd42::1"]) {
            check(address, [false, false]);
        }
    }
}
