//! Listeners: which routes they take by their protocol, and by which door their connections come.

use super::status::Kind;
use super::types::{GROUP, Listener, RouteKind};
use super::{Around, Door};

/// The kinds of routes that are served.
const ROUTES: [Kind; 5] = [Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute, Kind::UdpRoute];

/// Whether this is the kind of routes.
pub(super) fn is_route(kind: &RouteKind, route: &str) -> bool {
    kind.kind == route && kind.group.as_deref().is_none_or(|group| group == GROUP)
}

/// Whether a listener takes routes of this kind, by its protocol.
pub(super) fn takes(listener: &Listener, route: &str) -> bool {
    match route {
        "TLSRoute" => listener.protocol == "TLS",
        "TCPRoute" => listener.protocol == "TCP",
        "UDPRoute" => listener.protocol == "UDP",
        _ => matches!(listener.protocol.as_str(), "HTTP" | "HTTPS"),
    }
}

/// The kinds of routes that a listener takes.
pub(super) fn routes(listener: &Listener) -> impl Iterator<Item = &'static Kind> {
    ROUTES.iter().filter(|route| takes(listener, route.name()))
}

/// Whether a listener is served, and how.
pub(super) fn serves(listener: &Listener, around: &Around<'_>) -> Option<Door> {
    let mode = listener.tls.as_ref().map(|tls| tls.mode.as_deref().unwrap_or("Terminate"));
    let (port, door) = match (listener.protocol.as_str(), mode) {
        ("HTTP", _) => (around.http_port, Door::Http),
        ("HTTPS", Some("Terminate")) => (around.https_port, Door::Https),
        ("TLS", Some("Passthrough")) => (around.https_port, Door::Passthrough),
        _ => return None,
    };
    (listener.port == port).then_some(door)
}
