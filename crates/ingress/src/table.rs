//! The routing table: an immutable snapshot that every request looks into.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use client::Key;
use http::request::Parts;
use rustls::sign::CertifiedKey;

use crate::gateway::actions::Actions;
use crate::gateway::frontend::Clients;
use crate::gateway::rules::Matched;
use crate::gateway::streams::Port;
use crate::gateway::{Backend, Door};
use crate::live::Live;
use crate::paths::{Matcher, Paths};
use crate::policy::Policy;
use crate::session::Session;
use crate::upstream::Upstream;

/// Where a request leads, and what holds on the way.
#[derive(Debug)]
pub struct Route {
    /// Whose it is.
    pub ingress: Key,
    /// The path as it was written.
    pub text: String,
    /// What it matches.
    pub matcher: Matcher,
    /// What holds on the way.
    pub policy: Arc<Policy>,
    /// What is counted and known of the Ingress.
    pub live: Arc<Live>,
    /// Who answers.
    pub upstream: Arc<Upstream>,
    /// Who answers when that has no endpoints.
    pub spare: Option<Arc<Upstream>>,
    /// Who takes a part of the requests.
    pub canary: Option<(Arc<Policy>, Arc<Upstream>)>,
    /// What the rule of an HTTPRoute does.
    pub gateway: Option<GatewayRoute>,
}

impl Route {
    /// The back end of something that is forwarded as it is; by chance where there are several, none where it must not go anywhere.
    pub(crate) fn chosen(&self) -> Option<Arc<Upstream>> {
        match &self.gateway {
            Some(gateway) => gateway.backend(None, crate::random::next())?.to.clone(),
            None => Some(self.upstream.clone()),
        }
    }

    /// Whether a back end is one of its own.
    pub(crate) fn leads_to(&self, upstream: &Arc<Upstream>) -> bool {
        let backends = self.gateway.iter().flat_map(|gateway| &gateway.backends).filter_map(|backend| backend.to.as_ref());
        backends.chain([&self.upstream]).any(|one| Arc::ptr_eq(one, upstream))
    }
}

/// What the rule of an HTTPRoute does.
#[derive(Debug)]
pub struct GatewayRoute {
    /// What happens to requests and answers.
    pub actions: Arc<Actions>,
    /// Who answers, by weight.
    pub backends: Vec<Backend<Arc<Upstream>>>,
    /// Who gets copies of requests.
    pub mirrors: Vec<Mirrored>,
    /// What clients have to show.
    pub clients: Option<Arc<Clients>>,
}

impl GatewayRoute {
    /// The back end for a request; `random` is a number of its own. A session stays with its own, also when that has no weight any more.
    pub fn backend(&self, session: Option<Session>, random: u64) -> Option<&Backend<Arc<Upstream>>> {
        let keeps = |session: Session| {
            let is_its = |backend: &&Backend<Arc<Upstream>>| {
                backend.to.as_ref().is_some_and(|upstream| upstream.id == session.upstream && !upstream.is_empty())
            };
            self.backends.iter().find(is_its)
        };
        if let Some(kept) = session.and_then(keeps) {
            return Some(kept);
        }
        let total: u64 = self.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        let mut place = random.checked_rem(total)?;
        for backend in &self.backends {
            match place.checked_sub(u64::from(backend.weight)) {
                Some(rest) => place = rest,
                None => return Some(backend),
            }
        }
        None
    }
}

/// Somebody who gets copies of `part` of `of` requests.
#[derive(Clone, Debug)]
pub struct Mirrored {
    pub to: Arc<Upstream>,
    /// What holds on the way: a copy is sent once.
    pub policy: Arc<Policy>,
    pub part: u64,
    pub of: u64,
}

/// One match of a rule of an HTTPRoute, and where it leads.
#[derive(Debug)]
pub struct GatewayRule {
    /// What requests are like.
    pub matched: Matched,
    /// Where they go.
    pub route: Arc<Route>,
}

/// The rules of routes, by door and by host; of one host the first that matches counts.
#[derive(Debug, Default)]
pub struct GatewayRoutes {
    /// Those over plain HTTP, those over TLS, those of TLS that is passed through.
    pub(crate) hosts: [HashMap<String, Vec<GatewayRule>>; 3],
}

impl GatewayRoutes {
    /// The rules for a host by its name: its own, those of the closest wildcard.
    fn named(&self, door: Door, host: &str) -> Option<&[GatewayRule]> {
        let wildcards = host.char_indices().filter(|(_, letter)| *letter == '.').map(|(dot, _)| &host[dot..]);
        std::iter::once(host).filter(|host| !host.is_empty()).chain(wildcards).find_map(|name| self.of(door, name))
    }

    fn of(&self, door: Door, name: &str) -> Option<&[GatewayRule]> {
        self.hosts[door as usize].get(name).map(Vec::as_slice)
    }
}

/// The first rule that matches.
fn first<'r>(rules: &'r [GatewayRule], path: &str, parts: &Parts) -> Option<&'r Arc<Route>> {
    let matches = |rule: &&GatewayRule| rule.matched.matcher.matches(path) && rule.matched.conditions.hold(parts);
    rules.iter().find(matches).map(|rule| &rule.route)
}

/// The routes of one host.
#[derive(Debug, Default)]
pub struct HostRoutes {
    /// By path.
    pub paths: Paths<Route>,
    /// What no path matches.
    pub default: Option<Arc<Route>>,
    /// Clients are asked for certificates.
    pub asks: bool,
    /// Where TLS is passed through to.
    pub passes: Option<Arc<Route>>,
}

/// A host with TLS, and its certificate when there is a good one.
#[derive(Clone, Debug, Default)]
pub struct HostTls {
    /// None shows the fallback certificate.
    pub certified: Option<Arc<CertifiedKey>>,
}

/// Everything by host, named as in [`crate::compile::host_name`]. Cloning copies one pointer for each host.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub(crate) hosts: HashMap<Arc<str>, Arc<HostRoutes>>,
    pub(crate) tls: HashMap<Arc<str>, HostTls>,
    pub(crate) gateway: Arc<GatewayRoutes>,
    pub(crate) gateway_tls: HashMap<String, Arc<CertifiedKey>>,
    /// Hosts of Gateways whose clients are asked for certificates.
    pub(crate) gateway_asks: Arc<BTreeSet<String>>,
    /// Where what comes to ports for TCP and UDP is forwarded to.
    pub(crate) streams: Arc<BTreeMap<Port, Arc<Route>>>,
    /// Whether TLS of any host is passed through.
    pub(crate) passes: bool,
}

/// The names under which a host is looked for, the closest first: itself, the wildcard one label above, any.
fn candidates(host: &str) -> [Option<&str>; 3] {
    [Some(host).filter(|host| !host.is_empty()), host.find('.').map(|dot| &host[dot..]), Some("")]
}

impl Table {
    /// The route of a request: what HTTPRoutes say of its host, then what Ingresses say, then HTTPRoutes for any host.
    pub fn route(&self, tls: bool, host: &str, path: &str, parts: &Parts) -> Option<&Arc<Route>> {
        let door = if tls { Door::Https } else { Door::Http };
        if self.gateway.hosts.iter().all(HashMap::is_empty) {
            return self.find(host, path);
        }
        if let Some(rules) = self.gateway.named(door, host) {
            return first(rules, path, parts);
        }
        self.find(host, path).or_else(|| first(self.gateway.of(door, "")?, path, parts))
    }

    /// The route of a request by Ingresses. `host` is in small letters, without port; `path` is normal ([`crate::paths::normalize`]).
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let hosts = candidates(host).map(|name| name.and_then(|name| self.hosts.get(name)));
        let by_path = hosts.iter().flatten().find_map(|routes| routes.paths.find(path));
        by_path.or_else(|| hosts.iter().flatten().find_map(|routes| routes.default.as_ref()))
    }

    /// What a handshake for this name shows; none when the fallback certificate has to do.
    pub fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        candidates(name).into_iter().flatten().find_map(|name| {
            let of_ingress = self.tls.get(name).and_then(|tls| tls.certified.clone());
            of_ingress.or_else(|| self.gateway_tls.get(name).cloned())
        })
    }

    /// Where what comes to a port for TCP or UDP is forwarded to.
    pub fn stream(&self, port: Port) -> Option<&Arc<Route>> {
        self.streams.get(&port)
    }

    /// Whether TLS of any host is passed through.
    pub fn passes_any(&self) -> bool {
        self.passes
    }

    /// Where TLS for this host is passed through to; none where it ends here.
    pub fn passes(&self, name: &str) -> Option<&Arc<Route>> {
        let rules = self.gateway.named(Door::Passthrough, name).or_else(|| self.gateway.of(Door::Passthrough, ""));
        let of_ingress = || candidates(name).into_iter().flatten().find_map(|name| self.hosts.get(name)?.passes.as_ref());
        rules.and_then(|rules| rules.first()).map(|rule| &rule.route).or_else(of_ingress)
    }

    /// Whether a client that names this host in its handshake is asked for a certificate.
    pub fn asks(&self, name: &str) -> bool {
        let of_ingress =
            || candidates(name).into_iter().flatten().filter_map(|name| self.hosts.get(name)).any(|routes| routes.asks);
        // A wildcard of a Gateway is for names of any depth.
        let wildcards = name.char_indices().filter(|(_, letter)| *letter == '.').map(|(dot, _)| &name[dot..]);
        let of_gateways = || [name, ""].into_iter().chain(wildcards).any(|name| self.gateway_asks.contains(name));
        (!self.gateway_asks.is_empty() && of_gateways()) || of_ingress()
    }

    /// Whether TLS is configured for a host.
    pub fn has_tls(&self, host: &str) -> bool {
        candidates(host).into_iter().flatten().any(|name| self.tls.contains_key(name))
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}
