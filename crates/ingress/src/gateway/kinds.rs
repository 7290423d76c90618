//! HTTPRoutes and GRPCRoutes of one listener that have hosts in common: "the implementation MUST accept exactly one of these two routes"
//! (GRPCRouteSpec, hostnames), the older one. Pure.

use std::collections::{BTreeMap, HashMap};

use client::Key;

use super::status::Kind;

/// A route.
type Route<'a> = (Kind, &'a Key);
/// A listener: of a Gateway, at a place.
type Place<'a> = (&'a Key, usize);

/// A route that asks for hosts of a listener.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    pub(super) place: Place<'a>,
    pub(super) route: Route<'a>,
    /// When the route was created, in seconds since 1970.
    pub(super) created: i64,
    /// What it has in common with the listener.
    pub(super) hosts: Vec<&'a str>,
}

/// The routes that a listener does not accept, and the route of the other kind that each has a host in common with.
#[derive(Debug, Default)]
pub(super) struct Rejected<'a>(HashMap<(Place<'a>, Route<'a>), Route<'a>>);

impl<'a> Rejected<'a> {
    /// Among these routes, in any order.
    pub(super) fn among(all: impl Iterator<Item = Asking<'a>>) -> Self {
        let mut listeners: BTreeMap<Place<'_>, Vec<Asking<'_>>> = BTreeMap::new();
        all.for_each(|asking| listeners.entry(asking.place).or_default().push(asking));
        let mut rejected = Self::default();
        for (place, mut routes) in listeners {
            let is_of = |kind: Kind| routes.iter().any(|asking| asking.route.0 == kind);
            if !is_of(Kind::HttpRoute) || !is_of(Kind::GrpcRoute) {
                continue;
            }
            // "The oldest Route based on creation timestamp. The Route appearing first in alphabetical order by {namespace}/{name}."
            routes.sort_by_cached_key(|asking| (asking.created, asking.route.1.to_string()));
            let (mut http, mut grpc) = (Hosts::default(), Hosts::default());
            for Asking { route, hosts, .. } in routes {
                let (own, others) = if route.0 == Kind::HttpRoute { (&mut http, &grpc) } else { (&mut grpc, &http) };
                match hosts.iter().find_map(|host| others.common(host)) {
                    Some(other) => drop(rejected.0.insert((place, route), other)),
                    None => hosts.into_iter().for_each(|host| own.add(host, route)),
                }
            }
        }
        rejected
    }

    /// The route of the other kind for which a listener does not accept this one.
    pub(super) fn other(&self, place: Place<'_>, route: Route<'_>) -> Option<Route<'a>> {
        self.0.get(&(place, route)).copied()
    }
}

/// The hosts that routes of one kind have at a listener.
#[derive(Default)]
struct Hosts<'a> {
    first: Option<Route<'a>>,
    names: HashMap<&'a str, Route<'a>>,
    /// By the ends of names, from each of their dots on: for wildcards.
    ends: HashMap<&'a str, Route<'a>>,
}

impl<'a> Hosts<'a> {
    fn add(&mut self, host: &'a str, route: Route<'a>) {
        self.first.get_or_insert(route);
        self.names.entry(host).or_insert(route);
        for end in ends(host) {
            self.ends.entry(end).or_insert(route);
        }
    }

    /// A route with a host that has something in common with this one, as [`super::attach::covers`] has it.
    fn common(&self, host: &str) -> Option<Route<'a>> {
        if host.is_empty() {
            return self.first;
        }
        let same = ["", host].into_iter().find_map(|name| self.names.get(name));
        let below = || host.strip_prefix('*').and_then(|end| self.ends.get(end));
        let above = || ends(host).find_map(|end| self.names.get(format!("*{end}").as_str()));
        same.or_else(below).or_else(above).copied()
    }
}

fn ends(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').map(|(at, _)| &host[at..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::attach::covers;

    #[test]
    fn hosts_in_common() {
        let key = Key::namespaced("a", "r");
        let names = ["", "*.test", "a.test", "b.test", "*.a.test", "b.a.test", "a.tests", "test", "*.tests", "*.b.a.test"];
        for one in names {
            for other in names {
                let mut hosts = Hosts::default();
                hosts.add(one, (Kind::HttpRoute, &key));
                let expected = one.is_empty() || other.is_empty() || covers(one, other) || covers(other, one);
                assert_eq!(hosts.common(other).is_some(), expected, "{one:?} {other:?}");
            }
        }
        assert!(Hosts::default().common("").is_none());
    }
}
