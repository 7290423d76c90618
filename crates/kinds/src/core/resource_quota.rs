//! ResourceQuota: how much of everything a namespace may use.

use std::collections::BTreeMap;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::meta;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec, ScopedResourceSelectorRequirement};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::list;
use crate::rules::resources::{is_quota_resource, resource_amount, resource_name};
use crate::sub::Sub;
use crate::typed::Kind;

type Amounts = BTreeMap<String, ApiQuantity>;

/// Scopes without values.
const PLAIN: &[&str] = &["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "Terminating"];
/// Scopes that are chosen by value.
const VALUED: &[&str] = &["PriorityClass", "VolumeAttributesClass"];
const CONFLICTS: &[[&str; 2]] = &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
const COMPUTE: &[&str] = &["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory", "pods"];
const EXISTS: &str = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";

impl Kind for ResourceQuota {
    const DEF: KindDef =
        KindDef::new("", "v1", "ResourceQuota", "resourcequotas", "resourcequota").short(&["quota"]).subresources(&[Sub::STATUS]);

    fn validate(&self, errors: &mut Errors) {
        if let Some(spec) = &self.spec {
            validate(spec, &Path::new("spec"), errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let scopes = |quota: &Self| {
            let mut scopes = quota.spec.as_ref().and_then(|spec| spec.scopes.clone()).unwrap_or_default();
            scopes.sort();
            scopes.dedup();
            scopes
        };
        if scopes(self) != scopes(old) {
            let given = self.spec.as_ref().map(|spec| json!(spec.scopes));
            errors.push(Error::invalid(&Path::new("spec").child("scopes"), given, meta::IMMUTABLE));
        }
    }

    fn validate_sub(&self, sub: &str, _old: &Self, errors: &mut Errors) {
        if let Some(status) = self.status.as_ref().filter(|_| sub == "status") {
            let path = Path::new("status");
            validate_amounts(status.hard.as_ref(), &path.child("hard"), errors);
            validate_amounts(status.used.as_ref(), &path.child("used"), errors);
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new(
                    "Request",
                    "Request represents a minimum amount of cpu/memory that a container may consume.",
                    |quota, _| usage(quota, false),
                ),
                Column::new(
                    "Limit",
                    "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
                    |quota, _| usage(quota, true),
                ),
            ]
        }
    }
}

/// Used and allowed amounts, of limits or of everything else.
fn usage(quota: &ResourceQuota, limits: bool) -> Value {
    let Some(status) = &quota.status else { return "".into() };
    let used = |name: &str| status.used.as_ref().and_then(|used| used.get(name)).map_or("0", |quantity| &quantity.0);
    let shown = status.hard.iter().flatten().filter(|(name, _)| name.starts_with("limits.") == limits);
    shown.map(|(name, hard)| format!("{name}: {}/{}", used(name), hard.0)).collect::<Vec<_>>().join(", ").into()
}

fn validate_amounts(amounts: Option<&Amounts>, path: &Path, errors: &mut Errors) {
    for (name, quantity) in amounts.into_iter().flatten() {
        let path = path.key(name);
        let right = resource_name(&path, name, errors);
        if right && !name.contains('/') && !is_quota_resource(name) {
            errors.push(Error::invalid(&path, name.as_str(), "must be a standard resource for quota"));
        }
        resource_amount(&path, name, quantity, errors);
    }
}

fn validate(spec: &ResourceQuotaSpec, path: &Path, errors: &mut Errors) {
    validate_amounts(spec.hard.as_ref(), &path.child("hard"), errors);
    let scopes = list(&spec.scopes);
    if !scopes.is_empty() {
        let (path, given) = (path.child("scopes"), json!(scopes));
        for scope in scopes {
            if !is_scope(scope) {
                errors.push(Error::invalid(&path, given.clone(), "unsupported scope"));
            }
            unfit(spec, scope, &path, &given, errors);
        }
        conflicting(&scopes.iter().map(String::as_str).collect::<Vec<_>>(), &path, &given, errors);
    }
    let Some(selector) = &spec.scope_selector else { return };
    let (path, expressions) = (path.child("scopeSelector.matchExpressions"), list(&selector.match_expressions));
    for expression in expressions {
        if !is_scope(&expression.scope_name) {
            errors.push(Error::invalid(&path.child("scopeName"), expression.scope_name.as_str(), "unsupported scope"));
        }
        unfit(spec, &expression.scope_name, &path, &json!(selector), errors);
        validate_expression(expression, &path, errors);
    }
    let scopes: Vec<_> = expressions.iter().map(|expression| expression.scope_name.as_str()).collect();
    conflicting(&scopes, &path, &json!(spec.scopes), errors);
}

fn is_scope(scope: &str) -> bool {
    PLAIN.contains(&scope) || VALUED.contains(&scope)
}

/// Each resource is one that the scope can be about.
fn unfit(spec: &ResourceQuotaSpec, scope: &str, path: &Path, given: &Value, errors: &mut Errors) {
    let fits = |name: &str| match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&name),
        scope if is_scope(scope) => COMPUTE.contains(&name),
        _ => true,
    };
    for _ in spec.hard.iter().flatten().filter(|(name, _)| is_quota_resource(name) && !fits(name)) {
        errors.push(Error::invalid(path, given.clone(), "unsupported scope applied to resource"));
    }
}

fn conflicting(scopes: &[&str], path: &Path, given: &Value, errors: &mut Errors) {
    for _ in CONFLICTS.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))) {
        errors.push(Error::invalid(path, given.clone(), "conflicting scopes"));
    }
}

fn validate_expression(expression: &ScopedResourceSelectorRequirement, path: &Path, errors: &mut Errors) {
    let (operator, values) = (expression.operator.as_str(), list(&expression.values));
    let (at, path) = (path.child("operator"), path.child("values"));
    if PLAIN.contains(&expression.scope_name.as_str()) && operator != "Exists" {
        errors.push(Error::invalid(&at, operator, EXISTS));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(Error::required(&path, detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(Error::invalid(&path, json!(values), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(Error::invalid(&at, other, "not a valid selector operator")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn quota(spec: Value) -> ResourceQuota {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        quota(spec.clone()).validate(&mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{spec}");
    }

    #[test]
    fn names_and_amounts() {
        check(
            json!({"hard": {"cpu": "100", "requests.cpu": "100", "limits.memory": "1Gi", "pods": "10", "services.nodeports": "5",
                "count/deployments.apps": "3", "requests.example.com/gpu": "4", "requests.hugepages-2Mi": "2Mi"}}),
            &[],
        );
        check(
            json!({"hard": {"storage": "1Gi", "pods": "500m", "cpu": "-1", "unknown": "1"}}),
            &[
                "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
                "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
                "spec.hard[unknown]: Invalid value: \"unknown\": must be a standard resource type or fully qualified",
            ],
        );
    }

    #[test]
    fn scopes() {
        check(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), &[]);
        check(json!({"hard": {"requests.cpu": "1"}, "scopes": ["NotBestEffort", "Terminating"]}), &[]);
        let given = "spec.scopes: Invalid value: [\"BestEffort\"]";
        check(
            json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
            &[&format!("{given}: unsupported scope applied to resource")],
        );
        check(
            json!({"hard": {"pods": "1"}, "scopes": ["Terminating", "NotTerminating"]}),
            &["spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"],
        );
        check(json!({"scopes": ["Nowhere"]}), &["spec.scopes: Invalid value: [\"Nowhere\"]: unsupported scope"]);
    }

    #[test]
    fn selectors() {
        let selector = |expression: Value| json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [expression]}});
        let at = "spec.scopeSelector.matchExpressions";
        check(selector(json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]})), &[]);
        check(
            selector(json!({"scopeName": "PriorityClass", "operator": "In"})),
            &[&format!(
                "{at}.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            )],
        );
        check(
            selector(json!({"scopeName": "Terminating", "operator": "In", "values": ["a"]})),
            &[&format!("{at}.operator: Invalid value: \"In\": {EXISTS}")],
        );
        check(
            selector(json!({"scopeName": "PriorityClass", "operator": "Near"})),
            &[&format!("{at}.operator: Invalid value: \"Near\": not a valid selector operator")],
        );
    }

    #[test]
    fn scopes_stay() {
        let check = |new: Value, old: Value, expected: &str| {
            let mut errors = Errors::new();
            quota(json!({"scopes": new})).validate_update(&quota(json!({"scopes": old})), &mut errors);
            assert_eq!(errors.to_string(), expected);
        };
        check(json!(["BestEffort", "Terminating"]), json!(["Terminating", "BestEffort"]), "");
        check(json!(["BestEffort"]), json!([]), "spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable");
    }

    #[test]
    fn cells() {
        let status =
            json!({"hard": {"limits.cpu": "2", "pods": "4", "requests.cpu": "1"}, "used": {"limits.cpu": "1", "pods": "2"}});
        let quota: ResourceQuota = serde_json::from_value(json!({"status": status})).unwrap();
        assert_eq!(usage(&quota, false), json!("pods: 2/4, requests.cpu: 0/1"));
        assert_eq!(usage(&quota, true), json!("limits.cpu: 1/2"));
    }
}
