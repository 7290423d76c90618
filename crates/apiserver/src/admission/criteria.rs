//! Which requests webhooks and policies want to see: rules, and selectors of namespaces and objects
//! (upstream: `pkg/admission/plugin/webhook/predicates`).

use std::sync::Arc;

use apimachinery::labels::Selector;
use apimachinery::{Status, meta};
use registry::{Operation, Request, Served};
use serde_json::Value;

/// One rule.
#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// With their sub-resources, empty for the object itself.
    resources: Vec<(String, String)>,
    scope: Scope,
    /// Names of objects, any when there are none.
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Any,
    Cluster,
    Namespaced,
}

/// What a rule looks at.
#[derive(Debug)]
struct Subject<'a> {
    operation: Operation,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    is_namespaced: bool,
    name: &'a str,
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Rule {
    fn new(rule: &Value) -> Self {
        let split = |text: String| match text.split_once('/') {
            Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
            None => (text, String::new()),
        };
        Self {
            operations: texts(&rule["operations"]),
            groups: texts(&rule["apiGroups"]),
            versions: texts(&rule["apiVersions"]),
            resources: texts(&rule["resources"]).into_iter().map(split).collect(),
            scope: match rule["scope"].as_str() {
                Some("Cluster") => Scope::Cluster,
                Some("Namespaced") => Scope::Namespaced,
                _ => Scope::Any,
            },
            names: texts(&rule["resourceNames"]),
        }
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        let any = |one: &str, wanted: &str| one == "*" || one == wanted;
        self.resources.iter().any(|(resource, sub)| any(resource, subject.resource) && any(sub, subject.subresource))
            && has(&self.operations, subject.operation.as_str())
            && has(&self.groups, subject.group)
            && has(&self.versions, subject.version)
            && match self.scope {
                Scope::Any => true,
                Scope::Cluster => !subject.is_namespaced,
                Scope::Namespaced => subject.is_namespaced,
            }
            && (self.names.is_empty() || self.names.iter().any(|name| name == subject.name))
    }
}

/// What a webhook, a policy or a binding matches.
#[derive(Debug)]
pub(super) struct Criteria {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Without rules, everything matches: a binding's way to say nothing.
    all: bool,
    /// Requests for other versions of a resource match, too.
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

impl Criteria {
    /// Those of a webhook.
    pub(super) fn of_webhook(hook: &Value) -> Result<Self, String> {
        Self::new(hook, "rules", false)
    }

    /// `matchConstraints` of a policy, or `matchResources` of a binding.
    pub(super) fn of_resources(resources: &Value) -> Result<Self, String> {
        let all = resources["resourceRules"].as_array().is_none_or(Vec::is_empty);
        Self::new(resources, "resourceRules", all)
    }

    fn new(source: &Value, rules: &str, all: bool) -> Result<Self, String> {
        let list = |key: &str| source[key].as_array().into_iter().flatten().map(Rule::new).collect();
        let selector = |key: &str| match &source[key] {
            Value::Null => Ok(Selector::everything()),
            selector => Selector::from_value(selector).map_err(|error| error.to_string()),
        };
        Ok(Self {
            rules: list(rules),
            excluded: list("excludeResourceRules"),
            all,
            equivalent: source["matchPolicy"] == "Equivalent",
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
        })
    }

    /// The version of the resource that matches; none when the request does not concern it.
    pub(super) fn matches(&self, a: &Request<'_>) -> Result<Option<Match>, Status> {
        let versions = Versions::default();
        if self.find(&self.excluded, a, &versions).is_some() {
            return Ok(None);
        }
        let found = if self.all { Some(Match::Asked) } else { self.find(&self.rules, a, &versions) };
        let Some(found) = found else { return Ok(None) };
        if !self.selects_object(a) || !self.selects_namespace(a)? {
            return Ok(None);
        }
        Ok(Some(found))
    }

    fn find(&self, rules: &[Rule], a: &Request<'_>, versions: &Versions) -> Option<Match> {
        let subject = |served: &Served| rules.iter().any(|rule| rule.matches(&subject(a, served)));
        if rules.is_empty() {
            return None;
        }
        if subject(a.resource) {
            return Some(Match::Asked);
        }
        if !self.equivalent {
            return None;
        }
        let other = versions.of(a).iter().find(|served| !std::ptr::eq(&***served, a.resource) && subject(served));
        other.map(|served| Match::Other(served.clone()))
    }

    fn selects_object(&self, a: &Request<'_>) -> bool {
        let selects = |object: Option<&Value>| object.is_some_and(|object| self.objects.matches_object(object));
        self.objects.is_everything() || selects(a.object()) || selects(a.old)
    }

    /// Namespaces are looked at for what is in them, and for what they are. What is in none is selected.
    fn selects_namespace(&self, a: &Request<'_>) -> Result<bool, Status> {
        if self.namespaces.is_everything() {
            return Ok(true);
        }
        if is_namespace(a) {
            let own = if a.subresource.is_empty() { a.object().or(a.old) } else { a.old };
            return Ok(own.is_none_or(|namespace| self.namespaces.matches_object(namespace)));
        }
        if a.namespace.is_empty() {
            return Ok(true);
        }
        namespace_object(a).map(|namespace| self.namespaces.matches_object(&namespace))
    }
}

/// The version of a resource that matches.
#[derive(Clone)]
pub(super) enum Match {
    /// That of the request.
    Asked,
    /// Another one.
    Other(Arc<Served>),
}

impl Match {
    pub(super) fn served<'a>(&'a self, a: &'a Request<'_>) -> &'a Served {
        match self {
            Self::Asked => a.resource,
            Self::Other(served) => served,
        }
    }
}

/// The versions of a request's resource, looked up when they are asked for.
#[derive(Default)]
struct Versions(std::cell::OnceCell<Vec<Arc<Served>>>);

impl Versions {
    fn of(&self, a: &Request<'_>) -> &[Arc<Served>] {
        self.0.get_or_init(|| a.versions())
    }
}

fn subject<'a>(a: &'a Request<'_>, served: &'a Served) -> Subject<'a> {
    Subject {
        operation: a.operation,
        group: &served.def.group,
        version: &served.def.version,
        resource: &served.def.plural,
        subresource: a.subresource,
        is_namespaced: !a.namespace.is_empty(),
        name: super::current::name(a),
    }
}

/// Whether the request is about a namespace itself.
pub(super) fn is_namespace(a: &Request<'_>) -> bool {
    super::is(a, "", "namespaces")
}

/// The namespace that the request's object is in.
pub(super) fn namespace_object(a: &Request<'_>) -> Result<Value, Status> {
    let found = a.registry.resource("", "v1", "namespaces").map(|namespaces| {
        let missing = || Status::not_found(&namespaces.group_resource, a.namespace);
        a.registry.peek(&namespaces, "", a.namespace).ok_or_else(missing)
    });
    found.unwrap_or_else(|| Err(Status::internal("namespaces are not served")))
}

/// The namespace of the request as it is told: that of a namespace is itself.
pub(super) fn namespace_name<'a>(a: &'a Request<'_>) -> &'a str {
    match is_namespace(a) && a.operation != Operation::Create {
        true => a.old.map_or(a.name, meta::name),
        false => a.namespace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POD: Subject<'_> = Subject {
        operation: Operation::Create,
        group: "",
        version: "v1",
        resource: "pods",
        subresource: "",
        is_namespaced: true,
        name: "p",
    };

    /// Cases of upstream's `rules_test.go`: a rule that matches all but for one field.
    #[test]
    fn rules() {
        let check = |change: Value, subject: &Subject<'_>, expected: bool| {
            let mut rule =
                json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "*"});
            change.as_object().into_iter().flatten().for_each(|(key, value)| rule[key] = value.clone());
            assert_eq!(Rule::new(&rule).matches(subject), expected, "{change} {subject:?}");
        };
        let attach = Subject { subresource: "attach", operation: Operation::Connect, ..POD };
        let scale = Subject { subresource: "scale", operation: Operation::Update, ..POD };
        let node = Subject { resource: "nodes", is_namespaced: false, ..POD };
        check(json!({}), &POD, true);
        check(json!({"apiGroups": ["", "apps"]}), &POD, true);
        check(json!({"apiGroups": ["apps"]}), &POD, false);
        check(json!({"apiVersions": ["v2", "v1"]}), &POD, true);
        check(json!({"apiVersions": ["v2"]}), &POD, false);
        check(json!({"operations": ["UPDATE", "CREATE"]}), &POD, true);
        check(json!({"operations": ["UPDATE", "DELETE", "CONNECT"]}), &POD, false);
        check(json!({"operations": ["CONNECT"], "resources": ["pods/attach"]}), &attach, true);
        check(json!({"resources": ["pods"]}), &POD, true);
        check(json!({"resources": ["pods"]}), &attach, false);
        check(json!({"resources": ["*"]}), &attach, false);
        check(json!({"resources": ["*/*"]}), &attach, true);
        check(json!({"resources": ["*/*"]}), &POD, true);
        check(json!({"resources": ["*/scale"]}), &scale, true);
        check(json!({"resources": ["*/scale"]}), &attach, false);
        check(json!({"resources": ["pods/*"]}), &attach, true);
        check(json!({"resources": ["pods/*"]}), &node, false);
        check(json!({"scope": "Namespaced"}), &POD, true);
        check(json!({"scope": "Namespaced"}), &node, false);
        check(json!({"scope": "Cluster"}), &POD, false);
        check(json!({"scope": "Cluster"}), &node, true);
        check(json!({"resourceNames": ["q", "p"]}), &POD, true);
        check(json!({"resourceNames": ["q"]}), &POD, false);
        check(json!({"operations": []}), &POD, false);
        check(json!({"resources": null}), &POD, false);
    }

    #[test]
    fn selectors_that_cannot_be_read_are_an_error() {
        let hook = json!({"objectSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}});
        assert!(Criteria::of_webhook(&hook).is_err());
        assert!(Criteria::of_webhook(&json!({})).is_ok_and(|criteria| !criteria.all && criteria.objects.is_everything()));
        assert!(Criteria::of_resources(&json!({})).is_ok_and(|criteria| criteria.all));
    }
}
