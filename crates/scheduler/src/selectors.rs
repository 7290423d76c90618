//! Compiled selectors of a pod: node selectors and affinity terms.

use std::collections::BTreeMap;

use apimachinery::labels::{Operator, Requirement, Selector};
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub(crate) type Labels = Option<BTreeMap<String, String>>;

/// Node selector terms, of which one must match.
#[derive(Debug, Default)]
pub(crate) struct NodeTerms(Vec<NodeTerm>);

/// Requirements that must all hold. None matches nothing.
#[derive(Debug)]
pub(crate) struct NodeTerm {
    labels: Option<Vec<Requirement>>,
    names: Vec<Requirement>,
}

fn requirement(one: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = match one.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    Requirement::new(one.key.clone(), operator, one.values.clone().unwrap_or_default()).ok()
}

impl NodeTerm {
    pub(crate) fn new(term: &NodeSelectorTerm) -> Self {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if labels.is_empty() && fields.is_empty() {
            return Self { labels: None, names: Vec::new() };
        }
        let names: Option<Vec<Requirement>> = fields.iter().map(requirement).collect();
        match names {
            Some(names) => Self { labels: labels.iter().map(requirement).collect(), names },
            None => Self { labels: None, names: Vec::new() },
        }
    }

    pub(crate) fn matches(&self, name: &str, labels: &Labels) -> bool {
        let Some(requirements) = &self.labels else { return false };
        let fields = || BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
        requirements.iter().all(|one| one.matches(labels))
            && (self.names.is_empty() || self.names.iter().all(|one| one.matches(&fields())))
    }
}

impl NodeTerms {
    pub(crate) fn new(selector: &NodeSelector) -> Self {
        Self(selector.node_selector_terms.iter().map(NodeTerm::new).collect())
    }

    pub(crate) fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.0.iter().any(|term| term.matches(name, labels))
    }
}

/// A pod (anti-)affinity term.
#[derive(Debug)]
pub(crate) struct PodTerm {
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
    selector: Selector,
    pub(crate) topology_key: String,
}

/// `selector` with the values that the pod itself has for `keys`.
pub(crate) fn with_own_labels(selector: Option<&LabelSelector>, own: &Labels, keys: &[String], not_keys: &[String]) -> Selector {
    let Ok(base) = Selector::from_label_selector(selector) else { return Selector::nothing() };
    if base.is_nothing() || (keys.is_empty() && not_keys.is_empty()) {
        return base;
    }
    let value = |key: &String| own.as_ref().and_then(|own| own.get(key)).cloned();
    let term = |operator: Operator| move |key: &String| Requirement::new(key.clone(), operator, vec![value(key)?]).ok();
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
