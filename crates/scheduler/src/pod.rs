//! A pod as scheduling sees it: everything that is asked for each node is computed once.
//!
//! The object itself is kept while the pod waits for a node. Of pods that have one there are many, and a decoded pod takes 10 KB: of them
//! only what decisions about others ask for stays.

use std::sync::Arc;

use apimachinery::labels::Selector;
use client::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Affinity, ObjectReference, Pod, PodSpec, TopologySpreadConstraint, Volume};
use pods::nodes::{NodeTerm, NodeTerms};
use pods::ports::HostPort;

use crate::profile::DEFAULT;
use crate::resources::{Resources, pod_request};
use crate::selectors::{Labels, PodTerm, with_own_labels};

/// The reason in the condition `DisruptionTarget` of a victim of preemption.
pub(crate) const PREEMPTED: &str = "PreemptionByScheduler";

/// Of the preferred terms of a pod that has a node, those that count for others.
const MAX_WISHES: usize = 64;

/// A claim behind a volume of the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) name: String,
    /// It is made for the pod.
    pub(crate) own: bool,
}

/// Of how many pods each value of a label may have more than the value with the fewest.
#[derive(Debug)]
pub(crate) struct Spread {
    pub(crate) key: String,
    pub(crate) max_skew: i32,
    pub(crate) min_domains: usize,
    pub(crate) required: bool,
    pub(crate) selector: Selector,
    pub(crate) policies: Policies,
}

/// Which nodes' pods a spread constraint counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policies {
    /// Only those that the pod's node selector and affinity allow.
    pub(crate) honour_affinity: bool,
    /// Only those whose taints the pod tolerates.
    pub(crate) honour_taints: bool,
}

impl Default for Policies {
    fn default() -> Self {
        Self { honour_affinity: true, honour_taints: false }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct PodTerms {
    pub(crate) required: Vec<PodTerm>,
    pub(crate) preferred: Vec<(i64, PodTerm)>,
}

impl PodTerms {
    /// What counts of them for others.
    fn placed(&self) -> Self {
        let wishes = self.preferred.iter().take(MAX_WISHES).cloned();
        Self { required: self.required.clone(), preferred: wishes.collect() }
    }
}

#[derive(Debug)]
pub(crate) struct PodInfo {
    key: Key,
    uid: Box<str>,
    labels: Labels,
    generation: Option<i64>,
    /// The whole object. None of a pod that has a node.
    object: Option<Arc<Pod>>,
    pub(crate) is_ending: bool,
    /// It ends because somebody needs its room.
    pub(crate) is_leaving: bool,
    pub(crate) started: Option<Timestamp>,
    pub(crate) priority: i32,
    pub(crate) request: Resources,
    /// With small amounts for containers that ask for nothing.
    pub(crate) assumed_request: Resources,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) node_terms: Option<NodeTerms>,
    pub(crate) preferred_nodes: Vec<(i64, NodeTerm)>,
    pub(crate) affinity: PodTerms,
    pub(crate) anti_affinity: PodTerms,
    pub(crate) spread: Vec<Spread>,
    pub(crate) claims: Vec<Claim>,
}

impl PodInfo {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let labels = &pod.metadata.labels;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let affinity = spec.affinity.as_ref();
        let (near, far) = pod_terms(affinity, namespace, labels);
        let nodes = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
        let preferred = nodes.and_then(|nodes| nodes.preferred_during_scheduling_ignored_during_execution.as_ref());
        let preferred = preferred.into_iter().flatten();
        Self {
            key: Key::of(pod.as_ref()),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            labels: labels.clone(),
            generation: pod.metadata.generation,
            is_ending: pods::state::is_ending(&pod),
            is_leaving: is_leaving(&pod),
            started: started(&pod),
            priority: spec.priority.unwrap_or(0),
            request: pod_request(&pod, false),
            assumed_request: pod_request(&pod, true),
            ports: pods::ports::of(spec),
            node_terms: NodeTerms::required(spec),
            preferred_nodes: preferred.map(|term| (i64::from(term.weight), NodeTerm::new(&term.preference))).collect(),
            affinity: near,
            anti_affinity: far,
            spread: spec.topology_spread_constraints.iter().flatten().map(|one| spread(one, labels)).collect(),
            claims: claims(spec, pod.metadata.name.as_deref().unwrap_or_default()),
            object: Some(pod),
        }
    }

    /// What is kept of it while its node is taken from it again, since somebody needs its room.
    pub(crate) fn leaving(&self) -> Self {
        Self { is_leaving: true, ..self.placed() }
    }

    /// What is kept of it once it has a node.
    pub(crate) fn placed(&self) -> Self {
        Self {
            key: self.key.clone(),
            uid: self.uid.clone(),
            labels: self.labels.clone(),
            request: self.request.clone(),
            assumed_request: self.assumed_request.clone(),
            ports: self.ports.clone(),
            affinity: self.affinity.placed(),
            anti_affinity: self.anti_affinity.placed(),
            claims: self.claims.clone(),
            object: None,
            node_terms: None,
            preferred_nodes: Vec::new(),
            spread: Vec::new(),
            ..*self
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key.clone()
    }

    pub(crate) fn name(&self) -> &str {
        &self.key.name
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    pub(crate) fn namespace(&self) -> &str {
        self.key.ns()
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(crate) fn generation(&self) -> Option<i64> {
        self.generation
    }

    /// The object; none of a pod that has a node.
    pub(crate) fn object(&self) -> Option<&Pod> {
        self.object.as_deref()
    }

    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.object()?.spec.as_ref()
    }

    /// What events name it by.
    pub(crate) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: self.key.namespace.clone(),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.to_string()),
            resource_version: self.object().and_then(|pod| pod.metadata.resource_version.clone()),
            field_path: None,
        }
    }

    /// The scheduler that it asks for.
    pub(crate) fn scheduler(&self) -> &str {
        self.object().map_or(DEFAULT, scheduler_of)
    }

    /// The node that it asks for by name, empty when there is none.
    pub(crate) fn node(&self) -> &str {
        self.object().map_or("", node_of)
    }

    /// How many terms of required affinity and anti-affinity it has.
    pub(crate) fn required_terms(&self) -> usize {
        self.affinity.required.len() + self.anti_affinity.required.len()
    }

    /// Its constraints that spread it strictly.
    pub(crate) fn hard_spread(&self) -> impl Iterator<Item = &Spread> {
        self.spread.iter().filter(|one| one.required)
    }

    /// The first `limit` of its preferred terms, with what each counts: above zero near to the pods of it, below zero far from them.
    pub(crate) fn preferred_terms(&self, limit: usize) -> impl Iterator<Item = (i64, &PodTerm)> {
        let near = self.affinity.preferred.iter().map(|(weight, term)| (*weight, term));
        let far = self.anti_affinity.preferred.iter().map(|(weight, term)| (-weight, term));
        near.chain(far).take(limit)
    }

    /// The first `limit` of its constraints that spread it softly.
    pub(crate) fn soft_spread(&self, limit: usize) -> impl Iterator<Item = &Spread> {
        self.spread.iter().filter(|one| !one.required).take(limit)
    }

    /// Whether only some nodes will do, by their labels or names.
    pub(crate) fn selects_nodes(&self) -> bool {
        let selector = self.spec().and_then(|spec| spec.node_selector.as_ref());
        self.node_terms.is_some() || selector.is_some_and(|selector| !selector.is_empty())
    }
}

/// Whether the pod ends because somebody needs its room.
fn is_leaving(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let mut disrupted = conditions.filter(|one| one.type_ == "DisruptionTarget" && one.status == "True");
    pod.metadata.deletion_timestamp.is_some() && disrupted.any(|one| one.reason.as_deref() == Some(PREEMPTED))
}

/// When its node began with it.
pub(crate) fn started(pod: &Pod) -> Option<Timestamp> {
    pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

pub(crate) fn scheduler_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or(DEFAULT)
}

pub(crate) fn node_of(pod: &Pod) -> &str {
    pods::state::node(pod)
}

fn pod_terms(affinity: Option<&Affinity>, namespace: &str, labels: &Labels) -> (PodTerms, PodTerms) {
    let compile = |term| PodTerm::new(term, namespace, labels);
    let (mut near, mut far) = (PodTerms::default(), PodTerms::default());
    if let Some(affinity) = affinity.and_then(|affinity| affinity.pod_affinity.as_ref()) {
        let required = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        near.required = required.map(compile).collect();
        near.preferred = preferred.map(|term| (i64::from(term.weight), compile(&term.pod_affinity_term))).collect();
    }
    if let Some(affinity) = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref()) {
        let required = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        far.required = required.map(compile).collect();
        far.preferred = preferred.map(|term| (i64::from(term.weight), compile(&term.pod_affinity_term))).collect();
    }
    (near, far)
}

fn spread(constraint: &TopologySpreadConstraint, labels: &Labels) -> Spread {
    let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
    Spread {
        key: constraint.topology_key.clone(),
        max_skew: constraint.max_skew,
        min_domains: constraint.min_domains.and_then(|number| usize::try_from(number).ok()).unwrap_or(1),
        required: constraint.when_unsatisfiable != "ScheduleAnyway",
        selector: with_own_labels(constraint.label_selector.as_ref(), labels, keys, &[]),
        policies: Policies {
            honour_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honour_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        },
    }
}

fn claims(spec: &PodSpec, pod: &str) -> Vec<Claim> {
    let claim = |volume: &Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(Claim { name: claim.claim_name.clone(), own: false }),
        (None, Some(_)) => Some(Claim { name: format!("{pod}-{}", volume.name), own: true }),
        (None, None) => None,
    };
    let mut claims: Vec<Claim> = spec.volumes.iter().flatten().filter_map(claim).collect();
    claims.sort();
    claims.dedup();
    claims
}
