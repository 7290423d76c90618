//! What pods that are placed mean for the affinity of others, counted while they come and go: by a term and the values of its topology
//! key. A decision then looks at terms, of which each workload has a few, and not at every pod.

mod filed;
mod values;

use std::collections::{HashMap, HashSet};

use crate::cluster::node::NodeInfo;
use crate::pod::PodInfo;
use crate::selectors::{Labels, PodTerm};
use crate::topologies::Topologies;
use filed::Filed;
pub(crate) use values::Values;

/// More lists of terms are not kept: all are counted anew when they are asked for.
const MAX_OWN: usize = 256;
/// The lists of a pod that has more are kept for the attempt only.
const MAX_OF_ONE: usize = 64;
/// More numbers of other pods' terms are not listed by node.
const MAX_LISTED: usize = 256;

/// Labels of namespaces.
pub(crate) type Namespaces = HashMap<String, Labels>;

/// What there is of it.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// Of required anti-affinity: how many pods keep others away.
    repelling: Filed,
    /// What others want near (above zero) or far (below).
    preferring: Filed,
    /// By the terms that a pod has to match all of.
    own: HashMap<Vec<PodTerm>, Matched>,
    /// The same, until the attempt has ended.
    of_attempt: HashMap<Vec<PodTerm>, Matched>,
    /// How many times numbers of other pods' terms were listed since they were dropped last.
    listed: usize,
}

/// The pods that match all of some terms: for each of these how many there are by the value of its topology key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched(Vec<Values>);

/// For whom it is counted, and by which nodes.
struct Listing<'a> {
    pod: &'a PodInfo,
    nodes: &'a [NodeInfo],
    namespaces: &'a Namespaces,
    topologies: &'a mut Topologies,
}

impl Matched {
    /// No pods.
    fn of(terms: &[PodTerm]) -> Self {
        Self(terms.iter().map(|_| Values::default()).collect())
    }

    /// Counts all pods of these nodes.
    pub(crate) fn count<'n>(terms: &[PodTerm], nodes: impl Iterator<Item = &'n NodeInfo>, namespaces: &Namespaces) -> Self {
        let mut matched = Self::of(terms);
        for node in nodes.filter(|node| node.is_present()) {
            for pod in &node.pods {
                matched.moved(terms, pod, node, 1, namespaces);
            }
        }
        matched
    }

    fn moved(&mut self, terms: &[PodTerm], pod: &PodInfo, node: &NodeInfo, number: i64, namespaces: &Namespaces) {
        if terms.iter().all(|term| selects(term, pod, namespaces)) {
            terms.iter().zip(&mut self.0).for_each(|(term, values)| values.add(node, &term.topology_key, number));
        }
    }

    /// For the term at this place.
    pub(crate) fn by_value(&self, term: usize) -> Option<&Values> {
        self.0.get(term)
    }

    /// Whether no pod matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Values::is_empty)
    }
}

/// Whether a term is about a pod.
pub(crate) fn selects(term: &PodTerm, pod: &PodInfo, namespaces: &Namespaces) -> bool {
    term.matches(pod.namespace(), pod.labels(), |name| namespaces.get(name))
}

impl Terms {
    /// A pod came to a node (1) or left it (-1). It has as many wishes as count ([`PodInfo::placed`]).
    pub(crate) fn moved(&mut self, pod: &PodInfo, node: &NodeInfo, number: i64, namespaces: &Namespaces) {
        if !node.is_present() {
            return;
        }
        pod.anti_affinity.required.iter().for_each(|term| self.repelling.add(term, node, number));
        let (near, far) = (&pod.affinity, &pod.anti_affinity);
        near.required.iter().for_each(|term| self.preferring.add(term, node, number));
        near.preferred.iter().for_each(|(weight, term)| self.preferring.add(term, node, number * weight));
        far.preferred.iter().for_each(|(weight, term)| self.preferring.add(term, node, -number * weight));
        for (terms, matched) in self.own.iter_mut().chain(&mut self.of_attempt) {
            matched.moved(terms, pod, node, number, namespaces);
        }
    }

    /// All pods of a node come (1) or go (-1), since it does or has other labels.
    pub(crate) fn node_moved(&mut self, node: &NodeInfo, number: i64, namespaces: &Namespaces) {
        for pod in &node.pods {
            self.moved(pod, node, number, namespaces);
        }
    }

    /// The labels of a namespace are others.
    pub(crate) fn namespaces_changed(&mut self) {
        self.own.clear();
        self.of_attempt.clear();
    }

    /// Nodes came or went, or have other labels.
    pub(crate) fn nodes_changed(&mut self) {
        self.own.values_mut().flat_map(|matched| &mut matched.0).for_each(Values::unlist);
        self.unlist();
    }

    fn unlist(&mut self) {
        self.repelling.values_mut().chain(self.preferring.values_mut()).for_each(Values::unlist);
        self.listed = 0;
    }

    /// Makes sure that the pods are counted which the required terms of `pod` are about, and that those which keep it away are found by node.
    pub(crate) fn prepare_required(
        &mut self,
        pod: &PodInfo,
        nodes: &[NodeInfo],
        namespaces: &Namespaces,
        topologies: &mut Topologies,
    ) {
        self.attempted();
        let mut listing = Listing { pod, nodes, namespaces, topologies };
        self.list_others(&mut listing, |terms| &mut terms.repelling);
        let single = pod.anti_affinity.required.iter().map(std::slice::from_ref);
        self.count(&mut listing, single.chain([pod.affinity.required.as_slice()]));
    }

    /// The same of preferred terms, the first `limit` of the pod's own.
    pub(crate) fn prepare_preferred(
        &mut self,
        pod: &PodInfo,
        limit: usize,
        nodes: &[NodeInfo],
        namespaces: &Namespaces,
        topologies: &mut Topologies,
    ) {
        let mut listing = Listing { pod, nodes, namespaces, topologies };
        self.list_others(&mut listing, |terms| &mut terms.preferring);
        self.count(&mut listing, pod.preferred_terms(limit).map(|(_, term)| std::slice::from_ref(term)));
    }

    /// An attempt has ended: what was counted for it alone goes.
    pub(crate) fn attempted(&mut self) {
        self.of_attempt = HashMap::new();
    }

    /// Lists the terms of others by node that are about the pod.
    fn list_others(&mut self, listing: &mut Listing<'_>, of: fn(&mut Self) -> &mut Filed) {
        if self.listed >= MAX_LISTED {
            self.unlist();
        }
        let (pod, mut listed) = (listing.pod, 0);
        for (term, values) in of(self).about_mut(pod.namespace()) {
            if listed < MAX_LISTED && !values.is_listed() && selects(term, pod, listing.namespaces) {
                values.list(&term.topology_key, listing.nodes, listing.topologies);
                listed += 1;
            }
        }
        self.listed += listed;
    }

    /// Counts the pods that match lists of terms, of all lists that are not counted yet at once.
    fn count<'t>(&mut self, listing: &mut Listing<'_>, lists: impl Iterator<Item = &'t [PodTerm]>) {
        let lists: HashSet<&[PodTerm]> = lists.filter(|list| !list.is_empty()).collect();
        let keeps = lists.len() <= MAX_OF_ONE;
        let is_new = |terms: &Self, list: &[PodTerm]| !terms.own.contains_key(list) && !terms.of_attempt.contains_key(list);
        if keeps && self.own.len() + lists.iter().filter(|list| is_new(self, list)).count() > MAX_OWN {
            self.own.clear();
        }
        let mut new: Vec<(&[PodTerm], Matched)> =
            lists.iter().filter(|list| is_new(self, list)).map(|list| (*list, Matched::of(list))).collect();
        if !new.is_empty() {
            for node in listing.nodes.iter().filter(|node| node.is_present()) {
                for pod in &node.pods {
                    new.iter_mut().for_each(|(terms, matched)| matched.moved(terms, pod, node, 1, listing.namespaces));
                }
            }
        }
        let into = if keeps { &mut self.own } else { &mut self.of_attempt };
        into.extend(new.into_iter().map(|(terms, matched)| (terms.to_vec(), matched)));
        // Of one attempt they are looked up by label: to list them would be as much work as to look them up.
        for list in lists {
            let Some(matched) = self.own.get_mut(list) else { continue };
            for (term, values) in list.iter().zip(&mut matched.0).filter(|(_, values)| !values.is_listed()) {
                values.list(&term.topology_key, listing.nodes, listing.topologies);
            }
        }
    }

    /// The pods that match all of these terms, if that was prepared.
    pub(crate) fn matching(&self, terms: &[PodTerm]) -> Option<&Matched> {
        self.own.get(terms).or_else(|| self.of_attempt.get(terms))
    }

    /// Where pods are that keep `pod` away: the key and values of each of their terms.
    pub(crate) fn repelling<'t>(&'t self, pod: &PodInfo, namespaces: &Namespaces) -> Vec<(&'t str, &'t Values)> {
        about(&self.repelling, pod, namespaces)
    }

    /// What the terms of others want of `pod`.
    pub(crate) fn preferring<'t>(&'t self, pod: &PodInfo, namespaces: &Namespaces) -> Vec<(&'t str, &'t Values)> {
        about(&self.preferring, pod, namespaces)
    }

    /// Whether any placed pod keeps others away.
    pub(crate) fn any_repels(&self) -> bool {
        !self.repelling.is_empty()
    }

    /// Whether any placed pod wants others near or far.
    pub(crate) fn any_prefers(&self) -> bool {
        !self.preferring.is_empty()
    }
}

fn about<'t>(all: &'t Filed, pod: &PodInfo, namespaces: &Namespaces) -> Vec<(&'t str, &'t Values)> {
    let about = all.about(pod.namespace()).filter(|(term, _)| selects(term, pod, namespaces));
    about.map(|(term, values)| (term.topology_key.as_str(), values)).collect()
}
