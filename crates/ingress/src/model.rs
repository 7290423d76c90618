//! From Ingresses and Secrets to the routing table, step by step: a change rebuilds the hosts that it touches and no other.

mod secrets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use k8s_openapi::api::networking::v1::Ingress;
use rustls::sign::CertifiedKey;

use crate::acme::{self, Present};
use crate::annotations::{NO_ROOM, Problem};
use crate::certificates;
use crate::compile::{Compiled, Leads, PathRule, compile, host_name};
use crate::endpoints::PortRef;
use crate::gateway::actions::Actions;
use crate::gateway::streams::{Carries, Port, Transport};
use crate::gateway::{self, Backend, Entrance, Plan, Planned};
use crate::guard::clients::Authorities;
use crate::guard::passwords::Passwords;
use crate::issuer::{Issuers, is_provable};
use crate::live::Live;
use crate::paths::{Matcher, PathType};
use crate::policy::{Policy, Retry};
use crate::several::Several;
use crate::table::{
    Certificates, Closed, GatewayRoute, GatewayRoutes, GatewayRule, HostRoutes, HostTls, Mirrored, Route, Table, candidates,
};
use crate::upstream::{Place, Upstream, UpstreamKey, Upstreams};

/// Ingresses that are read again after one change, as each costs as much as a new one.
const AT_A_TIME: usize = 16;

/// What the table is made of.
#[derive(Debug)]
pub struct Model {
    domain: String,
    issuers: Issuers,
    upstreams: Arc<Upstreams>,
    ingresses: BTreeMap<Key, Known>,
    /// Who has rules for a host.
    by_host: HashMap<String, BTreeSet<Key>>,
    /// Who has TLS for a host.
    by_tls: HashMap<String, BTreeSet<Key>>,
    secrets: HashMap<Key, KnownSecret>,
    /// Who has certificates issued.
    issued: BTreeSet<Key>,
    dirty: BTreeSet<String>,
    dirty_tls: BTreeSet<String>,
    /// A wildcard has changed, which may stand for hosts of any name.
    all_tls: bool,
    table: Arc<Table>,
    told: HashMap<Key, Vec<Problem>>,
    /// Ingresses with regular expressions for which there was no room.
    without_room: BTreeSet<Key>,
    /// What is wrong with the Secrets of Ingresses, to be told with the next step.
    in_trouble: BTreeMap<Key, Vec<Problem>>,
    fresh: Vec<Arc<Upstream>>,
    gateway: Gateways,
}

/// What there is of the Gateway API.
#[derive(Debug, Default)]
struct Gateways {
    tls: Vec<gateway::Certificates>,
    secrets: BTreeSet<Key>,
    orders: Vec<gateway::Order>,
    holders: BTreeMap<String, gateway::Holder>,
    live: HashMap<(gateway::status::Kind, Key), Arc<Live>>,
    routes: Arc<HashMap<Entrance, GatewayRoutes>>,
    carries: Arc<HashMap<u16, Carries>>,
    streams: Arc<BTreeMap<Port, Arc<Route>>>,
    dirty: bool,
}

#[derive(Debug)]
struct Known {
    compiled: Arc<Compiled>,
    live: Arc<Live>,
}

#[derive(Debug, Default)]
struct KnownSecret {
    secret: Option<Arc<Secret>>,
    certified: Option<Result<Arc<CertifiedKey>, String>>,
}

/// What a step has changed.
#[derive(Debug, Default)]
pub struct Step {
    /// The new table.
    pub table: Arc<Table>,
    /// Back ends whose endpoints nobody has looked up yet.
    pub fresh: Vec<Arc<Upstream>>,
    /// What does not work, and was not told yet.
    pub problems: Vec<(Key, Problem)>,
}

impl Model {
    /// Nothing yet. `domain` is that of the cluster, `issuers` may be asked for certificates.
    pub fn new(domain: impl Into<String>, issuers: Issuers, upstreams: Arc<Upstreams>) -> Self {
        Self {
            domain: domain.into(),
            issuers,
            upstreams,
            ingresses: BTreeMap::new(),
            by_host: HashMap::new(),
            by_tls: HashMap::new(),
            secrets: HashMap::new(),
            issued: BTreeSet::new(),
            dirty: BTreeSet::new(),
            dirty_tls: BTreeSet::new(),
            all_tls: false,
            table: Arc::default(),
            told: HashMap::new(),
            without_room: BTreeSet::new(),
            in_trouble: BTreeMap::new(),
            fresh: Vec::new(),
            gateway: Gateways::default(),
        }
    }

    /// An Ingress of ours is as given; none when it is gone or no longer ours.
    pub fn set_ingress(&mut self, key: &Key, ingress: Option<&Ingress>) {
        if let Some(old) = self.ingresses.remove(key) {
            self.index(key, &old.compiled, false);
            if ingress.is_none() {
                old.live.counts.forget();
            }
        }
        self.told.remove(key);
        self.in_trouble.remove(key);
        self.without_room.remove(key);
        let Some(ingress) = ingress else { return };
        let compiled = Arc::new(compile(ingress, &self.domain, &self.issuers));
        let external = compiled.external.as_ref().map(|key| self.upstreams.get(key, &mut self.fresh));
        if compiled.problems.iter().any(|problem| problem.reason == NO_ROOM) {
            self.without_room.insert(key.clone());
        }
        let live = Arc::new(Live::new(key, &compiled.policy, external));
        self.index(key, &compiled, true);
        let known = Known { compiled, live };
        self.set_passwords(&known);
        self.set_authorities(&known);
        self.ingresses.insert(key.clone(), known);
        self.look_at_secrets(key);
    }

    /// The next Ingresses after this one with regular expressions for which there was no room, a few at a time.
    pub fn without_room(&self, after: Option<&Key>) -> Vec<Key> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.without_room.range((begin, Bound::Unbounded)).take(AT_A_TIME).cloned().collect()
    }

    /// Reads an Ingress that is as it was, as there may be room for it now. Nothing is told twice.
    pub fn read_again(&mut self, key: &Key, ingress: &Ingress) {
        let told = self.told.remove(key).unwrap_or_default();
        self.set_ingress(key, Some(ingress));
        self.told.insert(key.clone(), told);
    }

    /// Notes what is wrong with the Secrets of an Ingress, so far as they are known. What is right again may be told again.
    fn look_at_secrets(&mut self, ingress: &Key) {
        let Some(known) = self.ingresses.get(ingress) else { return };
        let wrong = known.secrets_in_trouble(&self.secrets);
        if let Some(told) = self.told.get_mut(ingress) {
            told.retain(|problem| problem.reason != secrets::REASON || wrong.contains(problem));
        }
        self.in_trouble.remove(ingress);
        if !wrong.is_empty() {
            self.in_trouble.insert(ingress.clone(), wrong);
        }
    }

    /// Notes or forgets for which hosts an Ingress has something.
    fn index(&mut self, key: &Key, compiled: &Compiled, add: bool) {
        for host in compiled.hosts.iter().chain(compiled.redirected.iter().map(|(host, _)| host)) {
            note(&mut self.by_host, host, key, add);
            self.dirty.insert(host.clone());
            // Whose TLS counts follows from who has the host.
            self.dirty_tls.insert(host.clone());
            self.all_tls |= is_of_many(host);
        }
        match &compiled.issuer {
            Some(_) if add => drop(self.issued.insert(key.clone())),
            _ => drop(self.issued.remove(key)),
        }
        for (host, _) in &compiled.tls {
            note(&mut self.by_tls, host, key, add);
            self.dirty_tls.insert(host.clone());
            self.all_tls |= is_of_many(host);
        }
    }

    /// The Secrets that Ingresses refer to.
    pub fn wanted_secrets(&self) -> BTreeSet<Key> {
        let of = |known: &Known| known.compiled.secrets().cloned().collect::<Vec<_>>();
        self.ingresses.values().flat_map(of).chain(self.gateway.secrets.iter().cloned()).collect()
    }

    /// The certificates that issuers are asked for.
    pub fn wanted_certificates(&self) -> acme::All {
        let present = |secret: &Key| match self.secrets.get(secret).map(|known| &known.secret) {
            None => Present::Unknown,
            Some(None) => Present::Absent,
            Some(Some(secret)) => Present::There(secret.clone()),
        };
        let mut all = acme::All::new();
        for compiled in self.issued.iter().filter_map(|key| self.ingresses.get(key)).map(|known| &known.compiled) {
            let Some(issuer) = &compiled.issuer else { continue };
            let has = |host: &str| self.has_host(host, (compiled.created, &compiled.key), true);
            let about = reference("networking.k8s.io/v1", "Ingress", &compiled.key, compiled.uid.clone());
            for (host, secret) in compiled.tls.iter().filter(|(host, _)| is_provable(host) && has(host)) {
                let Some(secret) = secret else { continue };
                acme::want(&mut all, secret, host, issuer, &about, || present(secret));
            }
        }
        for order in &self.gateway.orders {
            if !self.has_host(&host_name(&order.host), (order.created, &order.owner), false) {
                continue;
            }
            let about = reference("gateway.networking.k8s.io/v1", order.kind.name(), &order.owner, order.uid.clone());
            acme::want(&mut all, &order.secret, &order.host, &order.issuer, &about, || present(&order.secret));
        }
        all
    }

    /// Whether somebody in a namespace has a host, so that a certificate for it may be his. Whoever got one for a host that is another's by
    /// age (docs/ingress.md, "Who has a host") would have the key to what that one's clients say. An Ingress that only asks for the
    /// certificate has nothing: it needs a rule, as a listener needs none.
    fn has_host(&self, host: &str, claimant: (i64, &Key), needs_rule: bool) -> bool {
        let namespace = claimant.1.ns();
        let oldest = self.of_host(host).into_iter().next();
        let (has_rule, claim) = match &oldest {
            Some((created, key)) if key.ns() == namespace => (true, claimant.min((*created, key))),
            Some((created, key)) if claimant > (*created, key) => return false,
            _ => (false, claimant),
        };
        let is_his =
            |holder: &gateway::Holder| holder.namespace == namespace || (needs_rule && claim < (holder.since, &holder.key));
        (has_rule || !needs_rule) && self.gateway.holders.get(host).is_none_or(is_his)
    }

    /// Whether a Secret has a good certificate; none while nobody has looked.
    pub fn has_certificate(&self, secret: &Key) -> Option<bool> {
        self.secrets.get(secret).map(|known| matches!(known.certified, Some(Ok(_))))
    }

    /// Takes what HTTPRoutes say instead of what they said.
    pub fn set_gateway(&mut self, plan: Plan) {
        let Plan { rules, ports, streams, tls, secrets, orders, holders, asks, ends_here, over_tls, conflicts, .. } = plan;
        let mut routes: HashMap<Entrance, GatewayRoutes> = HashMap::new();
        let (mut live, mut listeners, mut policies) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut rule = |planned: &Planned| {
            let route = (planned.kind, planned.route.clone());
            let of_route = self.gateway.live.get(&route).cloned().unwrap_or_else(|| {
                let name = format!("{}/{}", planned.kind.name().to_lowercase(), planned.route.name);
                Arc::new(Live::new(&Key { name, ..planned.route.clone() }, &Policy::default(), None))
            });
            live.insert(route, of_route.clone());
            let next = listeners.len();
            let listener = *listeners.entry(planned.listener.clone()).or_insert(next);
            // The same for all matches of a rule, wherever it is served.
            let policies = policies.entry(Arc::as_ptr(&planned.actions)).or_insert_with(|| gateway_policies(planned));
            let route = gateway_route(planned, policies, of_route, (&self.upstreams, &mut self.fresh));
            GatewayRule { listener, matched: planned.matched.clone(), route: Arc::new(route) }
        };
        for planned in &rules {
            let hosts = &mut routes.entry(planned.entrance).or_default().hosts[planned.door as usize];
            hosts.entry(host_name(&planned.host)).or_default().push(rule(planned));
        }
        for (entrance, host) in asks {
            routes.entry(entrance).or_default().asks.insert(host_name(&host));
        }
        for (entrance, host) in over_tls {
            routes.entry(entrance).or_default().over_tls.insert(host);
        }
        for (entrance, host) in ends_here {
            routes.entry(entrance).or_default().ends_here.insert(host);
        }
        let streams = Arc::new(streams.iter().map(|(port, planned)| (*port, rule(planned).route)).collect());
        for rules in routes.values_mut().flat_map(|routes| routes.hosts.iter_mut()).flat_map(HashMap::values_mut) {
            rules.sort_by(|a, b| a.order().cmp(&b.order()));
        }
        for (route, old) in &self.gateway.live {
            if !live.contains_key(route) {
                old.counts.forget();
            }
        }
        let of_tcp = ports.iter().filter(|(port, _)| port.transport == Transport::Tcp);
        let carries = Arc::new(of_tcp.map(|(port, carries)| (port.number, *carries)).collect());
        let routes = Arc::new(routes);
        for (ingress, conflict) in conflicts.into_iter().filter(|(ingress, _)| self.ingresses.contains_key(ingress)) {
            self.in_trouble.entry(ingress).or_default().push(conflict);
        }
        self.gateway = Gateways { tls, secrets, orders, holders, live, routes, carries, streams, dirty: true };
    }

    /// A Secret is as given; none when it is not there.
    pub fn set_secret(&mut self, key: &Key, secret: Option<Arc<Secret>>) {
        let tls = |secret: &Arc<Secret>| certificates::certified(secret).map_err(|error| error.to_string());
        let is_tls = |secret: &&Arc<Secret>| secret.type_.as_deref() == Some("kubernetes.io/tls") || has_certificate(secret);
        let certified = secret.as_ref().filter(is_tls).map(tls);
        self.secrets.insert(key.clone(), KnownSecret { secret, certified });
        self.gateway.dirty |= self.gateway.secrets.contains(key);
        let mut users = Vec::new();
        for (ingress, known) in &self.ingresses {
            if known.compiled.secrets().any(|secret| secret == key) {
                users.push(ingress.clone());
            }
            let hosts = known.compiled.tls.iter().filter(|(_, secret)| secret.as_ref() == Some(key));
            for (host, _) in hosts {
                self.dirty_tls.insert(host.clone());
                self.all_tls |= is_of_many(host);
            }
            if known.compiled.passwords.as_ref() == Some(key) {
                self.set_passwords(known);
            }
            if known.compiled.authorities.as_ref() == Some(key) {
                self.set_authorities(known);
            }
        }
        users.iter().for_each(|ingress| self.look_at_secrets(ingress));
    }

    /// Nobody refers to the Secret any more.
    pub fn forget_secret(&mut self, key: &Key) {
        self.secrets.remove(key);
    }

    fn set_passwords(&self, known: &Known) {
        let secret = known.compiled.passwords.as_ref().and_then(|key| self.secrets.get(key)?.secret.as_deref());
        let passwords = secret.and_then(|secret| Passwords::of(secret, known.compiled.policy.basic.map));
        known.live.passwords.store(passwords.map(Arc::new));
    }

    fn set_authorities(&self, known: &Known) {
        let secret = known.compiled.authorities.as_ref().and_then(|key| Some((key, self.secrets.get(key)?.secret.as_deref()?)));
        let authorities = secret.and_then(|(key, secret)| {
            let wrong = |error: &_| tracing::warn!(secret = %key, %error, "certificates of clients cannot be verified");
            Authorities::of(secret).inspect_err(wrong).ok()
        });
        known.live.authorities.store(authorities.map(Arc::new));
    }

    /// Whether the Ingress is one of ours.
    pub fn has(&self, ingress: &Key) -> bool {
        self.ingresses.contains_key(ingress)
    }

    /// The table with all changes since the last step; none when there are none.
    pub fn step(&mut self) -> Option<Step> {
        if self.dirty.is_empty() && self.dirty_tls.is_empty() && !self.gateway.dirty && self.in_trouble.is_empty() {
            return None;
        }
        let (mut table, mut fresh) = (Table::clone(&self.table), std::mem::take(&mut self.fresh));
        let mut problems: BTreeMap<Key, Vec<Problem>> = std::mem::take(&mut self.in_trouble);
        for host in std::mem::take(&mut self.dirty) {
            let routes = self.routes(&host, &mut fresh, &mut problems);
            match routes {
                Some(routes) => drop(table.hosts.insert(host.into(), Arc::new(routes))),
                None => drop(table.hosts.remove(host.as_str())),
            }
        }
        let mut dirty_tls = std::mem::take(&mut self.dirty_tls);
        if std::mem::take(&mut self.all_tls) {
            dirty_tls.extend(self.by_tls.keys().chain(self.by_host.keys()).cloned());
        }
        let mut asked = AskedTls::default();
        for host in &dirty_tls {
            match self.tls(host, &mut asked, &mut problems) {
                Some(tls) => drop(table.tls.insert(host.as_str().into(), tls)),
                None => drop(table.tls.remove(host.as_str())),
            }
        }
        if std::mem::take(&mut self.gateway.dirty) {
            table.gateway_tls = Arc::new(self.gateway_tls());
            table.gateway = self.gateway.routes.clone();
            table.carries = self.gateway.carries.clone();
            table.streams = self.gateway.streams.clone();
        }
        table.passes = table.hosts.values().any(|routes| routes.passes.is_some());
        self.table = Arc::new(table);
        let problems = problems.into_iter().flat_map(|(key, list)| self.untold(key, list)).collect();
        Some(Step { table: self.table.clone(), fresh, problems })
    }

    /// The certificates of listeners, of one name those of the oldest listener.
    fn gateway_tls(&self) -> HashMap<Entrance, Certificates> {
        let mut all: HashMap<Entrance, Certificates> = HashMap::new();
        for of in self.gateway.tls.iter().rev() {
            let known = of.secrets.iter().filter_map(|secret| self.secrets.get(secret)?.certified.as_ref()?.as_ref().ok());
            if let Some(several) = Several::of(known.cloned().collect()) {
                all.entry(of.entrance).or_default().insert(host_name(&of.host), (of.created, several));
            }
        }
        all
    }

    /// Of these problems of an Ingress the ones that nobody was told.
    fn untold(&mut self, key: Key, list: Vec<Problem>) -> Vec<(Key, Problem)> {
        let told = self.told.entry(key.clone()).or_default();
        let mut untold = Vec::new();
        for problem in list {
            if !told.contains(&problem) {
                told.push(problem.clone());
                untold.push((key.clone(), problem));
            }
        }
        untold
    }

    /// The Ingresses with rules for a host, without canaries: seconds of their creation, the oldest first.
    pub fn of_host(&self, host: &str) -> Vec<(i64, Key)> {
        let has = |one: &&Known| !one.compiled.policy.canary.enabled && one.compiled.hosts.iter().any(|own| own == host);
        let known = self.by_age(self.by_host.get(host));
        known.into_iter().filter(has).map(|one| (one.compiled.created, one.compiled.key.clone())).collect()
    }

    /// Those with something for a host, the oldest first.
    fn by_age(&self, keys: Option<&BTreeSet<Key>>) -> Vec<&Known> {
        let mut known: Vec<&Known> = keys.into_iter().flatten().filter_map(|key| self.ingresses.get(key)).collect();
        known.sort_by(|a, b| (a.compiled.created, &a.compiled.key).cmp(&(b.compiled.created, &b.compiled.key)));
        known
    }

    fn routes(
        &self,
        host: &str,
        fresh: &mut Vec<Arc<Upstream>>,
        problems: &mut BTreeMap<Key, Vec<Problem>>,
    ) -> Option<HostRoutes> {
        let known = self.by_age(self.by_host.get(host));
        if known.is_empty() {
            return None;
        }
        let (canaries, mains): (Vec<&Known>, Vec<&Known>) = known.iter().partition(|one| one.compiled.policy.canary.enabled);
        let mut upstream = |key: &UpstreamKey| self.upstreams.get(key, fresh);
        let mut drafts: Vec<(&PathRule, Route)> = Vec::new();
        let mut places: HashMap<(&str, PathType), usize> = HashMap::new();
        let asks = mains.iter().any(|one| one.compiled.policy.clients.asks());
        let mut routes = HostRoutes { asks, ..HostRoutes::default() };
        for one in &mains {
            let told = problems.entry(one.compiled.key.clone()).or_default();
            told.extend(one.compiled.problems.iter().cloned());
            for rule in one.compiled.paths.iter().filter(|rule| rule.host == host) {
                // What is closed may be this very path, and is older.
                if let Some(closed) = routes.closed.iter().find(|closed| closed.has(&rule.matcher, &rule.text)) {
                    let other = &closed.route.ingress;
                    let text = format!("host {host:?} path {:?} may belong to {other}, which is older and too large", rule.text);
                    told.push(Problem::new("Conflict", text));
                    continue;
                }
                if let Some(place) = places.get(&(rule.text.as_str(), rule.kind)) {
                    let other = &drafts[*place].1.ingress;
                    told.push(Problem::new(
                        "Conflict",
                        format!("host {host:?} path {:?} belongs to {other}, which is older", rule.text),
                    ));
                    continue;
                }
                places.insert((&rule.text, rule.kind), drafts.len());
                drafts.push((rule, route(one, rule, &mut upstream)));
            }
            let default = one.compiled.default.as_ref().filter(|_| one.compiled.hosts.iter().any(|own| own == host));
            if let (Some(leads), None) = (default, &routes.default) {
                routes.default = Some(Arc::new(route(one, &default_rule(leads.clone()), &mut upstream)));
            }
            for closed in one.compiled.closed.iter().filter(|closed| closed.host == host) {
                let rule = PathRule { matcher: Matcher::Closed(closed.begin.to_string()), ..default_rule(Leads::Nowhere) };
                let refused = Arc::new(route(one, &rule, &mut upstream));
                routes.closed.push(Closed { begin: closed.begin.clone(), length: closed.length, route: refused });
            }
        }
        if drafts.is_empty() && routes.default.is_none() && routes.closed.is_empty() {
            routes.default = mains.iter().find_map(|one| redirected(one, host, &mut upstream)).map(Arc::new);
        }
        let is_served = !drafts.is_empty() || routes.default.is_some() || !routes.closed.is_empty();
        for one in canaries {
            let told = problems.entry(one.compiled.key.clone()).or_default();
            for rule in one.compiled.paths.iter().filter(|rule| rule.host == host) {
                // A canary that is refused takes nothing.
                let Some(key) = rule.leads.upstream() else { continue };
                let place = places.get(&(rule.text.as_str(), rule.kind));
                // Whoever may make Ingresses in one namespace would take requests, with cookies and passwords, from all others.
                if let Some(place) = place
                    && drafts[*place].1.ingress.namespace != one.compiled.key.namespace
                {
                    let main = &drafts[*place].1.ingress;
                    let text = format!(
                        "host {host:?} path {:?} belongs to {main}: a canary takes requests of its own namespace only",
                        rule.text
                    );
                    told.push(Problem::new("Conflict", text));
                    continue;
                }
                match place.map(|place| &mut drafts[*place].1.canary) {
                    Some(canary @ None) => *canary = Some((one.compiled.policy.clone(), upstream(key))),
                    Some(Some(_)) => {
                        told.push(Problem::new("Conflict", format!("host {host:?} path {:?} has another canary", rule.text)))
                    }
                    None => told.push(Problem::new(
                        "NoMainIngress",
                        format!("no Ingress has host {host:?} path {:?}, whose requests this canary could take", rule.text),
                    )),
                }
            }
        }
        routes.passes = self.passing(host, &mains, &drafts, &mut upstream, problems);
        for (rule, route) in drafts {
            routes.paths.add(rule.text.len(), &rule.matcher, Arc::new(route));
        }
        is_served.then_some(routes)
    }

    /// Where TLS for a host is passed through to: to the oldest Ingress with the whole of it that wants this, unless an older one of another
    /// namespace has a part of it, whose requests would go there, too.
    fn passing(
        &self,
        host: &str,
        mains: &[&Known],
        drafts: &[(&PathRule, Route)],
        upstream: &mut impl FnMut(&UpstreamKey) -> Arc<Upstream>,
        problems: &mut BTreeMap<Key, Vec<Problem>>,
    ) -> Option<Arc<Route>> {
        let is_whole = |rule: &PathRule, route: &Route| rule.text == "/" && !route.closed;
        let (rule, draft) = drafts.iter().find(|(rule, route)| route.policy.passthrough && is_whole(rule, route))?;
        let place = mains.iter().position(|one| one.compiled.key == draft.ingress)?;
        let is_another = |one: &&&Known| {
            one.compiled.key.namespace != draft.ingress.namespace && one.compiled.hosts.iter().any(|own| own == host)
        };
        if let Some(other) = mains[..place].iter().find(is_another) {
            let text =
                format!("TLS for host {host:?} is not passed through: {} has rules for it, and is older", other.compiled.key);
            problems.entry(draft.ingress.clone()).or_default().push(Problem::new("Conflict", text));
            return None;
        }
        Some(Arc::new(Route { spare: None, ..route(mains[place], rule, upstream) }))
    }

    /// The namespace that has a name of Ingresses: that of the oldest one with a rule for it.
    fn holder(&self, name: &str) -> Option<String> {
        let by_rule = self.of_host(name).into_iter().next().map(|(_, key)| key);
        let oldest = by_rule.or_else(|| self.by_age(self.by_host.get(name)).first().map(|one| one.compiled.key.clone()));
        oldest.map(|key| key.ns().to_owned())
    }

    /// TLS of a host. What Ingresses of the namespace that has it say counts, for itself or for its wildcard. What others say changes nothing: whoever may write
    /// an Ingress would send everybody's clients to HTTPS, and show them a certificate of his own. Of a host that nobody names any more its wildcard is all
    /// that there is, which is in the table by itself.
    fn tls(&self, host: &str, asked: &mut AskedTls, problems: &mut BTreeMap<Key, Vec<Problem>>) -> Option<HostTls> {
        if !self.by_tls.contains_key(host) && !self.by_host.contains_key(host) {
            return None;
        }
        let mut names = candidates(host).into_iter().flatten();
        let holder = names.find(|name| self.by_host.contains_key(*name)).and_then(|name| {
            let known = asked.holders.entry(name.to_owned()).or_insert_with(|| self.holder(name));
            known.clone()
        });
        self.tell_of_tls(host, holder.as_deref(), problems);
        let holder = holder?;
        let own = self.said_of_tls(host, &holder);
        let wildcard = host.find('.').map(|dot| &host[dot..]).filter(|wildcard| *wildcard != host);
        let above = wildcard.and_then(|wildcard| {
            let place = (wildcard.to_owned(), holder.clone());
            asked.wildcards.entry(place).or_insert_with(|| self.said_of_tls(wildcard, &holder)).clone()
        });
        match own {
            Some(own) if own.certified.is_some() => Some(own),
            own => above.or(own),
        }
    }

    /// What Ingresses of a namespace say of TLS for one of their names, the oldest with a good certificate first.
    fn said_of_tls(&self, name: &str, namespace: &str) -> Option<HostTls> {
        let known = self.by_age(self.by_tls.get(name)).into_iter().filter(|one| one.compiled.key.ns() == namespace);
        let mut found: Option<HostTls> = None;
        for one in known {
            for (_, secret) in one.compiled.tls.iter().filter(|(of, _)| of == name) {
                let found = found.get_or_insert_default();
                if let Some(Ok(Some(certified))) = secret.as_ref().map(|key| self.certified(key)) {
                    found.certified.get_or_insert_with(|| (one.compiled.created, certified));
                }
            }
        }
        found
    }

    /// Tells of what Ingresses say of TLS for a host, and of which nothing comes.
    fn tell_of_tls(&self, host: &str, holder: Option<&str>, problems: &mut BTreeMap<Key, Vec<Problem>>) {
        for one in self.by_age(self.by_tls.get(host)) {
            let other = holder.filter(|holder| *holder != one.compiled.key.ns());
            for (_, secret) in one.compiled.tls.iter().filter(|(of, _)| of == host) {
                let told = problems.entry(one.compiled.key.clone()).or_default();
                told.extend(self.without_host(one, host, secret.as_ref(), other));
                if let Some(Err(text)) = secret.as_ref().map(|key| self.certified(key)) {
                    told.push(Problem::new("InvalidCertificate", text));
                }
            }
        }
    }

    /// What is to be told of TLS for a host that another namespace has, and of a certificate that is not asked for.
    fn without_host(&self, one: &Known, host: &str, secret: Option<&Key>, other: Option<&str>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(other) = other {
            let text = format!("TLS for host {host:?} is not served: namespace {other} has the host by an older rule");
            problems.push(Problem::new("Conflict", text));
        }
        let asks = secret.is_some() && one.compiled.issuer.is_some() && is_provable(host);
        if asks && !self.has_host(host, (one.compiled.created, &one.compiled.key), true) {
            let text = format!("no certificate is asked for {host}: it is another namespace's, or no Ingress has a rule for it");
            problems.push(Problem::new("CertificateNotIssued", text));
        }
        problems
    }

    /// The certificate in a Secret, if it is there, or why it cannot be used.
    fn certified(&self, key: &Key) -> Result<Option<Arc<CertifiedKey>>, String> {
        let Some(KnownSecret { secret: Some(_), certified }) = self.secrets.get(key) else { return Ok(None) };
        let why = match certified {
            Some(Ok(certified)) => return Ok(Some(certified.clone())),
            Some(Err(why)) => why.as_str(),
            None => "it is not of type kubernetes.io/tls",
        };
        Err(format!("Secret {key} cannot be used for TLS: {why}; a certificate that nobody trusts is shown"))
    }
}

/// What was found for names that stand for many hosts, while TLS of all of these is looked at.
#[derive(Default)]
struct AskedTls {
    holders: HashMap<String, Option<String>>,
    /// By name and namespace.
    wildcards: HashMap<(String, String), Option<HostTls>>,
}

/// Whether a name of Ingresses stands for several hosts.
fn is_of_many(name: &str) -> bool {
    name.is_empty() || name.starts_with('.')
}

/// Whom events are about.
pub(crate) fn reference(version: &str, kind: &str, key: &Key, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: key.namespace.clone(),
        name: Some(key.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}

fn has_certificate(secret: &Secret) -> bool {
    secret.data.as_ref().is_some_and(|data| data.contains_key("tls.crt"))
}

fn note(index: &mut HashMap<String, BTreeSet<Key>>, host: &str, key: &Key, add: bool) {
    if add {
        index.entry(host.to_owned()).or_default().insert(key.clone());
    } else if let Some(keys) = index.get_mut(host) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(host);
        }
    }
}

fn default_rule(leads: Leads) -> PathRule {
    PathRule { host: String::new(), text: "/".to_owned(), kind: PathType::Prefix, matcher: Matcher::Prefix(String::new()), leads }
}

fn route(of: &Known, rule: &PathRule, upstream: &mut impl FnMut(&UpstreamKey) -> Arc<Upstream>) -> Route {
    Route {
        ingress: of.compiled.key.clone(),
        text: rule.text.clone(),
        matcher: rule.matcher.clone(),
        policy: of.compiled.policy.clone(),
        live: of.live.clone(),
        closed: of.compiled.policy.closed || rule.leads.upstream().is_none(),
        upstream: upstream(rule.leads.upstream().unwrap_or(&nobody(&of.compiled.key))),
        spare: of.compiled.spare.as_ref().map(&mut *upstream),
        canary: None,
        gateway: None,
    }
}

/// The route of a host whose requests belong to another one.
fn redirected(of: &Known, host: &str, upstream: &mut impl FnMut(&UpstreamKey) -> Arc<Upstream>) -> Option<Route> {
    let (_, policy) = of.compiled.redirected.iter().find(|(name, _)| name == host)?;
    let rule = default_rule(Leads::To(nobody(&of.compiled.key)));
    Some(Route { closed: false, policy: policy.clone(), ..route(of, &rule, upstream) })
}

/// The back end of those who need none.
fn nobody(owner: &Key) -> UpstreamKey {
    UpstreamKey { place: Place::Service(owner.clone(), PortRef::Number(0)), protocol: None, tls_name: None, trust: None }
}

/// What holds for requests of a rule, and for copies of them.
fn gateway_policies(planned: &Planned) -> (Arc<Policy>, Arc<Policy>) {
    let policy = gateway_policy(&planned.actions);
    let once = Retry { tries: 1, ..Retry::default() };
    (Arc::new(policy.clone()), Arc::new(Policy { retry: once, ..policy }))
}

fn gateway_route(
    planned: &Planned,
    (policy, of_copies): &(Arc<Policy>, Arc<Policy>),
    live: Arc<Live>,
    (upstreams, fresh): (&Upstreams, &mut Vec<Arc<Upstream>>),
) -> Route {
    let mut backend = |key: &UpstreamKey| upstreams.get(key, fresh);
    let backends: Vec<_> = planned
        .backends
        .iter()
        .map(|Backend { weight, to, changes }| Backend {
            weight: *weight,
            to: to.as_ref().map(&mut backend),
            changes: changes.clone(),
        })
        .collect();
    let mirrored = |(number, key): &(usize, UpstreamKey)| {
        let mirror = &planned.actions.mirrors[*number];
        Mirrored { to: backend(key), policy: of_copies.clone(), part: mirror.part, of: mirror.of }
    };
    let mirrors = planned.mirrors.iter().map(mirrored).collect();
    let upstream = backends.iter().find_map(|one| one.to.clone()).unwrap_or_else(|| backend(&nobody(&planned.route)));
    let (actions, clients, without) = (planned.actions.clone(), planned.clients.clone(), planned.kind.without_backend());
    Route {
        ingress: planned.route.clone(),
        text: "/".to_owned(),
        matcher: planned.matched.matcher.clone(),
        policy: policy.clone(),
        live,
        closed: false,
        upstream,
        spare: None,
        canary: None,
        gateway: Some(GatewayRoute { actions, backends, mirrors, clients, without }),
    }
}

/// What rules of routes have in common with Ingresses.
fn gateway_policy(actions: &Actions) -> Policy {
    let plain = Policy { ssl_redirect: false, body_size: None, ..Policy::default() };
    Policy {
        connect_timeout: actions.silence.map_or(plain.connect_timeout, |silence| silence.min(plain.connect_timeout)),
        read_timeout: actions.silence.unwrap_or(plain.read_timeout),
        retry: actions.retry.clone().unwrap_or(plain.retry),
        cors: actions.cors.clone().unwrap_or(plain.cors),
        affinity: actions.session.is_some(),
        cookie: actions.session.clone().unwrap_or(plain.cookie),
        ..plain
    }
}
