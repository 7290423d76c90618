//! All roles and bindings, compiled: from a subject to the rules that it has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::{labels, meta};
use indexmap::IndexSet;
use registry::User;
use serde_json::Value;

use super::{Attributes, Rule};

type Rules = Arc<[Rule]>;
/// What a binding gives: rules, or the message that its role does not exist.
type Grant = Result<Rules, Arc<str>>;

/// Rules by subject.
#[derive(Default)]
struct Grants {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

impl Grants {
    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(&user.name).into_iter().chain(groups).flatten()
    }

    fn add(&mut self, binding: &Value, grant: &Grant) {
        let subjects = binding.get("subjects").and_then(Value::as_array).into_iter().flatten();
        for subject in subjects {
            let text = |key: &str| subject.get(key).and_then(Value::as_str).unwrap_or_default();
            let own = meta::namespace(binding);
            let (map, name) = match text("kind") {
                "User" => (&mut self.users, text("name").to_owned()),
                "Group" => (&mut self.groups, text("name").to_owned()),
                "ServiceAccount" => {
                    let namespace = if text("namespace").is_empty() { own } else { text("namespace") };
                    (&mut self.users, format!("system:serviceaccount:{namespace}:{}", text("name")))
                }
                _ => continue,
            };
            map.entry(name).or_default().push(grant.clone());
        }
    }
}

/// The compiled form of all RBAC objects.
#[derive(Default)]
pub struct Index {
    cluster: Grants,
    namespaces: HashMap<String, Grants>,
    cluster_roles: HashMap<String, Rules>,
    roles: HashMap<(String, String), Rules>,
}

/// The RBAC objects of a cluster.
#[derive(Default)]
pub struct Objects {
    pub(crate) cluster_roles: Vec<Value>,
    pub(crate) roles: Vec<Value>,
    pub(crate) cluster_bindings: Vec<Value>,
    pub(crate) bindings: Vec<Value>,
}

impl Index {
    /// Compiles. Aggregated ClusterRoles have the rules of those that they select, whatever they store.
    pub fn new(objects: &Objects) -> Self {
        let mut index = Self::default();
        for role in &objects.cluster_roles {
            let rules = aggregate(role, &objects.cluster_roles).unwrap_or_else(|| Rule::read_all(role));
            index.cluster_roles.insert(meta::name(role).to_owned(), rules.into());
        }
        for role in &objects.roles {
            index.roles.insert((meta::namespace(role).into(), meta::name(role).into()), Rule::read_all(role).into());
        }
        for binding in &objects.cluster_bindings {
            let grant = index.grant("", binding);
            index.cluster.add(binding, &grant);
        }
        for binding in &objects.bindings {
            let namespace = meta::namespace(binding);
            let grant = index.grant(namespace, binding);
            index.namespaces.entry(namespace.to_owned()).or_default().add(binding, &grant);
        }
        index
    }

    fn grant(&self, namespace: &str, binding: &Value) -> Grant {
        self.referenced(namespace, &binding["roleRef"]).ok_or_else(|| {
            let text = |key: &str| binding["roleRef"][key].as_str().unwrap_or_default();
            let kind = if text("kind") == "ClusterRole" { "clusterrole" } else { "role" };
            format!("{kind}.rbac.authorization.k8s.io {} not found", apimachinery::text::quote(text("name"))).into()
        })
    }

    /// The rules of a roleRef.
    pub fn referenced(&self, namespace: &str, reference: &Value) -> Option<Arc<[Rule]>> {
        let name = reference["name"].as_str()?;
        match reference["kind"].as_str()? {
            "ClusterRole" => self.cluster_roles.get(name).cloned(),
            "Role" => self.roles.get(&(namespace.to_owned(), name.to_owned())).cloned(),
            _ => None,
        }
    }

    /// Roles that bindings of this user refer to and that do not exist, as messages. Of other users' it says nothing.
    pub fn missing<'a>(&'a self, user: &'a User, namespace: &str) -> Vec<&'a str> {
        let mut all: Vec<&'a str> = Vec::new();
        for message in self.grants(user, namespace).filter_map(|grant| grant.as_ref().err()) {
            if !all.contains(&message.as_ref()) {
                all.push(message);
            }
        }
        all
    }

    fn grants<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let own = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        self.cluster.of(user).chain(own.into_iter().flat_map(move |grants| grants.of(user)))
    }

    /// The rules that a user has in a namespace (empty: in the cluster).
    pub fn rules<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Rule> {
        self.grants(user, namespace).filter_map(|grant| grant.as_ref().ok()).flat_map(|rules| rules.iter())
    }

    /// Whether some rule allows the request.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let namespace = if attributes.is_resource { attributes.namespace } else { "" };
        self.rules(attributes.user, namespace).any(|rule| rule.allows(attributes))
    }
}

/// The rules of an aggregated ClusterRole; none when it is not one. Those that it selects may aggregate themselves, as edit
/// is part of admin, and may select each other: every role counts once.
pub(super) fn aggregate(role: &Value, all: &[Value]) -> Option<Vec<Rule>> {
    let selectors = selectors(role)?;
    let mut seen: HashSet<&str> = HashSet::from([meta::name(role)]);
    let mut rules: IndexSet<Rule> = IndexSet::new();
    gather(&selectors, all, &mut seen, &mut rules);
    Some(rules.into_iter().collect())
}

fn selectors(role: &Value) -> Option<Vec<labels::Selector>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    Some(selectors.iter().filter_map(|selector| labels::Selector::from_value(selector).ok()).collect())
}

/// Adds the rules of the selected roles in the order of their names. It goes only as deep as roles were not seen before.
fn gather<'a>(selectors: &[labels::Selector], all: &'a [Value], seen: &mut HashSet<&'a str>, rules: &mut IndexSet<Rule>) {
    let is_selected = |role: &&Value| selectors.iter().any(|selector| selector.matches_object(role));
    let mut selected: Vec<&Value> = all.iter().filter(is_selected).filter(|role| seen.insert(meta::name(role))).collect();
    selected.sort_by_key(|role| meta::name(role));
    for role in selected {
        match self::selectors(role) {
            Some(nested) => gather(&nested, all, seen, rules),
            None => rules.extend(Rule::read_all(role)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects() -> Objects {
        let label = |key: &str| json!({"matchLabels": {key: "true"}});
        let rule = |verb: &str, resource: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": [resource]});
        Objects {
            cluster_roles: vec![
                json!({"metadata": {"name": "view", "labels": {"to-edit": "true"}}, "aggregationRule": {"clusterRoleSelectors": [label("to-view")]}, "rules": []}),
                json!({"metadata": {"name": "edit"}, "aggregationRule": {"clusterRoleSelectors": [label("to-edit")]}}),
                json!({"metadata": {"name": "base", "labels": {"to-view": "true"}}, "rules": [rule("get", "pods")]}),
                json!({"metadata": {"name": "more", "labels": {"to-edit": "true"}}, "rules": [rule("create", "pods")]}),
            ],
            roles: vec![json!({"metadata": {"namespace": "n", "name": "r"}, "rules": [rule("get", "secrets")]})],
            cluster_bindings: vec![
                json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "Group", "name": "g"}]}),
            ],
            bindings: vec![
                json!({"metadata": {"namespace": "n", "name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "a"}]}),
                json!({"metadata": {"namespace": "n", "name": "c"}, "roleRef": {"kind": "ClusterRole", "name": "edit"}, "subjects": [{"kind": "User", "name": "jane"}]}),
                json!({"metadata": {"namespace": "n", "name": "d"}, "roleRef": {"kind": "Role", "name": "none"}, "subjects": [{"kind": "User", "name": "joe"}]}),
            ],
        }
    }

    fn check(user: User, verb: &str, namespace: &str, resource: &str, expected: bool) {
        let index = Index::new(&objects());
        let a = Attributes { verb, namespace, resource, is_resource: true, ..Attributes::new(&user) };
        assert_eq!(index.allows(&a), expected, "{a:?}");
    }

    #[test]
    fn bindings() {
        let user = crate::authn::user;
        check(user("x", vec!["g".into()]), "get", "", "pods", true);
        check(user("x", vec!["g".into()]), "get", "other", "pods", true);
        check(user("x", vec!["g".into()]), "create", "n", "pods", false);
        check(user("jane", vec![]), "create", "n", "pods", true);
        check(user("jane", vec![]), "get", "n", "pods", true);
        check(user("jane", vec![]), "get", "", "pods", false);
        check(crate::authn::service_account("n", "a"), "get", "n", "secrets", true);
        check(crate::authn::service_account("m", "a"), "get", "n", "secrets", false);
    }

    #[test]
    fn missing_roles_are_told_to_whom_they_concern() {
        let index = Index::new(&objects());
        let check = |name: &str, namespace: &str, expected: &[&str]| {
            assert_eq!(index.missing(&crate::authn::user(name, Vec::new()), namespace), expected);
        };
        check("joe", "n", &[r#"role.rbac.authorization.k8s.io "none" not found"#]);
        check("joe", "other", &[]);
        check("jane", "n", &[]);
    }

    #[test]
    fn roles_that_select_each_other() {
        let role = |n: usize| {
            let selector = json!([{"matchLabels": {"all": "true"}}]);
            json!({"metadata": {"name": format!("r{n}"), "labels": {"all": "true"}}, "aggregationRule": {"clusterRoleSelectors": selector}})
        };
        let mut all: Vec<Value> = (0..30).map(role).collect();
        let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        all.push(json!({"metadata": {"name": "plain", "labels": {"all": "true"}}, "rules": rules}));
        assert_eq!(aggregate(&all[7], &all), Some(vec![Rule::of("get", "core", "pods")]));
        assert_eq!(aggregate(&all[30], &all), None);
    }
}
