//! Where a set's pods belong, and what is added to them for it.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
};
use pods::nodes::{self, NodeTerms};
use pods::tolerations::tolerates;

use crate::history::HASH;
use crate::{meta, pods as state};

/// The number of templates that there were, and the label of pods that repeats it.
pub(super) const GENERATION: &str = "deprecated.daemonset.template.generation";
pub(super) const GENERATION_LABEL: &str = "pod-template-generation";

/// Conditions of a node that keep no daemon away ("Taints and tolerations" in the documentation of DaemonSets).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// Nor does this one where the pod has the node's network.
const TOLERATED_ON_HOST: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node is to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suits {
    /// A pod belongs there.
    pub(super) run: bool,
    /// A pod that is there may stay.
    pub(super) stay: bool,
}

/// The rules of one set, compiled once for all nodes.
pub(super) struct Place {
    spec: PodSpec,
    terms: Option<NodeTerms>,
}

impl Place {
    pub(super) fn of(set: &DaemonSet) -> Self {
        let mut spec = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
        tolerate(&mut spec);
        Self { terms: NodeTerms::required(&spec), spec }
    }

    /// What `node` is to the set.
    pub(super) fn suits(&self, node: &Node) -> Suits {
        const NO: Suits = Suits { run: false, stay: false };
        let name = meta::name(node);
        if self.spec.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name) {
            return NO;
        }
        let labels = &node.metadata.labels;
        if !nodes::selected(&self.spec, labels) || self.terms.as_ref().is_some_and(|terms| !terms.matches(name, labels)) {
            return NO;
        }
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let tolerations = self.spec.tolerations.as_deref().unwrap_or_default();
        let repels = |effect: &str| {
            let of_effect = taints.iter().filter(|taint| taint.effect == effect);
            of_effect.into_iter().any(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
        };
        let drives_out = repels("NoExecute");
        Suits { run: !drives_out && !repels("NoSchedule"), stay: !drives_out }
    }

    /// The template of the set's new pods.
    pub(super) fn template(&self, set: &DaemonSet, hash: &str) -> PodTemplateSpec {
        let mut template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        if let Some(generation) = generation(set) {
            labels.insert(GENERATION_LABEL.to_owned(), generation.to_string());
        }
        labels.insert(HASH.to_owned(), hash.to_owned());
        template.spec = Some(self.spec.clone());
        template
    }
}

/// The number of the set's template, where it is kept.
pub(super) fn generation(set: &DaemonSet) -> Option<i64> {
    meta::annotation(set, GENERATION)?.parse().ok()
}

/// Adds what every daemon tolerates. A toleration of the template that says the same for some seconds gives way: by both of them the pod would
/// be evicted after these seconds (upstream: `AddOrUpdateDaemonPodTolerations`).
fn tolerate(spec: &mut PodSpec) {
    let on_host = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(on_host.then_some(TOLERATED_ON_HOST)) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let mut is_there = false;
        for own in tolerations.iter_mut().filter(|own| says_the_same(own, &toleration)) {
            own.clone_from(&toleration);
            is_there = true;
        }
        if !is_there {
            tolerations.push(toleration);
        }
    }
}

/// Whether two tolerations are the same but for their seconds.
fn says_the_same(a: &Toleration, b: &Toleration) -> bool {
    let form =
        |one: &Toleration| [&one.key, &one.operator, &one.value, &one.effect].map(|field| field.clone().unwrap_or_default());
    form(a) == form(b)
}

/// Makes `node` the only one that the scheduler may choose for the pod. What the template requires of nodes holds for it already.
pub(super) fn aim(pod: &mut Pod, node: &str) {
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let terms = vec![NodeSelectorTerm { match_fields: Some(vec![name]), match_expressions: None }];
    let affinity = pod.spec.get_or_insert_default().affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: terms });
}

/// The node that a pod is on or aims at.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let bound = state::node(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let name = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    match name.values.as_deref()? {
        [node] => Some(node),
        _ => None,
    }
}
