//! Aggregated discovery: the parts of its text, one for each resource, are kept with what is served, and put together.

use std::collections::HashMap;
use std::sync::Arc;

use kinds::GroupVersionKindRef;
use registry::{Remote, Served};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Backend, Versions};

/// `APIResourceDiscovery`, in the order of upstream's fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource<'a> {
    resource: &'a str,
    response_kind: Kind<'a>,
    scope: &'static str,
    singular_resource: &'a str,
    verbs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<Subresource<'a>>,
}

/// `APISubresourceDiscovery`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subresource<'a> {
    subresource: &'a str,
    response_kind: Kind<'a>,
    verbs: Vec<&'static str>,
}

#[derive(Serialize)]
struct Kind<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

impl<'a> Kind<'a> {
    fn of((group, version, kind): GroupVersionKindRef<'a>) -> Self {
        Self { group, version, kind }
    }
}

/// The text of one resource.
struct Told(String);

fn resource(served: &Served) -> Arc<Told> {
    served.derived.get(|| {
        let def = &served.def;
        let told = Resource {
            resource: &def.plural,
            response_kind: Kind::of(def.own_kind()),
            scope: if def.namespaced { "Namespaced" } else { "Cluster" },
            singular_resource: &def.singular,
            verbs: def.offered().names(),
            short_names: def.short_names.iter().collect(),
            categories: def.categories.iter().collect(),
            subresources: def
                .subresources
                .iter()
                .map(|sub| Subresource {
                    subresource: sub.name,
                    response_kind: Kind::of(def.body_kind(Some(sub))),
                    verbs: sub.verbs.names(),
                })
                .collect(),
        };
        // Texts and lists of texts: nothing of it can fail.
        Told(serde_json::to_string(&told).unwrap_or_default())
    })
}

/// The `APIGroupDiscoveryList` of these groups.
pub(super) fn list<'a>(version: &str, groups: impl Iterator<Item = &'a (String, Versions)>) -> String {
    let mut text = format!(
        "{{\"kind\":\"APIGroupDiscoveryList\",\"apiVersion\":\"apidiscovery.k8s.io/{version}\",\"metadata\":{{}},\"items\":["
    );
    separated(&mut text, groups, |text, (name, versions)| group(text, name, versions));
    text.push_str("]}");
    text
}

fn separated<T>(text: &mut String, all: impl Iterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    for (at, one) in all.enumerate() {
        if at > 0 {
            text.push(',');
        }
        write(text, one);
    }
}

fn group(text: &mut String, name: &str, versions: &Versions) {
    let name = if name.is_empty() { String::new() } else { format!("\"name\":{},", Value::from(name)) };
    text.push_str(&format!("{{\"metadata\":{{{name}\"creationTimestamp\":null}},\"versions\":["));
    separated(text, versions.iter(), |text, (version, backend)| {
        text.push_str(&format!("{{\"version\":{},\"resources\":[", Value::from(version.as_str())));
        let fresh = match backend {
            Backend::Local(kinds) => {
                separated(text, kinds.iter(), |text, served| text.push_str(&resource(served).0));
                true
            }
            Backend::Remote(remote) => {
                let told = remote.resources.as_deref().map(|list| told(list, remote)).unwrap_or_default();
                separated(text, told.iter(), |text, one| text.push_str(&one.to_string()));
                remote.available && remote.current
            }
        };
        text.push_str(&format!("],\"freshness\":\"{}\"}}", if fresh { "Current" } else { "Stale" }));
    });
    text.push_str("]}");
}

/// A list of texts, if that is what stands there.
fn texts(resource: &Value, key: &str) -> Option<Value> {
    resource.get(key).filter(|value| value.as_array().is_some_and(|all| all.iter().all(Value::is_string))).cloned()
}

/// The resources that another server has told in the legacy form, in the form of aggregated discovery.
fn told(list: &Value, remote: &Remote) -> Vec<Value> {
    let text = |resource: &Value, key: &str| resource[key].as_str().unwrap_or_default().to_owned();
    let (mut all, mut places): (Vec<Value>, HashMap<String, usize>) = Default::default();
    for resource in list["resources"].as_array().into_iter().flatten() {
        let own = |key: &str, otherwise: &str| resource[key].as_str().unwrap_or(otherwise).to_owned();
        let kind = json!({
            "group": own("group", &remote.group), "version": own("version", &remote.version), "kind": text(resource, "kind"),
        });
        let name = text(resource, "name");
        let (plural, sub) = name.split_once('/').unwrap_or((&name, ""));
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let at = *places.entry(plural.to_owned()).or_insert(all.len());
        if at == all.len() {
            all.push(json!({"resource": plural, "scope": scope, "verbs": []}));
        }
        let known = &mut all[at];
        if !sub.is_empty() {
            let sub =
                json!({"subresource": sub, "responseKind": kind, "verbs": texts(resource, "verbs").unwrap_or_else(|| json!([]))});
            match known["subresources"].as_array_mut() {
                Some(subs) => subs.push(sub),
                None => known["subresources"] = json!([sub]),
            }
            continue;
        }
        known["responseKind"] = kind;
        known["singularResource"] = text(resource, "singularName").into();
        for key in ["verbs", "shortNames", "categories"] {
            if let Some(value) = texts(resource, key) {
                known[key] = value;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as a list may have that is read: what looks at each for each does not end within the test's time.
    #[test]
    fn many_resources_of_other_servers() {
        let remote = Remote { group: "g".into(), version: "v1".into(), ..Remote::default() };
        let resources: Vec<Value> = (0..60_000).map(|n| json!({"name": format!("n{n}"), "kind": "A"})).collect();
        assert_eq!(told(&json!({"resources": resources}), &remote).len(), 60_000);
    }

    #[test]
    fn resources_of_other_servers() {
        let remote = Remote { group: "g".into(), version: "v1".into(), ..Remote::default() };
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
            {"name": "x/scale", "namespaced": false, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
            {"name": "y", "namespaced": 1, "kind": "Y", "verbs": "get", "shortNames": [1], "categories": {"all": true}},
            {"name": "y/z", "kind": "Z", "verbs": [[]]},
        ]});
        let own = json!({"group": "g", "version": "v1", "kind": "Flunder"});
        assert_eq!(
            told(&list, &remote),
            [
                json!({"resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "responseKind": own, "verbs": ["get"],
                    "shortNames": ["fl"], "subresources": [{"subresource": "status", "responseKind": own, "verbs": ["update"]}]}),
                json!({"resource": "x", "scope": "Cluster", "verbs": [], "subresources": [{"subresource": "scale",
                    "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}, "verbs": ["get"]}]}),
                json!({"resource": "y", "singularResource": "", "scope": "Cluster", "verbs": [],
                    "responseKind": {"group": "g", "version": "v1", "kind": "Y"}, "subresources": [{"subresource": "z",
                    "responseKind": {"group": "g", "version": "v1", "kind": "Z"}, "verbs": []}]}),
            ]
        );
    }
}
