//! How many pods a selector counts, by node and by the values of node labels: kept current while pods come and go, so that
//! spreading need not look at every pod for each pod that is scheduled.

use std::collections::HashMap;

use apimachinery::labels::Selector;

use crate::cluster::node::NodeInfo;
use crate::pod::PodInfo;

/// More are not kept: all are counted anew when they are asked for.
const MAX_TALLIES: usize = 256;

/// What one selector counts in one namespace.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    by_node: HashMap<String, i64>,
    by_value: HashMap<String, HashMap<String, i64>>,
}

impl Tally {
    /// Pods on the node of this name.
    pub(crate) fn on(&self, node: &str) -> i64 {
        self.by_node.get(node).copied().unwrap_or(0)
    }

    /// Pods by value of a node label, also the values that have none. None when that was not asked for.
    pub(crate) fn by_value(&self, key: &str) -> Option<&HashMap<String, i64>> {
        self.by_value.get(key)
    }

    fn add(&mut self, node: &NodeInfo, number: i64) {
        match self.by_node.get_mut(&node.name) {
            Some(count) => *count += number,
            None => drop(self.by_node.insert(node.name.clone(), number)),
        }
        if !node.is_present() {
            return;
        }
        for (key, counts) in &mut self.by_value {
            if let Some(count) = node.label(key).and_then(|value| counts.get_mut(value)) {
                *count += number;
            }
        }
    }

    fn count_values<'a>(&mut self, key: &str, nodes: impl Iterator<Item = &'a NodeInfo>) {
        let mut counts: HashMap<String, i64> = HashMap::new();
        for node in nodes {
            let Some(value) = node.label(key) else { continue };
            let number = self.on(&node.name);
            match counts.get_mut(value) {
                Some(count) => *count += number,
                None => drop(counts.insert(value.to_owned(), number)),
            }
        }
        self.by_value.insert(key.to_owned(), counts);
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
    pod.pod.metadata.deletion_timestamp.is_none() && selector.matches(pod.labels())
}

impl Tallies {
    pub(crate) fn get(&self, namespace: &str, selector: &Selector) -> Option<&Tally> {
        self.all.get(namespace)?.get(selector)
    }

    /// Makes sure that the pods of `selector` are counted, also by the values of `keys`.
    pub(crate) fn prepare(&mut self, namespace: &str, selector: &Selector, keys: &[&str], nodes: &[NodeInfo]) {
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
            if tally.by_value(key).is_none() {
                tally.count_values(key, nodes.iter().filter(|node| node.is_present()));
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
