//! What is served, as clients discover it: the legacy documents and aggregated discovery (KEP-3352), all derived from
//! the catalog.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use kinds::custom::version_priority;
use registry::{Catalog, Remote, Served};
use schema::{Ordered, Schema};
use serde_json::{Map, Value, json};

use crate::aggregation::{group_priority, local_priority};

/// The document that a client asks `/api` and `/apis` for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `APIVersions`, `APIGroupList`.
    Legacy,
    /// `apidiscovery.k8s.io/v2`.
    V2,
    /// `apidiscovery.k8s.io/v2beta1`, of clients before 1.30.
    V2Beta1,
}

impl Form {
    /// The first form of an Accept header that is served.
    pub(crate) fn of(accept: &str) -> Self {
        let form = |clause: &str| {
            let has = |parameter: &str| clause.split(';').any(|part| part.trim() == parameter);
            let aggregated = has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList");
            match (clause.trim_start().starts_with("application/json"), aggregated) {
                (true, true) if has("v=v2") => Some(Self::V2),
                (true, true) if has("v=v2beta1") => Some(Self::V2Beta1),
                (_, false) => Some(Self::Legacy),
                _ => None,
            }
        };
        accept.split(',').find_map(form).unwrap_or(Self::Legacy)
    }

    /// The media type of the answer.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Legacy => "application/json",
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// The discovery documents of the catalog, made anew when it has changed.
#[derive(Default)]
pub(crate) struct Discovery(ArcSwapOption<Documents>);

impl Discovery {
    /// Of what is served now.
    pub(crate) fn of(&self, catalog: &Catalog) -> Arc<Documents> {
        if let Some(known) = self.0.load_full().filter(|known| known.generation == catalog.generation()) {
            return known;
        }
        let made = Arc::new(Documents::new(catalog));
        self.0.store(Some(made.clone()));
        made
    }
}

/// All discovery documents.
pub(crate) struct Documents {
    generation: u64,
    documents: HashMap<String, Value>,
    aggregated: HashMap<(&'static str, &'static str), (Bytes, String)>,
}

/// Groups, their versions, who serves them.
type Groups = Vec<(String, Versions)>;
type Versions = Vec<(String, Backend)>;

/// Who serves a group version.
enum Backend {
    /// This server: its kinds.
    Local(Vec<Arc<Served>>),
    /// Another one.
    Remote(Arc<Remote>),
}

/// The versions of a group, which is added when it is not there.
fn versions_of<'a>(groups: &'a mut Groups, places: &mut HashMap<String, usize>, group: &str) -> &'a mut Versions {
    let at = *places.entry(group.to_owned()).or_insert_with(|| {
        groups.push((group.to_owned(), Vec::new()));
        groups.len() - 1
    });
    &mut groups[at].1
}

fn group_up(catalog: &Catalog) -> Groups {
    let (mut groups, mut places) = (Groups::new(), HashMap::new());
    for remote in catalog.remotes() {
        let versions = versions_of(&mut groups, &mut places, &remote.group);
        versions.push((remote.version.clone(), Backend::Remote(remote.clone())));
    }
    for served in catalog.iter() {
        let (def, served) = (&served.def, served.clone());
        let versions = versions_of(&mut groups, &mut places, &def.group);
        match versions.iter_mut().find(|(version, _)| *version == def.version) {
            Some((_, Backend::Local(kinds))) => kinds.push(served),
            // It comes before what is served here.
            Some((_, Backend::Remote(_))) => {}
            None => versions.push((def.version.to_string(), Backend::Local(vec![served]))),
        }
    }
    for (group, versions) in &mut groups {
        order_versions(group, versions);
    }
    groups.sort_by_cached_key(|(group, versions)| {
        let others = versions.iter().filter_map(|(_, backend)| match backend {
            Backend::Remote(remote) => Some(remote.group_priority),
            Backend::Local(_) => None,
        });
        let own = versions.iter().any(|(_, backend)| matches!(backend, Backend::Local(_))).then(|| group_priority(group));
        (Reverse(own.into_iter().chain(others).max()), group.clone())
    });
    groups
}

fn order_versions(group: &str, versions: &mut [(String, Backend)]) {
    let of_definitions = versions.iter().all(|(_, backend)| match backend {
        Backend::Local(kinds) => kinds.iter().all(|served| served.is_custom()),
        Backend::Remote(_) => false,
    });
    let has_remote = versions.iter().any(|(_, backend)| matches!(backend, Backend::Remote(_)));
    // Definitions say nothing of the order of their group's versions.
    if of_definitions || has_remote {
        let priority = |(version, backend): &(String, Backend)| match backend {
            Backend::Remote(remote) => remote.version_priority,
            Backend::Local(kinds) => local_priority(group, version, kinds.iter().all(|served| served.is_custom())),
        };
        versions.sort_by(|a, b| (priority(b), version_priority(&b.0)).cmp(&(priority(a), version_priority(&a.0))));
    }
    for (_, backend) in versions {
        if let Backend::Local(kinds) = backend {
            kinds.sort_by(|a, b| a.def.plural.cmp(&b.def.plural));
        }
    }
}

impl Documents {
    fn new(catalog: &Catalog) -> Self {
        let groups = group_up(catalog);
        let mut documents = HashMap::new();
        let mut listed = Vec::new();
        for (group, versions) in &groups {
            for (version, backend) in versions {
                // Another server tells its resources itself.
                let Backend::Local(kinds) = backend else { continue };
                let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
                documents.insert(path, resource_list(group, version, kinds));
            }
            if !group.is_empty() {
                let document = api_group(group, versions.iter().map(|(version, _)| version.as_str()));
                listed.push(document.clone());
                let mut alone = document;
                alone["kind"] = "APIGroup".into();
                alone["apiVersion"] = "v1".into();
                documents.insert(format!("/apis/{group}"), alone);
            }
        }
        documents.insert("/api".into(), json!({"kind": "APIVersions", "versions": ["v1"]}));
        documents.insert("/apis".into(), json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}));
        let mut all = HashMap::new();
        for version in ["v2", "v2beta1"] {
            for (path, core) in [("/api", true), ("/apis", false)] {
                let items: Vec<Value> = groups
                    .iter()
                    .filter(|(group, _)| group.is_empty() == core)
                    .map(|(group, versions)| aggregated_group(group, versions))
                    .collect();
                let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items});
                // A tree of texts: nothing of it can fail.
                let text = serde_json::to_string(&Ordered::new(Schema::builtin(), &list)).unwrap_or_default();
                let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
                let tag: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
                all.insert((path, version), (Bytes::from(text), format!("\"{tag}\"")));
            }
        }
        Self { generation: catalog.generation(), documents, aggregated: all }
    }

    /// A legacy document.
    pub(crate) fn document(&self, path: &str) -> Option<&Value> {
        self.documents.get(path)
    }

    /// The paths of all legacy documents.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.documents.keys().map(String::as_str)
    }

    /// The aggregated document of `/api` or `/apis`, and its entity tag.
    pub(crate) fn aggregated(&self, path: &str, form: Form) -> (Bytes, &str) {
        let version = if form == Form::V2Beta1 { "v2beta1" } else { "v2" };
        let path = if path == "/api" { "/api" } else { "/apis" };
        self.aggregated.get(&(path, version)).map(|(body, tag)| (body.clone(), tag.as_str())).unwrap_or_default()
    }
}

/// What tells clients that the storage version of a resource has changed; the very hash of upstream, which some compare.
fn storage_version_hash((group, version, kind): (&str, &str, &str)) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{group}/{version}/{kind}").as_bytes());
    BASE64.encode(&digest.as_ref()[..8])
}

fn api_group<'a>(group: &str, versions: impl Iterator<Item = &'a str>) -> Value {
    let versions: Vec<Value> =
        versions.map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version})).collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

fn resource_list(group: &str, version: &str, kinds: &[Arc<Served>]) -> Value {
    let mut resources = Vec::new();
    for served in kinds {
        let def = &served.def;
        let mut resource = Map::new();
        resource.insert("name".into(), json!(def.plural));
        resource.insert("singularName".into(), json!(def.singular));
        resource.insert("namespaced".into(), def.namespaced.into());
        resource.insert("kind".into(), json!(def.kind));
        resource.insert("verbs".into(), json!(def.verbs.names()));
        if !def.short_names.is_empty() {
            resource.insert("shortNames".into(), json!(def.short_names));
        }
        if !def.categories.is_empty() {
            resource.insert("categories".into(), json!(def.categories));
        }
        if def.stored {
            let (group, version, kind) = served.stored_kind();
            resource.insert("storageVersionHash".into(), storage_version_hash((&group, &version, &kind)).into());
        }
        resources.push(Value::Object(resource));
        for sub in def.subresources.iter() {
            let (group, version, kind) = def.body_kind(Some(sub));
            let mut resource = json!({"name": format!("{}/{}", def.plural, sub.name), "singularName": "", "namespaced": def.namespaced, "kind": kind, "verbs": sub.verbs.names()});
            if group != def.group || version != def.version {
                resource["group"] = group.into();
                resource["version"] = version.into();
            }
            resources.push(resource);
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": apimachinery::gvk::api_version(group, version), "resources": resources})
}

fn aggregated_group(group: &str, versions: &Versions) -> Value {
    let kind = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let resource = |served: &Arc<Served>| {
        let def = &served.def;
        let mut out = json!({
            "resource": def.plural, "responseKind": kind(def.own_kind()),
            "scope": if def.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": def.singular, "verbs": def.verbs.names(),
        });
        if !def.short_names.is_empty() {
            out["shortNames"] = json!(def.short_names);
        }
        if !def.categories.is_empty() {
            out["categories"] = json!(def.categories);
        }
        if !def.subresources.is_empty() {
            let subs = def.subresources.iter();
            out["subresources"] =
                subs.map(|sub| json!({"subresource": sub.name, "responseKind": kind(def.body_kind(Some(sub))), "verbs": sub.verbs.names()})).collect();
        }
        out
    };
    let version = |(version, backend): &(String, Backend)| {
        let (fresh, resources) = match backend {
            Backend::Local(kinds) => (true, kinds.iter().map(resource).collect()),
            Backend::Remote(remote) => {
                (remote.available, remote.resources.as_deref().map(|list| told(list, remote)).unwrap_or_default())
            }
        };
        json!({"version": version, "freshness": if fresh { "Current" } else { "Stale" }, "resources": resources})
    };
    let mut metadata = json!({"creationTimestamp": null});
    if !group.is_empty() {
        metadata["name"] = group.into();
    }
    json!({"metadata": metadata, "versions": versions.iter().map(version).collect::<Vec<_>>()})
}

/// The resources that another server has told in the legacy form, in the form of aggregated discovery.
fn told(list: &Value, remote: &Remote) -> Vec<Value> {
    let text = |resource: &Value, key: &str| resource[key].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<Value> = Vec::new();
    for resource in list["resources"].as_array().into_iter().flatten() {
        let own = |key: &str, otherwise: &str| resource[key].as_str().unwrap_or(otherwise).to_owned();
        let kind = json!({
            "group": own("group", &remote.group), "version": own("version", &remote.version), "kind": text(resource, "kind"),
        });
        let name = text(resource, "name");
        let (plural, sub) = name.split_once('/').unwrap_or((&name, ""));
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let at = all.iter().position(|known| known["resource"] == plural).unwrap_or_else(|| {
            all.push(json!({"resource": plural, "scope": scope, "verbs": []}));
            all.len() - 1
        });
        let known = &mut all[at];
        if !sub.is_empty() {
            let sub = json!({"subresource": sub, "responseKind": kind, "verbs": resource["verbs"]});
            match known["subresources"].as_array_mut() {
                Some(subs) => subs.push(sub),
                None => known["subresources"] = json!([sub]),
            }
            continue;
        }
        known["responseKind"] = kind;
        known["singularResource"] = text(resource, "singularName").into();
        for key in ["verbs", "shortNames", "categories"] {
            if let Some(value) = resource.get(key).filter(|value| value.is_array()) {
                known[key] = value.clone();
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn resources_of_other_servers() {
        let remote = Remote { group: "g".into(), version: "v1".into(), ..Remote::default() };
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
            {"name": "x/scale", "namespaced": false, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]});
        let own = json!({"group": "g", "version": "v1", "kind": "Flunder"});
        assert_eq!(
            told(&list, &remote),
            [
                json!({"resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "responseKind": own, "verbs": ["get"],
                    "shortNames": ["fl"], "subresources": [{"subresource": "status", "responseKind": own, "verbs": ["update"]}]}),
                json!({"resource": "x", "scope": "Cluster", "verbs": [], "subresources": [{"subresource": "scale",
                    "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}, "verbs": ["get"]}]}),
            ]
        );
    }

    /// Hashes that a server of upstream's shows.
    #[test]
    fn storage_version_hashes() {
        let check = |kind, expected: &str| assert_eq!(storage_version_hash(kind), expected, "{kind:?}");
        check(("", "v1", "Pod"), "xPOwRZ+Yhw8=");
        check(("", "v1", "ConfigMap"), "qFsyl6wFWjQ=");
        check(("apps", "v1", "Deployment"), "8aSe+NMegvE=");
        let event = |group: &str| {
            let strategy = kinds::KINDS.iter().find(|kind| kind.def().group == group && kind.def().kind == "Event").unwrap();
            storage_version_hash(strategy.conversion().map_or(strategy.def().own_kind(), |conversion| conversion.stored))
        };
        assert_eq!([event(""), event("events.k8s.io")], ["r2yiGXH7wu8=", "r2yiGXH7wu8="]);
    }

    #[test]
    fn forms() {
        let check = |accept: &str, expected: Form| assert_eq!(Form::of(accept), expected, "{accept}");
        let (v2, beta) = (Form::V2.media_type(), Form::V2Beta1.media_type());
        check(&format!("{v2},{beta},application/json"), Form::V2);
        check(&format!("{beta},application/json"), Form::V2Beta1);
        check("application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json", Form::Legacy);
        check("application/json", Form::Legacy);
        check("", Form::Legacy);
    }
}
