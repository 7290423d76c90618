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

/// How often a size is set that somebody else writes to: upstream's DefaultRetry.
const ATTEMPTS: usize = 5;

/// Sets the size. What was written to since it was read is read again, as long as its size is the one that `scale` says: for another one, nobody
/// has decided anything.
pub(crate) async fn resize(api: &Api<DynamicObject>, mut scale: Scale, replicas: i32) -> kube::Result<Scale> {
    let name = scale.metadata.name.clone().unwrap_or_default();
    let size = |scale: &Scale| scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let before = size(&scale);
    for attempt in 1.. {
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        let conflict = match api.replace_scale(&name, &PostParams::default(), &scale).await {
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => status,
            done => return done,
        };
        scale = api.get_scale(&name).await?;
        if size(&scale) != before {
            return Err(kube::Error::Api(conflict));
        }
    }
    Ok(scale)
}

fn version(target: &CrossVersionObjectReference) -> &str {
    target.api_version.as_deref().filter(|version| !version.is_empty()).unwrap_or("v1")
}

fn key(target: &CrossVersionObjectReference) -> (String, String) {
    (version(target).to_owned(), target.kind.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object};

    /// kubernetes#132007: a conflict is no failure where the next attempt succeeds.
    #[tokio::test]
    async fn what_was_written_to_is_read_again() {
        let world = World::new();
        let deployment = |replicas: i32, note: &str| -> Deployment {
            object(json!({"metadata": {"namespace": "a", "name": "d", "uid": "d", "annotations": {"note": note}},
                "spec": {"replicas": replicas, "selector": {}, "template": {}}}))
        };
        world.fake.put(&deployment(2, "read"));
        let target =
            CrossVersionObjectReference { api_version: Some("apps/v1".into()), kind: "Deployment".into(), name: "d".into() };
        let (resources, client) = (Resources::default(), world.fake.client());
        let check = async |now: &Deployment, expected: Option<i32>| {
            world.fake.put(&deployment(2, "read"));
            let (api, scale) = resources.scale(&client, "a", &target).await.unwrap();
            world.fake.put(now);
            let done = resize(&api, scale, 5).await;
            assert_eq!(done.ok().and_then(|scale| scale.spec?.replicas), expected);
        };
        check(&deployment(2, "changed"), Some(5)).await;
        // Somebody has set another size, perhaps none: "scaling is disabled since the replica count of the target is zero".
        check(&deployment(0, "changed"), None).await;
    }
}
