//! What a node tells of its ports: those that load balancers, or external addresses that are the node's own, ask for and that somebody else has
//! there, be it a program, a host port, a node port or an external address. It stands in an annotation of the Node, which only the node itself
//! writes; the load balancer controller and the other nodes read it.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::core::v1::Node;

use crate::Key;

/// The annotation.
pub const TAKEN_PORTS: &str = "knarr.io/taken-ports";

/// A port that a load balancer or an external address has not got on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TakenPort {
    /// The Service.
    pub service: Key,
    /// The port, with its protocol as the API names it.
    pub port: (i32, String),
}

impl fmt::Display for TakenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, protocol) = &self.port;
        write!(f, "{}/{}:{number}/{protocol}", self.service.ns(), self.service.name)
    }
}

impl TakenPort {
    fn parse(text: &str) -> Option<Self> {
        let (service, port) = text.split_once(':')?;
        let ((namespace, name), (number, protocol)) = (service.split_once('/')?, port.split_once('/')?);
        Some(Self { service: Key::namespaced(namespace, name), port: (number.parse().ok()?, protocol.to_owned()) })
    }

    /// What a node tells.
    pub fn told(node: &Node) -> BTreeSet<Self> {
        let text = node.metadata.annotations.as_ref().and_then(|all| all.get(TAKEN_PORTS));
        text.into_iter().flat_map(|text| text.split(',')).filter_map(Self::parse).collect()
    }

    /// The value of the annotation; none where there is nothing to tell.
    pub fn text(all: &BTreeSet<Self>) -> Option<String> {
        (!all.is_empty()).then(|| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let port =
            |name, number, protocol: &str| TakenPort { service: Key::namespaced("a", name), port: (number, protocol.to_owned()) };
        let all: BTreeSet<TakenPort> = [port("web", 80, "TCP"), port("dns", 53, "UDP")].into();
        assert_eq!(TakenPort::text(&all).unwrap(), "a/dns:53/UDP,a/web:80/TCP");
        assert_eq!(TakenPort::text(&BTreeSet::new()), None);
        let mut node = Node::default();
        assert_eq!(TakenPort::told(&node), BTreeSet::new());
        node.metadata.annotations = Some([(TAKEN_PORTS.to_owned(), format!("x,{}", TakenPort::text(&all).unwrap()))].into());
        assert_eq!(TakenPort::told(&node), all);
    }
}
