//! For which nodes the slices of a pool of devices are (dynamic resource allocation, KEP-4381).
//!
//! A pool is looked at from one node: the slices that are for it are chosen first, and their generation is the pool's there (upstream's
//! `GatherPools`). Who may publish slices for his own node must not take the devices of others away by using their pool's name, nor drive away
//! the pods that have them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};

use crate::nodes::{Labels, NodeTerms};

/// A node by what slices, volumes and claims ask of it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
}

/// A slice, and for which nodes it is.
#[derive(Debug)]
pub struct Slice {
    /// As the API has it.
    pub slice: Arc<ResourceSlice>,
    nodes: Nodes,
    /// Where each device is, of a slice that leaves that to them.
    each: Vec<Nodes>,
}

#[derive(Debug)]
enum Nodes {
    One(String),
    Some(NodeTerms),
    All,
    Each,
    None,
}

impl Nodes {
    fn new(name: Option<&String>, all: Option<bool>, selector: Option<&NodeSelector>) -> Self {
        match (name.filter(|name| !name.is_empty()), selector) {
            (Some(name), _) => Self::One(name.clone()),
            (None, _) if all == Some(true) => Self::All,
            (None, Some(selector)) => Self::Some(NodeTerms::new(selector)),
            (None, None) => Self::None,
        }
    }

    fn has(&self, node: Place<'_>) -> bool {
        match self {
            Self::One(name) => name == node.name,
            Self::Some(terms) => terms.matches(node.name, node.labels),
            Self::All | Self::Each => true,
            Self::None => false,
        }
    }
}

impl Slice {
    /// Compiles where it and its devices are.
    pub fn new(slice: &Arc<ResourceSlice>) -> Self {
        let spec = &slice.spec;
        let devices = || spec.devices.iter().flatten();
        let (nodes, each) = if spec.per_device_node_selection == Some(true) {
            let of = |one: &Device| Nodes::new(one.node_name.as_ref(), one.all_nodes, one.node_selector.as_ref());
            (Nodes::Each, devices().map(of).collect())
        } else {
            (Nodes::new(spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref()), Vec::new())
        };
        Self { slice: slice.clone(), nodes, each }
    }

    /// The one node that it names, if it does: the node's own credentials do for such a slice.
    pub fn node(&self) -> Option<&str> {
        match &self.nodes {
            Nodes::One(name) => Some(name),
            _ => None,
        }
    }

    /// What it offers.
    pub fn devices(&self) -> &[Device] {
        self.slice.spec.devices.as_deref().unwrap_or_default()
    }

    /// The generation of the pool that it is part of.
    pub fn generation(&self) -> i64 {
        self.slice.spec.pool.generation
    }

    /// Whether anything of it is for a node. Counters are for all nodes for which there may be devices that take of them.
    pub fn is_for(&self, node: Place<'_>) -> bool {
        let counts = self.slice.spec.shared_counters.as_ref().is_some_and(|sets| !sets.is_empty());
        match &self.nodes {
            Nodes::None => false,
            Nodes::One(name) => name == node.name,
            _ if counts => true,
            Nodes::Each => self.each.iter().any(|nodes| nodes.has(node)),
            nodes => nodes.has(node),
        }
    }

    /// Whether a device can be used on a node.
    pub fn offers(&self, device: usize, node: Place<'_>) -> bool {
        self.nodes.has(node) && self.each.get(device).is_none_or(|nodes| nodes.has(node))
    }
}

/// Keeps, of the slices of a pool that are for a node, those of the latest generation: the others are out of date.
pub fn keep_latest<T>(slices: &mut Vec<T>, generation: impl Fn(&T) -> i64) {
    let latest = slices.iter().map(&generation).max();
    slices.retain(|slice| Some(generation(slice)) == latest);
}

/// Of the slices of a pool those that are for a node, of their latest generation.
pub fn on_node(slices: &[Arc<ResourceSlice>], node: Place<'_>) -> Vec<Slice> {
    let is_of_another = |slice: &ResourceSlice| {
        let named = slice.spec.node_name.as_deref().unwrap_or_default();
        !named.is_empty() && named != node.name
    };
    // Slices of other nodes may be many, and need no look at what is in them.
    let may_be = slices.iter().filter(|slice| !is_of_another(slice)).map(Slice::new);
    let mut found: Vec<Slice> = may_be.filter(|slice| slice.is_for(node)).collect();
    keep_latest(&mut found, Slice::generation);
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, generation: i64, spec: Value) -> Arc<ResourceSlice> {
        let pool = json!({"name": "p", "generation": generation, "resourceSliceCount": 1});
        let mut all = json!({"driver": "d", "pool": pool, "devices": [{"name": name}]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": all})).unwrap())
    }

    fn zone(name: &str) -> Value {
        let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [name]}]});
        json!({"nodeSelector": {"nodeSelectorTerms": [term]}})
    }

    /// Upstream's `GatherPools`: slices that do not match the node are ignored, and of the others those of older generations.
    #[test]
    fn slices_for_a_node() {
        let labels = Some([("zone".to_owned(), "z".to_owned())].into());
        let check = |slices: &[Arc<ResourceSlice>], expected: &[&str]| {
            let found = on_node(slices, Place { name: "n", labels: &labels });
            let names: Vec<&str> = found.iter().map(|slice| slice.slice.metadata.name.as_deref().unwrap()).collect();
            assert_eq!(names, expected);
        };
        let here = slice("here", 1, json!({"nodeName": "n"}));
        check(&[here.clone(), slice("there", 9, json!({"nodeName": "m"}))], &["here"]);
        check(&[here.clone(), slice("far", 9, zone("y"))], &["here"]);
        check(&[here.clone(), slice("near", 2, zone("z"))], &["near"]);
        check(&[here.clone(), slice("all", 1, json!({"allNodes": true}))], &["here", "all"]);
        check(&[here.clone(), slice("none", 3, json!({}))], &["here"]);
        let each = |node: &str| json!({"perDeviceNodeSelection": true, "devices": [{"name": "x", "nodeName": node}]});
        check(&[here.clone(), slice("each", 2, each("n"))], &["each"]);
        check(&[here.clone(), slice("each", 2, each("m"))], &["here"]);
        // Counters count for whoever takes of them, unless they are another node's.
        let counters = json!({"sharedCounters": [{"name": "c", "counters": {}}]});
        let of = |mut place: Value| {
            place.as_object_mut().unwrap().extend(counters.as_object().unwrap().clone());
            place
        };
        check(&[here.clone(), slice("counters", 1, of(zone("y")))], &["here", "counters"]);
        check(&[here, slice("counters", 9, of(json!({"nodeName": "m"})))], &["here"]);
    }
}
