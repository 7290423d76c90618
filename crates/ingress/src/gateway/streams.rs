//! Ports of listeners: those for TCP and UDP have one for themselves, and all that comes to it goes to one route; those for HTTP, HTTPS and TLS share
//! it with others that are for the same. Pure.

use std::collections::BTreeMap;
use std::fmt;

use client::Key;

use super::listeners::{Refusal, Served};
use super::types::Listener;
use super::{Around, Door, Entrance};

/// Ports that are served at once: each is a socket, or several.
pub const MOST: usize = 1024;

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

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carries {
    /// Plain HTTP.
    Http,
    /// TLS, which ends here or is passed through.
    Tls,
    /// Anything, to one route.
    Stream,
}

impl Carries {
    /// What a port is for at which connections come by this door.
    pub fn of(door: Door) -> Self {
        if door == Door::Http { Self::Http } else { Self::Tls }
    }
}

impl fmt::Display for Carries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "HTTPS and TLS",
            Self::Stream => "a listener of its own",
        })
    }
}

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
        None => format!("{MOST} ports are served already"),
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
