//! Where pods can be: the status of a pod is what its node says, and with the address of something else it would get what policies allow that pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use super::Options;
use crate::pod::nodes::{Backend, Own, pod_ranges};

/// The ranges in which pods of each node are.
pub(super) struct Places {
    own: String,
    address: Option<IpAddr>,
    own_ranges: Vec<IpNet>,
    cluster: Vec<IpNet>,
    /// Network plugins give pods addresses that nobody here knows.
    anywhere: bool,
    others: BTreeMap<String, Vec<IpNet>>,
}

impl Places {
    /// No other node is known yet.
    pub(super) fn new(options: &Options) -> Self {
        Self {
            own: options.node_name.clone(),
            address: options.node_ip,
            own_ranges: options.config.pod_cidrs.clone(),
            cluster: options.config.cluster_cidrs.clone(),
            anywhere: options.backend == Backend::Cni,
            others: BTreeMap::new(),
        }
    }

    /// Takes all nodes of the cluster. Returns those whose pods are elsewhere than before.
    pub(super) fn update<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>) -> BTreeSet<String> {
        let Some(address) = self.address.filter(|_| !self.anywhere) else { return BTreeSet::new() };
        let own = Own { name: &self.own, address, ranges: &self.own_ranges, cluster: &self.cluster };
        let others = pod_ranges(nodes, own);
        let before = std::mem::replace(&mut self.others, others);
        let names = before.keys().chain(self.others.keys());
        names.filter(|name| before.get(*name) != self.others.get(*name)).cloned().collect()
    }

    /// Whether a pod of a node can have an address.
    pub(super) fn can_have(&self, node: Option<&str>, address: IpAddr) -> bool {
        let ranges = node.and_then(|name| if name == self.own { Some(&self.own_ranges) } else { self.others.get(name) });
        self.anywhere || ranges.is_some_and(|ranges| ranges.iter().any(|range| range.contains(&address)))
    }
}

/// Whether the ways to the pods of a node, as it was and as it is, may differ.
pub(super) fn differ(old: Option<&Node>, new: Option<&Node>) -> bool {
    let shown =
        |node: &Node| (node.spec.as_ref().and_then(|spec| spec.pod_cidrs.clone()), node.metadata.creation_timestamp.clone());
    old.map(shown) != new.map(shown)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn node(name: &str, range: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDRs": [range]}})).unwrap()
    }

    fn places(anywhere: bool) -> Places {
        let ranges = |range: &str| vec![range.parse().unwrap()];
        Places {
            own: "own".to_owned(),
            address: Some("192.168.0.1".parse().unwrap()),
            own_ranges: ranges("10.42.0.0/24"),
            cluster: ranges("10.42.0.0/16"),
            anywhere,
            others: BTreeMap::new(),
        }
    }

    #[test]
    fn a_pod_is_where_its_node_has_pods() {
        let mut places = places(false);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let check = |places: &Places, node: Option<&str>, expected: &[&str]| {
            let addresses = ["10.42.0.7", "10.42.1.7", "10.42.2.7", "192.168.0.1", "192.168.0.9", "8.8.8.8", "10.43.0.1"];
            let found = addresses.into_iter().filter(|address| places.can_have(node, address.parse().unwrap()));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{node:?}");
        };
        check(&places, Some("own"), &["10.42.0.7"]);
        check(&places, Some("b"), &[]);
        let (b, evil) = (node("b", "10.42.1.0/24"), node("evil", "192.168.0.0/24"));
        assert_eq!(places.update([&b, &evil].into_iter()), names(&["b"]));
        check(&places, Some("own"), &["10.42.0.7"]);
        check(&places, Some("b"), &["10.42.1.7"]);
        check(&places, Some("evil"), &[]);
        check(&places, None, &[]);
        assert_eq!(places.update([&b].into_iter()), names(&[]));
        assert_eq!(places.update([&node("b", "10.42.2.0/24")].into_iter()), names(&["b"]));
        check(&places, Some("b"), &["10.42.2.7"]);
        assert_eq!(places.update(std::iter::empty()), names(&["b"]));
    }

    #[test]
    fn plugins_put_pods_anywhere() {
        let mut places = places(true);
        assert!(places.update([&node("b", "10.42.1.0/24")].into_iter()).is_empty());
        assert!(places.can_have(Some("c"), "172.16.0.1".parse().unwrap()));
    }

    #[test]
    fn most_changes_of_nodes_are_none() {
        let (one, mut same) = (node("b", "10.42.1.0/24"), node("b", "10.42.1.0/24"));
        same.metadata.resource_version = Some("7".to_owned());
        assert!(!differ(Some(&one), Some(&same)));
        assert!(differ(Some(&one), Some(&node("b", "10.42.2.0/24"))));
        assert!(differ(None, Some(&one)) && differ(Some(&one), None));
    }
}
