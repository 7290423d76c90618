//! A listener in its place: whose it is, which routes it takes by its protocol, whether and how it is served. Pure.

use client::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::status::Kind;
use super::streams::Port;
use super::types::{GROUP, Listener, RouteKind};
use super::{Door, Entrance};
use crate::compile::host_name;

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

/// Whether TLS of a listener ends here: then it has certificates.
pub(super) fn ends_tls(listener: &Listener) -> bool {
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref());
    listener.protocol == "HTTPS" || (listener.protocol == "TLS" && mode.is_none_or(|mode| mode == "Terminate"))
}

/// The kinds of routes that a listener takes.
pub(super) fn routes(listener: &Listener) -> impl Iterator<Item = &'static Kind> {
    ROUTES.iter().filter(|route| takes(listener, route.name()))
}

/// How connections of a listener come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// With hosts, which others may have at the same port.
    Hosts(Entrance, Door),
    /// All that comes to a port.
    Stream(Port),
}

/// Why a listener is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason of the condition Accepted.
    pub reason: &'static str,
    /// What it means.
    pub message: String,
    /// The reason of the condition Conflicted, where another listener is in the way.
    pub conflict: Option<&'static str>,
}

/// A listener of a Gateway.
#[derive(Debug)]
pub struct Placed<'a> {
    pub listener: &'a Listener,
    /// The ListenerSet that has it; none where the Gateway itself does.
    pub set: Option<&'a Key>,
    /// Of the one that has it.
    pub metadata: &'a ObjectMeta,
    /// Whether and how it is served.
    pub served: Result<Served, Refusal>,
}

impl Placed<'_> {
    /// Namespace of the one that has it.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The kind of the one that has it.
    pub fn kind(&self) -> Kind {
        if self.set.is_some() { Kind::ListenerSet } else { Kind::Gateway }
    }

    /// Where its connections come and how, if they have hosts.
    pub fn hosts(&self) -> Option<(Entrance, Door)> {
        match self.served {
            Ok(Served::Hosts(entrance, door)) => Some((entrance, door)),
            _ => None,
        }
    }

    /// Its host name in small letters; empty for any.
    pub fn host(&self) -> String {
        self.listener.hostname.as_deref().unwrap_or_default().to_ascii_lowercase()
    }

    /// Where its connections over TLS come, and their host, named as in [`host_name`].
    pub fn over_tls(&self) -> Option<(Entrance, String)> {
        let (entrance, door) = self.hosts()?;
        (door != Door::Http).then(|| (entrance, host_name(&self.host())))
    }
}
