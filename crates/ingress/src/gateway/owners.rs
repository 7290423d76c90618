//! Which listener has a port of the node, of all Gateways. Pure.

use std::collections::BTreeMap;

use client::Key;

use super::placed::{Refusal, Served};
use super::streams::{Carries, MOST, OF_NAMESPACE, Port};
use super::types::Listener;
use super::{Around, Entrance};

/// The listener that has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Its Gateway.
    pub gateway: &'a Key,
    /// Its place there.
    pub place: usize,
    /// Seconds of the creation of the one that has it.
    pub created: i64,
    /// What the port is for.
    pub carries: Carries,
}

/// The listeners that have ports, beside the two of ingress.
pub type Owners<'a> = BTreeMap<Port, Owner<'a>>;

/// How a listener is served at its port.
///
/// # Errors
/// Somebody else has it.
pub fn keeps(
    gateway: &Key,
    place: usize,
    listener: &Listener,
    served: Served,
    owners: &Owners<'_>,
    around: &Around<'_>,
) -> Result<Served, Refusal> {
    let (port, carries) = match served {
        Served::Hosts(Entrance::Ingress, _) => return Ok(served),
        Served::Hosts(_, door) => (Port::tcp(listener.port), Carries::of(door)),
        Served::Stream(port) => (port, Carries::Stream),
    };
    let web = [(around.http_port, "HTTP"), (around.https_port, "HTTPS and TLS")];
    let web = web.iter().find(|(number, _)| Port::tcp(*number) == port && carries != Carries::Stream);
    let message = match owners.get(&port) {
        _ if let Some((_, others)) = web => format!("port {port} is for {others}"),
        _ if around.reserved.contains(&port) => format!("port {port} is the node's own"),
        _ if around.balancers.contains_key(&port) => format!("port {port} is one of Service {}", around.balancers[&port]),
        Some(owner) if (owner.gateway, owner.place) == (gateway, place) => return Ok(served),
        Some(owner) if carries != Carries::Stream && owner.carries == carries => return Ok(served),
        Some(Owner { gateway: other, carries: Carries::Stream, .. }) => format!("port {port} is one of Gateway {other}"),
        Some(Owner { gateway: other, carries, .. }) => format!("port {port} is one of Gateway {other}, for {carries}"),
        None => format!("{MOST} ports are served already, or {OF_NAMESPACE} of them for this namespace"),
    };
    Err(Refusal { reason: "PortUnavailable", message, conflict: None })
}

/// The port that a listener has beside the two of ingress.
pub fn port(served: Served) -> Option<Port> {
    match served {
        Served::Hosts(Entrance::Ingress, _) => None,
        Served::Hosts(Entrance::Port(number), _) => Some(Port::tcp(number)),
        Served::Stream(port) => Some(port),
    }
}
