//! Statuses of Gateways and their listeners.

use client::Key;
use serde_json::{Value, json};

use super::asked;
use super::certificates::{certificates, orders};
use super::frontend::{self, Asking};
use super::listeners::Listed;
use super::owners::port;
use super::placed::{Placed, is_route, routes};
use super::status::{Kind, condition, generation};
use super::streams::Port;
use super::types::{GROUP, RouteKind};
use super::{Around, Certificates, Entrance, Objects, Plan, created};
use crate::annotations::Problem;
use crate::issuer::Issuer;

/// Nodes, and listeners, whose names a message has.
const NAMED: usize = 8;

/// What there is beside a listener: how many routes it has, and what it asks clients for.
pub(super) type OfPlace<'a, 'f> = &'f dyn Fn(usize) -> (usize, Option<&'a Asking>);

/// What is to be told of the listeners of one resource.
struct Told {
    /// The status of each.
    listeners: Vec<Value>,
    /// Those that are not served, by name.
    bad: Vec<String>,
    /// How many are served at a port that others have on the nodes by which clients reach us.
    taken: usize,
}

/// The status of a Gateway, with `sets` that are attached; none where it has nothing to do with any.
pub(super) fn gateway_status(
    objects: &Objects,
    around: &Around<'_>,
    (key, listed): (&Key, &Listed<'_>),
    (of_place, sets): (OfPlace<'_, '_>, Option<usize>),
    plan: &mut Plan,
) -> Value {
    let gateway = listed.gateway;
    let seen = generation(&gateway.metadata);
    let Told { listeners, bad, taken } = told(objects, around, (key, listed, None), of_place, plan);
    let (reason, why) = if bad.is_empty() { ("Accepted", String::new()) } else { ("ListenersNotValid", not_served(&bad)) };
    // One without listeners of its own is there for its ListenerSets.
    let good = if listeners.is_empty() { 1 } else { listeners.len() - bad.len() };
    let serving = if good > 0 { Ok(()) } else { Err(()) };
    let addresses = asked::addresses(gateway, around);
    let (reached, programmed, unreached) = match (good, good - taken, &addresses) {
        (0, ..) => (Err(()), "Invalid", ""),
        (_, 0, _) => (Err(()), "AddressNotUsable", "others have the ports of all listeners, as their conditions say"),
        (.., Err(why)) => (Err(()), "AddressNotUsable", why.as_str()),
        _ => (Ok(()), "Programmed", ""),
    };
    let addresses = addresses.as_deref().unwrap_or(around.addresses);
    let addresses: Vec<Value> = addresses.iter().map(|address| json!({"type": "IPAddress", "value": address})).collect();
    let mut status = json!({
        "addresses": addresses,
        "conditions": [
            condition("Accepted", serving, reason, &why, seen),
            condition("Programmed", reached, programmed, unreached, seen),
        ],
        "listeners": listeners,
    });
    if let Some(sets) = sets {
        status["attachedListenerSets"] = sets.into();
    }
    if let (true, Some(conditions)) = (frontend::is_insecure(gateway), status["conditions"].as_array_mut()) {
        let message = "clients pass with any certificate, and without one, as spec.tls.frontend says (AllowInsecureFallback)";
        conditions.push(condition("InsecureFrontendValidationMode", Ok(()), "ConfigurationChanged", message, seen));
    }
    status
}

/// The status of a ListenerSet that its Gateway allows, and whether it is accepted.
pub(super) fn set_status(
    objects: &Objects,
    around: &Around<'_>,
    (key, listed, set): (&Key, &Listed<'_>, &Key),
    of_place: OfPlace<'_, '_>,
    plan: &mut Plan,
) -> (Value, bool) {
    let seen = objects.listener_sets.get(set).map_or(0, |set| generation(&set.metadata));
    let Told { listeners, bad, taken } = told(objects, around, (key, listed, Some(set)), of_place, plan);
    let why = if bad.is_empty() { String::new() } else { not_served(&bad) };
    let good = listeners.len() - bad.len();
    let (accepted, programmed) = match (good, good - taken) {
        (0, _) => ((Err(()), "ListenersNotValid"), (Err(()), "ListenersNotValid", why.as_str())),
        (_, 0) => (
            (Ok(()), "Accepted"),
            (Err(()), "PortUnavailable", "others have the ports of all listeners, as their conditions say"),
        ),
        _ if bad.is_empty() => ((Ok(()), "Accepted"), (Ok(()), "Programmed", "")),
        _ => ((Ok(()), "ListenersNotValid"), (Ok(()), "Programmed", "")),
    };
    let conditions = [
        condition("Accepted", accepted.0, accepted.1, &why, seen),
        condition("Programmed", programmed.0, programmed.1, programmed.2, seen),
    ];
    (json!({"conditions": conditions, "listeners": listeners}), accepted.0.is_ok())
}

/// The status of a ListenerSet that is not attached to the Gateway that it names.
pub(super) fn set_refused(generation: i64, reason: &str, message: &str) -> Value {
    let told = |kind| condition(kind, Err(()), reason, message, generation);
    json!({"conditions": [told("Accepted"), told("Programmed")], "listeners": []})
}

fn not_served(bad: &[String]) -> String {
    let named = bad.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if bad.len() > NAMED { format!(" and {} more", bad.len() - NAMED) } else { String::new() };
    format!("not served, as their conditions say: {named}{more}")
}

/// Looks at the listeners of a ListenerSet, or of the Gateway itself.
fn told(
    objects: &Objects,
    around: &Around<'_>,
    (key, listed, set): (&Key, &Listed<'_>, Option<&Key>),
    of_place: OfPlace<'_, '_>,
    plan: &mut Plan,
) -> Told {
    let metadata = match set {
        Some(set) => objects.listener_sets.get(set).map(|set| &set.metadata),
        None => Some(&listed.gateway.metadata),
    };
    let issuer = around.issuers.named(metadata.and_then(|metadata| metadata.annotations.as_ref())).unwrap_or_else(|wrong| {
        let problem = Problem::new(wrong.reason(), format!("{wrong}; no certificate is asked for"));
        let kind = if set.is_some() { Kind::ListenerSet } else { Kind::Gateway };
        plan.problems.push((kind, set.unwrap_or(key).clone(), problem));
        None
    });
    let mut all = Told { listeners: Vec::new(), bad: Vec::new(), taken: 0 };
    for (place, placed) in listed.of(set) {
        let (mut status, good, is_taken) = listener(objects, around, (key, placed), (of_place(place), issuer.as_ref()), plan);
        if let (true, Some(conditions)) = (listed.overlapping.contains(&place), status["conditions"].as_array_mut()) {
            conditions.push(overlapping(placed));
        }
        all.listeners.push(status);
        all.taken += usize::from(is_taken);
        if !good {
            all.bad.push(placed.listener.name.clone());
        }
    }
    all
}

/// The status of one listener, whether it is served, and whether others have its port where clients reach us.
fn listener(
    objects: &Objects,
    around: &Around<'_>,
    (key, placed): (&Key, &Placed<'_>),
    ((attached, asking), issuer): ((usize, Option<&Asking>), Option<&Issuer>),
    plan: &mut Plan,
) -> (Value, bool, bool) {
    let (listener, seen) = (placed.listener, generation(placed.metadata));
    let certificates = certificates(objects, around, placed, &mut plan.secrets);
    plan.orders.extend(issuer.iter().flat_map(|issuer| orders(key, placed, issuer)));
    let (asked, trusted) = asking.map_or((Ok(()), Ok(())), |asking| (asking.resolved.clone(), asking.accepted.clone()));
    let accepted = acceptance(placed, around).and(trusted);
    let entrance = placed.hosts().map_or(Entrance::Ingress, |(entrance, _)| entrance);
    if asking.is_some() && placed.hosts().is_some() {
        plan.asks.insert((entrance, listener.hostname.clone().unwrap_or_default()));
    }
    let good = accepted.is_ok() && certificates.is_ok();
    if let (Ok(secrets), Ok(())) = (&certificates, &accepted) {
        let (host, created) = (listener.hostname.clone().unwrap_or_default(), created(placed.metadata));
        let secrets = secrets.clone();
        plan.tls.extend((!secrets.is_empty()).then_some(Certificates { entrance, host, secrets, created }));
    }
    let told = |result: &Result<(), (&'static str, String)>, kind, good_reason| match result {
        Ok(()) => condition(kind, Ok(()), good_reason, "", seen),
        Err((reason, message)) => condition(kind, Err(()), reason, message, seen),
    };
    let kinds = &listener.allowed_routes.kinds;
    let is_taken = |kind: &RouteKind| routes(listener).any(|route| is_route(kind, route.name()));
    let resolved = match (certificates.map(drop).and(asked), kinds.iter().all(is_taken)) {
        (Ok(()), false) => {
            Err(("InvalidRouteKinds", format!("listeners for {} serve no routes of all these kinds", listener.protocol)))
        }
        (other, _) => other,
    };
    let supported = routes(listener).filter(|route| kinds.is_empty() || kinds.iter().any(|kind| is_route(kind, route.name())));
    let supported: Vec<Value> = supported.map(|route| json!({"group": GROUP, "kind": route.name()})).collect();
    let (programmed, is_taken) = programmed(placed, good, around, seen);
    let of_all = [told(&accepted, "Accepted", "Accepted"), told(&resolved, "ResolvedRefs", "ResolvedRefs"), programmed];
    let conditions: Vec<Value> = of_all.into_iter().chain(conflicted(placed, seen)).collect();
    let status =
        json!({"name": listener.name, "attachedRoutes": attached, "supportedKinds": supported, "conditions": conditions});
    (status, good, is_taken)
}

/// The condition Conflicted of a listener that another one of its Gateway keeps from being accepted.
fn conflicted(placed: &Placed<'_>, seen: i64) -> Option<Value> {
    let refusal = placed.served.as_ref().err()?;
    Some(condition("Conflicted", Ok(()), refusal.conflict?, &refusal.message, seen))
}

/// The condition OverlappingTLSConfig of a listener.
fn overlapping(placed: &Placed<'_>) -> Value {
    let message = "a request for its hosts may come over a connection that was made for another listener at its port";
    condition("OverlappingTLSConfig", Ok(()), "OverlappingHostnames", message, generation(placed.metadata))
}

/// The condition Programmed of a listener, which is served if it is `good`, and whether others have its port where clients reach us.
fn programmed(placed: &Placed<'_>, good: bool, around: &Around<'_>, seen: i64) -> (Value, bool) {
    let own_port = placed.served.as_ref().ok().copied().and_then(port);
    let port = own_port.unwrap_or(Port::tcp(placed.listener.port));
    let (is_taken, elsewhere) = taken(port, around).filter(|_| good).unwrap_or_default();
    let is_waiting = own_port.is_some_and(|port| (around.opened)(port).is_none());
    let conflict = placed.served.as_ref().err().and_then(|refusal| refusal.conflict).filter(|_| placed.set.is_some());
    let unserved = conflict.unwrap_or("Invalid");
    let (holds, reason, message) = match good {
        false => (Err(()), unserved, "the listener is not served"),
        true if is_waiting => (Err(()), "Pending", "the port is being opened"),
        // It has the port when that is given up.
        true if is_taken => (Err(()), "Pending", &*elsewhere),
        true => (Ok(()), "Programmed", &*elsewhere),
    };
    (condition("Programmed", holds, reason, message, seen), is_taken)
}

/// Whether a node by which clients reach us has given a port to others, and which nodes have; none where all is well.
fn taken(port: Port, around: &Around<'_>) -> Option<(bool, String)> {
    let nodes = around.taken.get(&port)?;
    let is_ours = nodes.iter().any(|node| node.is_ours);
    let names: Vec<&str> =
        nodes.iter().filter(|node| node.is_ours == is_ours).map(|node| node.node.as_str()).take(NAMED).collect();
    let (nodes, have) = if names.len() == 1 { ("node", "has") } else { ("nodes", "have") };
    Some((is_ours, format!("{nodes} {} {have} given port {port} to others", names.join(", "))))
}

/// Whether a listener is served; else the reason of its condition Accepted, and what it means.
fn acceptance(placed: &Placed<'_>, around: &Around<'_>) -> Result<(), (&'static str, String)> {
    let served = placed.served.as_ref().map_err(|refusal| (refusal.reason, refusal.message.clone()))?;
    match port(*served).map(|port| (port, (around.opened)(port))) {
        Some((port, Some(Err(why)))) => Err(("PortUnavailable", format!("port {port} cannot be opened: {why}"))),
        _ => Ok(()),
    }
}
