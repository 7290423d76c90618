//! Plugins that look at the node alone.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use pods::nodes::NodeTerms;
use pods::tolerations::tolerates;

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Event, Filter, Named, Plugin, Reason, Score, Verdict, filter, scale};
use crate::pod::PodInfo;

fn tolerations(pod: &PodInfo) -> &[Toleration] {
    pod.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

pub(super) fn tolerates_all(pod: &PodInfo, node: &NodeInfo) -> bool {
    let tolerations = tolerations(pod);
    node.hard_taints.iter().all(|taint| tolerations.iter().any(|one| tolerates(one, taint)))
}

pub(super) struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let taint =
            Taint { key: "node.kubernetes.io/unschedulable".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        if tolerations(pod).iter().any(|one| tolerates(one, &taint)) {
            return None;
        }
        filter("node(s) were unschedulable", Verdict::Unfit, |node| !node.unschedulable)
    }
}

pub(super) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let name = pod.node();
        if name.is_empty() {
            return None;
        }
        filter("node(s) didn't match the requested node name", Verdict::Unfit, move |node| node.name == name)
    }
}

pub(super) struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        filter("node(s) had untolerated taint(s)", Verdict::Unfit, move |node| tolerates_all(pod, node))
    }

    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Cluster, _: &'a Attempt, nodes: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        nodes.iter().any(|node| !node.soft_taints.is_empty()).then(|| Box::new(SoftTaints { pod }) as Box<dyn Score>)
    }
}

struct SoftTaints<'a> {
    pod: &'a PodInfo,
}

impl Score for SoftTaints<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let tolerations = tolerations(self.pod);
        let untolerated = node.soft_taints.iter().filter(|taint| !tolerations.iter().any(|one| tolerates(one, taint)));
        i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, true);
    }
}

pub(super) struct NodeAffinity;

/// Whether the node has what the pod's node selector and required node affinity ask for.
pub(super) fn selects_node(pod: &PodInfo, node: &NodeInfo) -> bool {
    let wanted = pod.spec().and_then(|spec| spec.node_selector.as_ref()).into_iter().flatten();
    let selected = wanted.into_iter().all(|(key, value)| node.label(key) == Some(value));
    selected && pod.node_terms.as_ref().is_none_or(|terms| terms.matches(&node.name, &node.labels))
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn refuse(&self, pod: &PodInfo, _: &Cluster, _: &Attempt) -> Option<Reason> {
        let conflict = self.names(pod).is_some_and(|named| named.nodes.is_empty());
        conflict.then_some(Reason::Borrowed("pod affinity terms conflict"))
    }

    fn names<'a>(&self, pod: &'a PodInfo) -> Option<Named<'a>> {
        let nodes = pod.node_terms.as_ref().and_then(NodeTerms::names)?;
        Some(Named { nodes, otherwise: "node(s) didn't satisfy plugin(s) [NodeAffinity]" })
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        if !pod.selects_nodes() {
            return None;
        }
        filter("node(s) didn't match Pod's node affinity/selector", Verdict::Unfit, move |node| selects_node(pod, node))
    }

    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Cluster, _: &'a Attempt, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        (!pod.preferred_nodes.is_empty()).then(|| Box::new(PreferredNodes { pod }) as Box<dyn Score>)
    }
}

struct PreferredNodes<'a> {
    pod: &'a PodInfo,
}

impl Score for PreferredNodes<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let terms = self.pod.preferred_nodes.iter();
        terms.filter(|(_, term)| term.matches(&node.name, &node.labels)).map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, false);
    }
}

pub(super) struct NodeDeclaredFeatures;

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let needed = pod.spec().map(pods::features::to_run).filter(|needed| !needed.is_empty())?;
        filter("node(s) didn't match Pod's required features", Verdict::Unfit, move |node| {
            needed.iter().all(|name| node.features.iter().any(|feature| feature == name))
        })
    }
}

pub(super) struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        if pod.ports.is_empty() {
            return None;
        }
        filter("node(s) didn't have free ports for the requested pod ports", Verdict::Occupied, move |node| {
            !pod.ports.iter().any(|wanted| node.ports.iter().any(|used| used.conflicts(wanted)))
        })
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::PodRemoved)
    }
}
