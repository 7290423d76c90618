//! One node in the picture of the cluster.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use pods::ports::HostPort;

use crate::pod::PodInfo;
use crate::resources::{Resources, pods_in};
use crate::selectors::Labels;

/// A node and what is on it.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    /// Small, and no other node's as long as this one is there: what is counted by node is kept in lists.
    pub(crate) number: usize,
    pub(crate) labels: Labels,
    /// Taints that keep pods from being scheduled here.
    pub(crate) hard_taints: Vec<Taint>,
    /// Taints that make pods prefer other nodes.
    pub(crate) soft_taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Resources,
    pub(crate) max_pods: usize,
    pub(crate) requested: Resources,
    /// With small amounts for containers that ask for nothing.
    pub(crate) assumed_requested: Resources,
    pub(crate) pods: Vec<Arc<PodInfo>>,
    pub(crate) ports: Vec<HostPort>,
    /// Sizes of the images that are there, by name.
    pub(crate) images: HashMap<String, i64>,
    /// What it can do, as it says (KEP-5328).
    pub(crate) features: Vec<String>,
    /// False while only pods are known that say they are on it.
    pub(super) present: bool,
}

impl NodeInfo {
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(String::as_str)
    }

    pub(super) fn new(name: &str, number: usize) -> Self {
        Self {
            name: name.to_owned(),
            number,
            labels: None,
            hard_taints: Vec::new(),
            soft_taints: Vec::new(),
            unschedulable: false,
            allocatable: Resources::default(),
            max_pods: 0,
            requested: Resources::default(),
            assumed_requested: Resources::default(),
            pods: Vec::new(),
            ports: Vec::new(),
            images: HashMap::new(),
            features: Vec::new(),
            present: false,
        }
    }

    pub(super) fn update(&mut self, node: &Node) {
        let spec = node.spec.clone().unwrap_or_default();
        let (mut hard, mut soft) = (Vec::new(), Vec::new());
        for taint in spec.taints.into_iter().flatten() {
            match taint.effect.as_str() {
                "PreferNoSchedule" => soft.push(taint),
                _ => hard.push(taint),
            }
        }
        self.labels = node.metadata.labels.clone();
        (self.hard_taints, self.soft_taints) = (hard, soft);
        self.unschedulable = spec.unschedulable.unwrap_or(false);
        let none = BTreeMap::new();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref()).unwrap_or(&none);
        self.allocatable = Resources::from_list(allocatable);
        self.max_pods = pods_in(allocatable);
        self.images.clear();
        for image in status.and_then(|status| status.images.as_ref()).into_iter().flatten() {
            for name in image.names.iter().flatten() {
                self.images.insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        self.features = pods::features::declared(node).to_vec();
        self.present = true;
    }

    /// Whether it exists, and is not only named by pods.
    pub(crate) fn is_present(&self) -> bool {
        self.present
    }

    /// As it would be with more pods on it.
    pub(crate) fn with(&self, pods: impl Iterator<Item = Arc<PodInfo>>) -> Self {
        let mut node = self.clone();
        pods.for_each(|pod| node.add(pod));
        node
    }

    pub(super) fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.request);
        self.assumed_requested.add(&pod.assumed_request);
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// The pod began at this time, as far as is known.
    pub(super) fn began(&mut self, uid: &str, started: Option<Timestamp>) {
        if let Some(pod) = self.pods.iter_mut().find(|pod| pod.uid() == uid) {
            let mut begun = pod.placed();
            begun.started = started;
            *pod = Arc::new(begun);
        }
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let index = self.pods.iter().position(|pod| pod.uid() == uid)?;
        let pod = self.pods.swap_remove(index);
        // Summed anew: a sum that has reached the largest number does not tell what is left of it.
        self.requested = Resources::sum(self.pods.iter().map(|pod| &pod.request));
        self.assumed_requested = Resources::sum(self.pods.iter().map(|pod| &pod.assumed_request));
        for port in &pod.ports {
            if let Some(index) = self.ports.iter().position(|own| own == port) {
                self.ports.swap_remove(index);
            }
        }
        Some(pod)
    }
}
