//! What is served, as clients discover it: the legacy documents and aggregated discovery (KEP-3352), all derived from
//! the catalog.

mod aggregated;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use kinds::custom::version_priority;
use parking_lot::Mutex;
use registry::{Catalog, Remote, Served};
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

/// All discovery documents, each made when it is first asked for.
pub(crate) struct Documents {
    generation: u64,
    groups: Groups,
    legacy: Mutex<HashMap<String, Arc<Value>>>,
    aggregated: [OnceLock<(Bytes, String)>; 4],
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
        let (generation, groups) = (catalog.generation(), group_up(catalog));
        Self { generation, groups, legacy: Mutex::default(), aggregated: Default::default() }
    }

    /// A legacy document.
    pub(crate) fn document(&self, path: &str) -> Option<Arc<Value>> {
        if let Some(known) = self.legacy.lock().get(path) {
            return Some(known.clone());
        }
        let made = Arc::new(self.legacy(path)?);
        self.legacy.lock().insert(path.to_owned(), made.clone());
        Some(made)
    }

    fn legacy(&self, path: &str) -> Option<Value> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let (group, version) = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            ("api", None, ..) => return Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
            ("apis", None, ..) => return Some(self.group_list()),
            ("api", Some(version), None, _) => ("", Some(version)),
            ("apis", Some(group), version, None) if !group.is_empty() => (group, version),
            _ => return None,
        };
        let (_, versions) = self.groups.iter().find(|(name, _)| name == group)?;
        let Some(version) = version else {
            let mut alone = api_group(group, versions);
            alone["kind"] = "APIGroup".into();
            alone["apiVersion"] = "v1".into();
            return Some(alone);
        };
        match versions.iter().find(|(name, _)| name == version)? {
            (_, Backend::Local(kinds)) => Some(resource_list(group, version, kinds)),
            // Another server tells its resources itself.
            (_, Backend::Remote(_)) => None,
        }
    }

    fn group_list(&self) -> Value {
        let groups = self.groups.iter().filter(|(group, _)| !group.is_empty());
        let listed: Vec<Value> = groups.map(|(group, versions)| api_group(group, versions)).collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
    }

    /// The paths of all legacy documents.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut all = vec!["/api".to_owned(), "/apis".to_owned()];
        for (group, versions) in &self.groups {
            let base = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
            let local = versions.iter().filter(|(_, backend)| matches!(backend, Backend::Local(_)));
            all.extend(local.map(|(version, _)| format!("{base}/{version}")));
            all.extend((!group.is_empty()).then_some(base));
        }
        all
    }

    /// The aggregated document of `/api` or `/apis`, and its entity tag.
    pub(crate) fn aggregated(&self, path: &str, form: Form) -> (Bytes, &str) {
        let (core, beta) = (path == "/api", form == Form::V2Beta1);
        let place = &self.aggregated[usize::from(core) * 2 + usize::from(beta)];
        let (body, tag) = place.get_or_init(|| {
            let groups = self.groups.iter().filter(|(group, _)| group.is_empty() == core);
            let text = aggregated::list(if beta { "v2beta1" } else { "v2" }, groups);
            let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            let tag: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
            (text.into(), format!("\"{tag}\""))
        });
        (body.clone(), tag)
    }
}

/// What tells clients that the storage version of a resource has changed; the very hash of upstream, which some compare.
fn storage_version_hash((group, version, kind): (&str, &str, &str)) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{group}/{version}/{kind}").as_bytes());
    BASE64.encode(&digest.as_ref()[..8])
}

fn api_group(group: &str, versions: &Versions) -> Value {
    let of = |(version, _): &(String, Backend)| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(of).collect();
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
        resource.insert("verbs".into(), json!(def.offered().names()));
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
