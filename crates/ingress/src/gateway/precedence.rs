//! Who has a host name, or a port for TCP or UDP, that several want. Pure.
//!
//! All Gateways share their ports with each other and with Ingresses, whoever made them, so a name that somebody serves must not go to
//! whoever asks for it later. The most specific name comes first, which the table sees to; of one name the oldest claim does. Over TLS a
//! name is either passed through or ends here for one TLSRoute, or ends here for any HTTPRoutes: these share it by their paths, as the
//! specification says. Of TLSRoutes for one name that one listener takes, the one that names it most closely has it. A listener claims the name that it has, with the age of its Gateway, and so do the routes that it takes under
//! that name: they may be made anew without losing it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use client::Key;

use super::attach::{Closeness, covers};
use super::listeners::{AllListed, Listed};
use super::placed::Placed;
use super::status::Kind;
use super::streams::Port;
use super::{Around, Door, Entrance, Holder, created};
use crate::compile::host_name;
use crate::issuer::is_provable;

/// The claim of a listener or a route: the least is the oldest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Seconds of the creation of the listener that has the name itself, else of the route.
    since: i64,
    /// Seconds of its own creation.
    created: i64,
    key: Key,
    kind: Kind,
    /// Whose the name is then: the namespace of the listener that has it itself, else of the route.
    namespace: String,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.kind, Kind::Gateway | Kind::ListenerSet) {
            write!(f, "a listener of ")?;
        }
        write!(f, "{} {}", self.kind.name(), self.key)
    }
}

impl Claim {
    /// A listener's, for its name, with the age of the Gateway or the ListenerSet that has it.
    fn of_listener(gateway: &Key, placed: &Placed<'_>) -> Self {
        let created = created(placed.metadata);
        let (key, namespace) = (placed.set.unwrap_or(gateway).clone(), placed.namespace().to_owned());
        Self { since: created, created, key, kind: placed.kind(), namespace }
    }

    /// A route's for a host under which a listener takes it, or for a listener's port.
    pub fn of_route(kind: Kind, key: &Key, created: i64, placed: &Placed<'_>, host: &str) -> Self {
        let is_its = placed.host() == host.to_ascii_lowercase();
        let of_listener = super::created(placed.metadata);
        let since = if is_its { created.min(of_listener) } else { created };
        let namespace = if is_its { placed.namespace() } else { key.ns() }.to_owned();
        Self { since, created, key: key.clone(), kind, namespace }
    }

    /// Whether the claim comes before that of an Ingress.
    fn is_older(&self, (created, ingress): &(i64, Key)) -> bool {
        (self.since, &self.key) < (*created, ingress)
    }
}

/// Why a route does not get a host or a port that it wants, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is served by {other}, which is {why}")]
pub struct Lost {
    what: String,
    other: String,
    why: &'static str,
}

impl Lost {
    fn to_older(what: String, other: String) -> Self {
        Self { what, other, why: "older" }
    }

    fn to_closer(what: String, other: String) -> Self {
        Self { what, other, why: "more specific" }
    }

    /// Hosts of a listener that a route of another kind has, which shares none.
    pub fn to_other_kind(listener: &str, (kind, key): (Kind, &Key)) -> Self {
        Self::to_older(format!("a host of listener {listener}"), format!("{} {key}", kind.name()))
    }

    /// A host that another listener of the same Gateway has. Who may read one ListenerSet may not know what another one has.
    pub fn to_listener(host: &str, own: &Placed<'_>, other: &Placed<'_>) -> Self {
        let other = match own.set == other.set {
            true => format!("listener {}", other.listener.name),
            false => "another listener of the Gateway".to_owned(),
        };
        Self::to_closer(named(host), other)
    }
}

fn named(host: &str) -> String {
    if host.is_empty() { "any host".to_owned() } else { format!("host {host}") }
}

/// By which listener a route wants a host: that of a Gateway at a place. And how closely the route names the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    pub listener: (Key, usize),
    pub closeness: Closeness,
}

/// The TLSRoutes that want one name by one listener.
#[derive(Debug)]
struct Passing {
    /// What the listener's routes have of the name before those of others.
    oldest: Claim,
    /// Of these routes the one that has it, which names it most closely.
    first: (Reverse<Closeness>, Claim),
}

/// The claims that come first.
#[derive(Debug, Default)]
pub struct Claims {
    /// The oldest for a name over TLS, and how it takes connections.
    tls: BTreeMap<(Entrance, String), (Claim, Door)>,
    /// The oldest for a name however it takes connections, and wherever.
    names: BTreeMap<String, Claim>,
    /// The TLSRoutes for a name, by the listeners that take them.
    passing: BTreeMap<(Entrance, String), BTreeMap<(Key, usize), Passing>>,
    /// The oldest route for a port.
    ports: BTreeMap<Port, Claim>,
}

impl Claims {
    /// Those of listeners.
    pub fn of_listeners(all: &AllListed<'_>) -> Self {
        let mut claims = Self::default();
        for (key, listed) in all {
            for placed in &listed.listeners {
                if let Some((entrance, door)) = placed.hosts() {
                    claims.claim((entrance, host_name(&placed.host())), door, &Claim::of_listener(key, placed));
                }
            }
        }
        claims
    }

    /// A route wants a host.
    pub fn host(&mut self, host: &str, (entrance, door): (Entrance, Door), (by, claim): (&By, &Claim), around: &Around<'_>) {
        let host = host_name(host);
        if ingress_before(&host, entrance, claim, around).is_some() {
            return;
        }
        let name = (entrance, host);
        if door.is_led_by_name() {
            let first = (Reverse(by.closeness), claim.clone());
            let own = Passing { oldest: claim.clone(), first: first.clone() };
            let passing = self.passing.entry(name.clone()).or_default().entry(by.listener.clone()).or_insert(own);
            if *claim < passing.oldest {
                passing.oldest = claim.clone();
            }
            if first < passing.first {
                passing.first = first;
            }
        }
        self.claim(name, door, claim);
    }

    /// Who has a name that is led on: of the listeners with routes for it the one whose oldest has it for the longest time, and of its routes the one that names it
    /// most closely.
    fn passing(&self, name: &(Entrance, String)) -> Option<(&(Key, usize), &Passing)> {
        self.passing.get(name)?.iter().min_by(|(_, one), (_, other)| one.oldest.cmp(&other.oldest))
    }

    /// A route wants a port.
    pub fn port(&mut self, port: Port, claim: &Claim) {
        oldest(&mut self.ports, port, claim.clone());
    }

    fn claim(&mut self, name: (Entrance, String), door: Door, claim: &Claim) {
        oldest(&mut self.names, name.1.clone(), claim.clone());
        if door != Door::Http && self.tls.get(&name).is_none_or(|(other, _)| claim < other) {
            self.tls.insert(name, (claim.clone(), door));
        }
    }

    /// Whether a route has a host that it wants.
    ///
    /// # Errors
    /// Somebody older has it.
    pub fn has_host(
        &self,
        host: &str,
        (entrance, door): (Entrance, Door),
        (by, claim): (&By, &Claim),
        around: &Around<'_>,
    ) -> Result<(), Lost> {
        let name = host_name(host);
        if let Some((_, ingress)) = ingress_before(&name, entrance, claim, around) {
            return Err(Lost::to_older(named(host), format!("Ingress {ingress}")));
        }
        let name = (entrance, name);
        match self.tls.get(&name) {
            _ if door == Door::Http => return Ok(()),
            Some((other, taken)) if *taken != door => return Err(Lost::to_older(named(host), other.to_string())),
            _ => {}
        }
        match self.passing(&name).filter(|(_, passing)| door.is_led_by_name() && passing.first.1 != *claim) {
            Some((listener, Passing { first: (Reverse(closeness), other), .. })) => {
                let is_closer = *listener == by.listener && *closeness > by.closeness;
                let lost = if is_closer { Lost::to_closer } else { Lost::to_older };
                Err(lost(named(host), other.to_string()))
            }
            None => Ok(()),
        }
    }

    /// Whether a route has a port that it wants.
    ///
    /// # Errors
    /// Somebody older has it.
    pub fn has_port(&self, port: Port, claim: &Claim) -> Result<(), Lost> {
        match self.ports.get(&port) {
            Some(other) if other != claim => Err(Lost::to_older(format!("port {port}"), other.to_string())),
            _ => Ok(()),
        }
    }

    /// Who has each name of a single host first.
    pub fn holders(&self) -> impl Iterator<Item = (String, Holder)> {
        let single = self.names.iter().filter(|(name, _)| is_provable(name));
        single.map(|(name, of)| (name.clone(), Holder { since: of.since, key: of.key.clone(), namespace: of.namespace.clone() }))
    }

    /// The names for which TLS ends here, whether or not a route has them.
    pub fn ends_here(&self) -> impl Iterator<Item = &(Entrance, String)> {
        self.tls.iter().filter(|(_, (_, door))| *door == Door::Https).map(|(name, _)| name)
    }
}

fn oldest<K: Ord>(claims: &mut BTreeMap<K, Claim>, wanted: K, claim: Claim) {
    match claims.entry(wanted) {
        std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(claim)),
        std::collections::btree_map::Entry::Occupied(mut entry) if claim < *entry.get() => drop(entry.insert(claim)),
        std::collections::btree_map::Entry::Occupied(_) => {}
    }
}

/// The older Ingress of another namespace that has a host at the ports of ingress. One of the route's own namespace makes room: that is how people move
/// to routes.
fn ingress_before(host: &str, entrance: Entrance, claim: &Claim, around: &Around<'_>) -> Option<(i64, Key)> {
    let is_before = |ingress: &(i64, Key)| ingress.1.namespace != claim.key.namespace && !claim.is_older(ingress);
    let all = if entrance == Entrance::Ingress { (around.ingresses)(host) } else { Vec::new() };
    all.into_iter().find(is_before)
}

/// The other listener of a Gateway, at the same port, that is the one for a host, and its place: listeners of one Gateway are isolated, so what is for
/// the more specific one goes to its routes alone.
pub fn isolated<'l>(host: &str, own: &Placed<'_>, listed: &'l Listed<'_>) -> Option<(usize, &'l Placed<'l>)> {
    let port = |placed: &Placed<'_>| placed.hosts().map(|(entrance, door)| (entrance, door == Door::Http));
    let has = |other: &Placed<'_>| {
        let name = other.host();
        name.len() > own.host().len() && port(other).is_some() && port(other) == port(own) && covers(&name, host)
    };
    let others = listed.listeners.iter().enumerate().filter(|(_, other)| has(other));
    others.max_by_key(|(_, other)| other.host().len())
}
