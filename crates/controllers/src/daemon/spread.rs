//! What there is of a set, and what is to become of it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::place::{self, GENERATION_LABEL, Place, Suits};
use crate::history::HASH;
use crate::{meta, pods};

/// What the caches say.
pub(super) struct Observed<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) nodes: &'a [Arc<Node>],
    /// The pods that the set controls.
    pub(super) pods: &'a [Arc<Pod>],
    /// The hash of the present template.
    pub(super) hash: &'a str,
    /// How long a failed pod on a node has to stay.
    pub(super) wait: &'a (dyn Fn(&str) -> Option<Duration> + Sync),
    pub(super) now: Timestamp,
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is one too many, or its template is an old one.
    Surplus,
    Failed,
    Succeeded,
}

#[derive(Debug, PartialEq)]
pub(super) struct Delete {
    pub(super) pod: Arc<Pod>,
    pub(super) node: String,
    pub(super) why: Why,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// The nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Delete>,
    pub(super) after: Option<Duration>,
}

impl Plan {
    pub(super) fn delete(&mut self, pod: &Arc<Pod>, node: &str, why: Why) {
        self.delete.push(Delete { pod: pod.clone(), node: node.to_owned(), why });
    }
}

/// The nodes and what is on them.
pub(super) struct Spread<'a> {
    pub(super) observed: &'a Observed<'a>,
    /// What the nodes are to the set.
    pub(super) suits: BTreeMap<&'a str, Suits>,
    /// The set's pods by node, also by nodes that are gone.
    pub(super) pods: BTreeMap<&'a str, Vec<&'a Arc<Pod>>>,
}

impl<'a> Spread<'a> {
    pub(super) fn of(observed: &'a Observed<'a>) -> Self {
        let place = Place::of(observed.set);
        let suits = observed.nodes.iter().map(|node| (meta::name(node.as_ref()), place.suits(node))).collect();
        let mut pods: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
        for pod in observed.pods {
            // Nothing is left to do about a pod that has finished and is being deleted: another may take its place.
            let over = meta::ends(pod.as_ref()) && pods::is_finished(pod);
            if let Some(node) = place::target(pod).filter(|_| !over) {
                pods.entry(node).or_default().push(pod);
            }
        }
        pods.values_mut().for_each(|pods| pods.sort_by_key(|pod| age(pod)));
        Self { observed, suits, pods }
    }

    pub(super) fn should_run(&self, node: &str) -> bool {
        self.suits.get(node).is_some_and(|suits| suits.run)
    }

    /// How many nodes should have a pod.
    pub(super) fn desired(&self) -> usize {
        self.suits.values().filter(|suits| suits.run).count()
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        pods::available_in(pod, min_ready(self.observed.set), self.observed.now) == Some(Duration::ZERO)
    }

    pub(super) fn is_updated(&self, pod: &Pod) -> bool {
        is_updated(self.observed.set, pod, self.observed.hash)
    }
}

/// Scheduled ones first, then by age.
fn age(pod: &Pod) -> (bool, Option<Timestamp>, String) {
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (pods::node(pod).is_empty(), created, meta::name(pod).to_owned())
}

pub(super) fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

pub(super) fn hash_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(HASH).map(String::as_str)
}

/// Whether a pod has the present template, by the number or by the hash.
pub(super) fn is_updated(set: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let generation = pod.metadata.labels.as_ref().and_then(|labels| labels.get(GENERATION_LABEL));
    let same = place::generation(set).is_some_and(|own| generation.is_some_and(|text| *text == own.to_string()));
    same || (!hash.is_empty() && hash_of(pod) == Some(hash))
}
