//! Numbers by the value of a node label, which hundreds of nodes are looked up in for one pod.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cluster::node::NodeInfo;
use crate::topologies::{Topologies, Topology};

/// Numbers by the value of a node label. What has come to nothing is not kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    by_value: HashMap<String, i64>,
    /// The same by the value's number, so that a node is found without its label: from when it is asked for until nodes change.
    listed: Option<Listed>,
}

#[derive(Clone, Debug)]
struct Listed {
    topology: Arc<Topology>,
    numbers: Vec<i64>,
}

impl Values {
    /// Adds to the value that the node has of the label `key`, if it has the label.
    pub(super) fn add(&mut self, node: &NodeInfo, key: &str, number: i64) {
        let Some(value) = node.label(key) else { return };
        if let Some(Listed { topology, numbers }) = &mut self.listed
            && let Some(value) = topology.value(node)
        {
            numbers[value] += number;
        }
        match self.by_value.get_mut(value) {
            Some(sum) => {
                *sum += number;
                if *sum == 0 {
                    self.by_value.remove(value);
                }
            }
            None => drop(self.by_value.insert(value.to_owned(), number)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_value.is_empty()
    }

    /// The number of the value that the node has of the label `key`.
    pub(crate) fn at(&self, node: &NodeInfo, key: &str) -> i64 {
        if let Some(Listed { topology, numbers }) = &self.listed {
            return topology.value(node).map_or(0, |value| numbers[value]);
        }
        node.label(key).and_then(|value| self.by_value.get(value)).copied().unwrap_or(0)
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listed.is_some()
    }

    /// Lists the numbers by those of the values of `key`.
    pub(super) fn list(&mut self, key: &str, nodes: &[NodeInfo], topologies: &mut Topologies) {
        topologies.prepare(key, nodes);
        let Some(topology) = topologies.get(key) else { return };
        let mut numbers = vec![0; topology.len()];
        for node in nodes {
            if let (Some(number), Some(value)) = (topology.value(node), node.label(key)) {
                numbers[number] = self.by_value.get(value).copied().unwrap_or(0);
            }
        }
        self.listed = Some(Listed { topology, numbers });
    }

    /// Nodes have changed, or the list takes too much room.
    pub(super) fn unlist(&mut self) {
        self.listed = None;
    }
}
