//! Keys of labels whose values a new pod takes from its own: they become expressions of the selectors that they stand beside (KEP-3633;
//! KEP-3243 for spreading, with `MatchLabelKeysInPodTopologySpreadSelectorMerge`), so that whoever reads the pod sees what is selected.

use apimachinery::meta;
use serde_json::{Map, Value, json};

use crate::util::{child, each};

/// Adds the expressions to all selectors of a pod.
pub(super) fn merge(pod: &mut Value) {
    let Some(labels) = meta::labels(pod).filter(|labels| !labels.is_empty()).cloned() else { return };
    let Some(spec) = pod.get_mut("spec") else { return };
    for constraint in each(spec, "topologySpreadConstraints") {
        merge_into(constraint, &labels);
    }
    let Some(affinity) = spec.get_mut("affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = affinity.get_mut(kind) else { continue };
        for term in each(terms, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge_into(term, &labels);
        }
        for weighted in each(terms, "preferredDuringSchedulingIgnoredDuringExecution") {
            merge_into(child(weighted, "podAffinityTerm"), &labels);
        }
    }
}

/// Adds them to the selector of one term. Without a selector it selects nothing; a label that the pod does not have counts for nothing.
fn merge_into(term: &mut Value, labels: &Map<String, Value>) {
    let of = |field, operator| {
        let keys = term.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        keys.filter_map(move |key| Some(json!({"key": key, "operator": operator, "values": [labels.get(key)?]})))
    };
    let expressions: Vec<_> = of("matchLabelKeys", "In").chain(of("mismatchLabelKeys", "NotIn")).collect();
    let Some(selector) = term.get_mut("labelSelector").and_then(Value::as_object_mut) else { return };
    if expressions.is_empty() {
        return;
    }
    let all = selector.entry("matchExpressions").or_insert_with(|| json!([]));
    all.as_array_mut().into_iter().for_each(|all| all.extend(expressions.iter().cloned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(term: Value, selector: Value) {
        let labels = json!({"app": "web", "hash": "1"});
        let whole = |term: Value| {
            json!({"metadata": {"name": "p", "labels": labels}, "spec": {
                "topologySpreadConstraints": [term],
                "affinity": {
                    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
                    "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]},
                },
            }})
        };
        let mut expected = term.clone();
        if !selector.is_null() {
            expected["labelSelector"] = selector;
        }
        let mut pod = whole(term);
        merge(&mut pod);
        assert_eq!(pod, whole(expected));
    }

    /// "kube-apiserver will obtain the labels from the pod and the key-value labels are then merged with `labelSelector`" (KEP-3633).
    #[test]
    fn keys_become_expressions() {
        let app = json!({"matchLabels": {"app": "web"}});
        let is = |operator: &str| json!({"key": "hash", "operator": operator, "values": ["1"]});
        check(json!({"topologyKey": "t", "labelSelector": app}), Value::Null);
        check(
            json!({"labelSelector": app, "matchLabelKeys": ["hash", "none"]}),
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [is("In")]}),
        );
        check(json!({"labelSelector": {}, "mismatchLabelKeys": ["hash"]}), json!({"matchExpressions": [is("NotIn")]}));
        let own = json!({"key": "a", "operator": "Exists"});
        check(
            json!({"labelSelector": {"matchExpressions": [own]}, "matchLabelKeys": ["hash"]}),
            json!({"matchExpressions": [own, is("In")]}),
        );
        check(json!({"matchLabelKeys": ["hash"]}), Value::Null);
        check(json!({"labelSelector": {}, "matchLabelKeys": ["none"]}), Value::Null);
    }
}
