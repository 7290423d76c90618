//! Compiled affinity terms of a pod.

use std::collections::HashSet;

use apimachinery::labels::{Operator, Requirement, Selector};
use k8s_openapi::api::core::v1::PodAffinityTerm;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
pub(crate) use pods::nodes::Labels;

/// A pod (anti-)affinity term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PodTerm {
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
    selector: Selector,
    pub(crate) topology_key: String,
}

/// `selector` with the values that the pod itself has for `keys`. The API has put them there when the pod was made, and so they stay when
/// the pod's labels change; pods that were stored before it did so have the keys alone.
pub(crate) fn with_own_labels(selector: Option<&LabelSelector>, own: &Labels, keys: &[String], not_keys: &[String]) -> Selector {
    let Ok(base) = Selector::from_label_selector(selector) else { return Selector::nothing() };
    if base.is_nothing() || (keys.is_empty() && not_keys.is_empty()) {
        return base;
    }
    let value = |key: &String| own.as_ref().and_then(|own| own.get(key)).cloned();
    let term = |operator: Operator| {
        let same = base.requirements().iter().filter(|one| one.operator() == operator);
        let there: HashSet<&str> = same.map(Requirement::key).collect();
        move |key: &String| {
            let value = value(key).filter(|_| !there.contains(key.as_str()))?;
            Requirement::new(key.clone(), operator, vec![value]).ok()
        }
    };
    let mut requirements = base.requirements().to_vec();
    requirements.extend(keys.iter().filter_map(term(Operator::In)));
    requirements.extend(not_keys.iter().filter_map(term(Operator::NotIn)));
    Selector::new(requirements)
}

impl PodTerm {
    pub(crate) fn new(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        let keys = term.match_label_keys.as_deref().unwrap_or_default();
        let not_keys = term.mismatch_label_keys.as_deref().unwrap_or_default();
        Self {
            namespaces,
            namespace_selector: term
                .namespace_selector
                .as_ref()
                .map(|selector| Selector::from_label_selector(Some(selector)).unwrap_or_else(|_| Selector::nothing())),
            selector: with_own_labels(term.label_selector.as_ref(), labels, keys, not_keys),
            topology_key: term.topology_key.clone(),
        }
    }

    /// The namespace whose pods it is about; none when they may be in several, or in whichever has some labels.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match self.namespaces.as_slice() {
            [only] if self.namespace_selector.is_none() => Some(only),
            _ => None,
        }
    }

    /// Whether the term selects a pod with these labels in `namespace`, whose own labels `namespace_labels` looks up.
    pub(crate) fn matches<'a>(
        &self,
        namespace: &str,
        labels: &Labels,
        namespace_labels: impl FnOnce(&str) -> Option<&'a Labels>,
    ) -> bool {
        let in_namespace = self.namespaces.iter().any(|one| one == namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| match namespace_labels(namespace) {
                Some(labels) => selector.matches(labels),
                None => selector.is_everything(),
            });
        in_namespace && self.selector.matches(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Which hash the pods have that a pod of hash 1 selects.
    #[track_caller]
    fn check(term: Value, expected: &[&str]) {
        let of = |hash: &str| Some([("hash".to_owned(), hash.to_owned())].into());
        let term: PodAffinityTerm = serde_json::from_value(term).unwrap();
        let term = PodTerm::new(&term, "default", &of("1"));
        let selected = |hash: &&str| term.matches("default", &of(hash), |_| None);
        assert_eq!(["0", "1", "2"].into_iter().filter(selected).collect::<Vec<_>>(), expected);
    }

    /// KEP-3633: values are merged into the selector at the creation, and labels that change later change nothing.
    #[test]
    fn keys_count_where_the_api_has_not_merged_them() {
        let merged = |operator: &str| json!({"matchExpressions": [{"key": "hash", "operator": operator, "values": ["0"]}]});
        check(json!({"topologyKey": "t", "labelSelector": {}, "matchLabelKeys": ["hash"]}), &["1"]);
        check(json!({"topologyKey": "t", "labelSelector": {}, "mismatchLabelKeys": ["hash"]}), &["0", "2"]);
        check(json!({"topologyKey": "t", "labelSelector": merged("In"), "matchLabelKeys": ["hash"]}), &["0"]);
        check(json!({"topologyKey": "t", "labelSelector": merged("NotIn"), "mismatchLabelKeys": ["hash"]}), &["1", "2"]);
        let exists = json!({"matchExpressions": [{"key": "hash", "operator": "Exists"}]});
        check(json!({"topologyKey": "t", "labelSelector": exists, "mismatchLabelKeys": ["hash"]}), &["0", "2"]);
    }
}
