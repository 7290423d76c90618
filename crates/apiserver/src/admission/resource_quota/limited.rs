//! What nobody may have without a quota that covers it: `limitedResources` of the plugin's configuration (docs "Resource Quotas", "Limit
//! Priority Class consumption by default"). Pure.

use std::collections::BTreeSet;

use apimachinery::{Reason, Status};
use codec::Decode;
use k8s_openapi::api::core::v1::{ResourceQuotaSpec, ScopedResourceSelectorRequirement as Requirement};
use pods::quota;
use serde_json::{Value, json};

use super::decide::{Asked, amounts};

/// One entry of the list.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::admission) struct Limited {
    group: String,
    plural: String,
    /// Parts of names of what is limited.
    contains: Vec<String>,
    /// Scopes that have to be covered by name.
    scopes: Vec<Requirement>,
}

/// Why an object may not be.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Lacking {
    #[error("insufficient quota to consume: {}", .0.join(","))]
    Resources(Vec<String>),
    #[error("insufficient quota to match these scopes: [{}]", .0.join(" "))]
    Scopes(Vec<String>),
}

impl Lacking {
    /// As upstream answers: what lacks a scope is an error of no known reason.
    pub(super) fn status(&self, forbidden: impl FnOnce(&Self) -> Status) -> Status {
        match self {
            Self::Resources(_) => forbidden(self),
            Self::Scopes(_) => Status::new(500, Reason::from(""), self.to_string()),
        }
    }
}

/// The configuration of the plugin.
///
/// # Errors
/// What is wrong with it, with its field.
pub(in crate::admission) fn parse(value: &Value) -> Result<Vec<Limited>, String> {
    let is = |version: &str, kind: &str| value["apiVersion"] == version && value["kind"] == kind;
    let older =
        ["v1beta1", "v1alpha1"].iter().any(|version| is(&format!("resourcequota.admission.k8s.io/{version}"), "Configuration"));
    if !older && !is("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration") {
        return Err("it is not a ResourceQuotaConfiguration of apiserver.config.k8s.io/v1".to_owned());
    }
    let limits = value["limitedResources"].as_array().into_iter().flatten().enumerate();
    limits.map(|(index, limit)| one(limit).map_err(|why| format!("limitedResources[{index}].{why}"))).collect()
}

fn one(limit: &Value) -> Result<Limited, String> {
    let text = |field: &str| limit[field].as_str().unwrap_or_default().to_owned();
    let list = |field: &'static str| limit[field].as_array().into_iter().flatten().enumerate();
    let part = |(index, part): (usize, &Value)| {
        part.as_str().map(str::to_owned).ok_or_else(|| format!("matchContains[{index}]: Invalid value: must be a string"))
    };
    // As a quota's own, so that one decoder knows them.
    let scopes = json!({"scopeSelector": {"matchExpressions": limit.get("matchScopes").unwrap_or(&json!([]))}});
    let scopes = ResourceQuotaSpec::from_tree(&scopes).map_err(|why| format!("matchScopes: Invalid value: {why}"))?;
    let limited = Limited {
        group: text("apiGroup"),
        plural: text("resource"),
        contains: list("matchContains").map(part).collect::<Result<_, _>>()?,
        scopes: scopes.scope_selector.and_then(|selector| selector.match_expressions).unwrap_or_default(),
    };
    if limited.plural.is_empty() { Err("resource: Required value".to_owned()) } else { Ok(limited) }
}

/// Whether all that is limited of a request is covered by a quota. A change that takes nothing more is not looked at.
pub(super) fn check(limited: &[Limited], asked: &Asked<'_>, quotas: &[Value]) -> Result<(), Lacking> {
    let taken = asked.more();
    if limited.is_empty() || taken.is_empty() {
        return Ok(());
    }
    let object = asked.scoped();
    let specs = || quotas.iter().map(|quota| (quota, ResourceQuotaSpec::from_tree(&quota["spec"]).unwrap_or_default()));
    let about = specs().filter(|(_, spec)| quota::selects(spec, object));
    let covered: BTreeSet<String> = about.flat_map(|(quota, _)| amounts(&quota["status"]["hard"]).into_keys()).collect();
    let (group, plural) = asked.resource();
    let parts: Vec<&String> =
        limited.iter().filter(|limit| limit.group == group && limit.plural == plural).flat_map(|limit| &limit.contains).collect();
    let is_limited = |name: &String| parts.iter().any(|part| name.contains(part.as_str()));
    let lacking: Vec<String> = taken.into_keys().filter(is_limited).filter(|name| !covered.contains(name)).collect();
    if !lacking.is_empty() {
        return Err(Lacking::Resources(lacking));
    }
    let has = |scope: &&Requirement| quota::is_in(object, &scope.scope_name, Some(scope));
    let scopes_of = |(_, spec): (&Value, ResourceQuotaSpec)| quota::scopes_of(&spec, object).collect::<Vec<_>>();
    let held: BTreeSet<String> = specs().flat_map(scopes_of).collect();
    let scopes = limited.iter().flat_map(|limit| &limit.scopes).filter(has).filter(|scope| !held.contains(&scope.scope_name));
    let lacking: Vec<String> = scopes.map(shown).collect();
    if lacking.is_empty() { Ok(()) } else { Err(Lacking::Scopes(lacking)) }
}

/// As upstream's sentence shows a scope.
fn shown(scope: &Requirement) -> String {
    format!("{{{} {} [{}]}}", scope.scope_name, scope.operator, scope.values.as_deref().unwrap_or_default().join(" "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;

    use super::*;

    fn configuration(limits: Value) -> Value {
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration", "limitedResources": limits})
    }

    #[test]
    fn configurations() {
        let check = |value: Value, expected: Result<usize, &str>| {
            assert_eq!(parse(&value).map(|limits| limits.len()), expected.map_err(str::to_owned), "{value}");
        };
        check(configuration(json!([{"resource": "pods", "matchContains": ["cpu"]}])), Ok(1));
        check(json!({"apiVersion": "resourcequota.admission.k8s.io/v1beta1", "kind": "Configuration"}), Ok(0));
        let other = "it is not a ResourceQuotaConfiguration of apiserver.config.k8s.io/v1";
        check(json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "Configuration"}), Err(other));
        check(configuration(json!([{"apiGroup": "apps"}])), Err("limitedResources[0].resource: Required value"));
        let part = "limitedResources[0].matchContains[0]: Invalid value: must be a string";
        check(configuration(json!([{"resource": "pods", "matchContains": [1]}])), Err(part));
    }

    #[track_caller]
    fn refused(limits: &Value, plural: &str, (object, old): (&Value, Option<&Value>), quotas: &[Value], expected: &str) {
        let limited = parse(&configuration(limits.clone())).unwrap();
        let asked = Asked::new("", plural, object, old, Timestamp::UNIX_EPOCH);
        let found = check(&limited, &asked, quotas).map_or_else(|lacking| lacking.to_string(), |()| String::new());
        assert_eq!(found, expected);
    }

    fn quota(spec: Value, hard: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": {}}})
    }

    /// The example of the docs' "Limit Priority Class consumption by default".
    #[test]
    fn scopes() {
        let limits = json!([{"resource": "pods", "matchScopes": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["cluster-services", "other"]}]}]);
        let pod = |class: &str| json!({"spec": {"priorityClassName": class, "containers": [{"name": "c"}]}});
        let why = "insufficient quota to match these scopes: [{PriorityClass In [cluster-services other]}]";
        refused(&limits, "pods", (&pod("cluster-services"), None), &[], why);
        refused(&limits, "pods", (&pod("plain"), None), &[], "");
        refused(&limits, "secrets", (&json!({}), None), &[], "");
        let of = |class: &str| {
            let expression = json!({"scopeName": "PriorityClass", "operator": "In", "values": [class]});
            quota(json!({"scopeSelector": {"matchExpressions": [expression]}}), json!({"pods": "1"}))
        };
        refused(&limits, "pods", (&pod("cluster-services"), None), &[of("cluster-services")], "");
        refused(&limits, "pods", (&pod("cluster-services"), None), &[of("other")], why);
        refused(&limits, "pods", (&pod("cluster-services"), None), &[quota(json!({}), json!({"pods": "1"}))], why);
        refused(&limits, "pods", (&pod("cluster-services"), Some(&pod("cluster-services"))), &[], "");
    }

    #[test]
    fn resources() {
        let limits = json!([{"resource": "pods", "matchContains": ["requests.cpu", "pods"]},
            {"resource": "persistentvolumeclaims", "matchContains": ["gold.storageclass.storage.k8s.io"]}]);
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        refused(&limits, "pods", (&pod, None), &[], "insufficient quota to consume: count/pods,pods,requests.cpu");
        let hard = json!({"count/pods": "1", "pods": "1"});
        refused(&limits, "pods", (&pod, None), &[quota(json!({}), hard.clone())], "insufficient quota to consume: requests.cpu");
        let whole = json!({"count/pods": "1", "pods": "1", "requests.cpu": "1"});
        refused(&limits, "pods", (&pod, None), &[quota(json!({}), hard), quota(json!({}), whole.clone())], "");
        // A quota that is not about the pod covers nothing of it.
        let none = "insufficient quota to consume: count/pods,pods,requests.cpu";
        refused(&limits, "pods", (&pod, None), &[quota(json!({"scopes": ["BestEffort"]}), whole)], none);
        let claim = |class: &str| json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}});
        let gold = "gold.storageclass.storage.k8s.io/";
        let why = format!("insufficient quota to consume: {gold}persistentvolumeclaims,{gold}requests.storage");
        refused(&limits, "persistentvolumeclaims", (&claim("gold"), None), &[], &why);
        refused(&limits, "persistentvolumeclaims", (&claim("silver"), None), &[], "");
        refused(&limits, "persistentvolumeclaims", (&claim("gold"), Some(&claim("gold"))), &[], "");
    }
}
