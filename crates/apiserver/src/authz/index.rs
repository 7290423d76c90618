//! All roles and bindings, compiled: from a subject to the rules that it has. Each object is compiled by itself, and bindings say only the name of
//! their role, so that a change costs what the changed object says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use apimachinery::meta;
use registry::User;
use serde_json::Value;

use super::Attributes;
use super::Rule;
use super::aggregation::ClusterRoles;
use super::rules::Rules;

/// The role that a binding gives.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RoleRef {
    is_cluster: bool,
    name: Box<str>,
}

impl RoleRef {
    fn of(reference: &Value) -> Self {
        let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
        Self { is_cluster: text("kind") == "ClusterRole", name: text("name").into() }
    }

    /// What is said where it does not exist.
    fn missing(&self) -> String {
        let kind = if self.is_cluster { "clusterrole" } else { "role" };
        format!("{kind}.rbac.authorization.k8s.io {} not found", apimachinery::text::quote(&self.name))
    }
}

/// Whom a binding gives it to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(Box<str>),
    Group(Box<str>),
}

/// A binding, compiled.
#[derive(Debug, PartialEq, Eq)]
struct Binding {
    role: RoleRef,
    subjects: HashSet<Subject>,
}

impl Binding {
    fn of(binding: &Value) -> Self {
        let subjects = binding.get("subjects").and_then(Value::as_array).into_iter().flatten();
        let own = meta::namespace(binding);
        let subjects = subjects.filter_map(|subject| {
            let text = |key: &str| subject.get(key).and_then(Value::as_str).unwrap_or_default();
            Some(match text("kind") {
                "User" => Subject::User(text("name").into()),
                "Group" => Subject::Group(text("name").into()),
                "ServiceAccount" => {
                    let namespace = if text("namespace").is_empty() { own } else { text("namespace") };
                    Subject::User(format!("system:serviceaccount:{namespace}:{}", text("name")).into())
                }
                _ => return None,
            })
        });
        Self { role: RoleRef::of(&binding["roleRef"]), subjects: subjects.collect() }
    }
}

/// The subject as which a user is bound to a role, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BoundSubject<'a> {
    /// Empty for a ClusterRoleBinding.
    namespace: &'a str,
    user: &'a str,
    /// As whose member; none as itself.
    group: Option<&'a str>,
}

/// By what a request is allowed. Few ask for that, so it is told in words only where somebody does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    to: BoundSubject<'a>,
    name: Arc<str>,
    binding: Arc<Binding>,
}

impl fmt::Display for Grant<'_> {
    /// As upstream, with the namespace behind the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use apimachinery::text::quote;
        let within = |name: &str, namespace: &str| quote(&format!("{name}/{namespace}"));
        let binding = match self.to.namespace {
            "" => format!("ClusterRoleBinding {}", quote(&self.name)),
            namespace => format!("RoleBinding {}", within(&self.name, namespace)),
        };
        let RoleRef { is_cluster, name } = &self.binding.role;
        let role = if *is_cluster { "ClusterRole" } else { "Role" };
        write!(f, "{binding} of {role} {} to ", quote(name))?;
        let account = self.to.user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        match (self.to.group, account) {
            (Some(group), _) => write!(f, "Group {}", quote(group)),
            (None, Some((namespace, name))) => write!(f, "ServiceAccount {}", within(name, namespace)),
            (None, None) => write!(f, "User {}", quote(self.to.user)),
        }
    }
}

/// The bindings of a subject by their names.
type Bound = BTreeMap<Arc<str>, Arc<Binding>>;
/// A binding by its name.
type NamedBinding<'i> = (&'i Arc<str>, &'i Arc<Binding>);

/// The bindings of a namespace, or of the cluster.
#[derive(Default)]
struct Bindings {
    named: HashMap<Arc<str>, Arc<Binding>>,
    users: HashMap<Box<str>, Bound>,
    groups: HashMap<Box<str>, Bound>,
}

impl Bindings {
    /// The bindings of a user, which are in `namespace`, with their names.
    fn of<'i, 'a>(&'i self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = (BoundSubject<'a>, NamedBinding<'i>)> {
        let groups = user.groups.iter().filter_map(|group| Some((Some(group.as_str()), self.groups.get(group.as_str())?)));
        let own = self.users.get(user.name.as_str()).map(|bound| (None, bound));
        own.into_iter().chain(groups).flat_map(move |(group, bound)| {
            bound.iter().map(move |named| (BoundSubject { namespace, user: &user.name, group }, named))
        })
    }

    fn put(&mut self, name: &str, binding: Option<Binding>) {
        if let Some((name, old)) = self.named.remove_entry(name) {
            for subject in &old.subjects {
                let (map, subject) = self.bound(subject);
                if let Some(bound) = map.get_mut(subject) {
                    bound.remove(&name);
                    if bound.is_empty() {
                        map.remove(subject);
                    }
                }
            }
        }
        let Some(binding) = binding else { return };
        let (name, binding): (Arc<str>, _) = (name.into(), Arc::new(binding));
        for subject in &binding.subjects {
            let (map, subject) = self.bound(subject);
            map.entry(subject.into()).or_default().insert(name.clone(), binding.clone());
        }
        self.named.insert(name, binding);
    }

    fn bound<'a, 's>(&'a mut self, subject: &'s Subject) -> (&'a mut HashMap<Box<str>, Bound>, &'s str) {
        match subject {
            Subject::User(name) => (&mut self.users, name),
            Subject::Group(name) => (&mut self.groups, name),
        }
    }
}

/// What is in a namespace.
#[derive(Default)]
struct Namespace {
    bindings: Bindings,
    roles: HashMap<Box<str>, Rules>,
}

/// The compiled form of all RBAC objects.
#[derive(Default)]
pub struct Index {
    bindings: Bindings,
    namespaces: HashMap<Box<str>, Namespace>,
    pub(super) cluster_roles: ClusterRoles,
}

impl Index {
    /// The Role of that namespace and name is this one from now on, or none.
    pub(super) fn put_role(&mut self, namespace: &str, name: &str, role: Option<&Value>) {
        self.within(namespace, |own| match role {
            Some(role) => drop(own.roles.insert(name.into(), Rule::read_all(role).into())),
            None => drop(own.roles.remove(name)),
        });
    }

    /// The same of a RoleBinding, or, in no namespace, of a ClusterRoleBinding.
    pub(super) fn put_binding(&mut self, namespace: &str, name: &str, binding: Option<&Value>) {
        let binding = binding.map(Binding::of);
        match namespace {
            "" => self.bindings.put(name, binding),
            _ => self.within(namespace, |own| own.bindings.put(name, binding)),
        }
    }

    fn within(&mut self, namespace: &str, change: impl FnOnce(&mut Namespace)) {
        let own = self.namespaces.entry(namespace.into()).or_default();
        change(own);
        if own.roles.is_empty() && own.bindings.named.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    fn resolve(&self, namespace: &str, role: &RoleRef) -> Option<&Rules> {
        match role.is_cluster {
            true => self.cluster_roles.rules(&role.name),
            false => self.namespaces.get(namespace)?.roles.get(&role.name),
        }
    }

    /// The rules of a roleRef.
    pub fn referenced(&self, namespace: &str, reference: &Value) -> Option<Arc<[Rule]>> {
        self.resolve(namespace, &RoleRef::of(reference)).cloned()
    }

    /// Roles that bindings of this user refer to and that do not exist, as messages. Of other users' it says nothing.
    pub fn missing(&self, user: &User, namespace: &str) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for (to, (_, binding)) in self.bound(user, namespace) {
            let role = &binding.role;
            let message = if self.resolve(to.namespace, role).is_none() { role.missing() } else { continue };
            if !all.contains(&message) {
                all.push(message);
            }
        }
        all
    }

    /// What binds a user to roles in a namespace (empty: in the cluster).
    fn bound<'i, 'a>(&'i self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = (BoundSubject<'a>, NamedBinding<'i>)> {
        let own = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        let own = own.into_iter().flat_map(move |own| own.bindings.of(user, namespace));
        self.bindings.of(user, "").chain(own)
    }

    /// The rules that a user has in a namespace (empty: in the cluster), those of a role together.
    pub fn rules<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Arc<[Rule]>> {
        self.bound(user, namespace).filter_map(move |(to, (_, binding))| self.resolve(to.namespace, &binding.role))
    }

    /// By what some rule allows the request.
    pub(super) fn grant<'a>(&self, attributes: &Attributes<'a>) -> Option<Grant<'a>> {
        let namespace = if attributes.is_resource { attributes.namespace } else { "" };
        let mut bound = self.bound(attributes.user, namespace);
        bound.find_map(|(to, (name, binding))| {
            let rules = self.resolve(to.namespace, &binding.role)?;
            let allows = rules.iter().any(|rule| rule.allows(attributes));
            allows.then(|| Grant { to, name: name.clone(), binding: binding.clone() })
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::follow::{Objects, index};
    use super::*;
    use serde_json::json;

    /// Whether some rule allows the request.
    pub(in super::super) fn allows(index: &Index, attributes: &Attributes<'_>) -> bool {
        index.grant(attributes).is_some()
    }

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
        let index = index(&objects());
        let a = Attributes { verb, namespace, resource, is_resource: true, ..Attributes::new(&user) };
        assert_eq!(allows(&index, &a), expected, "{a:?}");
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
        let index = index(&objects());
        let check = |name: &str, namespace: &str, expected: &[&str]| {
            assert_eq!(index.missing(&crate::authn::user(name, Vec::new()), namespace), expected);
        };
        check("joe", "n", &[r#"role.rbac.authorization.k8s.io "none" not found"#]);
        check("joe", "other", &[]);
        check("jane", "n", &[]);
    }

    /// Each change by itself comes to the same as all objects at once, whatever the order.
    #[test]
    fn changes_come_one_by_one() {
        let objects = objects();
        let user = |name: &str| crate::authn::user(name, Vec::new());
        let may = |index: &Index, name: &str, verb: &str, namespace: &str, resource: &str| {
            allows(index, &Attributes { verb, namespace, resource, is_resource: true, ..Attributes::new(&user(name)) })
        };
        let mut index = Index::default();
        for binding in &objects.bindings {
            index.put_binding("n", meta::name(binding), Some(binding));
        }
        let account = "system:serviceaccount:n:a";
        assert!(!may(&index, account, "get", "n", "secrets"));
        assert_eq!(index.missing(&user(account), "n"), [r#"role.rbac.authorization.k8s.io "r" not found"#]);
        index.put_role("n", "r", Some(&objects.roles[0]));
        assert!(may(&index, account, "get", "n", "secrets") && index.missing(&user(account), "n").is_empty());
        for role in objects.cluster_roles.iter().rev() {
            index.cluster_roles.put(meta::name(role), Some(role));
        }
        index.cluster_roles.settle();
        assert!(may(&index, "jane", "create", "n", "pods") && may(&index, "jane", "get", "n", "pods"));
        // A role that is selected goes, and with it what it gave to others.
        index.cluster_roles.put("base", None);
        index.cluster_roles.settle();
        assert!(may(&index, "jane", "create", "n", "pods") && !may(&index, "jane", "get", "n", "pods"));
        // A binding has other subjects, then none.
        let mut other = objects.bindings[1].clone();
        other["subjects"][0]["name"] = "jim".into();
        index.put_binding("n", "c", Some(&other));
        assert!(!may(&index, "jane", "create", "n", "pods") && may(&index, "jim", "create", "n", "pods"));
        index.put_binding("n", "c", None);
        assert!(!may(&index, "jim", "create", "n", "pods"));
        for name in ["b", "d"] {
            index.put_binding("n", name, None);
        }
        index.put_role("n", "r", None);
        assert!(index.namespaces.is_empty(), "nothing is left of what has gone");
    }
}
