//! Which flow schema a request belongs to (KEP-1040, "Request Categorization").

use apimachinery::meta;
use registry::User;
use serde_json::Value;

/// A request as flow schemas see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digest<'a> {
    /// Who.
    pub(crate) user: &'a User,
    /// API verb, or the HTTP method in lower case for paths.
    pub(crate) verb: &'a str,
    /// Whether it is about a resource.
    pub(crate) is_resource: bool,
    /// API group.
    pub(crate) group: &'a str,
    /// Resource.
    pub(crate) resource: &'a str,
    /// Subresource.
    pub(crate) sub: &'a str,
    /// Namespace, empty for all or none.
    pub(crate) namespace: &'a str,
    /// Path, when it names no resource.
    pub(crate) path: &'a str,
}

/// Names, or all of them.
#[derive(Debug)]
enum Names {
    All,
    These(Vec<String>),
}

impl Names {
    /// A wildcard stands alone, as validation has seen to.
    fn read(rule: &Value, field: &str) -> Self {
        match strings(&rule[field]) {
            names if names == ["*"] => Self::All,
            names => Self::These(names),
        }
    }

    fn any(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.iter().any(|name| is_meant(name)),
        }
    }

    fn has(&self, wanted: &str) -> bool {
        self.any(|name| name == wanted)
    }
}

#[derive(Debug)]
enum Subject {
    Anybody,
    User(String),
    Group(String),
    /// All ServiceAccounts of a namespace, by what their user names begin with.
    Accounts(String),
}

impl Subject {
    fn read(subject: &Value) -> Option<Self> {
        let text = |pointer: &str| subject.pointer(pointer).and_then(Value::as_str);
        Some(match subject["kind"].as_str()? {
            "User" => match text("/user/name")? {
                "*" => Self::Anybody,
                name => Self::User(name.to_owned()),
            },
            "Group" => match text("/group/name")? {
                "*" => Self::Anybody,
                name => Self::Group(name.to_owned()),
            },
            "ServiceAccount" => {
                let namespace = text("/serviceAccount/namespace")?;
                match text("/serviceAccount/name")? {
                    "*" => Self::Accounts(format!("system:serviceaccount:{namespace}:")),
                    name => Self::User(format!("system:serviceaccount:{namespace}:{name}")),
                }
            }
            _ => return None,
        })
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::Anybody => true,
            Self::User(name) => user.name == *name,
            Self::Group(name) => user.groups.iter().any(|group| group == name),
            Self::Accounts(prefix) => user.name.starts_with(prefix),
        }
    }
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    cluster_scope: bool,
}

impl ResourceRule {
    fn read(rule: &Value) -> Self {
        Self {
            verbs: Names::read(rule, "verbs"),
            groups: Names::read(rule, "apiGroups"),
            resources: Names::read(rule, "resources"),
            namespaces: Names::read(rule, "namespaces"),
            cluster_scope: rule["clusterScope"].as_bool().unwrap_or_default(),
        }
    }

    fn matches(&self, asked: &Digest<'_>) -> bool {
        self.verbs.has(asked.verb)
            && self.resources.any(|name| is_resource(name, asked.resource, asked.sub))
            && self.groups.has(asked.group)
            && if asked.namespace.is_empty() { self.cluster_scope } else { self.namespaces.has(asked.namespace) }
    }
}

/// Whether `name` is `resource`, or `resource/sub` where there is a subresource.
fn is_resource(name: &str, resource: &str, sub: &str) -> bool {
    match name.strip_prefix(resource) {
        Some("") => sub.is_empty(),
        Some(rest) => !sub.is_empty() && rest.strip_prefix('/') == Some(sub),
        None => false,
    }
}

#[derive(Debug)]
struct PathRule {
    verbs: Names,
    /// Paths, each with what the paths below it begin with; None for all.
    paths: Option<Vec<(String, String)>>,
}

impl PathRule {
    fn read(rule: &Value) -> Self {
        let paths = strings(&rule["nonResourceURLs"]);
        let all = paths.iter().any(|path| path == "*");
        let below = |path: &str| {
            let start = path.strip_suffix('*').unwrap_or(path);
            if start.ends_with('/') { start.to_owned() } else { format!("{start}/") }
        };
        let paths = paths.into_iter().map(|path| (below(&path), path)).map(|(below, path)| (path, below)).collect();
        Self { verbs: Names::read(rule, "verbs"), paths: (!all).then_some(paths) }
    }

    fn matches(&self, asked: &Digest<'_>) -> bool {
        let is_meant = |(path, below): &(String, String)| asked.path == path || asked.path.starts_with(below.as_str());
        self.verbs.has(asked.verb) && self.paths.as_ref().is_none_or(|paths| paths.iter().any(is_meant))
    }
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

/// The rules of a flow schema, compiled.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// Of an object.
    pub(crate) fn read(schema: &Value) -> Self {
        let rule = |rule: &Value| Rule {
            subjects: list(&rule["subjects"]).filter_map(Subject::read).collect(),
            resources: list(&rule["resourceRules"]).map(ResourceRule::read).collect(),
            paths: list(&rule["nonResourceRules"]).map(PathRule::read).collect(),
        };
        Self(list(&schema["spec"]["rules"]).map(rule).collect())
    }

    /// Whether one of them is about this request and who sends it.
    pub(crate) fn matches(&self, asked: &Digest<'_>) -> bool {
        self.0.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.is(asked.user))
                && match asked.is_resource {
                    true => rule.resources.iter().any(|rule| rule.matches(asked)),
                    false => rule.paths.iter().any(|rule| rule.matches(asked)),
                }
        })
    }
}

/// What tells the flows of one schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distinguisher {
    None,
    User,
    Namespace,
}

impl Distinguisher {
    /// Of an object.
    pub(crate) fn read(schema: &Value) -> Self {
        match schema.pointer("/spec/distinguisherMethod/type").and_then(Value::as_str) {
            Some("ByUser") => Self::User,
            Some("ByNamespace") => Self::Namespace,
            _ => Self::None,
        }
    }

    /// Of a request.
    pub(crate) fn of<'a>(self, asked: &Digest<'a>) -> &'a str {
        self.value(&asked.user.name, asked.namespace)
    }

    /// Of a request of this user in this namespace.
    pub(crate) fn value<'a>(self, user: &'a str, namespace: &'a str) -> &'a str {
        match self {
            Self::None => "",
            Self::User => user,
            Self::Namespace => namespace,
        }
    }
}

/// The order in which schemas are asked: by their precedence, then by their names.
pub(crate) fn precedence(schema: &Value) -> (i64, &str) {
    (schema["spec"]["matchingPrecedence"].as_i64().unwrap_or_default(), meta::name(schema))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> Vec<String> {
    list(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(subject: Value, resource: Value, path: Value) -> Rules {
        Rules::read(&json!({"spec": {"rules": [{
            "subjects": [subject], "resourceRules": [resource], "nonResourceRules": [path],
        }]}}))
    }

    fn get<'a>(user: &'a User, namespace: &'a str, resource: &'a str, sub: &'a str) -> Digest<'a> {
        Digest { user, verb: "get", is_resource: true, group: "", resource, sub, namespace, path: "" }
    }

    #[test]
    fn subjects() {
        let everything = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]});
        let account = crate::authn::service_account("n", "a");
        let jane = crate::authn::user("jane", vec!["g".into()]);
        let check = |subject: Value, user: &User, expected: bool| {
            let rules = rules(subject.clone(), everything.clone(), json!({}));
            assert_eq!(rules.matches(&get(user, "n", "pods", "")), expected, "{subject} {}", user.name);
        };
        check(json!({"kind": "User", "user": {"name": "jane"}}), &jane, true);
        check(json!({"kind": "User", "user": {"name": "joe"}}), &jane, false);
        check(json!({"kind": "User", "user": {"name": "*"}}), &account, true);
        check(json!({"kind": "Group", "group": {"name": "g"}}), &jane, true);
        check(json!({"kind": "Group", "group": {"name": "g"}}), &account, false);
        check(json!({"kind": "Group", "group": {"name": "*"}}), &account, true);
        check(json!({"kind": "Group", "group": {"name": "system:authenticated"}}), &jane, true);
        let accounts = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
        check(accounts("n", "a"), &account, true);
        check(accounts("n", "b"), &account, false);
        check(accounts("n", "*"), &account, true);
        check(accounts("m", "*"), &account, false);
        check(accounts("n", "*"), &jane, false);
    }

    #[test]
    fn resources() {
        let user = crate::authn::user("jane", Vec::new());
        let anybody = json!({"kind": "Group", "group": {"name": "*"}});
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "nodes/status"], "namespaces": ["n"]});
        let check = |change: (&str, Value), asked: Digest<'_>, expected: bool| {
            let mut rule = rule.clone();
            rule[change.0] = change.1;
            assert_eq!(rules(anybody.clone(), rule.clone(), json!({})).matches(&asked), expected, "{rule} {asked:?}");
        };
        let same = || ("verbs", json!(["get"]));
        check(same(), get(&user, "n", "pods", ""), true);
        check(same(), get(&user, "n", "pods", "status"), false);
        check(same(), get(&user, "n", "nodes", "status"), true);
        check(same(), get(&user, "n", "nodes", ""), false);
        check(same(), get(&user, "n", "podsecurities", ""), false);
        check(same(), get(&user, "m", "pods", ""), false);
        check(same(), Digest { group: "apps", ..get(&user, "n", "pods", "") }, false);
        check(("verbs", json!(["list", "watch"])), get(&user, "n", "pods", ""), false);
        check(("namespaces", json!(["*"])), get(&user, "m", "pods", ""), true);
        check(("namespaces", json!(["*"])), get(&user, "", "pods", ""), false);
        check(("clusterScope", json!(true)), get(&user, "", "pods", ""), true);
        check(("resources", json!(["*"])), get(&user, "n", "pods", "log"), true);
    }

    #[test]
    fn paths() {
        let user = crate::authn::user("jane", Vec::new());
        let anybody = json!({"kind": "Group", "group": {"name": "*"}});
        let check = |urls: &[&str], path: &str, expected: bool| {
            let rules = rules(anybody.clone(), json!({}), json!({"verbs": ["get"], "nonResourceURLs": urls}));
            let asked = Digest { is_resource: false, path, ..get(&user, "", "", "") };
            assert_eq!(rules.matches(&asked), expected, "{urls:?} {path}");
            assert!(!rules.matches(&Digest { verb: "post", ..asked }));
        };
        check(&["*"], "/anything", true);
        check(&["/healthz"], "/healthz", true);
        check(&["/healthz"], "/healthz/etcd", true);
        check(&["/healthz"], "/healthzz", false);
        check(&["/a/*"], "/a/b", true);
        check(&["/a/*"], "/a", false);
        check(&["/"], "/", true);
    }
}
