//! The routing table: an immutable snapshot that every request looks into.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use client::Key;
use http::StatusCode;
use http::request::Parts;
use rustls::sign::CertifiedKey;

use crate::effort::{Effort, TooLong};
use crate::gateway::actions::Actions;
use crate::gateway::attach::Closeness;
use crate::gateway::frontend::Clients;
use crate::gateway::rules::{Matched, Rank};
use crate::gateway::streams::{Carries, Port};
use crate::gateway::{Backend, Door, Entrance};
use crate::live::Live;
use crate::paths::{Matcher, Paths};
use crate::policy::Policy;
use crate::session::Session;
use crate::several::Several;
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
    /// Nobody may pass: it is refused, or what guards it is.
    pub closed: bool,
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
    /// The answer where no back end can be asked.
    pub without: StatusCode,
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
    /// The number of the listener that has it.
    pub listener: usize,
    /// What requests are like.
    pub matched: Matched,
    /// Where they go.
    pub route: Arc<Route>,
}

/// The rules of routes where connections come, by door and by host, those of a host in [`GatewayRule::order`].
#[derive(Debug, Default)]
pub struct GatewayRoutes {
    /// Those over plain HTTP, those over TLS, those of TLS that is passed through, and those of what TLS that ends here carries.
    pub(crate) hosts: [HashMap<String, Vec<GatewayRule>>; 4],
    /// Hosts for which TLS ends here, whether or not a rule has them.
    pub(crate) ends_here: HashSet<String>,
    /// Hosts of listeners over TLS, whether it ends here or not.
    pub(crate) over_tls: HashSet<String>,
    /// Hosts whose clients are asked for certificates.
    pub(crate) asks: HashSet<String>,
}

impl GatewayRoutes {
    /// Whether TLS of any host is led on by its name.
    fn leads(&self) -> bool {
        [Door::Passthrough, Door::Terminated].iter().any(|door| !self.hosts[*door as usize].is_empty())
    }

    fn of(&self, door: Door, name: &str) -> Option<&[GatewayRule]> {
        self.hosts[door as usize].get(name).map(Vec::as_slice)
    }

    /// The host of the listeners over TLS that name another one most closely.
    fn listener<'n>(&self, host: &'n str) -> Option<&'n str> {
        levels(host).map(|(name, _)| name).find(|name| self.over_tls.contains(*name))
    }
}

impl GatewayRule {
    /// The order in which [`first`] wants the rules of a host.
    pub(crate) fn order(&self) -> (usize, Reverse<Closeness>, &Rank) {
        (self.listener, Reverse(self.matched.closeness), &self.matched.rank)
    }
}

/// The rule that comes first of those that match. Of one listener the routes that name the host most closely come first, whatever their paths are; listeners of several
/// Gateways share a host by its paths, and nobody gets more of it there by naming it more closely.
fn first<'r>(rules: &'r [GatewayRule], path: &str, parts: &Parts, effort: &Effort) -> Option<&'r Arc<Route>> {
    let matches = |rule: &&GatewayRule| rule.matched.matcher.matches(path, effort) && rule.matched.conditions.hold(parts, effort);
    let of_listeners = rules.chunk_by(|one, next| one.listener == next.listener);
    let found = of_listeners.filter_map(|rules| rules.iter().find(matches)).min_by_key(|rule| &rule.matched.rank);
    found.map(|rule| &rule.route)
}

/// What an Ingress that is too large has of a host. Its paths are not known one by one, so it has all that begin like them and are no longer
/// than the longest, but for what was there before it.
#[derive(Debug)]
pub struct Closed {
    /// How its paths begin, in lower case.
    pub begin: Arc<str>,
    /// The length of the longest.
    pub length: usize,
    /// Where they lead: to nobody.
    pub route: Arc<Route>,
}

impl Closed {
    /// Whether a path, as it was written, is to be taken for one of them.
    pub fn has(&self, matcher: &Matcher, text: &str) -> bool {
        text.len() <= self.length && matcher.begins_like(&self.begin)
    }

    /// Whether requests that another path of the host matches stay there. One that could be among these is in the table only if it is older.
    /// Within the namespace it keeps no more than what is surely its own: what these paths guard, in front of the same Services, would be
    /// open below it.
    fn leaves(&self, other: &Route) -> bool {
        let is_longer = other.text.len() > self.length || matches!(other.matcher, Matcher::Exact(_));
        let is_its_own = other.ingress.namespace != self.route.ingress.namespace || other.text.len() == self.length;
        is_longer || (is_its_own && self.has(&other.matcher, &other.text))
    }
}

/// The routes of one host.
#[derive(Debug, Default)]
pub struct HostRoutes {
    /// By path.
    pub paths: Paths<Route>,
    /// What is closed in place of the paths of Ingresses that are too large, the oldest first.
    pub closed: Vec<Closed>,
    /// What no path matches.
    pub default: Option<Arc<Route>>,
    /// Clients are asked for certificates.
    pub asks: bool,
    /// Where TLS is passed through to.
    pub passes: Option<Arc<Route>>,
}

impl HostRoutes {
    /// Where a path leads by rules.
    fn find(&self, path: &str, effort: &Effort) -> Option<&Arc<Route>> {
        let found = self.paths.find(path, effort);
        let keeps =
            |closed: &&Closed| closed.route.matcher.matches(path, effort) && found.is_none_or(|found| !closed.leaves(found));
        self.closed.iter().find(keeps).map(|closed| &closed.route).or(found)
    }
}

/// A host with TLS, and its certificate when there is a good one.
#[derive(Clone, Debug, Default)]
pub struct HostTls {
    /// Seconds of the creation of whose it is, and the certificate. None shows the fallback certificate.
    pub certified: Option<(i64, Arc<CertifiedKey>)>,
}

/// Certificates of listeners by host, with the seconds of the creation of those that have them.
pub type Certificates = HashMap<String, (i64, Several)>;

/// Everything by host, named as in [`crate::compile::host_name`]. Cloning copies one pointer for each host.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub(crate) hosts: HashMap<Arc<str>, Arc<HostRoutes>>,
    pub(crate) tls: HashMap<Arc<str>, HostTls>,
    /// What Gateways have, by where connections come.
    pub(crate) gateway: Arc<HashMap<Entrance, GatewayRoutes>>,
    /// What their listeners show.
    pub(crate) gateway_tls: Arc<HashMap<Entrance, Certificates>>,
    /// What ports of TCP beside those of ingress are for.
    pub(crate) carries: Arc<HashMap<u16, Carries>>,
    /// Where what comes to ports for TCP and UDP is forwarded to.
    pub(crate) streams: Arc<BTreeMap<Port, Arc<Route>>>,
    /// Whether an Ingress passes TLS of any host through.
    pub(crate) passes: bool,
}

/// The names under which a host may be claimed, the most specific first: itself, its wildcards, any. The second says whether a rule of an
/// Ingress with this name is for it: their wildcards stand for one label, those of routes for more.
fn levels(host: &str) -> impl Iterator<Item = (&str, bool)> {
    let wildcards = host.char_indices().filter(|(_, letter)| *letter == '.').map(|(dot, _)| &host[dot..]);
    let wildcards = wildcards.enumerate().map(|(number, name)| (name, number == 0));
    std::iter::once((host, true)).filter(|(host, _)| !host.is_empty()).chain(wildcards).chain([("", true)])
}

/// The names under which a host is looked for, the closest first: itself, the wildcard one label above, any.
pub(crate) fn candidates(host: &str) -> [Option<&str>; 3] {
    [Some(host).filter(|host| !host.is_empty()), host.find('.').map(|dot| &host[dot..]), Some("")]
}

impl Table {
    /// The route of a request, by the most specific name that somebody has rules for. Routes that could take a name from an older Ingress
    /// are not in the table ([`crate::gateway::precedence`]); those for any host come after Ingresses. Ingresses have the ports of ingress only.
    ///
    /// # Errors
    /// The request is too long for the regular expressions of whoever has the host.
    pub fn route(
        &self,
        (entrance, tls): (Entrance, bool),
        host: &str,
        path: &str,
        parts: &Parts,
    ) -> Result<Option<&Arc<Route>>, TooLong> {
        let effort = Effort::default();
        let door = if tls { Door::Https } else { Door::Http };
        let of_ingress = || if entrance == Entrance::Ingress { self.find(host, path, &effort) } else { None };
        let Some(gateway) = self.gateway.get(&entrance) else { return effort.whole(of_ingress()) };
        for (name, is_of_ingress) in levels(host).filter(|(name, _)| !name.is_empty()) {
            if let Some(rules) = gateway.of(door, name) {
                return effort.whole(first(rules, path, parts, &effort));
            }
            if entrance == Entrance::Ingress && is_of_ingress && self.hosts.contains_key(name) {
                return effort.whole(of_ingress());
            }
        }
        let of_gateway = || first(gateway.of(door, "")?, path, parts, &effort);
        effort.whole(of_ingress().or_else(of_gateway))
    }

    /// The route of a request by Ingresses. `host` is in small letters, without port; `path` is normal ([`crate::paths::normalize`]). "Incoming requests are
    /// first evaluated for a host match" (IngressRule): what the rules of the most specific name do not match is nobody else's, whose answers would be
    /// taken for those of the host.
    pub fn find(&self, host: &str, path: &str, effort: &Effort) -> Option<&Arc<Route>> {
        let routes = self.of_host(host)?;
        routes.find(path, effort).or(routes.default.as_ref())
    }

    /// What Ingresses have of the most specific name for a host.
    fn of_host(&self, host: &str) -> Option<&Arc<HostRoutes>> {
        candidates(host).into_iter().flatten().find_map(|name| self.hosts.get(name))
    }

    /// What a handshake for this name shows to a client; none when the fallback certificate has to do.
    pub fn certificate(
        &self,
        entrance: Entrance,
        name: &str,
        can_verify: &dyn Fn(&CertifiedKey) -> bool,
    ) -> Option<Arc<CertifiedKey>> {
        let of_gateways = self.gateway_tls.get(&entrance);
        let mut is_held = entrance != Entrance::Ingress;
        // Of one name the older certificate is shown: nobody has another's clients turn away by a later one. Who has rules for a name has it without
        // the certificates of the wildcards above it.
        levels(name).find_map(|(level, is_of_ingress)| {
            let of_ingress = self.tls.get(level).filter(|_| is_of_ingress && !is_held);
            is_held |= is_of_ingress && self.hosts.contains_key(level);
            let of_ingress = of_ingress.and_then(|tls| tls.certified.as_ref());
            match (of_ingress, of_gateways.and_then(|all| all.get(level))) {
                (Some((created, certified)), of_gateway) if of_gateway.is_none_or(|(other, _)| created <= other) => {
                    Some(certified.clone())
                }
                (_, of_gateway) => of_gateway.map(|(_, several)| several.choose(name, can_verify)),
            }
        })
    }

    /// Whether a request for a host came over a connection whose client has `named` a host of another listener: it takes one connection for all names of a certificate.
    /// "If another Listener has an exact match or more specific wildcard entry, the Gateway SHOULD return a 421", and so where the connection's listener is not for the
    /// host at all (Listener, hostname). Who has named no host of a listener has come to none, and asks as before.
    pub fn is_misdirected(&self, entrance: Entrance, named: &str, host: &str) -> bool {
        let Some(gateway) = self.gateway.get(&entrance).filter(|_| !named.is_empty()) else { return false };
        gateway.listener(named).zip(gateway.listener(host)).is_some_and(|(one, other)| one != other)
    }

    /// What a port of TCP is for; none where no listener has it.
    pub fn carries(&self, port: u16) -> Option<Carries> {
        self.carries.get(&port).copied()
    }

    /// Where what comes to a port for TCP or UDP is forwarded to.
    pub fn stream(&self, port: Port) -> Option<&Arc<Route>> {
        self.streams.get(&port)
    }

    /// Whether TLS of any host is led on by its name.
    pub fn passes_any(&self, entrance: Entrance) -> bool {
        (self.passes && entrance == Entrance::Ingress) || self.gateway.get(&entrance).is_some_and(GatewayRoutes::leads)
    }

    /// Where connections over TLS for this host are led on to, and whether as they are ([`Door::Passthrough`]) or as what they carry
    /// ([`Door::Terminated`]); none where HTTP is asked over them here. Whoever has the most specific name decides.
    pub fn passes(&self, entrance: Entrance, name: &str) -> Option<(&Arc<Route>, Door)> {
        let gateway = self.gateway.get(&entrance);
        for (name, is_of_ingress) in levels(name) {
            for door in [Door::Passthrough, Door::Terminated] {
                if let Some(rules) = gateway.and_then(|gateway| gateway.of(door, name)) {
                    return rules.first().map(|rule| (&rule.route, door));
                }
            }
            if gateway.is_some_and(|gateway| gateway.of(Door::Https, name).is_some()) {
                return None;
            }
            let of_ingress = self.hosts.get(name).filter(|_| is_of_ingress && entrance == Entrance::Ingress);
            if let Some(routes) = of_ingress {
                return routes.passes.as_ref().map(|route| (route, Door::Passthrough));
            }
            if gateway.is_some_and(|gateway| gateway.ends_here.contains(name)) {
                return None;
            }
        }
        None
    }

    /// Whether TLS ends here for any host: else who names none that is passed through has come to nobody.
    pub fn ends_any(&self, entrance: Entrance) -> bool {
        entrance == Entrance::Ingress || self.gateway.get(&entrance).is_some_and(|gateway| !gateway.ends_here.is_empty())
    }

    /// Whether a client that names this host in its handshake is asked for a certificate: by who has the most specific name for it.
    pub fn asks(&self, entrance: Entrance, name: &str) -> bool {
        let of_ingress = || self.of_host(name).is_some_and(|routes| routes.asks);
        let of_gateway = |gateway: &GatewayRoutes| gateway.listener(name).is_some_and(|listener| gateway.asks.contains(listener));
        self.gateway.get(&entrance).is_some_and(of_gateway) || (entrance == Entrance::Ingress && of_ingress())
    }

    /// Whether TLS is configured for a host, by who has the most specific name of it.
    pub fn has_tls(&self, host: &str) -> bool {
        let mut names = candidates(host).into_iter().flatten();
        names
            .find(|name| self.tls.contains_key(*name) || self.hosts.contains_key(*name))
            .is_some_and(|name| self.tls.contains_key(name))
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
