//! Which listeners a route is attached to, and under which hosts. Pure.

use std::collections::BTreeMap;

use apimachinery::labels::Selector;

use super::placed::{Placed, is_route, takes};
use super::types::{AllowedRoutes, HttpRoute, Listener, ObjectRef, RouteNamespaces};

/// Why a parent does not take a route: the reason of its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    NoMatchingParent,
    NotAllowedByListeners,
    NoMatchingListenerHostname,
}

impl Refusal {
    /// The reason of the condition Accepted, and what it means.
    pub fn reason(self) -> (&'static str, &'static str) {
        match self {
            Self::NoMatchingParent => ("NoMatchingParent", "no listener has this name and port"),
            Self::NotAllowedByListeners => {
                ("NotAllowedByListeners", "no listener allows routes of this kind from this namespace")
            }
            Self::NoMatchingListenerHostname => ("NoMatchingListenerHostname", "no listener has one of these host names"),
        }
    }
}

/// Of these listeners, the ones of a parent with their places, those that take a route by this reference, each by its place and with the hosts that
/// both have.
///
/// # Errors
/// None does.
pub fn attach<'p>(
    listeners: impl Iterator<Item = (usize, &'p Placed<'p>)>,
    (kind, route): (&str, &HttpRoute),
    parent: &ObjectRef,
    labels: &Labels<'_>,
) -> Result<Vec<(usize, Vec<String>)>, Refusal> {
    let named = |listener: &Listener| {
        parent.section_name.as_ref().is_none_or(|name| *name == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let mut refusal = Refusal::NoMatchingParent;
    let mut found = Vec::new();
    for (place, placed) in listeners.filter(|(_, placed)| named(placed.listener)) {
        let listener = placed.listener;
        if !takes(listener, kind) || !allows(&listener.allowed_routes, kind, placed.namespace(), route.namespace(), labels) {
            refusal = refusal.max(Refusal::NotAllowedByListeners);
            continue;
        }
        let hosts = common_hosts(listener.hostname.as_deref().unwrap_or_default(), &route.spec.hostnames);
        if hosts.is_empty() {
            refusal = Refusal::NoMatchingListenerHostname;
            continue;
        }
        found.push((place, hosts));
    }
    if found.is_empty() { Err(refusal) } else { Ok(found) }
}

/// The labels of a namespace.
pub type Labels<'a> = dyn Fn(&str) -> Option<BTreeMap<String, String>> + 'a;

/// Whether a listener takes routes of a kind from a namespace.
fn allows(allowed: &AllowedRoutes, kind: &str, own_namespace: &str, namespace: &str, labels: &Labels<'_>) -> bool {
    let kinds = &allowed.kinds;
    (kinds.is_empty() || kinds.iter().any(|one| is_route(one, kind)))
        && selects(&allowed.namespaces, own_namespace, namespace, labels)
}

/// Whether a namespace is one of those that are named; only one's own where nothing is said.
pub(super) fn selects(namespaces: &RouteNamespaces, own: &str, namespace: &str, labels: &Labels<'_>) -> bool {
    match namespaces.from.as_deref() {
        None | Some("Same") => namespace == own,
        Some("All") => true,
        Some("Selector") => {
            let selector = Selector::from_label_selector(namespaces.selector.as_ref());
            selector.ok().zip(labels(namespace)).is_some_and(|(selector, labels)| selector.matches(&labels))
        }
        Some(_) => false,
    }
}

/// The hosts that a listener and a route have in common; an empty text is any host. Without hosts a route takes the listener's.
pub fn common_hosts(listener: &str, route: &[String]) -> Vec<String> {
    let listener = listener.to_ascii_lowercase();
    if route.is_empty() {
        return vec![listener];
    }
    let common = |host: &String| {
        let host = host.to_ascii_lowercase();
        if listener.is_empty() || covers(&listener, &host) {
            Some(host)
        } else {
            covers(&host, &listener).then(|| listener.clone())
        }
    };
    let mut hosts: Vec<String> = route.iter().filter_map(common).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// How closely a route names a host: "Characters in a matching non-wildcard hostname", and "Characters in a matching hostname" (HTTPRouteSpec, hostnames).
pub type Closeness = (usize, usize);

/// How closely a route with these names means a host that it has in common with a listener. "Implementations SHOULD evaluate precedence using the original hostnames
/// configured on the Route, not the calculated Listener/Route hostname intersection"; one without names has the listener's.
pub fn closeness(names: &[String], host: &str) -> Closeness {
    let of = |name: &str| (if name.starts_with('*') { 0 } else { name.len() }, name.len());
    let names = names.iter().map(|name| name.to_ascii_lowercase()).filter(|name| covers(name, host));
    names.map(|name| of(&name)).max().unwrap_or_else(|| of(host))
}

/// Whether a host name is another one, or a wildcard that stands for it: for one label or more.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        _ if pattern == host => true,
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gateway::placed::Served;
    use crate::gateway::{Door, Entrance};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::{Value, json};

    #[test]
    fn hosts() {
        let check = |listener: &str, route: &[&str], expected: &[&str]| {
            let route: Vec<String> = route.iter().map(|host| (*host).to_owned()).collect();
            assert_eq!(common_hosts(listener, &route), expected, "{listener} {route:?}");
        };
        check("", &[], &[""]);
        check("", &["a.example"], &["a.example"]);
        check("a.example", &[], &["a.example"]);
        check("a.example", &["A.example", "b.example"], &["a.example"]);
        check("*.example", &["a.example", "x.y.example", "example"], &["a.example", "x.y.example"]);
        check("a.example", &["*.example"], &["a.example"]);
        check("*.a.example", &["*.example"], &["*.a.example"]);
        check("*.example", &["*.a.example"], &["*.a.example"]);
        check("*.b.test", &["*.example"], &[]);
    }

    #[test]
    fn how_closely_hosts_are_named() {
        let check = |names: &[&str], host: &str, expected: Closeness| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(closeness(&names, host), expected, "{names:?} {host}");
        };
        check(&["abc.example"], "abc.example", (11, 11));
        check(&["*.example"], "abc.example", (0, 9));
        check(&["*.example", "ABC.example", "other.example"], "abc.example", (11, 11));
        check(&["*.com", "*.example.com"], "*.example.com", (0, 13));
        check(&["*.com"], "*.example.com", (0, 5));
        check(&[], "abc.example", (11, 11));
        check(&[], "", (0, 0));
    }

    #[test]
    fn listeners() {
        let check = |listener: Value, parent: Value, namespace: &str, expected: Result<usize, Refusal>| {
            let listeners: Vec<Listener> = vec![serde_json::from_value(listener).unwrap()];
            let route = json!({"metadata": {"namespace": namespace, "name": "r"}, "spec": {"hostnames": ["a.example"]}});
            let route: HttpRoute = serde_json::from_value(route).unwrap();
            let parent: ObjectRef = serde_json::from_value(parent).unwrap();
            let labels = |name: &str| Some(BTreeMap::from([("team".to_owned(), name.to_owned())]));
            let metadata = ObjectMeta { namespace: Some("infra".to_owned()), ..ObjectMeta::default() };
            let served = Ok(Served::Hosts(Entrance::Ingress, Door::Http));
            let placed = Placed { listener: &listeners[0], set: None, metadata: &metadata, served };
            let found = attach([(0, &placed)].into_iter(), ("HTTPRoute", &route), &parent, &labels).map(|found| found.len());
            assert_eq!(found, expected, "{listeners:?} {parent:?} {namespace}");
        };
        let listener = |allowed: Value| json!({"name": "web", "port": 80, "protocol": "HTTP", "allowedRoutes": allowed});
        let all = listener(json!({"namespaces": {"from": "All"}}));
        check(all.clone(), json!({"name": "g"}), "a", Ok(1));
        check(all.clone(), json!({"name": "g", "sectionName": "web", "port": 80}), "a", Ok(1));
        check(all.clone(), json!({"name": "g", "sectionName": "other"}), "a", Err(Refusal::NoMatchingParent));
        check(all, json!({"name": "g", "port": 81}), "a", Err(Refusal::NoMatchingParent));
        check(listener(json!({})), json!({"name": "g"}), "a", Err(Refusal::NotAllowedByListeners));
        check(listener(json!({})), json!({"name": "g"}), "infra", Ok(1));
        let selector =
            |team: &str| listener(json!({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": team}}}}));
        check(selector("a"), json!({"name": "g"}), "a", Ok(1));
        check(selector("b"), json!({"name": "g"}), "a", Err(Refusal::NotAllowedByListeners));
        check(
            listener(json!({"kinds": [{"kind": "GRPCRoute"}]})),
            json!({"name": "g"}),
            "infra",
            Err(Refusal::NotAllowedByListeners),
        );
        let mut other = listener(json!({}));
        other["hostname"] = json!("b.example");
        check(other, json!({"name": "g"}), "infra", Err(Refusal::NoMatchingListenerHostname));
    }
}
