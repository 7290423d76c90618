//! What is served, as clients discover it: the legacy documents and aggregated discovery (KEP-3352), all derived from
//! the catalog.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use kinds::custom::version_priority;
use registry::{Catalog, Served};
use schema::{Ordered, Schema};
use serde_json::{Map, Value, json};

/// The order in which groups are listed; others follow by name.
const ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

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

/// Groups, their versions, their kinds.
type Groups = Vec<(String, Versions)>;
type Versions = Vec<(String, Vec<Arc<Served>>)>;

fn group_up(catalog: &Catalog) -> Groups {
    let mut groups: Groups = Vec::new();
    let mut places = HashMap::new();
    for served in catalog.iter() {
        let (def, served) = (&served.def, served.clone());
        let at = *places.entry(def.group.to_string()).or_insert_with(|| {
            groups.push((def.group.to_string(), Vec::new()));
            groups.len() - 1
        });
        let versions = &mut groups[at].1;
        match versions.iter_mut().find(|(version, _)| *version == def.version) {
            Some((_, kinds)) => kinds.push(served),
            None => versions.push((def.version.to_string(), vec![served])),
        }
    }
    let place = |group: &str| ORDER.iter().position(|known| *known == group).unwrap_or(ORDER.len());
    groups.sort_by(|(a, _), (b, _)| (place(a), a).cmp(&(place(b), b)));
    for (group, versions) in &mut groups {
        // Definitions say nothing of the order of their group's versions.
        if place(group) == ORDER.len() {
            versions.sort_by(|(a, _), (b, _)| version_priority(b).cmp(&version_priority(a)));
        }
        for (_, kinds) in versions {
            kinds.sort_by(|a, b| a.def.plural.cmp(&b.def.plural));
        }
    }
    groups
}

impl Documents {
    fn new(catalog: &Catalog) -> Self {
        let groups = group_up(catalog);
        let mut documents = HashMap::new();
        let mut listed = Vec::new();
        for (group, versions) in &groups {
            for (version, kinds) in versions {
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
    let version = |(version, kinds): &(String, Vec<Arc<Served>>)| json!({"version": version, "freshness": "Current", "resources": kinds.iter().map(resource).collect::<Vec<_>>()});
    let mut metadata = json!({"creationTimestamp": null});
    if !group.is_empty() {
        metadata["name"] = group.into();
    }
    json!({"metadata": metadata, "versions": versions.iter().map(version).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
