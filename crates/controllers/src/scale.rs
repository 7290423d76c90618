//! Sizes of sets of pods: the scale sub-resource of any kind that has one, custom resources too.

use std::collections::HashMap;

use client::Client;
use client::kube::api::PostParams;
use client::kube::core::{ApiResource, DynamicObject};
use client::kube::{self, Api};
use client::segment;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use parking_lot::Mutex;

/// Why the size is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    #[error("no matches for kind \"{kind}\" in group \"{group}\"")]
    NoKind { kind: String, group: String },
    #[error("{}", client::why(.0))]
    Api(#[from] kube::Error),
}

/// The resources of kinds that have a size, as discovery has told them.
#[derive(Default)]
pub(crate) struct Resources(Mutex<HashMap<(String, String), ApiResource>>);

impl Resources {
    /// The size, and where it stands.
    pub(crate) async fn scale(
        &self,
        client: &Client,
        namespace: &str,
        target: &CrossVersionObjectReference,
    ) -> Result<(Api<DynamicObject>, Scale), ScaleError> {
        let resource = self.resource(client, target).await?;
        let api = Api::namespaced_with(client.clone(), namespace, &resource);
        match api.get_scale(&segment(&target.name)?).await {
            Ok(scale) => Ok((api, scale)),
            Err(error) => {
                // The kind may be another by now.
                self.0.lock().remove(&key(target));
                Err(error.into())
            }
        }
    }

    /// The resource of a kind.
    pub(crate) async fn resource(
        &self,
        client: &Client,
        target: &CrossVersionObjectReference,
    ) -> Result<ApiResource, ScaleError> {
        if let Some(known) = self.0.lock().get(&key(target)) {
            return Ok(known.clone());
        }
        let version = version(target);
        let (group, bare) = version.split_once('/').unwrap_or(("", version));
        let list = match group.is_empty() {
            true => client.list_core_api_resources(version).await,
            false => client.list_api_group_resources(version).await,
        };
        let resources = match list {
            Ok(list) => list.resources,
            Err(kube::Error::Api(status)) if status.is_not_found() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let is_target = |one: &APIResource| one.kind == target.kind && !one.name.contains('/');
        let found = resources.into_iter().find(is_target);
        let found = found.ok_or_else(|| ScaleError::NoKind { kind: target.kind.clone(), group: group.to_owned() })?;
        let resource = ApiResource {
            group: group.to_owned(),
            version: bare.to_owned(),
            api_version: version.to_owned(),
            kind: found.kind,
            plural: found.name,
        };
        self.0.lock().insert(key(target), resource.clone());
        Ok(resource)
    }
}

/// Sets the size.
pub(crate) async fn resize(api: &Api<DynamicObject>, mut scale: Scale, replicas: i32) -> kube::Result<Scale> {
    let name = scale.metadata.name.clone().unwrap_or_default();
    scale.spec.get_or_insert_default().replicas = Some(replicas);
    api.replace_scale(&name, &PostParams::default(), &scale).await
}

fn version(target: &CrossVersionObjectReference) -> &str {
    target.api_version.as_deref().filter(|version| !version.is_empty()).unwrap_or("v1")
}

fn key(target: &CrossVersionObjectReference) -> (String, String) {
    (version(target).to_owned(), target.kind.clone())
}
