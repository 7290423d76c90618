//! FlowSchema (upstream: `pkg/apis/flowcontrol/validation`).

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};
use serde_json::{Value, json};

use super::{bootstrap, has_wildcard};
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, list, text};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, or_none, set_zero};

const DEFAULT_PRECEDENCE: i32 = 1_000;
const MAX_PRECEDENCE: i32 = 10_000;
const EXEMPT: &str = "exempt";
const METHODS: &[&str] = &["ByNamespace", "ByUser"];
const SUBJECTS: &[&str] = &["Group", "ServiceAccount", "User"];
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

impl Kind for FlowSchema {
    const DEF: KindDef = KindDef::new(super::GROUP, "v1", "FlowSchema", "flowschemas", "flowschema")
        .cluster()
        .generation()
        .status_keeps_metadata()
        .rows_by("/spec/matchingPrecedence")
        .subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        set_zero(child_object(object, "spec"), "matchingPrecedence", DEFAULT_PRECEDENCE);
    }

    fn validate(&self, errors: &mut Errors) {
        let (path, none) = (Path::new("spec"), FlowSchemaSpec::default());
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let spec = self.spec.as_ref().unwrap_or(&none);
        validate_spec(name, spec, &path, errors);
        let fixed = bootstrap::mandatory("flowschemas", name).map(codec::from_value::<FlowSchemaSpec>);
        if fixed.is_some_and(|fixed| fixed.is_ok_and(|fixed| fixed != *spec)) {
            errors.push(Error::invalid(&path, json!(spec), format!("spec of '{name}' must equal the fixed value")));
        }
        validate_status(self, errors);
    }

    fn validate_sub(&self, _sub: &str, _old: &Self, errors: &mut Errors) {
        validate_status(self, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "PriorityLevel",
                    "`name` is the name of the priority level configuration being referenced Required.",
                    |schema, _| schema.spec.as_ref().map(|spec| spec.priority_level_configuration.name.clone()).into(),
                ),
                Column::new(
                    "MatchingPrecedence",
                    "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request.",
                    |schema, _| schema.spec.as_ref().and_then(|spec| spec.matching_precedence).into(),
                ),
                Column::new(
                    "DistinguisherMethod",
                    "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema.",
                    |schema, _| {
                        let method = schema.spec.as_ref().and_then(|spec| spec.distinguisher_method.as_ref());
                        or_none(method.map(|method| method.type_.clone()).unwrap_or_default())
                    },
                ),
                Column::AGE,
                Column::new("MissingPL", "references a broken or non-existent PriorityLevelConfiguration", |schema, _| {
                    let conditions = schema.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
                    let dangling = conditions.iter().find(|condition| text(&condition.type_) == "Dangling");
                    dangling.map_or("?", |condition| text(&condition.status)).into()
                }),
            ]
        }
    }
}

fn validate_status(schema: &FlowSchema, errors: &mut Errors) {
    let conditions = schema.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
    super::validate_conditions(conditions.iter().map(|condition| text(&condition.type_)), errors);
}

fn validate_spec(name: &str, spec: &FlowSchemaSpec, path: &Path, errors: &mut Errors) {
    let (precedence, at) = (spec.matching_precedence.unwrap_or_default(), path.child("matchingPrecedence"));
    if precedence <= 0 {
        errors.push(Error::invalid(&at, precedence, "must be a positive value"));
    }
    if precedence > MAX_PRECEDENCE {
        errors.push(Error::invalid(&at, precedence, format!("must not be greater than {MAX_PRECEDENCE}")));
    }
    if precedence == 1 && name != EXEMPT {
        errors.push(Error::invalid(&at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"));
    }
    if let Some(method) = spec.distinguisher_method.as_ref().filter(|method| !METHODS.contains(&method.type_.as_str())) {
        let at = path.child("distinguisherMethod").child("type");
        errors.push(Error::not_supported(&at, method.type_.as_str(), METHODS));
    }
    let (level, at) = (&spec.priority_level_configuration.name, path.child("priorityLevelConfiguration").child("name"));
    if level.is_empty() {
        errors.push(Error::required(&at, "must reference a priority level"));
    } else {
        rules::dns_subdomain(&at, level, errors);
    }
    for (index, rule) in list(&spec.rules).iter().enumerate() {
        validate_rule(rule, &path.child("rules").index(index), errors);
    }
}

fn validate_rule(rule: &PolicyRulesWithSubjects, path: &Path, errors: &mut Errors) {
    if rule.subjects.is_empty() {
        errors.push(Error::required(&path.child("subjects"), "subjects must contain at least one value"));
    }
    for (index, subject) in rule.subjects.iter().enumerate() {
        validate_subject(subject, &path.child("subjects").index(index), errors);
    }
    let (resources, urls) = (list(&rule.resource_rules), list(&rule.non_resource_rules));
    if resources.is_empty() && urls.is_empty() {
        errors.push(Error::required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    for (index, rule) in resources.iter().enumerate() {
        validate_resource_rule(rule, &path.child("resourceRules").index(index), errors);
    }
    for (index, rule) in urls.iter().enumerate() {
        validate_url_rule(rule, &path.child("nonResourceRules").index(index), errors);
    }
}

/// The member that the kind names, and no other one.
fn validate_subject(subject: &Subject, path: &Path, errors: &mut Errors) {
    let kind = subject.kind.as_str();
    if !SUBJECTS.contains(&kind) {
        return errors.push(Error::not_supported(&path.child("kind"), kind, SUBJECTS));
    }
    let members = [
        ("ServiceAccount", "serviceAccount", subject.service_account.as_ref().map(|account| &account.name)),
        ("User", "user", subject.user.as_ref().map(|user| &user.name)),
        ("Group", "group", subject.group.as_ref().map(|group| &group.name)),
    ];
    for (wanted, field, name) in members {
        let at = path.child(field);
        match (kind == wanted, name) {
            (true, None) => errors.push(Error::required(&at, format!("{field} is required when subject kind is '{wanted}'"))),
            (true, Some(name)) => rules::required(&at.child("name"), name, errors),
            (false, Some(_)) => {
                errors.push(Error::forbidden(&at, format!("{field} is forbidden when subject kind is not '{wanted}'")));
            }
            (false, None) => {}
        }
    }
    if let Some(account) = subject.service_account.as_ref().filter(|_| kind == "ServiceAccount") {
        let at = path.child("serviceAccount");
        if !account.name.is_empty() && account.name != "*" {
            rules::dns_subdomain(&at.child("name"), &account.name, errors);
        }
        if account.namespace.is_empty() {
            errors.push(Error::required(&at.child("namespace"), "must specify namespace for service account"));
        } else {
            rules::dns_label(&at.child("namespace"), &account.namespace, errors);
        }
    }
}

fn validate_verbs(verbs: &[String], path: &Path, errors: &mut Errors) {
    let at = path.child("verbs");
    if verbs.is_empty() {
        errors.push(Error::required(&at, "verbs must contain at least one value"));
    } else if has_wildcard(verbs) {
        alone(verbs, "verbs", &at, errors);
    } else if verbs.iter().any(|verb| !VERBS.contains(&verb.as_str())) {
        errors.push(Error::not_supported(&at, verbs, VERBS));
    }
}

/// Nothing beside `*`.
fn alone(values: &[String], what: &str, path: &Path, errors: &mut Errors) {
    if values.len() > 1 && has_wildcard(values) {
        errors.push(Error::invalid(path, values, format!("if '*' is present, must not specify other {what}")));
    }
}

fn validate_resource_rule(rule: &ResourcePolicyRule, path: &Path, errors: &mut Errors) {
    validate_verbs(&rule.verbs, path, errors);
    let lists =
        [("apiGroups", &rule.api_groups, "api group", "api groups"), ("resources", &rule.resources, "resource", "resources")];
    for (field, values, one, many) in lists {
        let at = path.child(field);
        if values.is_empty() {
            errors.push(Error::required(&at, format!("resource rules must supply at least one {one}")));
        }
        alone(values, many, &at, errors);
    }
    let (namespaces, at) = (list(&rule.namespaces), path.child("namespaces"));
    if namespaces.is_empty() && rule.cluster_scope != Some(true) {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(Error::required(&at, detail));
    } else if has_wildcard(namespaces) {
        alone(namespaces, "namespaces", &at, errors);
    } else {
        for (index, namespace) in namespaces.iter().enumerate() {
            let wrong = names::dns1123_label(namespace).into_iter();
            let wrong = wrong.map(|why| format!("each member of this list must be '*' or a DNS-1123 label; {why}")).collect();
            errors.invalid_each(&at.index(index), namespace, wrong);
        }
    }
}

fn validate_url_rule(rule: &NonResourcePolicyRule, path: &Path, errors: &mut Errors) {
    validate_verbs(&rule.verbs, path, errors);
    let (urls, at) = (&rule.non_resource_urls, path.child("nonResourceURLs"));
    if urls.is_empty() {
        errors.push(Error::required(&at, "nonResourceURLs must contain at least one value"));
    } else if has_wildcard(urls) {
        alone(urls, "non-resource URLs", &at, errors);
    } else {
        for (index, url) in urls.iter().enumerate() {
            if let Some(detail) = wrong_url(url) {
                errors.push(Error::invalid(&at.index(index), url.as_str(), detail));
            }
        }
    }
}

fn wrong_url(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        url if !url.starts_with('/') => Some("must start with slash"),
        url if url.contains(' ') => Some("must not contain white-space"),
        url if url.contains("//") => Some("must not contain double slash"),
        url if stars > 1 || (stars == 1 && !url.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}
