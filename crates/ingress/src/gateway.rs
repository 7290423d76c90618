//! The Gateway API: GatewayClass, Gateway, its routes and BackendTLSPolicy with their conditions. Pure.
//!
//! [`plan`] looks at everything that is known and says which rules there are and what every object's status has to be; what it says
//! depends on nothing else, so that it may be asked again at any time.

pub mod actions;
pub mod attach;
pub mod backend_tls;
pub mod duration;
pub mod extended;
pub mod frontend;
pub mod grpc;
pub mod precedence;
pub mod rules;
pub mod status;
pub mod streams;
pub mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use client::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::annotations::Problem;
use crate::balance::hash;
use crate::compile::host_name;
use crate::endpoints::PortRef;
use crate::issuer::{Issuer, Issuers, is_provable};
use crate::upstream::{Place, UpstreamKey};
use actions::{Actions, BackendChanges};
use attach::{Refusal, attach};
use backend_tls::{Ancestors, Policies};
use frontend::{Asking, Askings, Clients, askings};
use precedence::{Claim, Claims, Lost, is_same, isolated};
use rules::{Matched, Unsupported, backend};
use status::{Kind, condition, generation};
use streams::{Owners, Port, owners};
use types::{BackendTlsPolicy, GROUP, Gateway, GatewayClass, HttpRoute, Listener, ObjectRef, ReferenceGrant, RouteKind, Rule};

/// What a GatewayClass of ours names as its controller.
pub const CONTROLLER: &str = "knarr.io/gateway";

/// Everything of the Gateway API that is known.
#[derive(Debug, Default)]
pub struct Objects {
    pub classes: BTreeMap<Key, GatewayClass>,
    pub gateways: BTreeMap<Key, Gateway>,
    pub routes: BTreeMap<Key, HttpRoute>,
    /// GRPCRoutes, as routes over HTTP.
    pub grpc: BTreeMap<Key, HttpRoute>,
    /// TLSRoutes, of which no more is read than of routes over HTTP.
    pub tls: BTreeMap<Key, HttpRoute>,
    /// TCPRoutes and UDPRoutes, of which no more is read, either.
    pub tcp: BTreeMap<Key, HttpRoute>,
    pub udp: BTreeMap<Key, HttpRoute>,
    pub grants: BTreeMap<Key, ReferenceGrant>,
    pub backend_tls: BTreeMap<Key, BackendTlsPolicy>,
}

/// What decides beside them.
pub struct Around<'a> {
    /// Port of plain HTTP.
    pub http_port: u16,
    /// Port of HTTPS.
    pub https_port: u16,
    /// Ports of the node that no listener for TCP or UDP gets.
    pub reserved: &'a BTreeSet<Port>,
    /// Ports of the nodes that Services have as load balancers.
    pub balancers: &'a BTreeMap<Port, Key>,
    /// Whether a port of such a listener could be opened; none while nobody knows.
    pub opened: &'a dyn Fn(Port) -> Option<Result<(), String>>,
    /// By which addresses clients reach us.
    pub addresses: &'a [IpAddr],
    /// Who may be asked for certificates.
    pub issuers: &'a Issuers,
    /// Labels of a namespace.
    pub labels: &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>,
    /// The Ingresses with rules for a host, named as in [`crate::compile::host_name`]: seconds of their creation, the oldest first.
    pub ingresses: &'a dyn Fn(&str) -> Vec<(i64, Key)>,
    /// What a Service offers; none when there is no such Service.
    pub service: &'a dyn Fn(&Key) -> Option<Arc<Offer>>,
    /// The certificates (`ca.crt`) in a ConfigMap, none when there are none; none while nobody knows.
    pub bundle: &'a dyn Fn(&Key) -> Option<Option<String>>,
    /// Whether a Secret has a good certificate; none while nobody knows.
    pub has_certificate: &'a dyn Fn(&Key) -> Option<bool>,
}

/// What a Service offers to those that refer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// It is of type ExternalName.
    pub is_name: bool,
    /// Its ports, each with its name if it has one.
    pub ports: Vec<(Port, Option<String>)>,
}

/// What follows.
#[derive(Debug, Default)]
pub struct Plan {
    /// Matches of rules, in no order.
    pub rules: Vec<Planned>,
    /// Ports for TCP and UDP that are served.
    pub ports: BTreeSet<Port>,
    /// Where connections to them go, as far as they go anywhere.
    pub streams: BTreeMap<Port, Planned>,
    /// Hosts for which TLS ends here, whether or not a rule has them.
    pub ends_here: BTreeSet<String>,
    /// Certificates of HTTPS listeners, those of older Gateways first.
    pub tls: Vec<Certificate>,
    /// Hosts whose clients are asked for certificates.
    pub asks: BTreeSet<String>,
    /// The Secrets that listeners refer to and may.
    pub secrets: BTreeSet<Key>,
    /// The ConfigMaps that are referred to and may.
    pub config_maps: BTreeSet<Key>,
    /// The certificates that issuers are asked for.
    pub orders: Vec<Order>,
    /// The hosts of Ingresses that routes have.
    pub conflicts: Vec<(Key, Problem)>,
    /// What of Gateways does not work and has no place in their status.
    pub problems: Vec<(Key, Problem)>,
    /// What each status has to be.
    pub statuses: Vec<(Kind, Key, Value)>,
}

/// A certificate of an HTTPS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The listener's host.
    pub host: String,
    /// The Secret with the certificate.
    pub secret: Key,
    /// Seconds of the Gateway's creation.
    pub created: i64,
}

/// A name of a listener whose Gateway names an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where the certificate is kept.
    pub secret: Key,
    /// The name.
    pub host: String,
    /// Who issues it.
    pub issuer: Issuer,
    /// Whose listener it is.
    pub gateway: Key,
    /// Its unique name.
    pub uid: Option<String>,
}

/// How connections of a listener are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS, which ends here.
    Https,
    /// TLS that is passed through.
    Passthrough,
}

/// One match of one rule, under one host.
#[derive(Clone, Debug)]
pub struct Planned {
    /// By which door requests come.
    pub door: Door,
    /// Host as it is written: `a.example`, `*.example`, or any when empty.
    pub host: String,
    /// What kind of route it is of.
    pub kind: Kind,
    /// Whose it is.
    pub route: Key,
    /// What requests are like.
    pub matched: Matched,
    /// What happens to them.
    pub actions: Arc<Actions>,
    /// Who answers, by weight.
    pub backends: Vec<Backend<UpstreamKey>>,
    /// Who gets copies; those of [`Actions::mirrors`] that lead somewhere, with their places there.
    pub mirrors: Vec<(usize, UpstreamKey)>,
    /// What clients have to show.
    pub clients: Option<Arc<Clients>>,
}

/// One of those that answer requests of a rule.
#[derive(Clone, Debug)]
pub struct Backend<T> {
    /// Its part of all weights.
    pub weight: u32,
    /// Where it is; none answers with status 500.
    pub to: Option<T>,
    /// What it changes.
    pub changes: Arc<BackendChanges>,
}

/// The kinds of routes that are served.
const ROUTES: [Kind; 5] = [Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute, Kind::UdpRoute];

/// Whether this is the kind of routes.
pub(crate) fn is_route(kind: &RouteKind, route: &str) -> bool {
    kind.kind == route && kind.group.as_deref().is_none_or(|group| group == GROUP)
}

/// Whether a listener takes routes of this kind, by its protocol.
pub(crate) fn takes(listener: &Listener, route: &str) -> bool {
    match route {
        "TLSRoute" => listener.protocol == "TLS",
        "TCPRoute" => listener.protocol == "TCP",
        "UDPRoute" => listener.protocol == "UDP",
        _ => !matches!(listener.protocol.as_str(), "TLS" | "TCP" | "UDP"),
    }
}

/// The kinds of routes that a listener takes.
fn routes(listener: &Listener) -> impl Iterator<Item = &'static Kind> {
    ROUTES.iter().filter(|route| takes(listener, route.name()))
}

/// Says what follows.
pub fn plan(objects: &Objects, around: &Around<'_>) -> Plan {
    let mut plan = Plan::default();
    for (key, class) in objects.classes.iter().filter(|(_, class)| class.spec.controller_name == CONTROLLER) {
        let accepted = condition("Accepted", Ok(()), "Accepted", "", generation(&class.metadata));
        plan.statuses.push((Kind::GatewayClass, key.clone(), json!({"conditions": [accepted]})));
    }
    let ours = |gateway: &Gateway| {
        let class = objects.classes.get(&Key::cluster(&gateway.spec.gateway_class_name));
        class.is_some_and(|class| class.spec.controller_name == CONTROLLER)
    };
    let gateways: BTreeMap<&Key, &Gateway> = objects.gateways.iter().filter(|(_, gateway)| ours(gateway)).collect();
    let mut attached: BTreeMap<(&Key, usize), usize> = BTreeMap::new();
    let askings = askings(objects, around, &gateways, &mut plan.config_maps);
    let owners = owners(&gateways, around);
    plan.ports = owners.keys().copied().collect();
    let (policies, mut ancestors) = (Policies::of(objects, around, &mut plan.config_maps), Ancestors::new());
    let http = objects.routes.iter().map(|(key, route)| (Kind::HttpRoute, key, route));
    let grpc = objects.grpc.iter().map(|(key, route)| (Kind::GrpcRoute, key, route));
    let tls = objects.tls.iter().map(|(key, route)| (Kind::TlsRoute, key, route));
    let tcp = objects.tcp.iter().map(|(key, route)| (Kind::TcpRoute, key, route));
    let udp = objects.udp.iter().map(|(key, route)| (Kind::UdpRoute, key, route));
    let planner = |(kind, key, route)| Planner {
        objects,
        around,
        policies: &policies,
        askings: &askings,
        owners: &owners,
        kind,
        key,
        route,
    };
    let routes: Vec<_> = http.chain(grpc).chain(tls).chain(tcp).chain(udp).map(|route| planner(route).read(&gateways)).collect();
    let mut claims = Claims::of_listeners(gateways.iter().map(|(key, gateway)| (*key, *gateway)), around);
    routes.iter().for_each(|route| route.claim(&mut claims));
    for Read { planner, rules, parents: of_route } in &routes {
        let Planner { kind, key, route, .. } = planner;
        let mut parents = Vec::new();
        for parent in of_route {
            let (listeners, status) = planner.parent(parent, rules, &claims, &mut plan);
            if !listeners.is_empty() {
                planner.note(parent.key, &mut ancestors);
            }
            for listener in listeners {
                *attached.entry((parent.key, listener)).or_default() += 1;
            }
            parents.push(status);
        }
        let had = route.status.pointer("/parents").and_then(Value::as_array).into_iter().flatten();
        let others: Vec<Value> = had.filter(|parent| parent["controllerName"] != CONTROLLER).cloned().collect();
        let have_ours = route.status.pointer("/parents").and_then(Value::as_array).is_some_and(|all| all.len() > others.len());
        if !parents.is_empty() || have_ours {
            let parents = others.into_iter().chain(parents).collect::<Vec<_>>();
            plan.statuses.push((*kind, (*key).clone(), json!({"parents": parents})));
        }
    }
    plan.ends_here = claims.ends_here().cloned().collect();
    plan.conflicts = conflicts(&plan.rules, around);
    plan.statuses.extend(policies.statuses(&ancestors));
    for (key, gateway) in by_age(&gateways) {
        let of_place = |place| (attached.get(&(key, place)).copied().unwrap_or(0), askings.get(&(key, place)));
        let status = gateway_status(objects, around, (gateway, &owners), &of_place, &mut plan);
        plan.statuses.push((Kind::Gateway, key.clone(), status));
    }
    plan
}

/// The Gateways, the oldest first.
fn by_age<'a>(gateways: &BTreeMap<&'a Key, &'a Gateway>) -> Vec<(&'a Key, &'a Gateway)> {
    let mut by_age: Vec<_> = gateways.iter().map(|(key, gateway)| (*key, *gateway)).collect();
    by_age.sort_by_key(|(key, gateway)| (created(&gateway.metadata), *key));
    by_age
}

/// What Ingresses are told whose hosts routes have.
fn conflicts(rules: &[Planned], around: &Around<'_>) -> Vec<(Key, Problem)> {
    let mut hosts: BTreeMap<&str, &Planned> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| !rule.host.is_empty()) {
        hosts.entry(&rule.host).or_insert(rule);
    }
    let told = |(host, rule): (&str, &Planned)| {
        let problem = Problem::new("Conflict", format!("host {host:?} is served by {} {}", rule.kind.name(), rule.route));
        (around.ingresses)(&host_name(host)).into_iter().map(move |(_, ingress)| (ingress, problem.clone())).collect::<Vec<_>>()
    };
    hosts.into_iter().flat_map(told).collect()
}

fn parent_gateway<'a>(
    gateways: &BTreeMap<&'a Key, &'a Gateway>,
    parent: &ObjectRef,
    namespace: &str,
) -> Option<(&'a Key, &'a Gateway)> {
    let is_gateway =
        parent.kind.as_deref().is_none_or(|kind| kind == "Gateway") && parent.group.as_deref().is_none_or(|group| group == GROUP);
    let key = Key::namespaced(parent.namespace.as_deref().unwrap_or(namespace), &parent.name);
    gateways.get_key_value(&key).filter(|_| is_gateway).map(|(key, gateway)| (*key, *gateway))
}

/// A Gateway to which a route wants to be attached.
struct Parent<'a> {
    reference: &'a ObjectRef,
    key: &'a Key,
    gateway: &'a Gateway,
    /// The listeners that take the route, each by its place and with the hosts that both have.
    attached: Result<Vec<(usize, Vec<String>)>, Refusal>,
}

/// A route that was read.
struct Read<'a> {
    planner: Planner<'a>,
    rules: Result<Vec<Planned>, Unsupported>,
    parents: Vec<Parent<'a>>,
}

impl Read<'_> {
    /// Claims what it wants, so far as it could be served.
    fn claim(&self, claims: &mut Claims) {
        if self.rules.is_err() {
            return;
        }
        let around = self.planner.around;
        for parent in &self.parents {
            for (place, hosts) in parent.attached.iter().flatten() {
                let listener = &parent.gateway.spec.listeners[*place];
                match streams::port(listener) {
                    Some(port) if self.planner.owners.get(&port) == Some(&(parent.key, *place)) => {
                        claims.port(port, &self.planner.claim(parent.gateway, listener, ""));
                    }
                    Some(_) => {}
                    None => {
                        let Some(door) = serves(listener, around) else { continue };
                        for host in hosts.iter().filter(|host| isolated(host, listener, parent.gateway, around).is_none()) {
                            claims.host(host, door, &self.planner.claim(parent.gateway, listener, host), around);
                        }
                    }
                }
            }
        }
    }
}

/// Looks at one route.
struct Planner<'a> {
    objects: &'a Objects,
    around: &'a Around<'a>,
    policies: &'a Policies<'a>,
    askings: &'a Askings<'a>,
    owners: &'a Owners<'a>,
    kind: Kind,
    key: &'a Key,
    route: &'a HttpRoute,
}

impl<'a> Planner<'a> {
    /// Reads the route's rules, and where it is attached.
    fn read(self, gateways: &BTreeMap<&'a Key, &'a Gateway>) -> Read<'a> {
        let parent = |reference: &'a ObjectRef| {
            let (key, gateway) = parent_gateway(gateways, reference, self.route.namespace())?;
            let (listeners, route) = (&gateway.spec.listeners, (self.kind.name(), self.route));
            let attached = attach(listeners, gateway.namespace(), route, reference, self.around.labels);
            Some(Parent { reference, key, gateway, attached })
        };
        let parents = self.route.spec.parent_refs.iter().filter_map(parent).collect();
        Read { rules: self.rules(), parents, planner: self }
    }

    /// The route's claim for a host, or for a listener's port.
    fn claim(&self, gateway: &Gateway, listener: &Listener, host: &str) -> Claim {
        Claim::of_route(self.kind, self.key, created(&self.route.metadata), listener, host, gateway)
    }

    /// Attaches the route to a parent. The listeners that take it, and the parent's status.
    fn parent(
        &self,
        parent: &Parent<'_>,
        rules: &Result<Vec<Planned>, Unsupported>,
        claims: &Claims,
        plan: &mut Plan,
    ) -> (Vec<usize>, Value) {
        let seen = generation(&self.route.metadata);
        let mut places = Vec::new();
        let accepted = match (&parent.attached, rules) {
            (Err(refusal), _) => {
                let (reason, message) = refusal.reason();
                condition("Accepted", Err(()), reason, message, seen)
            }
            (_, Err(unsupported)) => condition("Accepted", Err(()), "UnsupportedValue", &unsupported.to_string(), seen),
            (Ok(attached), Ok(rules)) => {
                let mut outcome = Outcome::default();
                for (place, hosts) in attached {
                    if self.serve(parent, (*place, hosts), (rules, claims), plan, &mut outcome) {
                        places.push(*place);
                    }
                }
                let holds = if outcome.lost.is_empty() || outcome.has_any { Ok(()) } else { Err(()) };
                let reason = if holds.is_ok() { "Accepted" } else { outcome.reason };
                let mut lost: Vec<_> = outcome.lost.iter().map(Lost::to_string).collect();
                lost.dedup();
                condition("Accepted", holds, reason, &lost.join("; "), seen)
            }
        };
        let resolved = match self.unresolved() {
            None => condition("ResolvedRefs", Ok(()), "ResolvedRefs", "", seen),
            Some((reason, message)) => condition("ResolvedRefs", Err(()), reason, &message, seen),
        };
        let mut reference = json!({"group": GROUP, "kind": "Gateway", "name": parent.reference.name});
        for (name, value) in [
            ("namespace", parent.reference.namespace.clone().map(Value::from)),
            ("sectionName", parent.reference.section_name.clone().map(Value::from)),
            ("port", parent.reference.port.map(Value::from)),
        ] {
            if let Some(value) = value {
                reference[name] = value;
            }
        }
        let status = json!({"parentRef": reference, "controllerName": CONTROLLER, "conditions": [accepted, resolved]});
        (places, status)
    }

    /// Has the rules served at a listener, as far as nobody older has its port or its hosts. Whether the listener has the route.
    fn serve(
        &self,
        parent: &Parent<'_>,
        (place, hosts): (usize, &[String]),
        (rules, claims): (&[Planned], &Claims),
        plan: &mut Plan,
        outcome: &mut Outcome,
    ) -> bool {
        let listener = &parent.gateway.spec.listeners[place];
        if let Some(port) = streams::port(listener) {
            let is_served = self.owners.get(&port) == Some(&(parent.key, place));
            let has = claims.has_port(port, &self.claim(parent.gateway, listener, "")).map(|()| {
                plan.streams.extend(rules.first().filter(|_| is_served).map(|rule| (port, rule.clone())));
            });
            return !is_served || outcome.note(has, "PortConflict");
        }
        let Some(door) = serves(listener, self.around) else { return true };
        let clients = self.askings.get(&(parent.key, place)).map(|asking| asking.clients.clone());
        let mut has_any = false;
        for host in hosts {
            if let Some((other, isolating)) = isolated(host, listener, parent.gateway, self.around) {
                let is_there = parent.attached.iter().flatten().any(|(place, hosts)| *place == other && hosts.contains(host));
                let has = if is_there { Ok(()) } else { Err(Lost::to_listener(host, isolating)) };
                has_any |= outcome.note(has, "HostnameConflict");
                continue;
            }
            let has = claims.has_host(host, door, &self.claim(parent.gateway, listener, host), self.around);
            if outcome.note(has, "HostnameConflict") {
                let here = |rule: &Planned| Planned { door, host: host.clone(), clients: clients.clone(), ..rule.clone() };
                plan.rules.extend(rules.iter().map(here));
                has_any = true;
            }
        }
        has_any
    }

    fn rules(&self) -> Result<Vec<Planned>, Unsupported> {
        let created = created(&self.route.metadata);
        let mut planned = Vec::new();
        let every = [Rule::default()];
        let all = if self.route.spec.rules.is_empty() { &every[..] } else { &self.route.spec.rules };
        for (place, rule) in all.iter().enumerate() {
            let mut actions = Actions::of(rule)?;
            if let Some(cookie) = actions.session.as_mut().filter(|cookie| cookie.name.is_empty()) {
                // Rules share paths, so each has a cookie of its own.
                cookie.name = format!("knarr-{:016x}", hash(&format!("{} {} {place}", self.kind.name(), self.key)));
            }
            let actions = Arc::new(actions);
            let good = |reference: &ObjectRef| {
                let found = self.backend(reference).filter(|_| self.refused(reference).is_none());
                let key = found.map(|key| UpstreamKey { protocol: self.kind.protocol(), ..key })?;
                // What is forwarded as it is has TLS of its own.
                if self.kind.is_led_on() { Some(key) } else { self.policies.apply(key, self.around) }
            };
            let backend = |one: &ObjectRef| {
                let changes = Arc::new(BackendChanges::of(&one.filters)?);
                Ok(Backend { weight: one.weight.unwrap_or(1), to: good(one), changes })
            };
            let backends = rule.backend_refs.iter().map(backend).collect::<Result<Vec<_>, _>>()?;
            let mirrors = actions.mirrors.iter().enumerate();
            let mirrors: Vec<_> = mirrors.filter_map(|(number, mirror)| Some((number, good(&mirror.backend)?))).collect();
            for matched in rules::matches(rule, created, self.key, place)? {
                let (actions, backends, mirrors) = (actions.clone(), backends.clone(), mirrors.clone());
                let (door, host, kind, route) = (Door::Http, String::new(), self.kind, self.key.clone());
                planned.push(Planned { door, host, kind, route, matched, actions, backends, mirrors, clients: None });
            }
        }
        Ok(planned)
    }

    /// The back end that a reference means.
    fn backend(&self, reference: &ObjectRef) -> Option<UpstreamKey> {
        let mut key = backend(reference, self.route.namespace())?;
        if let (Kind::UdpRoute, Place::Service(_, port @ PortRef::Number(_)), Some(number)) =
            (self.kind, &mut key.place, reference.port)
        {
            *port = PortRef::Udp(number);
        }
        Some(key)
    }

    /// Notes that a Gateway leads to the route's back ends.
    fn note(&self, gateway: &Key, ancestors: &mut Ancestors) {
        for key in self.references().filter_map(|reference| backend(reference, self.route.namespace())) {
            if !self.kind.is_led_on() {
                self.policies.note(&key, gateway, self.around, ancestors);
            }
        }
    }

    /// Those whom its rules send requests, and copies of them.
    fn references(&self) -> impl Iterator<Item = &ObjectRef> {
        self.route.spec.rules.iter().flat_map(|rule| {
            let mirrors = rule.filters.iter().filter_map(|filter| filter.request_mirror.as_ref());
            rule.backend_refs.iter().chain(mirrors.map(|mirror| &mirror.backend_ref))
        })
    }

    /// The first reference to a back end that leads nowhere, and why.
    fn unresolved(&self) -> Option<(&'static str, String)> {
        self.references().find_map(|reference| self.refused(reference))
    }

    fn refused(&self, reference: &ObjectRef) -> Option<(&'static str, String)> {
        let backend = backend(reference, self.route.namespace()).zip(reference.port);
        let Some((UpstreamKey { place: Place::Service(key, _), .. }, number)) = backend else {
            return Some(("InvalidKind", format!("back end {} is no Service with a port", reference.name)));
        };
        if !granted(self.objects, self.kind.name(), self.route.namespace(), ("", "Service"), &key) {
            return Some(("RefNotPermitted", format!("no ReferenceGrant lets this namespace refer to Service {key}")));
        }
        let Some(offer) = (self.around.service)(&key) else {
            return Some(("BackendNotFound", format!("there is no Service {key}")));
        };
        // Whoever may make a Service would choose where its name leads, past ReferenceGrants and network policies (CVE-2021-25740).
        if offer.is_name {
            return Some(("UnsupportedValue", format!("Service {key} is of type ExternalName, to which routes do not lead")));
        }
        let port = if self.kind == Kind::UdpRoute { Port::udp(number) } else { Port::tcp(number) };
        let is_there = offer.ports.iter().any(|(one, _)| *one == port);
        (!is_there).then(|| ("BackendNotFound", format!("Service {key} has no port {port}")))
    }
}

/// What a route gets of what it wants from a Gateway.
#[derive(Default)]
struct Outcome {
    has_any: bool,
    lost: Vec<Lost>,
    /// The reason of the condition Accepted when it gets nothing.
    reason: &'static str,
}

impl Outcome {
    /// Notes whether it has one thing.
    fn note(&mut self, has: Result<(), Lost>, reason: &'static str) -> bool {
        match has {
            Ok(()) => self.has_any = true,
            Err(lost) => {
                self.lost.push(lost);
                self.reason = reason;
                return false;
            }
        }
        true
    }
}

/// Seconds of an object's creation: of two that want the same, the older has it.
fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
}

/// Whether an object of one namespace may refer to one of another.
fn granted(objects: &Objects, from: &str, namespace: &str, (group, kind): (&str, &str), to: &Key) -> bool {
    namespace == to.ns()
        || objects.grants.values().filter(|grant| grant.namespace() == to.ns()).any(|grant| {
            let asks = grant.spec.from.iter().any(|one| one.group == GROUP && one.kind == from && one.namespace == namespace);
            let gives = |one: &types::Granted| {
                one.group == group && one.kind == kind && one.name.as_ref().is_none_or(|name| *name == to.name)
            };
            asks && grant.spec.to.iter().any(gives)
        })
}

/// Whether a listener is served, and how.
fn serves(listener: &Listener, around: &Around<'_>) -> Option<Door> {
    let mode = listener.tls.as_ref().map(|tls| tls.mode.as_deref().unwrap_or("Terminate"));
    let (port, door) = match (listener.protocol.as_str(), mode) {
        ("HTTP", _) => (around.http_port, Door::Http),
        ("HTTPS", Some("Terminate")) => (around.https_port, Door::Https),
        ("TLS", Some("Passthrough")) => (around.https_port, Door::Passthrough),
        _ => return None,
    };
    (listener.port == port).then_some(door)
}

fn gateway_status<'a>(
    objects: &Objects,
    around: &Around<'_>,
    (gateway, owners): (&Gateway, &Owners<'_>),
    of_place: &dyn Fn(usize) -> (usize, Option<&'a Asking>),
    plan: &mut Plan,
) -> Value {
    let seen = generation(&gateway.metadata);
    let mut listeners = Vec::new();
    let mut programmed = 0;
    let issuer = around.issuers.named(gateway.metadata.annotations.as_ref()).unwrap_or_else(|wrong| {
        let problem = Problem::new(wrong.reason(), format!("{wrong}; no certificate is asked for"));
        plan.problems.push((Key::namespaced(gateway.namespace(), gateway.name()), problem));
        None
    });
    for (place, listener) in gateway.spec.listeners.iter().enumerate() {
        let certificates = certificates(objects, around, gateway, listener, &mut plan.secrets);
        plan.orders.extend(issuer.iter().flat_map(|issuer| orders(gateway, listener, issuer)));
        let (attached, asking) = of_place(place);
        let (asked, trusted) = asking.map_or((Ok(()), Ok(())), |asking| (asking.resolved.clone(), asking.accepted.clone()));
        let accepted = acceptance(gateway, place, around, owners).and(trusted);
        if asking.is_some() {
            plan.asks.insert(listener.hostname.clone().unwrap_or_default());
        }
        let good = accepted.is_ok() && certificates.is_ok();
        programmed += usize::from(good);
        if let (Ok(secrets), Ok(())) = (&certificates, &accepted) {
            let (host, created) = (listener.hostname.as_deref().unwrap_or_default(), created(&gateway.metadata));
            plan.tls.extend(secrets.iter().map(|secret| Certificate { host: host.to_owned(), secret: secret.clone(), created }));
        }
        let told = |result: &Result<(), (&'static str, String)>, kind, good_reason| match result {
            Ok(()) => condition(kind, Ok(()), good_reason, "", seen),
            Err((reason, message)) => condition(kind, Err(()), reason, message, seen),
        };
        let is_taken = |kind: &RouteKind| routes(listener).any(|route| is_route(kind, route.name()));
        let wrong_kinds = !listener.allowed_routes.kinds.iter().all(is_taken);
        let resolved = match (certificates.map(drop).and(asked), wrong_kinds) {
            (Ok(()), true) => {
                Err(("InvalidRouteKinds", format!("listeners for {} serve no routes of all these kinds", listener.protocol)))
            }
            (other, _) => other,
        };
        let kinds = &listener.allowed_routes.kinds;
        let supported =
            routes(listener).filter(|route| kinds.is_empty() || kinds.iter().any(|kind| is_route(kind, route.name())));
        let supported: Vec<Value> = supported.map(|route| json!({"group": GROUP, "kind": route.name()})).collect();
        let is_waiting = streams::port(listener).is_some_and(|port| (around.opened)(port).is_none());
        let ready = match good {
            true if is_waiting => Err(("Pending", "the port is being opened".to_owned())),
            true => Ok(()),
            false => Err(("Invalid", "the listener is not served".to_owned())),
        };
        listeners.push(json!({
            "name": listener.name,
            "attachedRoutes": attached,
            "supportedKinds": supported,
            "conditions": [told(&accepted, "Accepted", "Accepted"), told(&resolved, "ResolvedRefs", "ResolvedRefs"), told(&ready, "Programmed", "Programmed")],
        }));
    }
    let all = programmed == gateway.spec.listeners.len();
    let accepted = if all { ("Accepted", "") } else { ("ListenersNotValid", "some listeners are not served") };
    let serving = if programmed > 0 { Ok(()) } else { Err(()) };
    let programmed = if serving.is_ok() { "Programmed" } else { "Invalid" };
    let addresses: Vec<Value> = around.addresses.iter().map(|address| json!({"type": "IPAddress", "value": address})).collect();
    json!({
        "addresses": addresses,
        "conditions": [
            condition("Accepted", serving, accepted.0, accepted.1, seen),
            condition("Programmed", serving, programmed, "", seen),
        ],
        "listeners": listeners,
    })
}

/// The certificates of a listener that its Gateway's issuer is asked for: those of Secrets in its own namespace.
fn orders(gateway: &Gateway, listener: &Listener, issuer: &Issuer) -> Vec<Order> {
    let host = listener.hostname.as_deref().filter(|host| listener.protocol == "HTTPS" && is_provable(host));
    let (Some(host), Some(tls)) = (host, &listener.tls) else { return Vec::new() };
    let own = |reference: &&ObjectRef| reference.namespace.as_deref().is_none_or(|namespace| namespace == gateway.namespace());
    let order = |reference: &ObjectRef| Order {
        secret: Key::namespaced(gateway.namespace(), &reference.name),
        host: host.to_ascii_lowercase(),
        issuer: issuer.clone(),
        gateway: Key::namespaced(gateway.namespace(), gateway.name()),
        uid: gateway.metadata.uid.clone(),
    };
    tls.certificate_refs.iter().filter(own).take(1).map(order).collect()
}

fn acceptance(gateway: &Gateway, place: usize, around: &Around<'_>, owners: &Owners<'_>) -> Result<(), (&'static str, String)> {
    let listener = &gateway.spec.listeners[place];
    if let Some(port) = streams::port(listener) {
        return streams::acceptance(&Key::namespaced(gateway.namespace(), gateway.name()), place, port, owners, around);
    }
    if gateway.spec.listeners[..place].iter().any(|other| is_same(other, listener)) {
        return Err(("HostnameConflict", "another listener has this port and host name".to_owned()));
    }
    if !matches!(listener.protocol.as_str(), "HTTP" | "HTTPS" | "TLS") {
        return Err(("UnsupportedProtocol", format!("protocol {} is not served", listener.protocol)));
    }
    let port = if listener.protocol == "HTTP" { around.http_port } else { around.https_port };
    if listener.port != port {
        return Err(("PortUnavailable", format!("{} is served on port {port} only", listener.protocol)));
    }
    let served = serves(listener, around).is_some();
    let mode = if listener.protocol == "TLS" { "Passthrough" } else { "Terminate" };
    if served { Ok(()) } else { Err(("UnsupportedValue", format!("TLS must be of the mode {mode}"))) }
}

/// The Secrets with a listener's certificates.
fn certificates(
    objects: &Objects,
    around: &Around<'_>,
    gateway: &Gateway,
    listener: &Listener,
    watched: &mut BTreeSet<Key>,
) -> Result<Vec<Key>, (&'static str, String)> {
    if listener.protocol != "HTTPS" {
        return Ok(Vec::new());
    }
    let references = listener.tls.as_ref().map(|tls| &tls.certificate_refs[..]).unwrap_or_default();
    let mut secrets = Vec::new();
    for reference in references {
        let is_secret =
            matches!(reference.group.as_deref(), None | Some("")) && matches!(reference.kind.as_deref(), None | Some("Secret"));
        let key = Key::namespaced(reference.namespace.as_deref().unwrap_or(gateway.namespace()), &reference.name);
        if !granted(objects, "Gateway", gateway.namespace(), ("", "Secret"), &key) {
            return Err(("RefNotPermitted", format!("no ReferenceGrant lets this namespace refer to Secret {key}")));
        }
        if is_secret {
            watched.insert(key.clone());
        }
        if !is_secret || (around.has_certificate)(&key) == Some(false) {
            return Err(("InvalidCertificateRef", format!("Secret {key} has no certificate that can be used")));
        }
        secrets.push(key);
    }
    if secrets.is_empty() { Err(("InvalidCertificateRef", "a certificate is missing".to_owned())) } else { Ok(secrets) }
}

#[cfg(test)]
mod tests;
