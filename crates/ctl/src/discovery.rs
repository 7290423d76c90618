//! What the server serves, and which resource a name means.
//!
//! Names are kubectl's: plural, singular, short name or kind, and with a group (`deployments.apps`) or a version and a group
//! (`deployments.v1.apps`). Where several groups have a name, the group that the server lists first has it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::error::{Error, Result};

/// Aggregated discovery: everything in two answers (KEP-3352).
pub(crate) const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// What is not escaped in paths and queries (RFC 3986: unreserved characters).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Text as a part of a path or of a query.
pub(crate) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// One resource in one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) short: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
    pub(crate) subresources: Vec<String>,
}

impl Resource {
    /// `apps/v1`
    pub(crate) fn api_version(&self) -> String {
        apimachinery::gvk::api_version(&self.group, &self.version)
    }

    /// `deployments.apps`, as messages name it.
    pub(crate) fn qualified(&self) -> String {
        with_group(&self.plural, &self.group)
    }

    /// `deployment.apps/web`, as kubectl names an object.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.type_name())
    }

    /// `deployment.apps`
    pub(crate) fn type_name(&self) -> String {
        with_group(&self.kind.to_lowercase(), &self.group)
    }

    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// Path of the collection: everywhere, or in a namespace.
    pub(crate) fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let namespace = namespace.filter(|_| self.namespaced).map(|name| format!("/namespaces/{}", escaped(name)));
        format!("{root}/{}{}/{}", self.api_version(), namespace.unwrap_or_default(), self.plural)
    }

    /// Path of an object.
    pub(crate) fn object(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), escaped(name))
    }

    /// Whether a name of one word means this.
    fn answers_to(&self, name: &str) -> bool {
        self.plural == name || self.singular == name || self.kind.to_lowercase() == name
    }
}

fn with_group(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// All resources, in the server's order: groups, and in them the preferred version first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources(pub(crate) Vec<Resource>);

impl Resources {
    /// The resource that a name means.
    ///
    /// # Errors
    /// The server has no such resource.
    pub(crate) fn named(&self, name: &str) -> Result<&Resource> {
        let lower = name.to_lowercase();
        let found = self.whole(&lower).or_else(|| self.versioned(&lower)).or_else(|| self.grouped(&lower));
        found.ok_or_else(|| Error::usage(format!("the server doesn't have a resource type {name:?}")))
    }

    fn whole(&self, name: &str) -> Option<&Resource> {
        let exact = self.0.iter().find(|resource| resource.answers_to(name));
        exact.or_else(|| self.0.iter().find(|resource| resource.short.iter().any(|short| short == name)))
    }

    /// `deployments.v1.apps`, `pods.v1.`
    fn versioned(&self, name: &str) -> Option<&Resource> {
        let (word, rest) = name.split_once('.')?;
        let (version, group) = rest.split_once('.')?;
        self.0.iter().find(|resource| resource.version == version && resource.group == group && resource.is_called(word))
    }

    /// `deployments.apps`; the beginning of a group is enough.
    fn grouped(&self, name: &str) -> Option<&Resource> {
        let (word, group) = name.split_once('.')?;
        let called = || self.0.iter().filter(|resource| resource.is_called(word));
        called().find(|resource| resource.group == group).or_else(|| called().find(|resource| resource.group.starts_with(group)))
    }

    /// The resource of a kind in a version.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.0.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    /// What a category stands for (`all`), each resource in the version that the server prefers.
    pub(crate) fn in_category(&self, category: &str) -> Vec<&Resource> {
        let member = |resource: &&Resource| resource.categories.iter().any(|known| known == category) && resource.can("list");
        self.preferred().filter(member).collect()
    }

    /// Each resource once, in the version that the server prefers.
    pub(crate) fn preferred(&self) -> impl Iterator<Item = &Resource> {
        let same = |a: &Resource, b: &Resource| a.group == b.group && a.plural == b.plural;
        let first = move |at: usize, resource: &Resource| !self.0[..at].iter().any(|other| same(other, resource));
        self.0.iter().enumerate().filter(move |(at, resource)| first(*at, resource)).map(|(_, resource)| resource)
    }
}

impl Resource {
    fn is_called(&self, word: &str) -> bool {
        self.answers_to(word) || self.short.iter().any(|short| short == word)
    }
}

/// Reads the answers of `/api` and `/apis`.
///
/// # Errors
/// The server has no aggregated discovery, which Kubernetes has had since v1.26.
pub(crate) fn parse(answers: &[Value]) -> Result<Resources> {
    let mut resources = Vec::new();
    for answer in answers {
        if answer["kind"] != "APIGroupDiscoveryList" {
            let text = answer["kind"].as_str().unwrap_or_default().to_owned();
            return Err(Error::Answer { what: "without aggregated discovery (Kubernetes before v1.26)", text });
        }
        for group in list(&answer["items"]) {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            for version in list(&group["versions"]) {
                let of = |resource: &Value| parse_resource(name, text(&version["version"]), resource);
                resources.extend(list(&version["resources"]).iter().filter_map(of));
            }
        }
    }
    Ok(Resources(resources))
}

fn parse_resource(group: &str, version: &str, resource: &Value) -> Option<Resource> {
    let texts = |value: &Value| list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let kind = resource["responseKind"]["kind"].as_str().filter(|kind| !kind.is_empty())?;
    let singular = match text(&resource["singularResource"]) {
        "" => kind.to_lowercase(),
        singular => singular.to_owned(),
    };
    let subresources = list(&resource["subresources"]).iter();
    Some(Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: text(&resource["resource"]).to_owned(),
        singular,
        kind: kind.to_owned(),
        short: texts(&resource["shortNames"]),
        categories: texts(&resource["categories"]),
        namespaced: resource["scope"] == "Namespaced",
        verbs: texts(&resource["verbs"]),
        subresources: subresources.map(|sub| text(&sub["subresource"]).to_owned()).collect(),
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// Some resources as a server tells them.
    pub(crate) fn some() -> Resources {
        let resource = |plural: &str, kind: &str, short: &[&str], categories: &[&str], scope: &str| {
            json!({"resource": plural, "responseKind": {"kind": kind}, "singularResource": kind.to_lowercase(), "scope": scope,
                "shortNames": short, "categories": categories, "verbs": ["get", "list", "watch"], "subresources": [{"subresource": "status"}]})
        };
        let group = |name: &str, versions: Value| json!({"metadata": {"name": name}, "versions": versions});
        let (pods, services) = (
            resource("pods", "Pod", &["po"], &["all"], "Namespaced"),
            resource("services", "Service", &["svc"], &["all"], "Namespaced"),
        );
        let (nodes, events) =
            (resource("nodes", "Node", &["no"], &[], "Cluster"), resource("events", "Event", &["ev"], &[], "Namespaced"));
        let core = group("", json!([{"version": "v1", "resources": [pods, services, nodes, events]}]));
        let apps = group(
            "apps",
            json!([{"version": "v1", "resources": [resource("deployments", "Deployment", &["deploy"], &["all"], "Namespaced")]}]),
        );
        let newer = group("events.k8s.io", json!([{"version": "v1", "resources": [events]}]));
        let policy = resource("networkpolicies", "NetworkPolicy", &["netpol"], &[], "Namespaced");
        let custom = group(
            "example.com",
            json!([
                {"version": "v2", "resources": [resource("ships", "Ship", &["sh", "po"], &["all"], "Cluster")]},
                {"version": "v1", "resources": [resource("ships", "Ship", &["sh"], &["all"], "Cluster")]},
            ]),
        );
        let net = group("networking.k8s.io", json!([{"version": "v1", "resources": [policy]}]));
        let answer = |items: Value| json!({"kind": "APIGroupDiscoveryList", "items": items});
        parse(&[answer(json!([core])), answer(json!([apps, newer, net, custom]))]).unwrap()
    }

    #[test]
    fn names() {
        let all = some();
        let check = |name: &str, expected: Option<(&str, &str)>| {
            let found = all.named(name).ok();
            assert_eq!(
                found.map(|found| (found.qualified(), found.version.as_str())),
                expected.map(|(name, version)| (name.to_owned(), version)),
                "{name}"
            );
        };
        for name in ["pods", "pod", "po", "Pod", "pods.v1."] {
            check(name, Some(("pods", "v1")));
        }
        for name in
            ["deployments", "deploy", "Deployment", "deployments.apps", "deploy.apps", "deployments.v1.apps", "deployments.app"]
        {
            check(name, Some(("deployments.apps", "v1")));
        }
        check("events", Some(("events", "v1")));
        check("ev.events.k8s.io", Some(("events.events.k8s.io", "v1")));
        check("networkpolicy", Some(("networkpolicies.networking.k8s.io", "v1")));
        check("ships", Some(("ships.example.com", "v2")));
        check("ships.v1.example.com", Some(("ships.example.com", "v1")));
        check("po.example.com", Some(("ships.example.com", "v2")));
        check("boats", None);
        check("pods.apps", None);
        check("deployments.v2.apps", None);
    }

    #[test]
    fn categories_and_paths() {
        let all = some();
        let names: Vec<_> = all.in_category("all").iter().map(|resource| resource.qualified()).collect();
        assert_eq!(names, ["pods", "services", "deployments.apps", "ships.example.com"]);
        let deployments = all.named("deploy").unwrap();
        assert_eq!(deployments.object(Some("a"), "web"), "/apis/apps/v1/namespaces/a/deployments/web");
        assert_eq!(deployments.collection(None), "/apis/apps/v1/deployments");
        assert_eq!(deployments.named("web"), "deployment.apps/web");
        assert_eq!(all.named("nodes").unwrap().object(Some("a"), "n/1"), "/api/v1/nodes/n%2F1");
        assert_eq!(all.of_kind("example.com/v1", "Ship").unwrap().version, "v1");
        assert!(all.of_kind("example.com/v3", "Ship").is_none());
    }

    #[test]
    fn an_older_server_is_told() {
        assert!(parse(&[json!({"kind": "APIVersions"})]).is_err());
    }
}
