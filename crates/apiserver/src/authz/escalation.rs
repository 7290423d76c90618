//! Nobody grants what they do not have: the check on writes of roles and bindings (API page "Using RBAC Authorization",
//! privilege escalation prevention).

use std::sync::Arc;

use apimachinery::Status;
use apimachinery::field::{Error, Path};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::coverage::Held;
use super::{Attributes, Authorizer, Rule};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The check, in the shape of an admission plugin.
pub struct EscalationCheck {
    authorizer: Arc<Authorizer>,
}

impl EscalationCheck {
    /// With the rules of this authorizer.
    pub fn new(authorizer: Arc<Authorizer>) -> Self {
        Self { authorizer }
    }

    async fn may(&self, request: &Request<'_>, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let base = Attributes::new(request.user);
        let asked = Attributes { verb, group: GROUP, version: "v1", resource, namespace, name, is_resource: true, ..base };
        self.authorizer.allows(request.registry, &asked).await
    }

    fn confirm(&self, request: &Request<'_>, rules: &[Rule]) -> Result<(), Status> {
        let own = self.authorizer.rules_of(request.registry, request.user, request.namespace);
        let held = Held::new(own.iter().flat_map(|rules| rules.iter()));
        let lacking = held.lacking(rules).map_err(|error| {
            let errors = vec![Error::forbidden(&Path::new("rules"), error.to_string())].into();
            Status::invalid(GROUP, &request.resource.def.kind, name(request), &errors)
        })?;
        if lacking.is_empty() {
            return Ok(());
        }
        let mut shown: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        shown.sort();
        let mut groups: Vec<String> = request.user.groups.iter().map(|group| apimachinery::text::quote(group)).collect();
        groups.sort();
        let why = format!(
            "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            apimachinery::text::quote(&request.user.name),
            groups.join(" "),
            shown.join("\n")
        );
        Err(Status::forbidden(&request.resource.group_resource, name(request), why))
    }

    async fn check_role(&self, request: &Request<'_>, object: &Value) -> Result<(), Status> {
        let plural = &*request.resource.def.plural;
        if self.may(request, "escalate", plural, request.namespace, name(request)).await {
            return Ok(());
        }
        self.confirm(request, &Rule::read_all(object))?;
        // What aggregates can gather anything, and what stops to aggregate can keep what it gathered.
        if aggregates(object) || request.old.is_some_and(aggregates) {
            let all = [Rule::of("*", "*", "*"), Rule::paths("*", "*")];
            let own = self.authorizer.rules_of(request.registry, request.user, "");
            if Held::new(own.iter().flat_map(|rules| rules.iter())).lacking(&all) != Ok(Vec::new()) {
                let why = "must have cluster-admin privileges to use the aggregationRule";
                return Err(Status::forbidden(&request.resource.group_resource, name(request), why));
            }
        }
        Ok(())
    }

    async fn check_binding(&self, request: &Request<'_>, object: &Value) -> Result<(), Status> {
        let reference = &object["roleRef"];
        let role = reference["name"].as_str().unwrap_or_default();
        let (plural, namespace) = match reference["kind"].as_str() {
            Some("Role") => ("roles", request.namespace),
            _ => ("clusterroles", ""),
        };
        if self.may(request, "bind", plural, namespace, role).await
            || (namespace.is_empty() && self.may(request, "bind", plural, request.namespace, role).await)
        {
            return Ok(());
        }
        let rules = self.authorizer.index(request.registry).referenced(request.namespace, reference);
        let missing = || {
            let kind = apimachinery::GroupResource::new(GROUP, plural.trim_end_matches('s'));
            Status::not_found(&kind, role)
        };
        self.confirm(request, &rules.ok_or_else(missing)?)
    }
}

fn aggregates(role: &Value) -> bool {
    role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array).is_some_and(|selectors| !selectors.is_empty())
}

/// Whether an update changes only what garbage collection needs. Labels count: by them a role becomes part of an aggregated one.
fn only_for_collection(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for key in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                metadata.remove(key);
            }
        }
        object
    };
    rest(old) == rest(new)
}

fn name<'a>(request: &'a Request<'_>) -> &'a str {
    match request.object() {
        Some(object) if request.name.is_empty() => apimachinery::meta::name(object),
        _ => request.name,
    }
}

#[async_trait]
impl Admission for EscalationCheck {
    fn name(&self) -> &'static str {
        "RBACEscalationCheck"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.resource.def.group == GROUP && matches!(request.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let def = &request.resource.def;
        let Some(object) = request.object() else { return Ok(()) };
        if request.user.groups.iter().any(|group| group == crate::authn::MASTERS)
            || request.old.is_some_and(|old| only_for_collection(old, object))
        {
            return Ok(());
        }
        match &*def.kind {
            "Role" | "ClusterRole" => self.check_role(request, object).await,
            _ => self.check_binding(request, object).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn collection_needs_no_rights() {
        let role = |metadata: Value, verb: &str| json!({"metadata": metadata, "rules": [{"verbs": [verb]}]});
        let check = |metadata: Value, verb: &str, expected: bool| {
            let old = role(json!({"name": "r", "labels": {"a": "b"}}), "get");
            assert_eq!(only_for_collection(&old, &role(metadata, verb)), expected);
        };
        check(json!({"name": "r", "labels": {"a": "b"}, "finalizers": ["x/y"], "ownerReferences": []}), "get", true);
        check(json!({"name": "r", "labels": {"a": "b"}}), "list", false);
        check(json!({"name": "r", "labels": {"a": "b", "aggregate-to-view": "true"}}), "get", false);
        check(json!({"name": "r", "labels": {"a": "b"}, "annotations": {"c": "d"}}), "get", false);
    }
}
