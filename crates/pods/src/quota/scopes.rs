//! Scopes of a quota: which pods and claims of volumes it is about.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuotaSpec, ScopedResourceSelectorRequirement,
};

use crate::qos::Qos;
use crate::volumes::attributes_classes;

/// An object as scopes see it.
#[derive(Clone, Copy, Debug)]
pub enum Scoped<'a> {
    Pod(&'a Pod),
    Claim(&'a PersistentVolumeClaim),
    /// A quota with any scope is not about it.
    Other,
}

/// Whether a quota is about the object.
pub fn selects(quota: &ResourceQuotaSpec, object: Scoped<'_>) -> bool {
    scopes(quota).all(|(scope, expression)| is_in(object, scope, expression))
}

/// The scopes of a quota that the object is in.
pub fn scopes_of(quota: &ResourceQuotaSpec, object: Scoped<'_>) -> impl Iterator<Item = String> {
    scopes(quota).filter(move |(scope, expression)| is_in(object, scope, *expression)).map(|(scope, _)| scope.to_owned())
}

fn scopes(quota: &ResourceQuotaSpec) -> impl Iterator<Item = (&str, Option<&ScopedResourceSelectorRequirement>)> {
    let plain = quota.scopes.iter().flatten().map(|scope| (scope.as_str(), None));
    let expressions = quota.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    plain.chain(expressions.map(|expression| (expression.scope_name.as_str(), Some(expression))))
}

/// Whether an object is in a scope, of which an expression may ask for values.
pub fn is_in(object: Scoped<'_>, scope: &str, expression: Option<&ScopedResourceSelectorRequirement>) -> bool {
    match object {
        Scoped::Pod(pod) => has_pod(pod, scope, expression),
        // A quota on any class of the claim is about it: that it leaves as well as that it gets.
        Scoped::Claim(claim) => {
            scope == "VolumeAttributesClass" && has_value(&attributes_classes(claim).collect::<Vec<_>>(), expression)
        }
        Scoped::Other => false,
    }
}

fn has_pod(pod: &Pod, scope: &str, expression: Option<&ScopedResourceSelectorRequirement>) -> bool {
    let Some(spec) = &pod.spec else { return false };
    match scope {
        "Terminating" => spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0),
        "NotTerminating" => spec.active_deadline_seconds.is_none_or(|seconds| seconds < 0),
        "BestEffort" => Qos::of(spec) == Qos::BestEffort,
        "NotBestEffort" => Qos::of(spec) != Qos::BestEffort,
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().filter(|class| !class.is_empty());
            has_value(class.as_slice(), expression)
        }
        "CrossNamespacePodAffinity" => reaches_out(pod),
        _ => false,
    }
}

/// Whether an object with these values is in a scope that is chosen by value; one value that fits is enough.
fn has_value(values: &[&str], expression: Option<&ScopedResourceSelectorRequirement>) -> bool {
    let Some(expression) = expression else { return !values.is_empty() };
    let is_listed = |value: &str| expression.values.iter().flatten().any(|listed| listed == value);
    match expression.operator.as_str() {
        "In" => values.iter().any(|value| is_listed(value)),
        "NotIn" => values.is_empty() || values.iter().any(|value| !is_listed(value)),
        "Exists" => !values.is_empty(),
        "DoesNotExist" => values.is_empty(),
        _ => false,
    }
}

/// Whether the pod wants to be near to or far from pods of other namespaces.
fn reaches_out(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let reaches = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|namespaces| !namespaces.is_empty()) || term.namespace_selector.is_some()
    };
    let near = affinity.pod_affinity.iter().any(|affinity| {
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        affinity.required_during_scheduling_ignored_during_execution.iter().flatten().any(reaches)
            || preferred.map(|weighted| &weighted.pod_affinity_term).any(reaches)
    });
    near || affinity.pod_anti_affinity.iter().any(|affinity| {
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        affinity.required_during_scheduling_ignored_during_execution.iter().flatten().any(reaches)
            || preferred.map(|weighted| &weighted.pod_affinity_term).any(reaches)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn spec_of(quota: &Value) -> ResourceQuotaSpec {
        serde_json::from_value(quota.clone()).unwrap()
    }

    fn by_value(scope: &str, operator: &str, values: &[&str]) -> Value {
        json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": operator, "values": values}]}})
    }

    #[test]
    fn of_pods() {
        let check = |scopes: Value, spec: Value, expected: bool| {
            let mut pod = json!({"spec": spec});
            if pod["spec"].get("containers").is_none() {
                pod["spec"]["containers"] = json!([{"name": "c"}]);
            }
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(selects(&spec_of(&scopes), Scoped::Pod(&pod)), expected, "{scopes} {spec}");
        };
        let asks = json!([{"name": "c", "resources": {"requests": {"cpu": "1"}}}]);
        check(json!({}), json!({}), true);
        check(json!({"scopes": ["Terminating"]}), json!({"activeDeadlineSeconds": 5}), true);
        check(json!({"scopes": ["Terminating"]}), json!({}), false);
        check(json!({"scopes": ["NotTerminating", "BestEffort"]}), json!({}), true);
        check(json!({"scopes": ["NotTerminating", "BestEffort"]}), json!({"containers": asks}), false);
        check(json!({"scopes": ["NotBestEffort"]}), json!({"containers": asks}), true);
        let class = |operator: &str, values: &[&str]| by_value("PriorityClass", operator, values);
        check(class("In", &["high"]), json!({"priorityClassName": "high"}), true);
        check(class("NotIn", &["high"]), json!({"priorityClassName": "high"}), false);
        check(class("NotIn", &["high"]), json!({}), true);
        check(class("Exists", &[]), json!({}), false);
        check(class("DoesNotExist", &[]), json!({}), true);
        let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k", "namespaces": ["b"]}]}});
        check(json!({"scopes": ["CrossNamespacePodAffinity"]}), json!({"affinity": near}), true);
        check(json!({"scopes": ["CrossNamespacePodAffinity"]}), json!({}), false);
        check(json!({"scopes": ["VolumeAttributesClass"]}), json!({}), false);
    }

    /// KEP-3751, "Quota": the scope `VolumeAttributesClass` of claims, which counts a class from when it is asked for until it is left.
    #[test]
    fn of_claims() {
        let check = |quota: &Value, claim: Value, expected: bool| {
            let decoded: PersistentVolumeClaim = serde_json::from_value(claim.clone()).unwrap();
            assert_eq!(selects(&spec_of(quota), Scoped::Claim(&decoded)), expected, "{quota} {claim}");
        };
        let class = |operator: &str, values: &[&str]| by_value("VolumeAttributesClass", operator, values);
        let gold = || json!({"spec": {"volumeAttributesClassName": "gold"}});
        let leaves =
            json!({"spec": {"volumeAttributesClassName": "silver"}, "status": {"currentVolumeAttributesClassName": "gold"}});
        let gets = json!({"status": {"modifyVolumeStatus": {"targetVolumeAttributesClassName": "gold", "status": "Pending"}}});
        check(&json!({}), gold(), true);
        check(&json!({"scopes": ["VolumeAttributesClass"]}), gold(), true);
        check(&json!({"scopes": ["VolumeAttributesClass"]}), json!({"spec": {}}), false);
        for claim in [gold(), leaves.clone(), gets] {
            check(&class("In", &["gold"]), claim, true);
        }
        check(&class("NotIn", &["gold"]), gold(), false);
        check(&class("NotIn", &["gold"]), leaves, true);
        check(&class("DoesNotExist", &[]), json!({"spec": {}}), true);
        check(&json!({"scopes": ["BestEffort"]}), gold(), false);
    }

    #[test]
    fn of_nothing_else() {
        assert!(selects(&spec_of(&json!({})), Scoped::Other));
        assert!(!selects(&spec_of(&json!({"scopes": ["BestEffort"]})), Scoped::Other));
    }
}
