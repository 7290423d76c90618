//! Routes: their rules, the back ends that they refer to, and the Gateways that they want to be attached to.

mod parents;

use std::sync::Arc;

use client::Key;

use super::actions::{Actions, BackendChanges};
use super::attach::{Refusal, attach, closeness};
use super::backend_tls::{Ancestors, Policies};
use super::frontend::Askings;
use super::kinds::{Asking, Rejected};
use super::listeners::{AllListed, Listed, parent_of};
use super::placed::{Placed, Served};
use super::precedence::{By, Claim, Claims, isolated};
use super::rules::{self, Unsupported, backend};
use super::status::Kind;
use super::streams::Port;
use super::types::{GROUP, HttpRoute, ObjectRef, Rule};
use super::{Around, Backend, Door, Entrance, Objects, Planned, created, granted};
use crate::balance::hash;
use crate::endpoints::PortRef;
use crate::upstream::{Place, UpstreamKey};

/// A Gateway, or a ListenerSet of one, to which a route wants to be attached.
pub(super) struct Parent<'a> {
    reference: &'a ObjectRef,
    /// The Gateway.
    pub(super) key: &'a Key,
    listed: &'a Listed<'a>,
    /// The ListenerSet.
    set: Option<&'a Key>,
    /// The listeners that take the route, each by its place and with the hosts that both have.
    attached: Result<Vec<(usize, Vec<String>)>, Refusal>,
}

/// A route that was read.
pub(super) struct Read<'a> {
    pub(super) planner: Planner<'a>,
    pub(super) rules: Result<Vec<Planned>, Unsupported>,
    pub(super) parents: Vec<Parent<'a>>,
}

impl<'a> Read<'a> {
    /// Its hosts at each listener, without those of more specific ones; none where it cannot be served, and of kinds that have no hosts.
    pub(super) fn asking(&'a self) -> impl Iterator<Item = Asking<'a>> {
        let is_one = matches!(self.planner.kind, Kind::HttpRoute | Kind::GrpcRoute) && self.rules.is_ok();
        let parents = self.parents.iter().filter(move |_| is_one);
        let attached = parents.flat_map(|parent| parent.attached.iter().flatten().map(move |one| (parent, one)));
        attached.map(|(parent, (place, hosts))| {
            let placed = &parent.listed.listeners[*place];
            let own = hosts.iter().filter(|host| isolated(host, placed, parent.listed).is_none());
            Asking {
                place: (parent.key, *place),
                route: (self.planner.kind, self.planner.key),
                created: created(&self.planner.route.metadata),
                hosts: own.map(String::as_str).collect(),
            }
        })
    }

    /// How many matches it comes to, each counted under each host at each listener.
    pub(super) fn size(&self) -> usize {
        let hosts = self.parents.iter().flat_map(|parent| parent.attached.iter().flatten()).map(|(_, hosts)| hosts.len().max(1));
        self.rules.as_ref().map_or(0, Vec::len).saturating_mul(hosts.sum())
    }

    /// Claims what it wants, so far as it could be served.
    pub(super) fn claim(&self, rejected: &Rejected<'_>, claims: &mut Claims) {
        if self.rules.is_err() {
            return;
        }
        for parent in &self.parents {
            for (place, hosts) in parent.attached.iter().flatten() {
                if rejected.other((parent.key, *place), (self.planner.kind, self.planner.key)).is_some() {
                    continue;
                }
                let placed = &parent.listed.listeners[*place];
                match placed.served {
                    Ok(Served::Stream(port)) => claims.port(port, &self.planner.claim(placed, "")),
                    Ok(Served::Hosts(entrance, door)) => {
                        for host in hosts.iter().filter(|host| isolated(host, placed, parent.listed).is_none()) {
                            let (by, claim) = (self.planner.by(parent.key, *place, host), self.planner.claim(placed, host));
                            claims.host(host, (entrance, door), (&by, &claim), self.planner.around);
                        }
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

/// Looks at one route.
pub(super) struct Planner<'a> {
    pub(super) objects: &'a Objects,
    pub(super) around: &'a Around<'a>,
    pub(super) policies: &'a Policies<'a>,
    pub(super) askings: &'a Askings<'a>,
    pub(super) kind: Kind,
    pub(super) key: &'a Key,
    pub(super) route: &'a HttpRoute,
}

impl<'a> Planner<'a> {
    /// Reads the route's rules, and where it is attached.
    pub(super) fn read(self, all: &'a AllListed<'a>) -> Read<'a> {
        let parents = self.route.spec.parent_refs.iter().filter_map(|reference| self.parent_of(reference, all));
        let parents: Vec<Parent<'_>> = parents.collect();
        // Regular expressions of routes that nobody here serves would take room from others, and be compiled for each plan.
        let is_attached = parents.iter().any(|parent| parent.attached.is_ok());
        Read { rules: if is_attached { self.rules() } else { Ok(Vec::new()) }, parents, planner: self }
    }

    /// The parent that a reference means, if it is one of ours.
    fn parent_of(&self, reference: &'a ObjectRef, all: &'a AllListed<'a>) -> Option<Parent<'a>> {
        let key = Key::namespaced(reference.namespace.as_deref().unwrap_or(self.route.namespace()), &reference.name);
        reference.group.as_deref().is_none_or(|group| group == GROUP).then_some(())?;
        let (gateway, set) = match reference.kind.as_deref() {
            None | Some("Gateway") => (key, None),
            Some("ListenerSet") => {
                let (key, set) = self.objects.listener_sets.get_key_value(&key)?;
                (parent_of(set)?, Some(key))
            }
            Some(_) => return None,
        };
        let (key, listed) = all.get_key_value(&gateway)?;
        let attached = attach(listed.of(set), (self.kind.name(), self.route), reference, self.around.labels);
        Some(Parent { reference, key, listed, set, attached })
    }

    /// The route's claim for a host, or for a listener's port.
    fn claim(&self, placed: &Placed<'_>, host: &str) -> Claim {
        Claim::of_route(self.kind, self.key, created(&self.route.metadata), placed, host)
    }

    /// By which listener, and how closely, the route names a host.
    fn by(&self, gateway: &Key, place: usize, host: &str) -> By {
        By { listener: (gateway.clone(), place), closeness: closeness(&self.route.spec.hostnames, host) }
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
                let (entrance, listener, clients) = (Entrance::Ingress, (Key::cluster(""), 0), None);
                let one = Planned { entrance, door, host, kind, route, listener, matched, actions, backends, mirrors, clients };
                planned.push(one);
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

    /// Notes that a Gateway leads to the route's back ends, unless what it leads there is not looked into.
    pub(super) fn note(&self, parent: &Parent<'_>, ancestors: &mut Ancestors) {
        let ends_here = |place: &usize| parent.listed.listeners[*place].hosts().is_some_and(|(_, door)| door == Door::Terminated);
        let mut places = parent.attached.iter().flatten().map(|(place, _)| place);
        if self.kind.is_led_on() && !places.any(ends_here) {
            return;
        }
        for key in self.references().filter_map(|reference| backend(reference, self.route.namespace())) {
            self.policies.note(&key, parent.key, self.around, ancestors);
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
