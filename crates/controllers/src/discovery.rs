//! Which resources the API serves, asked of the API itself, so that custom and aggregated ones count too.

use client::Client;
use client::kube::core::ApiResource;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};

use crate::controller::Error;

/// One resource in its group's preferred version.
#[derive(Clone, Debug)]
pub(crate) struct Discovered {
    pub(crate) api: ApiResource,
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
}

impl Discovered {
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

/// Asks the API for all its resources, without subresources.
pub(crate) async fn discover(client: &Client) -> Result<Discovery, Error> {
    let mut discovery = Discovery::default();
    for version in client.list_core_api_versions().await?.versions {
        discovery.add(&version, client.list_core_api_resources(&version).await);
    }
    let groups = client.list_api_groups().await?.groups;
    let preferred: Vec<String> = groups
        .into_iter()
        .filter_map(|group| group.preferred_version.or(group.versions.into_iter().next()))
        .map(|version| version.group_version)
        .collect();
    let lists = join_all(preferred.iter().map(|version| client.list_api_group_resources(version))).await;
    for (version, list) in preferred.iter().zip(lists) {
        discovery.add(version, list);
    }
    Ok(discovery)
}

impl Discovery {
    fn add(&mut self, group_version: &str, list: Result<APIResourceList, client::kube::Error>) {
        match list {
            Ok(list) => {
                let main = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
                self.resources.extend(main.map(|resource| discovered(group_version, resource)));
            }
            Err(error) => {
                tracing::debug!(group_version, %error, "discovery failed");
                self.failures.push(group_version.to_owned());
            }
        }
    }
}

fn discovered(group_version: &str, resource: APIResource) -> Discovered {
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    let api = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: group_version.to_owned(),
        kind: resource.kind,
        plural: resource.name,
    };
    Discovered { api, namespaced: resource.namespaced, verbs: resource.verbs }
}
