//! Which resources the API serves, asked of the API itself, so that custom and aggregated ones count too.
//!
//! Aggregated discovery tells all of them in two answers: with a thousand definitions in a hundred groups an answer for each group version
//! would be asked for whenever one of them changes.

use std::collections::HashSet;

use client::Client;
use client::kube::core::ApiResource;
use http::Request;
use http::header::ACCEPT;
use serde::Deserialize;

use crate::controller::Error;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// One resource, in its group's preferred version if that has it, and else in the first that does.
#[derive(Clone, Debug)]
pub(crate) struct Discovered {
    pub(crate) api: ApiResource,
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
}

impl Discovered {
    /// A resource with no verbs.
    #[cfg(test)]
    pub(crate) fn of(api_version: &str, plural: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let [group, version, api_version] = [group, version, api_version].map(str::to_owned);
        let api = ApiResource { group, version, api_version, kind: kind.to_owned(), plural: plural.to_owned() };
        Self { api, namespaced: true, verbs: Vec::new() }
    }

    /// Whether it supports a verb.
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|one| one == verb)
    }
}

/// What was found, and the group versions that did not answer.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    pub(crate) resources: Vec<Discovered>,
    pub(crate) failures: Vec<String>,
}

/// `APIGroupDiscoveryList`, as far as it counts here.
#[derive(Deserialize)]
struct List {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Metadata,
    /// The preferred one first.
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    response_kind: Option<Kind>,
    scope: String,
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// Asks the API for all its resources, without subresources.
pub(crate) async fn discover(client: &Client) -> Result<Discovery, Error> {
    let mut discovery = Discovery::default();
    for path in ["/api", "/apis"] {
        let request = Request::get(path).header(ACCEPT, AGGREGATED).body(Vec::new()).map_err(client::kube::Error::HttpError)?;
        let list: List = client.request(request).await?;
        list.items.into_iter().for_each(|group| discovery.add(group));
    }
    Ok(discovery)
}

impl Discovery {
    /// As upstream's `ServerPreferredResources`: a group need not serve all its resources in the version that it prefers.
    fn add(&mut self, group: Group) {
        let name = group.metadata.name;
        let mut seen = HashSet::new();
        for Version { version, resources, freshness } in group.versions {
            let api_version = if name.is_empty() { version.clone() } else { format!("{name}/{version}") };
            // The server of an aggregated API that does not answer.
            if freshness == "Stale" {
                tracing::debug!(api_version, "discovery failed");
                self.failures.push(api_version);
                continue;
            }
            let new = resources.into_iter().filter(|resource| seen.insert(resource.resource.clone()));
            let discovered = new.map(|resource| Discovered {
                api: ApiResource {
                    group: name.clone(),
                    version: version.clone(),
                    api_version: api_version.clone(),
                    kind: resource.response_kind.map(|kind| kind.kind).unwrap_or_default(),
                    plural: resource.resource,
                },
                namespaced: resource.scope == "Namespaced",
                verbs: resource.verbs,
            });
            self.resources.extend(discovered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn resources_of_all_versions_are_found_each_once() {
        let version = |version: &str, freshness: &str, plurals: &[&str]| {
            let of = |plural: &&str| json!({"resource": plural, "scope": "Namespaced", "verbs": ["list"]});
            let resources: Vec<Value> = plurals.iter().map(of).collect();
            json!({"version": version, "freshness": freshness, "resources": resources})
        };
        let check = |versions: Value, resources: &[&str], failures: &[&str]| {
            let mut discovery = Discovery::default();
            discovery.add(serde_json::from_value(json!({"metadata": {"name": "g"}, "versions": versions})).unwrap());
            let found: Vec<String> =
                discovery.resources.iter().map(|one| format!("{}/{}", one.api.api_version, one.api.plural)).collect();
            assert_eq!(
                (found.as_slice(), discovery.failures.as_slice()),
                (
                    resources.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>().as_slice(),
                    failures.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>().as_slice(),
                )
            );
        };
        check(json!([]), &[], &[]);
        let gateway = json!([
            version("v1", "Current", &["gateways", "routes"]),
            version("v1beta1", "Current", &["gateways", "grants"]),
            version("v1alpha2", "Current", &["grants", "tcps"])
        ]);
        check(gateway, &["g/v1/gateways", "g/v1/routes", "g/v1beta1/grants", "g/v1alpha2/tcps"], &[]);
        // What is not known of one version may be known of another, and is a failure all the same.
        let stale = json!([version("v1", "Stale", &[]), version("v1beta1", "Current", &["grants"])]);
        check(stale, &["g/v1beta1/grants"], &["g/v1"]);
        let stale = json!([version("v1", "Current", &["a"]), version("v1beta1", "Stale", &[])]);
        check(stale, &["g/v1/a"], &["g/v1beta1"]);
    }
}
