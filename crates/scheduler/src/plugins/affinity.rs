//! Pods near to or far from other pods.

use std::borrow::Cow;

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Event, Filter, MAX_SCORE, Plugin, Reason, Score, Verdict};
use crate::pod::PodInfo;
use crate::selectors::PodTerm;
use crate::terms::{Matched, Namespaces, Values, selects};

const NEAR: &str = "node(s) didn't match pod affinity rules";
const FAR: &str = "node(s) didn't match pod anti-affinity rules";
const REPELLED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// With more terms it is not looked whether an event may help: it may.
const HINTS: usize = 64;

pub(super) struct InterPodAffinity;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    /// To look at so many would hold up all other pods.
    fn refuse(&self, pod: &PodInfo, cluster: &Cluster, _: &Attempt) -> Option<Reason> {
        let (number, most) = (pod.required_terms(), cluster.most_required());
        let reason = || format!("pod has {number} required affinity terms, of which at most {most} are looked at");
        (number > most).then(|| Cow::Owned(reason()))
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let asks = !pod.affinity.required.is_empty() || !pod.anti_affinity.required.is_empty();
        if !asks && !cluster.terms.any_repels() {
            return None;
        }
        Some(Box::new(Required::of(pod, cluster)))
    }

    fn score<'a>(
        &self,
        pod: &'a PodInfo,
        cluster: &'a Cluster,
        _: &'a Attempt,
        _: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let asks = !pod.affinity.preferred.is_empty() || !pod.anti_affinity.preferred.is_empty();
        if !asks && !cluster.terms.any_prefers() {
            return None;
        }
        let preferred = Preferred::of(pod, cluster);
        (!preferred.is_empty()).then(|| Box::new(preferred) as Box<dyn Score>)
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::PodPlaced | Event::PodRemoved | Event::Namespace)
    }

    /// As upstream's `isSchedulableAfterPodChange`. One that came may be whom the pod wants to be near; one that left may be whom it keeps away from,
    /// who kept it away, or the last of its group, without which it is the first.
    fn helped_by_pod(&self, waiting: &PodInfo, pod: &PodInfo, event: Event, namespaces: &Namespaces) -> bool {
        let (near, far) = (&waiting.affinity.required, &waiting.anti_affinity.required);
        if near.len() + far.len() + pod.anti_affinity.required.len() > HINTS {
            return true;
        }
        if !near.is_empty() && near.iter().all(|term| selects(term, pod, namespaces)) {
            return true;
        }
        let kept_away = || far.iter().any(|term| selects(term, pod, namespaces));
        let keeps_away = || pod.anti_affinity.required.iter().any(|term| selects(term, waiting, namespaces));
        event == Event::PodRemoved && (kept_away() || keeps_away())
    }
}

/// The pods that match all of some terms: as they are kept counted, or counted now.
fn matching<'a>(terms: &[PodTerm], cluster: &'a Cluster) -> Cow<'a, Matched> {
    let kept = cluster.terms.matching(terms).map(Cow::Borrowed);
    kept.unwrap_or_else(|| Cow::Owned(Matched::count(terms, cluster.nodes(), cluster.namespaces())))
}

struct Required<'a> {
    pod: &'a PodInfo,
    /// Domains that pods which are there keep this one out of, by their key.
    repelling: Vec<(&'a str, &'a Values)>,
    /// Pods that match all terms of the pod, by each of them.
    near: Cow<'a, Matched>,
    /// By index of the pod's own terms.
    far: Vec<Cow<'a, Matched>>,
    /// No pod matches yet but the pod itself: the first of a group may go anywhere.
    first_of_group: bool,
}

impl<'a> Required<'a> {
    fn of(pod: &'a PodInfo, cluster: &'a Cluster) -> Self {
        let terms = &pod.affinity.required;
        let near = if terms.is_empty() { Cow::Owned(Matched::default()) } else { matching(terms, cluster) };
        let far = pod.anti_affinity.required.iter().map(|term| matching(std::slice::from_ref(term), cluster)).collect();
        let first_of_group = near.is_empty() && terms.iter().all(|term| selects(term, pod, cluster.namespaces()));
        Self { pod, repelling: cluster.terms.repelling(pod, cluster.namespaces()), near, far, first_of_group }
    }

    fn is_near(&self, node: &NodeInfo) -> bool {
        let terms = &self.pod.affinity.required;
        if self.first_of_group {
            return terms.iter().all(|term| node.label(&term.topology_key).is_some());
        }
        let near = |(index, term): (usize, &PodTerm)| {
            self.near.by_value(index).is_some_and(|values| values.at(node, &term.topology_key) > 0)
        };
        terms.iter().enumerate().all(near)
    }

    fn is_far(&self, node: &NodeInfo) -> bool {
        let near = |(term, matched): (&PodTerm, &Cow<'_, Matched>)| {
            matched.by_value(0).is_some_and(|values| values.at(node, &term.topology_key) > 0)
        };
        !self.pod.anti_affinity.required.iter().zip(&self.far).any(near)
    }

    fn is_repelled(&self, node: &NodeInfo) -> bool {
        self.repelling.iter().any(|(key, values)| values.at(node, key) > 0)
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
    /// What the pod wants of others, with the key and the weight of each term.
    own: Vec<(&'a str, i64, Cow<'a, Matched>)>,
    /// What others want of it.
    others: Vec<(&'a str, &'a Values)>,
}

impl<'a> Preferred<'a> {
    fn of(pod: &'a PodInfo, cluster: &'a Cluster) -> Self {
        let count = |(weight, term): (i64, &'a PodTerm)| {
            (term.topology_key.as_str(), weight, matching(std::slice::from_ref(term), cluster))
        };
        Self {
            own: pod.preferred_terms(cluster.most_preferred()).map(count).collect(),
            others: cluster.terms.preferring(pod, cluster.namespaces()),
        }
    }

    fn is_empty(&self) -> bool {
        self.others.is_empty() && self.own.iter().all(|(_, _, matched)| matched.is_empty())
    }
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let own =
            self.own.iter().map(|(key, weight, matched)| matched.by_value(0).map_or(0, |values| values.at(node, key) * weight));
        own.sum::<i64>() + self.others.iter().map(|(key, values)| values.at(node, key)).sum::<i64>()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let min = scores.iter().copied().min().unwrap_or(0);
        let span = scores.iter().copied().max().unwrap_or(0) - min;
        for score in scores {
            *score = if span == 0 { 0 } else { MAX_SCORE * (*score - min) / span };
        }
    }
}
