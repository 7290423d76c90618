//! The Gateway API: GatewayClass, Gateway, its routes and BackendTLSPolicy with their conditions. Pure.
//!
//! [`plan`] looks at everything that is known and says which rules there are and what every object's status has to be; what it says
//! depends on nothing else, so that it may be asked again at any time. Only the room for regular expressions
//! ([`crate::patterns`]) is shared with all that is in use.

pub mod actions;
mod asked;
pub mod attach;
pub mod backend_tls;
mod bounds;
mod certificates;
mod conflicts;
pub mod duration;
pub mod extended;
mod features;
pub mod frontend;
mod gateways;
pub mod grpc;
mod kinds;
pub mod listeners;
mod overlaps;
pub mod owners;
pub mod placed;
mod planned;
pub mod precedence;
mod route;
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
use crate::compile::host_name;
use crate::issuer::Issuers;
use backend_tls::{Ancestors, Policies};
use frontend::askings;
use kinds::Rejected;
use listeners::AllListed;
use placed::Placed;
pub use planned::{Backend, Certificates, Door, Entrance, Holder, Order, Plan, Planned};
use precedence::Claims;
use route::{Planner, Read};
use status::{Kind, condition, generation};
use streams::Port;
use types::{BackendTlsPolicy, GROUP, Gateway, GatewayClass, HttpRoute, ListenerSet, ReferenceGrant};

/// What a GatewayClass of ours names as its controller.
pub const CONTROLLER: &str = "knarr.io/gateway";

/// Everything of the Gateway API that is known.
#[derive(Debug, Default)]
pub struct Objects {
    pub classes: BTreeMap<Key, GatewayClass>,
    pub gateways: BTreeMap<Key, Gateway>,
    pub listener_sets: BTreeMap<Key, ListenerSet>,
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

impl Objects {
    /// Whether a Gateway or one of its ListenerSets chooses namespaces by their labels.
    pub fn select_namespaces(&self) -> bool {
        let listeners = self.gateways.values().map(|gateway| &gateway.spec.listeners);
        let of_sets = self.listener_sets.values().map(|set| &set.spec.listeners);
        let of_routes = listeners.chain(of_sets).flatten().map(|listener| &listener.allowed_routes.namespaces);
        let of_listeners = self.gateways.values().filter_map(|gateway| gateway.spec.allowed_listeners.as_ref());
        of_routes.chain(of_listeners.map(|allowed| &allowed.namespaces)).any(|namespaces| namespaces.selector.is_some())
    }
}

/// What decides beside them.
pub struct Around<'a> {
    /// Port of plain HTTP.
    pub http_port: u16,
    /// Port of HTTPS.
    pub https_port: u16,
    /// Ports of the node that no listener gets for itself, those of ingress among them.
    pub reserved: &'a BTreeSet<Port>,
    /// Ports of the nodes that Services have as load balancers.
    pub balancers: &'a BTreeMap<Port, Key>,
    /// Whether a port of a listener could be opened; none while nobody knows.
    pub opened: &'a dyn Fn(Port) -> Option<Result<(), String>>,
    /// Ports that lead here, and the nodes that have given them to others.
    pub taken: &'a TakenPorts,
    /// By which addresses clients reach us.
    pub addresses: &'a [IpAddr],
    /// Whether an address is one of these, or of another node, whose ports lead to them.
    pub leads_here: &'a dyn Fn(IpAddr) -> bool,
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

/// Nodes that have given a port that leads here to others.
pub type TakenPorts = BTreeMap<Port, BTreeSet<TakenAt>>;

/// A node that has given a port to others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TakenAt {
    /// Its name.
    pub node: String,
    /// Clients reach us by an address of it.
    pub is_ours: bool,
}

/// What a Service offers to those that refer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// It is of type ExternalName.
    pub is_name: bool,
    /// Its ports, each with its name if it has one.
    pub ports: Vec<(Port, Option<String>)>,
}

/// Says what follows.
pub fn plan(objects: &Objects, around: &Around<'_>) -> Plan {
    let mut plan = Plan::default();
    let gateways = accepted(objects, &mut plan);
    let (listed, owners) = listeners::list(objects, around, &gateways);
    plan.ports = owners.iter().map(|(port, owner)| (*port, owner.carries)).collect();
    let askings = askings(objects, around, &listed, &mut plan.config_maps);
    let (policies, mut ancestors) = (Policies::of(objects, around, &mut plan.config_maps), Ancestors::new());
    let planner = |(kind, key, route)| Planner { objects, around, policies: &policies, askings: &askings, kind, key, route };
    let mut routes: Vec<_> = routes(objects).map(|route| planner(route).read(&listed)).collect();
    bounds::bound(&mut routes);
    plan.without_room = routes.iter().any(|route| route.rules.as_ref().is_err_and(|why| *why == rules::NO_ROOM));
    let mut claims = Claims::of_listeners(&listed);
    let rejected = Rejected::among(routes.iter().flat_map(Read::asking));
    routes.iter().for_each(|route| route.claim(&rejected, &mut claims));
    let mut attached: BTreeMap<(&Key, usize), usize> = BTreeMap::new();
    for Read { planner, rules, parents: of_route } in &routes {
        let Planner { kind, key, route, .. } = planner;
        let (mut parents, mut places) = (Vec::new(), BTreeSet::new());
        for parent in of_route {
            let (listeners, status) = planner.parent(parent, rules, (&rejected, &claims), &mut plan);
            if !listeners.is_empty() {
                planner.note(parent, &mut ancestors);
            }
            places.extend(listeners.into_iter().map(|listener| (parent.key, listener)));
            parents.push(status);
        }
        // A route that names a listener twice, such as by its name and by its port, is one.
        places.into_iter().for_each(|place| *attached.entry(place).or_default() += 1);
        let had = route.status.pointer("/parents").and_then(Value::as_array).into_iter().flatten();
        let others: Vec<Value> = had.filter(|parent| parent["controllerName"] != CONTROLLER).cloned().collect();
        let have_ours = route.status.pointer("/parents").and_then(Value::as_array).is_some_and(|all| all.len() > others.len());
        if !parents.is_empty() || have_ours {
            let parents = others.into_iter().chain(parents).collect::<Vec<_>>();
            plan.statuses.push((*kind, (*key).clone(), json!({"parents": parents})));
        }
    }
    plan.ends_here = claims.ends_here().cloned().collect();
    plan.over_tls = listed.values().flat_map(|listed| listed.listeners.iter().filter_map(Placed::over_tls)).collect();
    plan.holders = claims.holders().collect();
    plan.conflicts = conflicts(&plan.rules, around);
    plan.statuses.extend(policies.statuses(&ancestors));
    statuses(objects, around, &listed, (&attached, &askings), &mut plan);
    plan
}

/// The Gateways that are ours to serve. The statuses of classes are added to the plan, and those of Gateways that cannot be served at all, with their
/// ListenerSets.
fn accepted<'a>(objects: &'a Objects, plan: &mut Plan) -> BTreeMap<&'a Key, &'a Gateway> {
    for (key, class) in objects.classes.iter().filter(|(_, class)| class.spec.controller_name == CONTROLLER) {
        let seen = generation(&class.metadata);
        let accepted = match asked::class(class) {
            Ok(()) => condition("Accepted", Ok(()), "Accepted", "", seen),
            Err((reason, message)) => condition("Accepted", Err(()), reason, &message, seen),
        };
        let status = json!({"conditions": [accepted], "supportedFeatures": features::supported()});
        plan.statuses.push((Kind::GatewayClass, key.clone(), status));
    }
    let ours = |gateway: &Gateway| {
        let class = objects.classes.get(&Key::cluster(&gateway.spec.gateway_class_name));
        class.is_some_and(|class| class.spec.controller_name == CONTROLLER && asked::class(class).is_ok())
    };
    let mut gateways: BTreeMap<&Key, &Gateway> = objects.gateways.iter().filter(|(_, gateway)| ours(gateway)).collect();
    gateways.retain(|key, gateway| {
        let Err(why) = asked::gateway(gateway) else { return true };
        plan.statuses.push((Kind::Gateway, (*key).clone(), asked::refused(gateway, &why)));
        for (set, object) in objects.listener_sets.iter().filter(|(_, set)| listeners::parent_of(set).as_ref() == Some(key)) {
            let message = "its Gateway is not accepted";
            let status = gateways::set_refused(generation(&object.metadata), "ParentNotAccepted", message);
            plan.statuses.push((Kind::ListenerSet, set.clone(), status));
        }
        false
    });
    gateways
}

/// All routes.
fn routes(objects: &Objects) -> impl Iterator<Item = (Kind, &Key, &HttpRoute)> {
    let all = [
        (Kind::HttpRoute, &objects.routes),
        (Kind::GrpcRoute, &objects.grpc),
        (Kind::TlsRoute, &objects.tls),
        (Kind::TcpRoute, &objects.tcp),
        (Kind::UdpRoute, &objects.udp),
    ];
    all.into_iter().flat_map(|(kind, routes)| routes.iter().map(move |(key, route)| (kind, key, route)))
}

/// Adds the statuses of Gateways and their ListenerSets, and the certificates of their listeners: those of older ones first.
fn statuses<'a>(
    objects: &Objects,
    around: &Around<'_>,
    all: &AllListed<'a>,
    (attached, askings): (&BTreeMap<(&Key, usize), usize>, &frontend::Askings<'a>),
    plan: &mut Plan,
) {
    let mut sets: BTreeMap<&Key, Vec<(&Key, &ListenerSet)>> = BTreeMap::new();
    for (set, object) in &objects.listener_sets {
        if let Some((gateway, _)) = listeners::parent_of(object).and_then(|gateway| all.get_key_value(&gateway)) {
            sets.entry(gateway).or_default().push((set, object));
        }
    }
    let mut by_age: Vec<_> = all.iter().collect();
    by_age.sort_by_key(|(key, listed)| (created(&listed.gateway.metadata), **key));
    for (key, listed) in by_age {
        let of_place = |place| (attached.get(&(*key, place)).copied().unwrap_or(0), askings.get(&(*key, place)));
        let of_gateway = sets.get(key);
        let mut count = 0;
        for (set, object) in of_gateway.into_iter().flatten() {
            let status = if listeners::allows(listed.gateway, object, around) {
                let (status, is_attached) = gateways::set_status(objects, around, (key, listed, set), &of_place, plan);
                count += usize::from(is_attached);
                status
            } else {
                let message = "the Gateway allows no ListenerSets of this namespace";
                gateways::set_refused(generation(&object.metadata), "NotAllowed", message)
            };
            plan.statuses.push((Kind::ListenerSet, (*set).clone(), status));
        }
        // Definitions before ListenerSets have no such field.
        let count = (listed.gateway.spec.allowed_listeners.is_some() || of_gateway.is_some()).then_some(count);
        let status = gateways::gateway_status(objects, around, (key, listed), (&of_place, count), plan);
        plan.statuses.push((Kind::Gateway, (*key).clone(), status));
    }
    plan.tls.sort_by_key(|certificate| certificate.created);
}

/// What Ingresses are told whose hosts routes have.
fn conflicts(rules: &[Planned], around: &Around<'_>) -> Vec<(Key, Problem)> {
    let mut hosts: BTreeMap<&str, &Planned> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.entrance == Entrance::Ingress && !rule.host.is_empty()) {
        hosts.entry(&rule.host).or_insert(rule);
    }
    let told = |(host, rule): (&str, &Planned)| {
        let problem = Problem::new("Conflict", format!("host {host:?} is served by {} {}", rule.kind.name(), rule.route));
        (around.ingresses)(&host_name(host)).into_iter().map(move |(_, ingress)| (ingress, problem.clone())).collect::<Vec<_>>()
    };
    hosts.into_iter().flat_map(told).collect()
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

#[cfg(test)]
mod tests;
