//! Listeners of one Gateway that are not distinct: what comes to their port could be for each of them. Pure.
//!
//! "The implementation MUST NOT pick one conflicting Listener as the winner. ALL indistinct Listeners must not be accepted for processing" holds for
//! the listeners of one resource (GatewaySpec). Between a Gateway and its ListenerSets "the first Listener on the precedence list MUST be accepted"
//! (GEP-1713). A listener that is refused because of its neighbours keeps its place from later resources all the same: what its owner has still
//! to set right is not for others to take.

use super::Around;
use super::placed::Placed;
use super::types::Listener;

/// Why a listener is not distinct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The reason of the condition Conflicted.
    pub(super) reason: &'static str,
    /// The listener of the same resource that it is not distinct from; none where it is another resource's.
    pub(super) other: Option<String>,
}

/// The listeners that are not accepted, by their places in a list of which resources with precedence come first.
pub(super) fn conflicts(listeners: &[Placed<'_>], around: &Around<'_>) -> Vec<(usize, Conflict)> {
    let all: Vec<Option<Traffic<'_>>> = listeners.iter().map(|placed| Traffic::of(placed.listener, around)).collect();
    let reason =
        |one: usize, other: usize| all[one].as_ref().zip(all[other].as_ref()).and_then(|(one, other)| one.conflict(other));
    let (mut found, mut holding): (Vec<(usize, Conflict)>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut first = 0;
    for resource in listeners.chunk_by(|one, next| one.set == next.set) {
        let mut rest = Vec::new();
        for place in first..first + resource.len() {
            match holding.iter().find_map(|other| reason(*other, place)) {
                Some(reason) => found.push((place, Conflict { reason, other: None })),
                None => rest.push(place),
            }
        }
        for place in &rest {
            let conflict = rest.iter().filter(|other| *other != place).find_map(|other| Some((reason(*other, *place)?, *other)));
            let named = |(reason, other): (_, usize)| Conflict { reason, other: Some(listeners[other].listener.name.clone()) };
            found.extend(conflict.map(|conflict| (*place, named(conflict))));
        }
        holding.extend(rest);
        first += resource.len();
    }
    found
}

/// What comes to a listener, as far as it sets it apart from others.
struct Traffic<'a> {
    port: u16,
    kind: Kind,
    protocol: &'a str,
    host: String,
    /// The port is one of ingress: these are two, whatever their numbers are.
    is_of_ingress: bool,
}

/// What connections of listeners have in common at their port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Secured,
    Tcp,
    Udp,
}

impl<'a> Traffic<'a> {
    /// None where the protocol says nothing of it.
    fn of(listener: &'a Listener, around: &Around<'_>) -> Option<Self> {
        let (kind, web) = match listener.protocol.as_str() {
            "HTTP" => (Kind::Plain, Some(around.http_port)),
            "HTTPS" | "TLS" => (Kind::Secured, Some(around.https_port)),
            "TCP" => (Kind::Tcp, None),
            "UDP" => (Kind::Udp, None),
            _ => return None,
        };
        let host = listener.hostname.as_deref().unwrap_or_default().to_ascii_lowercase();
        let (port, is_of_ingress) = (listener.port, web == Some(listener.port));
        Some(Self { port, kind, protocol: &listener.protocol, host, is_of_ingress })
    }

    /// The reason of the condition Conflicted of two that are not distinct: "HTTP, HTTPS, TLS: Port, Hostname; TCP, UDP: Port", and a port for TCP is
    /// for nothing else. Plain HTTP and TLS have no port together, either; HTTPS and TLS may, with other hosts.
    fn conflict(&self, other: &Self) -> Option<&'static str> {
        let are_apart = self.is_of_ingress && other.is_of_ingress && self.kind != other.kind;
        if self.port != other.port || are_apart || (self.kind == Kind::Udp) != (other.kind == Kind::Udp) {
            return None;
        }
        match self.kind {
            kind if kind != other.kind => Some("ProtocolConflict"),
            Kind::Tcp | Kind::Udp => Some("ListenerConflict"),
            _ if self.host != other.host => None,
            _ if self.protocol != other.protocol => Some("ProtocolConflict"),
            _ => Some("HostnameConflict"),
        }
    }
}
