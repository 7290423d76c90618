//! Which nodes are asked for an image. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

/// Most nodes that are asked about one image.
const ASKED: usize = 8;

/// A node, as others reach its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: Arc<str>,
    pub(super) address: SocketAddr,
}

impl Candidate {
    /// None for a node that is not ready, or does not say where its endpoint is.
    pub(super) fn of(node: &Node) -> Option<Self> {
        let status = node.status.as_ref()?;
        status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
        let port = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
        let internal = status.addresses.iter().flatten().filter(|address| address.type_ == "InternalIP");
        let address: IpAddr = internal.filter_map(|address| address.address.parse().ok()).next()?;
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        Some(Self { name: node.metadata.name.as_deref()?.into(), address: SocketAddr::new(address, port) })
    }
}

/// Whether the node says that it has an image of this name.
fn lists(node: &Node, image: &str) -> bool {
    let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
    images.flat_map(|image| image.names.iter().flatten()).any(|name| name == image)
}

/// The nodes to ask for `image`, those that list it first; among equals the one with the lower `order`. `is_out` names nodes that have failed.
pub(super) fn candidates(
    nodes: &[Arc<Node>],
    (own, image): (&str, &str),
    is_out: impl Fn(&str) -> bool,
    order: impl Fn(&str) -> u64,
) -> Vec<Candidate> {
    let others = nodes.iter().filter_map(|node| Some((!lists(node, image), Candidate::of(node)?)));
    let mut others: Vec<_> = others.filter(|(_, node)| *node.name != *own && !is_out(&node.name)).collect();
    others.sort_by_cached_key(|(is_unlisted, node)| (*is_unlisted, order(&node.name)));
    others.truncate(ASKED);
    others.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, status: Value) -> Arc<Node> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap())
    }

    fn status(ready: &str, addresses: &[(&str, &str)], port: i32, images: &[&str]) -> Value {
        let addresses: Vec<_> = addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
        json!({"conditions": [{"type": "Ready", "status": ready}], "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}, "images": [{"names": images}]})
    }

    #[test]
    fn a_node_is_reached_by_what_it_says_of_itself() {
        let check = |status: Value, expected: Option<&str>| {
            let found = Candidate::of(&node("n2", status)).map(|node| node.address.to_string());
            assert_eq!(found.as_deref(), expected);
        };
        let both = [("Hostname", "n2"), ("InternalIP", "fd00::2"), ("InternalIP", "10.0.0.2")];
        check(status("True", &both, 10250, &[]), Some("[fd00::2]:10250"));
        check(status("False", &both, 10250, &[]), None);
        check(status("Unknown", &both, 10250, &[]), None);
        for port in [0, -1, 70_000] {
            check(status("True", &both, port, &[]), None);
        }
        check(status("True", &[("InternalIP", "x")], 10250, &[]), None);
        check(json!({}), None);
    }

    #[test]
    fn nodes_that_list_the_image_are_asked_first() {
        let of = |number: usize, images: &[&str]| {
            let address = format!("10.0.0.{number}");
            node(&format!("n{number}"), status("True", &[("InternalIP", &address)], 10250, images))
        };
        let mut nodes: Vec<_> = (1..=12).map(|number| of(number, &["docker.io/library/b:1"])).collect();
        nodes[6] = of(7, &["r/x@sha256:1", "docker.io/library/a:1"]);
        nodes[8] = of(9, &["docker.io/library/a:1"]);
        let number = |name: &str| name[1..].parse::<u64>().unwrap();
        let check = |own: &str, out: &[&str], order: &dyn Fn(&str) -> u64, expected: &[&str]| {
            let found = candidates(&nodes, (own, "docker.io/library/a:1"), |name| out.contains(&name), order);
            assert_eq!(found.iter().map(|node| &*node.name).collect::<Vec<_>>(), expected);
        };
        check("n1", &[], &number, &["n7", "n9", "n2", "n3", "n4", "n5", "n6", "n8"]);
        check("n9", &["n2", "n4"], &number, &["n7", "n1", "n3", "n5", "n6", "n8", "n10", "n11"]);
        check("n1", &[], &|name| 100 - number(name), &["n9", "n7", "n12", "n11", "n10", "n8", "n6", "n5"]);
        assert!(candidates(&nodes[..1], ("n1", "a"), |_| false, number).is_empty());
    }
}
