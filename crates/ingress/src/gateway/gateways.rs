//! Statuses of Gateways and their listeners.

use std::collections::BTreeSet;

use client::Key;
use serde_json::{Value, json};

use super::certificates::{certificates, orders};
use super::frontend::Asking;
use super::listeners::{is_route, routes, serves};
use super::precedence::is_same;
use super::status::{condition, generation};
use super::streams::{self, Owners};
use super::types::{GROUP, Gateway, RouteKind};
use super::{Around, Certificate, Objects, Plan, created};
use crate::annotations::Problem;

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

/// Whether a listener is served; else the reason of its condition Accepted, and what it means.
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
