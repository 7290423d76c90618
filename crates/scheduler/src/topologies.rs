//! Which nodes have the same value of a label, such as that of their zone. Values are numbers here: for each pod that is scheduled hundreds of
//! nodes are compared by them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cluster::node::NodeInfo;

/// The label by which a node is a host.
pub(crate) const HOST: &str = "kubernetes.io/hostname";

/// More keys are not kept: they are looked up anew when they are asked for.
const MAX_KEYS: usize = 64;

/// The nodes by the value of one label.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// The value's number, by the number of the node.
    values: Vec<Option<usize>>,
    /// How many values there are.
    number: usize,
}

impl Topology {
    /// The values of the label `key` of the nodes that exist.
    pub(crate) fn of(key: &str, nodes: &[NodeInfo]) -> Self {
        let (mut topology, mut numbers) = (Self::default(), HashMap::new());
        for node in nodes.iter().filter(|node| node.is_present()) {
            let Some(value) = node.label(key) else { continue };
            let next = numbers.len();
            let number = *numbers.entry(value).or_insert(next);
            if topology.values.len() <= node.number {
                topology.values.resize(node.number + 1, None);
            }
            topology.values[node.number] = Some(number);
        }
        Self { number: numbers.len(), ..topology }
    }

    /// The number of the node's value; none when it lacks the label.
    pub(crate) fn value(&self, node: &NodeInfo) -> Option<usize> {
        self.values.get(node.number).copied().flatten()
    }

    /// How many values there are. Their numbers are below it.
    pub(crate) fn len(&self) -> usize {
        self.number
    }
}

/// Those that were asked for, since nodes have changed last.
#[derive(Debug, Default)]
pub(crate) struct Topologies(HashMap<String, Arc<Topology>>);

impl Topologies {
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Topology>> {
        self.0.get(key).cloned()
    }

    /// Makes sure that it is at hand.
    pub(crate) fn prepare(&mut self, key: &str, nodes: &[NodeInfo]) {
        if self.0.contains_key(key) {
            return;
        }
        if self.0.len() >= MAX_KEYS {
            self.0.clear();
        }
        self.0.insert(key.to_owned(), Arc::new(Topology::of(key, nodes)));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use crate::cluster::Cluster;
    use crate::testing::node;

    /// Nodes with the same value of the label, in groups; those without it are in none.
    fn check(cluster: &Cluster, key: &str, expected: &[&[&str]]) {
        let topology = cluster.topology(key);
        let mut groups = vec![Vec::new(); topology.len()];
        for node in cluster.nodes() {
            if let Some(value) = topology.value(node) {
                groups[value].push(node.name.as_str());
            }
        }
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups.sort();
        assert_eq!(groups, expected, "{key}");
    }

    fn zoned(name: &str, zone: Value) -> k8s_openapi::api::core::v1::Node {
        node(name, json!({"labels": {"zone": zone}}))
    }

    #[test]
    fn nodes_have_the_values_of_their_labels() {
        let mut cluster = Cluster::default();
        for (name, zone) in [("a", "x"), ("b", "y"), ("c", "x")] {
            cluster.set_node(&zoned(name, json!(zone)));
        }
        cluster.set_node(&node("d", json!({})));
        check(&cluster, "zone", &[&["a", "c"], &["b"]]);
        check(&cluster, "kubernetes.io/hostname", &[&["a"], &["b"], &["c"], &["d"]]);
        check(&cluster, "none", &[]);
        // Another node takes the place and the number of one that is gone.
        cluster.remove_node("a");
        check(&cluster, "zone", &[&["b"], &["c"]]);
        cluster.set_node(&zoned("e", json!("y")));
        cluster.set_node(&zoned("c", json!("z")));
        check(&cluster, "zone", &[&["b", "e"], &["c"]]);
        let mut numbers: Vec<usize> = cluster.nodes().map(|node| node.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3]);
    }
}
