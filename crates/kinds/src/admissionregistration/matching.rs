//! What webhooks and policies match: rules, selectors and conditions.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use apimachinery::names;
use cel::Type;
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, MatchResources, NamedRuleWithOperations, RuleWithOperations};
use serde_json::Value;

use super::expressions;
use crate::rules::{self, list, text};
use crate::util::{each, set_default};

/// What a webhook or a validating policy may match.
pub(super) const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// What a mutating policy may match: there is nothing to mutate in a deletion.
pub(super) const MUTATING_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
pub(super) const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const MAX_CONDITIONS: usize = 64;

/// Defaults of `rules` and the like.
pub(super) fn default_rules(object: &mut Value, key: &str) {
    each(object, key).for_each(|rule| set_default(rule, "scope", "*"));
}

/// Defaults of a `MatchResources`.
pub(super) fn default_resources(resources: &mut Value) {
    set_default(resources, "matchPolicy", "Equivalent");
    set_default(resources, "namespaceSelector", serde_json::json!({}));
    set_default(resources, "objectSelector", serde_json::json!({}));
    default_rules(resources, "resourceRules");
    default_rules(resources, "excludeResourceRules");
}

/// A rule of a webhook or a policy.
struct Rule<'a> {
    operations: &'a [String],
    groups: &'a [String],
    versions: &'a [String],
    resources: &'a [String],
    scope: Option<&'a str>,
}

/// A rule of a webhook.
pub(super) fn validate_rule(rule: &RuleWithOperations, path: &Path, errors: &mut Errors) {
    let rule = Rule {
        operations: list(&rule.operations),
        groups: list(&rule.api_groups),
        versions: list(&rule.api_versions),
        resources: list(&rule.resources),
        scope: rule.scope.as_deref(),
    };
    rule.validate(OPERATIONS, path, errors);
}

/// A rule of a policy.
fn validate_named_rule(rule: &NamedRuleWithOperations, operations: &[&str], path: &Path, errors: &mut Errors) {
    let (names, at) = (list(&rule.resource_names), path.child("resourceNames"));
    let mut seen = HashSet::new();
    for (index, name) in names.iter().enumerate() {
        let at = at.index(index);
        errors.invalid_each(&at, name, names::path_segment_name(name));
        if !seen.insert(name) {
            errors.push(Error::duplicate(&at, name.as_str()));
        }
    }
    let rule = Rule {
        operations: list(&rule.operations),
        groups: list(&rule.api_groups),
        versions: list(&rule.api_versions),
        resources: list(&rule.resources),
        scope: rule.scope.as_deref(),
    };
    rule.validate(operations, path, errors);
}

impl Rule<'_> {
    fn validate(&self, operations: &[&str], path: &Path, errors: &mut Errors) {
        some_or_all(self.operations, &path.child("operations"), "operations", errors);
        for (index, operation) in self.operations.iter().enumerate() {
            rules::supported(&path.child("operations").index(index), Some(operation), operations, errors);
        }
        some_or_all(self.groups, &path.child("apiGroups"), "API groups", errors);
        let at = path.child("apiVersions");
        some_or_all(self.versions, &at, "API versions", errors);
        for (index, _) in self.versions.iter().enumerate().filter(|(_, version)| version.is_empty()) {
            errors.push(Error::required(&at.index(index), ""));
        }
        validate_resources(self.resources, &path.child("resources"), errors);
        rules::supported(&path.child("scope"), self.scope, SCOPES, errors);
    }
}

/// At least one, and nothing beside `*`.
fn some_or_all(values: &[String], path: &Path, what: &str, errors: &mut Errors) {
    if values.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if values.len() > 1 && values.iter().any(|value| value == "*") {
        errors.push(Error::invalid(path, values, format!("if '*' is present, must not specify other {what}")));
    }
}

/// Resources with their sub-resources; none may be covered by another one.
fn validate_resources(resources: &[String], path: &Path, errors: &mut Errors) {
    if resources.is_empty() {
        errors.push(Error::required(path, ""));
    }
    let (mut whole, mut subs) = (Vec::new(), Vec::new());
    for (index, name) in resources.iter().enumerate() {
        let at = path.index(index);
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
        }
        let Some((resource, sub)) = name.split_once('/') else { continue };
        if whole.contains(&resource) {
            errors.push(Error::invalid(&at, name.as_str(), format!("if '{resource}/*' is present, must not specify {name}")));
        }
        if subs.contains(&sub) {
            errors.push(Error::invalid(&at, name.as_str(), format!("if '*/{sub}' is present, must not specify {name}")));
        }
        if sub == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            subs.push(sub);
        }
    }
    if resources.len() > 1 && resources.iter().any(|name| name == "*/*") {
        errors.push(Error::invalid(path, resources, "if '*/*' is present, must not specify other resources"));
    }
    let last_plain = resources.iter().rfind(|name| !name.is_empty() && !name.contains('/'));
    if resources.iter().any(|name| name == "*") && last_plain.is_some_and(|name| name != "*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(Error::invalid(path, resources, detail));
    }
}

/// What a policy or a binding matches.
pub(super) fn validate_match_resources(resources: &MatchResources, operations: &[&str], path: &Path, errors: &mut Errors) {
    rules::one_of(&path.child("matchPolicy"), text(&resources.match_policy), MATCH_POLICIES, errors);
    let selectors = [("namespaceSelector", &resources.namespace_selector), ("objectSelector", &resources.object_selector)];
    for (name, selector) in selectors {
        match selector {
            Some(selector) => validate_label_selector(selector, &path.child(name), errors),
            None => errors.push(Error::required(&path.child(name), "")),
        }
    }
    let both = [("resourceRules", &resources.resource_rules), ("excludeResourceRules", &resources.exclude_resource_rules)];
    for (name, rules) in both {
        for (index, rule) in list(rules).iter().enumerate() {
            validate_named_rule(rule, operations, &path.child(name).index(index), errors);
        }
    }
}

/// An expression that can be compiled, and says whether something is so.
fn validate_expression(expression: &str, variables: &[(&'static str, Type)], path: &Path, errors: &mut Errors) {
    if expression.trim().is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        expressions::check(expression, variables, &[Type::Bool], path, errors);
    }
}

/// Conditions under which a webhook or a policy is asked.
pub(super) fn validate_match_conditions(conditions: &[MatchCondition], names: &[&'static str], path: &Path, errors: &mut Errors) {
    if conditions.len() > MAX_CONDITIONS {
        errors.push(Error::too_many(path, conditions.len(), MAX_CONDITIONS));
    }
    let (variables, mut known) = (expressions::variables(names), HashSet::new());
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        validate_expression(&condition.expression, &variables, &path.child("expression"), errors);
        let at = path.child("name");
        if condition.name.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        rules::qualified_name(&at, &condition.name, errors);
        if !known.insert(condition.name.as_str()) {
            errors.push(Error::duplicate(&at, condition.name.as_str()));
        }
    }
}
