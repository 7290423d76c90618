//! Which addresses are believed to be a node's.
//!
//! A node writes its addresses itself, and others go by them: what listens there is kept from Services, and load balancers are served there. So a node has few, none
//! that can be nobody's alone or that is inside the cluster, and none that an older node has: the word of one node takes nothing from all.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use base::addresses::is_special;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Addresses of one family and one kind that a node may have; the further ones are left out.
pub const MOST: usize = 4;

/// What sort of address a node says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `InternalIP`
    Internal,
    /// `ExternalIP`
    External,
}

/// Orders nodes, the oldest first. A node does not say itself when it was made.
pub fn age(node: &Node) -> (Option<&Time>, Option<&str>) {
    (node.metadata.creation_timestamp.as_ref(), node.metadata.name.as_deref())
}

/// The addresses that a node says to have, as far as one node can have them. Internal ones come first: by them the node is reached, and no number of external ones
/// takes their place.
pub fn told(node: &Node) -> Vec<(Kind, IpAddr)> {
    let mut found: Vec<(Kind, IpAddr)> = Vec::new();
    for (kind, name) in [(Kind::Internal, "InternalIP"), (Kind::External, "ExternalIP")] {
        let told = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        for one in told.filter(|one| one.type_ == name) {
            let Ok(address) = one.address.parse::<IpAddr>() else { continue };
            let address = address.to_canonical();
            let alike = |(of, other): &&(Kind, IpAddr)| *of == kind && other.is_ipv4() == address.is_ipv4();
            let is_known = found.iter().any(|(_, other)| *other == address);
            if !is_special(address) && !is_known && found.iter().filter(alike).count() < MOST {
                found.push((kind, address));
            }
        }
    }
    found
}

/// The addresses of each of a cluster's nodes, by name: none that is `inside` the cluster, as those of pods and services are, and none that an older node has. The node `own`
/// is the oldest, and those that are not ready are the youngest: a machine that has another name now may have left its old Node behind.
pub fn believed<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    own: Option<&str>,
    inside: impl Fn(&IpAddr) -> bool,
) -> HashMap<&'a str, Vec<(Kind, IpAddr)>> {
    let mut nodes: Vec<&Node> = nodes.into_iter().collect();
    let is_other = |node: &Node| own.is_none() || node.metadata.name.as_deref() != own;
    let rank = |node| (is_other(node), is_away(node));
    nodes.sort_by(|one, other| (rank(one), age(one)).cmp(&(rank(other), age(other))));
    let mut taken = HashSet::new();
    let mut believed = HashMap::new();
    for node in nodes {
        let mut addresses = told(node);
        addresses.retain(|(_, address)| !inside(address) && taken.insert(*address));
        believed.insert(node.metadata.name.as_deref().unwrap_or_default(), addresses);
    }
    believed
}

/// Whether a node is said to be anything but ready.
fn is_away(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status != "True")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    /// A node that was made in this second. Addresses that begin with `+` are external.
    fn node(second: u8, name: &str, addresses: &[&str]) -> Node {
        let address = |text: &&str| match text.strip_prefix('+') {
            Some(external) => json!({"type": "ExternalIP", "address": external}),
            None => json!({"type": "InternalIP", "address": text}),
        };
        let addresses: Vec<Value> = addresses.iter().map(address).collect();
        let meta = json!({"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")});
        serde_json::from_value(json!({"metadata": meta, "status": {"addresses": addresses}})).unwrap()
    }

    fn check(nodes: &[Node], own: Option<&str>, name: &str, expected: &[&str]) {
        let inside = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[..2] == [10, 43]);
        // Whatever the order in which they are told.
        for nodes in [nodes.iter().collect::<Vec<_>>(), nodes.iter().rev().collect()] {
            let all = believed(nodes, own, inside);
            let text = |(kind, address): &(Kind, IpAddr)| format!("{}{address}", if *kind == Kind::External { "+" } else { "" });
            assert_eq!(all[name].iter().map(text).collect::<Vec<_>>(), expected, "{name}");
        }
    }

    /// A machine was given another name, and its old Node is still there.
    #[test]
    fn a_node_that_is_not_ready_keeps_nothing_from_others() {
        let state = |mut node: Node, ready: &str| {
            let conditions = serde_json::from_value(json!([{"type": "Ready", "status": ready}])).unwrap();
            node.status.as_mut().unwrap().conditions = conditions;
            node
        };
        let (old, new) = (node(1, "old", &["192.168.0.1"]), node(2, "new", &["192.168.0.1"]));
        for (ready, of_old, of_new) in
            [("True", &["192.168.0.1"][..], &[][..]), ("Unknown", &[], &["192.168.0.1"]), ("False", &[], &["192.168.0.1"])]
        {
            let nodes = [state(old.clone(), ready), state(new.clone(), "True")];
            check(&nodes, None, "old", of_old);
            check(&nodes, None, "new", of_new);
        }
    }

    #[test]
    fn what_a_node_can_have() {
        let one = |addresses: &[&str], expected: &[&str]| check(&[node(1, "a", addresses)], None, "a", expected);
        one(&["192.168.0.1", "+203.0.113.1", "fd00::1"], &["192.168.0.1", "fd00::1", "+203.0.113.1"]);
        one(&["a.example", "192.168.0.1", "+192.168.0.1", "::ffff:192.168.0.1"], &["192.168.0.1"]);
        let special = ["0.0.0.0", "0.1.2.3", "::", "127.0.0.1", "::1", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1"];
        one(&special, &[]);
        one(&["255.255.255.255", "::ffff:127.0.0.1", "10.43.0.1", "+10.43.0.1", "::ffff:10.43.0.1"], &[]);
        let many: Vec<String> = (1..100).map(|number| format!("192.168.0.{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["fd00::1"]).collect();
        one(&many, &["192.168.0.1", "192.168.0.2", "192.168.0.3", "192.168.0.4", "fd00::1"]);
        // External addresses take the place of no internal one, however many there are and wherever they are told.
        let many: Vec<String> = (1..100).map(|number| format!("+203.0.113.{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["203.0.113.1", "192.168.0.1"]).collect();
        let external = ["+203.0.113.2", "+203.0.113.3", "+203.0.113.4", "+203.0.113.5"];
        one(&many, &[&["203.0.113.1", "192.168.0.1"][..], &external].concat());
    }

    #[test]
    fn what_an_older_node_has() {
        let nodes =
            [node(5, "old", &["192.168.0.1", "+203.0.113.1"]), node(7, "a", &["192.168.0.1", "203.0.113.1", "192.168.0.2"])];
        check(&nodes, None, "old", &["192.168.0.1", "+203.0.113.1"]);
        check(&nodes, None, "a", &["192.168.0.2"]);
        // A node knows its own, however young it is.
        check(&nodes, Some("a"), "a", &["192.168.0.1", "203.0.113.1", "192.168.0.2"]);
        check(&nodes, Some("a"), "old", &[]);
    }
}
