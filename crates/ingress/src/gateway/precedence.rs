//! Who has a host name, or a port for TCP or UDP, that several want. Pure.
//!
//! All Gateways share their ports with each other and with Ingresses, whoever made them, so a name that somebody serves must not go to
//! whoever asks for it later. The most specific name comes first, which the table sees to; of one name the oldest claim does. Over TLS a
//! name is either passed through, by one TLSRoute, or ends here, for any HTTPRoutes: these share it by their paths, as the
//! specification says. A listener claims the name that it has, with the age of its Gateway, and so do the routes that it takes under
//! that name: they may be made anew without losing it.

use std::collections::BTreeMap;
use std::fmt;

use client::Key;

use super::attach::covers;
use super::listeners::serves;
use super::status::Kind;
use super::streams::Port;
use super::types::{Gateway, Listener};
use super::{Around, Door, created};
use crate::compile::host_name;

/// The claim of a listener or a route: the least is the oldest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Seconds of the creation of the listener that has the name itself, else of the route.
    since: i64,
    /// Seconds of its own creation.
    created: i64,
    key: Key,
    kind: Kind,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::Gateway {
            write!(f, "a listener of ")?;
        }
        write!(f, "{} {}", self.kind.name(), self.key)
    }
}

impl Claim {
    /// A Gateway's, for a name or port of a listener.
    fn of_listener(key: &Key, gateway: &Gateway) -> Self {
        let created = created(&gateway.metadata);
        Self { since: created, created, key: key.clone(), kind: Kind::Gateway }
    }

    /// A route's for a host under which a listener takes it, or for a listener's port.
    pub fn of_route(kind: Kind, key: &Key, created: i64, listener: &Listener, host: &str, gateway: &Gateway) -> Self {
        let is_its = listener.hostname.as_deref().unwrap_or_default().eq_ignore_ascii_case(host);
        let of_gateway = super::created(&gateway.metadata);
        let since = if is_its { created.min(of_gateway) } else { created };
        Self { since, created, key: key.clone(), kind }
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

    /// A host that another listener of the same Gateway has.
    pub fn to_listener(host: &str, listener: &Listener) -> Self {
        Self { what: named(host), other: format!("listener {}", listener.name), why: "more specific" }
    }
}

fn named(host: &str) -> String {
    if host.is_empty() { "any host".to_owned() } else { format!("host {host}") }
}

/// The claims that come first.
#[derive(Debug, Default)]
pub struct Claims {
    /// The oldest for a name over TLS, and how it takes connections.
    tls: BTreeMap<String, (Claim, Door)>,
    /// The oldest TLSRoute for a name.
    passing: BTreeMap<String, Claim>,
    /// The oldest route for a port.
    ports: BTreeMap<Port, Claim>,
}

impl Claims {
    /// Those of listeners.
    pub fn of_listeners<'a>(gateways: impl Iterator<Item = (&'a Key, &'a Gateway)>, around: &Around<'_>) -> Self {
        let mut claims = Self::default();
        for (key, gateway) in gateways {
            for (_, listener) in served(gateway, around) {
                let host = host_name(listener.hostname.as_deref().unwrap_or_default());
                if let Some(door) = serves(listener, around) {
                    claims.claim_tls(host, door, &Claim::of_listener(key, gateway));
                }
            }
        }
        claims
    }

    /// A route wants a host.
    pub fn host(&mut self, host: &str, door: Door, claim: &Claim, around: &Around<'_>) {
        let host = host_name(host);
        if ingress_before(&host, claim, around).is_some() {
            return;
        }
        if door == Door::Passthrough {
            oldest(&mut self.passing, host.clone(), claim.clone());
        }
        self.claim_tls(host, door, claim);
    }

    /// A route wants a port.
    pub fn port(&mut self, port: Port, claim: &Claim) {
        oldest(&mut self.ports, port, claim.clone());
    }

    fn claim_tls(&mut self, host: String, door: Door, claim: &Claim) {
        if door != Door::Http && self.tls.get(&host).is_none_or(|(other, _)| claim < other) {
            self.tls.insert(host, (claim.clone(), door));
        }
    }

    /// Whether a route has a host that it wants.
    ///
    /// # Errors
    /// Somebody older has it.
    pub fn has_host(&self, host: &str, door: Door, claim: &Claim, around: &Around<'_>) -> Result<(), Lost> {
        let name = host_name(host);
        if let Some((_, ingress)) = ingress_before(&name, claim, around) {
            return Err(Lost::to_older(named(host), format!("Ingress {ingress}")));
        }
        let other = match self.tls.get(&name) {
            _ if door == Door::Http => None,
            Some((other, taken)) if *taken != door => Some(other),
            _ => self.passing.get(&name).filter(|other| door == Door::Passthrough && *other != claim),
        };
        other.map_or(Ok(()), |other| Err(Lost::to_older(named(host), other.to_string())))
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

    /// The names for which TLS ends here, whether or not a route has them.
    pub fn ends_here(&self) -> impl Iterator<Item = &String> {
        self.tls.iter().filter(|(_, (_, door))| *door == Door::Https).map(|(host, _)| host)
    }
}

fn oldest<K: Ord>(claims: &mut BTreeMap<K, Claim>, wanted: K, claim: Claim) {
    match claims.entry(wanted) {
        std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(claim)),
        std::collections::btree_map::Entry::Occupied(mut entry) if claim < *entry.get() => drop(entry.insert(claim)),
        std::collections::btree_map::Entry::Occupied(_) => {}
    }
}

/// The older Ingress of another namespace that has a host. One of the route's own namespace makes room: that is how people move to routes.
fn ingress_before(host: &str, claim: &Claim, around: &Around<'_>) -> Option<(i64, Key)> {
    let is_before = |ingress: &(i64, Key)| ingress.1.namespace != claim.key.namespace && !claim.is_older(ingress);
    (around.ingresses)(host).into_iter().find(is_before)
}

/// The listeners of a Gateway on the ports of ingress with their places, without those that repeat the host name of another one.
fn served<'a>(gateway: &'a Gateway, around: &'a Around<'_>) -> impl Iterator<Item = (usize, &'a Listener)> {
    let listeners = &gateway.spec.listeners;
    let is_first = |place: usize, one: &Listener| !listeners[..place].iter().any(|other| is_same(other, one));
    listeners.iter().enumerate().filter(move |(place, one)| serves(one, around).is_some() && is_first(*place, one))
}

/// Whether two listeners have the same port and host name.
pub fn is_same(one: &Listener, other: &Listener) -> bool {
    super::streams::port(one).is_none() && (one.port, &one.hostname) == (other.port, &other.hostname)
}

/// The other listener of a Gateway, at the same of the two ports, that is the one for a host, and its place: listeners of one Gateway are isolated,
/// so what is for the more specific one goes to its routes alone.
pub fn isolated<'a>(
    host: &str,
    listener: &Listener,
    gateway: &'a Gateway,
    around: &'a Around<'_>,
) -> Option<(usize, &'a Listener)> {
    let length = |listener: &Listener| listener.hostname.as_deref().map_or(0, str::len);
    let is_plain = serves(listener, around) == Some(Door::Http);
    let has = |other: &Listener| {
        let name = other.hostname.as_deref().unwrap_or_default().to_ascii_lowercase();
        (serves(other, around) == Some(Door::Http)) == is_plain && length(other) > length(listener) && covers(&name, host)
    };
    served(gateway, around).filter(|(_, other)| has(other)).max_by_key(|(_, other)| length(other))
}
