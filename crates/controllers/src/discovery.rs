//! Which resources the API serves, asked of the API itself, so that custom and aggregated ones count too.
//!
//! Aggregated discovery tells all of them in two answers: with a thousand definitions in a hundred groups an answer for each group version
//! would be asked for whenever one of them changes.

use client::Client;
use client::kube::core::ApiResource;
use http::Request;
use http::header::ACCEPT;
use serde::Deserialize;

use crate::controller::Error;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// One resource in its group's preferred version.
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
    fn add(&mut self, group: Group) {
        let name = group.metadata.name;
        let Some(preferred) = group.versions.into_iter().next() else { return };
        let api_version = if name.is_empty() { preferred.version.clone() } else { format!("{name}/{}", preferred.version) };
        // The server of an aggregated API that does not answer.
        if preferred.freshness == "Stale" {
            tracing::debug!(api_version, "discovery failed");
            return self.failures.push(api_version);
        }
        let discovered = preferred.resources.into_iter().map(|resource| Discovered {
            api: ApiResource {
                group: name.clone(),
                version: preferred.version.clone(),
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
