//! Pods near to or far from other pods.

use std::collections::HashMap;

use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Event, Filter, MAX_SCORE, Plugin, Reason, Score, Verdict};
use crate::pod::PodInfo;
use crate::selectors::PodTerm;

const NEAR: &str = "node(s) didn't match pod affinity rules";
const FAR: &str = "node(s) didn't match pod anti-affinity rules";
const REPELLED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

pub(super) struct InterPodAffinity;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Box<dyn Filter + 'a>> {
        let asks = !pod.affinity.required.is_empty() || !pod.anti_affinity.required.is_empty();
        if !asks && cluster.with_anti_affinity == 0 {
            return None;
        }
        Some(Box::new(Required::count(pod, cluster)))
    }

    fn score<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let asks = !pod.affinity.preferred.is_empty() || !pod.anti_affinity.preferred.is_empty();
        if !asks && cluster.with_affinity == 0 {
            return None;
        }
        let preferred = Preferred::count(pod, cluster);
        (!preferred.weights.is_empty()).then(|| Box::new(preferred) as Box<dyn Score>)
    }

    fn helped_by(&self, _: Event) -> bool {
        true
    }
}

/// Numbers by topology key and value.
type Domains<'a, N> = HashMap<(&'a str, &'a str), N>;

fn selects(term: &PodTerm, pod: &PodInfo, cluster: &Cluster) -> bool {
    term.matches(pod.namespace(), pod.labels(), |name| cluster.namespace_labels(name))
}

struct Required<'a> {
    pod: &'a PodInfo,
    /// Domains that pods which are there keep this one out of.
    repelling: Domains<'a, u32>,
    /// By index of the pod's own terms.
    near: Vec<Domains<'a, u32>>,
    far: Vec<Domains<'a, u32>>,
    /// No pod matches yet but the pod itself: the first of a group may go anywhere.
    first_of_group: bool,
}

impl<'a> Required<'a> {
    fn count(pod: &'a PodInfo, cluster: &'a Cluster) -> Self {
        let (near, far) = (&pod.affinity.required, &pod.anti_affinity.required);
        let mut counts = Self {
            pod,
            repelling: Domains::new(),
            near: near.iter().map(|_| Domains::new()).collect(),
            far: far.iter().map(|_| Domains::new()).collect(),
            first_of_group: false,
        };
        for node in cluster.nodes() {
            for other in &node.pods {
                counts.look_at(node, other, cluster);
            }
        }
        let none = counts.near.iter().all(Domains::is_empty);
        counts.first_of_group = none && near.iter().all(|term| selects(term, pod, cluster));
        counts
    }

    fn look_at(&mut self, node: &'a NodeInfo, other: &'a PodInfo, cluster: &Cluster) {
        let pod = self.pod;
        for term in &other.anti_affinity.required {
            if let Some(value) = node.label(&term.topology_key)
                && selects(term, pod, cluster)
            {
                *self.repelling.entry((&term.topology_key, value)).or_default() += 1;
            }
        }
        let near = &pod.affinity.required;
        // A pod counts for affinity when it matches all terms.
        if !near.is_empty() && near.iter().all(|term| selects(term, other, cluster)) {
            for (term, domains) in near.iter().zip(&mut self.near) {
                if let Some(value) = node.label(&term.topology_key) {
                    *domains.entry((&term.topology_key, value)).or_default() += 1;
                }
            }
        }
        for (term, domains) in pod.anti_affinity.required.iter().zip(&mut self.far) {
            if let Some(value) = node.label(&term.topology_key)
                && selects(term, other, cluster)
            {
                *domains.entry((&term.topology_key, value)).or_default() += 1;
            }
        }
    }

    fn is_near(&self, node: &NodeInfo) -> bool {
        let terms = &self.pod.affinity.required;
        if self.first_of_group {
            return terms.iter().all(|term| node.label(&term.topology_key).is_some());
        }
        terms.iter().zip(&self.near).all(|(term, domains)| {
            node.label(&term.topology_key).is_some_and(|value| domains.contains_key(&(term.topology_key.as_str(), value)))
        })
    }

    fn is_far(&self, node: &NodeInfo) -> bool {
        !self.pod.anti_affinity.required.iter().zip(&self.far).any(|(term, domains)| {
            node.label(&term.topology_key).is_some_and(|value| domains.contains_key(&(term.topology_key.as_str(), value)))
        })
    }

    fn is_repelled(&self, node: &NodeInfo) -> bool {
        self.repelling.keys().any(|(key, value)| node.label(key) == Some(value))
    }
}

impl Filter for Required<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        let (reason, verdict) = if !self.is_near(node) {
            (NEAR, Verdict::Unfit)
        } else if !self.is_far(node) {
            (FAR, Verdict::Occupied)
        } else if self.is_repelled(node) {
            (REPELLED, Verdict::Occupied)
        } else {
            return Verdict::Fits;
        };
        reasons.push(Reason::Borrowed(reason));
        verdict
    }
}

struct Preferred<'a> {
    weights: Domains<'a, i64>,
}

impl<'a> Preferred<'a> {
    fn count(pod: &'a PodInfo, cluster: &'a Cluster) -> Self {
        let mut weights = Domains::new();
        for node in cluster.nodes() {
            for other in &node.pods {
                let mut add = |term: &'a PodTerm, weight: i64, of: &PodInfo| {
                    if let Some(value) = node.label(&term.topology_key)
                        && selects(term, of, cluster)
                    {
                        *weights.entry((term.topology_key.as_str(), value)).or_default() += weight;
                    }
                };
                pod.affinity.preferred.iter().for_each(|(weight, term)| add(term, *weight, other));
                pod.anti_affinity.preferred.iter().for_each(|(weight, term)| add(term, -weight, other));
                // And what the other pod wants of this one.
                other.affinity.required.iter().for_each(|term| add(term, 1, pod));
                other.affinity.preferred.iter().for_each(|(weight, term)| add(term, *weight, pod));
                other.anti_affinity.preferred.iter().for_each(|(weight, term)| add(term, -weight, pod));
            }
        }
        Self { weights }
    }
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let here = self.weights.iter().filter(|((key, value), _)| node.label(key) == Some(value));
        here.map(|(_, weight)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let min = scores.iter().copied().min().unwrap_or(0);
        let span = scores.iter().copied().max().unwrap_or(0) - min;
        for score in scores {
            *score = if span == 0 { 0 } else { MAX_SCORE * (*score - min) / span };
        }
    }
}
