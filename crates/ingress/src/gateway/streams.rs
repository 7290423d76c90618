//! Listeners for TCP and UDP: each has a port for itself, and all that comes to it goes to one route. Pure.

use std::collections::BTreeMap;
use std::fmt;

use client::Key;

use super::types::{Gateway, Listener};
use super::{Around, by_age};

/// Ports that are served at once: each is a socket, or several.
const MOST: usize = 1024;

/// How what comes to a port is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
}

/// A port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    pub transport: Transport,
    pub number: u16,
}

impl Transport {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl Port {
    /// A port of TCP.
    pub fn tcp(number: u16) -> Self {
        Self { transport: Transport::Tcp, number }
    }

    /// A port of UDP.
    pub fn udp(number: u16) -> Self {
        Self { transport: Transport::Udp, number }
    }

    /// A port of one of both, by the name of the protocol in the API.
    pub fn named(protocol: &str, number: u16) -> Option<Self> {
        match protocol {
            "TCP" => Some(Self::tcp(number)),
            "UDP" => Some(Self::udp(number)),
            _ => None,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.transport.name())
    }
}

/// The listener that has a port: its Gateway, and its place there.
pub type Owners<'a> = BTreeMap<Port, (&'a Key, usize)>;

/// The port of a listener for TCP or UDP.
pub fn port(listener: &Listener) -> Option<Port> {
    Port::named(&listener.protocol, listener.port)
}

/// Says who has which port: the oldest Gateway that asks for it.
pub fn owners<'a>(gateways: &BTreeMap<&'a Key, &'a Gateway>, around: &Around<'_>) -> Owners<'a> {
    let is_given = |port: &Port| !around.reserved.contains(port) && !around.balancers.contains_key(port);
    let mut owners = Owners::new();
    for (key, gateway) in by_age(gateways) {
        for (place, listener) in gateway.spec.listeners.iter().enumerate() {
            if let Some(port) = port(listener).filter(|port| owners.len() < MOST && is_given(port)) {
                owners.entry(port).or_insert((key, place));
            }
        }
    }
    owners
}

/// Whether a listener is served at its port; else the reason of its condition, and what it means.
pub fn acceptance(
    gateway: &Key,
    place: usize,
    port: Port,
    owners: &Owners<'_>,
    around: &Around<'_>,
) -> Result<(), (&'static str, String)> {
    let why = match owners.get(&port) {
        _ if around.reserved.contains(&port) => format!("port {port} is the node's own"),
        _ if around.balancers.contains_key(&port) => format!("port {port} is one of Service {}", around.balancers[&port]),
        Some(owner) if *owner == (gateway, place) => match (around.opened)(port) {
            Some(Err(why)) => format!("port {port} cannot be opened: {why}"),
            _ => return Ok(()),
        },
        Some((other, _)) if *other == gateway => format!("port {port} is one of another listener of this Gateway"),
        Some((other, _)) => format!("port {port} is one of Gateway {other}"),
        None => format!("{MOST} ports are served already"),
    };
    Err(("PortUnavailable", why))
}
