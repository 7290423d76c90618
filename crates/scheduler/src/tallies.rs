//! How many pods a selector counts, by node and by the values of node labels: kept current while pods come and go, so that
//! spreading need not look at every pod for each pod that is scheduled.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::labels::Selector;

use crate::cluster::node::NodeInfo;
use crate::pod::PodInfo;
use crate::topologies::{Topologies, Topology};

/// More are not kept: all are counted anew when they are asked for.
const MAX_TALLIES: usize = 256;

/// What one selector counts in one namespace.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By the number of the node.
    by_node: Vec<i64>,
    by_value: HashMap<String, Values>,
}

/// Pods by the value of a node label.
#[derive(Debug)]
struct Values {
    topology: Arc<Topology>,
    counts: Vec<i64>,
}

impl Tally {
    /// Pods on a node.
    pub(crate) fn on(&self, node: &NodeInfo) -> i64 {
        self.by_node.get(node.number).copied().unwrap_or(0)
    }

    /// Pods by the number of the value that a node label has, also of values that have none, and the topology that has these numbers: another one of
    /// the same key may have others. None when that was not asked for.
    pub(crate) fn by_value(&self, key: &str) -> Option<(&Arc<Topology>, &[i64])> {
        self.by_value.get(key).map(|values| (&values.topology, values.counts.as_slice()))
    }

    fn add(&mut self, node: &NodeInfo, number: i64) {
        if self.by_node.len() <= node.number {
            self.by_node.resize(node.number + 1, 0);
        }
        self.by_node[node.number] += number;
        if !node.is_present() {
            return;
        }
        for Values { topology, counts } in self.by_value.values_mut() {
            if let Some(value) = topology.value(node) {
                counts[value] += number;
            }
        }
    }

    fn count_values<'a>(&mut self, key: &str, topology: Arc<Topology>, nodes: impl Iterator<Item = &'a NodeInfo>) {
        let mut counts = vec![0; topology.len()];
        for node in nodes {
            if let Some(value) = topology.value(node) {
                counts[value] += self.on(node);
            }
        }
        self.by_value.insert(key.to_owned(), Values { topology, counts });
    }
}

/// Tallies by namespace and selector.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    all: HashMap<String, HashMap<Selector, Tally>>,
    number: usize,
}

/// Whether `selector` counts the pod. One that is going no longer counts.
pub(crate) fn counts(selector: &Selector, pod: &PodInfo) -> bool {
    !pod.is_ending && selector.matches(pod.labels())
}

impl Tallies {
    pub(crate) fn get(&self, namespace: &str, selector: &Selector) -> Option<&Tally> {
        self.all.get(namespace)?.get(selector)
    }

    /// Makes sure that the pods of `selector` are counted, also by the values of `keys`.
    pub(crate) fn prepare(
        &mut self,
        namespace: &str,
        selector: &Selector,
        keys: &[&str],
        nodes: &[NodeInfo],
        topologies: &Topologies,
    ) {
        if self.get(namespace, selector).is_none() {
            if self.number >= MAX_TALLIES {
                *self = Self::default();
            }
            let mut tally = Tally::default();
            for node in nodes {
                let pods = node.pods.iter().filter(|pod| pod.namespace() == namespace && counts(selector, pod));
                tally.add(node, i64::try_from(pods.count()).unwrap_or(i64::MAX));
            }
            self.all.entry(namespace.to_owned()).or_default().insert(selector.clone(), tally);
            self.number += 1;
        }
        let Some(tally) = self.all.get_mut(namespace).and_then(|all| all.get_mut(selector)) else { return };
        for key in keys {
            if tally.by_value(key).is_none()
                && let Some(topology) = topologies.get(key)
            {
                tally.count_values(key, topology, nodes.iter().filter(|node| node.is_present()));
            }
        }
    }

    /// A pod came to a node (1) or left it (-1).
    pub(crate) fn moved(&mut self, pod: &PodInfo, node: &NodeInfo, number: i64) {
        let tallies = self.all.get_mut(pod.namespace()).into_iter().flatten();
        tallies.filter(|(selector, _)| counts(selector, pod)).for_each(|(_, tally)| tally.add(node, number));
    }

    /// Nodes came or went, or have other labels.
    pub(crate) fn nodes_changed(&mut self) {
        self.all.values_mut().flat_map(HashMap::values_mut).for_each(|tally| tally.by_value.clear());
    }
}
