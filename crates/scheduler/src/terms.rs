//! What pods that are placed mean for the affinity of others, counted while they come and go: by a term and the values of its topology
//! key. A decision then looks at terms, of which each workload has a few, and not at every pod.

mod values;

use std::collections::HashMap;

use crate::cluster::node::NodeInfo;
use crate::pod::PodInfo;
use crate::selectors::{Labels, PodTerm};
use crate::topologies::Topologies;
pub(crate) use values::Values;

/// More lists of terms are not kept: all are counted anew when they are asked for.
const MAX_OWN: usize = 256;
/// More numbers of other pods' terms are not listed by node.
const MAX_LISTED: usize = 256;

/// Labels of namespaces.
pub(crate) type Namespaces = HashMap<String, Labels>;

/// What there is of it.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// Of required anti-affinity: how many pods keep others away.
    repelling: HashMap<PodTerm, Values>,
    /// What others want near (above zero) or far (below).
    preferring: HashMap<PodTerm, Values>,
    /// By the terms that a pod has to match all of.
    own: HashMap<Vec<PodTerm>, Matched>,
    /// How many times numbers of other pods' terms were listed since they were dropped last.
    listed: usize,
}

/// The pods that match all of some terms: for each of these how many there are by the value of its topology key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched(Vec<Values>);

impl Matched {
    /// Counts all pods of these nodes.
    pub(crate) fn count<'n>(terms: &[PodTerm], nodes: impl Iterator<Item = &'n NodeInfo>, namespaces: &Namespaces) -> Self {
        let mut matched = Self(terms.iter().map(|_| Values::default()).collect());
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

fn add_to(all: &mut HashMap<PodTerm, Values>, term: &PodTerm, node: &NodeInfo, number: i64) {
    match all.get_mut(term) {
        Some(values) => {
            values.add(node, &term.topology_key, number);
            if values.is_empty() {
                all.remove(term);
            }
        }
        None => {
            let mut values = Values::default();
            values.add(node, &term.topology_key, number);
            if !values.is_empty() {
                all.insert(term.clone(), values);
            }
        }
    }
}

impl Terms {
    /// A pod came to a node (1) or left it (-1).
    pub(crate) fn moved(&mut self, pod: &PodInfo, node: &NodeInfo, number: i64, namespaces: &Namespaces) {
        if !node.is_present() {
            return;
        }
        pod.anti_affinity.required.iter().for_each(|term| add_to(&mut self.repelling, term, node, number));
        let (near, far) = (&pod.affinity, &pod.anti_affinity);
        near.required.iter().for_each(|term| add_to(&mut self.preferring, term, node, number));
        near.preferred.iter().for_each(|(weight, term)| add_to(&mut self.preferring, term, node, number * weight));
        far.preferred.iter().for_each(|(weight, term)| add_to(&mut self.preferring, term, node, -number * weight));
        for (terms, matched) in &mut self.own {
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

    /// Makes sure that the pods are counted which the terms of `pod` are about, and that what is counted for it is found by node.
    pub(crate) fn prepare(&mut self, pod: &PodInfo, nodes: &[NodeInfo], namespaces: &Namespaces, topologies: &mut Topologies) {
        if self.listed >= MAX_LISTED {
            self.unlist();
        }
        for (term, values) in self.repelling.iter_mut().chain(&mut self.preferring) {
            if !values.is_listed() && selects(term, pod, namespaces) {
                values.list(&term.topology_key, nodes, topologies);
                self.listed += 1;
            }
        }
        let single = |term: &PodTerm| vec![term.clone()];
        let (near, far) = (&pod.affinity, &pod.anti_affinity);
        let preferred = near.preferred.iter().chain(&far.preferred).map(|(_, term)| single(term));
        let lists = far.required.iter().map(single).chain(preferred).chain([near.required.clone()]);
        for list in lists.filter(|list| !list.is_empty()) {
            if !self.own.contains_key(&list) {
                if self.own.len() >= MAX_OWN {
                    self.own.clear();
                }
                let matched = Matched::count(&list, nodes.iter(), namespaces);
                self.own.insert(list.clone(), matched);
            }
            let Some(matched) = self.own.get_mut(&list) else { continue };
            for (term, values) in list.iter().zip(&mut matched.0).filter(|(_, values)| !values.is_listed()) {
                values.list(&term.topology_key, nodes, topologies);
            }
        }
    }

    /// The pods that match all of these terms, if that was prepared.
    pub(crate) fn matching(&self, terms: &[PodTerm]) -> Option<&Matched> {
        self.own.get(terms)
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

fn about<'t>(all: &'t HashMap<PodTerm, Values>, pod: &PodInfo, namespaces: &Namespaces) -> Vec<(&'t str, &'t Values)> {
    let about = all.iter().filter(|(term, _)| selects(term, pod, namespaces));
    about.map(|(term, values)| (term.topology_key.as_str(), values)).collect()
}
