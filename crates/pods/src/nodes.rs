//! Which nodes a pod may be on by their names and labels: node selectors and node affinity, compiled once.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::labels::{Operator, Requirement};
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// Labels of an object.
pub type Labels = Option<BTreeMap<String, String>>;

/// Node selector terms, of which one must match.
#[derive(Debug, Default)]
pub struct NodeTerms(Vec<NodeTerm>);

/// Requirements that must all hold. None matches nothing.
#[derive(Debug)]
pub struct NodeTerm {
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
    /// Compiles a term; one that is empty or not valid matches no node.
    pub fn new(term: &NodeSelectorTerm) -> Self {
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

    /// The names that it is about, where it names some.
    fn names(&self) -> Option<BTreeSet<&str>> {
        let named = self.names.iter().filter(|one| one.operator() == Operator::In);
        let named = named.map(|one| one.values().iter().map(String::as_str).collect::<BTreeSet<_>>());
        named.reduce(|these, those| these.intersection(&those).copied().collect())
    }

    /// Whether a node matches.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        let Some(requirements) = &self.labels else { return false };
        let fields = || BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
        requirements.iter().all(|one| one.matches(labels))
            && (self.names.is_empty() || self.names.iter().all(|one| one.matches(&fields())))
    }
}

impl NodeTerms {
    /// Compiles a selector.
    pub fn new(selector: &NodeSelector) -> Self {
        Self(selector.node_selector_terms.iter().map(NodeTerm::new).collect())
    }

    /// What a pod's affinity requires of its node; none is every node.
    pub fn required(spec: &PodSpec) -> Option<Self> {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        affinity.required_during_scheduling_ignored_during_execution.as_ref().map(Self::new)
    }

    /// The names of the only nodes that may match; none where a term names no nodes.
    pub fn names(&self) -> Option<BTreeSet<&str>> {
        let named: Vec<BTreeSet<&str>> = self.0.iter().map(NodeTerm::names).collect::<Option<_>>()?;
        (!named.is_empty()).then(|| named.into_iter().flatten().collect())
    }

    /// Whether a node matches.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.0.iter().any(|term| term.matches(name, labels))
    }
}

/// Whether a node has the labels that the pod's `nodeSelector` names.
pub fn selected(spec: &PodSpec, labels: &Labels) -> bool {
    spec.node_selector.iter().flatten().all(|(key, value)| labels.as_ref().and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether a pod may be on a node, by its node selector and its required node affinity.
pub fn fits(spec: &PodSpec, name: &str, labels: &Labels) -> bool {
    selected(spec, labels) && NodeTerms::required(spec).is_none_or(|terms| terms.matches(name, labels))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(selector: Value, terms: Value, expected: bool) {
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        let affinity = if terms.is_null() { Value::Null } else { affinity };
        let spec = json!({"nodeSelector": selector, "affinity": affinity, "containers": []});
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("size".to_owned(), "5".to_owned())]);
        assert_eq!(fits(&serde_json::from_value(spec.clone()).unwrap(), "n1", &Some(labels)), expected, "{spec}");
    }

    #[test]
    fn selectors_and_terms() {
        let one = |operator: &str, values: Value| json!({"key": "size", "operator": operator, "values": values});
        let label = |operator: &str, values: Value| json!([{"matchExpressions": [one(operator, values)]}]);
        let name = |operator: &str, name: &str| json!({"key": "metadata.name", "operator": operator, "values": [name]});
        check(Value::Null, Value::Null, true);
        check(json!({"zone": "a"}), Value::Null, true);
        check(json!({"zone": "b"}), Value::Null, false);
        check(json!({"zone": "a", "other": "x"}), Value::Null, false);
        check(Value::Null, label("In", json!(["4", "5"])), true);
        check(Value::Null, label("NotIn", json!(["4", "5"])), false);
        check(Value::Null, label("Exists", json!([])), true);
        check(Value::Null, label("DoesNotExist", json!([])), false);
        check(Value::Null, label("Gt", json!(["4"])), true);
        check(Value::Null, label("Lt", json!(["4"])), false);
        check(Value::Null, label("Gt", json!(["x"])), false);
        check(Value::Null, label("Nonsense", json!([])), false);
        // One term is enough, all of its requirements hold, and an empty one matches nothing.
        check(Value::Null, json!([{"matchExpressions": [one("Lt", json!(["4"]))]}, {"matchFields": [name("In", "n1")]}]), true);
        check(Value::Null, json!([{"matchExpressions": [one("Gt", json!(["4"]))], "matchFields": [name("NotIn", "n1")]}]), false);
        check(Value::Null, json!([{}]), false);
        check(Value::Null, json!([]), false);
        check(json!({"zone": "b"}), label("Exists", json!([])), false);
    }
    /// As upstream's NodeAffinity has it in PreFilter: the nodes of all terms, if each names some.
    #[test]
    fn terms_that_name_nodes() {
        let name = |operator: &str, names: &[&str]| json!({"key": "metadata.name", "operator": operator, "values": names});
        let check = |terms: Value, expected: Option<&[&str]>| {
            let terms = NodeTerms::new(&serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap());
            let found: Option<Vec<&str>> = terms.names().map(|names| names.into_iter().collect());
            assert_eq!(found.as_deref(), expected);
        };
        let labelled = json!([{"key": "zone", "operator": "In", "values": ["a"]}]);
        check(json!([]), None);
        check(json!([{}]), None);
        check(json!([{"matchFields": [name("In", &["b"])]}, {"matchFields": [name("In", &["a"])]}]), Some(&["a", "b"]));
        check(json!([{"matchFields": [name("In", &["a"])]}, {"matchExpressions": labelled.clone()}]), None);
        check(json!([{"matchFields": [name("In", &["a"])], "matchExpressions": labelled}]), Some(&["a"]));
        check(json!([{"matchFields": [name("NotIn", &["a"])]}]), None);
        check(json!([{"matchFields": [name("In", &["a"]), name("In", &["b"])]}]), Some(&[]));
    }
}
