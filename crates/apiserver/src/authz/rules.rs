//! One RBAC rule, compiled (`k8s.io/api/rbac/v1` PolicyRule).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Attributes;

/// The rules of a role.
pub(super) type Rules = Arc<[Rule]>;

/// A set of things that may be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// API groups, `*` for all.
    pub groups: Vec<String>,
    /// Resources, `resource/subresource`, `*/subresource` or `*`.
    pub resources: Vec<String>,
    /// Names; empty for all.
    pub names: Vec<String>,
    /// Paths, maybe with a `*` at the end.
    pub paths: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    /// Reads a PolicyRule.
    pub fn read(value: &Value) -> Self {
        let list = |key: &str| {
            let items = value.get(key).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    /// Reads the rules of a role.
    pub fn read_all(role: &Value) -> Vec<Self> {
        role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Self::read).collect()
    }

    /// Reads space-separated lists; the core group is written `core`.
    pub fn of(verbs: &str, groups: &str, resources: &str) -> Self {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let groups = list(groups).into_iter().map(|group| if group == "core" { String::new() } else { group }).collect();
        Self { verbs: list(verbs), groups, resources: list(resources), ..Self::default() }
    }

    /// A rule for paths.
    pub fn paths(verbs: &str, paths: &str) -> Self {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Self { verbs: list(verbs), paths: list(paths), ..Self::default() }
    }

    /// As a PolicyRule.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        out.insert("verbs".into(), json!(self.verbs));
        let lists = [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ];
        out.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key.to_owned(), json!(list))));
        Value::Object(out)
    }

    /// Whether the rule allows the request.
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if !a.is_resource {
            return self.allows_path(a.path);
        }
        has(&self.groups, a.group)
            && self.allows_resource(a.resource, a.subresource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == a.name))
    }

    fn allows_path(&self, path: &str) -> bool {
        self.paths.iter().any(|rule| match rule.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => rule == path,
        })
    }

    fn allows_resource(&self, resource: &str, sub: &str) -> bool {
        self.resources.iter().any(|rule| match (rule.as_str(), sub) {
            ("*", _) => true,
            (rule, "") => rule == resource,
            (rule, sub) => match rule.split_once('/') {
                Some((r, s)) => s == sub && (r == "*" || r == resource),
                None => false,
            },
        })
    }
}

impl std::fmt::Display for Rule {
    /// As upstream shows a rule in the message about escalation.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lists = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("NonResourceURLs", &self.paths),
            ("Verbs", &self.verbs),
        ];
        let shown = lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
            let quoted: Vec<String> = list.iter().map(|item| apimachinery::text::quote(item)).collect();
            format!("{name}:[{}]", quoted.join(" "))
        });
        write!(f, "{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry::User;

    fn check(rule: &Rule, verb: &str, resource: &str, name: &str, expected: bool) {
        let user = User::default();
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let a = Attributes { verb, resource, subresource, name, is_resource: true, ..Attributes::new(&user) };
        assert_eq!(rule.allows(&a), expected, "{rule} {a:?}");
    }

    #[test]
    fn resources() {
        let pods = Rule::of("get list", "core", "pods pods/log");
        check(&pods, "get", "pods", "", true);
        check(&pods, "get", "pods/log", "p", true);
        check(&pods, "get", "pods/exec", "p", false);
        check(&pods, "create", "pods", "", false);
        let scale = Rule::of("get", "*", "*/scale");
        check(&scale, "get", "pods/scale", "", true);
        check(&scale, "get", "pods", "", false);
        let named = Rule { names: vec!["a".into()], ..Rule::of("get", "core", "secrets") };
        check(&named, "get", "secrets", "a", true);
        check(&named, "get", "secrets", "b", false);
        check(&named, "get", "secrets", "", false);
        check(&Rule::of("*", "*", "*"), "watch", "anything/at-all", "x", true);
        check(&Rule::of("get", "apps", "pods"), "get", "pods", "", false);
    }

    #[test]
    fn paths() {
        let user = User::default();
        let check = |rule: &str, path: &str, expected: bool| {
            let a = Attributes { verb: "get", path, ..Attributes::new(&user) };
            assert_eq!(Rule::paths("get", rule).allows(&a), expected, "{rule} {path}");
        };
        check("/healthz", "/healthz", true);
        check("/healthz", "/healthz/a", false);
        check("/api/*", "/api/v1", true);
        check("*", "/x", true);
    }
}
