//! Statuses of Gateways and their listeners.

use client::Key;
use serde_json::{Value, json};

use super::asked;
use super::certificates::{certificates, orders};
use super::frontend::Asking;
use super::listeners::{is_route, routes, serves};
use super::precedence::is_same;
use super::status::{condition, generation};
use super::streams::{self, Owners, Port};
use super::types::{GROUP, Gateway, Listener, RouteKind};
use super::{Around, Certificate, Objects, Plan, created};
use crate::annotations::Problem;

/// Nodes whose names a message has.
const NAMED: usize = 8;

/// The status of a Gateway. `of_place` says how many routes a listener has, by its place, and what it asks clients for.
pub(super) fn gateway_status<'a>(
    objects: &Objects,
    around: &Around<'_>,
    (gateway, owners): (&Gateway, &Owners<'_>),
    of_place: &dyn Fn(usize) -> (usize, Option<&'a Asking>),
    plan: &mut Plan,
) -> Value {
    let seen = generation(&gateway.metadata);
    let mut listeners = Vec::new();
    let (mut good_ones, mut taken_ones) = (0, 0);
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
        good_ones += usize::from(good);
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
        let (programmed, is_taken) = programmed(listener, good, around, seen);
        taken_ones += usize::from(is_taken);
        let of_all = [told(&accepted, "Accepted", "Accepted"), told(&resolved, "ResolvedRefs", "ResolvedRefs"), programmed];
        let conditions: Vec<Value> = of_all.into_iter().chain(conflicted(&accepted, seen)).collect();
        listeners.push(json!({
            "name": listener.name,
            "attachedRoutes": attached,
            "supportedKinds": supported,
            "conditions": conditions,
        }));
    }
    let all = good_ones == gateway.spec.listeners.len();
    let accepted = if all { ("Accepted", "") } else { ("ListenersNotValid", "some listeners are not served") };
    let serving = if good_ones > 0 { Ok(()) } else { Err(()) };
    let addresses = asked::addresses(gateway, around);
    let (reached, programmed, why) = match (good_ones, good_ones - taken_ones, &addresses) {
        (0, ..) => (Err(()), "Invalid", ""),
        (_, 0, _) => (Err(()), "AddressNotUsable", "others have the ports of all listeners, as their conditions say"),
        (.., Err(why)) => (Err(()), "AddressNotUsable", why.as_str()),
        _ => (Ok(()), "Programmed", ""),
    };
    let addresses = addresses.as_deref().unwrap_or(around.addresses);
    let addresses: Vec<Value> = addresses.iter().map(|address| json!({"type": "IPAddress", "value": address})).collect();
    json!({
        "addresses": addresses,
        "conditions": [
            condition("Accepted", serving, accepted.0, accepted.1, seen),
            condition("Programmed", reached, programmed, why, seen),
        ],
        "listeners": listeners,
    })
}

/// The condition Conflicted of a listener that another one of its Gateway keeps from being accepted.
fn conflicted(accepted: &Result<(), (&'static str, String)>, seen: i64) -> Option<Value> {
    let (reason, message) = accepted.as_ref().err()?;
    matches!(*reason, "HostnameConflict" | "ProtocolConflict").then(|| condition("Conflicted", Ok(()), reason, message, seen))
}

/// The condition Programmed of a listener, which is served if it is `good`, and whether others have its port where clients reach us.
fn programmed(listener: &Listener, good: bool, around: &Around<'_>, seen: i64) -> (Value, bool) {
    let own_port = streams::port(listener);
    let (is_taken, elsewhere) = taken(own_port.unwrap_or(Port::tcp(listener.port)), around).filter(|_| good).unwrap_or_default();
    let is_waiting = own_port.is_some_and(|port| (around.opened)(port).is_none());
    let (holds, reason, message) = match good {
        false => (Err(()), "Invalid", "the listener is not served"),
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
fn acceptance(gateway: &Gateway, place: usize, around: &Around<'_>, owners: &Owners<'_>) -> Result<(), (&'static str, String)> {
    let listener = &gateway.spec.listeners[place];
    if let Some(port) = streams::port(listener) {
        return streams::acceptance(&Key::namespaced(gateway.namespace(), gateway.name()), place, port, owners, around);
    }
    if let Some(other) = gateway.spec.listeners[..place].iter().find(|other| is_same(other, listener)) {
        let reason = if other.protocol == listener.protocol { "HostnameConflict" } else { "ProtocolConflict" };
        return Err((reason, format!("listener {} has this port and host name", other.name)));
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
