//! All roles and bindings, compiled: from a subject to the rules that it has.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::{labels, meta};
use registry::User;
use serde_json::Value;

use super::{Attributes, Rule};

type Rules = Arc<[Rule]>;

/// Rules by subject.
#[derive(Default)]
struct Grants {
    users: HashMap<String, Vec<Rules>>,
    groups: HashMap<String, Vec<Rules>>,
}

impl Grants {
    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Rule> {
        let groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(&user.name).into_iter().chain(groups).flatten().flat_map(|rules| rules.iter())
    }

    fn add(&mut self, binding: &Value, rules: &Rules) {
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
            map.entry(name).or_default().push(rules.clone());
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
    missing: Vec<String>,
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
            if let Some(rules) = index.resolve("", binding) {
                index.cluster.add(binding, &rules);
            }
        }
        for binding in &objects.bindings {
            let namespace = meta::namespace(binding);
            if let Some(rules) = index.resolve(namespace, binding) {
                index.namespaces.entry(namespace.to_owned()).or_default().add(binding, &rules);
            }
        }
        index
    }

    fn resolve(&mut self, namespace: &str, binding: &Value) -> Option<Rules> {
        let rules = self.referenced(namespace, &binding["roleRef"]);
        if rules.is_none() {
            let text = |key: &str| binding["roleRef"][key].as_str().unwrap_or_default();
            let kind = if text("kind") == "ClusterRole" { "clusterrole" } else { "role" };
            let message = format!("{kind}.rbac.authorization.k8s.io {} not found", apimachinery::text::quote(text("name")));
            if !self.missing.contains(&message) {
                self.missing.push(message);
            }
        }
        rules
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

    /// Roles that bindings refer to and that do not exist, as messages.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The rules that a user has in a namespace (empty: in the cluster).
    pub fn rules<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Rule> {
        let own = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        self.cluster.of(user).chain(own.into_iter().flat_map(move |grants| grants.of(user)))
    }

    /// Whether some rule allows the request.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let namespace = if attributes.is_resource { attributes.namespace } else { "" };
        self.rules(attributes.user, namespace).any(|rule| rule.allows(attributes))
    }
}

/// The rules of an aggregated ClusterRole; none when it is not one.
pub(super) fn aggregate(role: &Value, all: &[Value]) -> Option<Vec<Rule>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    let selectors: Vec<_> = selectors.iter().filter_map(|selector| labels::Selector::from_value(selector).ok()).collect();
    let mut selected: Vec<&Value> = all
        .iter()
        .filter(|other| meta::name(other) != meta::name(role) && selectors.iter().any(|selector| selector.matches_object(other)))
        .collect();
    selected.sort_by_key(|other| meta::name(other));
    let mut rules: Vec<Rule> = Vec::new();
    for other in selected {
        // A selected role can be aggregated itself, as edit is by admin.
        let nested = other.get("aggregationRule").filter(|rule| rule.is_object()).and_then(|_| aggregate_once(other, all, role));
        for rule in nested.unwrap_or_else(|| Rule::read_all(other)) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    Some(rules)
}

/// One level below, without the role above, so that a cycle ends.
fn aggregate_once(role: &Value, all: &[Value], above: &Value) -> Option<Vec<Rule>> {
    let rest: Vec<Value> = all.iter().filter(|other| meta::name(other) != meta::name(above)).cloned().collect();
    aggregate(role, &rest)
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
                json!({"metadata": {"namespace": "n", "name": "d"}, "roleRef": {"kind": "Role", "name": "none"}}),
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
        assert_eq!(Index::new(&objects()).missing(), [r#"role.rbac.authorization.k8s.io "none" not found"#]);
    }
}
