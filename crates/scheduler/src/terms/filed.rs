//! Terms of pods that are placed, by the namespace that they are about, so that those of one namespace are no work for the pods of others.

use std::collections::HashMap;

use super::Values;
use crate::cluster::node::NodeInfo;
use crate::selectors::PodTerm;

type ByTerm = HashMap<PodTerm, Values>;

/// Numbers by term. What has come to nothing is not kept.
#[derive(Debug, Default)]
pub(super) struct Filed {
    /// Of terms about one namespace.
    by_namespace: HashMap<String, ByTerm>,
    others: ByTerm,
}

impl Filed {
    pub(super) fn add(&mut self, term: &PodTerm, node: &NodeInfo, number: i64) {
        let Some(namespace) = term.namespace() else { return add_to(&mut self.others, term, node, number) };
        match self.by_namespace.get_mut(namespace) {
            Some(all) => {
                add_to(all, term, node, number);
                if all.is_empty() {
                    self.by_namespace.remove(namespace);
                }
            }
            None => {
                let mut all = ByTerm::default();
                add_to(&mut all, term, node, number);
                if !all.is_empty() {
                    self.by_namespace.insert(namespace.to_owned(), all);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty() && self.others.is_empty()
    }

    /// Those that may be about pods of a namespace.
    pub(super) fn about(&self, namespace: &str) -> impl Iterator<Item = (&PodTerm, &Values)> {
        self.by_namespace.get(namespace).into_iter().flatten().chain(&self.others)
    }

    pub(super) fn about_mut(&mut self, namespace: &str) -> impl Iterator<Item = (&PodTerm, &mut Values)> {
        self.by_namespace.get_mut(namespace).into_iter().flatten().chain(&mut self.others)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Values> {
        self.by_namespace.values_mut().chain([&mut self.others]).flat_map(HashMap::values_mut)
    }
}

fn add_to(all: &mut ByTerm, term: &PodTerm, node: &NodeInfo, number: i64) {
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
